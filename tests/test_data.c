/* test_data.c: data sets and augmentation. All files are written here, to
   out/test_data. */
#include "examples/support/data.h"
#include "test.h"
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* What a child may take: MB of memory and seconds; 0: all. */
static unsigned memory_limit, time_limit;

static void set_limits(void)
{
    struct rlimit limit;

    limit.rlim_cur = limit.rlim_max = (rlim_t)memory_limit * 1000000;
    if (memory_limit > 0 && setrlimit(RLIMIT_AS, &limit) != 0) _exit(99);
    alarm(time_limit);
}

/* A sanitizer takes terabytes of addresses and has no use for a limit. */
static int limits_memory(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 0;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) \
    || __has_feature(thread_sanitizer)
    return 0;
#else
    return 1;
#endif
#else
    return 1;
#endif
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
        set_limits();
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

/* 8 x 8 grey pixels of 200. */
static const unsigned char small_jpeg[141] = {
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

/* A BMP through stb_image, where the build found that. */
static void other_formats(void)
{
    unsigned char bmp[54 + 16] = { 'B', 'M', 70, 0, 0, 0, 0, 0, 0, 0, 54, 0,
        0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0, 0, 0, 0, 0,
        16 };
    /* 2 x 2 pixels of 77. */
    static const unsigned char png[71] = {
        0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d,
        0x49, 0x48, 0x44, 0x52, 0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 0,
        0x57, 0xdd, 0x52, 0xf8, 0, 0, 0, 0x0e, 0x49, 0x44, 0x41, 0x54,
        0x78, 0x9c, 0x63, 0xf4, 0x65, 0x60, 0x62, 0x60, 0, 0, 1, 0x93, 0,
        0x51, 0x97, 0x4f, 0x9b, 0x8f, 0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44,
        0xae, 0x42, 0x60, 0x82 };
    unsigned char film[sizeof small_jpeg + 4], bad[sizeof small_jpeg];
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

    put(HERE "/h.jpg", small_jpeg, sizeof small_jpeg);
    CHECK(image_load(HERE "/h.jpg", 3, 2, x, why, sizeof why));
    NEAR(x[0] * 255, 200, 1e-4);
    for (i = 8; i < sizeof small_jpeg; i++) {
        put(HERE "/i.jpg", small_jpeg, i);
        CHECK(!image_load(HERE "/i.jpg", 3, 2, x, why, sizeof why)
            && strstr(why, "cut short") != NULL);
    }
    /* A phone's photo with a film behind it, in which markers occur. */
    memcpy(film, small_jpeg, sizeof small_jpeg);
    memcpy(film + sizeof small_jpeg, "\xff\xda\xff\xd8", 4);
    put(HERE "/i.jpg", film, sizeof film);
    CHECK(image_load(HERE "/i.jpg", 3, 2, x, why, sizeof why));
    /* A table with more codes than there are bytes. */
    memcpy(bad, small_jpeg, sizeof small_jpeg);
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
    size_t i;

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
    /* A head that is cut at every byte; one whose product is 2^64. */
    for (i = 0; i < 16; i++) {
        put(HERE "/idx3/train-images-idx3-ubyte", "\0\0\x8\3\0\0\0\0"
            "\0\0\0\0\0\0\0", i);
        refuses(HERE "/idx3", "not an IDX file");
    }
    put(HERE "/idx3/train-images-idx3-ubyte", "\0\0\x8\3\x80\0\0\0"
        "\x80\0\0\0\0\0\0\4", 16);
    refuses(HERE "/idx3", "damaged");
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

/* -------------------------------------------------------- damaged files */

static const char is_damaged[] = "cannot be decoded: the file is damaged";

/* Is the file refused with a reason that holds `what`? */
static void not_read(const char *path, const char *what)
{
    float x[3 * 16];
    char why[256] = "";

    CHECK(!image_load(path, 3, 4, x, why, sizeof why));
    if (!CHECK(strstr(why, what) != NULL))
        printf("    %s: %s\n", path, why);
}

/* 1 if the build has no stb_image.h. */
static int no_stb(void)
{
    float x[3];
    char why[256] = "";

    put(HERE "/stb.bmp", "BM345678", 8);
    image_load(HERE "/stb.bmp", 3, 1, x, why, sizeof why);
    return strstr(why, "stb_image.h") != NULL;
}

/* A JPEG, 8 x 8 grey pixels of 200, is cut where the frame (C0) and the first
   scan (DA) begin. */
#define JPEG_FRAME 71
#define JPEG_TABLES 84
#define JPEG_SCAN 128

static void put_jpeg(const char *path, const void *before, size_t bytes,
    const unsigned char *jpeg)
{
    unsigned char data[400];

    memcpy(data, before, bytes);
    memcpy(data + bytes, jpeg, sizeof small_jpeg);
    put(path, data, bytes + sizeof small_jpeg);
}

/* Whatever comes before the start, a file that ends early is no picture. */
static void jpeg_fill_bytes(void)
{
    unsigned char data[sizeof small_jpeg + 2];
    float x[3 * 16];
    char why[256];
    size_t i;

    if (no_stb()) return;
    memset(data, 0xff, 2);
    memcpy(data + 2, small_jpeg, sizeof small_jpeg);
    put(HERE "/fill.jpg", data, sizeof data);
    CHECK(image_load(HERE "/fill.jpg", 3, 4, x, why, sizeof why));
    NEAR(x[0] * 255, 200, 1e-4);
    for (i = 10; i < sizeof data; i++) {
        put(HERE "/fill.jpg", data, i);
        not_read(HERE "/fill.jpg", "cut short");
    }
    /* Tables with 3 codes of 255 and with nothing, behind a fill byte. */
    memcpy(data + 2, "\xd8\xff\xc4\0\x16\0\xff\xff\xff", 9);
    put(HERE "/fill.jpg", data, 32);
    not_read(HERE "/fill.jpg", is_damaged);
    put(HERE "/fill.jpg", "\xff\xff\xd8\xff\xc4\0\3\0\xff\x76", 10);
    not_read(HERE "/fill.jpg", is_damaged);
    put(HERE "/fill.jpg", "\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9);
    not_read(HERE "/fill.jpg", is_damaged);
}

/* A table that does not fill its segment, for all lengths; one that lacks its
   last codes; one with as many codes as stb_image cannot count. */
static void jpeg_tables(void)
{
    unsigned char data[400] = { 0xff, 0xd8, 0xff, 0xc4, 0 };
    size_t length;

    if (no_stb()) return;
    memcpy(data + 40, "\xff\xda\0\3\xd9\xff\xd9", 7);
    for (length = 3; length < 19; length++) {
        data[5] = (unsigned char)length;
        memset(data + 6, 0, length - 2);
        memcpy(data + 4 + length, "\xff\xda\0\3\xd9\xff\xd9", 7);
        put(HERE "/dht.jpg", data, 4 + length + 7);
        not_read(HERE "/dht.jpg", is_damaged);
    }
    memcpy(data, small_jpeg, sizeof small_jpeg);
    data[JPEG_TABLES + 5] = 9;           /* nine codes, one there          */
    put(HERE "/dht.jpg", data, sizeof small_jpeg);
    not_read(HERE "/dht.jpg", is_damaged);
    /* 256 codes of 8 bits in a segment of their own, before the rest. */
    memset(data, 0, sizeof data);
    memcpy(data, "\xff\xd8\xff\xc4\1\x13\0\0\0\0\0\0\0\0\xff", 15);
    data[15] = 1;
    memcpy(data + 23 + 256, "\xff\xd9", 2);
    put(HERE "/dht.jpg", data, 23 + 256 + 2);
    not_read(HERE "/dht.jpg", is_damaged);
}

/* A frame that asks for more blocks than the file can hold, colours at 2/3 of
   the size, a second frame, and scans without end. */
static void jpeg_frames(void)
{
    unsigned char data[sizeof small_jpeg + 4000];
    const size_t tail = sizeof small_jpeg - 2 - JPEG_SCAN;
    size_t i, at;

    if (no_stb()) return;
    memcpy(data, small_jpeg, sizeof small_jpeg);
    data[JPEG_FRAME + 6] = data[JPEG_FRAME + 8] = 64;
    put(HERE "/frame.jpg", data, sizeof small_jpeg);
    not_read(HERE "/frame.jpg", "cut short");
    data[JPEG_FRAME + 5] = data[JPEG_FRAME + 7] = 0x40;
    data[JPEG_FRAME + 6] = data[JPEG_FRAME + 8] = 0;
    put(HERE "/frame.jpg", data, sizeof small_jpeg);
    not_read(HERE "/frame.jpg", "16384 x 16384 pixels are too many");
    not_read(HERE "/frame.jpg", "100 million");

    /* Three components: 3 x 3, 2 x 2, 1 x 1. */
    memcpy(data, small_jpeg, JPEG_FRAME);
    memcpy(data + JPEG_FRAME,
        "\xff\xc0\0\x11\x08\0\x08\0\x08\3\1\x33\0\2\x22\0\3\x11\0", 19);
    memcpy(data + JPEG_FRAME + 19, small_jpeg + JPEG_TABLES,
        sizeof small_jpeg - JPEG_TABLES);
    put(HERE "/frame.jpg", data, sizeof small_jpeg + 6);
    not_read(HERE "/frame.jpg", "odd scale");

    put_jpeg(HERE "/frame.jpg", small_jpeg, JPEG_TABLES, small_jpeg);
    not_read(HERE "/frame.jpg", is_damaged);

    memcpy(data, small_jpeg, sizeof small_jpeg - 2);
    at = sizeof small_jpeg - 2;
    for (i = 0; i < 150; i++, at += tail)
        memcpy(data + at, small_jpeg + JPEG_SCAN, tail);
    memcpy(data + at, "\xff\xd9", 2);
    put(HERE "/frame.jpg", data, at + 2);
    not_read(HERE "/frame.jpg", "100 scans");
}

/* A PNG of 8 bits a pixel, its data as it is. */
static void put_png(const char *path, int side, int colour,
    const void *palette, size_t palette_bytes, const void *zlib, size_t bytes)
{
    unsigned char head[33] = { 0x89, 'P', 'N', 'G', 13, 10, 26, 10,
        0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0, 0, 0, 0, 0, 0, 8 };
    unsigned char length[4] = { 0, 0, 0, 0 };
    FILE *file = fopen(path, "wb");
    int i;

    CHECK(file != NULL);
    if (file == NULL) return;
    for (i = 0; i < 4; i++)
        head[16 + i] = head[20 + i] = (unsigned char)(side >> (24 - 8 * i));
    head[25] = (unsigned char)colour;
    fwrite(head, 1, 33, file);
    if (palette_bytes > 0) {
        length[2] = (unsigned char)(palette_bytes >> 8);
        length[3] = (unsigned char)palette_bytes;
        fwrite(length, 1, 4, file);
        fwrite("PLTE", 1, 4, file);
        fwrite(palette, 1, palette_bytes, file);
        fwrite("\0\0\0\0", 1, 4, file);
    }
    for (i = 0; i < 4; i++) length[i] = (unsigned char)(bytes >> (24 - 8 * i));
    fwrite(length, 1, 4, file);
    fwrite("IDAT", 1, 4, file);
    fwrite(zlib, 1, bytes, file);
    fwrite("\0\0\0\0\0\0\0\0IEND\0\0\0\0", 1, 16, file);
    fclose(file);
}

/* Fill the stack with what a later function may find there. */
static int dirty_stack(void)
{
    volatile unsigned char dirt[20000];
    int i, sum = 0;

    for (i = 0; i < 20000; i++) dirt[i] = 0xaa;
    for (i = 0; i < 20000; i++) sum += dirt[i];
    return sum;
}

/* What a palette lacks is black, not what happened to be in memory. */
static void png_palette(void)
{
    static const unsigned char data[] = { 0x78, 1, 1, 6, 0, 0xf9, 0xff, 0, 0,
        77, 0, 255, 1, 0, 0, 0, 0 };
    float x[3 * 4];
    char why[256] = "";

    if (no_stb()) return;
    put_png(HERE "/palette.png", 2, 3, "\x0a\x14\x1e\x28\x32\x3c", 6, data,
        sizeof data);
    CHECK(dirty_stack() > 0);
    CHECK(image_load(HERE "/palette.png", 3, 2, x, why, sizeof why));
    NEAR(x[0] * 255, 10, 1e-4);
    NEAR(x[1], 0, 1e-6);
    NEAR(x[2], 0, 1e-6);
    NEAR(x[3] * 255, 40, 1e-4);
    NEAR(x[8 + 3] * 255, 60, 1e-4);
    NEAR(x[8 + 1], 0, 1e-6);
    put_png(HERE "/palette.png", 2, 3, "1234", 4, data, sizeof data);
    not_read(HERE "/palette.png", is_damaged);
    put_png(HERE "/palette.png", 100000, 0, NULL, 0, data, sizeof data);
    not_read(HERE "/palette.png", "100000 x 100000 pixels are too many");
    put_png(HERE "/palette.png", 12000, 0, NULL, 0, data, sizeof data);
    not_read(HERE "/palette.png", "12000 x 12000 pixels are too many");
}

static void put_bits(unsigned char *to, size_t *at, unsigned bits, int count)
{
    for (; count > 0; count--, bits >>= 1, (*at)++)
        to[*at / 8] = (unsigned char)(to[*at / 8]
            | (bits & 1) << *at % 8);
}

/* 1 x 1 pixel, for which the data unpack to 40 MB: the header says how much
   memory is worth the while. */
static void png_bomb(void)
{
    const size_t space = 300000;
    unsigned char *data = (unsigned char *)calloc(1, space);
    size_t at = 16;
    int i;

    CHECK(data != NULL);
    if (data == NULL || no_stb()) return;
    memcpy(data, "\x78\1", 2);
    put_bits(data, &at, 3, 3);           /* last block, fixed codes        */
    put_bits(data, &at, 0x0c, 8);        /* the literal 0                  */
    for (i = 0; i < 160000; i++) {
        put_bits(data, &at, 0xa3, 8);    /* 258 times                      */
        put_bits(data, &at, 0, 5);       /* the last byte                  */
    }
    put_bits(data, &at, 0, 7);
    put_png(HERE "/bomb.png", 1, 0, NULL, 0, data, at / 8 + 8);
    not_read(HERE "/bomb.png", is_damaged);
    free(data);
}

/* 2 x 2 pixels of 8 bits, a palette of one colour; OS/2's older header. */
static void bmp_palette(void)
{
    unsigned char bmp[66] = { 'B', 'M', 66, 0, 0, 0, 0, 0, 0, 0, 58, 0, 0, 0,
        40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 8, 0 };
    unsigned char old[26 + 16] = { 'B', 'M', 42, 0, 0, 0, 0, 0, 0, 0, 26, 0,
        0, 0, 12, 0, 0, 0, 2, 0, 2, 0, 1, 0, 24, 0, 7, 8, 9 };
    float x[3 * 16];
    char why[256] = "";
    size_t i;

    if (no_stb()) return;
    bmp[54] = 90;
    put(HERE "/palette.bmp", bmp, sizeof bmp);
    CHECK(image_load(HERE "/palette.bmp", 3, 2, x, why, sizeof why));
    NEAR(x[8] * 255, 90, 1e-4);
    bmp[62] = 1;                         /* a colour that is not there     */
    put(HERE "/palette.bmp", bmp, sizeof bmp);
    not_read(HERE "/palette.bmp", is_damaged);
    bmp[62] = 0;
    bmp[10] = 53;                        /* pixels within the header       */
    put(HERE "/palette.bmp", bmp, sizeof bmp);
    not_read(HERE "/palette.bmp", is_damaged);
    put(HERE "/old.bmp", old, sizeof old);
    CHECK(image_load(HERE "/old.bmp", 3, 2, x, why, sizeof why));
    NEAR(x[2] * 255, 9, 1e-4);
    for (i = 8; i < sizeof old; i++) {
        put(HERE "/old.bmp", old, i);
        not_read(HERE "/old.bmp", "cut short");
    }
    memset(bmp + 22, 0, 4);
    bmp[25] = 0x80;                      /* the height that has no opposite */
    put(HERE "/palette.bmp", bmp, sizeof bmp);
    not_read(HERE "/palette.bmp", "2 x 2147483648 pixels are too many");
}

/* What is no image says what it is. */
static void other_kinds(void)
{
    if (no_stb()) return;
    put(HERE "/kind.jpg", "RIFF\1\0\0\0WEBPVP8 ", 16);
    not_read(HERE "/kind.jpg", "WebP");
    put(HERE "/kind.jpg", "GIF89a\1\0\1\0", 10);
    not_read(HERE "/kind.jpg", "GIF");
    put_text(HERE "/kind.jpg", "<!DOCTYPE html>");
    not_read(HERE "/kind.jpg", "HTML");
    put(HERE "/kind.jpg", "\x89PNG\r\n\x1a\0 wrong", 14);
    not_read(HERE "/kind.jpg", "neither");
    put(HERE "/kind.jpg", "P5\n16384 16384\n255\nabc", 21);
    not_read(HERE "/kind.jpg", "16384 x 16384 pixels are too many");
    put(HERE "/kind.jpg", "P5\n99999 1\n255\nabc", 17);
    not_read(HERE "/kind.jpg", "99999 x 1 pixels are too many");
}

/* --------------------------------------------------------------- memory */

/* A file of zeros behind its head, which takes no space on the disk. */
static void put_sparse(const char *path, const char *head, size_t head_bytes,
    long bytes)
{
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL);
    if (file == NULL) return;
    CHECK(fwrite(head, 1, head_bytes, file) == head_bytes);
    fseek(file, bytes - 1, SEEK_SET);
    fputc(0, file);
    fclose(file);
}

/* One file that is too large for memory, and one that no memory is large
   enough for, are skipped by name; the others are read. */
static void file_too_large(void)
{
    char said[4096];

    if (!limits_memory()) return;
    folder_make(HERE "/large");
    put_colour(HERE "/large/a.ppm", 4, 4, 1, 2, 3);
    put_sparse(HERE "/large/b.pgm", "P5\n9900 9900\n255\n", 17,
        98010017);
    put_sparse(HERE "/large/c.pgm", "P5\n9900 9900\n255\n", 17,
        900000000);
    put_sparse(HERE "/large/d.pgm", "P5\n6500 6500\n255\n", 17,
        42250017);
    put_colour(HERE "/large/e.ppm", 4, 4, 1, 2, 3);
    memory_limit = 80;
    SAME(open_fails(HERE "/large", 3, said, sizeof said), 0);
    CHECK(strstr(said, "large/b.pgm: there is no memory for a file of 98 MB; "
        "skipped") != NULL);
    CHECK(strstr(said, "large/c.pgm: a file of 900 MB is not read, at most "
        "801 MB are") != NULL);
    CHECK(strstr(said, "large/d.pgm: there is no memory to decode 6500 x "
        "6500 pixels") != NULL);
    CHECK(strstr(said, "3 of 5 files skipped") != NULL);
    remove(HERE "/large/b.pgm");
    remove(HERE "/large/c.pgm");
    /* The same with a data set in one file: its name is told. */
    folder_make(HERE "/large_set");
    put_sparse(HERE "/large_set/data_batch_1.bin", "", 0, 3073L * 40000);
    refuses(HERE "/large_set", "data_batch_1.bin: there is no memory for a "
        "file of 123 MB");
    folder_make(HERE "/large_idx");
    put_sparse(HERE "/large_idx/train-images-idx3-ubyte",
        "\0\0\x8\3\0\0\x8c\xa0\0\0\0\x1c\0\0\0\x1c", 16,
        16 + 36000L * 784);
    put_sparse(HERE "/large_idx/train-labels-idx1-ubyte",
        "\0\0\x8\1\0\0\x8c\xa0", 8, 8 + 36000L);
    refuses(HERE "/large_idx", "train-images: there is no memory for 85 MB");
    memory_limit = 0;
    SAME(open_fails(HERE "/large", 3, said, sizeof said), 0);
    CHECK(strstr(said, "skipped") == NULL);
}

/* How many decode, and a thread that holds a file while it waits. */
static int decoders, most_decoders;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static void *take_and_give(void *arg)
{
    int i;

    for (i = 0; i < 100; i++) {
        memory_take(4e8, 0);
        memory_take(6e8, 1);
        pthread_mutex_lock(&counting);
        if (++decoders > most_decoders) most_decoders = decoders;
        pthread_mutex_unlock(&counting);
        sched_yield();
        pthread_mutex_lock(&counting);
        decoders--;
        pthread_mutex_unlock(&counting);
        memory_give(4e8, 0);
        memory_give(6e8, 1);
    }
    return arg;
}

/* Decoding that does not fit waits for the others, and always gets on. */
static void decoding_memory(void)
{
    pthread_t thread[4];
    int i;

    alarm(60);
    for (i = 0; i < 4; i++)
        CHECK(pthread_create(&thread[i], NULL, take_and_give, NULL) == 0);
    for (i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    alarm(0);
    SAME(most_decoders, 1);
    /* Three that fit together do not wait. */
    for (i = 0; i < 3; i++) memory_take(3e8, 1);
    for (i = 0; i < 3; i++) memory_give(3e8, 1);
    /* One that never fits is read when nothing else is. */
    memory_take(5e9, 0);
    memory_give(5e9, 0);
}

/* Not opened at all: that would wait for a writer. */
static void no_regular_file(void)
{
    CHECK(mkfifo(HERE "/pipe.ppm", 0600) == 0);
    alarm(20);
    not_read(HERE "/pipe.ppm", "regular file");
    not_read(HERE, "regular file");
    alarm(0);
    unlink(HERE "/pipe.ppm");
}

/* ---------------------------------------------------------------- links */

/* 30 folders, each with an image and two links to the next: a thousand
   million ways through them. */
static void links_that_fan_out(void)
{
    char path[128], to[128], said[2048];
    char **list;
    size_t count = 0, i;
    data_set d;

    for (i = 0; i < 30; i++) {
        snprintf(path, sizeof path, HERE "/fan/k/%02d/a.ppm", (int)i);
        path[strlen(path) - 6] = '\0';
        folder_make(path);
        snprintf(path, sizeof path, HERE "/fan/k/%02d/a.ppm", (int)i);
        put_colour(path, 2, 2, 9, 9, 9);
        snprintf(to, sizeof to, "../%02d", (int)(i + 1) % 30);
        snprintf(path, sizeof path, HERE "/fan/k/%02d/0", (int)i);
        CHECK(symlink(to, path) == 0);
        snprintf(path, sizeof path, HERE "/fan/k/%02d/z", (int)i);
        CHECK(symlink(to, path) == 0);
    }
    time_limit = 20;
    SAME(open_fails(HERE "/fan", 3, said, sizeof said), 0);
    time_limit = 0;
    if (strstr(said, "k 30") == NULL) {
        CHECK(strstr(said, "k 30") != NULL);
        return;
    }
    list = image_list(HERE "/fan", &count);
    SAME(count, 30);
    /* By the path without links. */
    for (i = 0; i < count; i++) {
        snprintf(path, sizeof path, HERE "/fan/k/%02d/a.ppm", (int)i);
        CHECK_TEXT(list[i], path);
    }
    free(list);
    /* A link from class to class gives no image two labels; one to a folder
       elsewhere is followed. */
    folder_make(HERE "/linked/a");
    folder_make(HERE "/linked/b");
    folder_make(HERE "/elsewhere/deep");
    put_colour(HERE "/linked/a/1.ppm", 2, 2, 9, 9, 9);
    put_colour(HERE "/linked/b/1.ppm", 2, 2, 9, 9, 9);
    put_colour(HERE "/elsewhere/deep/1.ppm", 2, 2, 9, 9, 9);
    CHECK(symlink("../b", HERE "/linked/a/b") == 0);
    CHECK(symlink("../../elsewhere", HERE "/linked/b/more") == 0);
    CHECK(symlink("../elsewhere", HERE "/linked/c") == 0);
    open_at(&d, HERE "/linked", 2, 3, 1);
    SAME(d.classes, 3);
    SAME(d.train.count, 3);
    SAME(d.train.label[0], 0);
    SAME(d.train.label[1], 1);
    SAME(d.train.label[2], 2);
    data_close(&d);
}

/* A name that would steer the terminal is told without that. */
static void names_with_codes(void)
{
    char said[2048];

    folder_make(HERE "/codes");
    put_colour(HERE "/codes/a.ppm", 2, 2, 9, 9, 9);
    put_text(HERE "/codes/\033[2J\a.ppm", "P6 nothing");
    SAME(open_fails(HERE "/codes", 3, said, sizeof said), 0);
    CHECK(strstr(said, "codes/?[2J?.ppm: cannot") != NULL);
    CHECK(strchr(said, '\033') == NULL);
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
    RUN(jpeg_fill_bytes);
    RUN(jpeg_tables);
    RUN(jpeg_frames);
    RUN(png_palette);
    RUN(png_bomb);
    RUN(bmp_palette);
    RUN(other_kinds);
    RUN(file_too_large);
    RUN(decoding_memory);
    RUN(no_regular_file);
    RUN(links_that_fan_out);
    RUN(names_with_codes);
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
