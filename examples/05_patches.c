/* 05  Patches, masks and the split.

   Shows   how an image becomes a row of patches, what BEiT's block mask
           looks like, and how SplitMask cuts an image into two views that
           share no patch.
   Build   cc -O2 -I. examples/05_patches.c -o build/05_patches -lm
   Prints  a picture and what each of its two views sees; one draw of each
           kind of split (A, B: who sees the patch); BEiT's mask and how
           often it reaches its target. Returns 1 if the views overlap, or
           if a patch is lost. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 32                          /* pixels                         */
#define P 4                              /* side of a patch, pixels        */
#define GRID (SIDE / P)                  /* patches on a side              */
#define N (GRID * GRID)

/* A bright ball, lit from the upper left, on a background that gets lighter. */
static void draw_image(float *image)
{
    int y, x;
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            float u = ((float)x - 17) / 11, v = ((float)y - 15) / 11;
            float z = 1 - u * u - v * v;
            image[y * SIDE + x] = z < 0 ? (float)y / SIDE * 0.35f
                : 0.35f + 0.65f * (sqrtf(z) - 0.7f * u - 0.7f * v) / 1.72f;
        }
}

/* Two pictures side by side; `show` (N) or NULL: 0 leaves a patch blank.
   Characters are about twice as high as wide: every other row is enough. */
static void print_pair(const float *image, const int *show_a,
    const int *show_b)
{
    const char *ramp = " .:-=+*#%@";
    int y, x, side;
    for (y = 0; y < SIDE; y += 2) {
        printf("  |");
        for (side = 0; side < 2; side++) {
            const int *show = side ? show_b : show_a;
            for (x = 0; x < SIDE; x++) {
                int level = (int)(image[y * SIDE + x] * 9.99f);
                level = level < 0 ? 0 : level > 9 ? 9 : level;
                putchar(!show || show[y / P * GRID + x / P]
                        ? ramp[level] : ' ');
            }
            printf(side ? "|\n" : "|  |");
        }
    }
}

/* How many views see each patch of image 0: bit 0 for A, bit 1 for B. */
static void who_sees(const smask_mask *m, int *views)
{
    int branch, i;
    for (i = 0; i < N; i++) views[i] = 0;
    for (branch = 0; branch < m->branches; branch++)
        for (i = 0; i < m->visible[branch]; i++)
            views[m->visible_at[branch][i]] |= 1 << branch;
}

int main(void)
{
    static const char *const name[4] = { "blocks", "uniform", "quarters",
        "independent" };
    static float image[SIDE * SIDE], rows[N * P * P];
    int views[4][N], a[N], b[N], i, k, y, x, wrong = 0, full = 0;
    uint8_t mask[14 * 14];
    double mean = 0;
    smask_ctx c;

    smask_setup(&c, NULL);
    draw_image(image);
    smask_patches(image, 1, 1, SIDE, P, rows);
    for (y = 0; y < SIDE; y++)           /* pixel (y, x) is in patch i ... */
        for (x = 0; x < SIDE; x++) {
            i = y / P * GRID + x / P;    /* ... at (y % P, x % P)          */
            wrong += rows[(i * P + y % P) * P + x % P] != image[y * SIDE + x];
        }
    printf("%d x %d pixels are %d patches of %d numbers\n\n", SIDE, SIDE, N,
           P * P);

    smask_begin_step(&c);                /* masks live until its end       */
    for (k = 0; k < 4; k++) {
        smask_mask m;
        float ratio = k < 2 ? 0.5f : 0.75f;
        if (smask_mask_split(&c, 1, GRID, (smask_mask_kind)k, ratio, &m)
            != SMASK_OK) break;
        who_sees(&m, views[k]);
        for (i = 0; k < 2 && i < N; i++) /* half and half: exactly one     */
            wrong += views[k][i] != 1 && views[k][i] != 2;
        for (i = 0; k == 2 && i < N; i++)
            wrong += views[k][i] == 3;   /* quarters: never both           */
    }
    smask_end_step(&c);
    if (smask_error(&c) != SMASK_OK) {
        fprintf(stderr, "05_patches: %s (%s)\n",
            smask_result_text(smask_error(&c)), smask_detail(&c));
        smask_shutdown(&c);
        return 1;
    }
    for (i = 0; i < N; i++) {
        a[i] = views[0][i] == 1;
        b[i] = views[0][i] == 2;
    }
    printf("the picture\n");
    print_pair(image, NULL, NULL);
    printf("what A sees, and what B sees; each must predict the other\n");
    print_pair(image, a, b);

    printf("\n");
    for (k = 0; k < 4; k++) printf("  %-17s", name[k]);
    for (y = 0; y < GRID; y++) {
        printf("\n");
        for (k = 0; k < 4; k++, printf("   "))
            for (x = 0, printf(" "); x < GRID; x++)
                printf(" %c", ".AB*"[views[k][y * GRID + x]]);
    }

    printf("\n\nBEiT's mask on 14 x 14 patches: rectangles, up to 75\n");
    for (i = 0; i < 2000; i++) {
        int32_t count = smask_mask_blocks(&c.random, 14, 14, 75, 16, 75,
                                          mask);
        mean += count / 2000.0;
        full += count == 75;
        wrong += count > 75;
    }
    for (y = 0; y < 14; y++, printf("\n"))
        for (x = 0, printf("  "); x < 14; x++)
            printf("%s", mask[y * 14 + x] ? "[]" : " .");
    printf("\nover 2000 draws: %.1f patches on average, all 75 in %.0f %%\n",
           mean, full / 20.0);
    printf("patches lost, shared or misplaced: %d\n", wrong);
    smask_shutdown(&c);
    return wrong == 0 && mean > 70 && mean < 75 ? 0 : 1;
}
