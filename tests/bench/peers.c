/* peers.c: matrix products of other libraries, where this program was built
   with -DBENCH_CBLAS or -DBENCH_DNNL; bench.sh does. See bench.h. */
#include "bench.h"
#include <stdio.h>
#include <stdlib.h>

#ifdef BENCH_CBLAS
#include <cblas.h>

static void cblas_run(const product *p)
{
    cblas_sgemm(CblasRowMajor,
        p->trans == SMASK_TN ? CblasTrans : CblasNoTrans,
        p->trans == SMASK_NT ? CblasTrans : CblasNoTrans,
        (int)p->m, (int)p->n, (int)p->k, 1, p->a, (int)p->lda, p->b,
        (int)p->ldb, 0, p->out, (int)p->n);
}

static void cblas_describe(int threads)
{
#ifdef BENCH_OPENBLAS
    const char *const kinds[] = { "one thread only", "pthreads", "OpenMP" };
    int kind = openblas_get_parallel();

    openblas_set_num_threads(threads);
    printf("# cblas: %s; core %s; %s; %d of %d threads\n",
        openblas_get_config(), openblas_get_corename(),
        kind >= 0 && kind <= 2 ? kinds[kind] : "unknown threading",
        openblas_get_num_threads(), threads);
    if (openblas_get_num_threads() != threads)
        fail("OpenBLAS runs %d threads instead of %d; set "
            "OPENBLAS_NUM_THREADS", openblas_get_num_threads(), threads);
#else
    printf("# cblas: unknown library; set its number of threads to %d\n",
        threads);
#endif
}
#endif

#ifdef BENCH_DNNL
#include <dnnl.h>

static void dnnl_run(const product *p)
{
    dnnl_sgemm(p->trans == SMASK_TN ? 'T' : 'N',
        p->trans == SMASK_NT ? 'T' : 'N', (dnnl_dim_t)p->m,
        (dnnl_dim_t)p->n, (dnnl_dim_t)p->k, 1, p->a, (dnnl_dim_t)p->lda,
        p->b, (dnnl_dim_t)p->ldb, 0, p->out, (dnnl_dim_t)p->n);
}

static void dnnl_describe(int threads)
{
    const dnnl_version_t *v = dnnl_version();
    const char *set = getenv("OMP_NUM_THREADS");

    printf("# dnnl: oneDNN %d.%d.%d, instruction set 0x%x, "
        "OMP_NUM_THREADS=%s\n", v->major, v->minor, v->patch,
        (unsigned)dnnl_get_effective_cpu_isa(), set ? set : "(not set)");
    if (set == NULL || atoi(set) != threads)
        fail("oneDNN takes its threads from the environment; set "
            "OMP_NUM_THREADS=%d", threads);
}
#endif

const peer peers[MAX_PEERS + 1] = {
#ifdef BENCH_CBLAS
    { "gflops_cblas", "ratio", "cblas", cblas_run, cblas_describe },
#endif
#ifdef BENCH_DNNL
    { "gflops_dnnl", "ratio_dnnl", "dnnl", dnnl_run, dnnl_describe },
#endif
    { NULL, NULL, NULL, NULL, NULL }
};
