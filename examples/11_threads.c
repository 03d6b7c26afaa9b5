/* 11  Threads: more workers, the same bits.

   Shows   how to put the thread pool into the parallel hook, and that the
           number of workers changes only the time: pieces of work depend on
           the problem alone, and their sums are added in a fixed order.
   Build   cc -O2 -I. examples/11_threads.c -o build/11_threads -lm -lpthread
   Prints  for no pool and for 1, 2 and 3 workers: milliseconds a step, and
           a hash of all weights after training. Returns 1 if a hash
           differs. */

#define SPLITMASK_THREADS
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>
#include <time.h>

#define SIDE 32                          /* pixels                         */
#define BATCH 32
#define STEPS 6

static float images[BATCH * SIDE * SIDE];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Waves of random direction and length. */
static void draw_images(smask_random *r)
{
    int b, y, x;
    for (b = 0; b < BATCH; b++) {
        float angle = 6.28f * smask_uniform(r);
        float wave = 0.2f + 0.8f * smask_uniform(r);
        for (y = 0; y < SIDE; y++)
            for (x = 0; x < SIDE; x++)
                images[(b * SIDE + y) * SIDE + x] = 1.4f * sinf(wave
                    * ((float)x * cosf(angle) + (float)y * sinf(angle)));
    }
}

/* FNV-1a over the bytes of all weights: one changed bit changes it. */
static uint64_t hash_weights(const smask_params *p)
{
    uint64_t hash = 14695981039346656037u;
    int32_t i;
    for (i = 0; i < p->count; i++) {
        const unsigned char *byte = (const unsigned char *)p->item[i].t->x;
        size_t k, bytes = smask_count(p->item[i].t) * sizeof(float);
        for (k = 0; k < bytes; k++)
            hash = (hash ^ byte[k]) * 1099511628211u;
    }
    return hash;
}

/* Train with this hook (or with none: run == NULL). */
static smask_result train(smask_parallel hook, uint64_t *hash, double *time)
{
    const smask_vit_desc model = { .image = SIDE, .channels = 1, .dim = 96,
        .depth = 3, .heads = 3, .vocabulary = 256, .decoder_depth = 1 };
    smask_desc desc = { .seed = 11, .memory_size = 128 << 20 };
    smask_tokenizer_desc codebook;
    smask_result result;
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_random r;
    int step;

    desc.parallel = hook;
    smask_setup(&c, &desc);
    smask_seed(&r, 11, 0);
    smask_vit_init(&c, &vit, &model);
    codebook = smask_tokenizer_desc_for(&vit);
    smask_tokenizer_init(&c, &tok, &codebook);
    smask_adam_init(&c, &adam, NULL, &vit.params);
    *time = seconds();
    for (step = 0; step < STEPS; step++) {
        smask_tensor *loss;
        draw_images(&r);
        smask_begin_step(&c);
        loss = smask_splitmask_loss(&c, &vit, &tok, NULL, images, BATCH,
                                    NULL);
        smask_backward(&c, loss);
        smask_adam_update(&c, &adam, &vit.params);
        smask_end_step(&c);
    }
    *time = (seconds() - *time) / STEPS;
    result = smask_error(&c);
    if (result == SMASK_OK) *hash = hash_weights(&vit.params);
    else fprintf(stderr, "11_threads: %s (%s)\n", smask_result_text(result),
                 smask_detail(&c));
    smask_shutdown(&c);
    return result;
}

int main(void)
{
    uint64_t first = 0, hash = 0;
    double time;
    int workers, same = 1;

    printf("%-10s %8s   %s\n", "workers", "ms/step", "hash of the weights");
    for (workers = 0; workers <= 3; workers++) {
        const smask_parallel none = { NULL, NULL, 0 };
        smask_threads pool;
        smask_result result;
        if (workers > 0 && smask_threads_start(&pool, workers) != SMASK_OK) {
            fprintf(stderr, "11_threads: threads cannot be started\n");
            return 1;
        }
        result = train(workers > 0 ? smask_threads_hook(&pool) : none, &hash,
                       &time);
        if (workers > 0) smask_threads_stop(&pool);
        if (result != SMASK_OK) return 1;
        if (workers == 0) first = hash;
        same = same && hash == first;
        if (workers == 0) printf("%-10s", "no pool");
        else printf("%-10d", workers);
        printf(" %8.1f   %08lx%08lx%s\n", 1e3 * time,
               (unsigned long)(hash >> 32),
               (unsigned long)(hash & 0xffffffffu),
               hash == first ? "" : "   DIFFERENT");
    }
    printf("\nthe weights are %s bit for bit\n", same ? "the same"
                                                     : "NOT the same");
    return same ? 0 : 1;
}
