/* data.h: what the files that read images share with each other, and with
   nothing else. See support.h for what the programs call.

     data.c       memory, the drawn shapes, data_open
     records.c    CIFAR-10's binary form, IDX
     classes.c    folders to classes and splits
     folder.c     the images below a folder, whole files
     image.c      a file to a picture of the size that is asked for
     decode.c     the bytes of a file to rows of pixels                  */
#ifndef DATA_H
#define DATA_H

#include "support.h"
#include <sys/types.h>

#define MOST_SIDE 16384              /* of a picture in a file, pixels     */

/* ------------------------------------------------------ memory: data.c */

/* `count` pieces of zeroed memory; fails if there is none. */
void *data_memory(size_t count, size_t bytes);
/* Have `p` freed by data_close. */
void *data_keep(data_set *d, void *p);
/* Memory for `count` images and labels. */
void data_make_split(data_set *d, data_split *split, size_t count);
void data_make_classes(data_set *d, int32_t count);
void data_name_class(data_set *d, int32_t at, const char *name);
/* Add a name, and where it ends, to a hash (FNV-1a) of an ordered list. */
void data_hash_name(uint64_t *hash, const char *name);
/* Run fn for `count` pieces on all threads that are allowed. */
void data_spread(const data_set *d, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg);

/* -------------------------------------------------------- names: folder.c */

/* A list of names, each its own block. */
typedef struct names {
    char **item;
    size_t count, space;
    size_t others;                   /* files that are no images, by name  */
} names;

/* Add folder/name, or `name` where `folder` is empty. */
void names_add(names *n, const char *folder, const char *name);
/* Sort those from `first` on. */
void names_sort(names *n, size_t first);
void names_free(names *n);

int path_is_folder(const char *path);
int path_is_file(const char *path);
/* folder/name in a buffer of the caller. */
const char *path_join(char path[1100], const char *folder, const char *name);

/* The names in a folder, without hidden ones, files and folders apart. */
void folder_list(const char *path, names *files, names *folders);

/* The folders that a search is in. A symbolic link back to one of them is
   not followed: it would lead round in a loop. */
typedef struct above {
    dev_t device;
    ino_t number;
    const struct above *next;
} above;

/* Steps into a folder; 0 if it is one of those above. */
int folder_enter(const char *path, const above *up, above *here);
/* All images below a folder, by name. */
void folder_images(const char *path, const above *up, names *images);

/* 1: decoded here; 2: by stb_image; 0: no image, by its name. */
int image_kind(const char *name);

/* A whole file; NULL and the reason if it cannot be read. */
uint8_t *file_read(const char *path, size_t *bytes, char *why,
    size_t why_bytes);
/* `why` may be NULL. */
void set_reason(char *why, size_t bytes, const char *text);

/* --------------------------------------------------- decoding: decode.c */

/* A decoded file: rows of pixels of `parts` bytes: grey, grey and alpha,
   RGB or RGBA. */
typedef struct raw {
    uint8_t *pixels;
    int32_t width, height, parts;
} raw;

/* The bytes of a file to pixels, which the caller frees. `name` tells what
   kind of file it should be. Returns NULL or the reason. */
const char *decode_image(const char *name, const uint8_t *data, size_t bytes,
    raw *out);
/* NULL, or why files of the kind of this name cannot be decoded here. */
const char *decode_lacks(const char *name);

/* A number of some bytes, the first the largest. */
uint32_t big_endian(const uint8_t *b, int bytes);

/* ----------------------------------------------------- pictures: image.c */

/* The luma of a colour. */
uint8_t grey_of(unsigned r, unsigned g, unsigned b);
/* The square in the middle. */
void picture_middle(const picture *p, double window[4]);
/* Decode the listed files into a split; those that fail are left out. */
void images_read(data_set *d, data_split *split, const names *files,
    const int32_t *label, int test);

/* ------------------------------------------ sets: records.c, classes.c */

/* The files of CIFAR-10, listed by data_open. */
void open_cifar(data_set *d, const char *path, const names *train,
    const names *test);
/* PATH/train-images-idx3-ubyte or, from some unpackers, .idx3-ubyte. */
int idx_find(char path[1100], const char *folder, const char *which,
    const char *kind);
void open_idx(data_set *d, const char *path);
void open_folder(data_set *d, const char *path);

#endif /* DATA_H */
