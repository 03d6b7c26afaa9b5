/* weights.c: model files, of this project and of others. See evaluation.h. */
#include "evaluation.h"
#include "support.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static smask_result say(char *trouble, size_t bytes, smask_result result,
    const char *path, const char *text, const char *detail)
{
    snprintf(trouble, bytes, "%.300s: %.300s%s%.96s", path, text,
        detail[0] != '\0' ? ": " : "", detail);
    return result;
}

/* "0.49 0.48 0.44" or "0.49,0.48,0.44" into at most 4 numbers. */
static int32_t read_numbers(const char *text, float *out)
{
    int32_t count = 0;
    char *end;

    while (count < 4) {
        while (*text == ' ' || *text == ',' || *text == '[') text++;
        out[count] = strtof(text, &end);
        if (end == text) break;
        text = end;
        count++;
    }
    return count;
}

/* Widths of timm's plain ViTs whose heads are not 64 wide: ViT-Huge (1280),
   SO400M (1152), giant (1408), gigantic (1664), its own small test model. */
static void know_heads(evaluation_model *m)
{
    static const int32_t known[][2] = { { 64, 2 }, { 1152, 16 }, { 1280, 16 },
        { 1408, 16 }, { 1664, 16 } };
    size_t i;

    for (i = 0; i < sizeof known / sizeof known[0]; i++)
        if (m->desc.dim == known[i][0]) m->desc.heads = known[i][1];
}

smask_result evaluation_model_open(evaluation_model *m, const char *path,
    char *trouble, size_t trouble_bytes)
{
    char text[256];
    smask_ctx c;
    smask_file file;
    smask_io io;
    FILE *stream;
    smask_result result;
    struct stat about;
    int32_t i, means = 0;

    memset(m, 0, sizeof *m);
    if (strlen(path) >= sizeof m->path)
        return say(trouble, trouble_bytes, SMASK_ARG, path,
            "the path is too long; move the file", "");
    memcpy(m->path, path, strlen(path) + 1);
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        return say(trouble, trouble_bytes, SMASK_IO, path,
            "is a folder; give the .safetensors file in it", "");
    stream = fopen(path, "rb");
    if (stream == NULL)
        return say(trouble, trouble_bytes, SMASK_IO, path,
            strerror(errno), "give the path of a .safetensors model");
    if (smask_setup(&c, NULL) != SMASK_OK) {
        fclose(stream);
        return say(trouble, trouble_bytes, SMASK_MEMORY, path,
            "not enough memory to read the header", "");
    }
    io = smask_stdio(stream);
    result = smask_open(&c, &file, &io);
    if (result == SMASK_OK) result = smask_read_vit_desc(&c, &file, &m->desc);
    if (result != SMASK_OK) {
        say(trouble, trouble_bytes, result, path,
            "not a model that can be read here", smask_detail(&c));
    } else {
        m->foreign = smask_read_metadata(&file, "splitmask", text,
            sizeof text) < 0;
        m->guessed_heads = m->foreign && smask_read_metadata(&file,
            "num_heads", text, sizeof text) < 0;
        if (m->guessed_heads) know_heads(m);
        m->desc.decoder_depth = 0;
        m->desc.vocabulary = 0;
        m->desc.mask_token = 0;
        m->desc.classes = 0;
        m->spare = 2 * file.header_bytes + 65536
            + (size_t)file.count * (sizeof(smask_file_entry) + 4);
        if (smask_read_metadata(&file, "mean", text, sizeof text) > 0)
            means = read_numbers(text, m->mean);
        if (smask_read_metadata(&file, "std", text, sizeof text) > 0
            && read_numbers(text, m->deviation) == means)
            m->channels = means;
        for (i = 0; i < m->channels; i++)
            if (!isfinite(m->mean[i]) || !isfinite(m->deviation[i])
                || !(m->deviation[i] > 0))
                result = say(trouble, trouble_bytes, SMASK_FORMAT, path,
                    "its notes mean and std, of pixels, are damaged", "");
    }
    smask_shutdown(&c);
    fclose(stream);
    return result;
}

smask_result evaluation_model_read(smask_ctx *c, const evaluation_model *m,
    smask_vit *v, int32_t *missing, char *trouble, size_t trouble_bytes)
{
    smask_file file;
    smask_io io;
    FILE *stream;
    smask_result result;

    *missing = 0;
    trouble[0] = '\0';
    if (m->path[0] == '\0') return SMASK_OK;
    if (smask_is_dry(c)) {
        smask_begin_step(c);
        smask_alloc(c, m->spare);
        smask_end_step(c);
        return smask_error(c);
    }
    stream = fopen(m->path, "rb");
    if (stream == NULL)
        return say(trouble, trouble_bytes, SMASK_IO, m->path,
            strerror(errno), "");
    io = smask_stdio(stream);
    smask_begin_step(c);
    result = smask_open(c, &file, &io);
    if (result == SMASK_OK)
        result = smask_read_prefix(c, &file, v, "head.", 1, missing);
    /* Opening has checked such a file: what lacks is a bias that is zero. */
    if (m->foreign) *missing = 0;
    if (result != SMASK_OK)
        say(trouble, trouble_bytes, result, m->path, smask_detail(c), "");
    smask_end_step(c);
    fclose(stream);
    return result;
}

/* --------------------------------------------------------------- choices */

void evaluation_model_choose(evaluation_model *m, const model_options *o)
{
    static const char *const sizes[] = { "--image", "--patch", "--dim",
        "--depth" };
    char trouble[512];
    size_t i;

    if (strcmp(o->model, "random") != 0) {
        if (evaluation_model_open(m, o->model, trouble, sizeof trouble)
            != SMASK_OK) fail("--model %s", trouble);
        for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            if (option_given(sizes[i]))
                fail("%s: the model of --model has its own; leave it out, or "
                    "use --model random", sizes[i]);
        if (option_given("--heads") && !m->guessed_heads
            && m->desc.heads != o->heads)
            fail("--heads %d: the model of --model has %d; leave it out",
                o->heads, (int)m->desc.heads);
        if (m->guessed_heads && option_given("--heads")) {
            if (o->heads < 1 || m->desc.dim % o->heads != 0)
                fail("--heads %d: the width %d is no multiple of it", o->heads,
                    (int)m->desc.dim);
            m->desc.heads = o->heads;
        } else if (m->guessed_heads) {
            warn("%d heads, guessed from the width %d: the file does not say; "
                "give --heads if that is wrong", (int)m->desc.heads,
                (int)m->desc.dim);
        }
        return;
    }
    memset(m, 0, sizeof *m);
    m->desc.image = o->image;
    m->desc.patch = o->patch;
    m->desc.dim = o->dim;
    m->desc.depth = o->depth;
    m->desc.heads = o->heads > 0 ? o->heads : o->dim < 64 ? 1 : o->dim / 32;
    m->desc.channels = 3;
    if (o->image % o->patch != 0)
        fail("--image %d is no multiple of --patch %d", o->image, o->patch);
    if (o->dim % m->desc.heads != 0)
        fail("--dim %d is no multiple of --heads %d", o->dim,
            (int)m->desc.heads);
}

/* The numbers behind "key" in a config.json: a list, or one number. */
static int32_t config_numbers(const char *text, const char *key, float *out)
{
    const char *at = strstr(text, key);

    if (at == NULL) return 0;
    at += strlen(key);
    while (*at == ' ' || *at == ':' || *at == '\n') at++;
    return read_numbers(at, out);
}

/* timm and its hub put config.json beside the weights. 1 if it says how pixels
   are normalised. */
static int read_config(evaluation_model *m)
{
    char path[1100], *text;
    const char *slash = strrchr(m->path, '/');
    FILE *f;
    size_t n;
    int32_t means = 0, deviations = 0;

    snprintf(path, sizeof path, "%.*sconfig.json", slash == NULL ? 0
        : (int)(slash - m->path) + 1, m->path);
    f = fopen(path, "rb");
    if (f == NULL) return 0;
    text = (char *)malloc(65536);
    n = text != NULL ? fread(text, 1, 65535, f) : 0;
    fclose(f);
    if (text != NULL) {
        text[n] = '\0';
        means = config_numbers(text, "\"mean\"", m->mean);
        deviations = config_numbers(text, "\"std\"", m->deviation);
        free(text);
    }
    return means == m->desc.channels && deviations == means;
}

void evaluation_model_pixels(evaluation_model *m, const model_options *o,
    const float *data_mean, const float *data_deviation)
{
    const int32_t C = m->desc.channels;
    const char *from = "the model file";
    int32_t i;

    if ((o->mean != NULL) != (o->std != NULL))
        fail("--mean and --std: give both or none");
    if (o->mean != NULL) {
        from = "--mean and --std";
        if (read_numbers(o->mean, m->mean) != C
            || read_numbers(o->std, m->deviation) != C)
            fail("--mean %s --std %s: give %d numbers each, as 0.5,0.5,0.5",
                o->mean, o->std, (int)C);
    } else if (m->channels != C) {
        if (m->foreign && read_config(m)) {
            from = "config.json beside it";
        } else if (m->foreign) {
            fail("--model %s: the file does not say how pixels are "
                "normalised; give --mean 0.485,0.456,0.406 --std "
                "0.229,0.224,0.225 "
                "(ImageNet's: DeiT, MAE, DINO) or --mean 0.5,0.5,0.5 --std "
                "0.5,0.5,0.5 (ViT of AugReg, BEiT), as its model card says",
                m->path);
        } else if (data_mean == NULL) {
            fail("--model %s: the file does not say how pixels are "
                "normalised; give --mean and --std", m->path);
        } else {
            from = "the data";
            memcpy(m->mean, data_mean, sizeof m->mean);
            memcpy(m->deviation, data_deviation, sizeof m->deviation);
        }
    }
    for (i = 0; i < C; i++)
        if (!isfinite(m->mean[i]) || !isfinite(m->deviation[i])
            || !(m->deviation[i] > 0))
            fail("pixels, from %s: mean %g, std %g; std must be above 0", from,
                (double)m->mean[i], (double)m->deviation[i]);
    m->channels = C;
    if (C == 3)
        warn("pixels: mean %.3f %.3f %.3f, std %.3f %.3f %.3f, from %s",
            (double)m->mean[0], (double)m->mean[1], (double)m->mean[2],
            (double)m->deviation[0], (double)m->deviation[1],
            (double)m->deviation[2], from);
    else
        warn("pixels: mean %.3f, std %.3f, from %s", (double)m->mean[0],
            (double)m->deviation[0], from);
}
