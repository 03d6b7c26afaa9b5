/* report_png.c: pictures of a report as PNG in text. */
#include "report.h"
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
