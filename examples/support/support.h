/* support.h: what the programs share. Options from a table, one way to fail
   and to tell results, a progress line, images from many formats, and
   augmentation. Nothing here is part of splitmask.h.

     options.c    options_read, option_value
     progress.c   fail, warn, isa_for, context_for, progress_start,
                  stop_wanted, result, peak_memory_mb
     saving.c     folder_lock, part_open, file_keep, model_save
     data.c       data_open, data_batch; data.h lists the files it rests on
     folder.c     image_list
     image.c      image_load
     augment.c    data_augmented, mix_batch, picture_resample, random_at

   A function that meets bad input says so in one line on standard error,
   cause and fix, and ends the program with exit code 2. So there are no
   error codes to check here.                                            */
#ifndef SUPPORT_H
#define SUPPORT_H

#ifndef SPLITMASK_THREADS
#define SPLITMASK_THREADS
#endif
#include "splitmask.h"
#include <stdio.h>

/* -------------------------------------------------------------- options */

typedef enum option_kind {
    OPTION_TEXT,                     /* to: const char *; NULL: not given  */
    OPTION_INT,                      /* to: int, least .. most             */
    OPTION_REAL,                     /* to: float, least .. most           */
    OPTION_FLAG,                     /* to: int, set to 1; takes no value  */
    OPTION_SEED,                     /* to: uint64_t                       */
    OPTION_CHOICE                    /* to: int, 0 for the first choice.
                                        `text` opens with the choices:
                                        "blocks|uniform how to mask"       */
} option_kind;

/* What *to holds before options_read is the default. */
typedef struct option {
    const char *name;                /* with its dashes                    */
    option_kind kind;
    void *to;
    double least, most;              /* of INT and REAL                    */
    const char *text;                /* for --help                         */
} option;

/* Read the command line into the table. `--name value` and `--name=value`
   both work. --help prints a usage made from the table and exits with 0;
   anything that does not fit fails. `summary` says what the program is for.
   Calls program_named. */
/* 1 if the option stands on the command line that options_read has read. */
int option_given(const char *name);
void options_read(const char *summary, const option *options, int count,
    int argc, char **argv);
/* The value of an option as text. */
const char *option_value(const option *o, char *text, size_t bytes);

/* -------------------------------------------------------------- failing */

/* The last part of argv[0] opens the lines of fail and warn. From now on
   SIGPIPE and SIGXFSZ are ignored: the write fails instead. */
void program_named(const char *argv0);
/* `program: message` on standard error, then exit 2. Never returns. */
void fail(const char *format, ...);
/* The same line, and on with the work. */
void warn(const char *format, ...);

/* --bf16: its line of --help, and the vectors it asks for, if it was given;
   fails where there are none. */
#define BF16_TEXT "matrix products round to bfloat16: nearly twice as fast " \
    "on AMD's Zen 4"
smask_isa isa_for(int bf16);

/* A context with exactly the memory that `work` takes: it runs once dry, to
   find out. Fails with "`what`: reason" where that cannot be. */
void context_for(smask_ctx *c, const smask_desc *desc,
    smask_result (*work)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes, const char *what);

/* ------------------------------------------------------------- progress */

/* A line that tells how far long work has come: rewritten in place on a
   terminal, else a plain line now and then. On standard error. */
typedef struct progress {
    const char *name;
    double total;                    /* of what is counted, mostly images  */
    double first;                    /* done before the start (resumed)    */
    double done;
    const char *unit;                /* "images"; NULL: tell no rate       */
    double begin, told;              /* seconds                            */
    double loss;                     /* running mean                       */
    int losses, terminal, shown;
} progress;

/* Begin. Set p->first or p->unit right after, where they differ: a total
   below 50 counts no images, so its unit starts as NULL. */
void progress_start(progress *p, const char *name, double total);
void progress_at(progress *p, double done);
/* The same, with the loss of the last step; what is shown is its running
   mean. */
void progress_loss(progress *p, double done, double loss);
/* End the line with what the whole took. */
void progress_end(progress *p);
/* Per second since the start, without what came before `first`. */
double progress_rate(const progress *p);
/* A clock that only goes forward, in seconds. */
double seconds_now(void);

/* From now on a signal that asks the program to end only makes stop_wanted
   true: INT (Ctrl-C), TERM, HUP (a terminal that closes), and USR1, USR2,
   XCPU and ALRM, which batch systems send before a limit. A second INT or
   TERM, more than a second later, ends the program at once. */
void stop_catch(void);
int stop_wanted(void);

/* -------------------------------------------------------------- results */

/* `name value` on standard output, at once. */
void result(const char *name, double value, int decimals);
/* The most memory that the program has held, in 10^6 bytes. */
double peak_memory_mb(void);

/* --------------------------------------------------------------- saving */

/* Make a folder and those above it, where they are missing. */
void folder_make(const char *path);
/* The same, and lock it until the program ends: two runs that write to one
   folder would mix their files. Fails if another run holds the lock; a
   second call by the same run makes sure that folder and lock are still
   there. */
void folder_lock(const char *path);
/* The same, but returns 1, or 0 and the reason in `why`. */
int folder_try_lock(const char *path, char *why, size_t why_bytes);
/* A file is written as PATH.part, then renamed, so that no half file is ever
   found under its name. part_open creates PATH.part and locks it; what a
   program that died left there is removed first. Returns NULL and errno, which
   part_error puts into words: EEXIST if another program is writing the file.
   part_rename brings it to the disk and moves it to PATH: 1,
   or 0 and errno; the stream stays open. part_remove drops it, while it is
   still open and so locked, and keeps errno. */
FILE *part_open(const char *path);
const char *part_error(void);
int part_rename(FILE *file, const char *path);
void part_remove(const char *path);
/* What was written to a stream is on the disk: 1, or 0 and errno. */
int file_sync(FILE *file);
/* Are both there, and one and the same file? */
int file_same(const char *a, const char *b);
/* Fails if an output file cannot have this path: a folder or a device is
   there, which must not be replaced. name: of the option that gave it. */
void file_check_output(const char *name, const char *path);
/* What an earlier run left at `folder`/`name` moves to `name`.old; 1 if there
   was something. */
int file_keep(const char *folder, const char *name);

/* Two notes for a model file, mean and std: how its pixels were normalised;
   evaluate, finetune and embed do the same to theirs. `text` keeps them. */
void notes_pixels(smask_metadata notes[2], char text[2][128], const float *mean,
    const float *deviation, int32_t channels);
/* A text that any reader of the file can take: what is no UTF-8 becomes ?. */
const char *note_text(char *to, size_t bytes, const char *text);

/* Write a model, first beside its place, then moved there, so that no half
   file is ever found under its name. */
void model_save(smask_ctx *c, const smask_vit *v,
    const smask_metadata *metadata, int32_t metadata_count, const char *path);
/* The same with the tokenizer and all that a resumed run needs; t, a and e
   may be NULL. Returns 1; or 0 and the reason in `why`, then the old file
   is still there and the context can go on. */
int model_try_save(smask_ctx *c, const smask_vit *v,
    const smask_tokenizer *t, const smask_adam *a, const smask_ema *e,
    const smask_metadata *metadata, int32_t metadata_count, const char *path,
    char *why, size_t why_bytes);

/* --------------------------------------------------------------- images */

/* Pixels in planes (C, height, width), 0 .. 255. */
typedef struct picture {
    uint8_t *pixels;
    int32_t width, height;
} picture;

typedef struct data_split {
    picture *image;
    int32_t *label;                  /* 0 .. classes - 1                   */
    size_t count;
} data_split;

typedef struct data_set {
    /* yours, to set before data_open; zero is a good default */
    int threads;                     /* that read images; 0: all cores     */
    int extras;                      /* 1: data_augmented also changes
                                        colours: see augment.c             */
    int no_flip;                     /* 1: data_augmented does not mirror  */
    float crop_most;                 /* most of the area that a crop keeps;
                                        0: all of it                       */
    /* filled by data_open, alive until data_close */
    data_split train, test;
    int32_t classes;
    char **class_name;               /* one per class                      */
    int32_t image, channels;         /* as asked: side S and C             */
    float mean[4], deviation[4];     /* per channel over the training
                                        images, of pixels 0 .. 1           */
    uint64_t names_hash;             /* of the training files' names below
                                        the path, in their order; 0: there
                                        is no such list                    */
    size_t path_bytes;               /* of the path, without a last /      */
    size_t skipped;                  /* files that could not be decoded    */
    void **block;                    /* memory to free                     */
    size_t blocks;
} data_set;

/* Read a data set for images (channels, image, image). `path` is
     shapes, shapes:N    drawn here: N training images (4000) and a quarter
                         of that for testing
     a folder with       data_batch_*.bin, test_batch.bin (CIFAR-10),
                         train-images-idx3-ubyte and so on (IDX; MNIST),
                         train/CLASS/ and val/CLASS/ (or test/),
                         CLASS/ (every fifth file is for testing),
                         or just images: one class, none for testing
   Of a folder of images it is told how it was understood. Images are PPM
   and PGM, and JPEG, PNG, BMP where the build found stb_image.h; at most
   16384 pixels a side and 100 million in all. A file that is larger, damaged
   or lacks memory is skipped, with a warning that names it. Links are
   followed, but no folder is read twice for a class. channels: 3, or 1 for
   grey. Zero `d` first. The same path gives the same images and
   the same split, whatever the seed, so that a model never meets its test
   images by a change of seed.                                          */
void data_open(data_set *d, const char *path, int32_t image,
    int32_t channels);
void data_close(data_set *d);
/* Fails if there are not two classes, or no images to test with. */
void data_needs_classes(const data_set *d, const char *path);

/* Images as they are, (count, C, S, S): the short side fits, the middle is
   kept, x = (pixel - mean) / deviation. test: 1 for the test split. */
void data_batch(const data_set *d, int test, const int32_t *which,
    int32_t count, const float *mean, const float *deviation, float *images);

/* All images under a path (a file, or a folder with all that is below), in
   the order of their names. One block: free the list to free all. */
char **image_list(const char *path, size_t *count);
/* One file as (channels, side, side), values 0 .. 1, the short side made to
   fit and the middle kept. Returns 1, or 0 and the reason in `why`. */
int image_load(const char *path, int32_t channels, int32_t side,
    float *image, char *why, size_t why_bytes);

/* --------------------------------------------------------- augmentation */

/* Training images, each one new: a random crop of crop_least .. crop_most of
   the area and of ratio 3/4 .. 4/3, resized; mirrored half of the time; with
   d->extras colours change too. What happens to image i of a step follows
   from (seed, step, i) alone. */
void data_augmented(const data_set *d, const int32_t *which, int32_t count,
    const float *mean, const float *deviation, float crop_least,
    uint64_t seed, int64_t step, const smask_parallel *hook, float *images);

/* Normalised images with their colours drawn anew, as half of a split is
   given them: brightness, contrast and saturation by up to 0.8 strength, hue
   by up to 0.2 strength of a turn, grey with chance 0.4 strength. */
void data_jittered(const data_set *d, const float *images, int32_t count,
    const float *mean, const float *deviation, float strength, uint64_t seed,
    int64_t step, const smask_parallel *hook, float *out);

/* Mix each image of a batch with its mirror place in the batch, all by
   mixup or all by cutmix (an even chance where both alphas are above 0), by
   a share drawn from Beta(alpha, alpha); targets (count, classes) mix in
   the same share. */
void mix_batch(float *images, float *targets, int32_t count,
    int32_t channels, int32_t side, int32_t classes, float mixup,
    float cutmix, uint64_t seed, int64_t step);

/* The window (left, top, width, height) of a picture, in its pixels, as
   (channels, height, width): bicubic, and smoothed where it shrinks.
     out = scale[c] * pixel + shift[c], pixels 0 .. 255
   flip: 1 mirrors left and right. */
void picture_resample(const picture *p, int32_t channels,
    const double window[4], int flip, int32_t width, int32_t height,
    const float *scale, const float *shift, float *out);

/* A generator for piece `at` of a step: the same three numbers, the same
   draws, on whichever thread; other numbers, unrelated ones. */
void random_at(smask_random *random, uint64_t seed, int64_t step,
    uint64_t at);

#endif /* SUPPORT_H */
