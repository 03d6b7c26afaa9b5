/* test_basics.c: chapter 1. Sizes at the edges of size_t, the text of every
   code, and the sticky error. Holds the implementation, to reach the
   private functions. */
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include "test.h"
#include <limits.h>

/* ---------------------------------------------------------------- sizes */

/* Does a * b fit into size_t? By halves, as in school, without a division:
   independent of how the library decides it. */
static int product_fits(size_t a, size_t b, size_t *out)
{
    const unsigned half = (unsigned)sizeof(size_t) * CHAR_BIT / 2;
    const size_t low = ((size_t)1 << half) - 1;
    const size_t a0 = a & low, a1 = a >> half, b0 = b & low, b1 = b >> half;
    const size_t middle = a1 * b0 + (a0 * b0 >> half);
    const size_t cross = (middle & low) + a0 * b1;
    const size_t high = a1 * b1 + (middle >> half) + (cross >> half);

    *out = a * b;
    return high == 0;
}

/* Zero, small, around each power of two, around the square root of the
   whole range, around its half and its end. */
static size_t edge(int i)
{
    const int bits = (int)sizeof(size_t) * CHAR_BIT;
    const size_t max = (size_t)-1;

    if (i < 3 * bits)
        return ((size_t)1 << (i / 3)) + (size_t)(i % 3) - 1;
    switch (i - 3 * bits) {
    case 0: return max;
    case 1: return max - 1;
    case 2: return max / 2;
    case 3: return max / 3;
    case 4: return max / 3 + 1;
    case 5: return max - 63;
    case 6: return max - 64;
    default: return 10;
    }
}

static void products(void)
{
    const int edges = 3 * (int)sizeof(size_t) * CHAR_BIT + 8;
    int i, j;

    for (i = 0; i < edges; i++)
        for (j = 0; j < edges; j++) {
            const size_t a = edge(i), b = edge(j);
            size_t got = 77, right;
            const int fits = product_fits(a, b, &right);
            CHECK(smask__mul_sizes(a, b, &got) == fits);
            CHECK(got == (fits ? right : 77));
        }
}

static void sums(void)
{
    const int edges = 3 * (int)sizeof(size_t) * CHAR_BIT + 8;
    int i, j;

    for (i = 0; i < edges; i++)
        for (j = 0; j < edges; j++) {
            const size_t a = edge(i), b = edge(j);
            const int fits = a + b >= a;     /* unsigned: wraps or does not */
            size_t got = 77;
            CHECK(smask__add_sizes(a, b, &got) == fits);
            CHECK(got == (fits ? a + b : 77));
        }
}

static float float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static void finite(void)
{
    CHECK(smask__finite(0.0f));
    CHECK(smask__finite(-0.0f));
    CHECK(smask__finite(float_of(1)));               /* smallest           */
    CHECK(smask__finite(float_of(0x7f7fffff)));      /* largest            */
    CHECK(smask__finite(float_of(0xff7fffff)));
    CHECK(!smask__finite(float_of(0x7f800000)));     /* infinity           */
    CHECK(!smask__finite(float_of(0xff800000)));
    CHECK(!smask__finite(float_of(0x7fc00000)));     /* quiet NaN          */
    CHECK(!smask__finite(float_of(0x7f800001)));     /* signalling NaN     */
    CHECK(!smask__finite(float_of(0xffffffff)));
}

/* ----------------------------------------------------------------- text */

#define TEST_TEXT(name, text)                                               \
    CHECK_TEXT(smask_result_text(SMASK_##name), text);                      \
    CHECK(smask_result_text(SMASK_##name)[0] != '\0');

static void texts(void)
{
    char version[32];
    int i, j;

    SMASK_RESULTS(TEST_TEXT)
    CHECK(smask_result_text(SMASK_RESULT_COUNT) != NULL);
    CHECK(smask_result_text((smask_result)(SMASK_RESULT_COUNT + 5)) != NULL);
    for (i = 0; i < SMASK_RESULT_COUNT; i++)         /* all differ         */
        for (j = 0; j < i; j++)
            CHECK(strcmp(smask_result_text((smask_result)i),
                smask_result_text((smask_result)j)) != 0);
    CHECK(SMASK_OK == 0);
    sprintf(version, "%d.%d.%d", SMASK_VERSION_MAJOR, SMASK_VERSION_MINOR,
        SMASK_VERSION_PATCH);
    CHECK_TEXT(SMASK_VERSION, version);
}

/* ---------------------------------------------------------------- error */

typedef struct heard { int times; smask_result code; char text[200]; } heard;

static void listen(void *user, smask_result code, const char *text)
{
    heard *h = (heard *)user;

    h->times++;
    h->code = code;
    strncpy(h->text, text, sizeof h->text - 1);
}

static void first_error_sticks(void)
{
    smask_desc desc;
    smask_ctx c;
    heard h;
    float x[4] = { 0 };

    memset(&desc, 0, sizeof desc);
    memset(&h, 0, sizeof h);
    desc.logger.log = listen;
    desc.logger.user = &h;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(smask_error(&c), SMASK_OK);
    CHECK_TEXT(smask_detail(&c), "");
    CHECK(h.times == 0);

    SAME(smask__fail(&c, SMASK_RANGE, "here", "it broke"), SMASK_RANGE);
    SAME(smask_error(&c), SMASK_RANGE);
    CHECK_TEXT(smask_detail(&c), "here: it broke");
    SAME(h.times, 1);
    SAME(h.code, SMASK_RANGE);
    CHECK(strstr(h.text, "it broke") != NULL);

    /* Later errors: the first cause stays, and the log is not called. */
    smask__fail(&c, SMASK_MEMORY, "there", "it broke, too");
    SAME(smask_error(&c), SMASK_RANGE);
    CHECK_TEXT(smask_detail(&c), "here: it broke");
    SAME(h.times, 1);

    smask_clear(&c);
    SAME(smask_error(&c), SMASK_OK);
    CHECK_TEXT(smask_detail(&c), "");
    SAME(smask_gemm(&c, SMASK_NN, 2, 2, 2, x, 1, x, 2, x, 2, 0), SMASK_ARG);
    SAME(smask_error(&c), SMASK_ARG);
    CHECK(strstr(smask_detail(&c), "gemm") != NULL);
    SAME(h.times, 2);
    SAME(h.code, SMASK_ARG);
    smask_shutdown(&c);
}

/* The detail is cut where its 96 bytes end, and always ends in NUL. */
static void long_detail(void)
{
    char text[300];
    smask_ctx c;
    size_t n;

    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    for (n = 70; n < 120; n++) {
        SAME(smask_setup(&c, NULL), SMASK_OK);
        smask__fail(&c, SMASK_ARG, "where", text + sizeof text - 1 - n);
        CHECK(strlen(smask_detail(&c))
            == (7 + n < sizeof c.detail ? 7 + n : sizeof c.detail - 1));
        SAME(c.desc.seed, 0);                        /* the next field     */
        smask_shutdown(&c);
    }
}

/* The detail has the shapes that do not match. */
static void shapes_are_shown(void)
{
    smask_ctx c;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    CHECK(smask_linear(&c, smask_parameter(&c, 4, 6, 0, 0),
        smask_parameter(&c, 8, 5, 0, 0), NULL) == NULL);
    SAME(smask_error(&c), SMASK_SHAPE);
    CHECK(strstr(smask_detail(&c), "linear") != NULL);
    CHECK(strstr(smask_detail(&c), "8,5") != NULL);
    CHECK(strstr(smask_detail(&c), "4,6") != NULL);
    smask_shutdown(&c);

    /* Large numbers are written out in full. */
    SAME(smask_setup(&c, NULL), SMASK_OK);
    smask_add(&c, smask_input(&c, NULL, 2147483647, 1, 1, 1),
        smask_input(&c, NULL, 1, 2147483646, 1, 1));
    CHECK(smask_error(&c) != SMASK_OK);
    CHECK(strlen(smask_detail(&c)) < sizeof c.detail);
    smask_shutdown(&c);
}

/* smask_setup rejects a unit compiled against another version. */
static void other_version(void)
{
    smask_ctx c;
    float x[1] = { 0 };

    memset(&c, 'x', sizeof c);
    SAME(smask_setup_v(&c, NULL, SMASK__MAGIC ^ 1), SMASK_STATE);
    SAME(smask_error(&c), SMASK_STATE);
    SAME(strlen(smask_detail(&c)), 0);
    CHECK(smask_input(&c, x, 1, 0, 0, 0) == NULL);   /* nothing crashes    */
    smask_shutdown(&c);
    SAME(smask_setup_v(&c, NULL, SMASK__MAGIC), SMASK_OK);
    smask_shutdown(&c);
}

int main(void)
{
    RUN(products);
    RUN(sums);
    RUN(finite);
    RUN(texts);
    RUN(first_error_sticks);
    RUN(long_detail);
    RUN(shapes_are_shown);
    RUN(other_version);
    return DONE("test_basics");
}
