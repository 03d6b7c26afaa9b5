/* report.c: a pre-training run as one HTML file. See report.h. */
#include "report.h"
#include "support.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------------- PNG
   A PNG is a signature and a list of chunks, each with a checksum. Its
   pixels are a zlib stream, and zlib may store bytes as they are: that is
   all that pictures of a few thousand pixels need. */

typedef struct bytes { unsigned char *at; size_t count, room; } bytes;

static void put_byte(bytes *b, unsigned value)
{
    if (b->count < b->room) b->at[b->count] = (unsigned char)(value & 0xff);
    b->count++;
}

static void put_32(bytes *b, uint32_t value)
{
    put_byte(b, value >> 24);
    put_byte(b, value >> 16);
    put_byte(b, value >> 8);
    put_byte(b, value);
}

/* Length, name, data, and the CRC of name and data (polynomial of zip). */
static void put_chunk(bytes *b, const char *name, const unsigned char *data,
    size_t count)
{
    uint32_t crc = 0xffffffff;
    size_t begin, i;
    int k;

    put_32(b, (uint32_t)count);
    begin = b->count;
    for (i = 0; i < 4; i++) put_byte(b, (unsigned char)name[i]);
    for (i = 0; i < count; i++) put_byte(b, data[i]);
    for (i = begin; i < b->count && i < b->room; i++) {
        crc ^= b->at[i];
        for (k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    put_32(b, ~crc);
}

/* zlib without compression: header, blocks of at most 65535 bytes with their
   length and its complement, the Adler-32 sum. */
static void put_stored(bytes *b, const unsigned char *data, size_t count)
{
    uint32_t low = 1, high = 0;
    size_t i = 0, end;

    put_byte(b, 0x78);
    put_byte(b, 0x01);
    do {
        const size_t left = count - i;
        const unsigned length = left < 65535 ? (unsigned)left : 65535;
        put_byte(b, left == length);
        put_byte(b, length);
        put_byte(b, length >> 8);
        put_byte(b, ~length);
        put_byte(b, ~length >> 8);
        for (end = i + length; i < end; i++) {
            put_byte(b, data[i]);
            low = (low + data[i]) % 65521;
            high = (high + low) % 65521;
        }
    } while (i < count);
    put_32(b, high << 16 | low);
}

static void put_base64(FILE *f, const unsigned char *data, size_t count)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        "abcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i;

    for (i = 0; i < count; i += 3) {
        const unsigned a = data[i];
        const unsigned b = i + 1 < count ? data[i + 1] : 0;
        const unsigned d = i + 2 < count ? data[i + 2] : 0;
        fputc(digit[a >> 2], f);
        fputc(digit[(a << 4 | b >> 4) & 63], f);
        fputc(i + 1 < count ? digit[(b << 2 | d >> 6) & 63] : '=', f);
        fputc(i + 2 < count ? digit[d & 63] : '=', f);
    }
}

int report_png(FILE *stream, const unsigned char *pixels, int32_t width,
    int32_t height)
{
    static const unsigned char signature[8] = { 0x89, 'P', 'N', 'G', '\r',
        '\n', 0x1a, '\n' };
    const size_t row = (size_t)width * 4;
    const size_t raw_bytes = (row + 1) * (size_t)height;
    unsigned char *memory, head[13];
    bytes raw, packed, file;
    size_t i;

    raw.room = raw_bytes;
    packed.room = raw_bytes + raw_bytes / 65535 * 5 + 16;
    file.room = packed.room + 128;
    raw.count = packed.count = file.count = 0;
    memory = (unsigned char *)malloc(raw.room + packed.room + file.room);
    if (memory == NULL) return 0;
    raw.at = memory;
    packed.at = memory + raw.room;
    file.at = packed.at + packed.room;
    for (i = 0; i < raw_bytes; i++)  /* each row opens with filter 0: none */
        put_byte(&raw, i % (row + 1) == 0 ? 0
            : pixels[i / (row + 1) * row + i % (row + 1) - 1]);
    put_stored(&packed, raw.at, raw.count);
    for (i = 0; i < 8; i++) put_byte(&file, signature[i]);
    for (i = 0; i < 4; i++) {
        head[i] = (unsigned char)((uint32_t)width >> (24 - 8 * i) & 0xff);
        head[4 + i] = (unsigned char)((uint32_t)height >> (24 - 8 * i)
            & 0xff);
    }
    head[8] = 8;                         /* bits a channel                 */
    head[9] = 6;                         /* red, green, blue, opacity      */
    head[10] = head[11] = head[12] = 0;
    put_chunk(&file, "IHDR", head, 13);
    put_chunk(&file, "IDAT", packed.at, packed.count);
    put_chunk(&file, "IEND", head, 0);
    fprintf(stream, "data:image/png;base64,");
    put_base64(stream, file.at, file.count);
    free(memory);
    return 1;
}

/* --------------------------------------------------------------- tokens */

/* Side in pixels of what the tokenizer looks at: P, or P / 2. */
static int32_t token_side(const smask_tokenizer *t)
{
    return t->desc.half_resolution ? t->desc.patch / 2 : t->desc.patch;
}

static int32_t patches_of(const smask_tokenizer *t)
{
    const int32_t grid = t->desc.image / t->desc.patch;

    return grid * grid;
}

/* Patch n of an image as the tokenizer cuts it, before it removes a mean. */
static void raw_patch(const smask_tokenizer *t, const float *image, int32_t n,
    float *row)
{
    const int32_t S = t->desc.image, P = t->desc.patch, p = token_side(t);
    const int32_t top = n / (S / P) * P, left = n % (S / P) * P;
    int32_t channel, y, x;

    for (channel = 0; channel < t->desc.channels; channel++)
        for (y = 0; y < p; y++)
            for (x = 0; x < p; x++) {
                const float *at = image + (size_t)channel * (size_t)S
                    * (size_t)S;
                if (t->desc.half_resolution) {
                    at += (size_t)(top + 2 * y) * (size_t)S
                        + (size_t)(left + 2 * x);
                    *row++ = 0.25f * (at[0] + at[1] + at[S] + at[S + 1]);
                } else {
                    *row++ = at[(size_t)(top + y) * (size_t)S
                        + (size_t)(left + x)];
                }
            }
}

/* The factor that brings the codebook vector nearest to the row. */
static float best_scale(const float *row, const float *vector, size_t d)
{
    double dot = 0, square = 0;
    size_t i;

    for (i = 0; i < d; i++) {
        dot += (double)row[i] * vector[i];
        square += (double)vector[i] * vector[i];
    }
    return square > 0 ? (float)(dot / square) : 0;
}

size_t report_tokens_bytes(const smask_tokenizer *t)
{
    const size_t V = (size_t)t->desc.vocabulary, d = (size_t)t->width;

    return sizeof(float) * (2 * V + V * d
        + ((size_t)patches_of(t) + 1) * d);
}

void report_tokens_begin(report_tokens *w, const smask_tokenizer *t,
    void *memory)
{
    const size_t V = (size_t)t->desc.vocabulary, d = (size_t)t->width;
    float *at = (float *)memory;

    memset(w, 0, sizeof *w);
    w->tokenizer = t;
    w->count = (int32_t *)memory;        /* as wide as a float             */
    w->scale = at + V;
    w->average = at + 2 * V;
    w->work = w->average + V * d;
}

void report_tokens_add(report_tokens *w, const float *images, int32_t B,
    const int32_t *ids)
{
    const smask_tokenizer *t = w->tokenizer;
    const size_t d = (size_t)t->width, N = (size_t)patches_of(t);
    const size_t pixels = (size_t)t->desc.channels * (size_t)t->desc.image
        * (size_t)t->desc.image;
    float *raw = w->work + N * d;
    int32_t b;
    size_t n, i;

    for (b = 0; b < B; b++) {
        const float *image = images + (size_t)b * pixels;
        smask_tokenizer_patches(t, image, 1, w->work);
        for (n = 0; n < N; n++) {
            const size_t id = (size_t)ids[(size_t)b * N + n];
            float *sum = w->average + id * d;
            w->count[id]++;
            w->scale[id] += best_scale(w->work + n * d,
                t->codebook + id * d, d);
            raw_patch(t, image, (int32_t)n, raw);
            for (i = 0; i < d; i++) sum[i] += raw[i];
        }
    }
    w->patches += (int64_t)B * (int64_t)N;
}

void report_tokens_end(report_tokens *w)
{
    const size_t d = (size_t)w->tokenizer->width;
    double entropy = 0, all = 0;
    int32_t id;
    size_t i;

    w->use.used = 0;
    for (id = 0; id < w->tokenizer->desc.vocabulary; id++) {
        const double share = w->count[id] / (double)w->patches;
        all += w->scale[id];
        if (w->count[id] == 0) continue;
        entropy -= share * log(share);
        w->use.used++;
        w->scale[id] /= (float)w->count[id];
        for (i = 0; i < d; i++)
            w->average[(size_t)id * d + i] /= (float)w->count[id];
    }
    /* A token that the sample lacks: as long as tokens are on average. */
    for (id = 0; id < w->tokenizer->desc.vocabulary; id++)
        if (w->count[id] == 0)
            w->scale[id] = (float)(all / (double)w->patches);
    w->use.entropy = entropy;
    w->use.perplexity = exp(entropy);
}

/* -------------------------------------------------------------- canvas
   Pictures are drawn patch by patch. Above 128 pixels they are shown at
   half their side, which is also the resolution of tokens cut in half. */

typedef struct canvas {
    const report *r;
    int32_t side, patch, grid;       /* in pixels of the picture           */
    unsigned char *pixel;            /* (side, side, 4)                    */
    float *row, *raw, *vector;       /* patches in work                    */
} canvas;

static unsigned char to_byte(float x)
{
    return (unsigned char)(x <= 0 ? 0 : x >= 1 ? 255 : x * 255 + 0.5f);
}

/* A patch (C, p, p) of normalised pixels as (q, q, 4), `stride` pixels from
   one row to the next. Larger patches are averaged, smaller ones repeated. */
static void draw_patch(const report *r, const float *row, int32_t C,
    int32_t p, int32_t q, unsigned char *to, int32_t stride, int opacity)
{
    int32_t y, x, i, j, k;

    for (y = 0; y < q; y++)
        for (x = 0; x < q; x++) {
            unsigned char *out = to + 4 * (y * stride + x);
            const int32_t top = y * p / q, left = x * p / q;
            const int32_t span = p > q ? p / q : 1;
            for (k = 0; k < 3; k++) {
                const int32_t from = C < 3 ? 0 : k;
                float sum = 0;
                for (i = top; i < top + span; i++)
                    for (j = left; j < left + span; j++)
                        sum += row[(from * p + i) * p + j];
                out[k] = to_byte(sum / (float)(span * span)
                    * r->deviation[from] + r->mean[from]);
            }
            out[3] = (unsigned char)opacity;
        }
}

static void draw_at(const canvas *v, int32_t n, const float *row, int32_t p,
    int opacity)
{
    const int32_t at = n / v->grid * v->patch * v->side
        + n % v->grid * v->patch;

    draw_patch(v->r, row, v->r->tokens->tokenizer->desc.channels, p, v->patch,
        v->pixel + 4 * at, v->side, opacity);
}

/* How tokens become pixels. */
enum { AS_CODEBOOK, AS_AVERAGE };

/* Token `id` as a patch (d). For a patch that is there to compare with, `row`
   and `raw` (as the tokenizer sees it, and before its mean was removed) give
   the best scale; otherwise they are NULL, and the token's mean scale is
   taken. */
static void token_patch(const report_tokens *w, int32_t id, const float *row,
    const float *raw, int style, float *out)
{
    const smask_tokenizer *t = w->tokenizer;
    const size_t d = (size_t)t->width;
    const float *vector = t->codebook + (size_t)id * d;
    const float *average = w->average + (size_t)id * d;
    const float scale = row != NULL ? best_scale(row, vector, d)
        : w->scale[id];
    float mean = 0;
    size_t i;

    if (style == AS_AVERAGE && w->count[id] > 0) {
        memcpy(out, average, d * sizeof *out);
        return;
    }
    for (i = 0; i < d && t->desc.centre; i++)
        mean += (row != NULL ? raw[i] - row[i] : average[i]) / (float)d;
    for (i = 0; i < d; i++) out[i] = scale * vector[i] + mean;
}

static int canvas_open(canvas *v, const report *r)
{
    const smask_tokenizer_desc *d = &r->tokens->tokenizer->desc;
    const int32_t shrink = d->image > 128 && d->patch % 2 == 0 ? 2 : 1;
    const size_t C = (size_t)d->channels, S = (size_t)d->image;
    size_t rows = C * S * S;

    v->r = r;
    v->side = d->image / shrink;
    v->patch = d->patch / shrink;
    v->grid = d->image / d->patch;
    v->pixel = (unsigned char *)malloc(4 * (size_t)v->side
        * (size_t)v->side);
    v->row = (float *)malloc((2 * rows + C * S * S) * sizeof(float));
    v->raw = v->row == NULL ? NULL : v->row + rows;
    v->vector = v->row == NULL ? NULL : v->raw + rows;
    return v->pixel != NULL && v->row != NULL;
}

static void canvas_close(canvas *v)
{
    free(v->pixel);
    free(v->row);
}

static const float *scene_image(const report *r, int32_t scene)
{
    const smask_tokenizer_desc *d = &r->tokens->tokenizer->desc;

    return r->scenes->image + (size_t)scene * (size_t)d->channels
        * (size_t)d->image * (size_t)d->image;
}

/* The pixels of a scene, where `seen` (N) is 1 or NULL. */
static void draw_pixels(const canvas *v, int32_t scene,
    const unsigned char *seen, int opacity)
{
    const smask_tokenizer_desc *d = &v->r->tokens->tokenizer->desc;
    const size_t C = (size_t)d->channels, P = (size_t)d->patch;
    int32_t n;

    memset(v->pixel, 0, 4 * (size_t)v->side * (size_t)v->side);
    smask_patches(scene_image(v->r, scene), 1, d->channels, d->image, d->patch,
        v->row);
    for (n = 0; n < v->grid * v->grid; n++)
        if (seen == NULL || seen[n])
            draw_at(v, n, v->row + (size_t)n * C * P * P, d->patch, opacity);
}

/* The true tokens of a scene. */
static void draw_tokens(const canvas *v, int32_t scene, int style)
{
    const report_tokens *w = v->r->tokens;
    const smask_tokenizer *t = w->tokenizer;
    const int32_t N = v->grid * v->grid;
    const size_t d = (size_t)t->width;
    int32_t n;

    smask_tokenizer_patches(t, scene_image(v->r, scene), 1, v->row);
    for (n = 0; n < N; n++) {
        raw_patch(t, scene_image(v->r, scene), n, v->raw);
        token_patch(w, v->r->scenes->token[scene * N + n],
            v->row + (size_t)n * d, v->raw, style, v->vector);
        draw_at(v, n, v->vector, token_side(t), 255);
    }
}

/* What was given, faint, and what the model made of the rest. */
static void draw_guess(const canvas *v, int32_t scene,
    const unsigned char *seen, const int32_t *guess, int style)
{
    const report_tokens *w = v->r->tokens;
    int32_t n;

    draw_pixels(v, scene, seen, 70);
    for (n = 0; n < v->grid * v->grid; n++)
        if (!seen[n]) {
            token_patch(w, guess[n], NULL, NULL, style, v->vector);
            draw_at(v, n, v->vector, token_side(w->tokenizer), 255);
        }
}

/* ---------------------------------------------------------------- page */

static void put_text(FILE *f, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '&') fputs("&amp;", f);
        else if (*text == '<') fputs("&lt;", f);
        else if (*text == '>') fputs("&gt;", f);
        else if (*text == '"') fputs("&quot;", f);
        else fputc(*text, f);
    }
}

static const char head[] =
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width,"
    " initial-scale=1\">\n"
    "<style>\n"
    ":root{color-scheme:light dark;--page:#fcfcfa;--text:#23262b;"
    "--quiet:#656b73;--rule:#e3e3dd;--curve:#2a6a9b;--mark:#b04a1f;"
    "--box:#f1f1ec}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#15171a;"
    "--text:#dee1e5;--quiet:#989ea7;--rule:#2d3136;--curve:#7db3dc;"
    "--mark:#e39a72;--box:#1d2024}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:2.5rem 1.25rem 5rem;max-width:72rem;"
    "background:var(--page);color:var(--text);"
    "font:1rem/1.6 system-ui,-apple-system,\"Segoe UI\",sans-serif}\n"
    "h1{font-size:1.7rem;line-height:1.25;font-weight:600;margin:0}\n"
    "h2{font-size:1.2rem;font-weight:600;margin:3.5rem 0 .5rem}\n"
    "h3{font-size:.95rem;font-weight:600;margin:0 0 .35rem}\n"
    "p{max-width:43rem;margin:.6rem 0}\n"
    ".quiet,figcaption,dt{color:var(--quiet)}\n"
    "figure{margin:0;min-width:0}\n"
    "figcaption{font-size:.85rem;line-height:1.45;margin-top:.4rem}\n"
    ".numbers{display:flex;flex-wrap:wrap;gap:.9rem 2.4rem;"
    "margin:1.6rem 0 0}\n"
    ".numbers div{display:flex;flex-direction:column-reverse}\n"
    ".numbers dt{font-size:.8rem;line-height:1.3}\n"
    ".numbers dd{margin:0;font-size:1.35rem;line-height:1.3;"
    "font-variant-numeric:tabular-nums}\n"
    ".scene{display:grid;grid-template-columns:repeat(4,1fr);"
    "gap:.8rem .7rem;margin:1rem 0 1.9rem}\n"
    ".scene figcaption{font-size:.76rem;line-height:1.3}\n"
    "@media(min-width:56rem){.scene.wide{"
    "grid-template-columns:repeat(8,1fr)}"
    ".scene.half{grid-template-columns:repeat(5,1fr);max-width:42rem}}\n"
    "@media(max-width:30rem){.scene figcaption{font-size:.7rem}}\n"
    "svg{display:block;width:100%;height:auto}\n"
    ".scene svg{background:var(--box)}\n"
    "img,image{image-rendering:pixelated}\n"
    ".cut{fill:none;stroke:var(--mark);stroke-width:1.6;"
    "vector-effect:non-scaling-stroke}\n"
    ".plots{display:grid;gap:2.2rem 2.4rem;margin-top:1.2rem;"
    "grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr))}\n"
    ".plots text,.wide-plot text{font-size:11px;fill:var(--quiet)}\n"
    ".wide-plot{max-width:30rem;margin-top:1.2rem}\n"
    ".rule{stroke:var(--rule)}\n"
    ".faint{fill:none;stroke:var(--curve);opacity:.3}\n"
    ".curve{fill:none;stroke:var(--curve);stroke-width:1.8;"
    "stroke-linejoin:round}\n"
    ".area{fill:var(--curve);opacity:.55}\n"
    ".mark{stroke:var(--mark);stroke-dasharray:4 3}\n"
    ".plots .name,.wide-plot .name{fill:var(--mark);paint-order:stroke;"
    "stroke:var(--page);stroke-width:4px}\n"
    ".tokens{display:grid;grid-template-columns:repeat(12,1fr);"
    "gap:.9rem .6rem;margin:1.2rem 0 .2rem}\n"
    "@media(max-width:48rem){.tokens{"
    "grid-template-columns:repeat(6,1fr)}}\n"
    ".tokens img{display:block;width:100%}\n"
    ".tokens figcaption{font-size:.72rem;margin-top:.2rem}\n"
    ".options{columns:4 14rem;column-gap:2.5rem;font-size:.85rem;"
    "margin:1rem 0}\n"
    ".options div{display:flex;justify-content:space-between;gap:1rem;"
    "border-bottom:1px solid var(--rule);padding:.15rem 0;"
    "break-inside:avoid}\n"
    ".options dt{white-space:nowrap}\n"
    ".options dd{margin:0;text-align:right;overflow-wrap:anywhere}\n"
    "pre{background:var(--box);padding:.8rem 1rem;font-size:.85rem;"
    "line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere;"
    "border-radius:4px}\n"
    "code{font-size:.92em}\n"
    "</style>\n";

/* --------------------------------------------------------------- plots */

#define PLOT_WIDTH 400.0
#define PLOT_HEIGHT 230.0
#define PLOT_LEFT 46.0
#define PLOT_RIGHT 10.0
#define PLOT_TOP 22.0
#define PLOT_BOTTOM 36.0
#define BINS 320

typedef struct axis { double low, high, tick; } axis;

/* 1, 2 or 5 times a power of ten, `count` of which cover the span. */
static double nice_tick(double span, int count)
{
    const double rough = span > 0 ? span / count : 1;
    const double power = pow(10, floor(log10(rough)));
    const double digit = rough / power;

    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5
        : 10);
}

/* An axis with whole ticks that holds low .. high. */
static axis nice_axis(double low, double high)
{
    axis a;

    if (!(high > low)) high = low + (low != 0 ? fabs(low) * 0.1 : 1);
    a.tick = nice_tick(high - low, 4);
    a.low = a.tick * floor(low / a.tick + 1e-9);
    a.high = a.tick * ceil(high / a.tick - 1e-9);
    return a;
}

static double plot_x(const axis *a, double x)
{
    return PLOT_LEFT + (x - a->low) / (a->high - a->low)
        * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT);
}

static double plot_y(const axis *a, double y)
{
    return PLOT_HEIGHT - PLOT_BOTTOM - (y - a->low) / (a->high - a->low)
        * (PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM);
}

static void put_number(FILE *f, double x)
{
    if (x != 0 && fabs(x) < 1e-5) fprintf(f, "%.0e", x);
    else fprintf(f, "%.6g", x);
}

static void put_x_axis(FILE *f, const axis *x, const char *unit)
{
    double at;

    for (at = x->tick * ceil(x->low / x->tick); at <= x->high * (1 + 1e-9);
         at += x->tick) {
        const double w = plot_x(x, at);
        fprintf(f, "<line class=\"rule\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" "
            "y2=\"%g\"/>", w, w, PLOT_HEIGHT - PLOT_BOTTOM,
            PLOT_HEIGHT - PLOT_BOTTOM + 4);
        fprintf(f, "<text x=\"%.1f\" y=\"%g\" text-anchor=\"%s\">", w,
            PLOT_HEIGHT - PLOT_BOTTOM + 16,
            w > PLOT_WIDTH - 24 ? "end" : "middle");
        put_number(f, at);
        fprintf(f, "</text>");
    }
    fprintf(f, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%s</text>\n",
        PLOT_WIDTH - PLOT_RIGHT, PLOT_HEIGHT - 5, unit);
}

/* power: 1: the axis counts powers of ten. */
static void put_y_axis(FILE *f, const axis *y, const char *unit, int power)
{
    double at;

    for (at = y->low; at <= y->high + y->tick / 2; at += y->tick) {
        const double h = plot_y(y, at);
        fprintf(f, "<line class=\"rule\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" "
            "y2=\"%.1f\"/>", PLOT_LEFT, PLOT_WIDTH - PLOT_RIGHT, h, h);
        fprintf(f, "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">",
            PLOT_LEFT - 6, h + 4);
        put_number(f, power ? pow(10, at)
            : fabs(at) < y->tick * 1e-6 ? 0 : at);
        fprintf(f, "</text>");
    }
    fprintf(f, "<text x=\"%g\" y=\"10\" text-anchor=\"%s\">%s</text>\n",
        strlen(unit) > 6 ? 4 : PLOT_LEFT - 6,
        strlen(unit) > 6 ? "start" : "end", unit);
}

static void put_mark(FILE *f, const axis *y, double at, const char *name)
{
    const double h = plot_y(y, at);

    fprintf(f, "<line class=\"mark\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" "
        "y2=\"%.1f\"/><text class=\"name\" x=\"%g\" y=\"%.1f\" "
        "text-anchor=\"end\">%s</text>\n", PLOT_LEFT,
        PLOT_WIDTH - PLOT_RIGHT, h, h, PLOT_WIDTH - PLOT_RIGHT - 2, h - 5,
        name);
}

enum { TOTAL, INPAINT, MATCH, ACCURACY, FOUND, RATE };

static double value_of(const report_step *row, int what)
{
    switch (what) {
    case INPAINT: return row->inpaint;
    case MATCH: return row->match;
    case ACCURACY: return 100 * row->accuracy;
    case FOUND: return 100 * row->match_accuracy;
    case RATE: return row->lr;
    default: return row->loss;
    }
}

static void put_curve(FILE *f, const char *kind, const axis *x,
    const axis *y, const double *at, const double *value, int count)
{
    int i;

    fprintf(f, "<polyline class=\"%s\" points=\"", kind);
    for (i = 0; i < count; i++)
        fprintf(f, "%s%.1f,%.1f", i > 0 ? " " : "", plot_x(x, at[i]),
            plot_y(y, value[i]));
    fprintf(f, "\"/>\n");
}

/* One quantity over the steps: faint as it was, full over a window of a
   twentieth of the run. A mark is a level to compare with; NULL: none. */
static void put_plot(FILE *f, const report *r, int what, const char *title,
    const char *unit, double mark, const char *mark_name)
{
    double at[BINS], value[BINS] = { 0 }, smooth[BINS], low, high;
    const int count = r->rows < BINS ? (int)r->rows : BINS;
    const int reach = count / 40;
    axis x, y;
    int i, k;

    for (i = 0; i < count; i++) {
        const size_t begin = (size_t)i * r->rows / (size_t)count;
        const size_t end = (size_t)(i + 1) * r->rows / (size_t)count;
        size_t j;
        at[i] = value[i] = 0;
        for (j = begin; j < end; j++) {
            at[i] += (double)r->row[j].step / (double)(end - begin);
            value[i] += value_of(&r->row[j], what) / (double)(end - begin);
        }
    }
    for (i = 0; i < count; i++) {
        const int begin = i < reach ? 0 : i - reach;
        const int end = i + reach >= count ? count - 1 : i + reach;
        smooth[i] = 0;
        for (k = begin; k <= end; k++)
            smooth[i] += value[k] / (end - begin + 1);
    }
    low = high = value[0];
    for (i = 1; i < count; i++) {
        if (value[i] < low) low = value[i];
        if (value[i] > high) high = value[i];
    }
    if (mark_name != NULL && mark < low) low = mark;
    if (mark_name != NULL && mark > high) high = mark;
    if (what >= ACCURACY) low = 0;
    y = nice_axis(low, high);
    x.low = 0;
    x.high = r->steps > 0 ? (double)r->steps : 1;
    x.tick = nice_tick(x.high, 4);
    fprintf(f, "<figure><h3>%s</h3><svg viewBox=\"0 0 %g %g\" role=\"img\" "
        "aria-label=\"%s over the steps\">\n", title, PLOT_WIDTH,
        PLOT_HEIGHT, title);
    put_x_axis(f, &x, "step");
    put_y_axis(f, &y, unit, 0);
    put_curve(f, "faint", &x, &y, at, value, count);
    put_curve(f, "curve", &x, &y, at, smooth, count);
    if (mark_name != NULL) put_mark(f, &y, mark, mark_name);
    fprintf(f, "</svg><figcaption>");
}

static void put_plots(FILE *f, const report *r)
{
    int32_t id, commonest = 0;

    for (id = 0; id < r->tokens->tokenizer->desc.vocabulary; id++)
        if (r->tokens->count[id] > commonest) commonest = r->tokens->count[id];
    fprintf(f, "<h2>How training went</h2>\n<p class=\"quiet\">One step is "
        "one update of the weights, on %d images. The faint line is what "
        "the steps saw, the full line their running mean over a twentieth "
        "of the run. Losses are in nats: a loss of x means that the right "
        "answer got, typically, the probability e<sup>&minus;x</sup>.</p>\n"
        "<div class=\"plots\">\n", (int)r->batch);
    if (!r->no_inpaint) {
        put_plot(f, r, INPAINT, r->beit ? "Prediction loss"
            : "Inpainting loss", "nats", r->tokens->use.entropy,
            "a model that ignores context reaches this loss");
        fprintf(f, "How badly the hidden tokens are predicted. The dashed "
            "line is the entropy of the tokens, H(t)&nbsp;=&nbsp;%.3f: what "
            "one gets by guessing every token as often as it occurs. All "
            "that lies below the line was learnt from context.</figcaption>"
            "</figure>\n", r->tokens->use.entropy);
        put_plot(f, r, ACCURACY, "Visual tokens predicted right", "%",
            100.0 * commonest / (double)r->tokens->patches,
            "always naming the commonest token");
        fprintf(f, "The share of hidden patches whose most likely token is "
            "the right one, out of %d tokens. Close misses count as misses."
            "</figcaption></figure>\n",
            (int)r->tokens->tokenizer->desc.vocabulary);
    }
    if (!r->beit && !r->no_match && r->batch > 1) {
        put_plot(f, r, MATCH, "Matching loss", "nats",
            log((double)r->batch), "cannot tell images apart: ln(B)");
        fprintf(f, "Each half has to recognise its other half among the "
            "%d of the batch. Blind guessing costs ln(B)&nbsp;=&nbsp;%.3f, "
            "the dashed line.</figcaption></figure>\n", (int)r->batch,
            log((double)r->batch));
        put_plot(f, r, FOUND, "Halves matched right", "%",
            100.0 / r->batch, "by chance");
        fprintf(f, "How often the true other half ranks first.</figcaption>"
            "</figure>\n");
    }
    put_plot(f, r, TOTAL, "Loss that is descended", "nats", 0, NULL);
    fprintf(f, "The weighted sum of the parts.</figcaption></figure>\n");
    put_plot(f, r, RATE, "Learning rate", "", 0, NULL);
    fprintf(f, "Rises during the warm-up, then falls along a cosine."
        "</figcaption></figure>\n</div>\n");
}

/* -------------------------------------------------------------- scenes */

/* A picture, with the border between seen and hidden patches drawn in. */
static void put_canvas(FILE *f, const canvas *v, const unsigned char *seen,
    const char *label)
{
    const int32_t G = v->grid;
    int32_t y, x;

    fprintf(f, "<figure><svg viewBox=\"0 0 %d %d\" role=\"img\" "
        "aria-label=\"%s\"><image width=\"%d\" height=\"%d\" href=\"",
        (int)G, (int)G, label, (int)G, (int)G);
    report_png(f, v->pixel, v->side, v->side);
    fprintf(f, "\"/>");
    if (seen != NULL) {
        fprintf(f, "<path class=\"cut\" d=\"");
        for (y = 0; y < G; y++)
            for (x = 0; x < G; x++) {
                const int here = seen[y * G + x];
                if (x + 1 < G && seen[y * G + x + 1] != here)
                    fprintf(f, "M%d %dv1", (int)x + 1, (int)y);
                if (y + 1 < G && seen[y * G + G + x] != here)
                    fprintf(f, "M%d %dh1", (int)x, (int)y + 1);
            }
        fprintf(f, "\"/>");
    }
    fprintf(f, "</svg><figcaption>%s</figcaption></figure>\n", label);
}

static void put_guess(FILE *f, const canvas *v, int32_t scene, int32_t branch,
    const int32_t *guess, const char *when, int style)
{
    const report_scenes *s = v->r->scenes;
    const int32_t N = v->grid * v->grid;
    const unsigned char *seen = s->visible[branch] + scene * N;
    char label[128], who[16] = "";
    int32_t n, right = 0, hidden = 0;

    for (n = 0; n < N; n++)
        if (!seen[n]) {
            hidden++;
            right += guess[scene * N + n] == s->token[scene * N + n];
        }
    if (s->branches > 1) snprintf(who, sizeof who, "from %c, ",
        branch ? 'B' : 'A');
    snprintf(label, sizeof label, "%s%s: %d of %d right", who, when,
        (int)right, (int)hidden);
    draw_guess(v, scene, seen, guess + scene * N, style);
    put_canvas(f, v, seen, label);
}

static void put_scenes(FILE *f, const canvas *v, int style)
{
    const report_scenes *s = v->r->scenes;
    const int32_t N = v->grid * v->grid;
    int32_t scene, b;

    for (scene = 0; scene < s->count; scene++) {
        fprintf(f, "<div class=\"scene %s\">\n",
            s->branches > 1 ? "wide" : "half");
        draw_pixels(v, scene, NULL, 255);
        put_canvas(f, v, NULL, "image");
        draw_tokens(v, scene, style);
        put_canvas(f, v, NULL, "its tokens");
        for (b = 0; b < s->branches; b++) {
            const unsigned char *seen = s->visible[b] + scene * N;
            draw_pixels(v, scene, seen, 255);
            put_canvas(f, v, seen, s->branches < 2 ? "what is left"
                : b ? "half B" : "half A");
        }
        for (b = 0; b < s->branches; b++) {
            put_guess(f, v, scene, b, s->previous[b], "before", style);
            put_guess(f, v, scene, b, s->after[b], "after", style);
        }
        fprintf(f, "</div>\n");
    }
}

static void put_pictures(FILE *f, const report *r, const canvas *v)
{
    const smask_tokenizer_desc *d = &r->tokens->tokenizer->desc;
    const int random = d->kind == SMASK_TOKENS_PROJECTION;
    const int32_t p = token_side(r->tokens->tokenizer);

    fprintf(f, "<h2>What the model sees, and what it makes of it</h2>\n");
    fprintf(f, "<p>An image is cut into %d&nbsp;&times;&nbsp;%d patches of "
        "%d&nbsp;&times;&nbsp;%d pixels, and each patch gets the one of %d "
        "<em>visual tokens</em> that looks most like it. ", (int)v->grid,
        (int)v->grid, (int)d->patch, (int)d->patch, (int)d->vocabulary);
    if (r->beit)
        fprintf(f, "Part of the patches is hidden, and the model predicts "
            "their tokens from the rest.");
    else
        fprintf(f, "Then the patches are split into two parts, A and B. The "
            "model looks at A alone and predicts the tokens of the patches "
            "it does not see; and the same from B. ");
    fprintf(f, "</p>\n<p>No label is used anywhere: to say what is missing, "
        "the model has to learn what things look like. The images below %s; "
        "<em>before</em> is the model with its first random weights, "
        "<em>after</em> the model now, on the same images with the same "
        "cuts.</p>\n", r->scenes->held_out
        ? "come from the test split, which training never shows"
        : "are training images, shown without augmentation");
    put_scenes(f, v, AS_CODEBOOK);
    fprintf(f, "<p class=\"quiet\">How it is painted: a token's codebook "
        "vector has %d numbers, a patch of %d&nbsp;&times;&nbsp;%d pixels "
        "without a length. Under <em>its tokens</em> the vector is scaled "
        "to fit the patch that it stands for%s. A predicted token "
        "has no patch to fit, so it gets the mean scale that it has in a "
        "sample of %ld patches%s. What was given to the model is faint, and "
        "the line is the edge of the cut.</p>\n",
        (int)r->tokens->tokenizer->width, (int)p, (int)p,
        d->centre ? ", and the patch's mean, which this tokenizer removes, "
        "is added back" : "", (long)r->tokens->patches,
        d->centre ? ", and the mean brightness of the patches that carry it"
        : "");
    if (!random) return;
    fprintf(f, "<h3 style=\"margin-top:2.2rem\">The same, each token painted "
        "as the mean of its patches</h3>\n<p>This tokenizer's codebook holds "
        "random directions in pixel space, so pictures painted with them "
        "look like noise. The patches that carry a token show better what "
        "it stands for: here each token is painted as the mean of those "
        "patches in the sample.</p>\n");
    put_scenes(f, v, AS_AVERAGE);
}

/* --------------------------------------------------------------- tokens */

static int more_often(const void *a, const void *b)
{
    const int32_t *x = *(const int32_t *const *)a;
    const int32_t *y = *(const int32_t *const *)b;

    if (*x != *y) return *x < *y ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* Shares of the tokens, the commonest first, on a scale of powers of ten. */
static void put_ranks(FILE *f, const report *r, const int32_t *const *rank)
{
    const report_tokens *w = r->tokens;
    const int32_t V = w->tokenizer->desc.vocabulary, used = w->use.used;
    const int32_t points = used < 500 ? used : 500;
    const double all = (double)w->patches;
    double floor_at;
    axis x, y;
    int32_t i;

    y.low = floor(log10(100.0 * *rank[used - 1] / all) + 1e-9);
    y.high = ceil(log10(100.0 * *rank[0] / all) - 1e-9);
    if (log10(100.0 / V) < y.low) y.low = floor(log10(100.0 / V));
    if (!(y.high > y.low)) y.high = y.low + 1;
    y.tick = 1;
    x.low = 1;
    x.high = V > 1 ? V : 2;
    x.tick = nice_tick(x.high, 6);
    floor_at = plot_y(&y, y.low);
    fprintf(f, "<figure class=\"wide-plot\"><svg "
        "viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"share of each token, "
        "the commonest first\">\n", PLOT_WIDTH, PLOT_HEIGHT);
    put_x_axis(f, &x, "token, the commonest first");
    put_y_axis(f, &y, "% of patches", 1);
    fprintf(f, "<path class=\"area\" d=\"M%.1f %.1f", plot_x(&x, 1),
        floor_at);
    for (i = 0; i < points; i++) {
        const int32_t at = points < 2 ? 0 : (int32_t)((int64_t)i
            * (used - 1) / (points - 1));
        fprintf(f, "L%.1f %.1f", plot_x(&x, at + 1),
            plot_y(&y, log10(100.0 * *rank[at] / all)));
    }
    fprintf(f, "L%.1f %.1fZ\"/>\n", plot_x(&x, used), floor_at);
    put_mark(f, &y, log10(100.0 / V), "if all tokens were used alike");
    fprintf(f, "</svg><figcaption>How often each token occurs, in %ld "
        "patches of augmented training images. The scale goes in powers of "
        "ten.</figcaption></figure>\n", (long)w->patches);
}

static void put_word(FILE *f, const canvas *v, int32_t id)
{
    const report_tokens *w = v->r->tokens;
    const int32_t p = token_side(w->tokenizer);
    const int32_t C = w->tokenizer->desc.channels;

    token_patch(w, id, NULL, NULL, AS_CODEBOOK, v->vector);
    draw_patch(v->r, v->vector, C, p, p, v->pixel, p, 255);
    token_patch(w, id, NULL, NULL, AS_AVERAGE, v->vector);
    draw_patch(v->r, v->vector, C, p, p, v->pixel + 4 * p * p, p, 255);
    fprintf(f, "<figure><img alt=\"token %d\" src=\"", (int)id);
    report_png(f, v->pixel, p, 2 * p);
    fprintf(f, "\"><figcaption>%.2g&nbsp;%%</figcaption></figure>\n",
        100.0 * w->count[id] / (double)w->patches);
}

static int put_words(FILE *f, const report *r, const canvas *v)
{
    const report_tokens *w = r->tokens;
    const int32_t V = w->tokenizer->desc.vocabulary;
    const int32_t **rank;
    int32_t i, shown = w->use.used < 24 ? w->use.used : 24;

    if (w->use.used < 1 || v->grid < 2) return 1;
    rank = (const int32_t **)malloc((size_t)V * sizeof *rank);
    if (rank == NULL) return 0;
    for (i = 0; i < V; i++) rank[i] = w->count + i;
    qsort(rank, (size_t)V, sizeof *rank, more_often);
    fprintf(f, "<h2>The visual tokens</h2>\n<p>%d of the %d tokens occur. "
        "Their entropy is %.3f nats, so they are as hard to guess as "
        "%.0f tokens used alike (the <em>perplexity</em>). If few cover most "
        "patches there is little to learn from them.</p>\n",
        (int)w->use.used, (int)V, w->use.entropy, w->use.perplexity);
    put_ranks(f, r, rank);
    fprintf(f, "<div class=\"tokens\">\n");
    for (i = 0; i < shown; i++)
        put_word(f, v, (int32_t)(rank[i] - w->count));
    fprintf(f, "</div>\n<p class=\"quiet\">The %d commonest tokens and their "
        "share. Above, the token at its mean scale; below, the mean of the "
        "patches that carry it.</p>\n", (int)shown);
    free((void *)rank);
    return 1;
}

/* ------------------------------------------------------------ the file */

static void put_list(FILE *f, const report_pair *pair, int32_t count)
{
    int32_t i;

    fprintf(f, "<dl class=\"options\">");
    for (i = 0; i < count; i++) {
        fprintf(f, "<div><dt>");
        put_text(f, pair[i].name);
        fprintf(f, "</dt><dd>");
        put_text(f, pair[i].value);
        fprintf(f, "</dd></div>\n");
    }
    fprintf(f, "</dl>\n");
}

static void put_page(FILE *f, const report *r, const canvas *v)
{
    int32_t i;

    fprintf(f, "<!doctype html>\n<html lang=\"en\">\n<title>");
    put_text(f, r->title);
    fprintf(f, "</title>\n%s<h1>", head);
    put_text(f, r->title);
    fprintf(f, "</h1>\n<p class=\"quiet\">Pre-training, %ld of %ld steps%s."
        "</p>\n<dl class=\"numbers\">\n", (long)r->done, (long)r->steps,
        r->done < r->steps ? " so far" : "");
    for (i = 0; i < r->results; i++) {
        fprintf(f, "<div><dt>");
        put_text(f, r->result[i].name);
        fprintf(f, "</dt><dd>");
        put_text(f, r->result[i].value);
        fprintf(f, "</dd></div>\n");
    }
    fprintf(f, "</dl>\n<p class=\"quiet\" style=\"font-size:.85rem\">Losses "
        "and accuracy are means over the last tenth of the steps made; "
        "<code>peak_mb</code> is the most memory that the program held, "
        "<code>planned_mb</code> what it asked for at its start, knowing "
        "beforehand what it needs.</p>\n");
    if (r->scenes != NULL && r->scenes->count > 0) put_pictures(f, r, v);
    if (r->rows > 0) put_plots(f, r);
    put_words(f, r, v);
    fprintf(f, "<h2>How to run it again</h2>\n<pre>");
    put_text(f, r->command);
    fprintf(f, "</pre>\n<p class=\"quiet\">The same command gives the same "
        "weights, bit for bit, with any number of threads on the same kind "
        "of processor. With <code>--resume</code> added it goes on from the "
        "last saved state. The options, with those that were not given:"
        "</p>\n");
    put_list(f, r->option, r->options);
    fprintf(f, "</html>\n");
}

int report_write(const report *r, const char *path)
{
    canvas v;
    FILE *f = NULL;
    int good = 0;

    memset(&v, 0, sizeof v);
    if (!canvas_open(&v, r)) errno = ENOMEM;
    else f = part_open(path);
    if (f != NULL) {
        put_page(f, r, &v);
        good = part_rename(f, path);
        if (!good) part_remove(path);
        fclose(f);
    }
    canvas_close(&v);
    return good;
}
