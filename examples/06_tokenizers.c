/* 06  Tokenizers: three ways to give a patch a visual token.

   Shows   the codebooks that SplitMask can predict from: random directions,
           random patches of the data, and k-means centres; how many of
           their tokens are in use (perplexity); and what is left of a
           picture when each patch is replaced by its codebook vector.
   Build   cc -O2 -I. examples/06_tokenizers.c -o build/06_tokenizers -lm
   Prints  a table, then the picture and its three repainted copies.
           Returns 1 if k-means does not use its codebook better than random
           directions do, or does not repaint better. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 32                          /* pixels                         */
#define P 4                              /* side of a patch, pixels        */
#define GRID (SIDE / P)
#define N (GRID * GRID)                  /* patches per image              */
#define IMAGES 200
#define V 64                             /* codebook vectors               */

static float images[IMAGES * SIDE * SIDE];
static float patches[IMAGES * N * P * P];
static int32_t ids[IMAGES * N];

/* A lit ball of random place and size before a sky of random waves. */
static void draw_image(smask_random *r, float *image)
{
    float cx = 8 + 16 * smask_uniform(r), cy = 8 + 16 * smask_uniform(r);
    float size = 6 + 6 * smask_uniform(r), angle = 6.28f * smask_uniform(r);
    float wave = 0.2f + 0.3f * smask_uniform(r);
    int y, x;
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            float u = ((float)x - cx) / size, v = ((float)y - cy) / size;
            float z = 1 - u * u - v * v;
            float way = (float)x * cosf(angle) + (float)y * sinf(angle);
            image[y * SIDE + x] = z < 0 ? -0.7f + 0.5f * sinf(wave * way)
                : 0.2f + 0.8f * (sqrtf(z) - 0.7f * u - 0.7f * v);
        }
}

/* Replace each patch x by (x . e) e, with e its codebook vector. Returns the
   mean cosine between patch and vector. */
static double repaint(const smask_tokenizer *t, const float *rows,
    const int32_t *id, float *image)
{
    double cosine = 0;
    int n, k;
    for (n = 0; n < N; n++) {
        const float *e = t->codebook + id[n] * P * P, *x = rows + n * P * P;
        float dot = 0, square = 0;
        for (k = 0; k < P * P; k++) {
            dot += x[k] * e[k];
            square += x[k] * x[k];
        }
        cosine += (double)dot / sqrt((double)square + 1e-12) / N;
        for (k = 0; image && k < P * P; k++)
            image[(n / GRID * P + k / P) * SIDE + n % GRID * P + k % P]
                = dot * e[k];
    }
    return cosine;
}

static void print_pair(const float *a, const float *b)
{
    const char *ramp = " .:-=+*#%@";
    int y, x;
    for (y = 0; y < SIDE; y += 2) {      /* characters are twice as high   */
        printf("  |");
        for (x = 0; x < 2 * SIDE; x++) {
            const float *image = x < SIDE ? a : b;
            int level = (int)((image[y * SIDE + x % SIDE] + 1.2f) * 4.5f);
            level = level < 0 ? 0 : level > 9 ? 9 : level;
            if (x == SIDE) printf("|  |");
            putchar(ramp[level]);
        }
        printf("|\n");
    }
}

int main(void)
{
    static const char *const name[3] = { "random projection",
        "random patches", "k-means" };
    static float painted[3][SIDE * SIDE];
    double perplexity[3] = { 0, 0, 0 }, cosine[3] = { 0, 0, 0 };
    smask_random r;
    smask_ctx c;
    int i, k;

    smask_setup(&c, NULL);
    smask_seed(&r, 6, 0);
    for (i = 0; i < IMAGES; i++) draw_image(&r, images + i * SIDE * SIDE);
    printf("%d tokens for %d patches of %d x %d pixels\n\n", V, IMAGES * N,
           P, P);
    printf("%-19s %5s %11s %7s\n", "codebook", "used", "perplexity",
           "cosine");
    for (k = 0; k < 3; k++) {
        const smask_tokenizer_desc desc = { .kind = (smask_token_kind)k,
            .image = SIDE, .patch = P, .channels = 1, .vocabulary = V };
        smask_tokenizer t;
        smask_token_use stats;
        if (smask_tokenizer_init(&c, &t, &desc) != SMASK_OK) break;
        smask_tokenizer_patches(&t, images, IMAGES, patches);
        if (k > 0 && smask_tokenizer_fit(&c, &t, patches, IMAGES * N, 0,
                                         NULL, NULL) != SMASK_OK) break;
        smask_tokenize(&c, &t, images, IMAGES, ids);
        if (smask_token_stats(&c, ids, IMAGES * N, V, NULL, &stats)
            != SMASK_OK) break;
        for (i = 0; i < IMAGES; i++)     /* keep the picture of image 0    */
            cosine[k] += repaint(&t, patches + i * N * P * P, ids + i * N,
                                 i ? NULL : painted[k]) / IMAGES;
        perplexity[k] = stats.perplexity;
        printf("%-19s %5d %11.1f %7.3f\n", name[k], (int)stats.used,
               stats.perplexity, cosine[k]);
    }
    if (smask_error(&c) != SMASK_OK) {
        fprintf(stderr, "06_tokenizers: %s (%s)\n",
                smask_result_text(smask_error(&c)), smask_detail(&c));
        smask_shutdown(&c);
        return 1;
    }
    printf("\nPerplexity is the number of tokens that would, used equally\n"
           "often, be as hard to predict: what the model has to learn.\n");
    printf("\n  %-36s%s\n", "the picture", name[0]);
    print_pair(images, painted[0]);
    printf("  %-36s%s\n", name[1], name[2]);
    print_pair(painted[1], painted[2]);
    smask_shutdown(&c);
    return perplexity[2] > perplexity[0] && cosine[2] > cosine[0] ? 0 : 1;
}
