/* embed.c: images in, features out, for use elsewhere.

     build/embed --model model.safetensors --input photo.png
                 --output out/photo.safetensors

   The model is one of ours or a ViT or DeiT written by timm. The input is
   an image, a folder of images (in the order of their names), or a
   safetensors file with `images` float32 (B,C,S,S), already normalised.
   The output is a safetensors file with
     tokens (B,N,D)   after the final norm; a class token comes first
     pooled (B,D)     the class token if the model has one, else the mean
   Images pass through in batches, so that memory does not grow with B. */
#include "support/support.h"
#include "support/evaluation.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct embedding {
    /* options */
    const char *model, *input, *output, *pool;
    int batch, threads;
    /* the model */
    evaluation_model file;
    smask_vit v;
    float mean[4], deviation[4];
    size_t D, rows, image_floats;    /* rows: N, with a class token N + 1  */
    /* where the images come from: a list of files or an open stream */
    char **path;
    FILE *stream;
    size_t count;
    /* where the features go */
    FILE *out;                       /* renamed when it is complete        */
    float *pooled;                   /* (B, D): written after all tokens   */
    char trouble[640];
} embedding;

/* Fail without leaving half an output behind. */
static void give_up(embedding *e, const char *format, const char *what,
    const char *why)
{
    char line[1600];

    if (e->out != NULL) {
        part_remove(e->output);
        fclose(e->out);
    }
    snprintf(line, sizeof line, format, what, why);
    fail("%s", line);
}

/* ------------------------------------------------------------- sources */

static int ends_with(const char *text, const char *ending)
{
    const size_t a = strlen(text), b = strlen(ending);

    return a >= b && strcmp(text + a - b, ending) == 0;
}

/* The entry `images` of an open file, checked against the model, so that
   nothing is written when they do not fit. */
static const smask_file_entry *find_images(const embedding *e,
    const smask_file *file)
{
    const smask_vit_desc *d = &e->file.desc;
    const smask_file_entry *images = NULL;
    int32_t i;

    for (i = 0; i < file->count; i++)
        if (file->entry[i].name_bytes == 6
            && memcmp(file->entry[i].name, "images", 6) == 0)
            images = &file->entry[i];
    if (images == NULL)
        fail("--input %s: has no tensor called images", e->input);
    if (images->type != 0 || images->rank != 4 || images->shape[0] < 1)
        fail("--input %s: images must be float32 of shape (B,C,S,S)",
            e->input);
    if (images->shape[1] != d->channels || images->shape[2] != d->image
        || images->shape[3] != d->image)
        fail("--input %s: images are (B,%d,%d,%d), the model takes "
            "(B,%d,%d,%d); resize them", e->input,
            (int)images->shape[1], (int)images->shape[2],
            (int)images->shape[3], (int)d->channels, (int)d->image,
            (int)d->image);
    return images;
}

/* Open a safetensors input and leave its stream at the first float. */
static void open_tensors(embedding *e)
{
    const smask_file_entry *images;
    smask_file file;
    smask_ctx c;
    smask_io io;
    long here, end;

    e->stream = fopen(e->input, "rb");
    if (e->stream == NULL) fail("--input %s: %s", e->input, strerror(errno));
    io = io_reading(e->stream);
    if (smask_setup(&c, NULL) != SMASK_OK)
        fail("--input %s: not enough memory for its header", e->input);
    if (smask_open(&c, &file, &io) != SMASK_OK)
        fail("--input %s: not a safetensors file: %s", e->input,
            smask_detail(&c));
    images = find_images(e, &file);
    e->count = (size_t)images->shape[0];
    /* The stream stands at the data; a pipe cannot be measured or moved. */
    here = ftell(e->stream);
    if (here < 0 || fseek(e->stream, 0, SEEK_END) != 0)
        fail("--input %s: not an ordinary file", e->input);
    end = ftell(e->stream);
    if ((unsigned long)(end - here) < images->end
        || images->end - images->begin
            != e->count * e->image_floats * sizeof(float)
        || fseek(e->stream, here + (long)images->begin, SEEK_SET) != 0)
        fail("--input %s: the file is damaged or cut short", e->input);
    smask_shutdown(&c);
}

/* The next B images, normalised, into images (B,C,S,S). */
static void next_images(embedding *e, size_t first, int32_t B, float *images)
{
    const size_t wanted = (size_t)B * e->image_floats;
    const size_t plane = e->image_floats / (size_t)e->file.desc.channels;
    char why[256];
    int32_t i;
    size_t j;

    if (e->stream != NULL) {
        if (fread(images, sizeof(float), wanted, e->stream) != wanted)
            give_up(e, "--input %s: %s", e->input, "the file ended early");
        return;
    }
    for (i = 0; i < B; i++) {
        float *image = images + (size_t)i * e->image_floats;
        if (!image_load(e->path[first + (size_t)i], e->file.desc.channels,
                e->file.desc.image, image, why, sizeof why))
            give_up(e, "%s: %s", e->path[first + (size_t)i], why);
        for (j = 0; j < e->image_floats; j++) {
            const size_t channel = j / plane;
            image[j] = (image[j] - e->mean[channel]) / e->deviation[channel];
        }
    }
}

/* -------------------------------------------------------------- output */

static void put(embedding *e, const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, e->out) != bytes)
        give_up(e, "--output %s: %s; make room and try again", e->output,
            strerror(errno));
}

/* All sizes are known beforehand, so the header can go first. Its length
   is padded to 8 bytes, which keeps the floats aligned for mmap. */
static void put_header(embedding *e)
{
    const size_t tokens = e->count * e->rows * e->D * sizeof(float);
    const size_t pooled = e->count * e->D * sizeof(float);
    char text[512];
    unsigned char length[8];
    size_t bytes;
    int i;

    bytes = (size_t)snprintf(text, sizeof text,
        "{\"tokens\":{\"dtype\":\"F32\",\"shape\":[%lu,%lu,%lu],"
        "\"data_offsets\":[0,%lu]},\"pooled\":{\"dtype\":\"F32\","
        "\"shape\":[%lu,%lu],\"data_offsets\":[%lu,%lu]}}",
        (unsigned long)e->count, (unsigned long)e->rows,
        (unsigned long)e->D, (unsigned long)tokens,
        (unsigned long)e->count, (unsigned long)e->D,
        (unsigned long)tokens, (unsigned long)(tokens + pooled));
    while (bytes % 8 != 0) text[bytes++] = ' ';
    for (i = 0; i < 8; i++)
        length[i] = (unsigned char)(bytes >> (8 * i) & 0xff);
    put(e, length, sizeof length);
    put(e, text, bytes);
}

/* safetensors is little-endian; so is every machine this writes fast on. */
static void put_floats(embedding *e, const float *x, size_t count)
{
    const uint16_t one = 1;
    unsigned char first, bytes[4];
    uint32_t bits;
    size_t i;

    memcpy(&first, &one, 1);
    if (first == 1) {
        put(e, x, count * sizeof(float));
        return;
    }
    for (i = 0; i < count; i++) {
        memcpy(&bits, x + i, 4);
        bytes[0] = (unsigned char)(bits & 0xff);
        bytes[1] = (unsigned char)(bits >> 8 & 0xff);
        bytes[2] = (unsigned char)(bits >> 16 & 0xff);
        bytes[3] = (unsigned char)(bits >> 24);
        put(e, bytes, 4);
    }
}

/* Nothing that is read here may be written over, nor what is no file. */
static void check_output(const embedding *e)
{
    size_t i;
    int taken = file_same(e->output, e->model)
        || file_same(e->output, e->input);

    file_check_output("--output", e->output);
    for (i = 0; e->path != NULL && i < e->count && !taken; i++)
        taken = file_same(e->output, e->path[i]);
    if (taken)
        fail("--output %s: is the model or one of the images; give another "
            "name", e->output);
}

/* ---------------------------------------------------------------- work */

/* The whole job; in a dry run, what one full batch needs. */
static smask_result work(smask_ctx *c, void *user)
{
    embedding *e = (embedding *)user;
    const smask_vit_desc *d = &e->file.desc;
    int32_t missing = 0;
    size_t first;
    progress line;

    memset(&line, 0, sizeof line);
    if (smask_vit_init(c, &e->v, d) != SMASK_OK) return smask_error(c);
    if (evaluation_model_read(c, &e->file, &e->v, &missing, e->trouble,
            sizeof e->trouble) != SMASK_OK)
        return smask_error(c);
    if (missing > 0)
        give_up(e, "--model %s: %s", e->model,
            "some weights of the encoder are not in the file");
    smask_vit_pack(c, &e->v);
    if (!smask_is_dry(c)) {
        put_header(e);
        progress_start(&line, "embed", (double)e->count);
    }
    for (first = 0; first < e->count; first += (size_t)e->batch) {
        const size_t left = e->count - first;
        const int32_t B = left < (size_t)e->batch ? (int32_t)left : e->batch;
        smask_tensor *tokens, *pooled;
        float *images;

        smask_begin_step(c);
        images = (float *)smask_alloc(c,
            (size_t)B * e->image_floats * sizeof(float));
        if (images != NULL) next_images(e, first, B, images);
        tokens = smask_vit_encode(c, &e->v, images, B);
        pooled = smask_vit_pool(c, &e->v, tokens);
        if (pooled == NULL || smask_is_dry(c)) {
            smask_end_step(c);
            return smask_error(c);
        }
        if (!evaluation_finite(tokens->x, smask_count(tokens)))
            give_up(e, "--input %s: %s", e->input, "its features are not "
                "finite; the weights of --model or the images are damaged");
        put_floats(e, tokens->x, smask_count(tokens));
        memcpy(e->pooled + first * e->D, pooled->x,
            (size_t)B * e->D * sizeof(float));
        smask_end_step(c);
        progress_at(&line, (double)first + B);
    }
    progress_end(&line);
    put_floats(e, e->pooled, e->count * e->D);
    return SMASK_OK;
}

/* ---------------------------------------------------------------- main */

static void read_options(embedding *e, int argc, char **argv)
{
    uint64_t seed = 0;
    const option table[] = {
        { "--model", OPTION_TEXT, &e->model, 0, 0,
          "the encoder: a .safetensors file, ours or timm's (required)" },
        { "--input", OPTION_TEXT, &e->input, 0, 0,
          "an image, a folder, or a .safetensors file with `images` "
          "(required)" },
        { "--output", OPTION_TEXT, &e->output, 0, 0,
          "the .safetensors file to write (required)" },
        { "--pool", OPTION_TEXT, &e->pool, 0, 0,
          "mean or class; default: class if the model has the token" },
        { "--batch", OPTION_INT, &e->batch, 1, 65536,
          "images at a time; changes memory, not results" },
        { "--threads", OPTION_INT, &e->threads, 0, 1024, "0: all cores" },
        { "--seed", OPTION_SEED, &seed, 0, 0, "unused: nothing is random" }
    };

    e->batch = 32;
    options_read("images in, features out", table,
        (int)(sizeof table / sizeof table[0]), argc, argv);
    if (e->model == NULL) fail("--model is missing: give a model file");
    if (e->input == NULL) fail("--input is missing: give images");
    if (e->output == NULL) fail("--output is missing: give a file to write");
    if (e->pool != NULL && strcmp(e->pool, "mean") != 0
        && strcmp(e->pool, "class") != 0)
        fail("--pool %s: give mean or class", e->pool);
}

/* Pixels are normalised as the model file says. Files by timm do not say:
   ImageNet's numbers, which most of them were trained with. */
static void set_normalisation(embedding *e)
{
    static const float mean[3] = { 0.485f, 0.456f, 0.406f };
    static const float deviation[3] = { 0.229f, 0.224f, 0.225f };
    int32_t i;

    for (i = 0; i < 4; i++) {
        const int told = i < e->file.channels;
        e->mean[i] = told ? e->file.mean[i] : i < 3 ? mean[i] : 0.5f;
        e->deviation[i] = told ? e->file.deviation[i]
            : i < 3 ? deviation[i] : 0.25f;
    }
}

int main(int argc, char **argv)
{
    static embedding e;
    smask_desc desc;
    smask_sizes sizes;
    smask_threads pool;
    smask_ctx c;

    read_options(&e, argc, argv);
    if (evaluation_model_open(&e.file, e.model, e.trouble, sizeof e.trouble)
        != SMASK_OK)
        fail("--model %s", e.trouble);
    if (e.pool != NULL) e.file.desc.pool_class = e.pool[0] == 'c';
    if (e.file.desc.pool_class && !e.file.desc.class_token)
        fail("--pool class: the model has no class token; use mean");
    e.D = (size_t)e.file.desc.dim;
    e.image_floats = (size_t)e.file.desc.channels
        * (size_t)e.file.desc.image * (size_t)e.file.desc.image;
    e.rows = (size_t)(e.file.desc.image / e.file.desc.patch)
        * (size_t)(e.file.desc.image / e.file.desc.patch)
        + (size_t)(e.file.desc.class_token != 0);
    set_normalisation(&e);
    if (ends_with(e.input, ".safetensors")) {
        open_tensors(&e);
    } else {
        e.path = image_list(e.input, &e.count);
        if (e.count == 0)
            fail("--input %s: no image there; PPM, PGM, JPEG, PNG, BMP or "
                "a .safetensors file are read", e.input);
    }
    check_output(&e);
    if ((size_t)e.batch > e.count) e.batch = (int)e.count;

    if (smask_threads_start(&pool, e.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    memset(&desc, 0, sizeof desc);
    desc.parallel = smask_threads_hook(&pool);
    desc.inference = 1;
    context_for(&c, &desc, work, &e, &sizes, e.model);
    e.pooled = malloc(e.count * e.D * sizeof(float));
    if (e.pooled == NULL)
        fail("no memory for the features of %lu images",
            (unsigned long)e.count);
    e.out = part_open(e.output);
    if (e.out == NULL) fail("--output %s: %s", e.output, part_error());
    if (work(&c, &e) != SMASK_OK)
        give_up(&e, "--model %s%s", e.trouble[0] != '\0' ? "" : e.model,
            e.trouble[0] != '\0' ? e.trouble : smask_detail(&c));
    if (!part_rename(e.out, e.output))
        give_up(&e, "--output %s: not written: %s; make room and try again",
            e.output, strerror(errno));
    fclose(e.out);
    result("images", (double)e.count, 0);
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    if (e.stream != NULL) fclose(e.stream);
    free(e.pooled);
    free(e.path);
    return 0;
}
