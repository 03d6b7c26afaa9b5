/* test_masks.c: chapter 10. The block sampler against simulations of BEiT's
   own code; exact counts on every grid; views that cover every patch once;
   uniform choices. Statistics are of fixed sequences, with bounds of five
   standard deviations, so each check always passes or always fails. */
#include "splitmask.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------- block sampler */

typedef struct tally { double full, mean; int32_t min, max; } tally;

static tally draw_many(int32_t side, int32_t target, int32_t min,
    int32_t max, int draws)
{
    static uint8_t mask[32 * 32];
    tally t = { 0, 0, 1 << 30, 0 };
    smask_random r;
    int32_t count, marks, k;
    int i, lies = 0;

    smask_seed(&r, 10, (uint64_t)target);
    for (i = 0; i < draws; i++) {
        memset(mask, 7, sizeof mask);    /* old values must not matter     */
        count = smask_mask_blocks(&r, side, side, target, min, max, mask);
        for (marks = 0, k = 0; k < side * side; k++) {
            marks += mask[k] == 1;
            lies += mask[k] > 1;
        }
        lies += marks != count || mask[k] != 7;
        t.full += count == target;
        t.mean += count;
        if (count < t.min) t.min = count;
        if (count > t.max) t.max = count;
    }
    CHECK(lies == 0);
    t.full /= draws;
    t.mean /= draws;
    return t;
}

/* Simulations of BEiT's code: 75 of 196 in 66 % of all draws, 74.5 on
   average, never below 62. The numbers are rounded, and so are ours: half
   a unit of the last digit, and five standard deviations of the sample. */
static void beit_sampler(void)
{
    const int draws = 100000;
    const tally t = draw_many(14, 75, 16, 75, draws);
    const double spread = 5 / sqrt((double)draws);

    NEAR(t.full, 0.66, 0.005 + spread * sqrt(0.66 * 0.34));
    NEAR(t.mean, 74.5, 0.05 + spread * 2);
    CHECK(t.min >= 60 && t.min <= 66);
    CHECK(t.max == 75);
}

/* The paper's half and half with blocks of 16 to 75: 30 % fall short. */
static void half_sampler(void)
{
    const int draws = 100000;
    const tally t = draw_many(14, 98, 16, 75, draws);
    const double spread = 5 / sqrt((double)draws);

    NEAR(1 - t.full, 0.30, 0.005 + spread * sqrt(0.30 * 0.70));
    NEAR(t.mean, 97.6, 0.05 + spread * 2);
    CHECK(t.min >= 81 && t.min <= 88);
    CHECK(t.max == 98);
}

/* The same fractions on 8 x 8: half of 64 in 95 %. */
static void small_sampler(void)
{
    const int draws = 50000;
    const tally t = draw_many(8, 32, 5, 24, draws);

    NEAR(t.full, 0.95, 0.005 + 5 * sqrt(0.95 * 0.05 / draws));
    CHECK(t.max == 32);
}

/* Positions are uniform, so the map of how often each patch is masked has
   the symmetries of the square, and its middle is masked the most. */
static void sampler_is_symmetric(void)
{
    enum { SIDE = 14, DRAWS = 40000 };
    static uint8_t mask[SIDE * SIDE];
    static double map[SIDE][SIDE];
    double bound = 5 * sqrt(2 * 0.25 / DRAWS);
    smask_random r;
    int i, y, x;

    smask_seed(&r, 11, 0);
    for (i = 0; i < DRAWS; i++) {
        smask_mask_blocks(&r, SIDE, SIDE, 75, 16, 75, mask);
        for (y = 0; y < SIDE; y++)
            for (x = 0; x < SIDE; x++)
                map[y][x] += mask[y * SIDE + x] / (double)DRAWS;
    }
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            NEAR(map[y][x], map[SIDE - 1 - y][x], bound);
            NEAR(map[y][x], map[y][SIDE - 1 - x], bound);
            NEAR(map[y][x], map[x][y], bound);
        }
    CHECK(map[7][7] > map[0][0] + 0.1);
}

/* Rectangles hide neighbours together: of two patches side by side, both
   are masked, or both visible, far more often than if drawn independently. */
static void blocks_are_blocks(void)
{
    enum { SIDE = 14, DRAWS = 500 };
    static uint8_t mask[SIDE * SIDE];
    double alike = 0;
    smask_random r;
    int i, y, x;

    smask_seed(&r, 12, 0);
    for (i = 0; i < DRAWS; i++) {
        smask_mask_exact(&r, SIDE, SIDE, 98, 0, 0, mask);
        for (y = 0; y < SIDE; y++)
            for (x = 1; x < SIDE; x++)
                alike += mask[y * SIDE + x] == mask[y * SIDE + x - 1];
    }
    alike /= (double)DRAWS * SIDE * (SIDE - 1);
    CHECK(alike > 0.8);
    /* Areas below one patch count as one: no root of a negative number. */
    SAME(smask_mask_blocks(&r, SIDE, SIDE, 5, -3, -7, mask), 5);
}

/* BEiT's blocks are smaller than the grid both ways: in a single row
   none fits. */
static void no_block_spans_the_grid(void)
{
    uint8_t mask[20];
    smask_random r;
    int i, hidden = 0;

    smask_seed(&r, 16, 0);
    for (i = 0; i < 1000; i++) {
        hidden += smask_mask_blocks(&r, 1, 20, 10, 1, 10, mask);
        hidden += smask_mask_blocks(&r, 20, 1, 10, 1, 10, mask);
    }
    SAME(hidden, 0);
}

/* Any target on any rectangle, even where no block fits or `min` is
   more than the target. */
static void exact_everywhere(void)
{
    static uint8_t mask[12 * 12 + 1];
    int32_t rows, columns, target, k, count;
    smask_random r;
    int wrong = 0;

    smask_seed(&r, 13, 0);
    for (rows = 1; rows <= 12; rows++)
        for (columns = 1; columns <= 12; columns++)
            for (target = 0; target <= rows * columns; target++) {
                mask[rows * columns] = 9;
                smask_mask_exact(&r, rows, columns, target,
                    target % 3 == 0 ? 0 : 4, target % 5 == 0 ? 0 : 20, mask);
                for (count = 0, k = 0; k < rows * columns; k++) {
                    count += mask[k] == 1;
                    wrong += mask[k] > 1;
                }
                wrong += count != target;
                wrong += mask[rows * columns] != 9;
            }
    CHECK(wrong == 0);
}

/* --------------------------------------------------------------- lists */

/* Number of errors in a mask: each view's lists rise, stay in
   range, and together hold every patch once. */
static int faults(const smask_mask *m)
{
    static unsigned char at[32 * 32];
    int wrong = 0, k;
    int32_t b, i;

    for (k = 0; k < m->branches; k++) {
        wrong += m->visible[k] + m->masked[k] != m->N;
        wrong += m->visible[k] < 1 || m->masked[k] < 1;
        for (b = 0; b < m->B; b++) {
            const int32_t *visible = m->visible_at[k] + b * m->visible[k];
            const int32_t *masked = m->masked_at[k] + b * m->masked[k];
            memset(at, 0, sizeof at);
            for (i = 0; i < m->visible[k]; i++) {
                wrong += visible[i] < 0 || visible[i] >= m->N;
                wrong += i > 0 && visible[i] <= visible[i - 1];
                if (visible[i] >= 0 && visible[i] < m->N) at[visible[i]]++;
            }
            for (i = 0; i < m->masked[k]; i++) {
                wrong += masked[i] < 0 || masked[i] >= m->N;
                wrong += i > 0 && masked[i] <= masked[i - 1];
                if (masked[i] >= 0 && masked[i] < m->N) at[masked[i]]++;
            }
            for (i = 0; i < m->N; i++) wrong += at[i] != 1;
        }
    }
    return wrong;
}

/* How many patches are visible to both A and B. */
static int32_t shared(const smask_mask *m)
{
    int32_t b, i, j, count = 0;

    for (b = 0; b < m->B; b++)
        for (i = 0; i < m->visible[0]; i++)
            for (j = 0; j < m->visible[1]; j++)
                count += m->visible_at[0][b * m->visible[0] + i]
                    == m->visible_at[1][b * m->visible[1] + j];
    return count;
}

static void split_in_two(void)
{
    static const float ratio[] = { 0, 0.001f, 0.1f, 0.3f, 0.5f, 0.75f,
        0.999f };
    const int kinds = 2;
    int32_t grid;
    smask_mask m;
    smask_ctx c;
    int kind, k;

    smask_setup(&c, NULL);
    for (grid = 2; grid <= 32; grid++)
        for (kind = 0; kind < kinds; kind++)
            for (k = 0; k < 7; k++) {
                const int32_t N = grid * grid;
                const double share = ratio[k] > 0 ? (double)ratio[k] : 0.5;
                int32_t want = (int32_t)floor(share * N + 0.5);
                if (want < 1) want = 1;
                if (want > N - 1) want = N - 1;
                smask_begin_step(&c);
                SAME(smask_mask_split(&c, 3, grid, (smask_mask_kind)kind,
                    ratio[k], &m), SMASK_OK);
                SAME(m.B, 3);
                SAME(m.N, N);
                SAME(m.branches, 2);
                CHECK(abs(m.visible[1] - want) <= (ratio[k] > 0 ? 1 : 0));
                SAME(m.visible[0] + m.visible[1], N);
                SAME(m.masked[0], m.visible[1]);
                SAME(faults(&m), 0);
                CHECK(memcmp(m.masked_at[0], m.visible_at[1],
                    3 * (size_t)m.visible[1] * sizeof(int32_t)) == 0);
                CHECK(memcmp(m.masked_at[1], m.visible_at[0],
                    3 * (size_t)m.visible[0] * sizeof(int32_t)) == 0);
                smask_end_step(&c);
            }
    smask_shutdown(&c);
}

static void quarters(void)
{
    int32_t grid, met = 0;
    smask_mask m;
    smask_ctx c;
    int kind;

    smask_setup(&c, NULL);
    for (grid = 2; grid <= 32; grid++)
        for (kind = SMASK_MASK_QUARTERS; kind <= SMASK_MASK_INDEPENDENT;
                kind++) {
            smask_begin_step(&c);
            SAME(smask_mask_split(&c, 3, grid, (smask_mask_kind)kind, 0, &m),
                SMASK_OK);
            SAME(m.branches, 2);
            SAME(m.visible[0], grid * grid / 4);
            SAME(m.visible[1], grid * grid / 4);
            SAME(m.masked[0], grid * grid - grid * grid / 4);
            SAME(faults(&m), 0);
            if (kind == SMASK_MASK_QUARTERS) SAME(shared(&m), 0);
            else met += shared(&m);
            smask_end_step(&c);
        }
    CHECK(met > 0);
    smask_shutdown(&c);
}

static void beit(void)
{
    int32_t grid;
    smask_mask m;
    smask_ctx c;
    int kind;

    smask_setup(&c, NULL);
    for (grid = 2; grid <= 32; grid++)
        for (kind = 0; kind < 2; kind++) {
            const int32_t N = grid * grid;
            smask_begin_step(&c);
            SAME(smask_mask_beit(&c, 4, grid, (smask_mask_kind)kind, 0, &m),
                SMASK_OK);
            SAME(m.branches, 1);
            SAME(m.masked[0], (int32_t)floor(N * 75 / 196.0 + 0.5));
            SAME(faults(&m), 0);
            SAME(m.visible[1], 0);
            SAME(m.masked[1], 0);
            CHECK(m.visible_at[1] == NULL && m.masked_at[1] == NULL);
            SAME(smask_mask_beit(&c, 4, grid, (smask_mask_kind)kind, 0.25f,
                &m), SMASK_OK);
            SAME(m.masked[0], (int32_t)floor(N * 0.25 + 0.5));
            SAME(faults(&m), 0);
            smask_end_step(&c);
        }
    smask_shutdown(&c);
}

/* The paper's grid in the paper's numbers. */
static void paper_counts(void)
{
    smask_mask m;
    smask_ctx c;

    smask_setup(&c, NULL);
    smask_mask_split(&c, 1, 14, SMASK_MASK_BLOCKS, 0, &m);
    SAME(m.visible[0], 98);
    SAME(m.visible[1], 98);
    smask_mask_beit(&c, 1, 14, SMASK_MASK_BLOCKS, 0, &m);
    SAME(m.masked[0], 75);
    smask_mask_split(&c, 1, 14, SMASK_MASK_QUARTERS, 0.75f, &m);
    SAME(m.visible[0], 49);
    SAME(m.masked[1], 147);
    smask_shutdown(&c);
}

/* ------------------------------------------------------------ fairness */

#define GRID 4
#define N (GRID * GRID)
#define IMAGES 40000

/* How often patch i is visible to A and patch j to view `other`. */
static void count_pairs(smask_mask_kind kind, int other, double pair[N][N])
{
    smask_desc desc = { 0 };
    smask_mask m;
    smask_ctx c;
    int32_t b, i, j;

    desc.seed = 14;
    smask_setup(&c, &desc);
    memset(pair, 0, N * N * sizeof(double));
    SAME(smask_mask_split(&c, IMAGES, GRID, kind, 0, &m), SMASK_OK);
    for (b = 0; b < IMAGES && smask_error(&c) == SMASK_OK; b++)
        for (i = 0; i < m.visible[0]; i++)
            for (j = 0; j < m.visible[other]; j++)
                pair[m.visible_at[0][b * m.visible[0] + i]]
                    [m.visible_at[other][b * m.visible[other] + j]]
                    += 1.0 / IMAGES;
    smask_shutdown(&c);
}

static double five_deviations(double p)
{
    return 5 * sqrt(p * (1 - p) / IMAGES);
}

/* Each patch in half of the views, each pair in 8 * 7 of 16 * 15. */
static void uniform_is_fair(void)
{
    static double pair[N][N];
    const double p = 8 * 7 / (16.0 * 15);
    int i, j;

    count_pairs(SMASK_MASK_UNIFORM, 0, pair);
    for (i = 0; i < N; i++)
        for (j = 0; j < N; j++)
            NEAR(pair[i][j], i == j ? 0.5 : p, five_deviations(p));
}

/* i in A's quarter and j in B's: 4 * 4 of 16 * 15, and never i = j. */
static void quarters_are_fair(void)
{
    static double pair[N][N];
    const double p = 4 * 4 / (16.0 * 15);
    int i, j;

    count_pairs(SMASK_MASK_QUARTERS, 1, pair);
    for (i = 0; i < N; i++)
        for (j = 0; j < N; j++)
            NEAR(pair[i][j], i == j ? 0 : p, five_deviations(p));
}

/* Two independent quarters: 1/16 for every pair. */
static void independent_is_independent(void)
{
    static double pair[N][N];
    int i, j;

    count_pairs(SMASK_MASK_INDEPENDENT, 1, pair);
    for (i = 0; i < N; i++)
        for (j = 0; j < N; j++)
            NEAR(pair[i][j], 1 / 16.0, five_deviations(1 / 16.0));
}

/* ------------------------------------------------- context and errors */

static void same_seed_same_masks(void)
{
    smask_desc desc = { 0 };
    smask_mask a, b, other;
    smask_ctx c, d;
    size_t bytes;

    desc.seed = 15;
    smask_setup(&c, &desc);
    smask_setup(&d, &desc);
    smask_mask_split(&c, 5, 8, SMASK_MASK_BLOCKS, 0, &a);
    smask_mask_split(&d, 5, 8, SMASK_MASK_BLOCKS, 0, &b);
    smask_mask_split(&d, 5, 8, SMASK_MASK_BLOCKS, 0, &other);
    bytes = 5 * (size_t)a.visible[0] * sizeof(int32_t);
    CHECK(memcmp(a.visible_at[0], b.visible_at[0], bytes) == 0);
    CHECK(memcmp(a.visible_at[0], other.visible_at[0], bytes) != 0);
    CHECK(memcmp(a.visible_at[0], a.visible_at[0] + a.visible[0], bytes / 5)
        != 0);
    smask_shutdown(&c);
    smask_shutdown(&d);
}

static smask_mask planned[3];

static smask_result all_kinds(smask_ctx *c, void *user)
{
    (void)user;
    smask_begin_step(c);
    smask_mask_split(c, 7, 9, SMASK_MASK_BLOCKS, 0.3f, &planned[0]);
    smask_mask_split(c, 7, 9, SMASK_MASK_QUARTERS, 0, &planned[1]);
    smask_mask_beit(c, 7, 9, SMASK_MASK_UNIFORM, 0, &planned[2]);
    smask_end_step(c);
    return smask_error(c);
}

/* The dry run sets the counts, makes no lists, draws nothing, and counts
   the bytes exactly. */
static void dry_run(void)
{
    smask_desc desc = { 0 };
    smask_mask dry[3];
    smask_sizes sizes;
    smask_ctx c;
    int k;

    SAME(smask_plan(NULL, all_kinds, NULL, &sizes), SMASK_OK);
    memcpy(dry, planned, sizeof dry);
    desc.memory_size = sizes.bytes;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(all_kinds(&c, NULL), SMASK_OK);
    smask_shutdown(&c);
    for (k = 0; k < 3; k++) {
        CHECK(dry[k].visible_at[0] == NULL && dry[k].masked_at[0] == NULL);
        CHECK(memcmp(dry[k].visible, planned[k].visible,
            sizeof dry[k].visible) == 0);
        CHECK(memcmp(dry[k].masked, planned[k].masked,
            sizeof dry[k].masked) == 0);
        SAME(dry[k].branches, planned[k].branches);
    }
    desc.memory_size = sizes.bytes - 64;
    if (smask_setup(&c, &desc) == SMASK_OK)
        SAME(all_kinds(&c, NULL), SMASK_MEMORY);
    smask_shutdown(&c);
}

static void refuse(smask_ctx *c, smask_result result)
{
    SAME(result, SMASK_ARG);
    SAME(smask_error(c), SMASK_ARG);
#ifndef SPLITMASK_NO_TEXT
    CHECK(smask_detail(c)[0] != '\0');
#endif
    smask_clear(c);
}

static void errors(void)
{
    const smask_mask_kind no_kind = (smask_mask_kind)7;
    smask_mask m;
    smask_ctx c;

    smask_setup(&c, NULL);
    refuse(&c, smask_mask_split(&c, 0, 8, SMASK_MASK_BLOCKS, 0, &m));
    refuse(&c, smask_mask_split(&c, 1, 1, SMASK_MASK_BLOCKS, 0, &m));
    refuse(&c, smask_mask_split(&c, 1, 0, SMASK_MASK_BLOCKS, 0, &m));
    refuse(&c, smask_mask_split(&c, 1, -3, SMASK_MASK_BLOCKS, 0, &m));
    refuse(&c, smask_mask_split(&c, 1, 50000, SMASK_MASK_BLOCKS, 0, &m));
    refuse(&c, smask_mask_split(&c, 1, 8, SMASK_MASK_BLOCKS, 1, &m));
    refuse(&c, smask_mask_split(&c, 1, 8, SMASK_MASK_UNIFORM, -0.1f, &m));
    refuse(&c, smask_mask_split(&c, 1, 8, no_kind, 0, &m));
    refuse(&c, smask_mask_beit(&c, 1, 8, SMASK_MASK_QUARTERS, 0, &m));
    refuse(&c, smask_mask_beit(&c, 1, 8, no_kind, 0, &m));
    refuse(&c, smask_mask_beit(&c, 1, 1, SMASK_MASK_BLOCKS, 0, &m));
    SAME(smask_mask_split(&c, 1, 2, SMASK_MASK_BLOCKS, 0, &m), SMASK_OK);
    smask_shutdown(&c);
}

int main(void)
{
    RUN(beit_sampler);
    RUN(half_sampler);
    RUN(small_sampler);
    RUN(sampler_is_symmetric);
    RUN(blocks_are_blocks);
    RUN(no_block_spans_the_grid);
    RUN(exact_everywhere);
    RUN(split_in_two);
    RUN(quarters);
    RUN(beit);
    RUN(paper_counts);
    RUN(uniform_is_fair);
    RUN(quarters_are_fair);
    RUN(independent_is_independent);
    RUN(same_seed_same_masks);
    RUN(dry_run);
    RUN(errors);
    return DONE("test_masks");
}
