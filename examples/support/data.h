/* data.h: what the files that read images share with each other, and with
   nothing else. See support.h for what the programs call.

     data.c       memory, the drawn shapes, data_open
     records.c    CIFAR-10's binary form, IDX
     classes.c    folders to classes and splits
     folder.c     the images below a folder, whole files
     image.c      a file to a picture of the size that is asked for
     decode.c     the bytes of a file to rows of pixels
     checks.c     what is checked before stb_image decodes               */
#ifndef DATA_H
#define DATA_H

#include "support.h"
#include <sys/types.h>

/* A larger picture or file is not read: decoding it would take more memory
   than anybody expects. FILE_MOST bytes hold MOST_PIXELS of 8 bytes each
   (RGBA of 16 bits) and a header. */
#define MOST_SIDE 16384              /* pixels; to_planes relies on it     */
#define MOST_PIXELS 100000000
#define FILE_MOST 801000000.0

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

/* A set of folders, each known by its device and number, whatever path leads
   to it. Zero it first. */
typedef struct visited {
    struct place { dev_t device; ino_t number; int used; } *place;
    size_t count, space;             /* space: a power of two              */
} visited;

/* Add a folder; 0 if it was there. */
int visited_add(visited *v, const char *path);
int visited_has(const visited *v, const char *path);
void visited_free(visited *v);

/* All images below a folder, each once: a symbolic link to a folder that the
   search has visited is not followed, nor one to a folder in `roots`, which
   may be NULL. Where a link and a real folder lead to the same place, the
   real one counts. */
void folder_images(const char *path, const visited *roots, names *images);

/* 1: decoded here; 2: by stb_image; 0: no image, by its name. */
int image_kind(const char *name);

/* Bytes of a regular file; -1 and the reason if it is none. */
double file_bytes(const char *path, char *why, size_t why_bytes);
/* A whole file of at most `most` bytes; NULL and the reason if it cannot be
   read. */
uint8_t *file_read(const char *path, double most, size_t *bytes, char *why,
    size_t why_bytes);
/* Writes why something failed; `why` may be NULL. */
void reason(char *why, size_t bytes, const char *format, ...);

/* ----------------------------------------- decoding: decode.c, checks.c */

/* A decoded file: rows of pixels of `parts` bytes: grey, grey and alpha,
   RGB or RGBA. */
typedef struct raw {
    uint8_t *pixels;
    int32_t width, height, parts;
    double memory;                   /* that was taken to decode it        */
} raw;

/* The bytes of a file to pixels. `name` tells what kind of file it should
   be. Returns 1; 0 and the reason; or -1 and the reason if memory is lacking,
   which may be different once other threads have done their work. */
int decode_image(const char *name, const uint8_t *data, size_t bytes, raw *r,
    char *why, size_t why_bytes);
void raw_free(raw *r);
/* NULL, or why files of the kind of this name cannot be decoded here. */
const char *decode_lacks(const char *name);

/* Files and decoding share a budget: wait until `bytes` fit, and take them.
   One that does not fit waits until it is alone. to_decode: 0 for a file
   that is read, 1 for its decoding, for which its thread may hold a file. */
void memory_take(double bytes, int to_decode);
void memory_give(double bytes, int to_decode);

/* What a file says about itself. Zero it first. */
typedef struct image_header {
    double width, height;            /* pixels                             */
    double memory;                   /* bytes that decoding takes, at most */
    double block;                    /* of them in one block, at most      */
    int paletted;                    /* a PNG whose pixels are indices     */
    size_t palette_at, palette_bytes;   /* its palette: 0: none            */
} image_header;

/* Is a file of 8 bytes or more whole, and do its tables fit? NULL or what is
   wrong; the size may be known then, too. */
const char *check_jpeg(const uint8_t *data, size_t bytes, image_header *h);
const char *check_png(const uint8_t *data, size_t bytes, image_header *h);
const char *check_bmp(const uint8_t *data, size_t bytes, image_header *h);

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
