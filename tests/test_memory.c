/* test_memory.c: chapter 2, and the promise of the plan. A training step in
   every arena that is too small fails with MEMORY and touches nothing
   outside; in the planned one it succeeds; one byte less is too small. */
#include "splitmask.h"
#include "test.h"
#include <stdlib.h>

/* ----------------------------------------------------------- a program
   All that a user does: model, tokenizer, optimiser, steps. */

enum { SIDE = 8, IMAGES = 3 };

typedef struct job {
    int beit, steps;
    int32_t batch, recompute;
    smask_losses out;
    const smask_tensor *last;            /* newest node at the end         */
} job;

static float images[IMAGES * SIDE * SIDE];

static smask_result train(smask_ctx *c, void *user)
{
    job *j = (job *)user;
    smask_vit_desc model;
    smask_tokenizer_desc words;
    smask_vit v;
    smask_tokenizer t;
    smask_adam a;
    int step, steps = smask_is_dry(c) ? 1 : j->steps;

    memset(&model, 0, sizeof model);
    memset(&words, 0, sizeof words);
    model.image = words.image = SIDE;
    model.patch = words.patch = 2;
    model.channels = words.channels = 1;
    model.dim = 16;
    model.depth = 2;
    model.heads = 2;
    model.mlp_ratio = 2;
    model.vocabulary = words.vocabulary = 24;
    model.decoder_depth = !j->beit;
    model.mask_token = j->beit;
    model.recompute = j->recompute;
    smask_vit_init(c, &v, &model);
    smask_tokenizer_init(c, &t, &words);
    smask_adam_init(c, &a, NULL, &v.params);
    for (step = 0; step < steps && smask_error(c) == SMASK_OK; step++) {
        smask_tensor *loss;
        smask_begin_step(c);
        loss = j->beit
            ? smask_beit_loss(c, &v, &t, NULL, images, j->batch, &j->out)
            : smask_splitmask_loss(c, &v, &t, NULL, images, j->batch,
                &j->out);
        if (smask_backward(c, loss) == SMASK_OK)
            smask_adam_update(c, &a, &v.params);
        j->last = c->last;
        smask_end_step(c);
    }
    return smask_error(c);
}

static job job_of(int beit, int32_t recompute)
{
    job j;
    size_t i;

    memset(&j, 0, sizeof j);
    j.beit = beit;
    j.steps = 2;
    j.batch = IMAGES;
    j.recompute = recompute;
    for (i = 0; i < IMAGES * SIDE * SIDE; i++)
        images[i] = (float)(i * 7 % 13) / 5 - 1.2f;
    return j;
}

/* A block with canaries on either side. */
#define MARGIN 256
static unsigned char field[(4 << 20) + 2 * MARGIN];

static void canaries_set(size_t offset, size_t bytes)
{
    memset(field + offset, 0xa5, MARGIN);
    memset(field + MARGIN + offset + bytes, 0xa5, MARGIN);
}

static int canaries_live(size_t offset, size_t bytes)
{
    size_t i;

    for (i = 0; i < MARGIN; i++)
        if (field[offset + i] != 0xa5
            || field[MARGIN + offset + bytes + i] != 0xa5) return 0;
    return 1;
}

/* Run the job in `bytes` bytes that begin `offset` after a 64-byte line. */
static smask_result run_in(size_t offset, size_t bytes, int nodes, job *j)
{
    smask_result result;
    smask_desc desc;
    smask_ctx c;

    offset += 64 - (size_t)((uintptr_t)(field + MARGIN) % 64);
    canaries_set(offset, bytes);
    memset(&desc, 0, sizeof desc);
    desc.memory = field + MARGIN + offset;
    desc.memory_size = bytes;
    desc.nodes = nodes;
    result = smask_setup(&c, &desc);
    if (result == SMASK_OK) result = train(&c, j);
    if (result == SMASK_OK) CHECK(c.low + c.high <= c.peak
        && c.peak <= c.size);
    smask_shutdown(&c);
    CHECK(canaries_live(offset, bytes));
    return result;
}

static smask_sizes plan_of(job *j)
{
    smask_sizes sizes;

    SAME(smask_plan(NULL, train, j, &sizes), SMASK_OK);
    return sizes;
}

/* ------------------------------------------------------------ alignment */

static void blocks_are_aligned(void)
{
    size_t offset, n, i;

    for (offset = 0; offset < 64; offset++) {
        unsigned char *before = NULL;
        smask_desc desc;
        smask_ctx c;
        memset(&desc, 0, sizeof desc);
        memset(field, 0xa5, 65536);
        desc.memory = field + offset;
        desc.memory_size = 50000;
        SAME(smask_setup(&c, &desc), SMASK_OK);
        for (n = 1; n < 200; n += 1 + n / 8) {
            unsigned char *p = (unsigned char *)smask_alloc(&c, n);
            if (!CHECK(p != NULL)) break;
            CHECK((uintptr_t)p % 64 == 0);
            CHECK(p >= field + offset && p + n <= field + offset + 50000);
            CHECK(before == NULL || p >= before);
            for (i = 0; i < n; i++) CHECK(p[i] == 0);
            memset(p, 0x5a, n);
            before = p + n;
        }
        smask_shutdown(&c);
    }
}

/* Values and gradients of every node of a training step. */
static void tensors_are_aligned(void)
{
    job j = job_of(0, 0);
    smask_desc desc;
    smask_ctx c;
    const smask_tensor *t;
    int nodes = 0;

    memset(&desc, 0, sizeof desc);
    desc.memory = field + 1;
    desc.memory_size = sizeof field - 1;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(train(&c, &j), SMASK_OK);
    for (t = j.last; t != NULL; t = t->previous, nodes++) {
        int i;
        if (t->op != SMASK_OP_INPUT) CHECK((uintptr_t)t->x % 64 == 0);
        CHECK((uintptr_t)t->dx % 64 == 0);
        for (i = 0; i < 3; i++) CHECK((uintptr_t)t->save[i] % 64 == 0);
        CHECK((uintptr_t)t % sizeof(void *) == 0);
    }
    CHECK(nodes > 40);
    smask_shutdown(&c);
}

/* ------------------------------------------------------------- the plan */

static void plan_is_exact(void)
{
    int beit, recompute;
    size_t offset;

    for (beit = 0; beit < 2; beit++)
        for (recompute = 0; recompute < 2; recompute++) {
            job j = job_of(beit, recompute);
            const smask_sizes s = plan_of(&j);
            smask_desc desc;
            smask_ctx c;
            CHECK(s.bytes > 1000 && s.nodes > 40);
            CHECK(s.kept_bytes + s.step_bytes <= s.bytes);
            CHECK(s.kept_bytes + s.step_bytes + 256 >= s.bytes);
            for (offset = 0; offset < 64; offset++) {
                SAME(run_in(offset, s.bytes, 0, &j), SMASK_OK);
                SAME(run_in(offset, s.bytes - 1, 0, &j), SMASK_MEMORY);
            }
            SAME(run_in(0, s.bytes, s.nodes, &j), SMASK_OK);
            SAME(run_in(0, s.bytes, s.nodes - 1, &j), SMASK_NODES);

            /* In a larger arena the peak is the planned one. */
            memset(&desc, 0, sizeof desc);
            SAME(smask_setup(&c, &desc), SMASK_OK);
            SAME(train(&c, &j), SMASK_OK);
            CHECK(c.peak + 63 == s.bytes);
            SAME(c.peak_nodes, s.nodes);
            CHECK(c.step_peak == s.step_bytes);
            smask_shutdown(&c);
        }
}

/* A plan in the caller's block never calls the allocator. */
static void *no_alloc(void *user, size_t bytes)
{
    (void)bytes;
    ++*(int *)user;
    return NULL;
}

static void no_release(void *user, void *block)
{
    (void)block;
    ++*(int *)user;
}

static void plan_without_allocator(void)
{
    job j = job_of(0, 0);
    const smask_sizes right = plan_of(&j);
    smask_sizes s;
    smask_desc desc;
    int calls = 0;

    memset(&desc, 0, sizeof desc);
    desc.memory = field + 3;
    desc.memory_size = 256 * 1024;
    desc.allocator.alloc = no_alloc;
    desc.allocator.release = no_release;
    desc.allocator.user = &calls;
    SAME(smask_plan(&desc, train, &j, &s), SMASK_OK);
    SAME(calls, 0);
    CHECK(s.bytes == right.bytes && s.nodes == right.nodes);
    CHECK(s.kept_bytes == right.kept_bytes);
    CHECK(s.step_bytes == right.step_bytes);
    desc.memory_size = 1000;             /* too little for the nodes       */
    SAME(smask_plan(&desc, train, &j, &s), SMASK_MEMORY);
    desc.memory = NULL;
    SAME(smask_plan(&desc, train, &j, &s), SMASK_MEMORY);
    SAME(calls, 1);
}

/* What a step sees in a dry run, and that its errors are reported. */
static smask_result look_around(smask_ctx *c, void *user)
{
    float x[4] = { 0 };
    smask_tensor *t;

    CHECK(smask_is_dry(c));
    CHECK(smask_alloc(c, 1000) == NULL && smask_error(c) == SMASK_OK);
    t = smask_parameter(c, 1000, 1000, 1000, 0);     /* 4 GB: only a number*/
    CHECK(t != NULL && t->x == NULL && smask_error(c) == SMASK_OK);
    smask_begin_step(c);
    t = smask_input(c, x, 2, 2, 0, 0);
    CHECK(t != NULL && t->x == NULL);
    CHECK(smask_input(c, NULL, 2, 2, 0, 0) != NULL);
    if (*(int *)user) smask_add(c, t, smask_input(c, x, 4, 0, 0, 0));
    smask_end_step(c);
    return SMASK_OK;                     /* the context remembers          */
}

static void dry_runs(void)
{
    smask_sizes s;
    int fail = 0;

    SAME(smask_plan(NULL, look_around, &fail, &s), SMASK_OK);
    CHECK(sizeof(size_t) < 8 || (uint64_t)s.bytes > 4000000000u);
    fail = 1;
    SAME(smask_plan(NULL, look_around, &fail, &s), SMASK_SHAPE);
}

/* More images need more; the kept part does not change. */
static void plans_grow(void)
{
    job j = job_of(0, 0);
    smask_sizes one, more;

    j.batch = 1;
    one = plan_of(&j);
    j.batch = 3;
    more = plan_of(&j);
    CHECK(more.step_bytes > one.step_bytes);
    CHECK(more.kept_bytes == one.kept_bytes);
    SAME(more.nodes, one.nodes);
    j.recompute = 1;
    one = plan_of(&j);
    CHECK(one.step_bytes < more.step_bytes);
}

/* ------------------------------------------------------ full everywhere
   All sizes below the plan in steps of a block, so that each allocation of
   the program is at some size the first that does not fit. */

static void full_at_each_allocation(void)
{
    int beit;

    for (beit = 0; beit < 2; beit++) {
        job j = job_of(beit, beit);
        const smask_sizes s = plan_of(&j);
        size_t bytes, wrong = 0;
        for (bytes = 0; bytes < s.bytes; bytes += 64)
            wrong += run_in(bytes / 64 % 64, bytes, 0, &j) != SMASK_MEMORY;
        SAME(wrong, 0);
    }
}

static void nodes_run_out(void)
{
    job j = job_of(0, 0);
    const smask_sizes s = plan_of(&j);
    int n;

    for (n = 1; n < s.nodes; n++)
        SAME(run_in(0, s.bytes, n, &j), SMASK_NODES);
    SAME(run_in(0, s.bytes, s.nodes, &j), SMASK_OK);
}

/* After a full arena, smask_clear allows smaller work. */
static void goes_on_when_full(void)
{
    smask_desc desc;
    smask_ctx c;
    smask_tensor *w;
    int i;

    memset(&desc, 0, sizeof desc);
    desc.memory = field;
    desc.memory_size = 20000;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    w = smask_parameter(&c, 16, 16, 0, 0);
    for (i = 0; i < 10; i++) {
        smask_begin_step(&c);
        CHECK(smask_alloc(&c, 30000) == NULL);
        SAME(smask_error(&c), SMASK_MEMORY);
        smask_end_step(&c);
        smask_clear(&c);
        smask_begin_step(&c);
        CHECK(smask_gelu(&c, w) != NULL);
        CHECK(smask_alloc(&c, 1000) != NULL);
        smask_end_step(&c);
        SAME(smask_error(&c), SMASK_OK);
    }
    smask_shutdown(&c);
}

/* ------------------------------------------------------------ extremes */

/* Sizes that overflow only when multiplied or added up. */
static smask_result too_many_pairs(smask_ctx *c, void *user)
{
    (void)user;
    smask_begin_step(c);
    smask_info_nce(c, smask_input(c, NULL, 65536, 65536, 1, 0), 1, 0, 0,
        NULL);
    return smask_error(c);
}

static smask_result too_many_rows(smask_ctx *c, void *user)
{
    smask_tensor *part[2];

    (void)user;
    smask_begin_step(c);
    part[0] = part[1] = smask_input(c, NULL, 1 << 30, 1, 0, 0);
    smask_join(c, part, 2);
    return smask_error(c);
}

static void absurd_sizes(void)
{
    smask_sizes planned;
    const int32_t max = 2147483647;
    const size_t sizes[] = { (size_t)-1, (size_t)-2, (size_t)-63,
        (size_t)-64, (size_t)-65, (size_t)-1 / 2, (size_t)-1 / 4,
        (size_t)1 << (sizeof(size_t) * 8 - 2) };
    size_t i;
    smask_ctx c;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK(smask_alloc(&c, sizes[i]) == NULL);
        SAME(smask_error(&c), SMASK_MEMORY);
        smask_clear(&c);
    }
    CHECK(smask_parameter(&c, max, max, max, max) == NULL);
    CHECK(smask_error(&c) == SMASK_MEMORY || smask_error(&c) == SMASK_SHAPE);
    smask_clear(&c);
    CHECK(smask_parameter(&c, max, max, 0, 0) == NULL);
    CHECK(smask_error(&c) == SMASK_MEMORY || smask_error(&c) == SMASK_SHAPE);
    smask_clear(&c);
    CHECK(smask_parameter(&c, max, 0, 0, 0) == NULL);
    SAME(smask_error(&c), SMASK_MEMORY);
    smask_clear(&c);
    CHECK(smask_parameter(&c, 65536, 65536, 65536, 65536) == NULL);
    CHECK(smask_error(&c) == SMASK_MEMORY || smask_error(&c) == SMASK_SHAPE);
    smask_clear(&c);
    CHECK(smask_alloc(&c, 0) != NULL || smask_error(&c) == SMASK_OK);
    CHECK(smask_alloc(&c, 64) != NULL);  /* nothing has changed            */
    smask_shutdown(&c);
    SAME(smask_plan(NULL, too_many_pairs, NULL, &planned), SMASK_MEMORY);
    SAME(smask_plan(NULL, too_many_rows, NULL, &planned), SMASK_SHAPE);
}

/* ----------------------------------------------------------- allocators */

typedef struct counter { int allocs, releases; size_t bytes; void *block; }
    counter;

static void *count_alloc(void *user, size_t bytes)
{
    counter *k = (counter *)user;

    k->allocs++;
    k->bytes = bytes;
    return k->block = malloc(bytes);
}

static void count_release(void *user, void *block)
{
    counter *k = (counter *)user;

    k->releases++;
    CHECK(block == k->block);
    free(block);
}

/* The allocator is called once at setup, the release once at shutdown. */
static void allocator_is_asked_once(void)
{
    job j = job_of(0, 0);
    const smask_sizes s = plan_of(&j);
    counter k;
    smask_desc desc;
    smask_ctx c;
    smask_sizes again;

    memset(&k, 0, sizeof k);
    memset(&desc, 0, sizeof desc);
    desc.allocator.alloc = count_alloc;
    desc.allocator.release = count_release;
    desc.allocator.user = &k;
    desc.memory_size = s.bytes;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(k.allocs, 1);
    CHECK(k.bytes >= s.bytes && k.bytes <= s.bytes + 64);
    SAME(train(&c, &j), SMASK_OK);
    SAME(k.allocs, 1);
    SAME(k.releases, 0);
    smask_shutdown(&c);
    SAME(k.releases, 1);

    memset(&k, 0, sizeof k);             /* the default size               */
    desc.memory_size = 0;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    CHECK(k.bytes >= (size_t)64 << 20);
    smask_shutdown(&c);
    SAME(k.allocs, 1);
    SAME(k.releases, 1);

    memset(&k, 0, sizeof k);             /* a plan releases, too           */
    SAME(smask_plan(&desc, train, &j, &again), SMASK_OK);
    SAME(k.allocs, 1);
    SAME(k.releases, 1);
    CHECK(again.bytes == s.bytes);

    /* With the caller's memory it is never called. */
    memset(&k, 0, sizeof k);
    desc.memory = field;
    desc.memory_size = sizeof field;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(train(&c, &j), SMASK_OK);
    smask_shutdown(&c);
    SAME(k.allocs, 0);
    SAME(k.releases, 0);
}

static void allocator_gives_nothing(void)
{
    smask_desc desc;
    smask_ctx c;
    float x[2] = { 0 };
    int calls = 0;

    memset(&desc, 0, sizeof desc);
    desc.allocator.alloc = no_alloc;
    desc.allocator.release = no_release;
    desc.allocator.user = &calls;
    SAME(smask_setup(&c, &desc), SMASK_MEMORY);
    CHECK(smask_alloc(&c, 10) == NULL);
    CHECK(smask_input(&c, x, 2, 0, 0, 0) == NULL);
    smask_shutdown(&c);
    SAME(calls, 1);                      /* nothing to release             */
}

/* Setup accepts or rejects a block of any size without a crash. */
static void tiny_blocks(void)
{
    size_t offset, bytes;

    for (offset = 0; offset < 64; offset += 7)
        for (bytes = 0; bytes < 400; bytes++) {
            smask_desc desc;
            smask_ctx c;
            float x[2] = { 0 };
            int i;
            canaries_set(offset, bytes);
            memset(&desc, 0, sizeof desc);
            desc.memory = field + MARGIN + offset;
            desc.memory_size = bytes;
            if (smask_setup(&c, &desc) != SMASK_OK)
                SAME(smask_error(&c), SMASK_MEMORY);
            for (i = 0; i < 10; i++) {
                smask_input(&c, x, 2, 0, 0, 0);
                smask_alloc(&c, 20);
            }
            SAME(smask_error(&c), SMASK_MEMORY);
            smask_shutdown(&c);
            CHECK(canaries_live(offset, bytes));
        }
}

int main(void)
{
    RUN(blocks_are_aligned);
    RUN(tensors_are_aligned);
    RUN(plan_is_exact);
    RUN(plan_without_allocator);
    RUN(dry_runs);
    RUN(plans_grow);
    RUN(full_at_each_allocation);
    RUN(nodes_run_out);
    RUN(goes_on_when_full);
    RUN(absurd_sizes);
    RUN(allocator_is_asked_once);
    RUN(allocator_gives_nothing);
    RUN(tiny_blocks);
    return DONE("test_memory");
}
