/* test_data.c: data sets and augmentation. All files are written here, to
   out/test_data. */
#include "examples/support/support.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HERE "out/test_data"

/* ------------------------------------------------------------- helpers */

static void put(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL);
    if (file == NULL) return;
    CHECK(fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
}

static void put_text(const char *path, const char *text)
{
    put(path, text, strlen(text));
}

/* A P6 of one colour. */
static void put_colour(const char *path, int width, int height, int r, int g,
    int b)
{
    FILE *file = fopen(path, "wb");
    int i;

    CHECK(file != NULL);
    if (file == NULL) return;
    fprintf(file, "P6\n%d %d\n255\n", width, height);
    for (i = 0; i < width * height; i++) {
        fputc(r, file);
        fputc(g, file);
        fputc(b, file);
    }
    fclose(file);
}

static void open_at(data_set *d, const char *path, int32_t image,
    int32_t channels, int threads)
{
    memset(d, 0, sizeof *d);
    d->threads = threads;
    data_open(d, path, image, channels);
}

/* Open a data set in a child: its exit code, and what it printed. */
static int open_fails(const char *path, int32_t channels, char *said,
    size_t bytes)
{
    int ends[2], status = 0;
    size_t have = 0;
    ssize_t got;
    pid_t child;

    said[0] = '\0';
    fflush(stdout);
    if (pipe(ends) != 0 || (child = fork()) < 0) return -1;
    if (child == 0) {
        data_set d;
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        open_at(&d, path, 8, channels, 1);
        _exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], said + have, bytes - 1 - have)) > 0)
        have += (size_t)got;
    said[have] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* One line, that names `what`, and exit 2. */
static void refuses(const char *path, const char *what)
{
    char said[2048];

    SAME(open_fails(path, 3, said, sizeof said), 2);
    if (!CHECK(strstr(said, what) != NULL)) printf("    said: %s", said);
    CHECK(strchr(said, '\n') != NULL
        && strchr(said, '\n') == said + strlen(said) - 1);
}

/* A hook that works backwards and from several "workers". */
static void run_backwards(void *user, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    int i;

    for (i = count - 1; i >= 0; i--) fn(arg, i, i % *(int *)user);
}

/* Test pictures: pixel = value(x, y, c), in planes. */
static picture make_picture(int32_t width, int32_t height, int32_t channels,
    int (*value)(int x, int y, int c))
{
    picture p;
    int32_t x, y, c;
    size_t at = 0;

    p.width = width;
    p.height = height;
    p.pixels = (uint8_t *)malloc((size_t)(width * height * channels));
    for (c = 0; c < channels; c++)
        for (y = 0; y < height; y++)
            for (x = 0; x < width; x++)
                p.pixels[at++] = (uint8_t)value(x, y, c);
    return p;
}

static int noise(int x, int y, int c)
{
    return (x * 73 + y * 151 + c * 37 + x * y * 11) % 256;
}

static int flat(int x, int y, int c)
{
    (void)x;
    (void)y;
    return 40 + 80 * c;
}

/* Where a pixel comes from: x in the first channel, y in the second. */
static int place(int x, int y, int c)
{
    return c == 0 ? 3 * x : c == 1 ? 3 * y : 0;
}

static const float one[4] = { 1, 1, 1, 1 }, nothing[4] = { 0, 0, 0, 0 };

/* ------------------------------------------------------------- formats */

static void pnm_binary(void)
{
    static const unsigned char rgb[] = "P6 # width, height\n2 2\n#\n255\n"
        "\x01\x02\x03\xff\x00\x80\x10\x20\x30\x00\xff\x40";
    static const unsigned char wide[] = "P5\n1 2\n65535\n\x80\x00\xff\xff";
    float x[12];
    char why[128];

    put(HERE "/a.ppm", rgb, sizeof rgb - 1);
    CHECK(image_load(HERE "/a.ppm", 3, 2, x, why, sizeof why));
    NEAR(x[0] * 255, 1, 1e-4);
    NEAR(x[1] * 255, 255, 1e-4);
    NEAR(x[2] * 255, 16, 1e-4);
    NEAR(x[3] * 255, 0, 1e-4);
    NEAR(x[4] * 255, 2, 1e-4);
    NEAR(x[7] * 255, 255, 1e-4);
    NEAR(x[8] * 255, 3, 1e-4);
    NEAR(x[9] * 255, 128, 1e-4);
    NEAR(x[11] * 255, 64, 1e-4);
    /* Grey is the luma of the colours. */
    CHECK(image_load(HERE "/a.ppm", 1, 2, x, why, sizeof why));
    NEAR(x[1] * 255, 0.299 * 255 + 0.114 * 128, 0.51);
    /* 16 bits a sample, and a picture that is no square: 1 x 2 -> 1 x 1. */
    put(HERE "/b.pgm", wide, sizeof wide - 1);
    CHECK(image_load(HERE "/b.pgm", 3, 1, x, why, sizeof why));
    CHECK(x[0] > 0.49f && x[0] <= 1 && x[0] == x[1] && x[1] == x[2]);
}

static void pnm_text(void)
{
    float x[12];
    char why[128];

    put_text(HERE "/c.ppm", "P3\n# in words\n2 2 10\n10 0 5  0 0 0\n"
        "1 2 3 4 5 6");
    CHECK(image_load(HERE "/c.ppm", 3, 2, x, why, sizeof why));
    NEAR(x[0], 1, 1e-6);
    NEAR(x[8] * 255, 128, 1e-4);
    NEAR(x[11] * 255, 153, 1e-4);
    put_text(HERE "/d.pgm", "P2 1 1 4 3");
    CHECK(image_load(HERE "/d.pgm", 1, 1, x, why, sizeof why));
    NEAR(x[0] * 255, 191, 1e-4);
}

/* Cut at every byte: never a picture, never silent. */
static void pnm_cut_short(void)
{
    static const char binary[] = "P6\n2 2\n255\nabcdefghijkl";
    static const char text[] = "P2\n3 2\n255\n10 20 30 40 50 60";
    static const char *const bad[] = { "P6\n0 2\n255\nabcdefgh",
        "P6\n99999 2\n255\nabcdefgh", "P6\n2 2\n70000\nabcdefghijkl",
        "P6\n-2 2\n255\nabcdefghijkl", "P5\n16384 16384\n255\nabcdefgh",
        "P3\n2 2\n255\n1 2 3 4 5 6 x", "nothing to be seen here", "" };
    float x[12];
    char why[128];
    size_t i;

    for (i = 0; i < sizeof binary - 1; i++) {
        put(HERE "/e.ppm", binary, i);
        why[0] = '\0';
        CHECK(!image_load(HERE "/e.ppm", 3, 2, x, why, sizeof why));
        CHECK(why[0] != '\0');
    }
    for (i = 0; i < sizeof text - 3; i++) {
        put(HERE "/e.pgm", text, i);
        CHECK(!image_load(HERE "/e.pgm", 3, 2, x, why, sizeof why));
    }
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_text(HERE "/e.ppm", bad[i]);
        CHECK(!image_load(HERE "/e.ppm", 3, 2, x, why, sizeof why));
    }
    CHECK(!image_load(HERE "/no such.ppm", 3, 2, x, why, sizeof why));
    CHECK(!image_load(HERE "/a.ppm", 4, 2, x, why, sizeof why));
}

/* A BMP through stb_image, where the build found that. */
static void other_formats(void)
{
    unsigned char bmp[54 + 16] = { 'B', 'M', 70, 0, 0, 0, 0, 0, 0, 0, 54, 0,
        0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0, 0, 0, 0, 0,
        16 };
    /* 8 x 8 grey pixels of 200; 2 x 2 of 77. */
    static const unsigned char jpeg[141] = {
        0xff, 0xd8, 0xff, 0xdb, 0, 0x43, 0, 0x10, 0x0b, 0x0c, 0x0e, 0x0c,
        0x0a, 0x10, 0x0e, 0x0d, 0x0e, 0x12, 0x11, 0x10, 0x13, 0x18, 0x28,
        0x1a, 0x18, 0x16, 0x16, 0x18, 0x31, 0x23, 0x25, 0x1d, 0x28, 0x3a,
        0x33, 0x3d, 0x3c, 0x39, 0x33, 0x38, 0x37, 0x40, 0x48, 0x5c, 0x4e,
        0x40, 0x44, 0x57, 0x45, 0x37, 0x38, 0x50, 0x6d, 0x51, 0x57, 0x5f,
        0x62, 0x67, 0x68, 0x67, 0x3e, 0x4d, 0x71, 0x79, 0x70, 0x64, 0x78,
        0x5c, 0x65, 0x67, 0x63, 0xff, 0xc0, 0, 0x0b, 8, 0, 8, 0, 8, 1, 1,
        0x11, 0, 0xff, 0xc4, 0, 0x14, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 6, 0xff, 0xc4, 0, 0x14, 0x10, 1, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0x3f,
        0, 0x48, 0xff, 0xd9 };
    static const unsigned char png[71] = {
        0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d,
        0x49, 0x48, 0x44, 0x52, 0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 0,
        0x57, 0xdd, 0x52, 0xf8, 0, 0, 0, 0x0e, 0x49, 0x44, 0x41, 0x54,
        0x78, 0x9c, 0x63, 0xf4, 0x65, 0x60, 0x62, 0x60, 0, 0, 1, 0x93, 0,
        0x51, 0x97, 0x4f, 0x9b, 0x8f, 0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44,
        0xae, 0x42, 0x60, 0x82 };
    unsigned char film[sizeof jpeg + 4], bad[sizeof jpeg];
    float x[12];
    char why[256];
    size_t i;

    /* Rows from below, blue first, each padded to 8 bytes. */
    bmp[54] = 9;
    bmp[54 + 8 + 2] = 200;
    put(HERE "/f.bmp", bmp, sizeof bmp);
    if (!image_load(HERE "/f.bmp", 3, 2, x, why, sizeof why)) {
        CHECK(strstr(why, "stb_image.h") != NULL);
        printf("skip stb_image.h is not here: JPEG, PNG and BMP\n");
        return;
    }
    NEAR(x[0] * 255, 200, 1e-4);
    NEAR(x[8 + 2] * 255, 9, 1e-4);
    NEAR(x[1], 0, 1e-6);
    for (i = 0; i < sizeof bmp; i++) {
        put(HERE "/g.bmp", bmp, i);
        CHECK(!image_load(HERE "/g.bmp", 3, 2, x, why, sizeof why));
    }
    /* No size at all, in a file that is long enough for it. */
    memcpy(bad, bmp, sizeof bmp);
    bad[22] = 0;
    put(HERE "/g.bmp", bad, sizeof bmp);
    CHECK(!image_load(HERE "/g.bmp", 3, 2, x, why, sizeof why));

    put(HERE "/h.jpg", jpeg, sizeof jpeg);
    CHECK(image_load(HERE "/h.jpg", 3, 2, x, why, sizeof why));
    NEAR(x[0] * 255, 200, 1e-4);
    for (i = 8; i < sizeof jpeg; i++) {
        put(HERE "/i.jpg", jpeg, i);
        CHECK(!image_load(HERE "/i.jpg", 3, 2, x, why, sizeof why)
            && strstr(why, "cut short") != NULL);
    }
    /* A phone's photo with a film behind it, in which markers occur. */
    memcpy(film, jpeg, sizeof jpeg);
    memcpy(film + sizeof jpeg, "\xff\xda\xff\xd8", 4);
    put(HERE "/i.jpg", film, sizeof film);
    CHECK(image_load(HERE "/i.jpg", 3, 2, x, why, sizeof why));
    /* A table with more codes than there are bytes. */
    memcpy(bad, jpeg, sizeof jpeg);
    bad[94] = bad[95] = 200;
    put(HERE "/i.jpg", bad, sizeof bad);
    CHECK(!image_load(HERE "/i.jpg", 3, 2, x, why, sizeof why));
    CHECK(strstr(why, "damaged") != NULL);

    put(HERE "/h.png", png, sizeof png);
    CHECK(image_load(HERE "/h.png", 3, 2, x, why, sizeof why));
    NEAR(x[0] * 255, 77, 1e-4);
    for (i = 8; i < sizeof png - 4; i++) {
        put(HERE "/i.png", png, i);
        CHECK(!image_load(HERE "/i.png", 3, 2, x, why, sizeof why)
            && strstr(why, "cut short") != NULL);
    }
    memcpy(bad, png, sizeof png);
    bad[43] = 7;                         /* an error without a reason      */
    put(HERE "/i.png", bad, sizeof png);
    CHECK(!image_load(HERE "/i.png", 3, 2, x, why, sizeof why));
    CHECK(strstr(why, "damaged") != NULL);
}

/* Records whose bytes encode image, channel and pixel. */
static unsigned char cifar_byte(int image, int channel, int pixel)
{
    return (unsigned char)((image * 31 + channel * 7 + pixel) % 256);
}

static void put_cifar(const char *path, int first, int count, int spoil)
{
    unsigned char *data = (unsigned char *)malloc((size_t)count * 3073);
    int i, c, k;

    for (i = 0; i < count; i++) {
        data[i * 3073] = (unsigned char)((first + i) % 10);
        for (c = 0; c < 3; c++)
            for (k = 0; k < 1024; k++)
                data[i * 3073 + 1 + c * 1024 + k] =
                    cifar_byte(first + i, c, k);
    }
    if (spoil) data[(count - 1) * 3073] = 10;
    put(path, data, (size_t)count * 3073);
    free(data);
}

static void cifar(void)
{
    static float x[4 * 3072];
    const int32_t which[4] = { 0, 6, 7, 11 };
    data_set d;
    double mean = 0;
    int i, k;

    folder_make(HERE "/cifar");
    put_cifar(HERE "/cifar/data_batch_2.bin", 0, 7, 0);
    put_cifar(HERE "/cifar/data_batch_5.bin", 7, 5, 0);
    put_cifar(HERE "/cifar/test_batch.bin", 12, 3, 0);
    open_at(&d, HERE "/cifar", 32, 3, 1);
    SAME(d.train.count, 12);
    SAME(d.test.count, 3);
    SAME(d.classes, 10);
    CHECK_TEXT(d.class_name[3], "cat");
    for (i = 0; i < 12; i++) SAME(d.train.label[i], i % 10);
    SAME(d.test.label[1], 3);
    data_batch(&d, 0, which, 4, nothing, one, x);
    for (i = 0; i < 4; i++)
        for (k = 0; k < 3072; k += 127)
            NEAR(x[i * 3072 + k] * 255,
                cifar_byte(which[i], k / 1024, k % 1024), 1e-4);
    for (i = 0; i < 12; i++)
        for (k = 0; k < 1024; k++) mean += cifar_byte(i, 1, k);
    NEAR(d.mean[1], mean / (12 * 1024 * 255), 1e-6);
    data_batch(&d, 1, which, 1, d.mean, d.deviation, x);
    NEAR(x[0], (cifar_byte(12, 0, 0) / 255.0 - (double)d.mean[0])
        / (double)d.deviation[0], 1e-5);
    data_close(&d);
    /* At another size, and in grey. */
    open_at(&d, HERE "/cifar", 16, 1, 1);
    data_batch(&d, 0, which, 4, d.mean, d.deviation, x);
    CHECK(x[0] > -5 && x[0] < 5);
    data_close(&d);
}

static void cifar_broken(void)
{
    folder_make(HERE "/cifar2");
    put_text(HERE "/cifar2/data_batch_1.bin", "far too short");
    refuses(HERE "/cifar2", "cut short");
    put_cifar(HERE "/cifar2/data_batch_1.bin", 0, 2, 1);
    refuses(HERE "/cifar2", "label");
    put_text(HERE "/cifar2/data_batch_1.bin", "");
    refuses(HERE "/cifar2", "data_batch_1.bin");
    folder_make(HERE "/cifar3");
    put_cifar(HERE "/cifar3/test_batch.bin", 0, 2, 0);
    refuses(HERE "/cifar3", "data_batch_1.bin");
}

/* 5 images of 3 x 4 pixels with the labels 0 2 4 ... */
static void put_idx(const char *images, const char *labels, int bytes_off,
    int label_count)
{
    unsigned char data[16 + 60] = { 0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0,
        0, 3 };
    unsigned char label[8 + 5] = { 0, 0, 8, 1, 0, 0, 0, 5 };
    int i;

    for (i = 0; i < 60; i++) data[16 + i] = (unsigned char)(4 * i);
    for (i = 0; i < 5; i++) label[8 + i] = (unsigned char)(2 * i % 6);
    label[7] = (unsigned char)label_count;
    put(images, data, sizeof data - (size_t)bytes_off);
    put(labels, label, (size_t)(8 + label_count));
}

static void idx(void)
{
    const int32_t which[2] = { 0, 4 };
    data_set d;
    float x[2 * 3 * 9];

    folder_make(HERE "/idx");
    put_idx(HERE "/idx/train-images-idx3-ubyte",
        HERE "/idx/train-labels-idx1-ubyte", 0, 5);
    open_at(&d, HERE "/idx", 3, 1, 1);
    SAME(d.train.count, 5);
    SAME(d.test.count, 0);
    SAME(d.classes, 5);
    SAME(d.train.label[2], 4);
    CHECK_TEXT(d.class_name[4], "4");
    SAME(d.train.image[0].width, 3);
    SAME(d.train.image[0].height, 4);
    data_close(&d);
    /* The other spelling, test images, three channels of the same. */
    folder_make(HERE "/idx2");
    put_idx(HERE "/idx2/train-images.idx3-ubyte",
        HERE "/idx2/train-labels.idx1-ubyte", 0, 5);
    put_idx(HERE "/idx2/t10k-images.idx3-ubyte",
        HERE "/idx2/t10k-labels.idx1-ubyte", 0, 5);
    open_at(&d, HERE "/idx2", 3, 3, 1);
    SAME(d.test.count, 5);
    data_batch(&d, 1, which, 2, nothing, one, x);
    NEAR(x[0], x[9], 1e-6);
    NEAR(x[4], x[4 + 18], 1e-6);
    /* The middle 3 x 3 of 3 x 4 begins half a row down. */
    NEAR(x[4] * 255, (4 * 4 + 4 * 7) / 2.0, 1.0);
    data_close(&d);
}

static void idx_broken(void)
{
    folder_make(HERE "/idx3");
    put_idx(HERE "/idx3/train-images-idx3-ubyte",
        HERE "/idx3/train-labels-idx1-ubyte", 1, 5);
    refuses(HERE "/idx3", "damaged");
    put_idx(HERE "/idx3/train-images-idx3-ubyte",
        HERE "/idx3/train-labels-idx1-ubyte", 0, 4);
    refuses(HERE "/idx3", "4 labels for 5 images");
    put_idx(HERE "/idx3/train-labels-idx1-ubyte",
        HERE "/idx3/train-images-idx3-ubyte", 0, 5);
    refuses(HERE "/idx3", "not an IDX file");
    folder_make(HERE "/idx4");
    put_text(HERE "/idx4/train-images-idx3-ubyte.gz", "\x1f\x8b");
    refuses(HERE "/idx4", "gunzip");
    put_idx(HERE "/idx4/train-images-idx3-ubyte", HERE "/idx4/spare", 0, 5);
    refuses(HERE "/idx4", "labels");
}

/* ------------------------------------------------------------- folders */

static void folder(void)
{
    data_set d;
    float x[3 * 16];
    int32_t which;
    int threads;

    folder_make(HERE "/folder/train/pear");
    folder_make(HERE "/folder/train/apple/deep");
    folder_make(HERE "/folder/val/apple");
    folder_make(HERE "/folder/val/plum");
    folder_make(HERE "/folder/train/empty");
    put_colour(HERE "/folder/train/pear/1.ppm", 4, 4, 0, 255, 0);
    put_colour(HERE "/folder/train/pear/0.PPM", 40, 20, 0, 51, 0);
    put_colour(HERE "/folder/train/apple/deep/z.ppm", 5, 9, 255, 0, 0);
    put_colour(HERE "/folder/val/apple/a.ppm", 64, 70, 204, 0, 0);
    put_colour(HERE "/folder/val/plum/b.ppm", 3, 3, 0, 0, 255);
    put_text(HERE "/folder/train/pear/broken.ppm", "P6 4 4 255 not much");
    put_text(HERE "/folder/train/pear/notes.txt", "no image, no trouble");
    put_text(HERE "/folder/train/pear/.hidden.ppm", "not looked at");
    for (threads = 1; threads <= 3; threads++) {
        /* The warnings are expected; keep them out of the log. */
        const int error = dup(STDERR_FILENO);
        CHECK(freopen(HERE "/folder.log", "w", stderr) != NULL);
        open_at(&d, HERE "/folder", 4, 3, threads);
        fflush(stderr);
        dup2(error, STDERR_FILENO);
        close(error);
        SAME(d.classes, 3);
        CHECK_TEXT(d.class_name[0], "apple");
        CHECK_TEXT(d.class_name[1], "pear");
        CHECK_TEXT(d.class_name[2], "plum");
        SAME(d.train.count, 3);
        SAME(d.test.count, 2);
        SAME(d.skipped, 1);
        SAME(d.train.label[0], 0);
        SAME(d.train.label[1], 1);
        SAME(d.test.label[1], 2);
        which = 0;
        data_batch(&d, 1, &which, 1, nothing, one, x);
        NEAR(x[5] * 255, 204, 1e-3);
        which = 1;
        data_batch(&d, 0, &which, 1, nothing, one, x);
        NEAR(x[16 + 5] * 255, 51, 1e-3);
        /* Twice the side at most, the long side at most twice the short. */
        SAME(d.train.image[1].height, 8);
        SAME(d.train.image[1].width, 16);
        SAME(d.test.image[0].width, 4);
        SAME(d.test.image[0].height, 4);
        data_close(&d);
    }
}

static void folder_warnings(void)
{
    char said[4096] = "";
    FILE *file = fopen(HERE "/folder.log", "r");

    CHECK(file != NULL);
    if (file == NULL) return;
    CHECK(fread(said, 1, sizeof said - 1, file) > 0);
    fclose(file);
    CHECK(strstr(said, "train/pear/broken.ppm: cannot be decoded: the file "
        "is cut short; skipped\n") != NULL);
    CHECK(strstr(said, "1 of 6 files skipped\n") != NULL);
    CHECK(strstr(said, "notes") == NULL);
}

/* Without train/ and val/: every fifth of a class is kept for testing.
   Without classes: all of it is for training. */
static void folder_of_classes(void)
{
    char path[128];
    data_set d;
    int i;

    folder_make(HERE "/classes/a");
    folder_make(HERE "/classes/b");
    folder_make(HERE "/plain");
    for (i = 0; i < 11; i++) {
        snprintf(path, sizeof path, HERE "/classes/a/%02d.ppm", i);
        put_colour(path, 4, 4, i, 0, 0);
    }
    for (i = 0; i < 6; i++) {
        snprintf(path, sizeof path, HERE "/classes/b/%02d.ppm", i);
        put_colour(path, 4, 4, 0, i, 0);
        snprintf(path, sizeof path, HERE "/plain/%02d.ppm", i);
        put_colour(path, 4, 4, 0, i, 0);
    }
    open_at(&d, HERE "/classes", 4, 3, 1);
    SAME(d.train.count, 14);
    SAME(d.test.count, 3);
    SAME(d.test.image[0].pixels[0], 4);
    SAME(d.test.image[1].pixels[0], 9);
    SAME(d.test.image[2].pixels[16], 4);
    SAME(d.test.label[2], 1);
    SAME(d.train.image[4].pixels[0], 5);
    data_close(&d);
    open_at(&d, HERE "/plain", 4, 3, 1);
    SAME(d.train.count, 6);
    SAME(d.test.count, 0);
    SAME(d.classes, 1);
    data_close(&d);
}

static void folder_refusals(void)
{
    char said[2048];

    folder_make(HERE "/nothing/train/a");
    refuses(HERE "/nothing", "nothing there that can be read");
    refuses(HERE "/not there", "No such file");
    refuses(HERE "/a.ppm", "is a file");
    refuses("shapes:", "shapes:N");
    refuses("shapes:12x", "shapes:N");
    SAME(open_fails("shapes", 2, said, sizeof said), 2);
    CHECK(strstr(said, "channels") != NULL);
    /* All broken: a warning each, the sum, and the failure. */
    folder_make(HERE "/broken/train/a");
    put_text(HERE "/broken/train/a/1.ppm", "P6");
    SAME(open_fails(HERE "/broken", 3, said, sizeof said), 2);
    CHECK(strstr(said, "none of the training images") != NULL);
}

static void lists(void)
{
    size_t count = 0;
    char **list;
    data_set d;

    /* A link back to what it lies in: it is not followed. */
    CHECK(symlink("..", HERE "/classes/a/back") == 0);
    open_at(&d, HERE "/classes", 8, 3, 1);
    SAME(d.train.count + d.test.count, 17);
    data_close(&d);
    list = image_list(HERE "/classes", &count);
    unlink(HERE "/classes/a/back");
    SAME(count, 17);
    CHECK_TEXT(list[0], HERE "/classes/a/00.ppm");
    CHECK_TEXT(list[16], HERE "/classes/b/05.ppm");
    free(list);
    list = image_list(HERE "/a.ppm", &count);
    SAME(count, 1);
    CHECK_TEXT(list[0], HERE "/a.ppm");
    free(list);
}

/* -------------------------------------------------------------- shapes */

static void shapes(void)
{
    data_set a, b;
    int count[10] = { 0 };
    size_t i, same = 0;

    open_at(&a, "shapes:200", 16, 3, 1);
    memset(&b, 0, sizeof b);
    b.threads = 3;
    data_open(&b, "shapes:200", 16, 3);
    SAME(a.train.count, 200);
    SAME(a.test.count, 50);
    SAME(a.classes, 10);
    for (i = 0; i < 200; i++) {
        count[a.train.label[i]]++;
        same += memcmp(a.train.image[i].pixels, b.train.image[i].pixels,
            768) == 0;
        CHECK(a.train.label[i] == b.train.label[i]);
    }
    /* Threads do not change the set. */
    SAME(same, 200);
    for (i = 0; i < 10; i++) SAME(count[i], 20);
    CHECK(memcmp(a.train.image[0].pixels, a.test.image[0].pixels, 768) != 0);
    CHECK(memcmp(a.train.image[0].pixels, a.train.image[10].pixels, 768)
        != 0);
    for (i = 0; i < 3; i++) {
        CHECK(a.mean[i] > 0.3f && a.mean[i] < 0.45f);
        CHECK(a.deviation[i] > 0.12f && a.deviation[i] < 0.25f);
    }
    data_close(&b);
    /* A larger set begins with the same images. */
    open_at(&b, "shapes:240", 16, 3, 2);
    CHECK(memcmp(a.train.image[199].pixels, b.train.image[199].pixels, 768)
        == 0);
    data_close(&b);
    data_close(&a);
}

/* Colour does not reveal the class: mean hue and brightness of the classes
   differ by sampling noise only, and all forms cover the same area. */
static void shapes_mean(void)
{
    double sum[10][3] = { { 0 } }, all[3] = { 0, 0, 0 };
    data_set d;
    size_t i, k;
    int c;

    open_at(&d, "shapes:2000", 16, 3, 1);
    for (i = 0; i < d.train.count; i++)
        for (c = 0; c < 3; c++)
            for (k = 0; k < 256; k++)
                sum[d.train.label[i]][c] +=
                    d.train.image[i].pixels[256 * c + (int)k]
                    / (256.0 * 255 * 200);
    for (i = 0; i < 10; i++)
        for (c = 0; c < 3; c++) all[c] += sum[i][c] / 10;
    for (i = 0; i < 10; i++) {
        NEAR(sum[i][1], all[1], 0.01);
        NEAR(sum[i][0] - sum[i][1], all[0] - all[1], 0.01);
        NEAR(sum[i][2] - sum[i][1], all[2] - all[1], 0.01);
    }
    data_close(&d);
}

/* ---------------------------------------------------------- resampling */

static void resample_identity(void)
{
    picture p = make_picture(17, 17, 3, noise);
    const double whole[4] = { 0, 0, 17, 17 };
    /* The same window by the general path: inside a larger picture. */
    picture wide = make_picture(40, 30, 3, noise);
    const double inside[4] = { 0, 0, 17, 17 };
    float x[3 * 289], y[3 * 289];
    int i;

    picture_resample(&p, 3, whole, 0, 17, 17, one, nothing, x);
    for (i = 0; i < 3 * 289; i++) NEAR(x[i], p.pixels[i], 1e-4);
    picture_resample(&wide, 3, inside, 0, 17, 17, one, nothing, y);
    for (i = 0; i < 3 * 289; i++)
        NEAR(y[i], noise(i % 17, i / 17 % 17, i / 289), 1e-3);
    picture_resample(&p, 3, whole, 1, 17, 17, one, nothing, y);
    for (i = 0; i < 3 * 289; i++)
        NEAR(y[i], x[i / 17 * 17 + 16 - i % 17], 1e-4);
    picture_resample(&wide, 3, inside, 1, 17, 17, one, nothing, x);
    for (i = 0; i < 3 * 289; i++) NEAR(y[i], x[i], 1e-3);
    free(p.pixels);
    free(wide.pixels);
}

static void resample_flat(void)
{
    static const int size[] = { 1, 2, 3, 7, 32, 100 };
    static float x[3 * 100 * 100];
    const float scale[4] = { 2, 2, 2, 2 }, shift[4] = { 1, 1, 1, 1 };
    size_t a, b;
    int i;

    for (a = 0; a < 6; a++)
        for (b = 0; b < 6; b++) {
            picture p = make_picture(size[a], size[a] + 1, 3, flat);
            const double w[4] = { 0, 0, size[a], size[a] + 1 };
            picture_resample(&p, 3, w, 0, size[b], size[b], scale, shift, x);
            for (i = 0; i < 3 * size[b] * size[b]; i++)
                NEAR(x[i], 2 * (40 + 80 * (i / (size[b] * size[b]))) + 1,
                    1e-2);
            free(p.pixels);
        }
}

/* A ramp stays a ramp, larger and smaller: positions are right. (A cubic
   that is stretched by a fraction and sampled is a few hundredths off.) */
static void resample_ramp(void)
{
    picture p = make_picture(80, 80, 2, place);
    const double w[4] = { 10.5, 20.25, 48, 32 };
    static const int size[] = { 8, 20, 48, 96 };
    static float x[2 * 96 * 96];
    size_t k;
    int i, j;

    for (k = 0; k < 4; k++) {
        const int s = size[k];
        picture_resample(&p, 2, w, 0, s, s, one, nothing, x);
        for (i = 0; i < s; i++)
            for (j = 0; j < s; j++) {
                NEAR(x[i * s + j],
                    3 * (10.5 + (j + 0.5) * 48 / s - 0.5), 0.03);
                NEAR(x[s * s + i * s + j],
                    3 * (20.25 + (i + 0.5) * 32 / s - 0.5), 0.03);
            }
    }
    free(p.pixels);
}

/* Shrinking far: every pixel counts, so the mean survives. */
static void resample_shrink(void)
{
    picture p = make_picture(97, 61, 3, noise);
    const double w[4] = { 0, 0, 97, 61 };
    float x[3 * 16];
    double before = 0, after = 0;
    int i;

    picture_resample(&p, 3, w, 0, 4, 4, one, nothing, x);
    for (i = 0; i < 3 * 97 * 61; i++) before += p.pixels[i];
    for (i = 0; i < 48; i++) after += (double)x[i];
    NEAR(before / (3 * 97 * 61), after / 48, 1.5);
    free(p.pixels);
}

/* -------------------------------------------------------- augmentation */

/* A data set of one kind of picture, in memory. */
static void fake_set(data_set *d, picture *p, int count, int32_t image,
    int32_t channels)
{
    memset(d, 0, sizeof *d);
    d->train.image = p;
    d->train.count = (size_t)count;
    d->image = image;
    d->channels = channels;
}

static void augment_whole(void)
{
    picture p = make_picture(16, 16, 3, noise);
    const int32_t which[32] = { 0 };
    static float x[32 * 768];
    data_set d;
    int i, k, mirrored = 0;

    fake_set(&d, &p, 1, 16, 3);
    data_augmented(&d, which, 32, nothing, one, 1, 5, 9, NULL, x);
    for (i = 0; i < 32; i++) {
        const int flip = fabsf(x[i * 768] * 255 - (float)noise(0, 0, 0)) > 0.5f;
        mirrored += flip;
        for (k = 0; k < 768; k++)
            NEAR(x[i * 768 + k] * 255, noise(flip ? 15 - k % 16 : k % 16,
                k / 16 % 16, k / 256), 1e-3);
    }
    CHECK(mirrored > 6 && mirrored < 26);
    d.no_flip = 1;
    data_augmented(&d, which, 32, nothing, one, 1, 5, 9, NULL, x);
    for (i = 0; i < 32; i++) NEAR(x[i * 768] * 255, noise(0, 0, 0), 1e-3);
    free(p.pixels);
}

/* The window that a crop took, read from a picture of places. */
static void augment_windows(void)
{
    static const int width[] = { 64, 80, 48 };
    static float x[64 * 2 * 256];
    const int32_t which[64] = { 0 };
    double area_sum = 0, min = 2, max = 0;
    int i, k, step, many = 0;

    for (k = 0; k < 3; k++) {
        picture p = make_picture(width[k], 64, 2, place);
        data_set d;
        fake_set(&d, &p, 1, 16, 2);
        d.no_flip = 1;
        for (step = 0; step < 4; step++) {
            data_augmented(&d, which, 64, nothing, one, 0.25f, 1, step, NULL,
                x);
            for (i = 0; i < 64; i++, many++) {
                /* Places of pixels 4 and 12, far from the borders. */
                const float *at = x + i * 512 + 4 * 16 + 4;
                const double w = 255 / 3.0 * (double)(at[8] - at[0]) * 2;
                const double h = 255 / 3.0
                    * (double)(at[256 + 8 * 16] - at[256]) * 2;
                const double left = 255 / 3.0 * (double)at[0] + 0.5
                    - 4.5 / 16 * w;
                const double area = w * h / (width[k] * 64.0);
                CHECK(area > 0.245 && area < 1.01);
                CHECK(w / h > 0.74 && w / h < 1.35);
                CHECK(left > -0.1 && left + w < width[k] + 0.1);
                area_sum += area;
                if (area < min) min = area;
                if (area > max) max = area;
            }
        }
        free(p.pixels);
    }
    NEAR(area_sum / many, 0.6, 0.06);
    CHECK(min < 0.3 && max > 0.85);
}

static void augment_most(void)
{
    picture p = make_picture(64, 64, 2, place);
    const int32_t which[64] = { 0 };
    static float x[64 * 2 * 256];
    data_set d;
    int i;

    fake_set(&d, &p, 1, 16, 2);
    d.no_flip = 1;
    d.crop_most = 0.25f;
    data_augmented(&d, which, 64, nothing, one, 0.08f, 1, 0, NULL, x);
    for (i = 0; i < 64; i++) {
        const float *at = x + i * 512 + 4 * 16 + 4;
        const double w = 255 / 3.0 * (double)(at[8] - at[0]) * 2;
        const double h = 255 / 3.0 * (double)(at[256 + 128] - at[256]) * 2;
        CHECK(w * h / 4096 < 0.26 && w * h / 4096 > 0.07);
    }
    free(p.pixels);
}

/* The result depends on the position in the batch, the step and the seed,
   not on the hook or the number of images. */
static void augment_repeats(void)
{
    static float x[24 * 768], y[24 * 768];
    int32_t which[24];
    smask_parallel hook;
    data_set d;
    int extras, workers, i;

    for (i = 0; i < 24; i++) which[i] = (7 * i) % 40;
    open_at(&d, "shapes:40", 16, 3, 1);
    for (extras = 0; extras < 2; extras++) {
        d.extras = extras;
        data_augmented(&d, which, 24, d.mean, d.deviation, 0.3f, 3, 4, NULL,
            x);
        for (workers = 1; workers <= 4; workers++) {
            memset(&hook, 0, sizeof hook);
            hook.run = run_backwards;
            hook.user = &workers;
            hook.workers = workers;
            memset(y, 0, sizeof y);
            data_augmented(&d, which, 24, d.mean, d.deviation, 0.3f, 3, 4,
                &hook, y);
            CHECK(memcmp(x, y, sizeof x) == 0);
        }
        data_augmented(&d, which, 9, d.mean, d.deviation, 0.3f, 3, 4, NULL,
            y);
        CHECK(memcmp(x, y, 9 * 768 * sizeof(float)) == 0);
        data_augmented(&d, which, 24, d.mean, d.deviation, 0.3f, 3, 5, NULL,
            y);
        CHECK(memcmp(x, y, 768 * sizeof(float)) != 0);
        data_augmented(&d, which, 24, d.mean, d.deviation, 0.3f, 2, 4, NULL,
            y);
        CHECK(memcmp(x, y, 768 * sizeof(float)) != 0);
    }
    data_close(&d);
}

/* Colours change, values stay within 0 .. 1, the chances are about right.
   On a picture of one colour, jitter changes it, grey makes the channels
   alike, solarisation turns what is bright. */
static void augment_extras(void)
{
    picture p = make_picture(8, 8, 3, flat);
    static float x[1000 * 192];
    static int32_t which[1000];
    data_set d;
    int i, k, same = 0, grey = 0;
    double mean = 0;

    fake_set(&d, &p, 1, 8, 3);
    d.extras = 1;
    data_augmented(&d, which, 1000, nothing, one, 1, 1, 1, NULL, x);
    for (i = 0; i < 1000; i++) {
        const float *at = x + i * 192;
        for (k = 0; k < 192; k++) {
            CHECK(at[k] >= -1e-5f && at[k] <= 1 + 1e-5f);
            NEAR(at[k], at[k / 64 * 64], 1e-4);
        }
        same += fabsf(at[0] * 255 - 40) < 0.01f
            && fabsf(at[64] * 255 - 120) < 0.01f;
        grey += fabsf(at[0] - at[64]) < 1e-4f
            && fabsf(at[0] - at[128]) < 1e-4f;
        mean += (double)at[64] / 1000;
    }
    /* Unchanged: 0.2 without jitter, 0.8 of these not grey. */
    CHECK(same > 120 && same < 200);
    CHECK(grey > 160 && grey < 240);
    NEAR(mean, 120 / 255.0, 0.05);
    free(p.pixels);
}

/* -------------------------------------------------------------- mixing */

/* Image i is filled with i, its target is class i. */
static void fill_batch(float *x, float *t, int count, int pixels, int classes)
{
    int i, k;

    for (i = 0; i < count * pixels; i++) x[i] = (float)(i / pixels);
    for (i = 0; i < count; i++)
        for (k = 0; k < classes; k++)
            t[i * classes + k] = k == i % classes ? 1 : 0;
}

static void mixup(void)
{
    float x[7 * 48], t[7 * 7];
    double share, sum, spread = 0;
    int step, i, k;

    for (step = 0; step < 200; step++) {
        fill_batch(x, t, 7, 48, 7);
        mix_batch(x, t, 7, 3, 4, 7, 0.8f, 0, 1, step);
        share = (double)t[0];
        CHECK(share >= 0 && share <= 1);
        spread += (share - 0.5) * (share - 0.5) / 200;
        for (i = 0; i < 7; i++) {
            sum = 0;
            for (k = 0; k < 7; k++) sum += (double)t[i * 7 + k];
            NEAR(sum, 1, 1e-5);
            NEAR(t[i * 7 + i], i == 3 ? 1 : share, 1e-5);
            for (k = 0; k < 48; k++)
                NEAR(x[i * 48 + k], share * i + (1 - share) * (6 - i), 1e-4);
        }
    }
    /* Beta(a, a) has the variance 1 / (4 (2 a + 1)). */
    NEAR(spread, 1 / (4 * 2.6), 0.02);
}

static void cutmix(void)
{
    static float x[6 * 3 * 100];
    float t[6 * 6];
    double mean = 0;
    int step, i, k, c;

    for (step = 0; step < 300; step++) {
        int own = 0;
        fill_batch(x, t, 6, 300, 6);
        mix_batch(x, t, 6, 3, 10, 6, 0, 1, 2, step);
        for (k = 0; k < 100; k++) own += fabsf(x[k]) < 1e-6f;
        for (i = 0; i < 6; i++) {
            /* The target's share is the part of the image that stayed. */
            NEAR(t[i * 6 + i], own / 100.0, 1e-5);
            NEAR(t[i * 6 + 5 - i], 1 - own / 100.0, 1e-5);
            for (c = 0; c < 3; c++)
                for (k = 0; k < 100; k++) {
                    const float v = x[i * 300 + c * 100 + k];
                    const int mine = fabsf(x[k]) < 1e-6f;
                    NEAR(v, mine ? i : 5 - i, 1e-6);
                }
        }
        mean += own / 300.0;
    }
    /* A box around a point near an edge is cut, so more than half stays. */
    CHECK(mean > 50 && mean < 75);
}

static void mix_choice(void)
{
    float x[4 * 16], y[4 * 16], t[4 * 4], u[4 * 4];
    int step, cut = 0, i;

    fill_batch(x, t, 4, 16, 4);
    memcpy(y, x, sizeof x);
    mix_batch(x, t, 4, 1, 4, 4, 0, 0, 1, 0);
    CHECK(memcmp(x, y, sizeof x) == 0);
    for (step = 0; step < 400; step++) {
        int whole = 1;
        fill_batch(x, t, 4, 16, 4);
        mix_batch(x, t, 4, 1, 4, 4, 0.8f, 1, 1, step);
        for (i = 0; i < 16; i++)
            whole = whole && (fabsf(x[i]) < 1e-6f || fabsf(x[i] - 3) < 1e-6f);
        cut += whole;
    }
    CHECK(cut > 140 && cut < 260);
    /* The same step, the same mix; a tiny alpha is all or nothing. */
    fill_batch(x, t, 4, 16, 4);
    fill_batch(y, u, 4, 16, 4);
    mix_batch(x, t, 4, 1, 4, 4, 0.8f, 1, 1, 7);
    mix_batch(y, u, 4, 1, 4, 4, 0.8f, 1, 1, 7);
    CHECK(memcmp(x, y, sizeof x) == 0 && memcmp(t, u, sizeof t) == 0);
    for (step = 0; step < 20; step++) {
        fill_batch(x, t, 4, 16, 4);
        mix_batch(x, t, 4, 1, 4, 4, 1e-4f, 0, 1, step);
        CHECK(t[0] < 1e-3f || t[0] > 1 - 1e-3f);
    }
}

int main(void)
{
    program_named("test_data");
    if (system("rm -rf " HERE) != 0) return 1;
    folder_make(HERE);
    RUN(pnm_binary);
    RUN(pnm_text);
    RUN(pnm_cut_short);
    RUN(other_formats);
    RUN(cifar);
    RUN(cifar_broken);
    RUN(idx);
    RUN(idx_broken);
    RUN(folder);
    RUN(folder_warnings);
    RUN(folder_of_classes);
    RUN(folder_refusals);
    RUN(lists);
    RUN(shapes);
    RUN(shapes_mean);
    RUN(resample_identity);
    RUN(resample_flat);
    RUN(resample_ramp);
    RUN(resample_shrink);
    RUN(augment_whole);
    RUN(augment_windows);
    RUN(augment_most);
    RUN(augment_repeats);
    RUN(augment_extras);
    RUN(mixup);
    RUN(cutmix);
    RUN(mix_choice);
    return DONE("test_data");
}
