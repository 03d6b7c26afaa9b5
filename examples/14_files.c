/* 14  Files: save a model, load it, load a part of it, write features.

   Shows   safetensors on a FILE that you open: a model out and in; its encoder
           alone, into a model with another classifier; features of many
           images, which are written batch by batch.
   Build   cc -O2 -I. examples/14_files.c -o build/14_files -lm
   Prints  what the files hold, and what was read beside what was written.
           Returns 1 unless every float comes back to the bit. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 16                          /* pixels                         */
#define D 24
#define DEPTH 2
#define BATCH 8
#define IMAGES 40                        /* five batches                   */
#define LAST (IMAGES - BATCH)

static float images[IMAGES * SIDE * SIDE];
static int full;                         /* 1: the disk took too little    */

static FILE *open_file(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    if (file != NULL) return file;
    perror(path);
    exit(1);
}

static void save(smask_ctx *c, const smask_vit *v, const char *path)
{
    FILE *file = open_file(path, "wb");
    smask_io io = smask_stdio(file);
    smask_write(c, &io, v, NULL, NULL, NULL, NULL, 0);
    full |= fclose(file) != 0;           /* the last bytes are written here */
}

/* The sizes come from the file. With `classes` the model gets a new classifier
   of that size, and all else from the file. Returns how much is missing. */
static int load(smask_ctx *c, smask_vit *v, int32_t classes, const char *path)
{
    FILE *file = open_file(path, "rb");
    smask_io io = smask_stdio(file);
    smask_file f;                        /* in the arena until shutdown    */
    smask_vit_desc desc;
    int32_t missing;
    smask_open(c, &f, &io);
    smask_read_vit_desc(c, &f, &desc);
    if (classes > 0) desc.classes = classes;
    smask_vit_init(c, v, &desc);
    if (classes > 0) smask_read_prefix(c, &f, v, "head.", 1, &missing);
    else smask_read(c, &f, v, NULL, NULL, NULL, &missing);
    fclose(file);
    printf("%s: %d tensors, %d missing\n", path, (int)f.count, (int)missing);
    return (int)missing;
}

/* Pooled output (BATCH, D) of the encoder, after the final norm. */
static void features(smask_ctx *c, const smask_vit *v, int first, float *out)
{
    float layers[DEPTH + 1][BATCH * D];
    smask_begin_step(c);
    smask_vit_features(c, v, images + first * SIDE * SIDE, BATCH, layers[0]);
    memcpy(out, layers[DEPTH], sizeof layers[DEPTH]);
    smask_end_step(c);
}

/* The header first, then the features batch by batch. */
static void save_features(smask_ctx *c, const smask_vit *v, const char *path)
{
    const smask_shape shape = { "features", 2, { IMAGES, D, 0, 0 } };
    float batch[BATCH * D];
    FILE *file = open_file(path, "wb");
    smask_io io = smask_stdio(file);
    smask_writer w;
    int i;
    smask_write_begin(c, &w, &io, &shape, 1, NULL, 0);
    for (i = 0; i < IMAGES; i += BATCH) {
        features(c, v, i, batch);
        smask_write_floats(c, &w, batch, BATCH * D);
    }
    smask_write_end(c, &w);              /* fails if any are missing       */
    full |= fclose(file) != 0;
}

static void load_features(smask_ctx *c, float *out, const char *path)
{
    FILE *file = open_file(path, "rb");
    smask_io io = smask_stdio(file);
    smask_file f;
    smask_open(c, &f, &io);
    smask_read_tensor(c, &f, "features", out, IMAGES * D);
    fclose(file);
}

/* Print the first floats of a and of b; are all equal? */
static int compare(const char *what, const float *a, const float *b,
    size_t count)
{
    int i;
    printf("%-26s", what);
    for (i = 0; i < 6; i++)
        printf("%s%9.5f", i == 3 ? " |" : "", (double)(i < 3 ? a : b)[i % 3]);
    printf("\n");
    return memcmp(a, b, count * sizeof *a) == 0;
}

int main(void)
{
    const char *model = "build/14_model.safetensors";
    const char *rows = "build/14_features.safetensors";
    static float before[BATCH * D], after[BATCH * D], all[IMAGES * D];
    const smask_vit_desc desc = { .image = SIDE, .channels = 1, .dim = D,
        .depth = DEPTH, .heads = 2, .classes = 10, .init_std = 0.1f };
    smask_ctx c;
    smask_vit made, loaded, other;
    int i, missing, same = 0;

    smask_setup(&c, NULL);
    for (i = 0; i < IMAGES * SIDE * SIDE; i++)
        images[i] = smask_normal(&c.random);
    smask_vit_init(&c, &made, &desc);
    save(&c, &made, model);
    missing = load(&c, &loaded, 0, model);
    missing += load(&c, &other, 5, model);        /* not ten classes */
    save_features(&c, &other, rows);
    load_features(&c, all, rows);

    if (smask_error(&c) == SMASK_OK && !full) {
        const float *old = made.classifier_w->x, *fresh = other.classifier_w->x;
        features(&c, &made, LAST, before);
        features(&c, &other, LAST, after);
        printf("%41s%30s\n", "written", "read");
        same = compare("classifier, whole model", old,
                       loaded.classifier_w->x, 10 * D);
        same &= !compare("classifier, encoder alone", old, fresh, 5 * D);
        same &= compare("features, encoder alone", before, after, BATCH * D);
        same &= compare("features, from their file", before, all + LAST * D,
                        BATCH * D);
    } else {
        fprintf(stderr, "14_files: %s (%s)\n", full ? "the disk is full"
                : smask_result_text(smask_error(&c)), smask_detail(&c));
    }
    smask_shutdown(&c);
    return same && missing == 0 ? 0 : 1;
}
