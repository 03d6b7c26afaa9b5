/* test_threads.c: the pool of threads behind the parallel hook.

   What the hook promises: every piece once, on a worker number that no
   other piece has at that time, everything visible to the caller at the
   return; for any number of workers and pieces, for a job started inside a
   job, for several pools, and for a pool that has slept. */
#define SPLITMASK_THREADS
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include "test.h"
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PIECES 300
#define WORKERS 9

/* What the pieces of one job record. Plain memory on purpose: if two pieces
   shared an element, a race detector would report it. */
typedef struct job {
    smask_parallel hook;
    int times[PIECES];               /* runs of each piece                 */
    int worker_of[PIECES];
    int busy[WORKERS];               /* is a piece running as this worker? */
    int bad[WORKERS];
    long spin;                       /* length of a piece                  */
    int inner_count;                 /* nested: pieces of the inner jobs   */
    struct job *inner;               /* one per outer piece                */
} job;

static void busy_work(long turns)
{
    volatile long x = 0;
    long i;

    for (i = 0; i < turns; i++) x = x + i;
}

static void note_piece(void *arg, int piece, int worker)
{
    job *j = (job *)arg;

    if (worker < 0 || worker >= WORKERS || piece < 0 || piece >= PIECES)
        abort();
    if (j->busy[worker]) j->bad[worker]++;
    j->busy[worker] = 1;
    j->times[piece]++;
    j->worker_of[piece] = worker;
    busy_work(j->spin);
    j->busy[worker] = 0;
}

/* Run a job of `count` pieces and check what they recorded. */
static int run_once(job *j, int count)
{
    int i, good = 1;

    memset(j->times, 0, sizeof j->times);
    memset(j->busy, 0, sizeof j->busy);
    memset(j->bad, 0, sizeof j->bad);
    j->hook.run(j->hook.user, count, note_piece, j);
    for (i = 0; i < PIECES; i++)
        good = good && j->times[i] == (i < count)
            && (i >= count || j->worker_of[i] < j->hook.workers);
    for (i = 0; i < WORKERS; i++)
        good = good && j->bad[i] == 0 && j->busy[i] == 0;
    return good;
}

static void rest(long milliseconds)
{
    struct timespec t;

    t.tv_sec = milliseconds / 1000;
    t.tv_nsec = milliseconds % 1000 * 1000000;
    nanosleep(&t, NULL);
}

/* -------------------------------------------------------------- pieces */

static void every_piece_once(void)
{
    static job j;
    smask_threads pool;
    int workers, count;

    for (workers = 1; workers < WORKERS; workers++) {
        SAME(smask_threads_start(&pool, workers), SMASK_OK);
        SAME(pool.workers, workers);
        j.hook = smask_threads_hook(&pool);
        SAME(j.hook.workers, workers);
        for (count = 0; count <= 40; count++) CHECK(run_once(&j, count));
        CHECK(run_once(&j, PIECES));
        smask_threads_stop(&pool);
    }
}

/* Jobs in close succession, each on a struct that ends with it: this finds a
   thread that still works on the previous job. */
static void jobs_in_a_row(void)
{
    smask_threads pool;
    smask_random r;
    int i, workers, good = 1;

    smask_seed(&r, 5, 0);
    for (workers = 2; workers <= 6; workers += 2) {
        SAME(smask_threads_start(&pool, workers), SMASK_OK);
        for (i = 0; i < 4000; i++) {
            job j;
            memset(&j, 0, sizeof j);
            j.hook = smask_threads_hook(&pool);
            j.spin = (long)smask_below(&r, 30);
            good = good && run_once(&j, (int)smask_below(&r, 20));
            memset(&j, 0xee, sizeof j);
        }
        smask_threads_stop(&pool);
    }
    CHECK(good);
}

static void more_workers_than_cores(void)
{
    static job j;
    smask_threads pool;
    int i;

    SAME(smask_threads_start(&pool, WORKERS - 1), SMASK_OK);
    j.hook = smask_threads_hook(&pool);
    j.spin = 20000;
    for (i = 0; i < 20; i++) {
        CHECK(run_once(&j, PIECES));
        CHECK(run_once(&j, 3));
    }
    smask_threads_stop(&pool);
}

/* Several threads must share long pieces. The system decides which thread
   runs how many, so try again before failing. */
static void work_is_shared(void)
{
    static job j;
    smask_threads pool;
    int attempt, i, helped = 0;

    SAME(smask_threads_start(&pool, 2), SMASK_OK);
    j.hook = smask_threads_hook(&pool);
    j.spin = 1000000;
    for (attempt = 0; attempt < 20 && helped == 0; attempt++) {
        CHECK(run_once(&j, 20));
        for (i = 0; i < 20; i++) helped += j.worker_of[i] == 1;
    }
    CHECK(helped > 0);
    smask_threads_stop(&pool);
}

static void sum_piece(void *arg, int piece, int worker)
{
    double *part = (double *)arg;
    int i;

    (void)worker;
    part[piece] = 0;
    for (i = 0; i < 100; i++) part[piece] += 1.0 / (piece * 100 + i + 1);
}

/* What pieces wrote is visible to the caller and to the next job. */
static void results_arrive(void)
{
    smask_threads pool;
    smask_parallel hook;
    double first = 0;
    int run, i, good = 1;

    SAME(smask_threads_start(&pool, 3), SMASK_OK);
    hook = smask_threads_hook(&pool);
    for (run = 0; run < 500; run++) {
        double part[64], sum = 0;
        hook.run(hook.user, 64, sum_piece, part);
        for (i = 0; i < 64; i++) sum += part[i];
        if (run == 0) first = sum;
        good = good && sum == first;
    }
    CHECK(good);
    NEAR(first, 9.3420, 1e-3);           /* the harmonic number of 6400    */
    smask_threads_stop(&pool);
}

/* ---------------------------------------------------------------- nests */

static void inner_piece(void *arg, int piece, int worker)
{
    job *j = (job *)arg;

    j->times[piece]++;
    j->worker_of[piece] = worker;
    busy_work(50);
}

static void outer_piece(void *arg, int piece, int worker)
{
    job *j = (job *)arg;
    job *inner = &j->inner[piece];

    j->times[piece]++;
    j->worker_of[piece] = worker;
    inner->hook.run(inner->hook.user, j->inner_count, inner_piece, inner);
}

/* A job from inside a piece runs on the thread of that piece, under its
   worker number: scratch of a worker is used by one thread only. */
static void nested_runs_inline(void)
{
    static job outer, inner[16];
    smask_threads pool;
    int run, i, k, good = 1;

    SAME(smask_threads_start(&pool, 4), SMASK_OK);
    for (run = 0; run < 200; run++) {
        memset(&outer, 0, sizeof outer);
        memset(inner, 0, sizeof inner);
        outer.hook = smask_threads_hook(&pool);
        outer.inner = inner;
        outer.inner_count = 1 + run % 9;
        for (i = 0; i < 16; i++) inner[i].hook = outer.hook;
        outer.hook.run(outer.hook.user, 16, outer_piece, &outer);
        for (i = 0; i < 16; i++) {
            good = good && outer.times[i] == 1;
            for (k = 0; k < 12; k++)
                good = good && inner[i].times[k] == (k < outer.inner_count)
                    && (k >= outer.inner_count
                        || inner[i].worker_of[k] == outer.worker_of[i]);
        }
    }
    CHECK(good);
    smask_threads_stop(&pool);
}

/* A job for another pool, from inside a piece: that pool is idle, so its
   threads help. One piece at a time gets it; others run their job alone. */
static void two_pools(void)
{
    static job outer, inner[16];
    smask_threads a, b;
    int run, i, k, good = 1;

    SAME(smask_threads_start(&a, 3), SMASK_OK);
    SAME(smask_threads_start(&b, 2), SMASK_OK);
    for (run = 0; run < 200; run++) {
        memset(&outer, 0, sizeof outer);
        memset(inner, 0, sizeof inner);
        outer.hook = smask_threads_hook(&a);
        outer.inner = inner;
        outer.inner_count = 8;
        for (i = 0; i < 16; i++) inner[i].hook = smask_threads_hook(&b);
        outer.hook.run(outer.hook.user, 16, outer_piece, &outer);
        for (i = 0; i < 16; i++)
            for (k = 0; k < 8; k++)
                good = good && outer.times[i] == 1 && inner[i].times[k] == 1
                    && inner[i].worker_of[k] < 2;
    }
    CHECK(good);
    smask_threads_stop(&b);
    smask_threads_stop(&a);
}

typedef struct rider { smask_threads *pool; int good; } rider;

static void *ride(void *arg)
{
    rider *r = (rider *)arg;
    int i;

    for (i = 0; i < 1000; i++) {
        job j;
        int k, count = 1 + i % 20;
        memset(&j, 0, sizeof j);
        j.hook = smask_threads_hook(r->pool);
        j.hook.run(j.hook.user, count, inner_piece, &j);
        for (k = 0; k < PIECES; k++)
            r->good = r->good && j.times[k] == (k < count);
    }
    return NULL;
}

/* Two threads, each with its own pool; then two threads on one pool, which
   serves the first and lets the other run its job alone. */
static void threads_with_pools(void)
{
    smask_threads a, b;
    rider one, two;
    pthread_t thread;
    int shared;

    SAME(smask_threads_start(&a, 2), SMASK_OK);
    SAME(smask_threads_start(&b, 3), SMASK_OK);
    for (shared = 0; shared <= 1; shared++) {
        one.pool = &a;
        two.pool = shared ? &a : &b;
        one.good = two.good = 1;
        if (!CHECK(pthread_create(&thread, NULL, ride, &two) == 0)) break;
        ride(&one);
        pthread_join(thread, NULL);
        CHECK(one.good);
        CHECK(two.good);
    }
    smask_threads_stop(&a);
    smask_threads_stop(&b);
}

/* ----------------------------------------------------- coming and going */

static void sleeps_and_wakes(void)
{
    static job j;
    smask_threads pool;
    int i;

    SAME(smask_threads_start(&pool, 4), SMASK_OK);
    j.hook = smask_threads_hook(&pool);
    j.spin = 100;
    for (i = 0; i < 30; i++) {
        rest(i % 3);
        CHECK(run_once(&j, 2 + i));
    }
    smask_threads_stop(&pool);
}

static void slow_for_workers(void *arg, int piece, int worker)
{
    job *j = (job *)arg;

    j->times[piece]++;
    if (worker != 0) rest(4);
    else busy_work(20000);
}

/* The caller finishes first and sleeps until another thread has finished
   the last piece. */
static void caller_sleeps(void)
{
    static job j;
    smask_threads pool;
    int run, i;

    SAME(smask_threads_start(&pool, 3), SMASK_OK);
    j.hook = smask_threads_hook(&pool);
    for (run = 0; run < 30; run++) {
        memset(j.times, 0, sizeof j.times);
        j.hook.run(j.hook.user, 6, slow_for_workers, &j);
        for (i = 0; i < 6; i++) SAME(j.times[i], 1);
    }
    smask_threads_stop(&pool);
}

/* A pool without work uses no processor time. */
static void idle_is_free(void)
{
    static job j;
    smask_threads pool;
    clock_t before;
    double used;

    SAME(smask_threads_start(&pool, 4), SMASK_OK);
    j.hook = smask_threads_hook(&pool);
    CHECK(run_once(&j, 100));
    rest(50);
    before = clock();
    rest(200);
    used = (double)(clock() - before) / CLOCKS_PER_SEC;
    NEAR(used, 0, 0.02);
    smask_threads_stop(&pool);
}

static void start_and_stop(void)
{
    static job j;
    smask_threads pool;
    int i;

    for (i = 0; i < 100; i++) {
        SAME(smask_threads_start(&pool, 1 + i % 5), SMASK_OK);
        j.hook = smask_threads_hook(&pool);
        if (i % 3 == 0) CHECK(run_once(&j, 10));
        smask_threads_stop(&pool);
    }
    /* A second stop changes nothing; the hook of a stopped pool is a loop. */
    smask_threads_stop(&pool);
    j.hook = smask_threads_hook(&pool);
    SAME(j.hook.workers, 1);
    CHECK(run_once(&j, 10));
}

static void zero_takes_all_processors(void)
{
    static job j;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    smask_threads pool;

    SAME(smask_threads_start(&pool, 0), SMASK_OK);
    SAME(pool.workers, processors < 1 ? 1 : processors);
    if (pool.workers < WORKERS) {
        j.hook = smask_threads_hook(&pool);
        CHECK(run_once(&j, PIECES));
    }
    smask_threads_stop(&pool);
}

static void out_of_range(void)
{
    static job j;
    static const int wrong[] = { -1, -2147483647, 1025, 1 << 30 };
    smask_threads pool;
    size_t i;

    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        SAME(smask_threads_start(&pool, wrong[i]), SMASK_ARG);
        SAME(pool.workers, 1);           /* still usable                   */
        j.hook = smask_threads_hook(&pool);
        CHECK(run_once(&j, 5));
        smask_threads_stop(&pool);
    }
}

int main(void)
{
    RUN(out_of_range);
    RUN(every_piece_once);
    RUN(jobs_in_a_row);
    RUN(more_workers_than_cores);
    RUN(work_is_shared);
    RUN(results_arrive);
    RUN(nested_runs_inline);
    RUN(two_pools);
    RUN(threads_with_pools);
    RUN(sleeps_and_wakes);
    RUN(caller_sleeps);
    RUN(idle_is_free);
    RUN(start_and_stop);
    RUN(zero_takes_all_processors);
    return DONE("test_threads");
}
