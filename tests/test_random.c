/* test_random.c: chapter 3. The fixed sequence, moments, uniformity. Every
   statistic is of a fixed sequence, so a bound of five standard deviations
   always holds or never does. */
#include "splitmask.h"
#include "test.h"
#include <math.h>

/* The first six numbers of O'Neill's pcg32-demo, with the same seed. */
static void published_sequence(void)
{
    static const uint32_t right[6] = { 0xa15c02b7, 0x7b47f409, 0xba1d3330,
        0x83d2f293, 0xbfa4784b, 0xcbed606e };
    smask_random r;
    int i;

    smask_seed(&r, 42, 54);
    for (i = 0; i < 6; i++) CHECK(smask_next(&r) == right[i]);
}

static void seeds_and_streams(void)
{
    smask_random a, b, saved;
    int i, same_seed = 0, same_stream = 0;

    smask_seed(&a, 7, 1);
    smask_seed(&b, 7, 1);
    for (i = 0; i < 1000; i++) CHECK(smask_next(&a) == smask_next(&b));
    saved = a;                           /* a copy of the struct resumes   */
    for (i = 0; i < 10; i++) smask_next(&a);
    for (i = 0; i < 10; i++) smask_next(&saved);
    CHECK(smask_next(&a) == smask_next(&saved));
    smask_seed(&a, 7, 1);
    smask_seed(&b, 8, 1);
    for (i = 0; i < 1000; i++) same_seed += smask_next(&a) == smask_next(&b);
    smask_seed(&a, 7, 1);
    smask_seed(&b, 7, 2);
    for (i = 0; i < 1000; i++)
        same_stream += smask_next(&a) == smask_next(&b);
    CHECK(same_seed <= 1);
    CHECK(same_stream <= 1);
}

/* Each bit of the output is set half the time. */
static void bits(void)
{
    const int n = 1 << 16;
    smask_random r;
    int i, bit, set[32] = { 0 };

    smask_seed(&r, 1, 0);
    for (i = 0; i < n; i++) {
        const uint32_t x = smask_next(&r);
        for (bit = 0; bit < 32; bit++) set[bit] += (int)(x >> bit & 1);
    }
    for (bit = 0; bit < 32; bit++)
        NEAR(set[bit], n / 2, 5 * sqrt(n / 4.0));
}

/* -------------------------------------------------------------- uniform */

static void uniform(void)
{
    enum { n = 1 << 20, bins = 64 };
    double sum = 0, squares = 0, chi = 0, lag = 0, before = 0.5;
    int i, count[bins] = { 0 };
    smask_random r, same;

    smask_seed(&r, 3, 0);
    same = r;
    for (i = 0; i < n; i++) {
        const float x = smask_uniform(&r);
        CHECK(x >= 0 && x < 1);
        CHECK((float)(smask_next(&same) >> 8) == x * 16777216.0f);
        sum += (double)x;
        squares += (double)x * (double)x;
        lag += ((double)x - 0.5) * (before - 0.5);
        before = (double)x;
        count[(int)(x * bins)]++;
    }
    NEAR(sum / n, 0.5, 5 / sqrt(12.0 * n));
    NEAR(squares / n, 1 / 3.0, 5 * sqrt(4 / 45.0 / n));
    NEAR(lag / n, 0, 5 / 12.0 / sqrt(n));
    for (i = 0; i < bins; i++)
        chi += pow(count[i] - n / (double)bins, 2) / (n / (double)bins);
    NEAR(chi, bins - 1, 5 * sqrt(2.0 * (bins - 1)));
}

/* A state whose next output is all ones, worked out backwards through the
   output function, and the state 0, whose output is 0. */
static smask_random all_ones(void)
{
    smask_random r;
    int i;

    r.state = 0;
    r.stream = 1;
    for (i = 58; i >= 27; i--)           /* s[i] xor s[i + 18] is 1        */
        if (i + 18 > 63 || !(r.state >> (i + 18) & 1))
            r.state |= (uint64_t)1 << i;
    return r;
}

static void extremes(void)
{
    smask_random r = all_ones(), zero;
    float x;

    CHECK(smask_next(&r) == 0xffffffffu);
    r = all_ones();
    x = smask_uniform(&r);
    CHECK(x == 1 - 1 / 16777216.0f);
    r = all_ones();
    x = smask_normal(&r);                /* the largest radius there is    */
    CHECK(x > -5.8f && x < 5.8f);
    zero.state = 0;
    zero.stream = 1;
    CHECK(smask_uniform(&zero) == 0);
    zero.state = 0;
    x = smask_normal(&zero);             /* log of neither 0 nor infinity  */
    CHECK(x > -5.8f && x < 5.8f);
}

/* --------------------------------------------------------------- normal */

static void normal(void)
{
    enum { n = 1 << 20 };
    double power[5] = { 0 }, beyond[5] = { 0 };
    smask_random r, same;
    int i, k;

    smask_seed(&r, 4, 0);
    same = r;
    for (i = 0; i < n; i++) {
        const double x = (double)smask_normal(&r);
        double p = 1;
        for (k = 0; k < 5; k++, p *= x) power[k] += p;
        for (k = 1; k < 5; k++) beyond[k] += fabs(x) > k;
    }
    for (i = 0; i < 2 * n; i++) smask_next(&same);   /* two draws each     */
    CHECK(smask_next(&r) == smask_next(&same));
    NEAR(power[1] / n, 0, 5 * sqrt(1.0 / n));
    NEAR(power[2] / n, 1, 5 * sqrt(2.0 / n));
    NEAR(power[3] / n, 0, 5 * sqrt(15.0 / n));
    NEAR(power[4] / n, 3, 5 * sqrt(96.0 / n));
    for (k = 1; k < 5; k++) {
        const double p = erfc(k / sqrt(2.0));
        NEAR(beyond[k] / n, p, 5 * sqrt(p * (1 - p) / n));
    }
}

/* ---------------------------------------------------------------- below */

static void below(void)
{
    static const uint32_t limits[] = { 1, 2, 3, 5, 6, 7, 64, 100, 1000,
        65536, 0x7fffffffu, 0x80000000u, 0x80000001u, 0xfffffffeu,
        0xffffffffu };
    enum { n = 70000 };
    smask_random r;
    size_t k;
    int i;

    smask_seed(&r, 5, 0);
    for (k = 0; k < sizeof limits / sizeof *limits; k++) {
        const uint32_t m = limits[k];
        double sum = 0;
        for (i = 0; i < n; i++) {
            const uint32_t x = smask_below(&r, m);
            CHECK(x < m);
            sum += x;
        }
        NEAR(sum / n, (m - 1.0) / 2, 5.0 * m / sqrt(12.0 * n));
    }
    for (k = 2; k <= 12; k++) {
        double chi = 0;
        int count[12] = { 0 };
        for (i = 0; i < n; i++) count[smask_below(&r, (uint32_t)k)]++;
        for (i = 0; i < (int)k; i++)
            chi += pow(count[i] - n / (double)k, 2) / (n / (double)k);
        CHECK(chi < (double)k - 1 + 5 * sqrt(2.0 * ((double)k - 1)) + 5);
    }
}

/* With 3 * 2^30 values a plain remainder would give half of all draws to the
   first third of them, a plain product would double every third value. */
static void below_is_unbiased(void)
{
    enum { n = 200000 };
    int i, first = 0, multiple = 0;
    smask_random r;

    smask_seed(&r, 6, 0);
    for (i = 0; i < n; i++) {
        const uint32_t x = smask_below(&r, 0xc0000000u);
        first += x < 0x40000000u;
        multiple += x % 3 == 0;
    }
    NEAR(first / (double)n, 1 / 3.0, 5 * sqrt(2 / 9.0 / n));
    NEAR(multiple / (double)n, 1 / 3.0, 5 * sqrt(2 / 9.0 / n));
}

/* -------------------------------------------------------------- shuffle */

static void shuffle_permutes(void)
{
    int32_t items[102];
    size_t n, i;
    smask_random r;

    smask_seed(&r, 7, 0);
    for (n = 0; n <= 100; n++) {
        char drawn[100] = { 0 };
        for (i = 0; i < 102; i++) items[i] = -7;     /* guards             */
        for (i = 0; i < n; i++) items[i + 1] = (int32_t)i;
        smask_shuffle(&r, items + 1, (int32_t)n);
        CHECK(items[0] == -7 && items[n + 1] == -7);
        for (i = 0; i < n; i++) {
            const int32_t x = items[i + 1];
            CHECK(x >= 0 && x < (int32_t)n);
            if (x >= 0 && x < (int32_t)n) CHECK(!drawn[x]++);
        }
    }
}

/* All 24 orders of four items come up equally often. */
static void shuffle_is_fair(void)
{
    enum { n = 48000 };
    int i, j, k, count[256] = { 0 }, used = 0;
    double chi = 0;
    smask_random r;

    smask_seed(&r, 8, 0);
    for (i = 0; i < n; i++) {
        int32_t items[4] = { 0, 1, 2, 3 };
        smask_shuffle(&r, items, 4);
        for (j = k = 0; j < 4; j++) k = 4 * k + items[j];
        count[k]++;
    }
    for (k = 0; k < 256; k++)
        if (count[k] > 0) {
            used++;
            chi += pow(count[k] - n / 24.0, 2) / (n / 24.0);
        }
    SAME(used, 24);
    NEAR(chi, 23, 5 * sqrt(46.0));
}

/* A context's generator depends on its seed only. */
static void of_a_context(void)
{
    smask_desc desc;
    smask_ctx a, b;
    uint32_t x;

    memset(&desc, 0, sizeof desc);
    desc.seed = 99;
    SAME(smask_setup(&a, &desc), SMASK_OK);
    SAME(smask_setup(&b, &desc), SMASK_OK);
    x = smask_next(&a.random);
    CHECK(x == smask_next(&b.random));
    smask_shutdown(&b);
    desc.seed = 100;
    SAME(smask_setup(&b, &desc), SMASK_OK);
    CHECK(x != smask_next(&b.random));
    smask_shutdown(&b);
    smask_shutdown(&a);
}

int main(void)
{
    RUN(published_sequence);
    RUN(seeds_and_streams);
    RUN(bits);
    RUN(uniform);
    RUN(extremes);
    RUN(normal);
    RUN(below);
    RUN(below_is_unbiased);
    RUN(shuffle_permutes);
    RUN(shuffle_is_fair);
    RUN(of_a_context);
    return DONE("test_random");
}
