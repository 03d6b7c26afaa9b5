/* gemm.c: the command gemm, matrix products beside the processor's peak and
   beside other libraries. See bench.h. */
#include "bench.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------ a product */

static product product_of(smask_trans trans, size_t m, size_t n, size_t k)
{
    product p;

    memset(&p, 0, sizeof p);
    p.trans = trans;
    p.m = m;
    p.n = n;
    p.k = k;
    p.lda = trans == SMASK_TN ? m : k;
    p.ldb = trans == SMASK_NT ? k : n;
    return p;
}

product layer_product(smask_trans trans, size_t rows, size_t in, size_t out)
{
    if (trans == SMASK_NT) return product_of(SMASK_NT, rows, out, in);
    if (trans == SMASK_NN) return product_of(SMASK_NN, rows, in, out);
    return product_of(SMASK_TN, out, in, rows);
}

void product_run(smask_ctx *c, const product *p)
{
    smask_begin_step(c);
    smask_gemm(c, p->trans, p->m, p->n, p->k, p->a, p->lda, p->b, p->ldb,
        p->out, p->n, 0);
    smask_end_step(c);
}

static smask_result product_work(smask_ctx *c, void *user)
{
    product_run(c, (const product *)user);
    return smask_error(c);
}

static double product_flops(const product *p)
{
    return 2.0 * (double)p->m * (double)p->n * (double)p->k;
}

/* Some entries against double arithmetic: the speed of a wrong answer does
   not count. */
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
            fail("%s: %s product %zu x %zu x %zu is wrong at (%zu,%zu): "
                "%g instead of %g", who, trans_names[p->trans], p->m, p->n,
                p->k, i, j, x, sum);
    }
}

/* -------------------------------------- ours, number 0, and that of peers */

static int runners(void)
{
    int count = 0;

    while (peers[count].name != NULL) count++;
    return count + 1;
}

static void runner_run(int who, smask_ctx *c, const product *p)
{
    if (who == 0) product_run(c, p);
    else peers[who - 1].run(p);
}

/* Let the idle threads of another library's pool stop spinning: on a core
   that a spinning thread holds, the next runner would work alone. */
static void rest(const bench *b)
{
    const struct timespec t = { 0, 15000000 };

    if (runners() > 1 && b->threads > 1) nanosleep(&t, NULL);
}

/* Seconds of one product: of as many in a row as fill 20 ms, after one that
   wakes the threads and warms the caches. */
static double product_sample(const bench *b, int who, smask_ctx *c,
    const product *p)
{
    double start, took;
    int count = 0;

    rest(b);
    runner_run(who, c, p);
    start = seconds_now();
    do {
        runner_run(who, c, p);
        count++;
        took = seconds_now() - start;
    } while (took < 0.02);
    return took / count;
}

/* GFLOP/s of each runner, in turns; the order changes every round so that
   none always follows the same one. Makes the operands, and frees them. */
static void product_measure(bench *b, product *p, double *gflops)
{
    static samples s[MAX_PEERS + 1];
    const int count = runners();
    smask_ctx c;
    smask_sizes sizes;
    int round, i, who;

    p->a = random_floats(p->m * p->k, b->o.seed);
    p->b = random_floats(p->k * p->n, b->o.seed + 1);
    p->out = (float *)allocate(p->m * p->n * sizeof(float));
    bench_context(b, &c, 1, product_work, p, &sizes);
    for (who = 0; who < count; who++) {
        s[who].count = 0;
        runner_run(who, &c, p);
        must(&c, smask_error(&c), "gemm");
        product_check(p, who ? peers[who - 1].title : "splitmask",
            !who && b->o.isa == SMASK_ISA_BF16 ? 4e-3 : 1e-5);
    }
    for (round = 0; round < b->o.repeat; round++) {
        for (i = 0; i < count; i++) {
            who = (i + round) % count;
            sample_add(&s[who], product_sample(b, who, &c, p));
        }
        rest(b);
        peak_sample(b);
    }
    for (who = 0; who < count; who++)
        gflops[who] = 1e-9 * product_flops(p) / sample_median(&s[who]);
    must(&c, smask_error(&c), "gemm");
    smask_shutdown(&c);
    free(p->a);
    free(p->b);
    free(p->out);
}

/* ------------------------------------------------------------ the suite
   Linear layers of a training step with rows = images x tokens. */

static const struct layer { const char *name; size_t rows, in, out; }
layers[] = {
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

/* Sums of log GFLOP/s by runner and transposition, and the smallest ratio. */
typedef struct suite_sums {
    double logs[MAX_PEERS + 1][3], min[MAX_PEERS + 1];
} suite_sums;

static void suite_line(const struct layer *l, const product *p, double peak,
    const double *gflops)
{
    int who;

    printf("# %-11s %s %5zu %5zu %5zu %8.1f %6.1f%%", l->name,
        trans_names[p->trans], p->m, p->n, p->k, gflops[0],
        100 * gflops[0] / peak);
    for (who = 1; who < runners(); who++)
        printf(" %8.1f %6.3f", gflops[who], gflops[0] / gflops[who]);
    printf("\n");
    fflush(stdout);
}

static double suite_mean(const double logs[3])
{
    return exp((logs[0] + logs[1] + logs[2]) / (3 * LAYERS));
}

static void suite_results(const bench *b, const suite_sums *s)
{
    const double peak = peak_median(b), ours = suite_mean(s->logs[0]);
    int i, who;

    for (i = 0; i < 3; i++) {
        const double gflops = exp(s->logs[0][i] / LAYERS);

        figure_of("gflops", trans_names[i], gflops);
        figure_of("peak_share", trans_names[i], gflops / peak);
    }
    figure("gflops", ours);
    figure("peak_gflops", peak);
    for (who = 1; who < runners(); who++) {
        const peer *them = &peers[who - 1];

        for (i = 0; i < 3; i++)
            figure_of(them->ratio, trans_names[i],
                exp((s->logs[0][i] - s->logs[who][i]) / LAYERS));
        figure(them->name, suite_mean(s->logs[who]));
        figure(them->ratio, ours / suite_mean(s->logs[who]));
        figure_of(them->ratio, "min", s->min[who]);
    }
}

static void run_suite(bench *b)
{
    suite_sums s;
    double gflops[MAX_PEERS + 1];
    const struct layer *l;
    int t, who;

    memset(&s, 0, sizeof s);
    printf("# layer       op     m     n     k   GFLOP/s   peak");
    for (who = 1; who < runners(); who++) {
        s.min[who] = HUGE_VAL;
        printf("   %6s  ratio", peers[who - 1].title);
    }
    printf("\n");
    for (l = layers; l < layers + LAYERS; l++)
        for (t = 0; t < 3; t++) {
            product p = layer_product((smask_trans)t, l->rows, l->in,
                l->out);

            product_measure(b, &p, gflops);
            suite_line(l, &p, peak_median(b), gflops);
            for (who = 0; who < runners(); who++) {
                s.logs[who][t] += log(gflops[who]);
                s.min[who] = fmin(s.min[who], gflops[0] / gflops[who]);
            }
        }
    suite_results(b, &s);
}

void run_gemm(bench *b)
{
    const options *o = &b->o;
    double gflops[MAX_PEERS + 1];
    product p = product_of((smask_trans)o->trans, (size_t)o->m,
        (size_t)o->n, (size_t)o->k);
    int who;

    for (who = 1; who < runners(); who++)
        peers[who - 1].describe(b->threads);
    if (o->suite) {
        run_suite(b);
        return;
    }
    product_measure(b, &p, gflops);
    figure("gflops", gflops[0]);
    figure("ms", 1e-6 * product_flops(&p) / gflops[0]);
    figure("peak_gflops", peak_median(b));
    figure("peak_share", gflops[0] / peak_median(b));
    for (who = 1; who < runners(); who++) {
        figure(peers[who - 1].name, gflops[who]);
        figure(peers[who - 1].ratio, gflops[0] / gflops[who]);
    }
}
