/* decode.c: the bytes of an image file to rows of pixels. PPM and PGM are
   read here; JPEG, PNG and BMP by stb_image.h, where the compiler finds it,
   after the checks that it does not make itself. */
#include "data.h"
#include <math.h>
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

#ifndef STB_HEADER
static const char no_stb[] = "JPEG, PNG and BMP need stb_image.h, which this "
    "build did not find: install libstb-dev, or put the file beside "
    "splitmask.h, then make clean all";
#endif

uint32_t big_endian(const uint8_t *b, int bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0) value = value << 8 | *b++;
    return value;
}

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

/* PGM and PPM, as text (P2, P3) or binary (P5, P6). NULL or the reason. */
static const char *decode_pnm(const uint8_t *data, size_t bytes, raw *out)
{
    const int text = data[1] < '5';
    size_t at = 2, count, size, i;
    long width, height, most, value;

    out->parts = data[1] == '3' || data[1] == '6' ? 3 : 1;
    width = pnm_number(data, bytes, &at);
    height = pnm_number(data, bytes, &at);
    most = pnm_number(data, bytes, &at);
    if (width < 1 || height < 1 || width > MOST_SIDE || height > MOST_SIDE
        || most < 1 || most > 65535)
        return "the header of the PPM or PGM file is damaged";
    at++;
    size = text ? 2 : most > 255 ? 2 : 1;
    count = (size_t)width * (size_t)height * (size_t)out->parts;
    /* Text takes two bytes a number, but the last may end the file. */
    if (at > bytes || (bytes - at + (size_t)text) / size < count)
        return "the file is cut short";
    out->width = (int32_t)width;
    out->height = (int32_t)height;
    out->pixels = (uint8_t *)data_memory(count, 1);
    for (i = 0; i < count; i++) {
        if (text) value = pnm_number(data, bytes, &at);
        else if (size == 2)
            value = data[at + 2 * i] * 256L + data[at + 2 * i + 1];
        else value = data[at + i];
        if (value < 0) {
            free(out->pixels);
            return "the file is cut short";
        }
        if (value > most) value = most;
        out->pixels[i] = (uint8_t)((value * 255 + most / 2) / most);
    }
    return NULL;
}

#ifdef STB_HEADER
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_FAILURE_STRINGS
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_MAX_DIMENSIONS MOST_SIDE
#include STB_HEADER

static uint32_t little(const uint8_t *b, int bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0) value = value << 8 | b[bytes];
    return value;
}

static const char cut_short[] = "the file is cut short";
static const char damaged[] = "the file is damaged";

/* stb_image fills up what is missing at the end of a JPEG or BMP file, and
   trusts the tables of a JPEG; here half a picture is none. So walk through
   it, segment by segment, as far as the end marker. Inside the coded data
   FF is never followed by the code of a marker, except by those that count
   (D0 to D7). What comes behind the end (a film, in some phones' photos) is
   nothing to us. NULL or what is wrong. */
static const char *check_jpeg(const uint8_t *data, size_t bytes)
{
    int scans = 0;
    size_t i = 2, k;

    while (i + 4 <= bytes || (i + 2 <= bytes && data[i + 1] == 0xd9)) {
        const unsigned marker = data[i + 1];
        const size_t length = i + 4 <= bytes ? big_endian(data + i + 2, 2) : 0;
        if (data[i] != 0xff || marker == 0xff || marker == 0) i++;
        else if (marker == 0xd9 && scans > 0) return NULL;
        else if ((marker >= 0xd0 && marker <= 0xd9) || marker == 1) i += 2;
        else if (length < 2) return damaged;
        else if (length > bytes - i - 2) return cut_short;
        else {
            const size_t end = i + 2 + length;
            for (k = i + 4; marker == 0xc4 && k + 17 <= end; k += 17) {
                size_t codes = 0, n;
                for (n = 1; n <= 16; n++) codes += data[k + n];
                if (codes > 256) return damaged;
                k += codes;
            }
            i = end;
            if (marker != 0xda) continue;
            scans++;
            while (i + 1 < bytes && (data[i] != 0xff || data[i + 1] == 0
                || (data[i + 1] >= 0xd0 && data[i + 1] <= 0xd7))) i++;
        }
    }
    return cut_short;
}

/* Chunks up to the one that says END. */
static const char *check_png(const uint8_t *data, size_t bytes)
{
    size_t i = 8;

    while (i + 12 <= bytes) {
        const size_t length = big_endian(data + i, 4);
        if (memcmp(data + i + 4, "IEND", 4) == 0) return NULL;
        if (length > bytes - i - 12) break;
        i += 12 + length;
    }
    return cut_short;
}

static const char *check_bmp(const uint8_t *data, size_t bytes)
{
    double row, height;

    if (bytes < 34) return cut_short;
    if (little(data + 14, 4) < 40 || (little(data + 30, 4) != 0
        && little(data + 30, 4) != 3)) return NULL;
    row = floor(((double)little(data + 18, 4)
        * little(data + 28, 2) + 31) / 32) * 4;
    height = little(data + 22, 4);
    if (height > 2147483648.0) height = 4294967296.0 - height;
    return little(data + 10, 4) + row * height > (double)bytes ? cut_short
        : NULL;
}

static const char *decode_other(const uint8_t *data, size_t bytes, raw *out)
{
    const char *wrong = NULL;
    int width, height, parts;

    if (bytes > INT32_MAX) return "larger than 2 GB";
    if (data[0] == 0xff && data[1] == 0xd8) wrong = check_jpeg(data, bytes);
    else if (memcmp(data, "\x89PNG", 4) == 0) wrong = check_png(data, bytes);
    else if (memcmp(data, "BM", 2) == 0) wrong = check_bmp(data, bytes);
    if (wrong != NULL) return wrong;
    if (!stbi_info_from_memory(data, (int)bytes, &width, &height, &parts))
        return "no JPEG, PNG or BMP of at most 16384 pixels a side, or "
            "damaged";
    out->pixels = stbi_load_from_memory(data, (int)bytes, &width, &height,
        &parts, 0);
    if (out->pixels == NULL) return damaged;
    out->width = width;
    out->height = height;
    out->parts = parts;
    if (width >= 1 && height >= 1) return NULL;
    stbi_image_free(out->pixels);
    return damaged;
}
#else
static const char *decode_other(const uint8_t *data, size_t bytes, raw *out)
{
    (void)data;
    (void)bytes;
    (void)out;
    return no_stb;
}
#endif

const char *decode_lacks(const char *name)
{
#ifdef STB_HEADER
    (void)name;
    return NULL;
#else
    return image_kind(name) == 2 ? no_stb : NULL;
#endif
}

const char *decode_image(const char *name, const uint8_t *data, size_t bytes,
    raw *out)
{
    memset(out, 0, sizeof *out);
    if (bytes < 8) return "too short to be an image";
    if (data[0] == 'P' && (data[1] == '2' || data[1] == '3'
        || data[1] == '5' || data[1] == '6'))
        return decode_pnm(data, bytes, out);
    if (image_kind(name) == 1) return "neither a PPM nor a PGM file";
    return decode_other(data, bytes, out);
}
