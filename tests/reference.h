/* reference.h: what the ops of the tape compute, straight from their
   formulas, in double. Row-major; sizes as in the comments of splitmask.h.
   NULL where an argument may be left out. */
#ifndef SPLITMASK_REFERENCE_H
#define SPLITMASK_REFERENCE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2. */
static inline double right_gelu(double x)
{
    return 0.5 * x * erfc(-x * 0.70710678118654752440);
}

/* (x - mean) / sqrt(var + 1e-6) * w + b for one row. */
static inline void right_norm(const double *x, const double *w,
    const double *b, size_t D, double *y)
{
    double mean = 0, var = 0;
    size_t j;

    for (j = 0; j < D; j++) mean += x[j] / (double)D;
    for (j = 0; j < D; j++) var += (x[j] - mean) * (x[j] - mean) / (double)D;
    for (j = 0; j < D; j++)
        y[j] = (x[j] - mean) / sqrt(var + 1e-6) * w[j] + b[j];
}

/* y = r + keep * (x w' + b); `group` rows share a factor. */
static inline void right_linear(const double *x, const double *w,
    const double *b, const double *r, const float *keep, size_t group,
    size_t rows, size_t I, size_t O, double *y)
{
    size_t i, j, p;

    for (i = 0; i < rows; i++)
        for (j = 0; j < O; j++) {
            double sum = b != NULL ? b[j] : 0;
            for (p = 0; p < I; p++) sum += x[i * I + p] * w[j * I + p];
            if (keep != NULL) sum *= (double)keep[i / group];
            y[i * O + j] = sum + (r != NULL ? r[i * O + j] : 0);
        }
}

/* Softmax of count numbers, in place. */
static inline void right_softmax(double *x, size_t count)
{
    double most = x[0], sum = 0;
    size_t j;

    for (j = 1; j < count; j++) if (x[j] > most) most = x[j];
    for (j = 0; j < count; j++) sum += x[j] = exp(x[j] - most);
    for (j = 0; j < count; j++) x[j] /= sum;
}

/* log of the sum of exp. */
static inline double right_log_sum(const double *x, size_t count)
{
    double most = x[0], sum = 0;
    size_t j;

    for (j = 1; j < count; j++) if (x[j] > most) most = x[j];
    for (j = 0; j < count; j++) sum += exp(x[j] - most);
    return most + log(sum);
}

/* qkv (B,N,3D) -> y (B,N,D); bias (T,H), index (N,N); p (N) is scratch. */
static inline void right_attention(const double *qkv, const double *bias,
    const int32_t *index, size_t B, size_t N, size_t D, size_t H, double *p,
    double *y)
{
    const size_t K = D / H;
    size_t b, h, i, j, e;

    for (b = 0; b < B; b++)
        for (h = 0; h < H; h++)
            for (i = 0; i < N; i++) {
                const double *q = qkv + (b * N + i) * 3 * D + h * K;
                for (j = 0; j < N; j++) {
                    const double *k = qkv + (b * N + j) * 3 * D + D + h * K;
                    double sum = 0;
                    for (e = 0; e < K; e++) sum += q[e] * k[e];
                    p[j] = sum / sqrt((double)K);
                    if (bias != NULL)
                        p[j] += bias[(size_t)index[i * N + j] * H + h];
                }
                right_softmax(p, N);
                for (e = 0; e < K; e++) {
                    double sum = 0;
                    for (j = 0; j < N; j++)
                        sum += p[j]
                            * qkv[(b * N + j) * 3 * D + 2 * D + h * K + e];
                    y[(b * N + i) * D + h * K + e] = sum;
                }
            }
}

/* (index[b,n] >= 0 ? x[index[b,n]] : fill) + position[n] */
static inline void right_gather(const double *x, const double *fill,
    const double *position, const int32_t *index, size_t B, size_t N,
    size_t D, double *y)
{
    size_t i, j;

    for (i = 0; i < B * N; i++)
        for (j = 0; j < D; j++) {
            const double *from = index == NULL ? x + i * D
                : index[i] >= 0 ? x + (size_t)index[i] * D : fill;
            y[i * D + j] = from[j]
                + (position != NULL ? position[i % N * D + j] : 0);
        }
}

/* Mean over rows skip .. N-1. */
static inline void right_mean_tokens(const double *x, size_t B, size_t N,
    size_t D, size_t skip, double *y)
{
    size_t b, n, j;

    for (b = 0; b < B; b++)
        for (j = 0; j < D; j++) {
            y[b * D + j] = 0;
            for (n = skip; n < N; n++)
                y[b * D + j] += x[(b * N + n) * D + j] / (double)(N - skip);
        }
}

static inline void right_l2_normalize(const double *x, size_t D, double *y)
{
    double sum = 0;
    size_t j;

    for (j = 0; j < D; j++) sum += x[j] * x[j];
    for (j = 0; j < D; j++) y[j] = sum > 0 ? x[j] / sqrt(sum) : 0;
}

/* Mean over rows of -sum_j t_j log softmax(x)_j. */
static inline double right_cross_entropy(const double *x, const float *t,
    size_t R, size_t C)
{
    double loss = 0;
    size_t i, j;

    for (i = 0; i < R; i++) {
        const double all = right_log_sum(x + i * C, C);
        for (j = 0; j < C; j++)
            loss += (double)t[i * C + j] * (all - x[i * C + j]) / (double)R;
    }
    return loss;
}

/* Mean over rows of -log softmax(x w' + b)[label]; logits (V): scratch. */
static inline double right_head_loss(const double *x, const double *w,
    const double *b, const int32_t *label, size_t R, size_t D, size_t V,
    double *logits)
{
    double loss = 0;
    size_t i;

    for (i = 0; i < R; i++) {
        right_linear(x + i * D, w, b, NULL, NULL, 1, 1, D, V, logits);
        loss += (right_log_sum(logits, V) - logits[label[i]]) / (double)R;
    }
    return loss;
}

/* InfoNCE. `keys` are the second factors: x itself, or a copy that stays
   fixed where no gradient flows through them. s (rows): scratch. */
static inline double right_info_nce(const double *x, const double *keys,
    size_t rows, size_t D, double temperature, int all_negatives, double *s)
{
    const size_t B = rows / 2;
    double loss = 0;
    size_t i, j, e;

    for (i = 0; i < rows; i++) {
        const size_t partner = i < B ? i + B : i - B;
        double right = 0;
        size_t n = 0;
        for (j = 0; j < rows; j++) {
            const int other_half = (i < B) != (j < B);
            double sum = 0;
            if (!other_half && (!all_negatives || j == i)) continue;
            for (e = 0; e < D; e++) sum += x[i * D + e] * keys[j * D + e];
            s[n] = sum / temperature;
            if (j == partner) right = s[n];
            n++;
        }
        loss += (right_log_sum(s, n) - right) / (double)rows;
    }
    return loss;
}

#endif /* SPLITMASK_REFERENCE_H */
