/* augment.c: every step sees each training image anew. See support.h.

   What happens to an image is drawn from a generator of its own, seeded by
   (seed, step, place in the batch), so that it does not matter which thread
   makes it, or when.

   The extras are what the paper adds for its smallest sets, with the
   numbers of DINO's code for one view:
     colour jitter   chance 0.8: brightness and contrast 0.6 .. 1.4,
                     saturation 0.8 .. 1.2, hue by up to a tenth of a turn
     grey            chance 0.2
     blur            chance 0.5: Gaussian, sigma 0.1 .. 2 pixels at side
                     224, and in proportion at other sides
     solarisation    chance 0.2: what is brighter than 0.5 is inverted   */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------- generator */

/* A change of any bit changes half of the bits that come out (the last
   step of splitmix64, Steele et al. 2014). */
static uint64_t scramble(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void random_at(smask_random *random, uint64_t seed, int64_t step,
    uint64_t at)
{
    const uint64_t mixed = scramble(at + scramble((uint64_t)step
        + scramble(seed)));

    smask_seed(random, mixed, scramble(mixed));
}

static double between(smask_random *random, double least, double most)
{
    return least + (most - least) * (double)smask_uniform(random);
}

/* ---------------------------------------------------------- resampling */

/* How one output coordinate after the other is made: `taps` inputs from
   first[o] on, with weights that sum to 1. taps is a multiple of 4; the
   last ones may have weight 0 and lie past the end of the input. */
typedef struct axis {
    int32_t *first;                  /* (side)                             */
    float *weight;                   /* (side, taps)                       */
    int32_t taps, low, high;         /* inputs in use: low .. high - 1     */
} axis;

/* Cubic convolution, a = -1/2 (Keys 1981). */
static double cubic(double x)
{
    x = fabs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
    return 0;
}

static int32_t count_taps(double stretch)
{
    const int32_t reach = (int32_t)ceil(stretch > 1 ? 2 * stretch : 2);

    return (2 * reach + 3) / 4 * 4;
}

/* Shrinking widens the kernel, so that every input pixel counts. */
static void plan_axis(axis *a, double from, double length, int32_t outputs,
    int32_t inputs)
{
    const double step = length / outputs;
    const double stretch = step > 1 ? step : 1;
    const int32_t reach = (int32_t)ceil(2 * stretch);
    int32_t o, k;

    a->low = inputs;
    a->high = 0;
    for (o = 0; o < outputs; o++) {
        const double centre = from + (o + 0.5) * step;
        const int32_t start = (int32_t)floor(centre - 0.5) - reach + 1;
        float *w = a->weight + o * a->taps;
        int32_t first = start < 0 ? 0 : start;
        int32_t end = start + 2 * reach;
        double sum = 0;

        if (end > inputs) end = inputs;
        if (first >= end) first = end - 1;
        for (k = 0; k < a->taps; k++) w[k] = 0;
        for (k = first; k < end; k++)
            sum += cubic((k + 0.5 - centre) / stretch);
        for (k = first; k < end; k++)
            w[k - first] = (float)(cubic((k + 0.5 - centre) / stretch)
                / sum);
        a->first[o] = first;
        if (first < a->low) a->low = first;
        if (end > a->high) a->high = end;
    }
}

/* One output row before the columns are weighed: t[x], x = low .. high - 1,
   from the rows of the input, four at a time. */
static void weigh_rows(const uint8_t *plane, int32_t width, int32_t height,
    int32_t first, const float *w, int32_t taps, int32_t low, int32_t high,
    float *t)
{
    int32_t k, x, j;

    for (k = 0; k < taps; k += 4) {
        const uint8_t *row[4];
        const float w0 = w[k], w1 = w[k + 1], w2 = w[k + 2], w3 = w[k + 3];

        if (k > 0 && w0 == 0 && w1 == 0 && w2 == 0 && w3 == 0) continue;
        for (j = 0; j < 4; j++) {
            const int32_t y = first + k + j;
            row[j] = plane + (size_t)(y < height ? y : height - 1)
                * (size_t)width;
        }
        if (k == 0)
            for (x = low; x < high; x++)
                t[x] = w0 * row[0][x] + w1 * row[1][x] + w2 * row[2][x]
                    + w3 * row[3][x];
        else
            for (x = low; x < high; x++)
                t[x] += w0 * row[0][x] + w1 * row[1][x] + w2 * row[2][x]
                    + w3 * row[3][x];
    }
}

/* The columns of one output row; the cubic overshoots, hence the clamp. */
static void weigh_columns(const float *t, const axis *a, int32_t width,
    int flip, float scale, float shift, float *out)
{
    const int32_t taps = a->taps;
    int32_t x, k;

    for (x = 0; x < width; x++) {
        const float *from = t + a->first[x];
        const float *w = a->weight + x * taps;
        float sum = 0;

        for (k = 0; k < taps; k += 4)
            sum += from[k] * w[k] + from[k + 1] * w[k + 1]
                + (from[k + 2] * w[k + 2] + from[k + 3] * w[k + 3]);
        sum = sum < 0 ? 0 : sum > 255 ? 255 : sum;
        out[flip ? width - 1 - x : x] = scale * sum + shift;
    }
}

/* A picture of the right size that is taken whole. */
static void copy_pixels(const picture *p, int32_t channels, int flip,
    const float *scale, const float *shift, float *out)
{
    const size_t width = (size_t)p->width, height = (size_t)p->height;
    float value[256];
    int32_t c, i;
    size_t y, x;

    for (c = 0; c < channels; c++) {
        for (i = 0; i < 256; i++)
            value[i] = scale[c] * (float)i + shift[c];
        for (y = 0; y < height; y++) {
            const size_t row = ((size_t)c * height + y) * width;
            const uint8_t *from = p->pixels + row;
            for (x = 0; x < width; x++)
                out[row + x] = value[from[flip ? width - 1 - x : x]];
        }
    }
}

void picture_resample(const picture *p, int32_t channels,
    const double window[4], int flip, int32_t width, int32_t height,
    const float *scale, const float *shift, float *out)
{
    const size_t W = (size_t)width, H = (size_t)height;
    const size_t plane = (size_t)p->width * (size_t)p->height;
    axis across, down;
    float *room, *t;
    int32_t c, y;

    if (p->width == width && p->height == height && window[0] == 0
        && window[1] == 0 && window[2] == width && window[3] == height) {
        copy_pixels(p, channels, flip, scale, shift, out);
        return;
    }
    across.taps = count_taps(window[2] / width);
    down.taps = count_taps(window[3] / height);
    room = (float *)calloc(W * (size_t)across.taps + H * (size_t)down.taps
        + (size_t)(p->width + across.taps), sizeof(float));
    across.first = (int32_t *)malloc((W + H) * sizeof(int32_t));
    if (room == NULL || across.first == NULL)
        fail("no memory to resize an image; use a smaller --image");
    down.first = across.first + W;
    across.weight = room;
    down.weight = across.weight + W * (size_t)across.taps;
    t = down.weight + H * (size_t)down.taps;
    plan_axis(&across, window[0], window[2], width, p->width);
    plan_axis(&down, window[1], window[3], height, p->height);
    for (c = 0; c < channels; c++)
        for (y = 0; y < height; y++) {
            weigh_rows(p->pixels + (size_t)c * plane, p->width, p->height,
                down.first[y], down.weight + y * down.taps, down.taps,
                across.low, across.high, t);
            weigh_columns(t, &across, width, flip, scale[c], shift[c],
                out + ((size_t)c * H + (size_t)y) * W);
        }
    free(room);
    free(across.first);
}

/* -------------------------------------------------------------- extras */

static float grey_of(const float *x, size_t plane, size_t i)
{
    return 0.299f * x[i] + 0.587f * x[plane + i] + 0.114f * x[2 * plane + i];
}

static float within(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/* reach: of brightness and contrast, of saturation, of hue in turns.
   Brightness, contrast, then saturation and hue as a stretched turn of the
   two colour axes of YIQ around grey. */
static void jitter_colours(float *x, int32_t channels, size_t plane,
    const double reach[3], smask_random *random)
{
    const float bright = (float)between(random, 1 - reach[0], 1 + reach[0]);
    const float contrast = (float)between(random, 1 - reach[0],
        1 + reach[0]);
    const double strong = between(random, 1 - reach[1], 1 + reach[1]);
    const double angle = between(random, -reach[2], reach[2])
        * 6.283185307179586;
    const float co = (float)(strong * cos(angle));
    const float si = (float)(strong * sin(angle));
    double mean = 0;
    float middle;
    size_t i;

    for (i = 0; i < plane; i++)
        mean += channels == 3 ? grey_of(x, plane, i) : x[i];
    middle = (1 - contrast) * bright * (float)(mean / (double)plane);
    for (i = 0; i < plane * (size_t)channels; i++)
        x[i] = contrast * bright * x[i] + middle;
    for (i = 0; i < plane && channels == 3; i++) {
        const float r = x[i], g = x[plane + i], b = x[2 * plane + i];
        const float grey = grey_of(x, plane, i);
        const float u = 0.596f * r - 0.274f * g - 0.322f * b;
        const float v = 0.211f * r - 0.523f * g + 0.312f * b;
        const float p = co * u - si * v, q = si * u + co * v;
        x[i] = grey + 0.956f * p + 0.621f * q;
        x[plane + i] = grey - 0.272f * p - 0.647f * q;
        x[2 * plane + i] = grey - 1.106f * p + 1.703f * q;
    }
    for (i = 0; i < plane * (size_t)channels; i++) x[i] = within(x[i]);
}

#define MOST_REACH 64

/* Blur one line of `n` values that lie `stride` apart; edges continue. */
static void blur_line(float *x, size_t n, size_t stride, const float *w,
    size_t reach, float *line)
{
    size_t i, k;

    for (i = 0; i < n; i++) line[reach + i] = x[i * stride];
    for (i = 0; i < reach; i++) {
        line[i] = line[reach];
        line[reach + n + i] = line[reach + n - 1];
    }
    for (i = 0; i < n; i++) {
        float sum = w[0] * line[reach + i];
        for (k = 1; k <= reach; k++)
            sum += w[k] * (line[reach + i - k] + line[reach + i + k]);
        x[i * stride] = sum;
    }
}

static void blur(float *x, int32_t channels, int32_t side, double sigma)
{
    const size_t S = (size_t)side;
    size_t reach = (size_t)ceil(3 * sigma), k, j;
    float w[MOST_REACH + 1], *line;
    double sum = 1;
    int32_t c;

    if (reach > MOST_REACH) reach = MOST_REACH;
    for (k = 1; k <= reach; k++)
        sum += 2 * exp(-0.5 * (double)(k * k) / (sigma * sigma));
    for (k = 0; k <= reach; k++)
        w[k] = (float)(exp(-0.5 * (double)(k * k) / (sigma * sigma)) / sum);
    line = (float *)malloc((S + 2 * reach) * sizeof(float));
    if (line == NULL) fail("no memory to blur an image");
    for (c = 0; c < channels; c++, x += S * S) {
        for (j = 0; j < S; j++) blur_line(x + j * S, S, 1, w, reach, line);
        for (j = 0; j < S; j++) blur_line(x + j, S, S, w, reach, line);
    }
    free(line);
}

/* Image (channels, side, side), 0 .. 1. Every chance is drawn whether it is
   taken or not; what follows a hit draws on from there. */
static void change_colours(float *x, int32_t channels, int32_t side,
    smask_random *random)
{
    static const double reach[3] = { 0.4, 0.2, 0.1 };
    const size_t plane = (size_t)side * (size_t)side;
    const int jitter = smask_uniform(random) < 0.8f;
    const int grey = smask_uniform(random) < 0.2f;
    const int smooth = smask_uniform(random) < 0.5f;
    const int solar = smask_uniform(random) < 0.2f;
    size_t i;

    if (jitter) jitter_colours(x, channels, plane, reach, random);
    for (i = 0; i < plane && grey && channels == 3; i++)
        x[i] = x[plane + i] = x[2 * plane + i] = grey_of(x, plane, i);
    if (smooth)
        blur(x, channels, side, between(random, 0.1, 2) * side / 224);
    for (i = 0; i < plane * (size_t)channels && solar; i++)
        if (x[i] >= 0.5f) x[i] = 1 - x[i];
}

/* --------------------------------------------------------------- crops */

/* A window of least .. most of the area and ratio 3/4 .. 4/3 at a random
   place. Where ten draws do not fit: as much of the middle as the ratios
   allow. */
static void draw_window(const picture *p, double least, double most,
    smask_random *random, double window[4])
{
    const double width = p->width, height = p->height;
    int tries;

    for (tries = 0; tries < 10; tries++) {
        const double area = width * height * between(random, least, most);
        const double ratio = exp(between(random, -1, 1) * log(4.0 / 3));
        const double w = sqrt(area * ratio), h = sqrt(area / ratio);

        if (w > width || h > height) continue;
        window[0] = between(random, 0, width - w);
        window[1] = between(random, 0, height - h);
        window[2] = w;
        window[3] = h;
        return;
    }
    window[2] = width > height * 4 / 3 ? height * 4 / 3 : width;
    window[3] = height > width * 4 / 3 ? width * 4 / 3 : height;
    window[0] = (width - window[2]) / 2;
    window[1] = (height - window[3]) / 2;
}

typedef struct crop_job {
    const data_set *d;
    const int32_t *which;
    const float *mean, *deviation;
    double least, most;
    uint64_t seed;
    int64_t step;
    float *images;
} crop_job;

static void augment_one(void *arg, int at, int worker)
{
    const crop_job *job = (const crop_job *)arg;
    const data_set *d = job->d;
    const picture *p = d->train.image + job->which[at];
    const size_t plane = (size_t)d->image * (size_t)d->image;
    float *out = job->images + (size_t)at * (size_t)d->channels * plane;
    float scale[4], shift[4];
    smask_random random;
    double window[4];
    int32_t c;
    size_t i;
    int flip;

    (void)worker;
    random_at(&random, job->seed, job->step, (uint64_t)at);
    flip = smask_uniform(&random) < 0.5f && !d->no_flip;
    draw_window(p, job->least, job->most, &random, window);
    for (c = 0; c < d->channels; c++) {
        const float whole = d->extras ? 1 : job->deviation[c];
        scale[c] = 1 / (255 * whole);
        shift[c] = d->extras ? 0 : -job->mean[c] / whole;
    }
    picture_resample(p, d->channels, window, flip, d->image, d->image, scale,
        shift, out);
    if (!d->extras) return;
    change_colours(out, d->channels, d->image, &random);
    for (c = 0; c < d->channels; c++)
        for (i = 0; i < plane; i++)
            out[(size_t)c * plane + i] = (out[(size_t)c * plane + i]
                - job->mean[c]) / job->deviation[c];
}

void data_augmented(const data_set *d, const int32_t *which, int32_t count,
    const float *mean, const float *deviation, float crop_least,
    uint64_t seed, int64_t step, const smask_parallel *hook, float *images)
{
    crop_job job;
    int32_t i;

    job.d = d;
    job.which = which;
    job.mean = mean;
    job.deviation = deviation;
    job.most = d->crop_most > 0 && d->crop_most < 1
        ? (double)d->crop_most : 1;
    job.least = (double)crop_least < job.most ? (double)crop_least
        : job.most;
    job.seed = seed;
    job.step = step;
    job.images = images;
    if (hook != NULL && hook->run != NULL)
        hook->run(hook->user, count, augment_one, &job);
    else
        for (i = 0; i < count; i++) augment_one(&job, i, 0);
}

/* ---------------------------------------------------- colours of a half */

typedef struct jitter_job {
    const data_set *d;
    const float *images, *mean, *deviation;
    double strength;
    uint64_t seed;
    int64_t step;
    float *out;
} jitter_job;

static void jitter_one(void *arg, int at, int worker)
{
    const jitter_job *job = (const jitter_job *)arg;
    const size_t C = (size_t)job->d->channels;
    const size_t plane = (size_t)job->d->image * (size_t)job->d->image;
    const float *from = job->images + (size_t)at * C * plane;
    const double reach[3] = { 0.8 * job->strength, 0.8 * job->strength,
        0.2 * job->strength };
    float *out = job->out + (size_t)at * C * plane;
    smask_random random;
    size_t i, c;
    int jitter, grey;

    (void)worker;
    random_at(&random, job->seed, job->step, (uint64_t)at);
    jitter = smask_uniform(&random) < 0.8f;
    grey = (double)smask_uniform(&random) < 0.4 * job->strength;
    for (c = 0; c < C; c++)
        for (i = c * plane; i < (c + 1) * plane; i++)
            out[i] = within(from[i] * job->deviation[c] + job->mean[c]);
    if (jitter)
        jitter_colours(out, job->d->channels, plane, reach, &random);
    for (i = 0; i < plane && grey && C == 3; i++)
        out[i] = out[plane + i] = out[2 * plane + i] = grey_of(out, plane, i);
    for (c = 0; c < C; c++)
        for (i = c * plane; i < (c + 1) * plane; i++)
            out[i] = (out[i] - job->mean[c]) / job->deviation[c];
}

void data_jittered(const data_set *d, const float *images, int32_t count,
    const float *mean, const float *deviation, float strength, uint64_t seed,
    int64_t step, const smask_parallel *hook, float *out)
{
    jitter_job job;
    int32_t i;

    job.d = d;
    job.images = images;
    job.mean = mean;
    job.deviation = deviation;
    job.strength = (double)strength;
    job.seed = seed;
    job.step = step;
    job.out = out;
    if (hook != NULL && hook->run != NULL)
        hook->run(hook->user, count, jitter_one, &job);
    else
        for (i = 0; i < count; i++) jitter_one(&job, i, 0);
}

/* -------------------------------------------------------------- mixing */

/* Gamma(alpha, 1), by Marsaglia and Tsang 2000; below 1 by their boost. */
static double draw_gamma(smask_random *random, double alpha)
{
    const double shape = alpha < 1 ? alpha + 1 : alpha;
    const double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    double x, v;

    do {
        x = (double)smask_normal(random);
        v = 1 + c * x;
        v = v * v * v;
    } while (v <= 0 || log(1 - (double)smask_uniform(random))
        >= 0.5 * x * x + d - d * v + d * log(v));
    if (alpha < 1)
        v *= pow(1 - (double)smask_uniform(random), 1 / alpha);
    return d * v;
}

static double draw_share(smask_random *random, double alpha)
{
    const double a = draw_gamma(random, alpha);
    const double b = draw_gamma(random, alpha);

    /* A tiny alpha means all or nothing, below what a double resolves. */
    if (!(a + b > 0)) return smask_next(random) & 1;
    return a / (a + b);
}

/* Both values move towards each other. */
static void blend(float *a, float *b, size_t count, float share)
{
    size_t i;

    for (i = 0; i < count; i++) {
        const float x = a[i], y = b[i];
        a[i] = share * x + (1 - share) * y;
        b[i] = share * y + (1 - share) * x;
    }
}

/* Exchange the box of two images. */
static void swap_box(float *a, float *b, int32_t channels, int32_t side,
    const int32_t box[4])
{
    int32_t c, y, x;

    for (c = 0; c < channels; c++)
        for (y = box[1]; y < box[3]; y++)
            for (x = box[0]; x < box[2]; x++) {
                const size_t at = ((size_t)c * (size_t)side + (size_t)y)
                    * (size_t)side + (size_t)x;
                const float kept = a[at];
                a[at] = b[at];
                b[at] = kept;
            }
}

/* A box of 1 - share of the area around a random pixel, cut at the edges.
   Returns the share of the image that is outside. */
static double draw_box(smask_random *random, int32_t side, double share,
    int32_t box[4])
{
    const int32_t edge = (int32_t)(side * sqrt(1 - share));
    int i;

    for (i = 0; i < 2; i++) {
        const int32_t centre = (int32_t)smask_below(random, (uint32_t)side);
        const int32_t low = centre - edge / 2, high = low + edge;
        box[i] = low < 0 ? 0 : low;
        box[i + 2] = high > side ? side : high;
    }
    return 1 - (double)(box[2] - box[0]) * (box[3] - box[1])
        / ((double)side * side);
}

void mix_batch(float *images, float *targets, int32_t count,
    int32_t channels, int32_t side, int32_t classes, float mixup,
    float cutmix, uint64_t seed, int64_t step)
{
    const size_t pixels = (size_t)channels * (size_t)side * (size_t)side;
    smask_random random;
    int32_t box[4] = { 0, 0, 0, 0 };
    int32_t i;
    int cut;
    double share;

    if (!(mixup > 0) && !(cutmix > 0)) return;
    random_at(&random, seed, step, UINT64_C(1) << 40);
    cut = cutmix > 0 && (!(mixup > 0) || smask_uniform(&random) < 0.5f);
    share = draw_share(&random, (double)(cut ? cutmix : mixup));
    if (cut) share = draw_box(&random, side, share, box);
    for (i = 0; i < count / 2; i++) {
        float *a = images + (size_t)i * pixels;
        float *b = images + (size_t)(count - 1 - i) * pixels;

        if (cut) swap_box(a, b, channels, side, box);
        else blend(a, b, pixels, (float)share);
        blend(targets + (size_t)i * (size_t)classes,
            targets + (size_t)(count - 1 - i) * (size_t)classes,
            (size_t)classes, (float)share);
    }
}
