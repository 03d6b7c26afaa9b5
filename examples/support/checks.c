/* checks.c: what the bytes of a JPEG, PNG or BMP file say, checked before
   stb_image decodes them.

   stb_image fills in what is missing at the end of a file, reads some tables
   without asking whether they fit, and takes whatever memory a header asks
   for. So these functions walk through the file first: a file is whole, its
   tables fit, and its size is known before any pixel is decoded. Every
   function returns NULL or what is wrong. */
#include "data.h"
#include <math.h>
#include <string.h>

#define MOST_SCANS 100               /* of a JPEG; a photo has about 10    */

static const char cut_short[] = "the file is cut short";
static const char damaged[] = "the file is damaged";

uint32_t big_endian(const uint8_t *b, int bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0) value = value << 8 | *b++;
    return value;
}

static uint32_t little_endian(const uint8_t *b, int bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0) value = value << 8 | b[bytes];
    return value;
}

/* ----------------------------------------------------------------- JPEG */

typedef struct jpeg {
    image_header *header;
    int scans, progressive;
    double blocks;                   /* of 8 x 8 samples, of all components */
    double coded;                    /* bytes between the segments         */
} jpeg;

/* Huffman tables fill their segment exactly. stb_image writes the codes of a
   table, as many as it says, into 257 places, and cannot find number 255. */
static const char *check_huffman(const uint8_t *table, size_t bytes)
{
    while (bytes > 0) {
        size_t codes = 0, n;

        if (bytes < 17) return damaged;
        for (n = 1; n <= 16; n++) codes += table[n];
        if (codes > 255 || codes > bytes - 17) return damaged;
        table += 17 + codes;
        bytes -= 17 + codes;
    }
    return NULL;
}

/* The frame: size, and how many blocks there are at least. */
static const char *check_frame(jpeg *j, const uint8_t *frame, size_t bytes)
{
    image_header *h = j->header;
    int across = 1, down = 1, count, i;

    if (bytes < 9 || h->width > 0) return damaged;
    h->height = big_endian(frame + 1, 2);
    h->width = big_endian(frame + 3, 2);
    count = frame[5];
    if (h->width < 1 || h->height < 1 || count < 1 || count > 4
        || bytes != 6 + 3 * (size_t)count) return damaged;
    for (i = 0; i < count; i++) {
        const int x = frame[7 + 3 * i] >> 4, y = frame[7 + 3 * i] & 15;
        if (x < 1 || x > 4 || y < 1 || y > 4) return damaged;
        if (x > across) across = x;
        if (y > down) down = y;
    }
    for (i = 0; i < count; i++) {
        const int x = frame[7 + 3 * i] >> 4, y = frame[7 + 3 * i] & 15;
        j->blocks += ceil(h->width * x / across / 8)
            * ceil(h->height * y / down / 8);
        if (across % x != 0 || down % y != 0)
            return "its colours are stored at an odd scale, which cannot be "
                "read; convert the file";
    }
    /* Planes and the picture; coefficients of 2 bytes, if progressive. */
    h->memory = h->width * h->height * (count * (j->progressive ? 3 : 1) + 3);
    h->block = (h->width + 32) * (h->height + 32) * 3;
    return NULL;
}

/* Segment by segment, as far as the end marker. Inside the coded data FF is
   never followed by the code of a marker, except by those that count (D0 to
   D7). What comes behind the end (a film, in some phones' photos) does not
   matter here. */
const char *check_jpeg(const uint8_t *data, size_t bytes, image_header *h)
{
    const char *wrong = NULL;
    size_t i = 0;
    jpeg j;

    memset(&j, 0, sizeof j);
    j.header = h;
    while (i < bytes && data[i] == 0xff) i++;
    if (i < 1 || i >= bytes || data[i++] != 0xd8) return damaged;
    while (wrong == NULL && (i + 4 <= bytes
        || (i + 2 <= bytes && data[i + 1] == 0xd9))) {
        const unsigned marker = data[i + 1];
        const size_t length = i + 4 <= bytes ? big_endian(data + i + 2, 2) : 0;
        if (data[i] != 0xff || marker == 0xff || marker == 0) i++;
        else if (marker == 0xd9 && j.scans > 0)
            /* One bit a block is what any coding takes; baseline, two. */
            return j.coded * 8 < j.blocks * (j.progressive ? 1 : 2)
                ? cut_short : NULL;
        else if ((marker >= 0xd0 && marker <= 0xd9) || marker == 1) i += 2;
        else if (length < 2) return damaged;
        else if (length > bytes - i - 2) return cut_short;
        else {
            const uint8_t *inside = data + i + 4;
            i += 2 + length;
            if (marker == 0xc4) wrong = check_huffman(inside, length - 2);
            if (marker >= 0xc0 && marker <= 0xc2) {
                j.progressive = marker == 0xc2;
                wrong = check_frame(&j, inside, length - 2);
            }
            if (marker != 0xda) continue;
            if (h->width < 1) return damaged;
            if (++j.scans > MOST_SCANS) return "it has more than 100 scans";
            inside = data + i;
            while (i + 1 < bytes && (data[i] != 0xff || data[i + 1] == 0
                || (data[i + 1] >= 0xd0 && data[i + 1] <= 0xd7))) i++;
            j.coded += (double)(data + i - inside);
        }
    }
    return wrong != NULL ? wrong : cut_short;
}

/* ------------------------------------------------------------------ PNG */

/* IHDR: size, bits, colour type. */
static const char *check_start(const uint8_t *start, image_header *h)
{
    const int bits = start[8], colour = start[9];
    /* A colour key adds alpha, a palette expands to four. */
    const int parts = colour == 3 ? 4 : (colour & 2 ? 3 : 1) + 1;
    const int bytes = bits == 16 ? 2 : 1;

    h->width = big_endian(start, 4);
    h->height = big_endian(start + 4, 4);
    if (h->width < 1 || h->height < 1) return damaged;
    h->memory = h->width * h->height * parts * bytes * 3;
    h->block = (h->width + 32) * (h->height + 32) * parts * bytes * 2;
    h->paletted = colour == 3;
    return NULL;
}

/* Chunks up to the one that says END. */
const char *check_png(const uint8_t *data, size_t bytes, image_header *h)
{
    size_t i = 8;

    while (i + 12 <= bytes) {
        const size_t length = big_endian(data + i, 4);
        if (memcmp(data + i + 4, "IEND", 4) == 0)
            return h->width < 1 ? damaged : NULL;
        if (length > bytes - i - 12) break;
        if (memcmp(data + i + 4, "IHDR", 4) == 0) {
            if (h->width > 0 || length != 13
                || check_start(data + i + 8, h) != NULL) return damaged;
        } else if (memcmp(data + i + 4, "PLTE", 4) == 0
            && h->palette_at == 0) {
            if (length > 768 || length % 3 != 0) return damaged;
            h->palette_at = i;
            h->palette_bytes = length;
        }
        i += 12 + length;
    }
    return cut_short;
}

/* ------------------------------------------------------------------ BMP */

/* Every pixel names a colour that the palette has. */
static const char *check_indices(const uint8_t *rows, size_t row,
    size_t width, size_t height, unsigned bits, unsigned colours)
{
    size_t x, y;

    if (colours >= 1u << bits) return NULL;
    for (y = 0; y < height; y++)
        for (x = 0; x < width; x++) {
            const unsigned byte = rows[y * row + x * bits / 8];
            const unsigned shift = 8 - bits - (unsigned)(x * bits % 8);
            if (((byte >> shift) & ((1u << bits) - 1)) >= colours)
                return damaged;
        }
    return NULL;
}

const char *check_bmp(const uint8_t *data, size_t bytes, image_header *h)
{
    const size_t offset = bytes < 34 ? 0 : little_endian(data + 10, 4);
    const size_t head = bytes < 34 ? 0 : little_endian(data + 14, 4);
    const int old = head == 12;      /* of OS/2                            */
    unsigned bits;
    size_t colours;
    double row;

    if (bytes < 34) return cut_short;
    if (!old && head != 40 && head != 56 && head != 108 && head != 124)
        return damaged;
    h->width = old ? little_endian(data + 18, 2) : little_endian(data + 18, 4);
    h->height = old ? little_endian(data + 20, 2) : little_endian(data + 22, 4);
    bits = little_endian(data + (old ? 24 : 28), 2);
    /* A negative height: the rows begin at the top. */
    if (h->height > 2147483648.0) h->height = 4294967296.0 - h->height;
    if (h->width < 1 || h->height < 1 || h->width >= 2147483648.0
        || h->height >= 2147483648.0 || offset < 14 + head) return damaged;
    if (!old && little_endian(data + 30, 4) != 0
        && little_endian(data + 30, 4) != 3)
        return "a compressed BMP cannot be read; convert the file";
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24
        && bits != 32) return damaged;
    h->memory = h->block = h->width * h->height * 4;
    row = floor((h->width * bits + 31) / 32) * 4;
    if ((double)offset + row * h->height > (double)bytes) return cut_short;
    if (bits > 8) return NULL;
    /* What stb_image takes for the number of colours. */
    if (old && offset < 38) return damaged;
    colours = old ? (offset - 38) / 3 : (offset - 14 - head) / 4;
    return colours < 1 || colours > 256 ? damaged
        : check_indices(data + offset, (size_t)row, (size_t)h->width,
            (size_t)h->height, bits, (unsigned)colours);
}
