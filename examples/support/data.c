/* data.c: images from a generator, from the formats of CIFAR-10 and MNIST,
   and from folders. See support.h.

   Every picture is held in planes of bytes. Those of a folder are made
   smaller while they are read: test images to the size that is asked for,
   training images to about twice that, so that a crop has some detail left,
   or to less where there are many of them. */
#include "support.h"
#include "shapes.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#ifdef __has_include
#if __has_include(<stb/stb_image.h>)
#define STB_HEADER <stb/stb_image.h>
#elif __has_include("stb_image.h")
#define STB_HEADER "stb_image.h"
#endif
#endif

#define MOST_SIDE 16384              /* of a picture in a file, pixels     */
#define BUDGET 512e6                 /* bytes that training images may fill
                                        with more than they need           */
#define CHUNK 64                     /* files between two warnings         */

/* -------------------------------------------------------------- memory */

static void *room(size_t count, size_t bytes)
{
    void *p = bytes != 0 && count > SIZE_MAX / bytes ? NULL
        : calloc(count > 0 ? count : 1, bytes);

    if (p == NULL)
        fail("no memory for %.0f MB of images; use a smaller --image or "
            "fewer images", (double)count * (double)bytes / 1048576);
    return p;
}

/* Have `p` freed by data_close. */
static void *keep(data_set *d, void *p)
{
    /* A power of two: the list is full. */
    if ((d->blocks & (d->blocks - 1)) == 0) {
        void **more = (void **)realloc(d->block,
            (d->blocks > 0 ? 2 * d->blocks : 1) * sizeof(void *));
        if (more == NULL) fail("no memory for the list of images");
        d->block = more;
    }
    d->block[d->blocks++] = p;
    return p;
}

static void make_split(data_set *d, data_split *split, size_t count)
{
    if (count > INT32_MAX)
        fail("%.0f images are more than can be numbered here",
            (double)count);
    split->image = (picture *)keep(d, room(count, sizeof(picture)));
    split->label = (int32_t *)keep(d, room(count, sizeof(int32_t)));
    split->count = count;
}

static void name_class(data_set *d, int32_t at, const char *name)
{
    const size_t bytes = strlen(name) + 1;

    d->class_name[at] = (char *)keep(d, room(bytes, 1));
    memcpy(d->class_name[at], name, bytes);
}

static void make_classes(data_set *d, int32_t count)
{
    d->classes = count;
    d->class_name = (char **)keep(d, room((size_t)count, sizeof(char *)));
}

void data_close(data_set *d)
{
    size_t i;

    for (i = 0; i < d->blocks; i++) free(d->block[i]);
    free(d->block);
    memset(d, 0, sizeof *d);
}

/* --------------------------------------------------------------- files */

/* A list of names, each its own block. */
typedef struct names {
    char **item;
    size_t count, space;
    size_t others;                   /* files that are no images, by name  */
} names;

static void names_add(names *n, const char *folder, const char *name)
{
    const size_t bytes = strlen(folder) + strlen(name) + 2;

    if (n->count == n->space) {
        char **more = (char **)realloc(n->item,
            (2 * n->space + 16) * sizeof(char *));
        if (more == NULL) fail("no memory for the list of files");
        n->item = more;
        n->space = 2 * n->space + 16;
    }
    n->item[n->count] = (char *)room(bytes, 1);
    snprintf(n->item[n->count], bytes, "%s%s%s", folder,
        folder[0] != '\0' ? "/" : "", name);
    n->count++;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(names *n)
{
    if (n->count > 1) qsort(n->item, n->count, sizeof(char *), by_name);
}

/* Add a name, and where it ends, to a hash (FNV-1a) of an ordered list. */
static void hash_name(uint64_t *hash, const char *name)
{
    const char *end = name + strlen(name) + 1;

    if (*hash == 0) *hash = 14695981039346656037u;
    for (; name < end; name++)
        *hash = (*hash ^ (unsigned char)*name) * 1099511628211u;
}

static void names_free(names *n)
{
    size_t i;

    for (i = 0; i < n->count; i++) free(n->item[i]);
    free(n->item);
    memset(n, 0, sizeof *n);
}

static int is_folder(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

static int is_file(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

/* folder/name in a buffer of the caller. */
static const char *join(char path[1100], const char *folder,
    const char *name)
{
    const size_t a = strlen(folder), b = strlen(name);

    if (a + b + 2 > 1100)
        fail("%.60s...: the path is too long; move the folder", folder);
    memcpy(path, folder, a);
    path[a] = '/';
    memcpy(path + a + 1, name, b + 1);
    return path;
}

/* The names in a folder, without hidden ones, files and folders apart. */
static void list_folder(const char *path, names *files, names *folders)
{
    DIR *stream = opendir(path);
    struct dirent *entry;
    char full[1100];

    if (stream == NULL)
        fail("%s: %s", path, strerror(errno));
    while ((entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        join(full, path, entry->d_name);
        if (is_folder(full)) names_add(folders, "", entry->d_name);
        else if (is_file(full)) names_add(files, "", entry->d_name);
    }
    closedir(stream);
    names_sort(files);
    names_sort(folders);
}

/* 1: read here; 2: read by stb_image; 0: no image, by its name. */
static int image_kind(const char *name)
{
    static const char *const ending[] = { ".ppm", ".pgm", ".pnm", ".jpg",
        ".jpeg", ".jpe", ".jfif", ".png", ".bmp" };
    const char *dot = strrchr(name, '.');
    size_t i;

    for (i = 0; dot != NULL && i < sizeof ending / sizeof ending[0]; i++)
        if (strcasecmp(dot, ending[i]) == 0) return i < 3 ? 1 : 2;
    return 0;
}

/* The folders that a search is in. A symbolic link back to one of them is
   not followed: it would lead round in a loop. */
typedef struct above {
    dev_t device;
    ino_t number;
    const struct above *next;
} above;

/* Steps into a folder; 0 if it is one of those above. */
static int enter(const char *path, const above *up, above *here)
{
    struct stat about;

    if (stat(path, &about) != 0) fail("%s: %s", path, strerror(errno));
    here->device = about.st_dev;
    here->number = about.st_ino;
    here->next = up;
    for (; up != NULL; up = up->next)
        if (up->device == about.st_dev && up->number == about.st_ino)
            return 0;
    return 1;
}

/* All images below a folder. */
static void collect(const char *path, const above *up, names *images)
{
    names files, folders;
    above here;
    char full[1100];
    size_t i;

    if (!enter(path, up, &here)) return;
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    list_folder(path, &files, &folders);
    for (i = 0; i < files.count; i++)
        if (image_kind(files.item[i])) names_add(images, path, files.item[i]);
        else images->others++;
    for (i = 0; i < folders.count; i++)
        collect(join(full, path, folders.item[i]), &here, images);
    names_free(&files);
    names_free(&folders);
}

static void say(char *why, size_t bytes, const char *text)
{
    if (why != NULL) snprintf(why, bytes, "%s", text);
}

/* A whole file; NULL and the reason when it cannot be had. */
static uint8_t *read_file(const char *path, size_t *bytes, char *why,
    size_t why_bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    long end;

    if (file == NULL) {
        say(why, why_bytes, strerror(errno));
        return NULL;
    }
    if (fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) >= 0
        && fseek(file, 0, SEEK_SET) == 0) {
        *bytes = (size_t)end;
        data = (uint8_t *)room(*bytes + 1, 1);
        if (fread(data, 1, *bytes, file) != *bytes) {
            free(data);
            data = NULL;
        }
    }
    if (data == NULL) say(why, why_bytes, "cannot be read");
    fclose(file);
    return data;
}

/* ------------------------------------------------------------ decoding */

/* A decoded file: rows of pixels of `parts` bytes: grey, grey and alpha,
   RGB or RGBA. */
typedef struct raw {
    uint8_t *pixels;
    int32_t width, height, parts;
} raw;

/* A number of some bytes, the first the largest. */
static uint32_t big(const uint8_t *b, int bytes)
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
    out->pixels = (uint8_t *)room(count, 1);
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
        const size_t length = i + 4 <= bytes ? big(data + i + 2, 2) : 0;
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
        const size_t length = big(data + i, 4);
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
    return "JPEG, PNG and BMP need stb_image.h, which this build did not "
        "find: install libstb-dev, or put the file beside splitmask.h, then "
        "make clean all";
}
#endif

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

static uint8_t grey(unsigned r, unsigned g, unsigned b)
{
    return (uint8_t)((299 * r + 587 * g + 114 * b + 500) / 1000);
}

/* Into planes, each pixel the mean of `by` x `by`. */
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
    p.pixels = (uint8_t *)room(plane, (size_t)channels);
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
                p.pixels[at] = grey(sum[0], sum[1], sum[2]);
            else
                for (c = 0; c < (size_t)channels; c++)
                    p.pixels[c * plane + at] = (uint8_t)sum[c];
        }
    return p;
}

/* Replace a picture by a window of it at another size. */
static void resize(picture *p, int32_t channels, const double window[4],
    int32_t width, int32_t height)
{
    static const float scale[4] = { 1, 1, 1, 1 };
    static const float shift[4] = { 0.5f, 0.5f, 0.5f, 0.5f };
    const size_t count = (size_t)width * (size_t)height * (size_t)channels;
    float *out = (float *)room(count, sizeof(float));
    uint8_t *pixels = (uint8_t *)room(count, 1);
    size_t i;

    picture_resample(p, channels, window, 0, width, height, scale, shift,
        out);
    for (i = 0; i < count; i++) pixels[i] = (uint8_t)out[i];
    free(out);
    free(p->pixels);
    p->pixels = pixels;
    p->width = width;
    p->height = height;
}

/* The square in the middle. */
static void middle(const picture *p, double window[4])
{
    const int32_t side = p->width < p->height ? p->width : p->height;

    window[0] = (p->width - side) / 2.0;
    window[1] = (p->height - side) / 2.0;
    window[2] = window[3] = side;
}

/* Make the short side at most `side`, and the long side at most twice the
   short one. */
static void fit(picture *p, int32_t channels, int32_t side)
{
    const int32_t least = p->width < p->height ? p->width : p->height;
    const int32_t most = 2 * least;
    const int32_t to = least < side ? least : side;
    double window[4];

    window[2] = p->width < most ? p->width : most;
    window[3] = p->height < most ? p->height : most;
    window[0] = floor((p->width - window[2]) / 2);
    window[1] = floor((p->height - window[3]) / 2);
    if (to < least || least * 2 < (p->width > p->height ? p->width
        : p->height))
        resize(p, channels, window,
            (int32_t)(window[2] * to / least + 0.5),
            (int32_t)(window[3] * to / least + 0.5));
}

/* Read and decode a file and make its short side at most `side`. */
static int load(const char *path, int32_t channels, int32_t side,
    picture *out, char *why, size_t why_bytes)
{
    const char *trouble;
    size_t bytes;
    raw r;
    uint8_t *data = read_file(path, &bytes, why, why_bytes);
    int32_t by, least;

    if (data == NULL) return 0;
    memset(&r, 0, sizeof r);
    if (bytes < 8)
        trouble = "too short to be an image";
    else if (data[0] == 'P' && (data[1] == '2' || data[1] == '3'
        || data[1] == '5' || data[1] == '6'))
        trouble = decode_pnm(data, bytes, &r);
    else if (image_kind(path) == 1)
        trouble = "neither a PPM nor a PGM file";
    else
        trouble = decode_other(data, bytes, &r);
    free(data);
    if (trouble != NULL) {
        if (why != NULL)
            snprintf(why, why_bytes, "cannot be decoded: %s", trouble);
        return 0;
    }
    flatten(&r);
    /* Far too large: first means of squares, which is fast. */
    least = r.width < r.height ? r.width : r.height;
    by = least / (2 * side);
    *out = to_planes(&r, channels, by > 1 ? by : 1);
    free(r.pixels);
    fit(out, channels, side);
    return 1;
}

/* --------------------------------------------------------- image files */

char **image_list(const char *path, size_t *count)
{
    names found;
    struct stat about;
    size_t i, bytes = 0;
    char **list, *text;

    memset(&found, 0, sizeof found);
    if (stat(path, &about) != 0) fail("%s: %s", path, strerror(errno));
    if (S_ISDIR(about.st_mode)) collect(path, NULL, &found);
    else names_add(&found, "", path);
    names_sort(&found);
    for (i = 0; i < found.count; i++) bytes += strlen(found.item[i]) + 1;
    list = (char **)room(found.count * sizeof(char *) + bytes, 1);
    text = (char *)(list + found.count);
    for (i = 0; i < found.count; i++) {
        list[i] = text;
        strcpy(text, found.item[i]);
        text += strlen(text) + 1;
    }
    *count = found.count;
    names_free(&found);
    return list;
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
        say(why, why_bytes, "the model takes neither 1 nor 3 channels");
        return 0;
    }
    if (!load(path, channels, 2 * side, &p, why, why_bytes)) return 0;
    middle(&p, window);
    picture_resample(&p, channels, window, 0, side, side, scale, shift,
        image);
    free(p.pixels);
    return 1;
}

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
} reading;

static void read_one(void *arg, int piece, int worker)
{
    reading *r = (reading *)arg;
    const size_t at = r->first + (size_t)piece;
    picture *p = &r->image[at];
    double window[4];

    (void)worker;
    r->why[piece][0] = '\0';
    if (!load(r->path[at], r->d->channels, r->side, p, r->why[piece],
            sizeof r->why[piece]) || !r->test)
        return;
    middle(p, window);
    if (p->width != r->d->image || p->height != r->d->image)
        resize(p, r->d->channels, window, r->d->image, r->d->image);
}

/* Run fn for `count` pieces on all threads that are allowed. */
static void spread(const data_set *d, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    smask_threads pool;
    smask_parallel hook;
    int i;

    if (d->threads == 1 || smask_threads_start(&pool, d->threads) != SMASK_OK) {
        for (i = 0; i < count; i++) fn(arg, i, 0);
        return;
    }
    hook = smask_threads_hook(&pool);
    hook.run(hook.user, count, fn, arg);
    smask_threads_stop(&pool);
}

/* Decode the listed files into a split; those that fail are left out. */
static void read_images(data_set *d, data_split *split, const names *files,
    const int32_t *label, int test)
{
    /* Bytes to spend on the short side's square; photos are 3 : 2. */
    const double square = BUDGET / (1.5 * (double)files->count
        * (double)d->channels);
    reading *r = (reading *)room(1, sizeof *r);
    progress line;
    size_t good = 0, i;
    int32_t least = (8 * d->image + 6) / 7;

    make_split(d, split, files->count);
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

        spread(d, count, read_one, r);
        for (i = 0; i < (size_t)count; i++) {
            const size_t at = r->first + i;
            if (r->why[i][0] != '\0') {
                warn("%s: %s; skipped", files->item[at], r->why[i]);
                d->skipped++;
                continue;
            }
            if (!test)
                hash_name(&d->names_hash, files->item[at] + d->path_bytes);
            keep(d, split->image[at].pixels);
            split->image[good] = split->image[at];
            split->label[good++] = label[at];
        }
        progress_at(&line, (double)r->first + count);
    }
    progress_end(&line);
    split->count = good;
    free(r);
}

/* ------------------------------------------------------------- folders */

#ifndef STB_HEADER
/* Better told once, before any work, than for every file. */
static void need_stb(const char *path, const names *files)
{
    size_t i;

    for (i = 0; i < files->count; i++)
        if (image_kind(files->item[i]) == 2)
            fail("--data %s: %s", path, decode_other(NULL, 0, NULL));
}
#else
static void need_stb(const char *path, const names *files)
{
    (void)path;
    (void)files;
}
#endif

/* Files and labels of one split, before anything is read. */
typedef struct listing {
    names files;
    int32_t *label;
    size_t space;
} listing;

static void list_images(listing *l, const char *path, const above *up,
    int32_t label)
{
    const size_t before = l->files.count;
    size_t i;

    collect(path, up, &l->files);
    if (l->files.count == before) return;
    qsort(l->files.item + before, l->files.count - before, sizeof(char *),
        by_name);
    if (l->files.count > l->space) {
        int32_t *more = (int32_t *)realloc(l->label,
            2 * l->files.count * sizeof(int32_t));
        if (more == NULL) fail("no memory for the list of files");
        l->label = more;
        l->space = 2 * l->files.count;
    }
    for (i = before; i < l->files.count; i++) l->label[i] = label;
}

static void list_free(listing *l)
{
    names_free(&l->files);
    free(l->label);
}

/* The folders below `path` that hold images, added to the classes. */
static void find_classes(const char *path, names *classes)
{
    names files, folders, images;
    above here;
    char full[1100];
    size_t i, k;

    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    enter(path, NULL, &here);
    list_folder(path, &files, &folders);
    for (i = 0; i < folders.count; i++) {
        memset(&images, 0, sizeof images);
        collect(join(full, path, folders.item[i]), &here, &images);
        for (k = 0; k < classes->count; k++)
            if (strcmp(classes->item[k], folders.item[i]) == 0) break;
        if (images.count > 0 && k == classes->count)
            names_add(classes, "", folders.item[i]);
        names_free(&images);
    }
    names_free(&files);
    names_free(&folders);
}

/* All images of a split, class by class. Of what lies beside the folders of
   the classes nobody knows what it is. */
static void list_split(listing *l, const char *path, const names *classes)
{
    names files, folders;
    above here;
    char full[1100];
    size_t i, k, beside = 0;

    if (classes->count == 0) {
        list_images(l, path, NULL, 0);
        return;
    }
    enter(path, NULL, &here);
    for (k = 0; k < classes->count; k++)
        if (is_folder(join(full, path, classes->item[k])))
            list_images(l, full, &here, (int32_t)k);
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    list_folder(path, &files, &folders);
    for (i = 0; i < files.count; i++) beside += image_kind(files.item[i]) > 0;
    if (beside > 0)
        warn("%s: %lu images beside the folders of the classes are left out",
            path, (unsigned long)beside);
    names_free(&files);
    names_free(&folders);
}

/* Which class is what, so that a folder that was taken for something else
   than it is can be seen at once. */
static void tell_classes(const data_set *d, const char *path, int held_out)
{
    char line[600] = "";
    size_t i, at = 0;
    int32_t k;

    for (k = 0; k < d->classes; k++) {
        size_t train = 0, test = 0;
        for (i = 0; i < d->train.count; i++) train += d->train.label[i] == k;
        for (i = 0; i < d->test.count; i++) test += d->test.label[i] == k;
        if (train == 0 && test > 0)
            warn("--data %s: class %s has test images, but none to learn "
                "from", path, d->class_name[k]);
        if (at + 120 > sizeof line) continue;
        at += (size_t)snprintf(line + at, sizeof line - at, "%s %.60s %lu",
            k > 0 ? "," : "", d->class_name[k], (unsigned long)train);
        if (d->test.count > 0)
            at += (size_t)snprintf(line + at, sizeof line - at, "+%lu",
                (unsigned long)test);
        if (at + 120 > sizeof line && k + 1 < d->classes)
            strcat(line, ", ...");
    }
    warn("--data %s: %d %s, %s:%s%s", path, (int)d->classes,
        d->classes == 1 ? "class" : "classes",
        d->test.count > 0 ? "training + test images" : "training images",
        line, held_out ? " (every fifth is for testing)" : "");
}

/* Move every fifth image of each class to the test split. */
static void hold_out(listing *train, listing *test)
{
    size_t i, kept = 0, number = 0;
    int32_t last = -1;

    test->label = (int32_t *)room(train->files.count, sizeof(int32_t));
    for (i = 0; i < train->files.count; i++) {
        char *path = train->files.item[i];
        const int32_t label = train->label[i];

        if (label != last) number = 0;
        last = label;
        if (++number % 5 == 0) {
            test->label[test->files.count] = label;
            names_add(&test->files, "", path);
            free(path);
        } else {
            train->label[kept] = label;
            train->files.item[kept++] = path;
        }
    }
    train->files.count = kept;
}

/* PATH/name, in whatever case it is written; 0 if there is none. */
static int find_folder(char found[1100], const char *path, const char *name)
{
    names files, folders;
    size_t i;

    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    list_folder(path, &files, &folders);
    for (i = 0; i < folders.count; i++)
        if (strcasecmp(folders.item[i], name) == 0) break;
    if (i < folders.count) join(found, path, folders.item[i]);
    else found[0] = '\0';
    names_free(&files);
    names_free(&folders);
    return found[0] != '\0';
}

static void open_folder(data_set *d, const char *path)
{
    static const char *const other[] = { "val", "test", "valid",
        "validation" };
    char train_path[1100], test_path[1100] = "";
    names classes;
    listing train, test;
    size_t i, others;
    int held_out = 0;

    memset(&classes, 0, sizeof classes);
    memset(&train, 0, sizeof train);
    memset(&test, 0, sizeof test);
    if (find_folder(train_path, path, "train")) {
        find_classes(train_path, &classes);
        for (i = 0; i < 4; i++)
            if (find_folder(test_path, path, other[i])) break;
        if (classes.count > 0 && test_path[0] != '\0')
            find_classes(test_path, &classes);
    } else {
        if (strlen(path) >= sizeof train_path)
            fail("--data: the path is too long; move the folder");
        memcpy(train_path, path, strlen(path) + 1);
        find_classes(path, &classes);
        held_out = classes.count > 1;
    }
    names_sort(&classes);
    list_split(&train, train_path, &classes);
    others = train.files.others;
    if (test_path[0] != '\0') list_split(&test, test_path, &classes);
    else if (held_out) hold_out(&train, &test);
    if (train.files.count == 0)
        fail("--data %s: nothing there that can be read: neither CIFAR-10's "
            "data_batch_1.bin, nor train-images-idx3-ubyte, nor images "
            "(JPEG, PNG, BMP, PPM, PGM) in train/CLASS or below it", path);
    need_stb(path, &train.files);
    need_stb(path, &test.files);

    make_classes(d, classes.count > 0 ? (int32_t)classes.count : 1);
    for (i = 0; i < classes.count; i++)
        name_class(d, (int32_t)i, classes.item[i]);
    if (classes.count == 0) name_class(d, 0, "images");
    read_images(d, &d->train, &train.files, train.label, 0);
    if (test.files.count > 0)
        read_images(d, &d->test, &test.files, test.label, 1);
    if (d->skipped > 0)
        warn("--data %s: %lu of %lu files skipped", path,
            (unsigned long)d->skipped,
            (unsigned long)(train.files.count + test.files.count));
    if (others > 0)
        warn("--data %s: %lu files of other kinds are left out; JPEG, PNG, "
            "BMP, PPM and PGM are read", path, (unsigned long)others);
    if (d->train.count == 0)
        fail("--data %s: none of the training images can be decoded", path);
    tell_classes(d, path, held_out);
    names_free(&classes);
    list_free(&train);
    list_free(&test);
}

/* ------------------------------------------------- CIFAR-10's own form */

#define CIFAR_PLANE 1024
#define CIFAR_RECORD (1 + 3 * CIFAR_PLANE)

/* Add the records of a file: a label, then planes of red, green, blue. The
   pictures point into the file's own bytes. */
static void cifar_file(data_set *d, const char *path, uint8_t *data,
    size_t bytes, data_split *split, size_t *at)
{
    size_t i, k;

    for (i = 0; i < bytes / CIFAR_RECORD; i++, (*at)++) {
        uint8_t *pixels = data + i * CIFAR_RECORD + 1;
        if (pixels[-1] >= 10)
            fail("%s: image %lu has the label %d, above 9; this is no "
                "CIFAR-10 file, or it is damaged", path, (unsigned long)i,
                pixels[-1]);
        for (k = 0; k < CIFAR_PLANE && d->channels == 1; k++)
            pixels[k] = grey(pixels[k], pixels[CIFAR_PLANE + k],
                pixels[2 * CIFAR_PLANE + k]);
        split->image[*at].pixels = pixels;
        split->image[*at].width = split->image[*at].height = 32;
        split->label[*at] = pixels[-1];
    }
}

static void cifar_split(data_set *d, const char *folder, const names *files,
    data_split *split)
{
    uint8_t **data = (uint8_t **)room(files->count, sizeof *data);
    size_t *bytes = (size_t *)room(files->count, sizeof *bytes);
    size_t i, count = 0, at = 0;
    char path[1100], why[256];

    for (i = 0; i < files->count; i++) {
        join(path, folder, files->item[i]);
        data[i] = read_file(path, &bytes[i], why, sizeof why);
        if (data[i] == NULL) fail("%s: %s", path, why);
        keep(d, data[i]);
        if (bytes[i] == 0 || bytes[i] % CIFAR_RECORD != 0)
            fail("%s: %lu bytes are not a whole number of records of %d; "
                "the file is cut short: get it again", path,
                (unsigned long)bytes[i], CIFAR_RECORD);
        count += bytes[i] / CIFAR_RECORD;
    }
    make_split(d, split, count);
    for (i = 0; i < files->count && split == &d->train; i++)
        hash_name(&d->names_hash, files->item[i]);
    for (i = 0; i < files->count; i++)
        cifar_file(d, join(path, folder, files->item[i]), data[i], bytes[i],
            split, &at);
    free(data);
    free(bytes);
}

static void open_cifar(data_set *d, const char *path, const names *train,
    const names *test)
{
    static const char *const name[] = { "airplane", "automobile", "bird",
        "cat", "deer", "dog", "frog", "horse", "ship", "truck" };
    int32_t i;

    make_classes(d, 10);
    for (i = 0; i < 10; i++) name_class(d, i, name[i]);
    cifar_split(d, path, train, &d->train);
    if (test->count > 0) cifar_split(d, path, test, &d->test);
}

/* ---------------------------------------------------------- IDX (MNIST) */

/* PATH/train-images-idx3-ubyte or, from some unpackers, .idx3-ubyte. */
static int find_idx(char path[1100], const char *folder, const char *which,
    const char *kind)
{
    char name[64];

    snprintf(name, sizeof name, "%s-%s-ubyte", which, kind);
    if (is_file(join(path, folder, name))) return 1;
    snprintf(name, sizeof name, "%s.%s-ubyte", which, kind);
    return is_file(join(path, folder, name));
}

/* An IDX file of bytes of the given rank: checks that its shape and its
   length agree. */
static uint8_t *read_idx(data_set *d, const char *path, unsigned rank,
    size_t shape[3])
{
    uint8_t *data;
    size_t bytes, head = 4 + 4 * rank;
    double wanted;
    char why[256];
    unsigned i;

    data = read_file(path, &bytes, why, sizeof why);
    if (data == NULL) fail("%s: %s", path, why);
    keep(d, data);
    if (bytes < head || data[0] != 0 || data[1] != 0 || data[2] != 8
        || data[3] != rank)
        fail("%s: not an IDX file of bytes with %u dimensions%s", path, rank,
            bytes > 1 && data[0] == 0x1f && data[1] == 0x8b
            ? ": it is compressed; use gunzip" : "");
    wanted = (double)head;
    shape[0] = shape[1] = shape[2] = 1;
    for (i = 0; i < rank; i++) shape[i] = big(data + 4 + 4 * i, 4);
    wanted += (double)shape[0] * (double)shape[1] * (double)shape[2];
    if ((double)bytes != wanted)
        fail("%s: %.0f bytes by its header, but there are %lu; the file is "
            "damaged: get it again", path, wanted, (unsigned long)bytes);
    return data + head;
}

static void idx_split(data_set *d, const char *folder, const char *which,
    data_split *split)
{
    char path[1100], name[32];
    size_t shape[3], labels[3], plane, i;
    uint8_t *pixels, *label;
    int32_t c;

    snprintf(name, sizeof name, "%s-images", which);
    find_idx(path, folder, name, "idx3");
    pixels = read_idx(d, path, 3, shape);
    plane = shape[1] * shape[2];
    if (shape[0] < 1) fail("%s: has no images", path);
    if (shape[1] < 1 || shape[2] < 1
        || shape[1] > MOST_SIDE || shape[2] > MOST_SIDE)
        fail("%s: images of %lu x %lu pixels cannot be used", path,
            (unsigned long)shape[1], (unsigned long)shape[2]);
    snprintf(name, sizeof name, "%s-labels", which);
    if (!find_idx(path, folder, name, "idx1"))
        fail("%s-labels-idx1-ubyte is missing in %s; it belongs to the "
            "images", which, folder);
    label = read_idx(d, path, 1, labels);
    if (labels[0] != shape[0])
        fail("%s: %lu labels for %lu images; the files do not belong "
            "together", path, (unsigned long)labels[0],
            (unsigned long)shape[0]);
    make_split(d, split, shape[0]);
    if (d->channels == 3) {
        uint8_t *colour = (uint8_t *)keep(d, room(shape[0], 3 * plane));
        for (i = 0; i < shape[0]; i++)
            for (c = 0; c < 3; c++)
                memcpy(colour + (3 * i + (size_t)c) * plane,
                    pixels + i * plane, plane);
        pixels = colour;
        plane *= 3;
    }
    for (i = 0; i < shape[0]; i++) {
        split->image[i].pixels = pixels + i * plane;
        split->image[i].width = (int32_t)shape[2];
        split->image[i].height = (int32_t)shape[1];
        split->label[i] = label[i];
        if (label[i] >= d->classes) d->classes = label[i] + 1;
    }
}

static void open_idx(data_set *d, const char *path)
{
    char test[1100], number[16];
    int32_t i;

    idx_split(d, path, "train", &d->train);
    if (find_idx(test, path, "t10k-images", "idx3"))
        idx_split(d, path, "t10k", &d->test);
    make_classes(d, d->classes);
    for (i = 0; i < d->classes; i++) {
        snprintf(number, sizeof number, "%d", (int)i);
        name_class(d, i, number);
    }
}

/* --------------------------------------------------------------- shapes */

#define SHAPES 4000                  /* training images, unless told       */
#define SHAPES_SIDE 128              /* larger images are enlarged         */
#define SHAPES_SEED 20211221         /* the day the paper appeared         */

typedef struct painting {
    const data_set *d;
    data_split *split;
    uint8_t *pixels;
    int32_t side;
    int test;
} painting;

/* Image i is of class i mod 10 and follows from its number alone. */
static void paint_one(void *arg, int at, int worker)
{
    const painting *p = (const painting *)arg;
    uint8_t *out = p->pixels + (size_t)at * (size_t)p->d->channels
        * (size_t)p->side * (size_t)p->side;
    smask_random random;

    (void)worker;
    random_at(&random, SHAPES_SEED, p->test, (uint64_t)at);
    shapes_paint(&random, at % SHAPES_CLASSES, p->side, p->d->channels, out);
    p->split->image[at].pixels = out;
    p->split->image[at].width = p->split->image[at].height = p->side;
    p->split->label[at] = at % SHAPES_CLASSES;
}

static void paint_split(data_set *d, data_split *split, int count, int test)
{
    painting p;

    p.d = d;
    p.split = split;
    p.test = test;
    p.side = d->image < SHAPES_SIDE ? d->image : SHAPES_SIDE;
    p.pixels = (uint8_t *)keep(d, room((size_t)count, (size_t)d->channels
        * (size_t)p.side * (size_t)p.side));
    make_split(d, split, (size_t)count);
    spread(d, count, paint_one, &p);
}

static void open_shapes(data_set *d, const char *path)
{
    long count = SHAPES;
    char *end;
    int32_t i;

    if (path[6] == ':') {
        count = strtol(path + 7, &end, 10);
        if (path[7] == '\0' || *end != '\0' || count < 40 || count > 1000000)
            fail("--data %s: give shapes:N, N training images, 40 .. "
                "1000000", path);
    }
    make_classes(d, SHAPES_CLASSES);
    for (i = 0; i < SHAPES_CLASSES; i++) name_class(d, i, shapes_name[i]);
    paint_split(d, &d->train, (int)count, 0);
    paint_split(d, &d->test, (int)(count / 4), 1);
}

/* ----------------------------------------------------------------- open */

/* Mean and standard deviation of each channel of the training images. Sums
   of whole numbers: exact, in any order. */
static void measure(data_set *d)
{
    int32_t c;
    size_t i, k;

    for (c = 0; c < d->channels; c++) {
        uint64_t count = 0, sum = 0, squares = 0;
        double mean, spare;

        for (i = 0; i < d->train.count; i++) {
            const picture *p = &d->train.image[i];
            const size_t plane = (size_t)p->width * (size_t)p->height;
            const uint8_t *x = p->pixels + (size_t)c * plane;
            for (k = 0; k < plane; k++) {
                sum += x[k];
                squares += (uint64_t)x[k] * x[k];
            }
            count += plane;
        }
        mean = (double)sum / (double)count;
        spare = (double)squares / (double)count - mean * mean;
        d->mean[c] = (float)(mean / 255);
        /* A channel that never changes is not to be divided by nothing. */
        d->deviation[c] = spare > 0.25 ? (float)(sqrt(spare) / 255) : 1;
    }
}

void data_open(data_set *d, const char *path, int32_t image,
    int32_t channels)
{
    names files, folders, train, test;
    struct stat about;
    char idx[1100];
    size_t i;

    if (channels != 1 && channels != 3)
        fail("--data: images have 1 or 3 channels, the model takes %d; use "
            "another model", (int)channels);
    d->image = image;
    d->channels = channels;
    d->path_bytes = strlen(path);
    if (strcmp(path, "shapes") == 0 || strncmp(path, "shapes:", 7) == 0) {
        open_shapes(d, path);
        measure(d);
        return;
    }
    if (stat(path, &about) != 0)
        fail("--data %s: %s; give shapes or the path of a folder", path,
            strerror(errno));
    if (!S_ISDIR(about.st_mode))
        fail("--data %s: is a file; give the folder it is in", path);
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    memset(&train, 0, sizeof train);
    memset(&test, 0, sizeof test);
    list_folder(path, &files, &folders);
    for (i = 0; i < files.count; i++) {
        const char *name = files.item[i];
        const size_t length = strlen(name);
        if (strncmp(name, "data_batch_", 11) == 0 && length > 15
            && strcmp(name + length - 4, ".bin") == 0)
            names_add(&train, "", name);
        if (strcmp(name, "test_batch.bin") == 0) names_add(&test, "", name);
        if (strncmp(name, "train-images", 12) == 0 && length > 3
            && strcmp(name + length - 3, ".gz") == 0
            && !find_idx(idx, path, "train-images", "idx3"))
            fail("--data %s: its files are compressed; unpack them: "
                "gunzip %s/*.gz", path, path);
    }
    if (train.count > 0) open_cifar(d, path, &train, &test);
    else if (test.count > 0)
        fail("--data %s: has a test_batch.bin, but no data_batch_1.bin; get "
            "that too", path);
    else if (find_idx(idx, path, "train-images", "idx3"))
        open_idx(d, path);
    else open_folder(d, path);
    names_free(&files);
    names_free(&folders);
    names_free(&train);
    names_free(&test);
    measure(d);
}

void data_needs_classes(const data_set *d, const char *path)
{
    if (d->classes < 2)
        fail("--data %s: has one class; give a folder for each class, two "
            "or more", path);
    if (d->test.count < 1)
        fail("--data %s: has no test images; put some of each class under "
            "val beside train", path);
}

void data_batch(const data_set *d, int test, const int32_t *which,
    int32_t count, const float *mean, const float *deviation, float *images)
{
    const picture *from = test ? d->test.image : d->train.image;
    const size_t pixels = (size_t)d->channels * (size_t)d->image
        * (size_t)d->image;
    float scale[4], shift[4];
    double window[4];
    int32_t i, c;

    for (c = 0; c < d->channels; c++) {
        scale[c] = 1 / (255 * deviation[c]);
        shift[c] = -mean[c] / deviation[c];
    }
    for (i = 0; i < count; i++) {
        middle(&from[which[i]], window);
        picture_resample(&from[which[i]], d->channels, window, 0, d->image,
            d->image, scale, shift, images + (size_t)i * pixels);
    }
}
