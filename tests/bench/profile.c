/* profile.c: every operation of a step on its own, at the step's shapes, as
   often as the step has it. See bench.h.

   Linear layers include their layer norm, GELU, bias and residual. What they
   take beyond the bare matrix products of the same shapes, which are timed
   here too, counts as element-wise work. */
#include "bench.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct row {
    char name[32];
    int calls;                       /* in a step; the rest is for all     */
    double forward, backward;        /* seconds                            */
    double flops;                    /* of the model                       */
    double bytes;                    /* traffic of what has no flops       */
    double matrix;                   /* seconds of bare products           */
    int attention;
} row;

#define MAX_ROWS 32
#define HEAD_ROWS 256                /* logits that fit in a cache         */

typedef struct profiler {
    bench *b;
    model m;
    op_timing t;
    const float *values;
    int32_t *index, *label;
    row row[MAX_ROWS];
    int rows;
} profiler;

static row *row_add(profiler *f, const char *stage, const char *part,
    int calls)
{
    row *r = &f->row[f->rows++];

    memset(r, 0, sizeof *r);
    snprintf(r->name, sizeof r->name, "%s%s%s", stage,
        part[0] != '\0' ? "_" : "", part);
    r->calls = calls;
    return r;
}

/* ----------------------------------------------------------- operations */

/* norm_w NULL: no layer norm, but a residual, and GELU before if `gelu`. */
typedef struct linear {
    smask_tensor *norm_w, *norm_b, *w, *b;
    int gelu;
} linear;

static smask_tensor *op_linear(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual)
{
    const linear *l = (const linear *)t->user;

    if (l->norm_w != NULL)
        return smask_norm_linear(c, x, l->norm_w, l->norm_b, l->w, l->b);
    if (l->gelu)
        return smask_gelu_linear_add(c, x, l->w, l->b, residual, NULL);
    return smask_linear_add(c, x, l->w, l->b, residual, NULL);
}

static smask_tensor *op_norm(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual)
{
    const smask_vit *v = (const smask_vit *)t->user;

    (void)residual;
    return smask_layernorm(c, x, v->norm_w, v->norm_b);
}

static smask_tensor *op_head(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual)
{
    const smask_vit *v = (const smask_vit *)t->user;

    (void)residual;
    return smask_linear_cross_entropy(c, x, v->head_w, v->head_b,
        (const int32_t *)t->more, NULL, NULL);
}

static smask_tensor *op_match(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual)
{
    (void)t;
    (void)residual;
    x = smask_l2_normalize(c, smask_mean_tokens(c, x, 0));
    return smask_info_nce(c, x, 0.2f, 0, 0, NULL);
}

static smask_tensor *op_gather(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual)
{
    const smask_vit *v = (const smask_vit *)t->more;

    (void)residual;
    return smask_gather(c, x, t->out.B, t->out.N, (const int32_t *)t->user,
        v ? v->decoder_mask : NULL, v ? v->decoder_position : NULL);
}

/* -------------------------------------------------------------- measure */

/* Measure f->t, whose op and user are set. */
static row *measure(smask_ctx *c, profiler *f, row *r, shape in, shape out)
{
    op_timing *t = &f->t;

    t->name = r->name;
    t->in = in;
    t->out = out;
    t->repeat = f->b->o.repeat;
    t->loss = t->op == op_head || t->op == op_match;
    t->values = f->values;
    op_measure(c, t);
    r->forward = r->calls * t->forward;
    r->backward = r->calls * t->backward;
    return r;
}

/* Seconds of a linear layer's three bare products. */
static double bare_products(smask_ctx *c, const profiler *f, int rows,
    int in, int out)
{
    const int repeat = smask_is_dry(c) ? 1 : f->b->o.repeat;
    double sum = 0;
    int trans, i;

    for (trans = 0; trans < 3; trans++) {
        product p = layer_product((smask_trans)trans, (size_t)rows,
            (size_t)in, (size_t)out);
        samples s;

        s.count = 0;
        p.a = p.b = (float *)f->values;
        if (!smask_is_dry(c))
            p.out = (float *)allocate(p.m * p.n * sizeof(float));
        product_run(c, &p);
        for (i = 0; i < repeat; i++) {
            const double start = seconds_now();

            product_run(c, &p);
            sample_add(&s, seconds_now() - start);
        }
        sum += sample_median(&s);
        free(p.out);
    }
    return sum;
}

static void measure_linear(smask_ctx *c, profiler *f, row *r, shape in,
    int columns, linear l)
{
    const int rows = in.B * in.N;
    const shape out = { in.B, in.N, columns };

    f->t.op = op_linear;
    f->t.user = &l;
    f->t.residual = l.norm_w == NULL;
    measure(c, f, r, in, out);
    f->t.residual = 0;
    r->flops = 6.0 * r->calls * rows * in.columns * (double)columns;
    r->matrix = r->calls * bare_products(c, f, rows, in.columns, columns);
}

static void measure_block(smask_ctx *c, profiler *f, const char *stage,
    const smask_block *k, int calls, shape x)
{
    const linear qkv = { k->ln1_w, k->ln1_b, k->qkv_w, k->qkv_b, 0 };
    const linear out = { NULL, NULL, k->out_w, k->out_b, 0 };
    const linear up = { k->ln2_w, k->ln2_b, k->up_w, k->up_b, 0 };
    const linear down = { NULL, NULL, k->down_w, k->down_b, 1 };
    const int D = f->b->o.dim;
    const shape x3 = { x.B, x.N, 3 * D }, x4 = { x.B, x.N, 4 * D };
    row *r;

    measure_linear(c, f, row_add(f, stage, "qkv", calls), x, 3 * D, qkv);
    f->t.op = op_attention;
    f->t.user = &f->b->o.heads;
    r = measure(c, f, row_add(f, stage, "attention", calls), x3, x);
    r->flops = 12.0 * calls * x.B * (double)x.N * x.N * D;
    r->attention = 1;
    measure_linear(c, f, row_add(f, stage, "out", calls), x, D, out);
    measure_linear(c, f, row_add(f, stage, "up", calls), x, 4 * D, up);
    measure_linear(c, f, row_add(f, stage, "down", calls), x4, D, down);
}

static void measure_embed(smask_ctx *c, profiler *f, row *r)
{
    static samples forward, backward;
    const int repeat = smask_is_dry(c) ? 1 : f->b->o.repeat;
    smask_user_op sink = op_sink(f->values);
    int i;

    forward.count = backward.count = 0;
    for (i = -1; i < repeat; i++) {  /* the first warms the caches         */
        double start, middle;
        smask_tensor *x;

        smask_begin_step(c);
        start = seconds_now();
        x = smask_vit_embed(c, &f->m.vit, f->m.images, f->b->o.batch);
        middle = seconds_now();
        smask_backward(c, smask_user(c, &sink, x, NULL, NULL, 1, 0, 0, 0));
        if (i >= 0) sample_add(&forward, middle - start);
        if (i >= 0) sample_add(&backward, seconds_now() - middle);
        smask_end_step(c);
    }
    r->forward = sample_median(&forward);
    r->backward = sample_median(&backward);
}

static smask_result profile_work(smask_ctx *c, void *user)
{
    profiler *f = (profiler *)user;
    const options *o = &f->b->o;
    const model_cost cost = model_cost_of(o);
    const int split = o->method == SPLITMASK;
    const int n = (int)cost.tokens, D = o->dim, B = o->batch;
    const int visible = split ? n / 2 : n, views = split ? 2 * B : B;
    const int asked = split ? B * n : B * (int)cost.masked;
    const shape image = { B, n, D };
    const shape encoder = { views, visible, D };
    const shape whole = { views, n, D };     /* in the decoder, or in BEiT */
    const shape one = { views, 1, D }, masked = { asked, 1, D };
    const double row_bytes = 4.0 * B * n * D;
    smask_vit *v = &f->m.vit;
    row *r;
    smask_result made = model_make(c, &f->m);
    int32_t i;

    if (made != SMASK_OK) return made;
    f->rows = 0;
    f->t.seed = smask_parameter(c, 1, 0, 0, 0);
    for (i = 0; i < B * n; i++) f->label[i] = i % o->vocab;
    for (i = 0; i < B * n; i++) f->index[i] = (int32_t)(B * n - 1 - i);

    r = row_add(f, "tokens", "", 1);
    r->forward = tokenizer_seconds(c, &f->m, o->repeat);
    r->flops = 2.0 * B * (double)smask_tokenizer_rows(&f->m.tokenizer)
        * f->m.tokenizer.width * o->vocab;
    r = row_add(f, "embed", "", 1);
    measure_embed(c, f, r);
    r->flops = 4.0 * cost.embed_macs * B;
    f->t.op = op_gather;
    f->t.user = f->index;
    f->t.more = NULL;
    r = measure(c, f, row_add(f, "split", "rows", 1), image, encoder);
    r->bytes = 4 * row_bytes;
    measure_block(c, f, "encoder", &v->blocks[0], o->depth, encoder);
    if (split) {
        const linear embed = { v->norm_w, v->norm_b, v->decoder_embed_w,
            v->decoder_embed_b, 0 };

        measure_linear(c, f, row_add(f, "decoder", "embed", 1), encoder, D,
            embed);
        for (i = 0; i < 2 * B * n; i++)  /* every other one a mask token   */
            f->index[i] = i % 2 || i / 2 >= views * visible ? -1 : i / 2;
        f->t.op = op_gather;
        f->t.user = f->index;
        f->t.more = v;
        r = measure(c, f, row_add(f, "decoder", "rows", 1), encoder, whole);
        r->bytes = 6 * row_bytes;
        measure_block(c, f, "decoder", &v->decoder[0], 2, whole);
        f->t.op = op_match;
        r = measure(c, f, row_add(f, "match", "", 1), whole, one);
        r->bytes = 4 * row_bytes;
    }
    f->t.op = op_norm;
    f->t.user = v;
    r = measure(c, f, row_add(f, "final", "norm", 1), whole, whole);
    r->bytes = 5 * (split ? 2 : 1) * row_bytes;
    f->t.op = op_head;
    f->t.more = f->label;
    r = measure(c, f, row_add(f, "head", "loss", 1), masked, masked);
    r->flops = 6.0 * asked * (double)D * o->vocab;
    r->matrix = asked / (double)HEAD_ROWS
        * bare_products(c, f, HEAD_ROWS, D, o->vocab);
    r = row_add(f, "adam", "", 1);
    r->forward = adam_seconds(c, &f->m, o->repeat);
    r->bytes = 32.0 * (double)smask_params_count(&v->params);
    return smask_error(c);
}

/* ---------------------------------------------------------------- table */

static void print_rows(const profiler *f, double step_seconds)
{
    const double peak = peak_median(f->b);
    double sum = 0, matrix = 0, attention = 0, softmax = 0, element = 0;
    int i;

    printf("# op                calls  fwd ms  bwd ms  share  GFLOP/s"
        "   GB/s  beside products ms\n");
    for (i = 0; i < f->rows; i++)
        sum += f->row[i].forward + f->row[i].backward;
    for (i = 0; i < f->rows; i++) {
        const row *r = &f->row[i];
        const double t = r->forward + r->backward;
        char name[64];
        double beside = t;

        if (r->matrix > 0) {
            matrix += r->matrix;
            beside = t - r->matrix;
        } else if (r->attention) {   /* backward repeats 2 of 12 parts     */
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
        if (r->flops > 0) printf(" %8.1f %6s", 1e-9 * r->flops / t, "");
        else printf(" %8s %6.1f", "", 1e-9 * r->bytes / t);
        printf(" %8.2f\n", 1e3 * beside);
        snprintf(name, sizeof name, "profile_%s_ms", r->name);
        figure(name, 1e3 * t);
    }
    figure("profile_sum_ms", 1e3 * sum);
    figure("profile_of_step", sum / step_seconds);
    figure("matrix_share", matrix / sum);
    figure("attention_share", attention / sum);
    figure("elementwise_share", element / sum);
    figure("elementwise_softmax_share", (element + softmax) / sum);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

void profile(bench *b, double step_seconds)
{
    const options *o = &b->o;
    const size_t n = (size_t)(o->image / o->patch)
        * (size_t)(o->image / o->patch);
    const size_t rows = (size_t)o->batch * n * 2, D = (size_t)o->dim;
    const size_t V = (size_t)o->vocab;
    size_t count = (size_t)o->batch * 3 * (size_t)o->image
        * (size_t)o->image;
    static profiler f;
    smask_ctx c;
    smask_sizes sizes;

    count = larger(count, larger(larger(rows, 4 * D) * 4 * D,
        larger(D, HEAD_ROWS) * V));
    f.b = b;
    f.m.o = o;
    f.values = f.m.images = random_floats(count, o->seed);
    f.index = (int32_t *)allocate(rows * sizeof(int32_t));
    f.label = (int32_t *)allocate(rows * sizeof(int32_t));
    bench_context(b, &c, 0, profile_work, &f, &sizes);
    must(&c, profile_work(&c, &f), "the profile");
    print_rows(&f, step_seconds);
    smask_shutdown(&c);
    free((void *)f.values);
    free(f.index);
    free(f.label);
}
