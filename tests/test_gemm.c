/* test_gemm.c: chapter 5, for every instruction set of the processor.

   Most of it uses small whole numbers: all products and sums are exact in
   float, so that the result has to be right to the last bit whatever the
   order of the sums, and a single element left out or taken twice shows.
   Real numbers are compared with sums in double. Operands end or begin at a
   page that cannot be read; what lies between their rows is NaN; what lies
   between the rows of C must stay as it is. */
#define SPLITMASK_THREADS
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include "guard.h"
#include "test.h"
#include <math.h>

static const char *const trans_name[3] = { "NN", "NT", "TN" };

/* One product: its form, sizes and operands. */
typedef struct product {
    smask_trans trans;
    size_t m, n, k, lda, ldb, ldc;
    int add;
    float *a, *b, *c;                    /* in guarded memory              */
} product;

static guard buffer_a, buffer_b, buffer_c;
#define CAPACITY ((size_t)1 << 21)       /* floats in each                 */

static size_t rows_of(size_t rows, size_t columns, size_t ld)
{
    return rows > 0 ? (rows - 1) * ld + columns : 0;
}

static float nan_of(void)
{
    const uint32_t bits = 0x7fc00000u;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Round to bfloat16: 8 significant bits, to nearest, ties to even. */
static float rounded(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    bits &= 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Rows of random numbers; NaN in the gaps. */
typedef enum numbers { REAL, WHOLE, COARSE } numbers;    /* WHOLE: -4 to 4 */
static void fill(smask_random *r, float *x, size_t rows, size_t columns,
    size_t ld, numbers kind)
{
    size_t i, j;

    for (i = 0; i < rows; i++)
        for (j = 0; j < ld && (i + 1 < rows || j < columns); j++) {
            const float y = kind == WHOLE ? (float)(int)smask_below(r, 9) - 4
                : 2 * smask_uniform(r) - 1;
            x[i * ld + j] = j >= columns ? nan_of()
                : kind == COARSE ? rounded(y) : y;
        }
}

/* Numbers that the products of this instruction set do not round. */
static numbers numbers_of(int isa)
{
    return isa == SMASK_ISA_BF16 ? COARSE : REAL;
}

/* Place and fill the operands. `pad`: floats between rows. */
static void lay_out(product *p, smask_random *r, size_t pad, int at_end,
    numbers kind)
{
    const size_t a_rows = p->trans == SMASK_TN ? p->k : p->m;
    const size_t a_columns = p->trans == SMASK_TN ? p->m : p->k;
    const size_t b_rows = p->trans == SMASK_NT ? p->n : p->k;
    const size_t b_columns = p->trans == SMASK_NT ? p->k : p->n;

    p->lda = a_columns + pad;
    p->ldb = b_columns + 2 * pad;
    p->ldc = p->n + 3 * pad;
    p->a = guard_at(&buffer_a, rows_of(a_rows, a_columns, p->lda), at_end);
    p->b = guard_at(&buffer_b, rows_of(b_rows, b_columns, p->ldb), at_end);
    p->c = guard_at(&buffer_c, rows_of(p->m, p->n, p->ldc), at_end);
    fill(r, p->a, a_rows, a_columns, p->lda, kind);
    fill(r, p->b, b_rows, b_columns, p->ldb, kind);
    fill(r, p->c, p->m, p->n, p->ldc, kind);
    if (!p->add) {                       /* must be overwritten unread     */
        size_t i;
        for (i = 0; i < rows_of(p->m, p->n, p->ldc); i++)
            p->c[i] = nan_of();
    }
}

/* The right answer and the sum of the absolute products, (m,n) each. */
static void reference(const product *p, double *right, double *size)
{
    size_t i, j, q;

    for (i = 0; i < p->m; i++)
        for (j = 0; j < p->n; j++) {
            const double old = p->add ? (double)p->c[i * p->ldc + j] : 0;
            const float *a = p->trans == SMASK_TN ? p->a + i
                : p->a + i * p->lda;
            const float *b = p->trans == SMASK_NT ? p->b + j * p->ldb
                : p->b + j;
            const size_t a_step = p->trans == SMASK_TN ? p->lda : 1;
            const size_t b_step = p->trans == SMASK_NT ? 1 : p->ldb;
            double sum = old, sizes = fabs(old);
            for (q = 0; q < p->k; q++) {
                const double x = (double)a[q * a_step]
                    * (double)b[q * b_step];
                sum += x;
                sizes += fabs(x);
            }
            right[i * p->n + j] = sum;
            size[i * p->n + j] = sizes;
        }
}

/* Rounding: k + 1 operations, each with a relative error of at most u =
   2^-24 on a partial sum that is at most the sum of absolute values: k u
   times that sum bounds any order. The errors are as good as independent,
   so beyond a few terms the bound is 6 sqrt(k) u: the probability to exceed
   it is below 1e-8 (Higham and Mary 2019, theorem 2.4). */
static double allowed(size_t k, double size, numbers kind)
{
    const double u = 1 / 16777216.0, terms = (double)k + 2;

    return kind == WHOLE ? 0 : u * size
        * (terms < 6 * sqrt(terms) ? terms : 6 * sqrt(terms));
}

/* Multiply and compare, gaps included. Returns 1 when all is right. */
static int try_product(smask_ctx *c, const product *p, numbers kind)
{
    static double right[CAPACITY], size[CAPACITY];
    static char doing[160];
    size_t i, j;
    int good;

    reference(p, right, size);
    sprintf(doing, "gemm %s %s m %lu n %lu k %lu ld %lu %lu %lu add %d",
        smask_isa_text(c), trans_name[p->trans], (unsigned long)p->m,
        (unsigned long)p->n, (unsigned long)p->k, (unsigned long)p->lda,
        (unsigned long)p->ldb, (unsigned long)p->ldc, p->add);
    guard_doing = doing;
    good = smask_gemm(c, p->trans, p->m, p->n, p->k, p->a, p->lda, p->b,
        p->ldb, p->c, p->ldc, p->add) == SMASK_OK;
    for (i = 0; good && i < p->m; i++)
        for (j = 0; good && j < p->ldc && (i + 1 < p->m || j < p->n); j++) {
            const float x = p->c[i * p->ldc + j];
            if (j >= p->n) {
                good = !smask__finite(x);            /* the gap's NaN      */
            } else {
                const double d = (double)x - right[i * p->n + j];
                good = fabs(d) <= allowed(p->k, size[i * p->n + j], kind);
                if (!good)
                    printf("at (%lu,%lu): %.9g, not %.9g\n",
                        (unsigned long)i, (unsigned long)j, (double)x,
                        right[i * p->n + j]);
            }
        }
    if (!good) printf("wrong: %s\n", doing);
    return good;
}

/* ------------------------------------------------------------ the tests */

/* Set up with this instruction set; 0 if the processor lacks it. */
static int context(smask_ctx *c, int isa)
{
    smask_desc desc;
    smask_result result;

    memset(&desc, 0, sizeof desc);
    desc.isa = (smask_isa)isa;
    result = smask_setup(c, &desc);
    if (result == SMASK_OK) return 1;
    CHECK(result == SMASK_ARG && isa != SMASK_ISA_SCALAR
        && isa != SMASK_ISA_AUTO);
    return 0;
}

/* All sizes from 1 to 40, all transposes, with and without adding, exact.
   The place and the gaps alternate. */
static void all_small_sizes(void)
{
    smask_random r;
    int isa;

    smask_seed(&r, 1, 0);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_ctx c;
        product p;
        int trans, wrong = 0;
        unsigned variant = 0;
        if (!context(&c, isa)) continue;
        for (p.m = 1; p.m <= 40; p.m++)
            for (p.n = 1; p.n <= 40; p.n++)
                for (p.k = 1; p.k <= 40; p.k++)
                    for (trans = 0; trans < 3; trans++, variant++) {
                        p.trans = (smask_trans)trans;
                        p.add = (int)(variant >> 2 & 1);
                        lay_out(&p, &r, variant & 1 ? 3 : 0,
                            (variant >> 1 & 1) == 0, WHOLE);
                        wrong += wrong < 5 && !try_product(&c, &p, WHOLE);
                    }
        SAME(wrong, 0);
        SAME(smask_error(&c), SMASK_OK);
        smask_shutdown(&c);
    }
}

/* Real numbers, small sizes, every third. */
static void real_numbers(void)
{
    smask_random r;
    int isa;

    smask_seed(&r, 2, 0);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_ctx c;
        product p;
        int trans, wrong = 0;
        if (!context(&c, isa)) continue;
        for (p.m = 1; p.m <= 40; p.m += 3)
            for (p.n = 1; p.n <= 40; p.n += 3)
                for (p.k = 1; p.k <= 40; p.k += 3)
                    for (trans = 0; trans < 3; trans++)
                        for (p.add = 0; p.add < 2; p.add++) {
                            p.trans = (smask_trans)trans;
                            lay_out(&p, &r, 1, p.add, numbers_of(isa));
                            wrong += wrong < 5 && !try_product(&c, &p,
                                numbers_of(isa));
                        }
        SAME(wrong, 0);
        smask_shutdown(&c);
    }
}

/* Around the numbers at which blocks end: rows in 112 and 196, columns in
   384, the middle in 384, and the widths of tiles. */
static void around_the_blocks(void)
{
    static const size_t edge[] = { 1, 2, 13, 14, 15, 31, 32, 33, 55, 56, 57,
        95, 96, 97, 98, 99, 111, 112, 113, 127, 128, 129, 195, 196, 197, 223,
        224, 225, 255, 256, 257, 383, 384, 385, 391, 392, 393, 399, 400, 401,
        767, 768, 769, 1000 };
    const size_t edges = sizeof edge / sizeof *edge;
    smask_random r;
    int isa;

    smask_seed(&r, 3, 0);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_ctx c;
        product p;
        size_t i;
        int trans, way, wrong = 0;
        if (!context(&c, isa)) continue;
        for (i = 0; i < edges; i++)
            for (way = 0; way < 3; way++)
                for (trans = 0; trans < 3; trans++) {
                    p.trans = (smask_trans)trans;
                    p.m = way == 0 ? edge[i] : 17;
                    p.n = way == 1 ? edge[i] : 35;
                    p.k = way == 2 ? edge[i] : 19;
                    p.add = (int)((i + (size_t)trans) & 1);
                    lay_out(&p, &r, i % 3, (int)(i >> 1 & 1), WHOLE);
                    wrong += wrong < 5 && !try_product(&c, &p, WHOLE);
                    p.m = way == 0 ? 7 : edge[i];    /* and two at once    */
                    p.n = way == 1 ? 5 : edge[(i * 7 + 3) % edges];
                    p.k = way == 2 ? 3 : edge[(i * 5 + 1) % edges];
                    if (p.m * p.n * p.k > 3000000) continue;
                    lay_out(&p, &r, (i + 1) % 3, (int)(i & 1), WHOLE);
                    wrong += wrong < 5 && !try_product(&c, &p, WHOLE);
                }
        SAME(wrong, 0);
        smask_shutdown(&c);
    }
}

/* Long sums and large products, exact and real. */
static void large(void)
{
    static const size_t size[][3] = { { 29, 37, 1000 }, { 15, 33, 2049 },
        { 3, 5, 3000 }, { 1, 1, 3000 }, { 113, 257, 385 },
        { 257, 113, 400 }, { 385, 97, 256 }, { 1, 1000, 257 },
        { 1000, 1, 257 }, { 400, 385, 99 } };
    smask_random r;
    int isa;

    smask_seed(&r, 4, 0);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_ctx c;
        product p;
        size_t i;
        int trans, real, wrong = 0;
        if (!context(&c, isa)) continue;
        for (i = 0; i < sizeof size / sizeof *size; i++)
            for (trans = 0; trans < 3; trans++)
                for (real = 0; real < 2; real++) {
                    const numbers kind = real ? numbers_of(isa) : WHOLE;
                    p.trans = (smask_trans)trans;
                    p.m = size[i][0];
                    p.n = size[i][1];
                    p.k = size[i][2];
                    p.add = real ^ (trans & 1);
                    lay_out(&p, &r, i & 1 ? 5 : 0, real, kind);
                    wrong += wrong < 5 && !try_product(&c, &p, kind);
                }
        SAME(wrong, 0);
        smask_shutdown(&c);
    }
}

/* Nothing to do, or an empty sum. Operands of size 0 are never read. */
static void empty(void)
{
    float out[6] = { 1, 2, 3, 4, 5, 6 };
    smask_ctx c;
    int trans, i;

    CHECK(context(&c, SMASK_ISA_AUTO));
    for (trans = 0; trans < 3; trans++) {
        const smask_trans t = (smask_trans)trans;
        SAME(smask_gemm(&c, t, 0, 3, 2, NULL, 9, NULL, 9, out, 3, 0),
            SMASK_OK);
        SAME(smask_gemm(&c, t, 2, 0, 2, NULL, 9, NULL, 9, out, 3, 0),
            SMASK_OK);
        SAME(smask_gemm(&c, t, 2, 3, 0, NULL, 9, NULL, 9, out, 3, 1),
            SMASK_OK);
        for (i = 0; i < 6; i++) CHECK(out[i] == (float)(i + 1));
    }
    SAME(smask_gemm(&c, SMASK_NN, 2, 2, 0, NULL, 2, NULL, 2, out, 3, 0),
        SMASK_OK);
    CHECK(out[0] == 0 && out[1] == 0 && out[2] == 3);
    CHECK(out[3] == 0 && out[4] == 0 && out[5] == 6);
    smask_shutdown(&c);
}

/* Each leading dimension that is one too small is refused; nothing is
   written. */
static void refusals(void)
{
    static const size_t least[3][3] = { { 4, 3, 3 }, { 4, 4, 3 },
        { 2, 3, 3 } };                   /* lda, ldb, ldc for 2 x 3, k 4   */
    float x[16] = { 0 }, out[6];
    int trans, which, i;

    for (trans = 0; trans < 3; trans++)
        for (which = 0; which < 4; which++) {
            smask_ctx c;
            for (i = 0; i < 6; i++) out[i] = 7;
            CHECK(context(&c, SMASK_ISA_AUTO));
            SAME(smask_gemm(&c, (smask_trans)trans, 2, 3, 4, x,
                least[trans][0] - (which == 0), x,
                least[trans][1] - (which == 1), out,
                least[trans][2] - (which == 2), 0),
                which == 3 ? SMASK_OK : SMASK_ARG);
            SAME(smask_error(&c), which == 3 ? SMASK_OK : SMASK_ARG);
            for (i = 0; i < 6; i++) CHECK(out[i] == (which == 3 ? 0 : 7));
            smask_shutdown(&c);
        }
    for (trans = -1; trans < 10; trans += 10) {      /* neither of three   */
        smask_ctx c;
        CHECK(context(&c, SMASK_ISA_AUTO));
        SAME(smask_gemm(&c, (smask_trans)trans, 2, 2, 2, x, 2, x, 2, out, 2,
            0), SMASK_ARG);
        smask_shutdown(&c);
    }
}

/* No memory for the packed panels: an error, and C is unchanged. */
static void no_room(void)
{
    static unsigned char memory[4096];
    smask_desc desc;
    product p;
    smask_random r;
    int trans;

    smask_seed(&r, 5, 0);
    memset(&desc, 0, sizeof desc);
    desc.memory = memory;
    desc.memory_size = sizeof memory;
    for (trans = 0; trans < 3; trans++) {
        smask_ctx c;
        size_t i;
        SAME(smask_setup(&c, &desc), SMASK_OK);
        p.trans = (smask_trans)trans;
        p.m = p.n = p.k = 100;
        p.add = 1;
        lay_out(&p, &r, 0, 1, WHOLE);
        for (i = 0; i < 10000; i++) p.c[i] = 7;
        SAME(smask_gemm(&c, p.trans, 100, 100, 100, p.a, 100, p.b, 100, p.c,
            100, 1), SMASK_MEMORY);
        for (i = 0; i < 10000; i++) CHECK(p.c[i] == 7);
        smask_shutdown(&c);
    }
}

/* Scratch is released: a thousand products take no more than one. */
static void scratch_is_given_back(void)
{
    smask_ctx c;
    product p;
    smask_random r;
    size_t low;
    int i;

    smask_seed(&r, 6, 0);
    CHECK(context(&c, SMASK_ISA_AUTO));
    p.trans = SMASK_NT;
    p.m = p.n = p.k = 50;
    p.add = 0;
    lay_out(&p, &r, 0, 1, WHOLE);
    low = c.low;
    for (i = 0; i < 1000; i++)
        smask_gemm(&c, (smask_trans)(i % 3), 50, 50, 50, p.a, 50, p.b, 50,
            p.c, 50, 0);
    CHECK(c.low == low);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* -------------------------------------------------------------- workers */

/* A hook on one thread that takes the pieces from the last to the first
   and gives them to the workers round robin. */
static void backwards(void *user, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    const int workers = *(const int *)user;

    while (count-- > 0) fn(arg, count, count % workers);
}

static uint64_t hash_of(uint64_t hash, const float *x, size_t count)
{
    const unsigned char *byte = (const unsigned char *)x;
    size_t i;

    for (i = 0; i < count * sizeof *x; i++)
        hash = (hash ^ byte[i]) * 1099511628211u;
    return hash;
}

/* The same bits for any number of workers and any order of the pieces. */
static void same_bits(void)
{
    static const size_t size[][3] = { { 1, 1, 1 }, { 7, 5, 3 },
        { 64, 64, 64 }, { 129, 97, 400 }, { 300, 200, 50 },
        { 513, 33, 769 }, { 20, 1000, 385 }, { 1000, 20, 200 } };
    uint64_t first[SMASK_ISA_COUNT] = { 0 };
    int isa, run, seven = 7;

    /* 0: no hook; 1, 2, 3, 4: as many threads; 5: backwards, 7 workers */
    for (run = 0; run < 6; run++)
        for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT;
                isa++) {
            uint64_t hash = 14695981039346656037u;
            smask_desc desc;
            smask_ctx c;
            smask_threads pool;
            smask_random r;
            product p;
            size_t i;
            int trans;
            memset(&desc, 0, sizeof desc);
            desc.isa = (smask_isa)isa;
            if (run >= 1 && run <= 4) {
                SAME(smask_threads_start(&pool, run), SMASK_OK);
                desc.parallel = smask_threads_hook(&pool);
                SAME(desc.parallel.workers, run);
            } else if (run == 5) {
                desc.parallel.run = backwards;
                desc.parallel.user = &seven;
                desc.parallel.workers = seven;
            }
            smask_seed(&r, 7, 0);
            if (smask_setup(&c, &desc) == SMASK_OK) {
                for (i = 0; i < sizeof size / sizeof *size; i++)
                    for (trans = 0; trans < 3; trans++) {
                        p.trans = (smask_trans)trans;
                        p.m = size[i][0];
                        p.n = size[i][1];
                        p.k = size[i][2];
                        p.add = trans & 1;
                        lay_out(&p, &r, 0, 1, REAL);
                        smask_gemm(&c, p.trans, p.m, p.n, p.k, p.a, p.lda,
                            p.b, p.ldb, p.c, p.ldc, p.add);
                        hash = hash_of(hash, p.c, p.m * p.n);
                    }
                SAME(smask_error(&c), SMASK_OK);
                if (run == 0) first[isa] = hash;
                CHECK(hash == first[isa]);
                smask_shutdown(&c);
            }
            if (run >= 1 && run <= 4) smask_threads_stop(&pool);
        }
}

/* ---------------------------------------------------------- the isa */

#define LANE_NAME(name, text) text,
static const char *const lane_name[] = { SMASK_ISAS(LANE_NAME) NULL };

/* smask_setup uses the instruction set asked for, or fails. AUTO picks one
   that the processor has. */
static void isas_by_name(void)
{
    smask_desc desc;
    smask_ctx c;
    int isa, has = 0;

    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++)
        if (context(&c, isa)) {
            SAME(c.isa, isa == SMASK_ISA_BF16 ? SMASK_ISA_AVX512
                : isa);
            CHECK_TEXT(smask_isa_text(&c), lane_name[isa]);
            if (isa != SMASK_ISA_BF16) has |= 1 << isa;
            smask_shutdown(&c);
        } else {
            printf("skip %s: not on this processor\n", lane_name[isa]);
        }
    CHECK(context(&c, SMASK_ISA_AUTO));
    CHECK(has >> c.isa & 1);
    CHECK(has >> c.isa == 1);          /* and the best of them           */
    smask_shutdown(&c);
    memset(&desc, 0, sizeof desc);
    desc.isa = SMASK_ISA_COUNT;
    SAME(smask_setup(&c, &desc), SMASK_ARG);
    smask_shutdown(&c);
}

/* How BF16 rounds: A times the identity is A with each element rounded to
   nearest, in all forms; the same holds for B. Ties are included. */
static void nearest(void)
{
    enum { N = 45 };
    static float x[N * N], unit[N * N], out[N * N];
    smask_random r;
    smask_ctx c;
    int way, i, wrong = 0;

    if (!context(&c, SMASK_ISA_BF16)) {
        printf("skip bf16: not on this processor\n");
        return;
    }
    smask_seed(&r, 10, 0);
    for (i = 0; i < N * N; i++) {
        uint32_t bits;
        x[i] = 2 * smask_uniform(&r) - 1;
        memcpy(&bits, &x[i], sizeof bits);
        if (i % 3 == 0) bits = (bits & 0xffff0000u) | 0x8000u;
        memcpy(&x[i], &bits, sizeof bits);
        unit[i] = i / N == i % N;
    }
    for (way = 0; way < 6; way++) {
        const smask_trans trans = (smask_trans)(way / 2);
        smask_gemm(&c, trans, N, N, N, way & 1 ? unit : x, N,
            way & 1 ? x : unit, N, out, N, 0);
        for (i = 0; i < N * N; i++) {
            const int transposed = trans == (way & 1 ? SMASK_NT : SMASK_TN);
            wrong += out[i] != rounded(x[transposed ? i % N * N + i / N : i]);
        }
    }
    SAME(wrong, 0);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* ------------------------------------------------------------- packing */

/* The packing alone: every element of B lies where the product reads it,
   columns past the last are 0, nothing before, between or behind the elements
   of B is read, and nothing behind the panels is written. */
static int try_packing(int isa, size_t n, size_t k, int transposed, size_t pad,
    int at_end)
{
    static char doing[120];
    const size_t columns = transposed ? k : n, ld = columns + pad;
    const float canary = -77;
    smask_desc desc;
    smask_ctx c;
    smask_random r;
    smask__product p;
    size_t j, q, floats;
    float *b;
    int good = 1;

    memset(&desc, 0, sizeof desc);
    desc.isa = (smask_isa)isa;
    if (smask_setup(&c, &desc) != SMASK_OK) return 1;
    smask_seed(&r, 8, 0);
    b = guard_at(&buffer_b, rows_of(transposed ? n : k, columns, ld), at_end);
    fill(&r, b, transposed ? n : k, columns, ld, WHOLE);
    memset(&p, 0, sizeof p);
    p.m = 2048;                          /* enough rows for a copy to pay  */
    p.n = n;
    p.k = k;
    p.a = smask__operand_of(b, ld);
    p.b = smask__operand_of(b, ld);
    p.b_transposed = transposed;
    smask__product_plan(&c, &p);
    floats = k * smask__round_up(n, p.nr);
    for (j = 0; j < floats + 64; j++)
        ((float *)(void *)(c.base + c.low))[j] = canary;
    sprintf(doing, "pack %s n %lu k %lu turned %d", smask_isa_text(&c),
        (unsigned long)n, (unsigned long)k, transposed);
    guard_doing = doing;
    smask__pack(&c, &p);
    for (q = 0; good && q < k; q++) {
        const size_t k0 = q / p.kc * p.kc;
        const size_t len = k - k0 < p.kc ? k - k0 : p.kc;
        for (j = 0; good && j < smask__round_up(n, p.nr); j++) {
            const float x = p.packed[k0 * smask__round_up(n, p.nr)
                + j / p.nr * p.nr * len + (q - k0) * p.nr + j % p.nr];
            good = x == (j >= n ? 0 : transposed ? b[j * ld + q]
                : b[q * ld + j]);
        }
    }
    for (j = smask__round_up(floats, 16); j < floats + 48; j++)
        good = good && p.packed[j] == canary;
    if (!good) printf("wrong: %s\n", doing);
    smask_shutdown(&c);
    return good;
}

static void packing(void)
{
    static const size_t n[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63,
        64, 65, 100 };
    static const size_t k[] = { 1, 2, 3, 4, 5, 15, 16, 17, 33, 383, 384, 385,
        769 };
    size_t i, j;
    int isa, transposed, wrong = 0;

    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_BF16; isa++)
        for (i = 0; i < sizeof n / sizeof *n; i++)
            for (j = 0; j < sizeof k / sizeof *k; j++)
                for (transposed = 0; transposed < 2; transposed++) {
                    wrong += !try_packing(isa, n[i], k[j], transposed, 0, 1);
                    wrong += !try_packing(isa, n[i], k[j], transposed, 3, 0);
                }
    SAME(wrong, 0);
}

/* The three plain loops (version 1) agree with the fast code. */
static void plain(void)
{
    smask_random r;
    smask_ctx c;
    product p;
    float *out;
    int trans, i, good = 1;

    smask_seed(&r, 9, 0);
    CHECK(context(&c, SMASK_ISA_AUTO));
    for (trans = 0; trans < 3; trans++)
        for (p.add = 0; p.add < 2; p.add++) {
            static double right[21 * 18], size[21 * 18];
            p.trans = (smask_trans)trans;
            p.m = 21;
            p.n = 18;
            p.k = 40;
            lay_out(&p, &r, 2, 1, WHOLE);
            reference(&p, right, size);
            smask__gemm_plain(p.trans, p.m, p.n, p.k, p.a, p.lda, p.b, p.ldb,
                p.c, p.ldc, p.add);
            out = p.c;
            for (i = 0; i < 21 * 18; i++)
                good = good && (double)out[(size_t)(i / 18) * p.ldc
                    + (size_t)(i % 18)] == right[i];
        }
    CHECK(good);
    smask_shutdown(&c);
}

int main(void)
{
    buffer_a = guard_make(CAPACITY);
    buffer_b = guard_make(CAPACITY);
    buffer_c = guard_make(CAPACITY);
    RUN(isas_by_name);
    RUN(nearest);
    RUN(packing);
    RUN(plain);
    RUN(all_small_sizes);
    RUN(real_numbers);
    RUN(around_the_blocks);
    RUN(large);
    RUN(empty);
    RUN(refusals);
    RUN(no_room);
    RUN(scratch_is_given_back);
    RUN(same_bits);
    return DONE("test_gemm");
}
