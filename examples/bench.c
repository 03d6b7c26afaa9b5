/* bench.c: how near the library comes to what this machine can do.

   Every command measures the processor's multiply-add peak in the same run,
   between the samples it is compared with, so that a share of the peak holds
   on a busy machine too. Samples are medians. Lines that start with # are
   tables for people; every other line of output is "name value".

   Built with -DBENCH_CBLAS or -DBENCH_DNNL (tests/bench.sh does) the matrix
   products also run in that library, turn by turn with ours.

   Build   make build/bench          Run   build/bench --help            */
#define SPLITMASK_THREADS
#include "splitmask.h"
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define BENCH_X86
#include <immintrin.h>
#elif defined(__ARM_NEON)
#define BENCH_NEON
#include <arm_neon.h>
#endif
#ifdef BENCH_CBLAS
#include <cblas.h>
#endif
#ifdef BENCH_DNNL
#include <dnnl.h>
#endif

/* -------------------------------------------------------------- failing */

/* One line that names the cause and the fix; 2: asked wrongly, 1: failed. */
static void fail(int code, const char *format, ...)
{
    va_list list;

    fflush(stdout);
    fputs("bench: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(code);
}

/* The library's own words for what went wrong. */
static void must(const smask_ctx *c, smask_result r, const char *doing)
{
    if (r != SMASK_OK)
        fail(1, "%s: %s (%s)", doing, smask_result_text(r),
            smask_detail(c)[0] ? smask_detail(c) : "no detail");
}

/* Zeroed, 64-byte aligned. */
static void *room(size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, bytes ? bytes : 64) != 0)
        fail(1, "no memory for %.0f MB: choose a smaller --batch or size",
            (double)bytes / 1e6);
    memset(p, 0, bytes);
    return p;
}

static float *random_floats(size_t count, uint64_t seed)
{
    float *x = (float *)room(count * sizeof *x);
    smask_random r;
    size_t i;

    smask_seed(&r, seed, 7);
    for (i = 0; i < count; i++) x[i] = 2 * smask_uniform(&r) - 1;
    return x;
}

/* -------------------------------------------------------------- options */

enum { GEMM = 1, ATTENTION = 2, STEP = 4, FORWARD = 8, SCALE = 16,
    TOKENIZER = 32, ADAM = 64, PEAK = 128,
    MODEL = STEP | FORWARD | TOKENIZER | ADAM, ALL = 255 };

typedef struct options {
    int command;
    int m, n, k, trans, suite;
    int method, model, dim, depth, heads;
    int image, patch, batch, vocab, steps;
    int profile, recompute, serve;
    int threads, repeat, isa, seed;
} options;

static const char *const commands[] = { "gemm", "attention", "step",
    "forward", "scale", "tokenizer", "adam", "peak", NULL };
static const char *const trans_names[] = { "NN", "NT", "TN", NULL };
static const char *const suite_names[] = { "none", "vit", NULL };
static const char *const method_names[] = { "splitmask", "beit", NULL };
enum { SPLITMASK, BEIT };
static const char *const model_names[] = { "micro", "tiny", "small", "base",
    NULL };
static const int models[4][3] = { { 128, 6, 4 }, { 192, 12, 3 },
    { 384, 12, 6 }, { 768, 12, 12 } };
#define LANE_NAME(name, text) text,
static const char *const isa_names[] = { SMASK_ISAS(LANE_NAME) NULL };

static const char usage[] =
"Usage: bench COMMAND [options]\n"
"  gemm --m M --n N --k K --trans NN|NT|TN    one matrix product\n"
"  gemm --suite vit      the products of ViT-Tiny, Small and Base training\n"
"  attention             attention forward and backward, N 49 to 196\n"
"  step                  a training step; --profile says where time goes\n"
"  forward               the encoder alone, as in use after training\n"
"  scale                 cost against batch, tokens, width, depth, vocabulary\n"
"  tokenizer             tokens of a batch, and k-means\n"
"  adam                  the optimiser\n"
"  peak                  what the multiply-add units can do\n"
"Model (step, forward, tokenizer, adam)\n"
"  --method splitmask|beit   --model micro|tiny|small|base\n"
"  --dim D --depth L --heads H      instead of the model's\n"
"  --image S  --patch P  --batch B  --vocab V  --steps N (10)\n"
"  --recompute           blocks run again in backward: time for memory\n"
"  --profile             time, GFLOP/s and GB/s of each op (step)\n"
"  --serve               one sample for each line read (step, forward)\n"
"All\n"
"  --threads N (0: all)  --seed N (1)  --repeat N (7)\n"
"  --isa auto|scalar|vector4|avx2|avx512|bf16\n";

static int find_name(const char *const *names, const char *text)
{
    int i;

    for (i = 0; names[i]; i++)
        if (strcmp(names[i], text) == 0) return i;
    return -1;
}

static int read_number(const char *name, const char *text, int low, int high)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < low || value > high)
        fail(2, "%s takes a whole number from %d to %d, not '%s'", name, low,
            high, text);
    return (int)value;
}

static int read_name(const char *name, const char *text,
    const char *const *names)
{
    char list[128] = "";
    int i = find_name(names, text);

    if (i >= 0) return i;
    for (i = 0; names[i]; i++) {
        if (i) strcat(list, ", ");
        strcat(list, names[i]);
    }
    fail(2, "%s takes one of %s, not '%s'", name, list, text);
    return 0;
}

static void check_model(const options *o)
{
    if (o->image % o->patch)
        fail(2, "--image %d is no multiple of --patch %d: choose sides that "
            "divide", o->image, o->patch);
    if (o->image / o->patch < 2)
        fail(2, "--image %d holds too few patches of %d: at least two a side",
            o->image, o->patch);
    if (o->dim % o->heads)
        fail(2, "--dim %d is no multiple of --heads %d: choose heads that "
            "divide it", o->dim, o->heads);
    if (o->patch % 2 && o->patch >= 16)
        fail(2, "--patch %d is odd, but from 16 on tokens are read at half "
            "the resolution: choose an even one", o->patch);
}

/* What a table row fills: a number in low .. high, one of `names`, or (with
   neither) a switch. `for_command`: the commands it has a meaning for. */
typedef struct option {
    const char *name;
    int *value;
    int low, high;
    const char *const *names;
    int for_command;
} option;

static void read_options(options *o, int count, char **arg)
{
    const option table[] = {
        { "--m", &o->m, 1, 1 << 20, NULL, GEMM },
        { "--n", &o->n, 1, 1 << 20, NULL, GEMM },
        { "--k", &o->k, 1, 1 << 20, NULL, GEMM },
        { "--trans", &o->trans, 0, 0, trans_names, GEMM },
        { "--suite", &o->suite, 0, 0, suite_names, GEMM },
        { "--method", &o->method, 0, 0, method_names,
            STEP | TOKENIZER | SCALE | ADAM },
        { "--model", &o->model, 0, 0, model_names, MODEL },
        { "--dim", &o->dim, 8, 8192, NULL, MODEL },
        { "--depth", &o->depth, 1, 128, NULL, MODEL },
        { "--heads", &o->heads, 1, 128, NULL, MODEL },
        { "--image", &o->image, 4, 4096, NULL, MODEL },
        { "--patch", &o->patch, 1, 512, NULL, MODEL },
        { "--batch", &o->batch, 1, 65536, NULL, MODEL | ATTENTION },
        { "--vocab", &o->vocab, 2, 1 << 20, NULL, STEP | TOKENIZER | ADAM },
        { "--steps", &o->steps, 1, 1000000, NULL, STEP | FORWARD | SCALE
            | TOKENIZER },
        { "--profile", &o->profile, 0, 0, NULL, STEP },
        { "--recompute", &o->recompute, 0, 0, NULL, STEP | SCALE },
        { "--serve", &o->serve, 0, 0, NULL, STEP | FORWARD },
        { "--threads", &o->threads, 0, 1024, NULL, ALL },
        { "--seed", &o->seed, 0, INT_MAX, NULL, ALL },
        { "--repeat", &o->repeat, 1, 1000, NULL, ALL },
        { "--isa", &o->isa, 0, 0, isa_names, ALL },
        { "--lanes", &o->isa, 0, 0, isa_names, ALL }     /* its old name   */
    };
    const size_t rows = sizeof table / sizeof table[0];
    size_t r;
    int i, which;

    if (count < 2)
        fail(2, "say what to measure: gemm, attention, step, forward, scale, "
            "tokenizer, adam or peak; --help tells more");
    for (i = 1; i < count; i++)
        if (strcmp(arg[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
    which = find_name(commands, arg[1]);
    if (which < 0)
        fail(2, "there is no command '%s': use gemm, attention, step, "
            "forward, scale, tokenizer, adam or peak", arg[1]);
    memset(o, 0, sizeof *o);
    o->command = 1 << which;
    o->trans = -1;
    o->method = SPLITMASK;
    o->model = o->command == FORWARD ? 1 : 0;
    o->steps = 10;
    o->repeat = 7;
    o->seed = 1;
    for (i = 2; i < count; i++) {
        for (r = 0; r < rows; r++)
            if (strcmp(table[r].name, arg[i]) == 0) break;
        if (r == rows)
            fail(2, "there is no option '%s'; --help lists them", arg[i]);
        if (!(table[r].for_command & o->command))
            fail(2, "%s has no meaning for '%s'; --help lists what has",
                arg[i], arg[1]);
        if (table[r].names == NULL && table[r].high == 0) {
            *table[r].value = 1;
            continue;
        }
        if (i + 1 == count) fail(2, "%s needs a value after it", arg[i]);
        if (table[r].names)
            *table[r].value = read_name(arg[i], arg[i + 1], table[r].names);
        else
            *table[r].value = read_number(arg[i], arg[i + 1], table[r].low,
                table[r].high);
        i++;
    }
    if (o->dim == 0) o->dim = models[o->model][0];
    else if (o->heads == 0) o->heads = o->dim / 64 ? o->dim / 64 : 1;
    if (o->depth == 0) o->depth = models[o->model][1];
    if (o->heads == 0) o->heads = models[o->model][2];
    if (o->image == 0)
        o->image = o->command == FORWARD || o->model >= 2 ? 224 : 32;
    if (o->patch == 0) o->patch = o->image >= 128 ? 16 : 4;
    if (o->batch == 0 && o->command != ATTENTION)
        o->batch = o->command == FORWARD ? 1 : o->image >= 128 ? 8
            : o->model == 0 ? 128 : 64;
    if (o->vocab == 0) o->vocab = o->model == 0 ? 1024 : 8192;
    if (o->command & MODEL) check_model(o);
    if (o->command == GEMM && !o->suite
            && (!o->m || !o->n || !o->k || o->trans < 0))
        fail(2, "gemm needs --m, --n, --k and --trans, or --suite vit");
}

/* ---------------------------------------------------------------- clock */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Let the idle threads of another library's pool stop spinning: on a core
   that a spinning thread holds, the next runner would work alone. */
static void rest(void)
{
    struct timespec t = { 0, 15000000 };

    nanosleep(&t, NULL);
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *x, int count)
{
    if (count == 0) return 0;
    qsort(x, (size_t)count, sizeof *x, rising);
    return count % 2 ? x[count / 2]
        : 0.5 * (x[count / 2 - 1] + x[count / 2]);
}

static double peak_memory_mb(void)
{
    struct rusage use;

    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
#ifdef __APPLE__
    return (double)use.ru_maxrss / 1e6;
#else
    return (double)use.ru_maxrss * 1024 / 1e6;
#endif
}

static void result(const char *name, double value)
{
    printf("%-24s %.6g\n", name, value);
    fflush(stdout);
}

/* ------------------------------------------------------------- the peak
   Sixteen chains of multiply-adds that never wait for one another: enough
   for two units of latency four, few enough for sixteen registers. None
   starts at 1, which stays what it is, so that a compiler leaves it out. */

#define CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define MORE_CHAINS(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

typedef double peak_fn(size_t turns, float *out);

/* Plain C, for a processor that none of the rest knows. */
static double peak_plain(size_t turns, float *out)
{
#define START(i) float a##i = (float)i + 2;
#define TURN(i) a##i = a##i * 0.999f + 0.001f;
#define SUM(i) + a##i
    size_t t;
    CHAINS(START)

    for (t = 0; t < turns; t++) { CHAINS(TURN) }
    *out = 0 CHAINS(SUM);
    return 2.0 * 8 * (double)turns;
#undef START
#undef TURN
#undef SUM
}

#ifdef BENCH_X86
__attribute__((target("avx2,fma")))
static double peak_avx2(size_t turns, float *out)
{
#define START(i) __m256 a##i = _mm256_set1_ps((float)i + 2);
#define TURN(i) a##i = _mm256_fmadd_ps(a##i, x, y);
#define SUM(i) s = _mm256_add_ps(s, a##i);
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
    __m256 s = _mm256_setzero_ps();
    size_t t;
    CHAINS(START)
    START(8) START(9) START(10) START(11)

    for (t = 0; t < turns; t++) {
        CHAINS(TURN)
        TURN(8) TURN(9) TURN(10) TURN(11)
    }
    CHAINS(SUM)
    SUM(8) SUM(9) SUM(10) SUM(11)
    *out = _mm256_cvtss_f32(s);
    return 2.0 * 8 * 12 * (double)turns;
#undef START
#undef TURN
#undef SUM
}

__attribute__((target("avx512f")))
static double peak_avx512(size_t turns, float *out)
{
#define START(i) __m512 a##i = _mm512_set1_ps((float)i + 2);
#define TURN(i) a##i = _mm512_fmadd_ps(a##i, x, y);
#define SUM(i) s = _mm512_add_ps(s, a##i);
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
    __m512 s = _mm512_setzero_ps();
    size_t t;
    CHAINS(START)
    MORE_CHAINS(START)

    for (t = 0; t < turns; t++) { CHAINS(TURN) MORE_CHAINS(TURN) }
    CHAINS(SUM)
    MORE_CHAINS(SUM)
    *out = _mm512_cvtss_f32(s);
    return 2.0 * 16 * 16 * (double)turns;
#undef START
#undef TURN
#undef SUM
}
#endif

#ifdef BENCH_NEON
static double peak_neon(size_t turns, float *out)
{
#define START(i) float32x4_t a##i = vdupq_n_f32((float)i + 2);
#define TURN(i) a##i = vfmaq_f32(y, a##i, x);
#define SUM(i) s = vaddq_f32(s, a##i);
    const float32x4_t x = vdupq_n_f32(0.999f), y = vdupq_n_f32(0.001f);
    float32x4_t s = vdupq_n_f32(0);
    size_t t;
    CHAINS(START)
    MORE_CHAINS(START)

    for (t = 0; t < turns; t++) { CHAINS(TURN) MORE_CHAINS(TURN) }
    CHAINS(SUM)
    MORE_CHAINS(SUM)
    *out = vgetq_lane_f32(s, 0);
    return 2.0 * 4 * 16 * (double)turns;
#undef START
#undef TURN
#undef SUM
}
#endif

static const struct { const char *name; peak_fn *run; } peak_kinds[] = {
    { "plain", peak_plain },
#ifdef BENCH_X86
    { "avx2", peak_avx2 }, { "avx512", peak_avx512 },
#endif
#ifdef BENCH_NEON
    { "neon", peak_neon },
#endif
};
#define PEAK_KINDS ((int)(sizeof peak_kinds / sizeof peak_kinds[0]))

static int peak_has(int kind)
{
#ifdef BENCH_X86
    if (kind == 1)
        return __builtin_cpu_supports("avx2")
            && __builtin_cpu_supports("fma");
    if (kind == 2) return __builtin_cpu_supports("avx512f");
#else
    (void)kind;
#endif
    return 1;
}

/* ----------------------------------------------------------- the bench */

#define PEAK_SAMPLES 2048
#define MOST_THREADS 1024

typedef struct bench {
    options o;
    smask_threads pool;
    smask_parallel hook;             /* run == NULL: this thread alone     */
    int threads;
    peak_fn *peak;                   /* the fastest loop found here        */
    size_t peak_turns;               /* of one sample: a few milliseconds  */
    double peaks[PEAK_SAMPLES];      /* GFLOP/s of all threads together    */
    int peak_count;
} bench;

typedef struct peak_job {
    peak_fn *run;
    size_t turns;
    double flops[MOST_THREADS];
    float out[MOST_THREADS];
} peak_job;

static void peak_piece(void *arg, int piece, int worker)
{
    peak_job *j = (peak_job *)arg;

    (void)worker;
    j->flops[piece] = j->run(j->turns, &j->out[piece]);
}

static double peak_run(bench *b, peak_fn *fn, size_t turns)
{
    static peak_job j;
    double start, flops = 0;
    int i;

    j.run = fn;
    j.turns = turns;
    start = now();
    if (b->hook.run)
        b->hook.run(b->hook.user, b->threads, peak_piece, &j);
    else
        peak_piece(&j, 0, 0);
    start = now() - start;
    for (i = 0; i < b->threads; i++)
        /* never so: the sums are used, so the loops cannot be left out */
        flops += j.out[i] < -1e30f ? 0 : j.flops[i];
    return 1e-9 * flops / start;
}

/* One more sample of the peak, kept for peak_median. */
static void peak_sample(bench *b)
{
    double g;

    peak_run(b, b->peak, b->peak_turns / 4);   /* wakes the threads        */
    g = peak_run(b, b->peak, b->peak_turns);
    if (b->peak_count < PEAK_SAMPLES) b->peaks[b->peak_count++] = g;
}

static double peak_median(bench *b)
{
    return median(b->peaks, b->peak_count);
}

/* Turns that take `seconds` with this loop. */
static size_t peak_turns_for(bench *b, peak_fn *fn, double seconds)
{
    size_t turns = 1 << 12;
    double start, took;

    for (;;) {
        start = now();
        peak_run(b, fn, turns);
        took = now() - start;
        if (took > seconds / 2) break;
        turns *= 2;
    }
    return (size_t)((double)turns * seconds / took);
}

static void peak_choose(bench *b)
{
    double best = 0, g;
    size_t turns;
    int i, again;

    for (i = 0; i < PEAK_KINDS; i++) {
        if (!peak_has(i)) continue;
        turns = peak_turns_for(b, peak_kinds[i].run, 0.004);
        for (again = 0; again < 3; again++) {
            g = peak_run(b, peak_kinds[i].run, turns);
            if (g > best) {
                best = g;
                b->peak = peak_kinds[i].run;
                b->peak_turns = turns;
            }
        }
    }
}

/* Which vector code will run; exit 2 if it cannot. */
static void check_isa(const bench *b)
{
    smask_ctx c;
    smask_desc d;

    memset(&c, 0, sizeof c);
    memset(&d, 0, sizeof d);
    d.memory_size = 1 << 16;
    d.isa = (smask_isa)b->o.isa;
    if (smask_setup(&c, &d) != SMASK_OK)
        fail(2, "--isa %s is not to be had on this processor or in this "
            "build: use auto", isa_names[b->o.isa]);
    printf("# splitmask %s, isa %s, %d thread%s\n", SMASK_VERSION,
        smask_isa_text(&c), b->threads, b->threads == 1 ? "" : "s");
    smask_shutdown(&c);
}

static void bench_open(bench *b)
{
    b->threads = b->o.threads;
    if (b->threads != 1) {
        smask_result r = smask_threads_start(&b->pool, b->o.threads);

        if (r != SMASK_OK)
            fail(1, "cannot start %d threads: %s; try --threads 1",
                b->o.threads, smask_result_text(r));
        b->threads = b->pool.workers;
        b->hook = smask_threads_hook(&b->pool);
    }
    if (b->threads > MOST_THREADS)
        fail(2, "more than %d threads: set --threads", MOST_THREADS);
    check_isa(b);
    peak_choose(b);
}

static void bench_close(bench *b)
{
    if (b->hook.run) smask_threads_stop(&b->pool);
}

/* A context with exactly the memory that a dry run of `fn` asks for. */
static void context_open(bench *b, smask_ctx *c, int inference,
    smask_result (*fn)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes)
{
    smask_desc d;
    smask_result r;

    memset(&d, 0, sizeof d);
    d.parallel = b->hook;
    d.seed = (uint64_t)b->o.seed;
    d.isa = (smask_isa)b->o.isa;
    d.inference = inference;
    memset(c, 0, sizeof *c);
    d.memory_size = (size_t)64 << 20;
    r = smask_plan(&d, fn, user, sizes);
    if (r != SMASK_OK) fail(1, "planning memory: %s", smask_result_text(r));
    d.memory_size = sizes->bytes;
    r = smask_setup(c, &d);
    if (r != SMASK_OK)
        fail(1, "no memory for %.0f MB: choose a smaller --batch or model",
            (double)sizes->bytes / 1e6);
}

/* ------------------------------------------------------- matrix products */

typedef struct product {
    smask_trans trans;
    size_t m, n, k, lda, ldb;
    float *a, *b, *out;
} product;

static product product_make(smask_trans trans, size_t m, size_t n, size_t k,
    uint64_t seed)
{
    product p;

    p.trans = trans;
    p.m = m;
    p.n = n;
    p.k = k;
    p.lda = trans == SMASK_TN ? m : k;
    p.ldb = trans == SMASK_NT ? k : n;
    p.a = random_floats(m * k, seed);
    p.b = random_floats(k * n, seed + 1);
    p.out = (float *)room(m * n * sizeof(float));
    return p;
}

static void product_free(product *p)
{
    free(p->a);
    free(p->b);
    free(p->out);
}

static double product_flops(const product *p)
{
    return 2.0 * (double)p->m * (double)p->n * (double)p->k;
}

static void product_run(smask_ctx *c, const product *p)
{
    smask_begin_step(c);
    smask_gemm(c, p->trans, p->m, p->n, p->k, p->a, p->lda, p->b, p->ldb,
        p->out, p->n, 0);
    smask_end_step(c);
}

static smask_result product_plan(smask_ctx *c, void *user)
{
    product_run(c, (const product *)user);
    return smask_error(c);
}

/* Some entries against double arithmetic: speed of a wrong answer is none. */
static void product_check(const product *p, const char *who, double within)
{
    smask_random r;
    size_t t, i, j, l;

    smask_seed(&r, 3, 3);
    for (t = 0; t < 64; t++) {
        double sum = 0, size = 0, x;

        i = smask_below(&r, (uint32_t)p->m);
        j = smask_below(&r, (uint32_t)p->n);
        for (l = 0; l < p->k; l++) {
            x = (double)p->a[p->trans == SMASK_TN ? l * p->lda + i
                : i * p->lda + l]
                * p->b[p->trans == SMASK_NT ? j * p->ldb + l
                : l * p->ldb + j];
            sum += x;
            size += fabs(x);
        }
        x = p->out[i * p->n + j];
        if (!(fabs(x - sum) <= within * size))
            fail(1, "%s: %s product %zu x %zu x %zu is wrong at (%zu,%zu): "
                "%g instead of %g", who, trans_names[p->trans], p->m, p->n,
                p->k, i, j, x, sum);
    }
}

/* Other libraries' products, where this program was built with them. */
typedef struct peer {
    const char *name, *ratio;        /* of the result lines                */
    const char *title;
    void (*run)(const product *p);
    void (*describe)(int threads);
} peer;

#ifdef BENCH_CBLAS
static void cblas_run(const product *p)
{
    cblas_sgemm(CblasRowMajor,
        p->trans == SMASK_TN ? CblasTrans : CblasNoTrans,
        p->trans == SMASK_NT ? CblasTrans : CblasNoTrans,
        (int)p->m, (int)p->n, (int)p->k, 1, p->a, (int)p->lda, p->b,
        (int)p->ldb, 0, p->out, (int)p->n);
}

static void cblas_describe(int threads)
{
#ifdef BENCH_OPENBLAS
    const char *const kinds[] = { "one thread only", "pthreads", "OpenMP" };
    int kind = openblas_get_parallel();

    openblas_set_num_threads(threads);
    printf("# cblas: %s; core %s; %s; %d of %d threads\n",
        openblas_get_config(), openblas_get_corename(),
        kind >= 0 && kind <= 2 ? kinds[kind] : "unknown threading",
        openblas_get_num_threads(), threads);
    if (openblas_get_num_threads() != threads)
        fail(2, "OpenBLAS runs %d threads instead of %d: set "
            "OPENBLAS_NUM_THREADS", openblas_get_num_threads(), threads);
#else
    printf("# cblas: unknown library, told nothing about %d threads\n",
        threads);
#endif
}
#endif

#ifdef BENCH_DNNL
static void dnnl_run(const product *p)
{
    dnnl_sgemm(p->trans == SMASK_TN ? 'T' : 'N',
        p->trans == SMASK_NT ? 'T' : 'N', (dnnl_dim_t)p->m,
        (dnnl_dim_t)p->n, (dnnl_dim_t)p->k, 1, p->a, (dnnl_dim_t)p->lda,
        p->b, (dnnl_dim_t)p->ldb, 0, p->out, (dnnl_dim_t)p->n);
}

static void dnnl_describe(int threads)
{
    const dnnl_version_t *v = dnnl_version();
    const char *told = getenv("OMP_NUM_THREADS");

    printf("# dnnl: oneDNN %d.%d.%d, instruction set 0x%x, "
        "OMP_NUM_THREADS=%s\n", v->major, v->minor, v->patch,
        (unsigned)dnnl_get_effective_cpu_isa(), told ? told : "(not set)");
    if (told == NULL || atoi(told) != threads)
        fail(2, "oneDNN takes its threads from the environment: set "
            "OMP_NUM_THREADS=%d", threads);
}
#endif

static const peer peers[] = {
#ifdef BENCH_CBLAS
    { "gflops_cblas", "ratio", "cblas", cblas_run, cblas_describe },
#endif
#ifdef BENCH_DNNL
    { "gflops_dnnl", "ratio_dnnl", "dnnl", dnnl_run, dnnl_describe },
#endif
    { NULL, NULL, NULL, NULL, NULL }
};
#define PEERS ((int)(sizeof peers / sizeof peers[0]) - 1)
#define RUNNERS (PEERS + 1)

static void runner_run(int who, smask_ctx *c, const product *p)
{
    if (who == 0)
        product_run(c, p);
    else
        peers[who - 1].run(p);
}

/* Seconds of one product: of as many in a row as fill 20 ms, after one that
   wakes the threads and warms the caches. */
static double product_sample(const bench *b, int who, smask_ctx *c,
    const product *p)
{
    double start, took;
    int turns = 0;

    if (RUNNERS > 1 && b->threads > 1) rest();
    runner_run(who, c, p);
    start = now();
    do {
        runner_run(who, c, p);
        turns++;
        took = now() - start;
    } while (took < 0.02);
    return took / turns;
}

/* GFLOP/s of ours and of each peer, in turns; the order changes every round
   so that none always follows the same one. */
static void product_measure(bench *b, product *p, double *gflops)
{
    double *time = (double *)room(sizeof(double) * (size_t)RUNNERS
        * (size_t)b->o.repeat);
    smask_ctx c;
    smask_sizes sizes;
    int round, i, who;

    context_open(b, &c, 1, product_plan, p, &sizes);
    for (who = 0; who < RUNNERS; who++) {
        runner_run(who, &c, p);
        must(&c, smask_error(&c), "gemm");
        product_check(p, who ? peers[who - 1].title : "splitmask",
            !who && b->o.isa == SMASK_ISA_BF16 ? 4e-3 : 1e-5);
    }
    for (round = 0; round < b->o.repeat; round++) {
        for (i = 0; i < RUNNERS; i++) {
            who = (i + round) % RUNNERS;
            time[who * b->o.repeat + round] = product_sample(b, who,
                &c, p);
        }
        if (RUNNERS > 1 && b->threads > 1) rest();
        peak_sample(b);
    }
    for (who = 0; who < RUNNERS; who++)
        gflops[who] = 1e-9 * product_flops(p)
            / median(time + who * b->o.repeat, b->o.repeat);
    must(&c, smask_error(&c), "gemm");
    smask_shutdown(&c);
    free(time);
}

/* Linear layers of a training step with rows = images x tokens. Forward is
   NT (rows,out,in), the gradient of x NN (rows,in,out), of w TN
   (out,in,rows). */
static const struct layer { const char *name; int rows, in, out; } layers[] =
{
    { "tiny_qkv", 4096, 192, 576 }, { "tiny_out", 4096, 192, 192 },
    { "tiny_up", 8192, 192, 768 }, { "tiny_down", 8192, 768, 192 },
    { "tiny_head", 4096, 192, 8192 },
    { "small_qkv", 1568, 384, 1152 }, { "small_out", 1568, 384, 384 },
    { "small_up", 3136, 384, 1536 }, { "small_down", 3136, 1536, 384 },
    { "small_head", 1568, 384, 8192 },
    { "base_qkv", 784, 768, 2304 }, { "base_out", 784, 768, 768 },
    { "base_up", 784, 768, 3072 }, { "base_down", 784, 3072, 768 },
    { "base_head", 784, 768, 8192 }
};
#define LAYERS ((int)(sizeof layers / sizeof layers[0]))

static product layer_product(const struct layer *l, int trans, uint64_t seed)
{
    size_t R = (size_t)l->rows, in = (size_t)l->in, out = (size_t)l->out;

    if (trans == SMASK_NT) return product_make(SMASK_NT, R, out, in, seed);
    if (trans == SMASK_NN) return product_make(SMASK_NN, R, in, out, seed);
    return product_make(SMASK_TN, out, in, R, seed);
}

static void suite_line(const char *name, const product *p, double peak,
    const double *gflops)
{
    int who;

    printf("# %-11s %s %5zu %5zu %5zu %8.1f %6.1f%%", name,
        trans_names[p->trans], p->m, p->n, p->k, gflops[0],
        100 * gflops[0] / peak);
    for (who = 1; who < RUNNERS; who++)
        printf(" %8.1f %6.3f", gflops[who], gflops[0] / gflops[who]);
    printf("\n");
    fflush(stdout);
}

/* Sums of logarithms and the least of the ratios, for the last lines. */
typedef struct suite_sums {
    double ours[3], theirs[2][3], least[2];
    int count[3];
} suite_sums;

static void suite_results(bench *b, const suite_sums *s)
{
    const double peak = peak_median(b);
    double all = 0, other, value;
    int i, who, count = 0;
    char name[64];

    for (i = 0; i < 3; i++) {
        value = exp(s->ours[i] / s->count[i]);
        sprintf(name, "gflops_%s", trans_names[i]);
        result(name, value);
        sprintf(name, "peak_share_%s", trans_names[i]);
        result(name, value / peak);
        all += s->ours[i];
        count += s->count[i];
    }
    result("gflops", exp(all / count));
    result("peak_gflops", peak);
    for (who = 0; who < PEERS; who++) {
        for (i = 0, other = 0; i < 3; i++) {
            other += s->theirs[who][i];
            sprintf(name, "%s_%s", peers[who].ratio, trans_names[i]);
            result(name, exp((s->ours[i] - s->theirs[who][i])
                / s->count[i]));
        }
        result(peers[who].name, exp(other / count));
        result(peers[who].ratio, exp((all - other) / count));
        sprintf(name, "%s_min", peers[who].ratio);
        result(name, s->least[who]);
    }
}

static void run_suite(bench *b)
{
    suite_sums s;
    double gflops[RUNNERS];
    int l, t, who;

    memset(&s, 0, sizeof s);
    for (who = 0; who < 2; who++) s.least[who] = 1e9;
    printf("# layer       op     m     n     k   GFLOP/s   peak");
    for (who = 0; who < PEERS; who++)
        printf("   %6s  ratio", peers[who].title);
    printf("\n");
    for (l = 0; l < LAYERS; l++)
        for (t = 0; t < 3; t++) {
            product p = layer_product(&layers[l], t, (uint64_t)b->o.seed);

            product_measure(b, &p, gflops);
            suite_line(layers[l].name, &p, peak_median(b), gflops);
            s.ours[t] += log(gflops[0]);
            s.count[t]++;
            for (who = 0; who < PEERS; who++) {
                s.theirs[who][t] += log(gflops[who + 1]);
                if (gflops[0] / gflops[who + 1] < s.least[who])
                    s.least[who] = gflops[0] / gflops[who + 1];
            }
            product_free(&p);
        }
    suite_results(b, &s);
}

static void run_gemm(bench *b)
{
    double gflops[RUNNERS], peak;
    product p;
    int who;

    for (who = 0; who < PEERS; who++) peers[who].describe(b->threads);
    if (b->o.suite) {
        run_suite(b);
        return;
    }
    p = product_make((smask_trans)b->o.trans, (size_t)b->o.m,
        (size_t)b->o.n, (size_t)b->o.k, (uint64_t)b->o.seed);
    product_measure(b, &p, gflops);
    peak = peak_median(b);
    result("gflops", gflops[0]);
    result("ms", 1e-6 * product_flops(&p) / gflops[0]);
    result("peak_gflops", peak);
    result("peak_share", gflops[0] / peak);
    for (who = 0; who < PEERS; who++) {
        result(peers[who].name, gflops[who + 1]);
        result(peers[who].ratio, gflops[0] / gflops[who + 1]);
    }
    product_free(&p);
}

/* ------------------------------------------------ one op on its own
   source -> op -> sink -> backward. The source gives random values, the sink
   a random gradient; what they cost is measured without the op and taken
   off. */

typedef struct probe probe;
struct probe {
    const char *name;
    int B, N, columns;               /* of what goes in                    */
    int out_B, out_N, out_columns;   /* of what comes out                  */
    smask_tensor *(*op)(smask_ctx *c, const probe *p, smask_tensor *x,
        smask_tensor *r);
    int residual;                    /* 1: r, of the output's shape, too   */
    int loss;                        /* 1: the op's result is a loss       */
    const void *user;
    const void *more;
    int repeat;
    const float *values;             /* random, enough for any of these    */
    smask_tensor *seed;              /* a parameter, to want gradients     */
    double forward, backward;        /* found: seconds, medians            */
};

static void source_forward(smask_tensor *y, void *user)
{
    memcpy(y->x, user, smask_count(y) * sizeof(float));
}

/* Counted, so that a backward pass that never came is not taken for a fast
   one. */
static int sources_reached;

static void source_backward(smask_tensor *y, void *user)
{
    (void)y;
    (void)user;
    sources_reached++;
}

static void sink_forward(smask_tensor *y, void *user)
{
    (void)user;
    y->x[0] = 0;
}

static void sink_backward(smask_tensor *y, void *user)
{
    const float *g = (const float *)user;
    float *d = y->source[0]->dx;
    size_t i, count = smask_count(y->source[0]);

    for (i = 0; i < count; i++) d[i] += 1e-3f * g[i];
}

/* One pass; with_op 0 leaves the op out. */
static void probe_pass(smask_ctx *c, probe *p, int with_op, double *forward,
    double *backward)
{
    smask_user_op source, sink;
    smask_tensor *x, *y, *r = NULL;
    double t0, t1, t2;

    memset(&source, 0, sizeof source);
    source.name = "source";
    source.forward = source_forward;
    source.backward = source_backward;
    source.user = (void *)p->values;
    sink = source;
    sink.name = "sink";
    sink.forward = sink_forward;
    sink.backward = sink_backward;
    smask_begin_step(c);
    if (with_op)
        x = smask_user(c, &source, p->seed, NULL, NULL, p->B, p->N,
            p->columns, 0);
    else
        x = smask_user(c, &source, p->seed, NULL, NULL, p->out_B, p->out_N,
            p->out_columns, 0);
    if (p->residual && with_op)
        r = smask_user(c, &source, p->seed, NULL, NULL, p->out_B, p->out_N,
            p->out_columns, 0);
    t0 = now();
    y = with_op ? p->op(c, p, x, r) : x;
    t1 = now();
    if (!with_op || !p->loss)
        y = smask_user(c, &sink, y, NULL, NULL, 1, 0, 0, 0);
    t2 = now();
    sources_reached = 0;
    smask_backward(c, y);
    *backward = now() - t2;
    *forward = t1 - t0;
    smask_end_step(c);
    must(c, smask_error(c), p->name);
    if (!smask_is_dry(c) && sources_reached != 1 + (r != NULL))
        fail(1, "%s: backward did not reach its sources", p->name);
}

static smask_result probe_run(smask_ctx *c, probe *p)
{
    const int repeat = smask_is_dry(c) ? 1 : p->repeat;
    double *f = (double *)room(sizeof(double) * 3 * (size_t)repeat);
    double *g = f + repeat, *without = g + repeat, ignore;
    int i;

    if (!smask_is_dry(c)) probe_pass(c, p, 1, &ignore, &ignore);
    for (i = 0; i < repeat; i++) {
        probe_pass(c, p, 1, f + i, g + i);
        if (p->loss)
            without[i] = 0;
        else
            probe_pass(c, p, 0, &ignore, without + i);
    }
    p->forward = median(f, repeat);
    p->backward = median(g, repeat) - median(without, repeat);
    if (p->backward < 0) p->backward = 0;
    free(f);
    return smask_error(c);
}

/* ------------------------------------------------------------ attention */

static smask_tensor *probe_attention(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    (void)r;
    return smask_attention(c, x, *(const int *)p->user, NULL, NULL);
}

static smask_result attention_fn(smask_ctx *c, void *user)
{
    probe *p = (probe *)user;

    p->seed = smask_parameter(c, 1, 0, 0, 0);
    return probe_run(c, p);
}

static void run_attention(bench *b)
{
    static const int tokens[] = { 49, 64, 98, 196 };
    double sum = 0, least = 1e9, peak, gflops;
    int i, K, D = 384, heads;
    char name[64];

    printf("# useful operations: forward 4 B N N D, backward 8 B N N D; the "
        "scores that backward makes again (2 B N N D) are not counted\n");
    printf("#   N  K    B  forward ms  backward ms  GFLOP/s fwd  bwd  both\n");
    for (K = 32; K <= 64; K += 32)
        for (i = 0; i < 4; i++) {
            probe p;
            smask_ctx c;
            smask_sizes sizes;
            double part;

            memset(&p, 0, sizeof p);
            p.name = "attention";
            p.N = p.out_N = tokens[i];
            p.B = p.out_B = b->o.batch ? b->o.batch : 3136 / tokens[i];
            p.columns = 3 * D;
            p.out_columns = D;
            heads = D / K;
            p.user = &heads;
            p.op = probe_attention;
            p.repeat = b->o.repeat * 3;
            p.values = random_floats((size_t)p.B * (size_t)p.N
                * (size_t)p.columns, (uint64_t)b->o.seed);
            context_open(b, &c, 0, attention_fn, &p, &sizes);
            peak_sample(b);
            must(&c, attention_fn(&c, &p), "attention");
            peak_sample(b);
            part = 4e-9 * p.B * (double)p.N * p.N * D;
            gflops = 3 * part / (p.forward + p.backward);
            printf("# %3d %2d %4d %10.3f %12.3f %12.1f %6.1f %6.1f\n", p.N,
                K, p.B, 1e3 * p.forward, 1e3 * p.backward,
                part / p.forward, 2 * part / p.backward, gflops);
            sprintf(name, "gflops_N%d_K%d", p.N, K);
            result(name, gflops);
            sum += log(gflops);
            if (gflops < least) least = gflops;
            smask_shutdown(&c);
            free((void *)p.values);
        }
    peak = peak_median(b);
    result("gflops", exp(sum / 8));
    result("gflops_min", least);
    result("gflops_min_per_core", least / b->threads);
    result("peak_gflops", peak);
    result("peak_share", exp(sum / 8) / peak);
}

/* ------------------------------------------------------ a training step */

/* Multiply-adds of the model, and nothing else, per image and forward pass.
   Backward takes twice as many, but the patch embedding, which has no
   gradient towards pixels, only once. */
typedef struct model_size {
    double tokens, dim, depth, vocab, patch_floats, masked;
    double forward_macs, embed_macs;
    double step_flops;               /* forward and backward, per image    */
} model_size;

static model_size size_of(const options *o)
{
    model_size s;
    double n = (double)(o->image / o->patch) * (o->image / o->patch);
    double d = o->dim, L = o->depth, V = o->vocab;
    double block = 12 * d * d;

    s.tokens = n;
    s.dim = d;
    s.depth = L;
    s.vocab = V;
    s.patch_floats = 3.0 * o->patch * o->patch;
    s.masked = floor(n * 75 / 196 + 0.5);
    s.embed_macs = n * d * s.patch_floats;
    if (o->command == FORWARD)
        s.forward_macs = L * n * (block + 2 * n * d);
    else if (o->method == BEIT)
        s.forward_macs = L * n * (block + 2 * n * d) + s.masked * d * V;
    else                             /* halves, then a decoder of 2 blocks */
        s.forward_macs = L * n * (block + n * d) + n * d * d
            + 2 * 2 * n * (block + 2 * n * d) + n * d * V;
    s.step_flops = 6 * s.forward_macs + 4 * s.embed_macs;
    return s;
}

typedef struct work {
    const options *o;
    const float *images;
    smask_vit vit;
    smask_tokenizer tokenizer;
    smask_adam adam;
    float loss;
} work;

static void vit_desc(const options *o, smask_vit_desc *d)
{
    memset(d, 0, sizeof *d);
    d->image = o->image;
    d->patch = o->patch;
    d->dim = o->dim;
    d->depth = o->depth;
    d->heads = o->heads;
    d->recompute = o->recompute;
    if (o->command == FORWARD) return;
    d->vocabulary = o->vocab;
    if (o->method == SPLITMASK)
        d->decoder_depth = 2;
    else
        d->mask_token = 1;
}

static smask_result work_make(smask_ctx *c, work *w)
{
    smask_vit_desc v;
    smask_tokenizer_desc t;
    smask_adam_desc a;
    smask_result r;

    vit_desc(w->o, &v);
    r = smask_vit_init(c, &w->vit, &v);
    if (r == SMASK_OK && w->o->command == FORWARD)
        return smask_vit_pack(c, &w->vit);
    if (r != SMASK_OK) return r;
    w->vit.training = 1;
    memset(&t, 0, sizeof t);
    t.kind = SMASK_TOKENS_PROJECTION;
    t.image = w->o->image;
    t.patch = w->o->patch;
    t.vocabulary = w->o->vocab;
    t.half_resolution = w->o->patch >= 16;
    r = smask_tokenizer_init(c, &w->tokenizer, &t);
    if (r != SMASK_OK) return r;
    memset(&a, 0, sizeof a);
    return smask_adam_init(c, &w->adam, &a, &w->vit.params);
}

/* Tokens, masks, forward, backward, clipping, AdamW: all that a step has
   but the reading of images. */
static smask_result work_step(smask_ctx *c, work *w)
{
    smask_tensor *loss;
    smask_losses out;
    smask_result r;

    memset(&out, 0, sizeof out);
    smask_begin_step(c);
    if (w->o->method == BEIT)
        loss = smask_beit_loss(c, &w->vit, &w->tokenizer, NULL, w->images,
            w->o->batch, &out);
    else
        loss = smask_splitmask_loss(c, &w->vit, &w->tokenizer, NULL,
            w->images, w->o->batch, &out);
    r = loss ? smask_backward(c, loss) : SMASK_STATE;
    if (r == SMASK_OK) {
        r = smask_adam_update(c, &w->adam, &w->vit.params);
        w->loss = smask_is_dry(c) ? 0 : out.total;
    }
    smask_end_step(c);
    if (r == SMASK_OK && !smask_is_dry(c) && !(w->loss > 0))
        r = SMASK_NUMERIC;           /* a step without a loss did no work  */
    return smask_error(c) != SMASK_OK ? smask_error(c) : r;
}

static smask_result work_plan(smask_ctx *c, void *user)
{
    work w = *(const work *)user;    /* the dry run's tensors stay here    */
    smask_result r = work_make(c, &w);

    return r != SMASK_OK ? r : work_step(c, &w);
}

static void work_open(bench *b, smask_ctx *c, work *w, const options *o,
    smask_sizes *sizes)
{
    memset(w, 0, sizeof *w);
    w->o = o;
    w->images = random_floats((size_t)o->batch * 3 * (size_t)o->image
        * (size_t)o->image, (uint64_t)o->seed);
    context_open(b, c, 0, work_plan, w, sizes);
    must(c, work_make(c, w), "making the model");
}

static void work_close(smask_ctx *c, work *w)
{
    smask_shutdown(c);
    free((void *)w->images);
}

/* Median seconds of `steps` steps. */
static double work_time(bench *b, smask_ctx *c, work *w, int steps)
{
    double *t = (double *)room(sizeof(double) * (size_t)steps), start, m;
    int i;

    for (i = 0; i < steps; i++) {
        peak_sample(b);
        start = now();
        must(c, work_step(c, w), "a step");
        t[i] = now() - start;
    }
    m = median(t, steps);
    free(t);
    return m;
}

static void describe_model(const options *o)
{
    printf("# %s dim %d depth %d heads %d, image %d patch %d batch %d",
        o->command == FORWARD ? "encoder" : method_names[o->method], o->dim,
        o->depth, o->heads, o->image, o->patch, o->batch);
    if (o->command != FORWARD) printf(" vocabulary %d", o->vocab);
    printf("%s\n", o->recompute ? ", blocks recomputed" : "");
}

/* One sample for each line of standard input: two programs can take turns
   this way, both warm. */
static void serve(bench *b, smask_ctx *c, void *user,
    double (*sample)(bench *b, smask_ctx *c, void *user))
{
    char line[64];

    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("ms %.6g\n", 1e3 * sample(b, c, user));
        fflush(stdout);
    }
}

static double step_sample(bench *b, smask_ctx *c, void *user)
{
    return work_time(b, c, (work *)user, b->o.steps);
}

static void profile(bench *b, double step_seconds);

static void run_step(bench *b)
{
    const options *o = &b->o;
    model_size m = size_of(o);
    smask_ctx c;
    smask_sizes sizes;
    work w;
    double t = 0, gflops, peak;

    describe_model(o);
    work_open(b, &c, &w, o, &sizes);
    must(&c, work_step(&c, &w), "a step");
    must(&c, work_step(&c, &w), "a step");
    if (o->serve) {
        serve(b, &c, &w, step_sample);
    } else {
        t = work_time(b, &c, &w, o->steps);
        gflops = 1e-9 * m.step_flops * o->batch / t;
        peak = peak_median(b);
        result("loss", w.loss);
        result("ms", 1e3 * t);
        result("images_per_s", o->batch / t);
        result("gflops", gflops);
        result("peak_gflops", peak);
        result("mfu", gflops / peak);
    }
    result("gflop_per_image", 1e-9 * m.step_flops);
    result("parameters", (double)smask_params_count(&w.vit.params));
    result("step_bytes", (double)sizes.step_bytes);
    result("kept_bytes", (double)sizes.kept_bytes);
    result("planned_bytes", (double)sizes.bytes);
    result("peak_mb", peak_memory_mb());
    work_close(&c, &w);
    if (o->profile && !o->serve) profile(b, t);
}

/* -------------------------------------------------------------- forward */

static smask_result forward_pass(smask_ctx *c, work *w)
{
    const smask_tensor *tokens;
    int made;

    smask_begin_step(c);
    tokens = smask_vit_encode(c, &w->vit, w->images, w->o->batch);
    made = tokens != NULL;
    smask_end_step(c);
    return smask_error(c) != SMASK_OK || made ? smask_error(c)
        : SMASK_STATE;
}

static smask_result forward_plan(smask_ctx *c, void *user)
{
    work w = *(const work *)user;
    smask_result r = work_make(c, &w);

    smask_record(c, 0);
    return r != SMASK_OK ? r : forward_pass(c, &w);
}

/* Samples of at least 20 ms, `steps` passes or more in all. */
static double forward_sample(bench *b, smask_ctx *c, void *user)
{
    double *t = (double *)room(sizeof(double) * (size_t)b->o.steps);
    double start, took;
    int i, turns;

    for (i = 0; i < b->o.steps; i++) {
        peak_sample(b);
        must(c, forward_pass(c, (work *)user), "encoding");
        start = now();
        turns = 0;
        do {
            must(c, forward_pass(c, (work *)user), "encoding");
            turns++;
            took = now() - start;
        } while (took < 0.02);
        t[i] = took / turns;
    }
    took = median(t, b->o.steps);
    free(t);
    return took;
}

static void run_forward(bench *b)
{
    const options *o = &b->o;
    model_size m = size_of(o);
    smask_ctx c;
    smask_sizes sizes;
    work w;
    double t, gflops, peak;

    describe_model(o);
    memset(&w, 0, sizeof w);
    w.o = o;
    w.images = random_floats((size_t)o->batch * 3 * (size_t)o->image
        * (size_t)o->image, (uint64_t)o->seed);
    context_open(b, &c, 1, forward_plan, &w, &sizes);
    must(&c, work_make(&c, &w), "making the model");
    smask_record(&c, 0);
    must(&c, forward_pass(&c, &w), "encoding");
    if (o->serve) {
        serve(b, &c, &w, forward_sample);
    } else {
        t = forward_sample(b, &c, &w);
        gflops = 2e-9 * (m.forward_macs + m.embed_macs) * o->batch / t;
        peak = peak_median(b);
        result("ms", 1e3 * t);
        result("images_per_s", o->batch / t);
        result("gflops", gflops);
        result("peak_gflops", peak);
        result("mfu", gflops / peak);
    }
    result("gflop_per_image", 2e-9 * (m.forward_macs + m.embed_macs));
    result("step_bytes", (double)sizes.step_bytes);
    result("planned_bytes", (double)sizes.bytes);
    result("peak_mb", peak_memory_mb());
    work_close(&c, &w);
}

/* -------------------------------------------------------------- profile
   Every op of the step on its own, at the step's shapes, as often as the
   step has it. Linear layers carry their layer norm, GELU, bias and
   residual: what they take beyond the bare matrix products of the same
   shapes, timed here too, is counted as element-wise work. */

typedef struct profile_row {
    const char *name;
    int calls;
    double forward, backward;        /* seconds a step                     */
    double flops;                    /* model's own, a step                */
    double bytes;                    /* least traffic, for what has none   */
    double matrix;                   /* seconds of bare products, a step   */
    int attention;
} profile_row;

#define PROFILE_ROWS 32
#define HEAD_ROWS 256                /* logits that a cache can hold       */

typedef struct profiler {
    bench *b;
    work w;
    probe p;
    const float *values;
    int32_t *index, *label;
    profile_row row[PROFILE_ROWS];
    int rows;
} profiler;

static smask_tensor *probe_qkv(smask_ctx *c, const probe *p, smask_tensor *x,
    smask_tensor *r)
{
    const smask_block *k = (const smask_block *)p->user;

    (void)r;
    return smask_norm_linear(c, x, k->ln1_w, k->ln1_b, k->qkv_w, k->qkv_b);
}

static smask_tensor *probe_out(smask_ctx *c, const probe *p, smask_tensor *x,
    smask_tensor *r)
{
    const smask_block *k = (const smask_block *)p->user;

    return smask_linear_add(c, x, k->out_w, k->out_b, r, NULL);
}

static smask_tensor *probe_up(smask_ctx *c, const probe *p, smask_tensor *x,
    smask_tensor *r)
{
    const smask_block *k = (const smask_block *)p->user;

    (void)r;
    return smask_norm_linear(c, x, k->ln2_w, k->ln2_b, k->up_w, k->up_b);
}

static smask_tensor *probe_down(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    const smask_block *k = (const smask_block *)p->user;

    return smask_gelu_linear_add(c, x, k->down_w, k->down_b, r, NULL);
}

static smask_tensor *probe_decoder_embed(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    const smask_vit *v = (const smask_vit *)p->user;

    (void)r;
    return smask_norm_linear(c, x, v->norm_w, v->norm_b, v->decoder_embed_w,
        v->decoder_embed_b);
}

static smask_tensor *probe_norm(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    const smask_vit *v = (const smask_vit *)p->user;

    (void)r;
    return smask_layernorm(c, x, v->norm_w, v->norm_b);
}

static smask_tensor *probe_head(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    const smask_vit *v = (const smask_vit *)p->user;

    (void)r;
    return smask_linear_cross_entropy(c, x, v->head_w, v->head_b,
        (const int32_t *)p->more, NULL, NULL);
}

static smask_tensor *probe_match(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    (void)p;
    (void)r;
    x = smask_l2_normalize(c, smask_mean_tokens(c, x, 0));
    return smask_info_nce(c, x, 0.2f,
        0, 0, NULL);
}

static smask_tensor *probe_rows(smask_ctx *c, const probe *p,
    smask_tensor *x, smask_tensor *r)
{
    const smask_vit *v = (const smask_vit *)p->more;

    (void)r;
    return smask_gather(c, x, p->out_B, p->out_N, (const int32_t *)p->user,
        v ? v->decoder_mask : NULL, v ? v->decoder_position : NULL);
}

/* Time of bare products for a linear layer of so many rows: forward, and
   the gradients of x (unless no_dx) and of w. */
static double bare_products(smask_ctx *c, const bench *b, int rows, int in,
    int out, const float *values)
{
    double *t = (double *)room(sizeof(double) * (size_t)b->o.repeat), sum = 0;
    const size_t R = (size_t)rows, from = (size_t)in, to = (size_t)out;
    const size_t wide = from > to ? from : to;
    const size_t most = R > from || R > to ? R * wide : from * to;
    const int repeat = smask_is_dry(c) ? 1 : b->o.repeat;
    float *y = smask_is_dry(c) ? NULL
        : (float *)room(most * sizeof(float));
    int kind, i;
    product p;

    p.a = (float *)values;
    p.b = (float *)values;
    p.out = y;
    for (kind = 0; kind < 3; kind++) {
        p.trans = kind == 0 ? SMASK_NT : kind == 1 ? SMASK_NN : SMASK_TN;
        p.m = kind == 2 ? to : R;
        p.n = kind == 0 ? to : from;
        p.k = kind == 0 ? from : kind == 1 ? to : R;
        p.lda = p.trans == SMASK_TN ? p.m : p.k;
        p.ldb = p.trans == SMASK_NT ? p.k : p.n;
        for (i = 0; i < repeat; i++) {
            double start;

            if (i == 0) product_run(c, &p);
            start = now();
            product_run(c, &p);
            t[i] = now() - start;
        }
        sum += median(t, repeat);
    }
    free(y);
    free(t);
    return sum;
}

/* Measure one op and enter it. x (B, N, in) -> (out_B, out_N, out). */
static profile_row *profile_op(smask_ctx *c, profiler *f, const char *name,
    int calls, smask_tensor *(*op)(smask_ctx *, const probe *,
    smask_tensor *, smask_tensor *), int B, int N, int in, int out_B,
    int out_N, int out, const void *user)
{
    profile_row *row = &f->row[f->rows++];
    probe *p = &f->p;

    p->name = name;
    p->op = op;
    p->B = B;
    p->N = N;
    p->columns = in;
    p->out_B = out_B;
    p->out_N = out_N;
    p->out_columns = out;
    p->user = user;
    p->repeat = f->b->o.repeat;
    p->residual = op == probe_out || op == probe_down;
    p->loss = op == probe_head || op == probe_match;
    p->values = f->values;
    probe_run(c, p);
    memset(row, 0, sizeof *row);
    row->name = name;
    row->calls = calls;
    row->forward = calls * p->forward;
    row->backward = calls * p->backward;
    return row;
}

static void profile_linear(smask_ctx *c, profiler *f, const char *name,
    int calls, smask_tensor *(*op)(smask_ctx *, const probe *,
    smask_tensor *, smask_tensor *), int B, int N, int in, int out,
    const void *user)
{
    profile_row *row = profile_op(c, f, name, calls, op, B, N, in, B, N, out,
        user);

    row->flops = 6.0 * calls * B * N * (double)in * out;
    row->matrix = calls * bare_products(c, f->b, B * N, in, out, f->values);
}

static void profile_blocks(smask_ctx *c, profiler *f, const char *const *name,
    const smask_block *k, int calls, int B, int N)
{
    const options *o = &f->b->o;
    const int D = o->dim;
    profile_row *row;

    profile_linear(c, f, name[0], calls, probe_qkv, B, N, D, 3 * D, k);
    row = profile_op(c, f, name[1], calls, probe_attention, B, N, 3 * D, B,
        N, D, &f->b->o.heads);
    row->flops = 12.0 * calls * B * (double)N * N * D;
    row->attention = 1;
    profile_linear(c, f, name[2], calls, probe_out, B, N, D, D, k);
    profile_linear(c, f, name[3], calls, probe_up, B, N, D, 4 * D, k);
    profile_linear(c, f, name[4], calls, probe_down, B, N, 4 * D, D, k);
}

/* Forward-only work, timed directly. */
static profile_row *profile_time(profiler *f, const char *name, double t)
{
    profile_row *row = &f->row[f->rows++];

    memset(row, 0, sizeof *row);
    row->name = name;
    row->calls = 1;
    row->forward = t;
    return row;
}

/* kind 0: embedding, forward and backward (to be told apart by 3, forward
   alone); 1: tokens; 2: AdamW. */
static double time_part(smask_ctx *c, profiler *f, int kind)
{
    const options *o = &f->b->o;
    const int repeat = smask_is_dry(c) ? 1 : o->repeat;
    double *t = (double *)room(sizeof(double) * (size_t)(repeat + 1)), start;
    smask_user_op sink;
    int i, j;

    memset(&sink, 0, sizeof sink);
    sink.name = "sink";
    sink.forward = sink_forward;
    sink.backward = sink_backward;
    sink.user = (void *)f->values;
    for (i = 0; i <= repeat; i++) {
        smask_tensor *x;

        if (kind == 2 && !smask_is_dry(c))
            for (j = 0; j < f->w.vit.params.count; j++) {
                x = f->w.vit.params.item[j].t;
                memcpy(x->dx, f->values, smask_count(x) * sizeof(float));
            }
        smask_begin_step(c);
        start = now();
        if (kind == 1) {
            int32_t *ids = f->label;

            smask_tokenize(c, &f->w.tokenizer, f->w.images, o->batch, ids);
        } else if (kind == 2) {
            smask_adam_update(c, &f->w.adam, &f->w.vit.params);
        } else {
            x = smask_vit_embed(c, &f->w.vit, f->w.images, o->batch);
            if (kind == 0)
                smask_backward(c, smask_user(c, &sink, x, NULL, NULL, 1, 0,
                    0, 0));
        }
        t[i] = now() - start;
        smask_end_step(c);
    }
    start = median(t + 1, repeat);   /* the first one warms                */
    free(t);
    return start;
}

static smask_result profile_all(smask_ctx *c, void *user)
{
    static const char *const encoder[] = { "encoder_qkv",
        "encoder_attention", "encoder_out", "encoder_up", "encoder_down" };
    static const char *const decoder[] = { "decoder_qkv",
        "decoder_attention", "decoder_out", "decoder_up", "decoder_down" };
    profiler *f = (profiler *)user;
    const options *o = &f->b->o;
    const model_size m = size_of(o);
    const int split = o->method == SPLITMASK;
    const int n = (int)m.tokens, D = o->dim, B = o->batch;
    const int seen = split ? n / 2 : n, views = split ? 2 * B : B;
    const int asked = split ? B * n : B * (int)m.masked;
    const double row_bytes = 4.0 * B * n * D;
    smask_vit *v = &f->w.vit;
    profile_row *row;
    smask_result r = work_make(c, &f->w);
    double t;
    int32_t i;

    if (r != SMASK_OK) return r;
    f->rows = 0;
    f->p.seed = smask_parameter(c, 1, 0, 0, 0);
    row = profile_time(f, "tokens", time_part(c, f, 1));
    row->flops = 2.0 * B * (double)smask_tokenizer_rows(&f->w.tokenizer)
        * f->w.tokenizer.width * o->vocab;
    t = time_part(c, f, 3);
    row = profile_time(f, "embed", t);
    row->backward = time_part(c, f, 0) - t;
    row->flops = 4.0 * m.embed_macs * B;
    for (i = 0; i < B * n; i++) f->label[i] = i % o->vocab;
    for (i = 0; i < B * n; i++) f->index[i] = (int32_t)(B * n - 1 - i);
    f->p.more = NULL;
    row = profile_op(c, f, "split_rows", 1, probe_rows, B, n, D, views, seen,
        D, f->index);
    row->bytes = 4 * row_bytes;
    profile_blocks(c, f, encoder, &v->blocks[0], o->depth, views, seen);
    if (split) {
        profile_linear(c, f, "decoder_embed", 1, probe_decoder_embed, views,
            seen, D, D,
            v);
        for (i = 0; i < 2 * B * n; i++)  /* every other one a mask token   */
            f->index[i] = i % 2 || i / 2 >= views * seen ? -1 : i / 2;
        f->p.more = v;
        row = profile_op(c, f, "decoder_rows", 1, probe_rows, views, seen, D,
            views, n, D, f->index);
        row->bytes = 6 * row_bytes;
        f->p.more = NULL;
        profile_blocks(c, f, decoder, &v->decoder[0], 2, views, n);
        row = profile_op(c, f, "match", 1, probe_match, views, n, D, views,
            1, D, NULL);
        row->bytes = 4 * row_bytes;
    }
    row = profile_op(c, f, "final_norm", 1, probe_norm, views,
        split ? n : seen, D, views, split ? n : seen, D, v);
    row->bytes = 5 * (split ? 2 : 1) * row_bytes;
    f->p.more = f->label;
    row = profile_op(c, f, "head_loss", 1, probe_head, asked, 1, D, asked, 1,
        D, v);
    row->flops = 6.0 * asked * (double)D * o->vocab;
    row->matrix = asked / (double)HEAD_ROWS
        * bare_products(c, f->b, HEAD_ROWS, D, o->vocab, f->values);
    row = profile_time(f, "adam", time_part(c, f, 2));
    row->bytes = 32.0 * (double)smask_params_count(&v->params);
    return smask_error(c);
}

static smask_result profile_plan(smask_ctx *c, void *user)
{
    profiler f = *(const profiler *)user;

    return profile_all(c, &f);
}

static void profile_lines(const profiler *f, double step_seconds)
{
    double sum = 0, matrix = 0, attention = 0, softmax = 0, element = 0;
    const double peak = peak_median(f->b);
    int i;
    char name[64];

    printf("# op                calls  fwd ms  bwd ms  share  GFLOP/s"
        "   GB/s  beside products ms\n");
    for (i = 0; i < f->rows; i++)
        sum += f->row[i].forward + f->row[i].backward;
    for (i = 0; i < f->rows; i++) {
        const profile_row *r = &f->row[i];
        const double t = r->forward + r->backward;
        double beside = t;

        if (r->matrix > 0) {
            matrix += r->matrix;
            beside = t - r->matrix;
        } else if (r->attention) {
            attention += t;
            beside = t - 1e-9 * r->flops * 14 / 12 / peak;
            softmax += beside;
        } else if (r->flops > 0) {   /* embedding, tokens: products        */
            matrix += t;
            beside = 0;
        }
        if (!r->attention) element += beside;
        printf("# %-17s %5d %7.2f %7.2f %5.1f%%", r->name, r->calls,
            1e3 * r->forward, 1e3 * r->backward, 100 * t / sum);
        if (r->flops > 0)
            printf(" %8.1f %6s", 1e-9 * r->flops / t, "");
        else
            printf(" %8s %6.1f", "", 1e-9 * r->bytes / t);
        printf(" %8.2f\n", 1e3 * beside);
        sprintf(name, "profile_%s_ms", r->name);
        result(name, 1e3 * t);
    }
    result("profile_sum_ms", 1e3 * sum);
    result("profile_of_step", sum / step_seconds);
    result("matrix_share", matrix / sum);
    result("attention_share", attention / sum);
    result("elementwise_share", element / sum);
    result("elementwise_softmax_share", (element + softmax) / sum);
}

static void profile(bench *b, double step_seconds)
{
    profiler f;
    smask_ctx c;
    smask_sizes sizes;
    const size_t n = (size_t)(b->o.image / b->o.patch)
        * (size_t)(b->o.image / b->o.patch);
    const size_t rows = (size_t)b->o.batch * n * 2, D = (size_t)b->o.dim;
    size_t most = rows * D * 4, V = (size_t)b->o.vocab;

    if (most < HEAD_ROWS * V) most = HEAD_ROWS * V;
    if (most < V * D) most = V * D;
    if (most < 16 * D * D) most = 16 * D * D;
    memset(&f, 0, sizeof f);
    f.b = b;
    f.w.o = &b->o;
    f.values = random_floats(most, (uint64_t)b->o.seed);
    f.w.images = f.values;
    if (most < (size_t)b->o.batch * 3 * (size_t)b->o.image
            * (size_t)b->o.image)
        f.w.images = random_floats((size_t)b->o.batch * 3
            * (size_t)b->o.image * (size_t)b->o.image, 5);
    f.index = (int32_t *)room(rows * sizeof(int32_t));
    f.label = (int32_t *)room(rows * sizeof(int32_t));
    context_open(b, &c, 0, profile_plan, &f, &sizes);
    must(&c, profile_all(&c, &f), "the profile");
    profile_lines(&f, step_seconds);
    smask_shutdown(&c);
    if (f.w.images != f.values) free((void *)f.w.images);
    free((void *)f.values);
    free(f.index);
    free(f.label);
}

/* ---------------------------------------------------------------- scale
   One thing at a time is doubled from a small base; beside the time stands
   what the model's operations say. */

#define SWEEPS 5
#define MOST_POINTS 5

typedef struct point { int value; double ms, mb, flops, gflops; } point;
typedef struct sweep {
    const char *name;
    int values[MOST_POINTS], count;
    point point[MOST_POINTS];
} sweep;

static void scale_set(options *o, int what, int value)
{
    o->command = STEP;
    o->dim = 128;
    o->depth = 4;
    o->image = 32;
    o->patch = 4;
    o->batch = 32;
    o->vocab = 1024;
    switch (what) {
    case 0: o->batch = value; break;
    case 1: o->image = 4 * (int)floor(sqrt(value) + 0.5); break;
    case 2: o->dim = value; break;
    case 3: o->depth = value; break;
    case 4: o->vocab = value; break;
    }
    o->heads = o->dim / 32;
}

static point scale_point(bench *b, int what, int value)
{
    options o = b->o;
    smask_ctx c;
    smask_sizes sizes;
    work w;
    point p;

    scale_set(&o, what, value);
    work_open(b, &c, &w, &o, &sizes);
    must(&c, work_step(&c, &w), "a step");
    p.value = value;
    p.ms = 1e3 * work_time(b, &c, &w, b->o.steps) / o.batch;
    p.mb = (double)sizes.step_bytes / o.batch / 1e6;
    p.flops = size_of(&o).step_flops;
    p.gflops = 1e-6 * p.flops / p.ms;
    work_close(&c, &w);
    return p;
}

static double log_place(double value, double low, double high, double from,
    double to)
{
    return from + (to - from) * log(value / low) / log(high / low);
}

/* One panel: dots and a line measured, dashed the law through the middle
   point. kind 0: time with its law; 1: memory. */
static void scale_panel(FILE *f, const sweep *s, int kind, double left,
    double top)
{
    const double W = 180, H = 130;
    const point *p = s->point, *mid = &p[s->count / 2];
    double low = 1e300, high = 0, y;
    int i;

    for (i = 0; i < s->count; i++) {
        y = kind ? p[i].mb : p[i].ms;
        if (y < low) low = y;
        if (y > high) high = y;
        y = kind ? y : mid->ms * p[i].flops / mid->flops;
        if (y < low) low = y;
        if (y > high) high = y;
    }
    low /= 1.3;
    high *= 1.3;
    fprintf(f, "<g transform=\"translate(%g,%g)\">\n<rect width=\"%g\" "
        "height=\"%g\" fill=\"none\" stroke=\"#999\"/>\n"
        "<text x=\"0\" y=\"-6\">%s per image against %s</text>\n"
        "<text x=\"4\" y=\"12\" fill=\"#777\">%.3g %s</text>\n"
        "<text x=\"4\" y=\"%g\" fill=\"#777\">%.3g</text>\n", left, top, W,
        H, kind ? "memory" : "time", s->name, high, kind ? "MB" : "ms",
        H - 4, low);
    if (!kind) {
        fprintf(f, "<polyline fill=\"none\" stroke=\"#c60\" "
            "stroke-dasharray=\"4 3\" points=\"");
        for (i = 0; i < s->count; i++)
            fprintf(f, "%.1f,%.1f ", log_place(p[i].value, p[0].value,
                p[s->count - 1].value, 15, W - 15), log_place(mid->ms
                * p[i].flops / mid->flops, low, high, H, 0));
        fprintf(f, "\"/>\n");
    }
    fprintf(f, "<polyline fill=\"none\" stroke=\"#06c\" points=\"");
    for (i = 0; i < s->count; i++)
        fprintf(f, "%.1f,%.1f ", log_place(p[i].value, p[0].value,
            p[s->count - 1].value, 15, W - 15),
            log_place(kind ? p[i].mb : p[i].ms, low, high, H, 0));
    fprintf(f, "\"/>\n");
    for (i = 0; i < s->count; i++) {
        double x = log_place(p[i].value, p[0].value, p[s->count - 1].value,
            15, W - 15);

        fprintf(f, "<circle r=\"3\" fill=\"#06c\" cx=\"%.1f\" cy=\"%.1f\"/>"
            "<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%d</text>\n",
            x, log_place(kind ? p[i].mb : p[i].ms, low, high, H, 0), x,
            H + 14, p[i].value);
    }
    fprintf(f, "</g>\n");
}

static void scale_plot(const sweep *s, const char *path)
{
    FILE *f;
    int i;

    if (mkdir("out", 0777) != 0 && errno != EEXIST)
        fail(1, "cannot make the folder out: %s", strerror(errno));
    f = fopen(path, "w");
    if (f == NULL) fail(1, "cannot write %s: %s", path, strerror(errno));
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1080\" "
        "height=\"420\" font-family=\"sans-serif\" font-size=\"11\">\n"
        "<rect width=\"1080\" height=\"420\" fill=\"#fff\"/>\n"
        "<text x=\"20\" y=\"20\" font-size=\"13\">Cost of a training step. "
        "Blue: measured. Dashed: the model's operations, through the middle "
        "point. Both axes logarithmic.</text>\n");
    for (i = 0; i < SWEEPS; i++) {
        scale_panel(f, &s[i], 0, 20 + 212 * i, 55);
        scale_panel(f, &s[i], 1, 20 + 212 * i, 240);
    }
    fprintf(f, "</svg>\n");
    if (fclose(f) != 0) fail(1, "cannot write %s: %s", path, strerror(errno));
    printf("# plot: %s\n", path);
}

static void run_scale(bench *b)
{
    static sweep s[SWEEPS] = {
        { "batch", { 8, 16, 32, 64, 128 }, 5, { { 0, 0, 0, 0, 0 } } },
        { "tokens", { 16, 64, 144, 256 }, 4, { { 0, 0, 0, 0, 0 } } },
        { "width", { 64, 128, 256, 512 }, 4, { { 0, 0, 0, 0, 0 } } },
        { "depth", { 2, 4, 8, 16 }, 4, { { 0, 0, 0, 0, 0 } } },
        { "vocabulary", { 256, 1024, 4096, 8192 }, 4, { { 0, 0, 0, 0, 0 } } }
    };
    char name[64];
    int i, j;

    if (b->o.steps == 10) b->o.steps = 3;
    printf("# %s, base: 64 tokens, batch 32, width 128, depth 4, "
        "vocabulary 1024\n"
        "# sweep       value  ms/image  MB/image  GFLOP/image  GFLOP/s\n",
        method_names[b->o.method]);
    for (i = 0; i < SWEEPS; i++) {
        const point *p = s[i].point, *last = p + s[i].count - 1;

        for (j = 0; j < s[i].count; j++) {
            s[i].point[j] = scale_point(b, i, s[i].values[j]);
            printf("# %-11s %6d %9.3f %9.3f %12.4f %8.1f\n", s[i].name,
                p[j].value, p[j].ms, p[j].mb, 1e-9 * p[j].flops,
                p[j].gflops);
            fflush(stdout);
        }
        /* 1: time grew as the operations did; less: better than that */
        sprintf(name, "growth_%s", s[i].name);
        result(name, last->ms / p->ms / (last->flops / p->flops));
        sprintf(name, "memory_growth_%s", s[i].name);
        result(name, last->mb / p->mb);
    }
    result("peak_gflops", peak_median(b));
    scale_plot(s, "out/scale.svg");
}

/* ------------------------------------------------- tokenizer and AdamW */

static int show_kmeans(void *user, int done, int total, double distance)
{
    (void)user;
    fprintf(stderr, "# k-means %d of %d, mean squared distance %.5g\n", done,
        total, distance);
    return 1;
}

typedef struct kmeans {
    smask_tokenizer t;
    const float *patches;
    size_t count;
    int vocabulary;
} kmeans;

static smask_result kmeans_fit(smask_ctx *c, void *user)
{
    kmeans *k = (kmeans *)user;
    smask_tokenizer_desc d;
    smask_result r;

    memset(&d, 0, sizeof d);
    d.kind = SMASK_TOKENS_KMEANS;
    d.image = 32;
    d.patch = 4;
    d.vocabulary = k->vocabulary;
    r = smask_tokenizer_init(c, &k->t, &d);
    if (r != SMASK_OK) return r;
    return smask_tokenizer_fit(c, &k->t, k->patches, k->count, 20,
        smask_is_dry(c) ? NULL : show_kmeans, NULL);
}

static void run_kmeans(bench *b)
{
    smask_ctx c;
    smask_sizes sizes;
    kmeans k;
    double t;

    memset(&k, 0, sizeof k);
    k.count = 200000;
    k.vocabulary = 1024;
    k.patches = random_floats(k.count * 48, (uint64_t)b->o.seed);
    context_open(b, &c, 1, kmeans_fit, &k, &sizes);
    t = now();
    must(&c, kmeans_fit(&c, &k), "k-means");
    t = now() - t;
    result("kmeans_s", t);
    result("kmeans_gflops", 1e-9 * 20 * 2 * (double)k.count * 48 * 1024 / t);
    result("kmeans_mb", (double)sizes.bytes / 1e6);
    smask_shutdown(&c);
    free((void *)k.patches);
}

static void run_tokenizer(bench *b)
{
    const options *o = &b->o;
    const size_t n = (size_t)(o->image / o->patch)
        * (size_t)(o->image / o->patch);
    double *t = (double *)room(sizeof(double) * (size_t)o->repeat), start;
    double tokens, step, flops;
    smask_ctx c;
    smask_sizes sizes;
    work w;
    int32_t *ids = (int32_t *)room((size_t)o->batch * n * sizeof *ids);
    int i;

    describe_model(o);
    work_open(b, &c, &w, o, &sizes);
    must(&c, work_step(&c, &w), "a step");
    for (i = -1; i < o->repeat; i++) {
        smask_begin_step(&c);
        start = now();
        must(&c, smask_tokenize(&c, &w.tokenizer, w.images, o->batch, ids),
            "tokens");
        if (i >= 0) t[i] = now() - start;
        smask_end_step(&c);
    }
    tokens = median(t, o->repeat);
    step = work_time(b, &c, &w, o->steps);
    flops = 2.0 * o->batch * (double)smask_tokenizer_rows(&w.tokenizer)
        * w.tokenizer.width * o->vocab;
    result("tokenize_ms", 1e3 * tokens);
    result("tokenize_gflops", 1e-9 * flops / tokens);
    result("step_ms", 1e3 * step);
    result("tokenizer_share", tokens / step);
    result("peak_gflops", peak_median(b));
    work_close(&c, &w);
    free(ids);
    free(t);
    run_kmeans(b);
}

static void run_adam(bench *b)
{
    const options *o = &b->o;
    double *t = (double *)room(sizeof(double) * (size_t)o->repeat);
    const float *values;
    double start, m, count;
    smask_ctx c;
    smask_sizes sizes;
    work w;
    size_t most = 0;
    int i, j;

    describe_model(o);
    work_open(b, &c, &w, o, &sizes);
    count = (double)smask_params_count(&w.vit.params);
    for (j = 0; j < w.vit.params.count; j++)
        if (smask_count(w.vit.params.item[j].t) > most)
            most = smask_count(w.vit.params.item[j].t);
    values = random_floats(most, (uint64_t)o->seed);
    for (i = -1; i < o->repeat; i++) {
        for (j = 0; j < w.vit.params.count; j++) {
            smask_tensor *x = w.vit.params.item[j].t;

            memcpy(x->dx, values, smask_count(x) * sizeof(float));
        }
        start = now();
        must(&c, smask_adam_update(&c, &w.adam, &w.vit.params), "AdamW");
        if (i >= 0) t[i] = now() - start;
    }
    m = median(t, o->repeat);
    result("parameters", count);
    result("ms", 1e3 * m);
    /* reads weight, gradient and two moments, writes all four back; the
       norm for clipping reads the gradient once more */
    result("gb_per_s", 36e-9 * count / m);
    work_close(&c, &w);
    free((void *)values);
    free(t);
}

/* ----------------------------------------------------------------- main */

static void run_peak(bench *b)
{
    double t[32] = { 0 };
    int kind, i;
    const int count = b->o.repeat < 32 ? b->o.repeat : 32;
    char name[64];

    for (kind = 0; kind < PEAK_KINDS; kind++) {
        size_t turns;

        if (!peak_has(kind)) continue;
        turns = peak_turns_for(b, peak_kinds[kind].run, 0.02);
        for (i = 0; i < count; i++)
            t[i] = peak_run(b, peak_kinds[kind].run, turns);
        sprintf(name, "peak_%s", peak_kinds[kind].name);
        result(name, median(t, count));
    }
    for (i = 0; i < 32; i++) peak_sample(b);
    result("peak_gflops", peak_median(b));
}

int main(int count, char **arg)
{
    static bench b;

    /* Where the reader of the table ends, the file is still written. */
    signal(SIGPIPE, SIG_IGN);
    read_options(&b.o, count, arg);
    bench_open(&b);
    switch (b.o.command) {
    case GEMM: run_gemm(&b); break;
    case ATTENTION: run_attention(&b); break;
    case STEP: run_step(&b); break;
    case FORWARD: run_forward(&b); break;
    case SCALE: run_scale(&b); break;
    case TOKENIZER: run_tokenizer(&b); break;
    case ADAM: run_adam(&b); break;
    case PEAK: run_peak(&b); break;
    }
    bench_close(&b);
    return 0;
}
