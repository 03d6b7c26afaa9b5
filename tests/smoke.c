/* smoke.c: a short run of every part, under all macros, compilers and flags
   that tests/matrix.sh builds it with; C99 and C++11. Prints the sizes of
   the public structs, which no macro may change. */
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include "test.h"

enum { SIDE = 8, IMAGES = 4, PIXELS = 3 * SIDE * SIDE };

static float images[IMAGES * PIXELS];
static unsigned char arena[4 << 20];

#ifdef SPLITMASK_CBLAS
/* The CBLAS hook, with three plain loops. */
#ifdef __cplusplus
extern "C"
#endif
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k,
    float alpha, const float *a, int lda, const float *b, int ldb,
    float beta, float *c, int ldc)
{
    int i, j, p;

    (void)order;                         /* 101: by rows                   */
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++) {
            float sum = 0;
            for (p = 0; p < k; p++)
                sum += (trans_a == 112 ? a[p * lda + i] : a[i * lda + p])
                    * (trans_b == 112 ? b[j * ldb + p] : b[p * ldb + j]);
            sum *= alpha;
            c[i * ldc + j] = beta == 0 ? sum : sum + beta * c[i * ldc + j];
        }
}
#endif

static smask_vit_desc model_of(void)
{
    smask_vit_desc d;

    memset(&d, 0, sizeof d);
    d.image = SIDE;
    d.dim = 24;
    d.depth = 2;
    d.heads = 3;
    d.vocabulary = 16;
    d.decoder_depth = 1;
    d.classes = 5;
    return d;
}

static smask_desc desc_of(int isa)
{
    smask_desc d;

    memset(&d, 0, sizeof d);
    d.memory = arena;
    d.memory_size = sizeof arena;
    d.isa = (smask_isa)isa;
    return d;
}

/* Products of whole numbers are exact with any instruction set. */
static void products(void)
{
    static float a[33 * 50], b[41 * 50], out[33 * 41];
    int isa, i, j, p;

    for (i = 0; i < 33 * 50; i++) a[i] = (float)(i * 7 % 9 - 4);
    for (i = 0; i < 41 * 50; i++) b[i] = (float)(i * 5 % 7 - 3);
    for (isa = 0; isa < SMASK_ISA_COUNT; isa++) {
        const smask_desc desc = desc_of(isa);
        smask_ctx c;
        int wrong = 0;
        if (smask_setup(&c, &desc) != SMASK_OK) {
            SAME(smask_error(&c), SMASK_ARG);
            CHECK(isa > SMASK_ISA_SCALAR);
            continue;
        }
        SAME(smask_gemm(&c, SMASK_NT, 33, 41, 50, a, 50, b, 50, out, 41, 0),
            SMASK_OK);
        for (i = 0; i < 33; i++)
            for (j = 0; j < 41; j++) {
                float sum = 0;
                for (p = 0; p < 50; p++) sum += a[i * 50 + p] * b[j * 50 + p];
                wrong += out[i * 41 + j] != sum;
            }
        SAME(wrong, 0);
        smask_shutdown(&c);
    }
}

/* A few values of GELU, for each instruction set. */
static void gelu(void)
{
    static const float x[9] = { -30, -3, -1, -0.25f, 0, 0.25f, 1, 3, 30 };
    static const float right[9] = { 0, -0.00404969f, -0.15865526f,
        -0.10032343f, 0, 0.14967657f, 0.84134474f, 2.99595031f, 30 };
    int isa, i;

    for (isa = 0; isa < SMASK_ISA_COUNT; isa++) {
        const smask_desc desc = desc_of(isa);
        smask_ctx c;
        smask_tensor *y;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        y = smask_gelu(&c, smask_input(&c, x, 9, 0, 0, 0));
        for (i = 0; CHECK(y != NULL) && i < 9; i++)
            NEAR(y->x[i], right[i], 4e-6);
        smask_shutdown(&c);
    }
}

/* Features come out, finite and different for different images. */
static void inference(void)
{
    float features[3 * IMAGES * 24];
    int isa, i, same = 0;

    for (isa = 0; isa < SMASK_ISA_COUNT; isa++) {
        const smask_vit_desc model = model_of();
        smask_desc desc = desc_of(isa);
        smask_ctx c;
        smask_vit v;
        desc.inference = 1;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
        SAME(smask_vit_features(&c, &v, images, IMAGES, features), SMASK_OK);
        for (i = 0; i < 3 * IMAGES * 24; i++)
            CHECK(features[i] > -100 && features[i] < 100);
        for (i = 0; i < 24; i++)
            same += features[2 * IMAGES * 24 + i]
                == features[2 * IMAGES * 24 + 24 + i];
        CHECK(same < 12);
        SAME(smask_error(&c), SMASK_OK);
        smask_shutdown(&c);
    }
}

#ifndef SPLITMASK_NO_AUTOGRAD
typedef struct job { int steps; smask_losses first, last; } job;

static smask_result train(smask_ctx *c, void *user)
{
    const smask_vit_desc model = model_of();
    job *j = (job *)user;
    smask_tokenizer_desc codebook;
    smask_vit v;
    smask_tokenizer t;
    smask_adam a;
    int step;

    memset(&codebook, 0, sizeof codebook);
    codebook.image = SIDE;
    codebook.vocabulary = 16;
    smask_vit_init(c, &v, &model);
    smask_tokenizer_init(c, &t, &codebook);
    smask_adam_init(c, &a, NULL, &v.params);
    for (step = 0; step < (smask_is_dry(c) ? 1 : j->steps); step++) {
        smask_tensor *loss;
        smask_begin_step(c);
        loss = smask_splitmask_loss(c, &v, &t, NULL, images, IMAGES,
            &j->last);
        if (smask_backward(c, loss) == SMASK_OK)
            smask_adam_update(c, &a, &v.params);
        smask_end_step(c);
        if (step == 0) j->first = j->last;
    }
    return smask_error(c);
}

/* Plan, then train in exactly that size; one byte less is too little. */
static void training(void)
{
    smask_sizes sizes;
    smask_desc desc;
    smask_ctx c;
    job j;
    int isa;

    for (isa = 0; isa < SMASK_ISA_COUNT; isa++) {
        memset(&j, 0, sizeof j);
        j.steps = 30;
        desc = desc_of(isa);
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        smask_shutdown(&c);
        SAME(smask_plan(&desc, train, &j, &sizes), SMASK_OK);
        CHECK(sizes.bytes > 10000 && sizes.bytes <= sizeof arena);
        desc.memory_size = sizes.bytes;
        SAME(smask_setup(&c, &desc), SMASK_OK);
        SAME(train(&c, &j), SMASK_OK);
        CHECK(j.last.total > 0 && j.last.total < j.first.total);
        smask_shutdown(&c);
        desc.memory_size--;
        j.steps = 1;
        SAME(smask_setup(&c, &desc), SMASK_OK);
        SAME(train(&c, &j), SMASK_MEMORY);
        smask_shutdown(&c);
    }
}

/* A NaN is found even where the compiler assumes that there is none. */
static void not_a_number(void)
{
    const uint32_t nan = 0x7fc00000u;
    smask_desc desc = desc_of(SMASK_ISA_AUTO);
    const float keep = images[7];
    smask_ctx c;
    job j;

    memset(&j, 0, sizeof j);
    j.steps = 1;
    memcpy(&images[7], &nan, sizeof nan);
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(train(&c, &j), SMASK_NUMERIC);
    images[7] = keep;
    smask_shutdown(&c);
}

static smask_tensor *some_loss(smask_ctx *c, void *user)
{
    static const float target[4] = { 0, 1, 0, 0 };
    smask_tensor *w = (smask_tensor *)user;
    smask_tensor *x = smask_input(c, images, 1, 6, 4, 0);

    x = smask_gelu(c, smask_linear(c, x, w, NULL));
    x = smask_l2_normalize(c, smask_add(c, x, smask_scale(c, x, 0.5f)));
    return smask_cross_entropy(c, smask_mean_tokens(c, x, 1), target);
}

static void gradient(void)
{
    const smask_desc desc = desc_of(SMASK_ISA_AUTO);
    smask_ctx c;
    smask_tensor *w;
    float worst = 1;
    int i;

    SAME(smask_setup(&c, &desc), SMASK_OK);
    w = smask_parameter(&c, 4, 4, 0, 0);
    for (i = 0; CHECK(w != NULL) && i < 16; i++)
        w->x[i] = smask_normal(&c.random);
    SAME(smask_gradcheck(&c, w, some_loss, w, 16, 1e-2f, &worst), SMASK_OK);
    CHECK(worst < 2e-2f);
    smask_shutdown(&c);
}
#endif

/* A file in memory. */
typedef struct tape { unsigned char byte[300000]; size_t end, at; } tape;

static size_t tape_write(void *user, const void *data, size_t bytes)
{
    tape *t = (tape *)user;

    if (bytes > sizeof t->byte - t->end) bytes = sizeof t->byte - t->end;
    memcpy(t->byte + t->end, data, bytes);
    t->end += bytes;
    return bytes;
}

static size_t tape_read(void *user, void *data, size_t bytes)
{
    tape *t = (tape *)user;

    if (bytes > t->end - t->at) bytes = t->end - t->at;
    memcpy(data, t->byte + t->at, bytes);
    t->at += bytes;
    return bytes;
}

static void files(void)
{
    static tape t;
    const smask_desc desc = desc_of(SMASK_ISA_AUTO);
    const smask_vit_desc model = model_of();
    smask_vit_desc found;
    smask_io io;
    smask_ctx c;
    smask_vit v, w;
    smask_file f;
    int32_t missing = -1, i;

    memset(&io, 0, sizeof io);
    io.read = tape_read;
    io.write = tape_write;
    io.user = &t;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    SAME(smask_write(&c, &io, &v, NULL, NULL, NULL, NULL, 0), SMASK_OK);
    SAME(smask_open(&c, &f, &io), SMASK_OK);
    SAME(smask_read_vit_desc(&c, &f, &found), SMASK_OK);
    SAME(found.dim, 24);
    SAME(found.heads, 3);
    SAME(smask_vit_init(&c, &w, &found), SMASK_OK);
    SAME(smask_read(&c, &f, &w, NULL, NULL, NULL, &missing), SMASK_OK);
    SAME(missing, 0);
    SAME(w.params.count, v.params.count);
    for (i = 0; i < v.params.count && i < w.params.count; i++)
        CHECK(memcmp(v.params.item[i].t->x, w.params.item[i].t->x,
            smask_count(v.params.item[i].t) * sizeof(float)) == 0);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* A build without texts, threads or malloc. */
static void options(void)
{
    smask_ctx c;
    smask_desc desc = desc_of(SMASK_ISA_AUTO);
    float x[2] = { 0 };

#ifdef SPLITMASK_THREADS
    smask_threads pool;
#ifdef SPLITMASK_NO_MALLOC
    SAME(smask_threads_start(&pool, 2), SMASK_MEMORY);  /* it needs some      */
#else
    SAME(smask_threads_start(&pool, 2), SMASK_OK);
    desc.parallel = smask_threads_hook(&pool);
#endif
#endif
    SAME(smask_setup(&c, &desc), SMASK_OK);
    CHECK(smask_add(&c, smask_input(&c, x, 2, 0, 0, 0),
        smask_input(&c, x, 1, 0, 0, 0)) == NULL);
    SAME(smask_error(&c), SMASK_SHAPE);
#ifndef SPLITMASK_NO_TEXT
    CHECK(smask_detail(&c)[0] != '\0');
    CHECK_TEXT(smask_result_text(SMASK_OK), "ok");
#endif
    smask_shutdown(&c);
#if defined(SPLITMASK_THREADS) && !defined(SPLITMASK_NO_MALLOC)
    smask_threads_stop(&pool);
#endif
#ifdef SPLITMASK_NO_MALLOC
    SAME(smask_setup(&c, NULL), SMASK_MEMORY);
#else
    SAME(smask_setup(&c, NULL), SMASK_OK);
#endif
    smask_shutdown(&c);
}

#define SIZE(type) (unsigned long)sizeof(type)

int main(void)
{
    int i;

    for (i = 0; i < IMAGES * PIXELS; i++)
        images[i] = (float)(i * 7 % 31 + i / PIXELS * 5) / 12 - 1.5f;
    printf("sizes %lu %lu %lu %lu %lu %lu %lu %lu %lu %lu %lu %lu %lu %lu\n",
        SIZE(smask_ctx), SIZE(smask_desc), SIZE(smask_tensor), SIZE(smask_vit),
        SIZE(smask_vit_desc), SIZE(smask_block), SIZE(smask_tokenizer),
        SIZE(smask_losses), SIZE(smask_mask), SIZE(smask_adam),
        SIZE(smask_param), SIZE(smask_file), SIZE(smask_ema),
        SIZE(smask_user_op));
    RUN(products);
    RUN(gelu);
    RUN(inference);
#ifndef SPLITMASK_NO_AUTOGRAD
    RUN(training);
    RUN(not_a_number);
    RUN(gradient);
#endif
    RUN(files);
    RUN(options);
    return DONE("smoke");
}
