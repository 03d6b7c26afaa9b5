/* 07  Attention: where a token looks.

   Shows   a model with one attention layer that learns to fill gaps in
           pictures whose right half mirrors the left. It is not given that
           rule. Only its mirror image shows what a hidden patch looks like,
           and attention finds it.
   Build   cc -O2 -I. examples/07_attention.c -o build/07_attention -lm
   Prints  for some hidden patches (?) the attention to each other patch,
           before and after training, the mirror image in brackets; and the
           loss. Returns 1 if attention misses too many mirror images. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define GRID 6                           /* patches on a side              */
#define N (GRID * GRID)
#define P 2                              /* side of a patch, pixels        */
#define SIDE (GRID * P)
#define KINDS 8                          /* different patches              */
#define BATCH 32
#define D 32

static float images[BATCH * SIDE * SIDE];
static int32_t ids[BATCH * N];

static int mirror(int i) { return i / GRID * GRID + GRID - 1 - i % GRID; }

/* The left half at random from eight kinds of patches, the right half its
   mirror image. The kind is the token, so the tokenizer is GIVEN. */
static void draw_images(smask_random *r)
{
    static const float kind[KINDS][P * P] = {
        { 1, 1, -1, -1 }, { -1, -1, 1, 1 }, { 1, -1, 1, -1 },
        { -1, 1, -1, 1 }, { 1, -1, -1, 1 }, { -1, 1, 1, -1 },
        { 1, 1, 1, 1 }, { -1, -1, -1, -1 }
    };
    int b, i, k;
    for (b = 0; b < BATCH; b++)
        for (i = 0; i < N; i++) {
            int32_t *id = ids + b * N;
            id[i] = i % GRID < GRID / 2 ? (int32_t)smask_below(r, KINDS)
                                        : id[mirror(i)];
            for (k = 0; k < P * P; k++)
                images[(b * SIDE + i / GRID * P + k / P) * SIDE
                       + i % GRID * P + k % P] = kind[id[i]][k];
        }
}

/* Where token `at` looks when its patch is hidden. The library never stores
   attention weights (N x N for every head and image), so this function
   computes one row of them from the queries and keys. */
static void attention_of(smask_ctx *c, const smask_vit *v, int at,
    float *weight)
{
    const smask_block *k = v->blocks;
    int32_t index[N];
    smask_tensor *x;
    float sum = 0;
    int i, d;
    for (i = 0; i < N; i++) index[i] = i == at ? -1 : i;
    smask_begin_step(c);
    x = smask_vit_embed(c, v, images, 1);
    x = smask_gather(c, x, 1, N, index, v->mask, v->position);
    x = smask_norm_linear(c, x, k->ln1_w, k->ln1_b, k->qkv_w, k->qkv_b);
    for (i = 0; x && i < N; i++) {       /* x (1, N, 3D): q, k, v          */
        const float *q = x->x + at * 3 * D, *key = x->x + i * 3 * D + D;
        float dot = 0;
        for (d = 0; d < D; d++) dot += q[d] * key[d];
        sum += weight[i] = expf(dot / sqrtf(D));
    }
    for (i = 0; x && i < N; i++) weight[i] /= sum;
    smask_end_step(c);
}

/* Attention maps of four hidden patches; returns how many of all N look
   at their mirror image most. */
static int draw_attention(smask_ctx *c, const smask_vit *v)
{
    static const int shown[4] = { 6, 15, 23, 31 };
    static float map[N][N];
    int at, y, x, k, found = 0;
    for (at = 0; at < N; at++) {
        int best = 0, i;
        attention_of(c, v, at, map[at]);
        for (i = 0; i < N; i++) if (map[at][i] > map[at][best]) best = i;
        found += best == mirror(at);
    }
    for (y = 0; y < GRID; y++, printf("\n"))
        for (k = 0; k < 4; k++, printf("   "))
            for (x = 0; x < GRID; x++) {
                int i = y * GRID + x, m = i == mirror(shown[k]);
                int level = (int)(map[shown[k]][i] * 20);
                char mark = i == shown[k] ? '?'
                          : ".:-=+*#%@"[level > 8 ? 8 : level];
                printf("%c%c%c", m ? '[' : ' ', mark, m ? ']' : ' ');
            }
    printf("%d of %d hidden patches look at their mirror image most\n\n",
           found, N);
    return found;
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .patch = P, .channels = 1,
        .dim = D, .depth = 1, .heads = 1, .vocabulary = KINDS,
        .mask_token = 1 };
    const smask_tokenizer_desc codebook = { .kind = SMASK_TOKENS_GIVEN,
        .image = SIDE, .patch = P, .channels = 1, .vocabulary = KINDS };
    const smask_objective objective = { .mask = SMASK_MASK_UNIFORM,
        .ratio = 0.25f };
    const smask_adam_desc optim = { .lr = 5e-3f, .weight_decay = -1,
        .warmup = 50, .steps = 1500 };
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_random r;
    int step, found = 0;

    smask_setup(&c, NULL);
    smask_seed(&r, 7, 0);
    smask_vit_init(&c, &vit, &model);
    smask_tokenizer_init(&c, &tok, &codebook);
    smask_adam_init(&c, &adam, &optim, &vit.params);
    tok.given = ids;
    for (step = 0; step <= 1500 && smask_error(&c) == SMASK_OK; step++) {
        smask_losses out;
        smask_tensor *loss;
        draw_images(&r);
        if (step == 0) draw_attention(&c, &vit);
        smask_begin_step(&c);
        loss = smask_beit_loss(&c, &vit, &tok, &objective, images, BATCH,
                               &out);
        if (loss && step % 300 == 0)
            printf("step %4d   loss %.3f   guessed right %3.0f %%\n", step,
                   (double)out.total, 100.0 * (double)out.accuracy);
        smask_backward(&c, loss);
        smask_adam_update(&c, &adam, &vit.params);
        smask_end_step(&c);
    }
    printf("(where both patches of a pair are hidden it can only guess)\n\n");
    if (smask_error(&c) == SMASK_OK) found = draw_attention(&c, &vit);
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "07_attention: %s (%s)\n",
                smask_result_text(smask_error(&c)), smask_detail(&c));
    smask_shutdown(&c);
    return found >= N * 3 / 4 ? 0 : 1;
}
