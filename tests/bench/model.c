/* model.c: a model, its step, and the commands step and forward. See
   bench.h. */
#include "bench.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Backward takes twice the operations of forward, but the patch embedding,
   which has no gradient towards pixels, only as many. */
model_cost model_cost_of(const options *o)
{
    model_cost cost;
    const double side = o->image / o->patch, n = side * side;
    const double d = o->dim, L = o->depth, V = o->vocab;
    const double block = 12 * d * d;
    double macs;

    cost.tokens = n;
    cost.masked = floor(n * 75 / 196 + 0.5);
    cost.embed_macs = n * d * 3 * o->patch * o->patch;
    macs = L * n * (block + 2 * n * d);
    if (o->command == FORWARD) {
        cost.flops = 2 * (macs + cost.embed_macs);
        return cost;
    }
    if (o->method == BEIT)
        macs += cost.masked * d * V;
    else                             /* halves, then a decoder of 2 blocks */
        macs = L * n * (block + n * d) + n * d * d
            + 2 * 2 * n * (block + 2 * n * d) + n * d * V;
    cost.flops = 6 * macs + 4 * cost.embed_macs;
    return cost;
}

smask_result model_make(smask_ctx *c, model *m)
{
    const options *o = m->o;
    smask_vit_desc v;
    smask_tokenizer_desc t;
    smask_adam_desc a;
    smask_result r;

    memset(&v, 0, sizeof v);
    v.image = o->image;
    v.patch = o->patch;
    v.dim = o->dim;
    v.depth = o->depth;
    v.heads = o->heads;
    v.recompute = o->recompute;
    if (o->command == FORWARD) {
        r = smask_vit_init(c, &m->vit, &v);
        return r != SMASK_OK ? r : smask_vit_pack(c, &m->vit);
    }
    v.vocabulary = o->vocab;
    if (o->method == SPLITMASK) v.decoder_depth = 2;
    else v.mask_token = 1;
    memset(&t, 0, sizeof t);
    t.kind = SMASK_TOKENS_PROJECTION;
    t.image = o->image;
    t.patch = o->patch;
    t.vocabulary = o->vocab;
    t.half_resolution = o->patch >= 16;
    memset(&a, 0, sizeof a);
    smask_vit_init(c, &m->vit, &v);
    m->vit.training = 1;
    smask_tokenizer_init(c, &m->tokenizer, &t);
    return smask_adam_init(c, &m->adam, &a, &m->vit.params);
}

/* Visual tokens, masks, forward, backward, clipping, AdamW: all of a step
   but reading images. */
static smask_result training_step(smask_ctx *c, model *m)
{
    smask_tensor *loss;
    smask_losses out;

    memset(&out, 0, sizeof out);
    smask_begin_step(c);
    if (m->o->method == BEIT)
        loss = smask_beit_loss(c, &m->vit, &m->tokenizer, NULL, m->images,
            m->o->batch, &out);
    else
        loss = smask_splitmask_loss(c, &m->vit, &m->tokenizer, NULL,
            m->images, m->o->batch, &out);
    smask_backward(c, loss);
    smask_adam_update(c, &m->adam, &m->vit.params);
    m->loss = smask_is_dry(c) ? 0 : out.total;
    smask_end_step(c);
    if (smask_error(c) == SMASK_OK && !smask_is_dry(c) && !(m->loss > 0))
        return SMASK_NUMERIC;        /* a step without a loss did no work  */
    return smask_error(c);
}

static smask_result forward_pass(smask_ctx *c, model *m)
{
    smask_record(c, 0);
    smask_begin_step(c);
    smask_vit_encode(c, &m->vit, m->images, m->o->batch);
    smask_end_step(c);
    return smask_error(c);
}

static smask_result model_run(smask_ctx *c, model *m)
{
    return m->o->command == FORWARD ? forward_pass(c, m)
        : training_step(c, m);
}

static smask_result model_work(smask_ctx *c, void *user)
{
    model *m = (model *)user;
    smask_result r = model_make(c, m);

    return r != SMASK_OK ? r : model_run(c, m);
}

void model_open(const bench *b, smask_ctx *c, model *m, const options *o,
    smask_sizes *sizes)
{
    memset(m, 0, sizeof *m);
    m->o = o;
    m->images = random_floats((size_t)o->batch * 3 * (size_t)o->image
        * (size_t)o->image, o->seed);
    bench_context(b, c, o->command == FORWARD, model_work, m, sizes);
    must(c, model_work(c, m), "the first step");
}

void model_close(smask_ctx *c, model *m)
{
    smask_shutdown(c);
    free((void *)m->images);
}

/* A sample is one step, or as many forward passes as fill 20 ms. */
double model_seconds(bench *b, smask_ctx *c, model *m, int steps)
{
    const int training = m->o->command != FORWARD;
    samples s;
    int i, count;

    s.count = 0;
    for (i = 0; i < steps; i++) {
        double start, took;

        peak_sample(b);
        if (!training) must(c, model_run(c, m), "encoding");
        start = seconds_now();
        count = 0;
        do {
            must(c, model_run(c, m), training ? "a step" : "encoding");
            count++;
            took = seconds_now() - start;
        } while (!training && took < 0.02);
        sample_add(&s, took / count);
    }
    return sample_median(&s);
}

void model_describe(const options *o)
{
    printf("# %s dim %d depth %d heads %d, image %d patch %d batch %d",
        o->command == FORWARD ? "encoder" : method_names[o->method], o->dim,
        o->depth, o->heads, o->image, o->patch, o->batch);
    if (o->command != FORWARD) printf(" vocabulary %d", o->vocab);
    printf("%s\n", o->recompute ? ", blocks recomputed" : "");
}

/* One measurement for each line of standard input: two programs can take
   turns this way, both warm. */
static void serve(bench *b, smask_ctx *c, model *m)
{
    char line[64];

    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL)
        figure("ms", 1e3 * model_seconds(b, c, m, b->o.steps));
}

void run_model(bench *b)
{
    const options *o = &b->o;
    const int training = o->command == STEP;
    const model_cost cost = model_cost_of(o);
    smask_ctx c;
    smask_sizes sizes;
    model m;
    double seconds = 0;

    model_describe(o);
    model_open(b, &c, &m, o, &sizes);
    if (training) must(&c, model_run(&c, &m), "a step");
    if (o->serve) {
        serve(b, &c, &m);
    } else {
        double gflops, peak;

        seconds = model_seconds(b, &c, &m, o->steps);
        gflops = 1e-9 * cost.flops * o->batch / seconds;
        peak = peak_median(b);
        if (training) figure("loss", (double)m.loss);
        figure("ms", 1e3 * seconds);
        figure("images_per_s", o->batch / seconds);
        figure("gflops", gflops);
        figure("peak_gflops", peak);
        figure("mfu", gflops / peak);
    }
    figure("gflop_per_image", 1e-9 * cost.flops);
    figure("parameters", (double)smask_params_count(&m.vit.params));
    figure("step_bytes", (double)sizes.step_bytes);
    figure("kept_bytes", (double)sizes.kept_bytes);
    figure("planned_bytes", (double)sizes.bytes);
    figure("peak_mb", peak_memory_mb());
    model_close(&c, &m);
    if (o->profile && !o->serve) profile(b, seconds);
}
