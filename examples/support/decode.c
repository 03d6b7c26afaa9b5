/* decode.c: the bytes of an image file to rows of pixels. PPM and PGM are
   read here; JPEG, PNG and BMP by stb_image.h, where the compiler finds it,
   after the checks of checks.c. No image takes more memory than its header
   says, and all that are decoded at a time share MEMORY. */
#include "data.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __has_include
#if __has_include(<stb/stb_image.h>)
#define STB_HEADER <stb/stb_image.h>
#elif __has_include("stb_image.h")
#define STB_HEADER "stb_image.h"
#endif
#endif

#define MEMORY 1e9                   /* bytes that files and decoding take,
                                        on all threads together            */

static const char cut_short[] = "the file is cut short";
#ifdef STB_HEADER
static const char damaged[] = "the file is damaged";
#else
static const char no_stb[] = "JPEG, PNG and BMP need stb_image.h, which this "
    "build did not find: install libstb-dev, or put the file beside "
    "splitmask.h, then make clean all";
#endif

/* --------------------------------------------------------------- memory */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given_back = PTHREAD_COND_INITIALIZER;
static double taken;                 /* bytes                              */
static int decoding;                 /* threads that decode                */

/* A thread that reads a file waits until all that is taken fits with its
   own. One that decodes waits for others that decode, not for files that
   are read: those may be waiting to be decoded themselves. */
void memory_take(double bytes, int to_decode)
{
    pthread_mutex_lock(&lock);
    while ((to_decode ? decoding > 0 : taken > 0) && taken + bytes > MEMORY)
        pthread_cond_wait(&given_back, &lock);
    taken += bytes;
    decoding += to_decode;
    pthread_mutex_unlock(&lock);
}

void memory_give(double bytes, int to_decode)
{
    pthread_mutex_lock(&lock);
    taken -= bytes;
    decoding -= to_decode;
    pthread_cond_broadcast(&given_back);
    pthread_mutex_unlock(&lock);
}

void raw_free(raw *r)
{
    free(r->pixels);
    r->pixels = NULL;
    if (r->memory > 0) memory_give(r->memory, 1);
    r->memory = 0;
}

/* ---------------------------------------------------------- PPM and PGM */

typedef struct pnm {
    int text, parts, bytes;          /* bytes: of a number, if not text    */
    long most;                       /* the number that is white           */
    size_t at;                       /* where the pixels begin             */
} pnm;

/* A number of a PNM header, after spaces and comments; -1 if none. */
static long pnm_number(const uint8_t *data, size_t bytes, size_t *at)
{
    long value = 0;
    size_t begin;

    while (*at < bytes) {
        if (data[*at] == '#')
            while (*at < bytes && data[*at] != '\n') (*at)++;
        else if (strchr(" \t\r\n\v\f", data[*at]) == NULL
            || data[*at] == '\0') break;
        else (*at)++;
    }
    begin = *at;
    while (*at < bytes && data[*at] >= '0' && data[*at] <= '9'
        && value < 100000)
        value = 10 * value + data[(*at)++] - '0';
    return *at > begin ? value : -1;
}

/* The header of a PGM or PPM, as text (P2, P3) or binary (P5, P6). NULL or
   what is wrong. */
static const char *check_pnm(const uint8_t *data, size_t bytes, pnm *p,
    image_header *h)
{
    size_t at = 2;

    p->text = data[1] < '5';
    p->parts = data[1] == '3' || data[1] == '6' ? 3 : 1;
    h->width = (double)pnm_number(data, bytes, &at);
    h->height = (double)pnm_number(data, bytes, &at);
    p->most = pnm_number(data, bytes, &at);
    if (h->width < 1 || h->height < 1 || p->most < 1 || p->most > 65535)
        return "the header of the PPM or PGM file is damaged";
    p->at = at + 1;
    p->bytes = !p->text && p->most > 255 ? 2 : 1;
    h->memory = h->width * h->height * p->parts;
    /* Text takes two bytes a number, but the last may end the file. */
    if (p->at > bytes || (double)(bytes - p->at) + p->text
        < h->memory * (p->text ? 2 : p->bytes)) return cut_short;
    return NULL;
}

/* Fills r->pixels, which is large enough. NULL or what is wrong. */
static const char *decode_pnm(const uint8_t *data, size_t bytes,
    const pnm *p, raw *r)
{
    const size_t count = (size_t)r->width * (size_t)r->height
        * (size_t)p->parts;
    size_t at = p->at, i;
    long value;

    for (i = 0; i < count; i++) {
        if (p->text) value = pnm_number(data, bytes, &at);
        else if (p->bytes == 2)
            value = data[at + 2 * i] * 256L + data[at + 2 * i + 1];
        else value = data[at + i];
        if (value < 0) return cut_short;
        if (value > p->most) value = p->most;
        r->pixels[i] = (uint8_t)((value * 255 + p->most / 2) / p->most);
    }
    return NULL;
}

/* ------------------------------------------------------------ stb_image */

#ifdef STB_HEADER
/* What the decoder of a thread may take. */
typedef struct allowance {
    double most;                     /* bytes in one block                 */
    int lacking;                     /* the system had no memory           */
} allowance;

static pthread_key_t allowance_key;
static pthread_once_t allowance_once = PTHREAD_ONCE_INIT;

static void allowance_start(void)
{
    if (pthread_key_create(&allowance_key, NULL) != 0)
        fail("no memory for the threads that decode images");
}

/* realloc, but what is new is zero: stb_image reads tables and pixels that a
   damaged file did not fill. */
static void *stb_memory(void *old, size_t old_bytes, size_t bytes)
{
    allowance *a = (allowance *)pthread_getspecific(allowance_key);
    void *p;

    if ((double)bytes > a->most) return NULL;
    p = old == NULL ? calloc(1, bytes > 0 ? bytes : 1) : realloc(old, bytes);
    if (p == NULL) a->lacking = 1;
    else if (old != NULL && bytes > old_bytes)
        memset((uint8_t *)p + old_bytes, 0, bytes - old_bytes);
    return p;
}

#define STB_IMAGE_IMPLEMENTATION
#define STBI_MALLOC(bytes) stb_memory(NULL, 0, bytes)
#define STBI_REALLOC_SIZED(old, old_bytes, bytes) \
    stb_memory(old, old_bytes, bytes)
#define STBI_FREE(p) free(p)
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_FAILURE_STRINGS
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_MAX_DIMENSIONS MOST_SIDE
#include STB_HEADER

/* The bytes of a PNG whose palette has all 256 colours, which the caller
   frees: stb_image does not ask whether a pixel's colour is in it. */
static uint8_t *fill_palette(const uint8_t *data, size_t bytes,
    const image_header *h)
{
    const size_t head = h->palette_at + 8, more = 768 - h->palette_bytes;
    uint8_t *out = (uint8_t *)calloc(1, bytes + more);

    if (out == NULL) return NULL;
    memcpy(out, data, head + h->palette_bytes);
    memcpy(out + head + 768, data + head + h->palette_bytes,
        bytes - head - h->palette_bytes);
    out[h->palette_at + 2] = 3;          /* 768                            */
    out[h->palette_at + 3] = 0;
    return out;
}

/* NULL or what is wrong; r->pixels is NULL if memory is. */
static const char *decode_stb(const uint8_t *data, size_t bytes,
    const image_header *h, raw *r)
{
    int width = 0, height = 0, parts = 0;
    uint8_t *filled = NULL;
    allowance a;

    a.most = h->block + 2.0 * (double)bytes + 1e6;
    a.lacking = 0;
    pthread_once(&allowance_once, allowance_start);
    pthread_setspecific(allowance_key, &a);
    if (h->paletted && h->palette_at > 0 && h->palette_bytes < 768) {
        filled = fill_palette(data, bytes, h);
        a.lacking = filled == NULL;
        bytes += 768 - h->palette_bytes;
        data = filled;
    }
    if (!a.lacking)
        r->pixels = stbi_load_from_memory(data, (int)bytes, &width, &height,
            &parts, 0);
    pthread_setspecific(allowance_key, NULL);
    free(filled);
    r->parts = parts;
    if (a.lacking) return NULL;
    return r->pixels == NULL || width != r->width || height != r->height
        ? damaged : NULL;
}
#else
static const char *decode_stb(const uint8_t *data, size_t bytes,
    const image_header *h, raw *r)
{
    (void)data;
    (void)bytes;
    (void)h;
    (void)r;
    return no_stb;
}
#endif

/* ------------------------------------------------------------- any file */

const char *decode_lacks(const char *name)
{
#ifdef STB_HEADER
    (void)name;
    return NULL;
#else
    return image_kind(name) == 2 ? no_stb : NULL;
#endif
}

/* What another kind of file is, by its first bytes. */
static const char *other_kind(const uint8_t *data, size_t bytes)
{
    if (memcmp(data, "GIF8", 4) == 0)
        return "it is a GIF file; convert it to PNG";
    if (bytes >= 12 && memcmp(data, "RIFF", 4) == 0
        && memcmp(data + 8, "WEBP", 4) == 0)
        return "it is a WebP file; convert it to PNG or JPEG";
    if (bytes >= 12 && memcmp(data + 4, "ftyp", 4) == 0)
        return "it is a HEIC, AVIF or video file; convert it to JPEG";
    if (memcmp(data, "II*\0", 4) == 0 || memcmp(data, "MM\0*", 4) == 0)
        return "it is a TIFF file; convert it to PNG";
    if (data[0] == 0x1f && data[1] == 0x8b)
        return "it is compressed; use gunzip";
    if (data[0] == '<') return "it is a page of HTML or XML, no image";
    return "neither JPEG, PNG, BMP, PPM nor PGM";
}

/* What the header says, and whether the file is whole. NULL or what is
   wrong. */
static const char *check_image(const char *name, const uint8_t *data,
    size_t bytes, pnm *p, image_header *h)
{
    if (bytes < 8) return "too short to be an image";
    if (data[0] == 'P' && (data[1] == '2' || data[1] == '3'
        || data[1] == '5' || data[1] == '6'))
        return check_pnm(data, bytes, p, h);
    if (image_kind(name) == 1) return "neither a PPM nor a PGM file";
    if (decode_lacks(name) != NULL) return decode_lacks(name);
    if (data[0] == 0xff) return check_jpeg(data, bytes, h);
    if (memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0)
        return check_png(data, bytes, h);
    if (memcmp(data, "BM", 2) == 0) return check_bmp(data, bytes, h);
    return other_kind(data, bytes);
}

int decode_image(const char *name, const uint8_t *data, size_t bytes, raw *r,
    char *why, size_t why_bytes)
{
    const char *wrong;
    image_header h;
    pnm p;

    memset(r, 0, sizeof *r);
    memset(&h, 0, sizeof h);
    memset(&p, 0, sizeof p);
    wrong = check_image(name, data, bytes, &p, &h);
    if (h.width > MOST_SIDE || h.height > MOST_SIDE
        || h.width * h.height > MOST_PIXELS) {
        reason(why, why_bytes, "cannot be decoded: %.0f x %.0f pixels are "
            "too many: at most %d a side and %d million in all are read; "
            "make the image smaller", h.width, h.height, MOST_SIDE,
            MOST_PIXELS / 1000000);
        return 0;
    }
    if (wrong == NULL) {
        r->width = (int32_t)h.width;
        r->height = (int32_t)h.height;
        r->memory = h.memory;
        memory_take(r->memory, 1);
        if (p.parts > 0) {
            r->parts = p.parts;
            r->pixels = (uint8_t *)calloc(1, (size_t)h.memory);
            if (r->pixels != NULL) wrong = decode_pnm(data, bytes, &p, r);
        } else wrong = decode_stb(data, bytes, &h, r);
    }
    if (wrong == NULL && r->pixels != NULL) return 1;
    raw_free(r);
    if (wrong != NULL) reason(why, why_bytes, "cannot be decoded: %s", wrong);
    else
        reason(why, why_bytes, "there is no memory to decode %.0f x %.0f "
            "pixels, up to %.0f MB; make the image smaller", h.width,
            h.height, h.memory / 1e6);
    return wrong != NULL ? 0 : -1;
}
