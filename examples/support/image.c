/* image.c: one image file to a picture of the size that is asked for, and
   many of them on all threads. See support.h and data.h. */
#include "data.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET 512e6                 /* bytes that training images may fill
                                        with more than they need           */
#define CHUNK 64                     /* files between two warnings         */

/* ------------------------------------------------------------- pictures */

/* Where there is alpha, the picture lies on white. Leaves 1 or 3 parts. */
static void flatten(raw *r)
{
    const size_t count = (size_t)r->width * (size_t)r->height;
    const size_t parts = (size_t)r->parts, colours = parts - 1;
    size_t i, c;

    if (parts == 1 || parts == 3) return;
    for (i = 0; i < count; i++) {
        const unsigned alpha = r->pixels[i * parts + colours];
        for (c = 0; c < colours; c++)
            r->pixels[i * colours + c] = (uint8_t)((r->pixels[i * parts + c]
                * alpha + 255 * (255 - alpha) + 127) / 255);
    }
    r->parts = (int32_t)colours;
}

uint8_t grey_of(unsigned r, unsigned g, unsigned b)
{
    return (uint8_t)((299 * r + 587 * g + 114 * b + 500) / 1000);
}

/* Into planes, each pixel the mean of `by` x `by`. Without pixels if memory is
   lacking. A sum is below 2^32: `by` is at most MOST_SIDE / 4. */
static picture to_planes(const raw *r, int32_t channels, int32_t by)
{
    picture p;
    const size_t parts = (size_t)r->parts, row = (size_t)r->width * parts;
    const unsigned area = (unsigned)by * (unsigned)by;
    int32_t x, y, i, j;
    size_t c, plane, at = 0;

    p.width = r->width / by;
    p.height = r->height / by;
    plane = (size_t)p.width * (size_t)p.height;
    p.pixels = (uint8_t *)malloc(plane * (size_t)channels);
    if (p.pixels == NULL) return p;
    for (y = 0; y < p.height; y++)
        for (x = 0; x < p.width; x++, at++) {
            const uint8_t *from = r->pixels + (size_t)(y * by) * row
                + (size_t)(x * by) * parts;
            unsigned sum[3] = { 0, 0, 0 };
            for (i = 0; i < by; i++)
                for (j = 0; j < by; j++)
                    for (c = 0; c < parts; c++)
                        sum[c] += from[(size_t)i * row + (size_t)j * parts
                            + c];
            for (c = 0; c < 3; c++)
                sum[c] = (sum[parts == 3 ? c : 0] + area / 2) / area;
            if (channels == 1 && parts == 3)
                p.pixels[at] = grey_of(sum[0], sum[1], sum[2]);
            else
                for (c = 0; c < (size_t)channels; c++)
                    p.pixels[c * plane + at] = (uint8_t)sum[c];
        }
    return p;
}

/* Replace a picture by a window of it at another size; 0 if memory is
   lacking. */
static int picture_resize(picture *p, int32_t channels,
    const double window[4], int32_t width, int32_t height)
{
    static const float scale[4] = { 1, 1, 1, 1 };
    static const float shift[4] = { 0.5f, 0.5f, 0.5f, 0.5f };
    const size_t count = (size_t)width * (size_t)height * (size_t)channels;
    float *out = (float *)malloc(count * sizeof(float));
    uint8_t *pixels = (uint8_t *)malloc(count);
    size_t i;

    if (out == NULL || pixels == NULL) {
        free(out);
        free(pixels);
        return 0;
    }
    picture_resample(p, channels, window, 0, width, height, scale, shift,
        out);
    for (i = 0; i < count; i++) pixels[i] = (uint8_t)out[i];
    free(out);
    free(p->pixels);
    p->pixels = pixels;
    p->width = width;
    p->height = height;
    return 1;
}

void picture_middle(const picture *p, double window[4])
{
    const int32_t side = p->width < p->height ? p->width : p->height;

    window[0] = (p->width - side) / 2.0;
    window[1] = (p->height - side) / 2.0;
    window[2] = window[3] = side;
}

/* Make the short side at most `side`, and the long side at most twice the
   short one; 0 if memory is lacking. */
static int fit(picture *p, int32_t channels, int32_t side)
{
    const int32_t least = p->width < p->height ? p->width : p->height;
    const int32_t most = 2 * least;
    const int32_t to = least < side ? least : side;
    double window[4];

    window[2] = p->width < most ? p->width : most;
    window[3] = p->height < most ? p->height : most;
    window[0] = floor((p->width - window[2]) / 2);
    window[1] = floor((p->height - window[3]) / 2);
    if (to == least && p->width <= most && p->height <= most) return 1;
    return picture_resize(p, channels, window,
        (int32_t)(window[2] * to / least + 0.5),
        (int32_t)(window[3] * to / least + 0.5));
}

/* Read and decode a file and make its short side at most `side`. Returns 1;
   or the reason and 0; or -1 if it may go well when nothing else is read. */
static int picture_load(const char *path, int32_t channels, int32_t side,
    picture *out, char *why, size_t why_bytes)
{
    const double size = file_bytes(path, why, why_bytes);
    const double held = size > 0 && size < FILE_MOST ? size : 0;
    size_t bytes;
    uint8_t *data;
    int32_t by, least;
    int good = -1;
    raw r;

    if (size < 0) return 0;
    memory_take(held, 0);
    data = file_read(path, FILE_MOST, &bytes, why, why_bytes);
    if (data != NULL)
        good = decode_image(path, data, bytes, &r, why, why_bytes);
    free(data);
    memory_give(held, 0);
    if (good != 1) return good;
    flatten(&r);
    /* Far too large: first means of squares, which is fast. */
    least = r.width < r.height ? r.width : r.height;
    by = least / (2 * side);
    *out = to_planes(&r, channels, by > 1 ? by : 1);
    raw_free(&r);
    if (out->pixels != NULL && fit(out, channels, side)) return 1;
    free(out->pixels);
    out->pixels = NULL;
    reason(why, why_bytes, "there is no memory for its pixels; use a smaller "
        "--image or fewer images");
    return -1;
}

int image_load(const char *path, int32_t channels, int32_t side,
    float *image, char *why, size_t why_bytes)
{
    static const float scale[4] = { 1 / 255.0f, 1 / 255.0f, 1 / 255.0f,
        1 / 255.0f };
    static const float shift[4] = { 0, 0, 0, 0 };
    double window[4];
    picture p;

    if (channels != 1 && channels != 3) {
        reason(why, why_bytes, "the model takes neither 1 nor 3 channels");
        return 0;
    }
    if (picture_load(path, channels, 2 * side, &p, why, why_bytes) != 1)
        return 0;
    picture_middle(&p, window);
    picture_resample(&p, channels, window, 0, side, side, scale, shift,
        image);
    free(p.pixels);
    return 1;
}

/* --------------------------------------------------------- many images */

/* Files are read in chunks, so that warnings come in order, whichever
   thread met the trouble. */
typedef struct reading {
    const data_set *d;
    char **path;
    picture *image;
    int32_t side;                    /* of what is kept, on the short side */
    int test;
    size_t first;
    char why[CHUNK][256];            /* empty: all is well                 */
    int lacking[CHUNK];              /* 1: memory                          */
} reading;

static void read_one(void *arg, int piece, int worker)
{
    reading *r = (reading *)arg;
    const size_t at = r->first + (size_t)piece;
    picture *p = &r->image[at];
    double window[4];
    int good;

    (void)worker;
    r->why[piece][0] = '\0';
    good = picture_load(r->path[at], r->d->channels, r->side, p,
        r->why[piece], sizeof r->why[piece]);
    r->lacking[piece] = good < 0;
    if (good != 1 || !r->test) return;
    picture_middle(p, window);
    if ((p->width == r->d->image && p->height == r->d->image)
        || picture_resize(p, r->d->channels, window, r->d->image,
            r->d->image)) return;
    free(p->pixels);
    reason(r->why[piece], sizeof r->why[piece], "there is no memory for its "
        "pixels; use a smaller --image or fewer images");
    r->lacking[piece] = 1;
}

/* Read a chunk on all threads. What lacked memory is read again, alone: which
   images a set has must not depend on the number of threads. */
static void read_chunk(reading *r, int count)
{
    int lacking = 0, i;

    data_spread(r->d, count, read_one, r);
    for (i = 0; i < count; i++) {
        if (r->lacking[i]) read_one(r, i, 0);
        lacking += r->lacking[i];
    }
    if (count >= 8 && lacking == count)
        fail("%s: %s (it is file number %lu)", r->path[r->first], r->why[0],
            (unsigned long)r->first + 1);
}

void images_read(data_set *d, data_split *split, const names *files,
    const int32_t *label, int test)
{
    /* Bytes to spend on the short side's square; photos are 3 : 2. */
    const double square = BUDGET / (1.5 * (double)files->count
        * (double)d->channels);
    reading *r = (reading *)data_memory(1, sizeof *r);
    progress line;
    size_t good = 0, i;
    int32_t least = (8 * d->image + 6) / 7;

    data_make_split(d, split, files->count);
    r->d = d;
    r->path = files->item;
    r->image = split->image;
    r->test = test;
    r->side = 2 * d->image;
    if (sqrt(square) < r->side) r->side = (int32_t)sqrt(square);
    if (r->side < least) r->side = least;
    progress_start(&line, test ? "reading test images" : "reading images",
        (double)files->count);
    for (r->first = 0; r->first < files->count; r->first += CHUNK) {
        const size_t left = files->count - r->first;
        const int count = left < CHUNK ? (int)left : CHUNK;

        read_chunk(r, count);
        for (i = 0; i < (size_t)count; i++) {
            const size_t at = r->first + i;
            if (r->why[i][0] != '\0') {
                warn("%s: %s; skipped", files->item[at], r->why[i]);
                d->skipped++;
                continue;
            }
            if (!test)
                data_hash_name(&d->names_hash, files->item[at] + d->path_bytes);
            data_keep(d, split->image[at].pixels);
            split->image[good] = split->image[at];
            split->label[good++] = label[at];
        }
        progress_at(&line, (double)r->first + count);
    }
    progress_end(&line);
    split->count = good;
    free(r);
}
