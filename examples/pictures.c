/* pictures.c: what a SplitMask model makes of a few images, as one PNG.

     build/pictures --model out/run/model.safetensors --data shapes
                    --out examples/pictures/splitmask.png

   A row for each image: the image, its visual tokens (each patch drawn as
   its codebook vector, at the mean length of the patches that carry it),
   half A, half B, the decoder's prediction from A and from B. What a
   prediction was given is faint. In 16 greys, so that the file is small. */
#include "support/support.h"
#include "support/evaluation.h"
#include "support/report.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 3, COLUMNS = 6, ZOOM = 4, GAP = 8, SAMPLE = 64, WHITE = 15 };

typedef struct pictures {
    const char *model, *path, *out;
    int threads;
    uint64_t seed;
    evaluation_model file;           /* for the normalisation of pixels    */
    smask_vit v;
    smask_tokenizer t;
    report_tokens tokens;
    data_set data;
    float *images;                   /* (ROWS, C, S, S)                    */
    unsigned char *grey;             /* (height, width) 0 .. 15            */
    size_t width, height;
} pictures;

/* ----------------------------------------------------------------- PNG
   A zlib stream of one block with the fixed codes of RFC 1951. Enlarged
   pixels repeat the row above, so matches are only sought there. */

typedef struct stream {
    FILE *f;
    uint32_t crc, bits, adler_low, adler_high;
    int count;                       /* of bits not yet written            */
    unsigned char *at;               /* a chunk in the making              */
    size_t used;
} stream;

static void add_bits(stream *s, uint32_t value, int count)
{
    s->bits |= value << s->count;
    for (s->count += count; s->count >= 8; s->count -= 8) {
        s->at[s->used++] = (unsigned char)(s->bits & 255);
        s->bits >>= 8;
    }
}

/* Huffman codes go in from their highest bit. */
static void add_code(stream *s, uint32_t code, int count)
{
    while (count-- > 0) add_bits(s, code >> count & 1, 1);
}

static void add_symbol(stream *s, uint32_t symbol)
{
    if (symbol < 144) add_code(s, 48 + symbol, 8);
    else if (symbol < 256) add_code(s, 400 + symbol - 144, 9);
    else if (symbol < 280) add_code(s, symbol - 256, 7);
    else add_code(s, 192 + symbol - 280, 8);
}

/* The code of x (a length from 3, or a distance from 1), and extra bits.
   `step` codes share each number of extra bits: 4 of lengths, 2 of
   distances. */
static uint32_t bucket(uint32_t x, uint32_t first, uint32_t step,
    uint32_t *extra, int *bits)
{
    uint32_t code = 0, low = first;

    for (;;) {
        *bits = code < 2 * step ? 0 : (int)(code / step) - 1;
        if (x < low + (1u << *bits)) break;
        low += 1u << *bits;
        code++;
    }
    *extra = x - low;
    return code;
}

static void add_match(stream *s, uint32_t length, uint32_t distance)
{
    uint32_t extra, code;
    int bits;

    code = bucket(length, 3, 4, &extra, &bits);
    add_symbol(s, 257 + code);
    add_bits(s, extra, bits);
    code = bucket(distance, 1, 2, &extra, &bits);
    add_code(s, code, 5);
    add_bits(s, extra, bits);
}

static void compress(stream *s, const unsigned char *raw, size_t count,
    size_t row)
{
    uint32_t low = 1, high = 0;
    size_t i = 0, k;

    s->at[s->used++] = 0x78;
    s->at[s->used++] = 0x01;
    add_bits(s, 3, 3);                   /* the last block, fixed codes    */
    while (i < count) {
        size_t best = 0, from = 0, distance[2];
        int d;
        distance[0] = 1;
        distance[1] = row;
        for (d = 0; d < 2; d++) {
            for (k = 0; i >= distance[d] && i + k < count && k < 257
                && raw[i + k] == raw[i + k - distance[d]]; k++)
                ;
            if (k > best) {
                best = k;
                from = distance[d];
            }
        }
        if (best < 3) {
            add_symbol(s, raw[i++]);
            continue;
        }
        add_match(s, (uint32_t)best, (uint32_t)from);
        i += best;
    }
    add_symbol(s, 256);
    if (s->count > 0) add_bits(s, 0, 8 - s->count);
    for (i = 0; i < count; i++) {
        low = (low + raw[i]) % 65521;
        high = (high + low) % 65521;
    }
    for (k = 0; k < 4; k++)
        s->at[s->used++] = (unsigned char)((high << 16 | low)
            >> (24 - 8 * k) & 255);
}

static void write_32(FILE *f, uint32_t x)
{
    int k;

    for (k = 24; k >= 0; k -= 8) fputc((int)(x >> k & 255), f);
}

static void write_chunk(FILE *f, const char *name, const unsigned char *data,
    size_t count)
{
    uint32_t crc = 0xffffffff;
    size_t i;
    int k;

    write_32(f, (uint32_t)count);
    fwrite(name, 1, 4, f);
    if (count > 0) fwrite(data, 1, count, f);
    for (i = 0; i < 4 + count; i++) {
        crc ^= i < 4 ? (unsigned char)name[i] : data[i - 4];
        for (k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    write_32(f, ~crc);
}

/* The picture as a PNG of 4 bits a pixel; its width is even. */
static void write_png(const pictures *p)
{
    static const unsigned char mark[8] = { 0x89, 'P', 'N', 'G', '\r', '\n',
        0x1a, '\n' };
    const size_t row = p->width / 2 + 1, count = row * p->height;
    unsigned char *raw = (unsigned char *)calloc(count, 1), head[13];
    stream s;
    size_t x, y;

    memset(&s, 0, sizeof s);
    memset(head, 0, sizeof head);
    s.at = (unsigned char *)malloc(2 * count + 64);
    if (raw == NULL || s.at == NULL) fail("no memory for the picture");
    for (y = 0; y < p->height; y++)      /* a row opens with its filter: 0 */
        for (x = 0; x < p->width; x++)
            raw[y * row + 1 + x / 2] |= (unsigned char)(
                p->grey[y * p->width + x] << (x % 2 == 0 ? 4 : 0));
    compress(&s, raw, count, row);
    for (x = 0; x < 4; x++) {
        head[x] = (unsigned char)(p->width >> (24 - 8 * x) & 255);
        head[4 + x] = (unsigned char)(p->height >> (24 - 8 * x) & 255);
    }
    head[8] = 4;                         /* bits; grey is 0 in head[9]     */
    s.f = part_open(p->out);
    if (s.f == NULL) fail("--out %s: %s", p->out, part_error());
    fwrite(mark, 1, 8, s.f);
    write_chunk(s.f, "IHDR", head, 13);
    write_chunk(s.f, "IDAT", s.at, s.used);
    write_chunk(s.f, "IEND", NULL, 0);
    if (!part_rename(s.f, p->out)) {
        part_remove(p->out);
        fail("--out %s: not written: %s; make room and try again", p->out,
            strerror(errno));
    }
    fclose(s.f);
    free(s.at);
    free(raw);
}

/* ------------------------------------------------------------- drawing */

/* Patch n (C,q,q), normalised, into a tile; `opacity`: how strong, of 1. */
static void draw_patch(pictures *p, int row, int column, int32_t n,
    const float *patch, int32_t q, float opacity)
{
    const smask_vit_desc *d = &p->v.desc;
    const size_t P = (size_t)d->patch, zoom = ZOOM * P;
    const size_t G = (size_t)p->v.grid, side = ZOOM * (size_t)d->image;
    const size_t top = (size_t)row * (side + GAP) + (size_t)n / G * zoom;
    const size_t left = (size_t)column * (side + GAP) + (size_t)n % G * zoom;
    size_t x, y;
    int32_t c;

    for (y = 0; y < zoom; y++)
        for (x = 0; x < zoom; x++) {
            const size_t Q = (size_t)q, at = y * Q / zoom * Q + x * Q / zoom;
            float light = 0;
            for (c = 0; c < d->channels; c++)
                light += (patch[(size_t)c * Q * Q + at] * p->data.deviation[c]
                    + p->data.mean[c]) / (float)d->channels;
            light = 1 - opacity * (1 - light);
            light = light < 0 ? 0 : light > 1 ? 1 : light;
            p->grey[(top + y) * p->width + left + x]
                = (unsigned char)(light * WHITE + 0.5f);
        }
}

/* The codebook vector of a visual token. */
static void draw_token(pictures *p, int row, int column, int32_t n,
    int32_t id, float *work)
{
    const size_t d = (size_t)p->t.width;
    const float *average = p->tokens.average + (size_t)id * d;
    const int32_t q = p->t.desc.half_resolution ? p->t.desc.patch / 2
        : p->t.desc.patch;
    float mean = 0;
    size_t i;

    for (i = 0; i < d && p->t.desc.centre; i++) mean += average[i] / (float)d;
    for (i = 0; i < d; i++)
        work[i] = p->tokens.scale[id] * p->t.codebook[(size_t)id * d + i]
            + mean;
    draw_patch(p, row, column, n, work, q, 1);
}

static void draw(pictures *p, const smask_losses *l)
{
    const int32_t N = p->v.tokens, P = p->v.desc.patch;
    const size_t C = (size_t)p->v.desc.channels, d = C * (size_t)(P * P);
    const size_t pixels = C * (size_t)p->v.desc.image
        * (size_t)p->v.desc.image;
    const int32_t *guess = l->guess;
    float *patch = (float *)malloc(((size_t)N + 1) * d * sizeof(float));
    int32_t b, row, k, n;

    if (patch == NULL) fail("no memory for the patches");
    for (b = 0; b < 2; b++)
        for (row = 0; row < ROWS; row++) {
            smask_patches(p->images + (size_t)row * pixels, 1,
                p->v.desc.channels, p->v.desc.image, P, patch);
            for (n = 0; n < N && b == 0; n++) {
                draw_patch(p, row, 0, n, patch + (size_t)n * d, P, 1);
                draw_token(p, row, 1, n, l->tokens[row * N + n],
                    patch + (size_t)N * d);
            }
            for (k = 0; k < l->mask.visible[b]; k++) {
                n = l->mask.visible_at[b][row * l->mask.visible[b] + k];
                draw_patch(p, row, 2 + b, n, patch + (size_t)n * d, P, 1);
                draw_patch(p, row, 4 + b, n, patch + (size_t)n * d, P, 0.3f);
            }
            for (k = 0; k < l->mask.masked[b]; k++)
                draw_token(p, row, 4 + b,
                    l->mask.masked_at[b][row * l->mask.masked[b] + k],
                    *guess++, patch + (size_t)N * d);
        }
    free(patch);
}

/* ---------------------------------------------------------------- work */

static void read_model(smask_ctx *c, pictures *p)
{
    smask_vit_desc model;
    smask_tokenizer_desc tokens;
    smask_file file;
    smask_io io;
    FILE *f = fopen(p->model, "rb");

    if (f == NULL) fail("--model %s: %s", p->model, strerror(errno));
    io = smask_stdio(f);
    smask_open(c, &file, &io);
    smask_read_vit_desc(c, &file, &model);
    smask_read_tokenizer_desc(c, &file, &tokens);
    if (smask_error(c) == SMASK_OK && model.decoder_depth == 0)
        fail("--model %s: has no decoder; give a file of pretrain", p->model);
    smask_vit_init(c, &p->v, &model);
    smask_tokenizer_init(c, &p->t, &tokens);
    smask_read(c, &file, &p->v, &p->t, NULL, NULL, NULL);
    fclose(f);
    if (smask_error(c) != SMASK_OK)
        fail("--model %s: %s", p->model, smask_detail(c));
}

/* The mean length of each codebook vector, from training images. */
static void count_words(smask_ctx *c, pictures *p, size_t pixels)
{
    const size_t N = (size_t)p->v.tokens;
    const size_t count = p->data.train.count;
    float *images = (float *)malloc(SAMPLE * pixels * sizeof(float));
    int32_t *ids = (int32_t *)malloc(SAMPLE * N * sizeof(int32_t));
    void *memory = calloc(report_tokens_bytes(&p->t), 1);
    int32_t which[SAMPLE], i;
    size_t at;

    if (images == NULL || ids == NULL || memory == NULL)
        fail("no memory for the codebook");
    report_tokens_begin(&p->tokens, &p->t, memory);
    for (at = 0; at + SAMPLE <= count && at < 1024; at += SAMPLE) {
        for (i = 0; i < SAMPLE; i++) which[i] = (int32_t)at + i;
        data_batch(&p->data, 0, which, SAMPLE, p->data.mean,
            p->data.deviation, images);
        smask_begin_step(c);
        if (smask_tokenize(c, &p->t, images, SAMPLE, ids) == SMASK_OK)
            report_tokens_add(&p->tokens, images, SAMPLE, ids);
        smask_end_step(c);
    }
    if (p->tokens.patches == 0)
        fail("--data %s: give %d training images or more", p->path,
            (int)SAMPLE);
    report_tokens_end(&p->tokens);
    free(images);
    free(ids);
}

/* The first test image of each of the first classes. */
static void choose_images(pictures *p)
{
    const data_split *s = &p->data.test;
    int32_t which[ROWS], found = 0, k;
    size_t i;

    for (i = 0; i < s->count && found < ROWS; i++) {
        for (k = 0; k < found && s->label[which[k]] != s->label[i]; k++)
            ;
        if (k == found) which[found++] = (int32_t)i;
    }
    if (found < ROWS)
        fail("--data %s: give test images of %d classes", p->path,
            (int)ROWS);
    data_batch(&p->data, 1, which, ROWS, p->data.mean, p->data.deviation,
        p->images);
}

int main(int argc, char **argv)
{
    static pictures p;
    const option table[] = {
        { "--model", OPTION_TEXT, &p.model, 0, 0,
          "a SplitMask model of pretrain (required)" },
        { "--data", OPTION_TEXT, &p.path, 0, 0, "the images it was trained "
          "on, as for pretrain" },
        { "--out", OPTION_TEXT, &p.out, 0, 0, "the PNG to write" },
        { "--threads", OPTION_INT, &p.threads, 0, 1024, "0: all cores" },
        { "--seed", OPTION_SEED, &p.seed, 0, 0, "seed of the split" }
    };
    smask_threads pool;
    char trouble[640];
    smask_desc desc;
    smask_ctx c;
    smask_losses losses;
    size_t pixels, side;

    p.path = "shapes";
    p.out = "out/splitmask.png";
    p.seed = 1;
    options_read("a model's predictions as a picture", table,
        (int)(sizeof table / sizeof table[0]), argc, argv);
    if (p.model == NULL) fail("--model is missing: give a model file");
    file_check_output("--out", p.out);
    if (file_same(p.out, p.model))
        fail("--out %s: is the model; give another name", p.out);
    if (evaluation_model_open(&p.file, p.model, trouble, sizeof trouble)
        != SMASK_OK)
        fail("--model %s", trouble);
    if (smask_threads_start(&pool, p.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    memset(&desc, 0, sizeof desc);
    desc.parallel = smask_threads_hook(&pool);
    desc.memory_size = (size_t)512 << 20;
    if (smask_setup(&c, &desc) != SMASK_OK) fail("no memory for the model");
    read_model(&c, &p);
    side = (size_t)p.v.desc.image;
    pixels = (size_t)p.v.desc.channels * side * side;
    p.data.threads = p.threads;
    data_open(&p.data, p.path, p.v.desc.image, p.v.desc.channels);
    if (p.file.channels == p.v.desc.channels) {
        memcpy(p.data.mean, p.file.mean, sizeof p.data.mean);
        memcpy(p.data.deviation, p.file.deviation, sizeof p.data.deviation);
    }
    p.width = COLUMNS * (ZOOM * side + GAP) - GAP;
    p.height = ROWS * (ZOOM * side + GAP) - GAP;
    p.images = (float *)malloc(ROWS * pixels * sizeof(float));
    p.grey = (unsigned char *)malloc(p.width * p.height);
    if (p.images == NULL || p.grey == NULL) fail("no memory for the picture");
    memset(p.grey, WHITE, p.width * p.height);
    choose_images(&p);
    count_words(&c, &p, pixels);

    smask_seed(&c.random, p.seed, 0);
    smask_record(&c, 0);
    smask_begin_step(&c);
    if (smask_splitmask_loss(&c, &p.v, &p.t, NULL, p.images, ROWS, &losses)
        == NULL)
        fail("%s: %s", p.model, smask_detail(&c));
    draw(&p, &losses);
    smask_end_step(&c);
    write_png(&p);
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    data_close(&p.data);
    free(p.tokens.count);
    free(p.images);
    free(p.grey);
    return 0;
}
