/* embed.c: images in, features out, for use elsewhere.

     build/embed --model model.safetensors --input photo.png
                 --output out/photo.safetensors

   The model is one of ours or a ViT or DeiT written by timm. The input is
   an image, a folder of images (in the order of their names), or a
   safetensors file with `images` float32 (B,C,S,S), already normalised.
   The output is a safetensors file with
     tokens (B,N,D)   after the final norm; a class token comes first
     pooled (B,D)     the class token if the model has one, else the mean
   The metadata entry `images` lists the files, row by row, as a JSON list, and
   OUTPUT.csv does beside it. A file that cannot be read is left out, with a
   warning that says why. Images pass through in batches; OUTPUT.floats.part
   holds the tokens until their number is known. */
#include "support/support.h"
#include "support/evaluation.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct embedding {
    /* options */
    model_options about;
    const char *input, *output, *pool;
    int batch, threads;
    /* the model */
    evaluation_model file;
    smask_vit v;
    size_t D, rows, image_floats;    /* rows: N, with a class token N + 1  */
    /* where the images come from: a list of files or an open stream */
    char **path;
    FILE *stream;
    size_t count, next, done;        /* in all; looked at; embedded        */
    /* where the features go */
    FILE *out;                       /* renamed when it is complete        */
    FILE *floats;                    /* the tokens until then              */
    FILE *names;                     /* which row is which file, or NULL   */
    char floats_name[1100], names_name[1100];
    float *work;                     /* one image's tokens                 */
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
    if (e->floats != NULL) {
        part_remove(e->floats_name);
        fclose(e->floats);
    }
    if (e->names != NULL) {
        part_remove(e->names_name);
        fclose(e->names);
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
    io = smask_stdio(e->stream);
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

/* Up to B images, normalised, into images (B,C,S,S); returns how many. A file
   that cannot be read is left out, with a warning. */
static int32_t next_images(embedding *e, int32_t B, float *images)
{
    const size_t plane = e->image_floats / (size_t)e->file.desc.channels;
    char why[256];
    int32_t n = 0;
    size_t j;

    for (; n < B && e->next < e->count; e->next++) {
        float *image = images + (size_t)n * e->image_floats;
        if (e->stream != NULL) {
            if (fread(image, sizeof(float), e->image_floats, e->stream)
                != e->image_floats)
                give_up(e, "--input %s: %s", e->input, "the file ended early");
            n++;
            continue;
        }
        if (!image_load(e->path[e->next], e->file.desc.channels,
                e->file.desc.image, image, why, sizeof why)) {
            warn("%s: left out: %s", e->path[e->next], why);
            continue;
        }
        for (j = 0; j < e->image_floats; j++)
            image[j] = (image[j] - e->file.mean[j / plane])
                / e->file.deviation[j / plane];
        e->path[e->done + (size_t)n++] = e->path[e->next];
    }
    return n;
}

/* -------------------------------------------------------------- output */

/* The names of the images as a JSON list, for the file's metadata. */
static char *names_text(embedding *e)
{
    size_t bytes = 3, i;
    char *text, *clean, *at;
    const char *s;

    for (i = 0; i < e->done; i++) bytes += 6 * strlen(e->path[i]) + 3;
    text = at = (char *)malloc(bytes);
    clean = (char *)malloc(bytes);
    if (text == NULL || clean == NULL)
        give_up(e, "--output %s: %s", e->output,
            "no memory for the names of the images");
    *at++ = '[';
    for (i = 0; i < e->done; i++) {
        if (i > 0) *at++ = ',';
        *at++ = '"';
        for (s = e->path[i]; *s != '\0'; s++) {
            const unsigned char byte = (unsigned char)*s;
            if (byte < 32) {
                at += sprintf(at, "\\u%04x", (unsigned)byte);
                continue;
            }
            if (byte == '"' || byte == '\\') *at++ = '\\';
            *at++ = *s;
        }
        *at++ = '"';
    }
    *at++ = ']';
    *at = '\0';
    note_text(clean, bytes, text);
    free(text);
    return clean;
}

/* Which row is which image: the text of OUTPUT.csv. */
static void write_names(embedding *e)
{
    const char *s;
    size_t i;

    fprintf(e->names, "row,file\n");
    for (i = 0; i < e->done; i++) {
        fprintf(e->names, "%lu,\"", (unsigned long)i);
        for (s = e->path[i]; *s != '\0'; s++) {
            if (*s == '"') fputc('"', e->names);
            fputc(*s, e->names);
        }
        fprintf(e->names, "\"\n");
    }
    if (!file_sync(e->names))
        give_up(e, "%s: not written: %s; make room and try again",
            e->names_name, strerror(errno));
}

/* The features lie in a file of floats until it is known how many images could
   be read; then the output is the header and they. */
static void write_output(smask_ctx *c, embedding *e)
{
    const smask_shape shapes[2] = { { "tokens", 3, { (int32_t)e->done,
        (int32_t)e->rows, (int32_t)e->D, 0 } }, { "pooled", 2,
        { (int32_t)e->done, (int32_t)e->D, 0, 0 } } };
    const size_t row = e->rows * e->D;
    char *names = e->path != NULL ? names_text(e) : NULL;
    smask_metadata about;
    smask_writer w;
    smask_io io = smask_stdio(e->out);
    size_t i;

    about.key = "images";
    about.value = names != NULL ? names : "";
    if (fflush(e->floats) != 0)          /* rewind would not tell          */
        give_up(e, "--output %s: not written: %s; make room and try again",
            e->output, strerror(errno));
    rewind(e->floats);
    smask_write_begin(c, &w, &io, shapes, 2, &about, names != NULL);
    for (i = 0; i < e->done && smask_error(c) == SMASK_OK; i++) {
        if (fread(e->work, sizeof(float), row, e->floats) != row)
            give_up(e, "%s.part: %s", e->floats_name, "cannot be read back: "
                "the disk fails, or another program changed it");
        smask_write_floats(c, &w, e->work, row);
    }
    smask_write_floats(c, &w, e->pooled, e->done * e->D);
    if (smask_write_end(c, &w) != SMASK_OK)
        give_up(e, "--output %s: %s; make room and try again", e->output,
            strerror(errno));
    free(names);
}

/* Nothing that is read here may be written over, nor what is no file. */
static void check_output(embedding *e)
{
    size_t i;
    int taken;

    file_check_output("--output", e->output);
    snprintf(e->floats_name, sizeof e->floats_name, "%s.floats", e->output);
    snprintf(e->names_name, sizeof e->names_name, "%s.csv", e->output);
    taken = file_same(e->output, e->about.model)
        || file_same(e->output, e->input)
        || file_same(e->names_name, e->about.model);
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
    progress line;

    memset(&line, 0, sizeof line);
    if (smask_vit_init(c, &e->v, d) != SMASK_OK) return smask_error(c);
    if (evaluation_model_read(c, &e->file, &e->v, &missing, e->trouble,
            sizeof e->trouble) != SMASK_OK)
        return smask_error(c);
    if (missing > 0)
        give_up(e, "--model %s: %s", e->about.model,
            "some weights of the encoder are not in the file");
    smask_vit_pack(c, &e->v);
    if (!smask_is_dry(c)) progress_start(&line, "embed", (double)e->count);
    while (e->next < e->count) {
        smask_tensor *tokens, *pooled;
        int32_t B = e->batch;
        float *images;

        smask_begin_step(c);
        images = (float *)smask_alloc(c,
            (size_t)B * e->image_floats * sizeof(float));
        if (images != NULL) B = next_images(e, B, images);
        if (B == 0) {                    /* only damaged files were left   */
            smask_end_step(c);
            break;
        }
        tokens = smask_vit_encode(c, &e->v, images, B);
        pooled = smask_vit_pool(c, &e->v, tokens);
        if (pooled == NULL || smask_is_dry(c)) {
            smask_end_step(c);
            return smask_error(c);
        }
        if (!evaluation_finite(tokens->x, smask_count(tokens)))
            give_up(e, "--input %s: %s", e->input, "its features are not "
                "finite; the weights of --model or the images are damaged");
        if (fwrite(tokens->x, sizeof(float), smask_count(tokens), e->floats)
            != smask_count(tokens))
            give_up(e, "--output %s: %s; make room and try again", e->output,
                strerror(errno));
        memcpy(e->pooled + e->done * e->D, pooled->x,
            (size_t)B * e->D * sizeof(float));
        smask_end_step(c);
        e->done += (size_t)B;
        progress_at(&line, (double)e->next);
    }
    progress_end(&line);
    if (e->done == 0) give_up(e, "--input %s: %s", e->input, "no image there "
        "can be read; the lines above say why");
    write_output(c, e);
    return smask_error(c);
}

/* ---------------------------------------------------------------- main */

static void read_options(embedding *e, int argc, char **argv)
{
    uint64_t seed = 0;
    const option table[] = {
        { "--model", OPTION_TEXT, &e->about.model, 0, 0,
          "the encoder: a .safetensors file, ours or timm's (required)" },
        { "--input", OPTION_TEXT, &e->input, 0, 0,
          "an image, a folder, or a .safetensors file with `images` "
          "(required)" },
        { "--output", OPTION_TEXT, &e->output, 0, 0,
          "the .safetensors file to write (required)" },
        PIXEL_OPTIONS(e->about),
        { "--heads", OPTION_INT, &e->about.heads, 0, 512,
          "heads H of a file that does not say; 0: D / 64" },
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
    if (e->about.model == NULL) fail("--model is missing: give a model file");
    if (e->input == NULL) fail("--input is missing: give images");
    if (e->output == NULL) fail("--output is missing: give a file to write");
    if (e->pool != NULL && strcmp(e->pool, "mean") != 0
        && strcmp(e->pool, "class") != 0)
        fail("--pool %s: give mean or class", e->pool);
}

int main(int argc, char **argv)
{
    static embedding e;
    smask_desc desc;
    smask_sizes sizes;
    smask_threads pool;
    smask_ctx c;

    read_options(&e, argc, argv);
    if (strcmp(e.about.model, "random") == 0)
        fail("--model random: give a model file");
    evaluation_model_choose(&e.file, &e.about);
    if (e.pool != NULL) e.file.desc.pool_class = e.pool[0] == 'c';
    if (e.file.desc.pool_class && !e.file.desc.class_token)
        fail("--pool class: the model has no class token; use mean");
    e.D = (size_t)e.file.desc.dim;
    e.image_floats = (size_t)e.file.desc.channels
        * (size_t)e.file.desc.image * (size_t)e.file.desc.image;
    e.rows = (size_t)(e.file.desc.image / e.file.desc.patch)
        * (size_t)(e.file.desc.image / e.file.desc.patch)
        + (size_t)(e.file.desc.class_token != 0);
    if (!ends_with(e.input, ".safetensors"))
        evaluation_model_pixels(&e.file, &e.about, NULL, NULL);
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
    context_for(&c, &desc, work, &e, &sizes, e.about.model);
    e.pooled = malloc(e.count * e.D * sizeof(float));
    if (e.pooled == NULL)
        fail("no memory for the features of %lu images",
            (unsigned long)e.count);
    e.work = malloc(e.rows * e.D * sizeof(float));
    if (e.work == NULL) fail("no memory for the features of an image");
    e.out = part_open(e.output);
    if (e.out == NULL) fail("--output %s: %s", e.output, part_error());
    e.floats = part_open(e.floats_name);
    if (e.floats == NULL)
        give_up(&e, "--output %s: %s", e.output, part_error());
    if (e.path != NULL) {
        e.names = part_open(e.names_name);
        if (e.names == NULL)
            give_up(&e, "%s: %s", e.names_name, part_error());
    }
    if (work(&c, &e) != SMASK_OK)
        give_up(&e, "--model %s%s", e.trouble[0] != '\0' ? "" : e.about.model,
            e.trouble[0] != '\0' ? e.trouble : smask_detail(&c));
    /* Both are complete before either gets its name. */
    if (e.names != NULL) write_names(&e);
    if (!part_rename(e.out, e.output))
        give_up(&e, "--output %s: not written: %s; make room and try again",
            e.output, strerror(errno));
    fclose(e.out);
    part_remove(e.floats_name);
    fclose(e.floats);
    e.out = e.floats = NULL;
    if (e.names != NULL) {
        if (!part_rename(e.names, e.names_name))
            give_up(&e, "%s: not written: %s; run again", e.names_name,
                strerror(errno));
        fclose(e.names);
    }
    result("images", (double)e.done, 0);
    result("left_out", (double)(e.count - e.done), 0);
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    if (e.stream != NULL) fclose(e.stream);
    free(e.pooled);
    free(e.work);
    free(e.path);
    return 0;
}
