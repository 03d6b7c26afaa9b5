/* records.c: data sets that come as a few files of many small images: the
   binary form of CIFAR-10, and IDX, which is MNIST's. */
#include "data.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------- CIFAR-10's own form */

#define CIFAR_PLANE 1024
#define CIFAR_RECORD (1 + 3 * CIFAR_PLANE)

/* Add the records of a file: a label, then planes of red, green, blue. The
   pictures point into the file's own bytes. */
static void cifar_file(data_set *d, const char *path, uint8_t *data,
    size_t bytes, data_split *split, size_t *at)
{
    size_t i, k;

    for (i = 0; i < bytes / CIFAR_RECORD; i++, (*at)++) {
        uint8_t *pixels = data + i * CIFAR_RECORD + 1;
        if (pixels[-1] >= 10)
            fail("%s: image %lu has the label %d, above 9; this is no "
                "CIFAR-10 file, or it is damaged", path, (unsigned long)i,
                pixels[-1]);
        for (k = 0; k < CIFAR_PLANE && d->channels == 1; k++)
            pixels[k] = grey_of(pixels[k], pixels[CIFAR_PLANE + k],
                pixels[2 * CIFAR_PLANE + k]);
        split->image[*at].pixels = pixels;
        split->image[*at].width = split->image[*at].height = 32;
        split->label[*at] = pixels[-1];
    }
}

static void cifar_split(data_set *d, const char *folder, const names *files,
    data_split *split)
{
    uint8_t **data = (uint8_t **)data_memory(files->count, sizeof *data);
    size_t *bytes = (size_t *)data_memory(files->count, sizeof *bytes);
    size_t i, count = 0, at = 0;
    char path[1100], why[256];

    for (i = 0; i < files->count; i++) {
        path_join(path, folder, files->item[i]);
        data[i] = file_read(path, 1e18, &bytes[i], why, sizeof why);
        if (data[i] == NULL) fail("%s: %s", path, why);
        data_keep(d, data[i]);
        if (bytes[i] == 0 || bytes[i] % CIFAR_RECORD != 0)
            fail("%s: %lu bytes are not a whole number of records of %d; "
                "the file is cut short: get it again", path,
                (unsigned long)bytes[i], CIFAR_RECORD);
        count += bytes[i] / CIFAR_RECORD;
    }
    data_make_split(d, split, count);
    for (i = 0; i < files->count && split == &d->train; i++)
        data_hash_name(&d->names_hash, files->item[i]);
    for (i = 0; i < files->count; i++)
        cifar_file(d, path_join(path, folder, files->item[i]), data[i],
            bytes[i], split, &at);
    free(data);
    free(bytes);
}

void open_cifar(data_set *d, const char *path, const names *train,
    const names *test)
{
    static const char *const name[] = { "airplane", "automobile", "bird",
        "cat", "deer", "dog", "frog", "horse", "ship", "truck" };
    int32_t i;

    data_make_classes(d, 10);
    for (i = 0; i < 10; i++) data_name_class(d, i, name[i]);
    cifar_split(d, path, train, &d->train);
    if (test->count > 0) cifar_split(d, path, test, &d->test);
}

/* ---------------------------------------------------------- IDX (MNIST) */

int idx_find(char path[1100], const char *folder, const char *which,
    const char *kind)
{
    char name[64];

    snprintf(name, sizeof name, "%s-%s-ubyte", which, kind);
    if (path_is_file(path_join(path, folder, name))) return 1;
    snprintf(name, sizeof name, "%s.%s-ubyte", which, kind);
    return path_is_file(path_join(path, folder, name));
}

/* An IDX file of bytes of the given rank: checks that its shape and its
   length agree. */
static uint8_t *read_idx(data_set *d, const char *path, unsigned rank,
    size_t shape[3])
{
    uint8_t *data;
    size_t bytes, head = 4 + 4 * rank;
    double wanted;
    char why[256];
    unsigned i;

    data = file_read(path, 1e18, &bytes, why, sizeof why);
    if (data == NULL) fail("%s: %s", path, why);
    data_keep(d, data);
    if (bytes < head || data[0] != 0 || data[1] != 0 || data[2] != 8
        || data[3] != rank)
        fail("%s: not an IDX file of bytes with %u dimensions%s", path, rank,
            bytes > 1 && data[0] == 0x1f && data[1] == 0x8b
            ? ": it is compressed; use gunzip" : "");
    wanted = (double)head;
    shape[0] = shape[1] = shape[2] = 1;
    for (i = 0; i < rank; i++) shape[i] = big_endian(data + 4 + 4 * i, 4);
    wanted += (double)shape[0] * (double)shape[1] * (double)shape[2];
    if ((double)bytes != wanted)
        fail("%s: %.0f bytes by its header, but there are %lu; the file is "
            "damaged: get it again", path, wanted, (unsigned long)bytes);
    return data + head;
}

static void idx_split(data_set *d, const char *folder, const char *which,
    data_split *split)
{
    char path[1100], name[32];
    size_t shape[3], labels[3], plane, i;
    uint8_t *pixels, *label;
    int32_t c;

    snprintf(name, sizeof name, "%s-images", which);
    idx_find(path, folder, name, "idx3");
    pixels = read_idx(d, path, 3, shape);
    plane = shape[1] * shape[2];
    if (shape[0] < 1) fail("%s: has no images", path);
    if (shape[1] < 1 || shape[2] < 1
        || shape[1] > MOST_SIDE || shape[2] > MOST_SIDE)
        fail("%s: images of %lu x %lu pixels cannot be used", path,
            (unsigned long)shape[1], (unsigned long)shape[2]);
    snprintf(name, sizeof name, "%s-labels", which);
    if (!idx_find(path, folder, name, "idx1"))
        fail("%s-labels-idx1-ubyte is missing in %s; it belongs to the "
            "images", which, folder);
    label = read_idx(d, path, 1, labels);
    if (labels[0] != shape[0])
        fail("%s: %lu labels for %lu images; the files do not belong "
            "together", path, (unsigned long)labels[0],
            (unsigned long)shape[0]);
    data_make_split(d, split, shape[0]);
    if (d->channels == 3) {
        uint8_t *colour = plane > SIZE_MAX / 3 / shape[0] ? NULL
            : (uint8_t *)malloc(shape[0] * 3 * plane);
        if (colour == NULL)
            fail("%s-images: there is no memory for %.0f MB, its images in "
                "colour; use fewer images", which,
                3 * (double)shape[0] * (double)plane / 1e6);
        data_keep(d, colour);
        for (i = 0; i < shape[0]; i++)
            for (c = 0; c < 3; c++)
                memcpy(colour + (3 * i + (size_t)c) * plane,
                    pixels + i * plane, plane);
        pixels = colour;
        plane *= 3;
    }
    for (i = 0; i < shape[0]; i++) {
        split->image[i].pixels = pixels + i * plane;
        split->image[i].width = (int32_t)shape[2];
        split->image[i].height = (int32_t)shape[1];
        split->label[i] = label[i];
        if (label[i] >= d->classes) d->classes = label[i] + 1;
    }
}

void open_idx(data_set *d, const char *path)
{
    char test[1100], number[16];
    int32_t i;

    idx_split(d, path, "train", &d->train);
    if (idx_find(test, path, "t10k-images", "idx3"))
        idx_split(d, path, "t10k", &d->test);
    data_make_classes(d, d->classes);
    for (i = 0; i < d->classes; i++) {
        snprintf(number, sizeof number, "%d", (int)i);
        data_name_class(d, i, number);
    }
}
