/* measure.c: memory, medians, result lines and the peak. See bench.h. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define BENCH_X86
#include <immintrin.h>
#elif defined(__ARM_NEON)
#define BENCH_NEON
#include <arm_neon.h>
#endif

/* --------------------------------------------------------------- values */

void *allocate(size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, bytes ? bytes : 64) != 0)
        fail("no memory for %.0f MB; use a smaller --batch or size",
            (double)bytes / 1e6);
    memset(p, 0, bytes);
    return p;
}

float *random_floats(size_t count, uint64_t seed)
{
    float *x = (float *)allocate(count * sizeof *x);
    smask_random r;
    size_t i;

    smask_seed(&r, seed, 7);
    for (i = 0; i < count; i++) x[i] = 2 * smask_uniform(&r) - 1;
    return x;
}

void must(const smask_ctx *c, smask_result r, const char *doing)
{
    if (r != SMASK_OK)
        fail("%s: %s (%s)", doing, smask_result_text(r),
            smask_detail(c)[0] ? smask_detail(c) : "no detail");
}

/* -------------------------------------------------------------- samples */

void sample_add(samples *s, double value)
{
    s->x[s->count % SAMPLES] = value;
    s->count++;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double sample_median(const samples *s)
{
    samples sorted = *s;
    int count = s->count < SAMPLES ? s->count : SAMPLES;

    if (count == 0) return 0;
    qsort(sorted.x, (size_t)count, sizeof *sorted.x, ascending);
    return 0.5 * (sorted.x[(count - 1) / 2] + sorted.x[count / 2]);
}

void figure(const char *name, double value)
{
    const double size = fabs(value);
    int decimals = 0;

    if (size > 0 && size < 1e5 && floor(size) != size)
        decimals = 5 - (int)floor(log10(size));
    result(name, value, decimals);
}

void figure_of(const char *first, const char *second, double value)
{
    char name[64];

    snprintf(name, sizeof name, "%s_%s", first, second);
    figure(name, value);
}

/* ------------------------------------------------------------- the peak
   Chains of multiply-adds that never wait for one another: enough for two
   units of latency four, few enough for the registers. No chain starts at 1,
   where it would stay, so that a compiler cannot leave it out. */

#define CHAINS8(X, f) X(0, f) X(1, f) X(2, f) X(3, f) X(4, f) X(5, f) \
    X(6, f) X(7, f)
#define CHAINS12(X, f) CHAINS8(X, f) X(8, f) X(9, f) X(10, f) X(11, f)
#define CHAINS16(X, f) CHAINS12(X, f) X(12, f) X(13, f) X(14, f) X(15, f)

#define CHAIN_START(i, set) a##i = set((float)i + 2);
#define CHAIN_STEP(i, multiply_add) a##i = multiply_add(a##i, x, y);
#define CHAIN_SUM(i, add) s = add(s, a##i);

/* A loop over COUNT chains of vectors with WIDTH floats; returns the number
   of operations. */
#define PEAK_LOOP(NAME, WIDTH, COUNT, vector, set, multiply_add, add, first) \
static double NAME(size_t iterations, float *out)                           \
{                                                                           \
    const vector x = set(0.999f), y = set(0.001f);                          \
    vector s = set(0), a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11,    \
        a12, a13, a14, a15;                                                 \
    size_t i;                                                               \
                                                                            \
    CHAINS16(CHAIN_START, set)                                              \
    for (i = 0; i < iterations; i++) { CHAINS##COUNT(CHAIN_STEP,            \
        multiply_add) }                                                     \
    CHAINS16(CHAIN_SUM, add)                                                \
    *out = first(s);                                                        \
    return 2.0 * WIDTH * COUNT * (double)iterations;                        \
}

/* Plain C, for a processor that has none of the others. */
#define PLAIN_SET(value) (value)
#define PLAIN_MULTIPLY_ADD(a, x, y) ((a) * (x) + (y))
#define PLAIN_ADD(a, b) ((a) + (b))
PEAK_LOOP(peak_plain, 1, 8, float, PLAIN_SET, PLAIN_MULTIPLY_ADD, PLAIN_ADD,
    PLAIN_SET)

#ifdef BENCH_X86
__attribute__((target("avx2,fma")))
PEAK_LOOP(peak_avx2, 8, 12, __m256, _mm256_set1_ps, _mm256_fmadd_ps,
    _mm256_add_ps, _mm256_cvtss_f32)
__attribute__((target("avx512f")))
PEAK_LOOP(peak_avx512, 16, 16, __m512, _mm512_set1_ps, _mm512_fmadd_ps,
    _mm512_add_ps, _mm512_cvtss_f32)
#endif
#ifdef BENCH_NEON
#define NEON_MULTIPLY_ADD(a, x, y) vfmaq_f32(y, a, x)
#define NEON_FIRST(a) vgetq_lane_f32(a, 0)
PEAK_LOOP(peak_neon, 4, 16, float32x4_t, vdupq_n_f32, NEON_MULTIPLY_ADD,
    vaddq_f32, NEON_FIRST)
#endif

static const struct { const char *name; peak_loop *run; } loops[] = {
    { "plain", peak_plain },
#ifdef BENCH_X86
    { "avx2", peak_avx2 }, { "avx512", peak_avx512 },
#endif
#ifdef BENCH_NEON
    { "neon", peak_neon },
#endif
};
#define LOOPS ((int)(sizeof loops / sizeof loops[0]))
#define MAX_THREADS 1024             /* of smask_threads_start             */

static int loop_runs_here(int which)
{
#ifdef BENCH_X86
    if (which == 1)
        return __builtin_cpu_supports("avx2")
            && __builtin_cpu_supports("fma");
    if (which == 2) return __builtin_cpu_supports("avx512f");
#else
    (void)which;
#endif
    return 1;
}

typedef struct peak_job {
    peak_loop *run;
    size_t iterations;
    double flops[MAX_THREADS];
    float out[MAX_THREADS];
} peak_job;

static void peak_piece(void *arg, int piece, int worker)
{
    peak_job *j = (peak_job *)arg;

    (void)worker;
    j->flops[piece] = j->run(j->iterations, &j->out[piece]);
}

/* GFLOP/s of all threads. */
static double peak_run(const bench *b, peak_loop *loop, size_t iterations)
{
    static peak_job j;
    double start, seconds, flops = 0;
    int i;

    j.run = loop;
    j.iterations = iterations;
    start = seconds_now();
    b->hook.run(b->hook.user, b->threads, peak_piece, &j);
    seconds = seconds_now() - start;
    for (i = 0; i < b->threads; i++)
        /* always true: the sums are used, so no loop can be left out */
        if (j.out[i] > -1e30f) flops += j.flops[i];
    return 1e-9 * flops / seconds;
}

/* Iterations that take `seconds`. */
static size_t peak_iterations(const bench *b, peak_loop *loop,
    double seconds)
{
    size_t iterations = 1 << 11;
    double start, took;

    do {
        iterations *= 2;
        start = seconds_now();
        peak_run(b, loop, iterations);
        took = seconds_now() - start;
    } while (took < seconds / 2);
    return (size_t)((double)iterations * seconds / took);
}

void peak_choose(bench *b)
{
    double best = 0;
    int i, again;

    for (i = 0; i < LOOPS; i++) {
        size_t iterations;

        if (!loop_runs_here(i)) continue;
        iterations = peak_iterations(b, loops[i].run, 0.004);
        for (again = 0; again < 3; again++) {
            const double speed = peak_run(b, loops[i].run, iterations);

            if (speed <= best) continue;
            best = speed;
            b->peak = loops[i].run;
            b->iterations = iterations;
        }
    }
}

void peak_sample(bench *b)
{
    peak_run(b, b->peak, b->iterations / 4);   /* wakes the threads        */
    sample_add(&b->peaks, peak_run(b, b->peak, b->iterations));
}

double peak_median(const bench *b)
{
    return sample_median(&b->peaks);
}

void run_peak(bench *b)
{
    int i, k;

    for (i = 0; i < LOOPS; i++) {
        samples s;
        size_t iterations;

        if (!loop_runs_here(i)) continue;
        s.count = 0;
        iterations = peak_iterations(b, loops[i].run, 0.02);
        for (k = 0; k < b->o.repeat; k++)
            sample_add(&s, peak_run(b, loops[i].run, iterations));
        figure_of("peak", loops[i].name, sample_median(&s));
    }
    for (i = 0; i < 32; i++) peak_sample(b);
    figure("peak_gflops", peak_median(b));
}
