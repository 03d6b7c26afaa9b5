/* classes.c: folders of images to one data set: which folders are classes,
   which images are for testing. See data_open in support.h. */
#include "data.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Better told once, before any work, than for every file. */
static void need_decoder(const char *path, const names *files)
{
    const char *lacks;
    size_t i;

    for (i = 0; i < files->count; i++)
        if ((lacks = decode_lacks(files->item[i])) != NULL)
            fail("--data %s: %s", path, lacks);
}

/* Files and labels of one split, before anything is read. */
typedef struct listing {
    names files;
    int32_t *label;
    size_t space;
} listing;

static void list_images(listing *l, const char *path, const visited *roots,
    int32_t label)
{
    const size_t before = l->files.count;
    size_t i;

    folder_images(path, roots, &l->files);
    if (l->files.count == before) return;
    names_sort(&l->files, before);
    if (l->files.count > l->space) {
        int32_t *more = (int32_t *)realloc(l->label,
            2 * l->files.count * sizeof(int32_t));
        if (more == NULL) fail("no memory for the list of files");
        l->label = more;
        l->space = 2 * l->files.count;
    }
    for (i = before; i < l->files.count; i++) l->label[i] = label;
}

static void list_free(listing *l)
{
    names_free(&l->files);
    free(l->label);
}

/* A folder and those in it, each a class: a link in one class to another
   would give its images two labels. */
static void add_roots(const char *path, const names *folders, visited *roots)
{
    char full[1100];
    size_t i;

    visited_add(roots, path);
    for (i = 0; i < folders->count; i++)
        visited_add(roots, path_join(full, path, folders->item[i]));
}

/* The folders below `path` that hold images, added to the classes. */
static void find_classes(const char *path, names *classes)
{
    names files, folders, images;
    visited roots;
    char full[1100];
    size_t i, k;

    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    memset(&roots, 0, sizeof roots);
    folder_list(path, &files, &folders);
    add_roots(path, &folders, &roots);
    for (i = 0; i < folders.count; i++) {
        memset(&images, 0, sizeof images);
        folder_images(path_join(full, path, folders.item[i]), &roots, &images);
        for (k = 0; k < classes->count; k++)
            if (strcmp(classes->item[k], folders.item[i]) == 0) break;
        if (images.count > 0 && k == classes->count)
            names_add(classes, "", folders.item[i]);
        names_free(&images);
    }
    visited_free(&roots);
    names_free(&files);
    names_free(&folders);
}

/* All images of a split, class by class. Of what lies beside the folders of
   the classes nobody knows what it is. */
static void list_split(listing *l, const char *path, const names *classes)
{
    names files, folders;
    visited roots;
    char full[1100];
    size_t i, k, beside = 0;

    if (classes->count == 0) {
        list_images(l, path, NULL, 0);
        return;
    }
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    memset(&roots, 0, sizeof roots);
    folder_list(path, &files, &folders);
    add_roots(path, &folders, &roots);
    for (k = 0; k < classes->count; k++)
        if (path_is_folder(path_join(full, path, classes->item[k])))
            list_images(l, full, &roots, (int32_t)k);
    for (i = 0; i < files.count; i++) beside += image_kind(files.item[i]) > 0;
    if (beside > 0)
        warn("%s: %lu images beside the folders of the classes are left out",
            path, (unsigned long)beside);
    visited_free(&roots);
    names_free(&files);
    names_free(&folders);
}

/* Which class is what, so that a folder that was taken for something else
   than it is can be seen at once. */
static void tell_classes(const data_set *d, const char *path, int held_out)
{
    char line[600] = "";
    size_t i, at = 0;
    int32_t k;

    for (k = 0; k < d->classes; k++) {
        size_t train = 0, test = 0;
        for (i = 0; i < d->train.count; i++) train += d->train.label[i] == k;
        for (i = 0; i < d->test.count; i++) test += d->test.label[i] == k;
        if (train == 0 && test > 0)
            warn("--data %s: class %s has test images, but none to learn "
                "from", path, d->class_name[k]);
        if (at + 120 > sizeof line) continue;
        at += (size_t)snprintf(line + at, sizeof line - at, "%s %.60s %lu",
            k > 0 ? "," : "", d->class_name[k], (unsigned long)train);
        if (d->test.count > 0)
            at += (size_t)snprintf(line + at, sizeof line - at, "+%lu",
                (unsigned long)test);
        if (at + 120 > sizeof line && k + 1 < d->classes)
            strcat(line, ", ...");
    }
    warn("--data %s: %d %s, %s:%s%s", path, (int)d->classes,
        d->classes == 1 ? "class" : "classes",
        d->test.count > 0 ? "training + test images" : "training images",
        line, held_out ? " (every fifth is for testing)" : "");
}

/* Move every fifth image of each class to the test split. */
static void hold_out(listing *train, listing *test)
{
    size_t i, kept = 0, number = 0;
    int32_t last = -1;

    test->label = (int32_t *)data_memory(train->files.count, sizeof(int32_t));
    for (i = 0; i < train->files.count; i++) {
        char *path = train->files.item[i];
        const int32_t label = train->label[i];

        if (label != last) number = 0;
        last = label;
        if (++number % 5 == 0) {
            test->label[test->files.count] = label;
            names_add(&test->files, "", path);
            free(path);
        } else {
            train->label[kept] = label;
            train->files.item[kept++] = path;
        }
    }
    train->files.count = kept;
}

/* PATH/name, in whatever case it is written; 0 if there is none. */
static int find_folder(char found[1100], const char *path, const char *name)
{
    names files, folders;
    size_t i;

    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    folder_list(path, &files, &folders);
    for (i = 0; i < folders.count; i++)
        if (strcasecmp(folders.item[i], name) == 0) break;
    if (i < folders.count) path_join(found, path, folders.item[i]);
    else found[0] = '\0';
    names_free(&files);
    names_free(&folders);
    return found[0] != '\0';
}

void open_folder(data_set *d, const char *path)
{
    static const char *const other[] = { "val", "test", "valid",
        "validation" };
    char train_path[1100], test_path[1100] = "";
    names classes;
    listing train, test;
    size_t i, others;
    int held_out = 0;

    memset(&classes, 0, sizeof classes);
    memset(&train, 0, sizeof train);
    memset(&test, 0, sizeof test);
    if (find_folder(train_path, path, "train")) {
        find_classes(train_path, &classes);
        for (i = 0; i < 4; i++)
            if (find_folder(test_path, path, other[i])) break;
        if (classes.count > 0 && test_path[0] != '\0')
            find_classes(test_path, &classes);
    } else {
        if (strlen(path) >= sizeof train_path)
            fail("--data: the path is too long; move the folder");
        memcpy(train_path, path, strlen(path) + 1);
        find_classes(path, &classes);
        held_out = classes.count > 1;
    }
    names_sort(&classes, 0);
    list_split(&train, train_path, &classes);
    others = train.files.others;
    if (test_path[0] != '\0') list_split(&test, test_path, &classes);
    else if (held_out) hold_out(&train, &test);
    if (train.files.count == 0)
        fail("--data %s: nothing there that can be read: neither CIFAR-10's "
            "data_batch_1.bin, nor train-images-idx3-ubyte, nor images "
            "(JPEG, PNG, BMP, PPM, PGM) in train/CLASS or below it", path);
    need_decoder(path, &train.files);
    need_decoder(path, &test.files);

    data_make_classes(d, classes.count > 0 ? (int32_t)classes.count : 1);
    for (i = 0; i < classes.count; i++)
        data_name_class(d, (int32_t)i, classes.item[i]);
    if (classes.count == 0) data_name_class(d, 0, "images");
    images_read(d, &d->train, &train.files, train.label, 0);
    if (test.files.count > 0)
        images_read(d, &d->test, &test.files, test.label, 1);
    if (d->skipped > 0)
        warn("--data %s: %lu of %lu files skipped", path,
            (unsigned long)d->skipped,
            (unsigned long)(train.files.count + test.files.count));
    if (others > 0)
        warn("--data %s: %lu files of other kinds are left out; JPEG, PNG, "
            "BMP, PPM and PGM are read", path, (unsigned long)others);
    if (d->train.count == 0)
        fail("--data %s: none of the training images can be decoded", path);
    tell_classes(d, path, held_out);
    names_free(&classes);
    list_free(&train);
    list_free(&test);
}
