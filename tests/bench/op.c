/* op.c: one operation on its own, and the command attention. See bench.h.

     source -> operation -> sink -> backward

   The source gives random values, the sink a random gradient; what they cost
   is measured without the operation and subtracted. */
#include "bench.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void source_forward(smask_tensor *y, void *user)
{
    memcpy(y->x, user, smask_count(y) * sizeof(float));
}

/* Counted, so that a backward pass that never came does not count as a fast
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

smask_user_op op_sink(const float *values)
{
    smask_user_op sink;

    memset(&sink, 0, sizeof sink);
    sink.name = "sink";
    sink.forward = sink_forward;
    sink.backward = sink_backward;
    sink.user = (void *)values;
    return sink;
}

/* One pass, which adds its times; with_op 0 leaves the operation out. */
static void op_pass(smask_ctx *c, op_timing *t, int with_op,
    samples *forward, samples *backward)
{
    smask_user_op source = op_sink(t->values), sink = source;
    smask_tensor *x, *y, *r = NULL;
    const shape in = with_op ? t->in : t->out, out = t->out;
    double start;

    source.name = "source";
    source.forward = source_forward;
    source.backward = source_backward;
    smask_begin_step(c);
    x = y = smask_user(c, &source, t->seed, NULL, NULL, in.B, in.N,
        in.columns, 0);
    if (t->residual && with_op)
        r = smask_user(c, &source, t->seed, NULL, NULL, out.B, out.N,
            out.columns, 0);
    start = seconds_now();
    if (with_op) y = t->op(c, t, x, r);
    sample_add(forward, seconds_now() - start);
    if (!with_op || !t->loss)
        y = smask_user(c, &sink, y, NULL, NULL, 1, 0, 0, 0);
    sources_reached = 0;
    start = seconds_now();
    smask_backward(c, y);
    sample_add(backward, seconds_now() - start);
    smask_end_step(c);
    must(c, smask_error(c), t->name);
    if (!smask_is_dry(c) && sources_reached != 1 + (r != NULL))
        fail("%s: backward did not reach its sources", t->name);
}

void op_measure(smask_ctx *c, op_timing *t)
{
    static samples forward, backward, without, unused;
    const int repeat = smask_is_dry(c) ? 1 : t->repeat;
    int i;

    op_pass(c, t, 1, &unused, &unused);      /* warms the caches           */
    forward.count = backward.count = without.count = 0;
    for (i = 0; i < repeat; i++) {
        op_pass(c, t, 1, &forward, &backward);
        if (!t->loss) op_pass(c, t, 0, &unused, &without);
    }
    t->forward = sample_median(&forward);
    t->backward = fmax(0, sample_median(&backward)
        - sample_median(&without));
}

/* ------------------------------------------------------------ attention */

smask_tensor *op_attention(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual)
{
    (void)residual;
    return smask_attention(c, x, *(const int *)t->user, NULL, NULL);
}

static smask_result attention_work(smask_ctx *c, void *user)
{
    op_timing *t = (op_timing *)user;

    t->seed = smask_parameter(c, 1, 0, 0, 0);
    op_measure(c, t);
    return smask_error(c);
}

/* GFLOP/s of N tokens with heads of width K, and a line of the table. */
static double attention_speed(bench *b, int N, int K)
{
    const int D = 384, heads = D / K;
    const int B = b->o.batch ? b->o.batch : 3136 / N;
    const shape in = { B, N, 3 * D }, out = { B, N, D };
    op_timing t;
    smask_ctx c;
    smask_sizes sizes;
    double part, both;

    memset(&t, 0, sizeof t);
    t.name = "attention";
    t.op = op_attention;
    t.in = in;
    t.out = out;
    t.user = &heads;
    t.repeat = b->o.repeat * 3;
    t.values = random_floats((size_t)B * (size_t)N * 3 * (size_t)D,
        b->o.seed);
    bench_context(b, &c, 0, attention_work, &t, &sizes);
    peak_sample(b);
    must(&c, attention_work(&c, &t), "attention");
    peak_sample(b);
    part = 4e-9 * B * (double)N * N * D;
    both = 3 * part / (t.forward + t.backward);
    printf("# %3d %2d %4d %10.3f %12.3f %12.1f %6.1f %6.1f\n", N, K, B,
        1e3 * t.forward, 1e3 * t.backward, part / t.forward,
        2 * part / t.backward, both);
    smask_shutdown(&c);
    free((void *)t.values);
    return both;
}

void run_attention(bench *b)
{
    static const int tokens[] = { 49, 64, 98, 196 };
    double sum = 0, min = HUGE_VAL, mean;
    char name[64];
    int i, K;

    printf("# useful operations: forward 4 B N N D, backward 8 B N N D; the "
        "scores that backward\n# computes again (2 B N N D) do not count\n"
        "#   N  K    B  forward ms  backward ms  GFLOP/s fwd  bwd  both\n");
    for (K = 32; K <= 64; K += 32)
        for (i = 0; i < 4; i++) {
            const double gflops = attention_speed(b, tokens[i], K);

            sprintf(name, "gflops_N%d_K%d", tokens[i], K);
            figure(name, gflops);
            sum += log(gflops);
            min = fmin(min, gflops);
        }
    mean = exp(sum / 8);
    figure("gflops", mean);
    figure("gflops_min", min);
    figure("gflops_min_per_core", min / b->threads);
    figure("peak_gflops", peak_median(b));
    figure("peak_share", mean / peak_median(b));
}
