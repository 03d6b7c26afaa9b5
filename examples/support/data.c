/* data.c: a data set, wherever it comes from: its memory, the drawn shapes,
   and how it is opened. See support.h.

   Every picture is held in planes of bytes. Those of a folder are made
   smaller while they are read: test images to the size that is asked for,
   training images to about twice that, so that a crop has some detail left,
   or to less where there are many of them. */
#include "data.h"
#include "shapes.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* -------------------------------------------------------------- memory */

void *data_memory(size_t count, size_t bytes)
{
    void *p = bytes != 0 && count > SIZE_MAX / bytes ? NULL
        : calloc(count > 0 ? count : 1, bytes);

    if (p == NULL)
        fail("no memory for %.0f MB of images; use a smaller --image or "
            "fewer images", (double)count * (double)bytes / 1048576);
    return p;
}

void *data_keep(data_set *d, void *p)
{
    /* A power of two: the list is full. */
    if ((d->blocks & (d->blocks - 1)) == 0) {
        void **more = (void **)realloc(d->block,
            (d->blocks > 0 ? 2 * d->blocks : 1) * sizeof(void *));
        if (more == NULL) fail("no memory for the list of images");
        d->block = more;
    }
    d->block[d->blocks++] = p;
    return p;
}

void data_make_split(data_set *d, data_split *split, size_t count)
{
    if (count > INT32_MAX)
        fail("%.0f images are more than can be numbered here",
            (double)count);
    split->image = (picture *)data_keep(d, data_memory(count, sizeof(picture)));
    split->label = (int32_t *)data_keep(d, data_memory(count, sizeof(int32_t)));
    split->count = count;
}

void data_name_class(data_set *d, int32_t at, const char *name)
{
    const size_t bytes = strlen(name) + 1;

    d->class_name[at] = (char *)data_keep(d, data_memory(bytes, 1));
    memcpy(d->class_name[at], name, bytes);
}

void data_make_classes(data_set *d, int32_t count)
{
    d->classes = count;
    d->class_name = (char **)data_keep(d,
        data_memory((size_t)count, sizeof(char *)));
}

void data_close(data_set *d)
{
    size_t i;

    for (i = 0; i < d->blocks; i++) free(d->block[i]);
    free(d->block);
    memset(d, 0, sizeof *d);
}

void data_hash_name(uint64_t *hash, const char *name)
{
    const char *end = name + strlen(name) + 1;

    if (*hash == 0) *hash = 14695981039346656037u;
    for (; name < end; name++)
        *hash = (*hash ^ (unsigned char)*name) * 1099511628211u;
}

void data_spread(const data_set *d, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    smask_threads pool;
    smask_parallel hook;
    int i;

    if (d->threads == 1 || smask_threads_start(&pool, d->threads) != SMASK_OK) {
        for (i = 0; i < count; i++) fn(arg, i, 0);
        return;
    }
    hook = smask_threads_hook(&pool);
    hook.run(hook.user, count, fn, arg);
    smask_threads_stop(&pool);
}

/* --------------------------------------------------------------- shapes */

#define SHAPES 4000                  /* training images, unless told       */
#define SHAPES_SIDE 128              /* larger images are enlarged         */
#define SHAPES_SEED 20211221         /* the day the paper appeared         */

typedef struct painting {
    const data_set *d;
    data_split *split;
    uint8_t *pixels;
    int32_t side;
    int test;
} painting;

/* Image i is of class i mod 10 and follows from its number alone. */
static void paint_one(void *arg, int at, int worker)
{
    const painting *p = (const painting *)arg;
    uint8_t *out = p->pixels + (size_t)at * (size_t)p->d->channels
        * (size_t)p->side * (size_t)p->side;
    smask_random random;

    (void)worker;
    random_at(&random, SHAPES_SEED, p->test, (uint64_t)at);
    shapes_paint(&random, at % SHAPES_CLASSES, p->side, p->d->channels, out);
    p->split->image[at].pixels = out;
    p->split->image[at].width = p->split->image[at].height = p->side;
    p->split->label[at] = at % SHAPES_CLASSES;
}

static void paint_split(data_set *d, data_split *split, int count, int test)
{
    painting p;

    p.d = d;
    p.split = split;
    p.test = test;
    p.side = d->image < SHAPES_SIDE ? d->image : SHAPES_SIDE;
    p.pixels = (uint8_t *)data_keep(d, data_memory((size_t)count,
        (size_t)d->channels * (size_t)p.side * (size_t)p.side));
    data_make_split(d, split, (size_t)count);
    data_spread(d, count, paint_one, &p);
}

static void open_shapes(data_set *d, const char *path)
{
    long count = SHAPES;
    char *end;
    int32_t i;

    if (path[6] == ':') {
        count = strtol(path + 7, &end, 10);
        if (path[7] == '\0' || *end != '\0' || count < 40 || count > 1000000)
            fail("--data %s: give shapes:N, N training images, 40 .. "
                "1000000", path);
    }
    data_make_classes(d, SHAPES_CLASSES);
    for (i = 0; i < SHAPES_CLASSES; i++) data_name_class(d, i, shapes_name[i]);
    paint_split(d, &d->train, (int)count, 0);
    paint_split(d, &d->test, (int)(count / 4), 1);
}

/* ----------------------------------------------------------------- open */

/* Mean and standard deviation of each channel of the training images. Sums
   of whole numbers: exact, in any order. */
static void measure(data_set *d)
{
    int32_t c;
    size_t i, k;

    for (c = 0; c < d->channels; c++) {
        uint64_t count = 0, sum = 0, squares = 0;
        double mean, spare;

        for (i = 0; i < d->train.count; i++) {
            const picture *p = &d->train.image[i];
            const size_t plane = (size_t)p->width * (size_t)p->height;
            const uint8_t *x = p->pixels + (size_t)c * plane;
            for (k = 0; k < plane; k++) {
                sum += x[k];
                squares += (uint64_t)x[k] * x[k];
            }
            count += plane;
        }
        mean = (double)sum / (double)count;
        spare = (double)squares / (double)count - mean * mean;
        d->mean[c] = (float)(mean / 255);
        /* A channel that never changes is not to be divided by nothing. */
        d->deviation[c] = spare > 0.25 ? (float)(sqrt(spare) / 255) : 1;
    }
}

void data_open(data_set *d, const char *path, int32_t image,
    int32_t channels)
{
    names files, folders, train, test;
    struct stat about;
    char idx[1100];
    size_t i;

    if (channels != 1 && channels != 3)
        fail("--data: images have 1 or 3 channels, the model takes %d; use "
            "another model", (int)channels);
    d->image = image;
    d->channels = channels;
    d->path_bytes = strlen(path);
    if (strcmp(path, "shapes") == 0 || strncmp(path, "shapes:", 7) == 0) {
        open_shapes(d, path);
        measure(d);
        return;
    }
    if (stat(path, &about) != 0)
        fail("--data %s: %s; give shapes or the path of a folder", path,
            strerror(errno));
    if (!S_ISDIR(about.st_mode))
        fail("--data %s: is a file; give the folder it is in", path);
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    memset(&train, 0, sizeof train);
    memset(&test, 0, sizeof test);
    folder_list(path, &files, &folders);
    for (i = 0; i < files.count; i++) {
        const char *name = files.item[i];
        const size_t length = strlen(name);
        if (strncmp(name, "data_batch_", 11) == 0 && length > 15
            && strcmp(name + length - 4, ".bin") == 0)
            names_add(&train, "", name);
        if (strcmp(name, "test_batch.bin") == 0) names_add(&test, "", name);
        if (strncmp(name, "train-images", 12) == 0 && length > 3
            && strcmp(name + length - 3, ".gz") == 0
            && !idx_find(idx, path, "train-images", "idx3"))
            fail("--data %s: its files are compressed; unpack them: "
                "gunzip %s/*.gz", path, path);
    }
    if (train.count > 0) open_cifar(d, path, &train, &test);
    else if (test.count > 0)
        fail("--data %s: has a test_batch.bin, but no data_batch_1.bin; get "
            "that too", path);
    else if (idx_find(idx, path, "train-images", "idx3"))
        open_idx(d, path);
    else open_folder(d, path);
    names_free(&files);
    names_free(&folders);
    names_free(&train);
    names_free(&test);
    measure(d);
}

void data_needs_classes(const data_set *d, const char *path)
{
    if (d->classes < 2)
        fail("--data %s: has one class; give a folder for each class, two "
            "or more", path);
    if (d->test.count < 1)
        fail("--data %s: has no test images; put some of each class under "
            "val beside train", path);
}

void data_batch(const data_set *d, int test, const int32_t *which,
    int32_t count, const float *mean, const float *deviation, float *images)
{
    const picture *from = test ? d->test.image : d->train.image;
    const size_t pixels = (size_t)d->channels * (size_t)d->image
        * (size_t)d->image;
    float scale[4], shift[4];
    double window[4];
    int32_t i, c;

    for (c = 0; c < d->channels; c++) {
        scale[c] = 1 / (255 * deviation[c]);
        shift[c] = -mean[c] / deviation[c];
    }
    for (i = 0; i < count; i++) {
        picture_middle(&from[which[i]], window);
        picture_resample(&from[which[i]], d->channels, window, 0, d->image,
            d->image, scale, shift, images + (size_t)i * pixels);
    }
}
