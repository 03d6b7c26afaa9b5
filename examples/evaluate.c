/* evaluate.c: what does a frozen encoder know about the classes of a data
   set? Nearest neighbours and a linear probe on its features.

     build/evaluate --model out/pretrain/model.safetensors --data shapes
     build/evaluate --model random --dim 128 --depth 6 --data shapes

   The second line is the floor: what an encoder that has learnt nothing
   gives away. raw_knn_top1 is another: neighbours in plain pixels.

   Prints, in percent of the test split,
     knn_top1          weighted nearest neighbours, features of --layer
     probe_top1        linear classifier on the features of --layer
     probe_best_top1   the same on the layer that does best on held-out
                       TRAINING images; the test images choose nothing
     probe_best_layer  that layer: 1 .. depth after a block, depth + 1
                       after the final norm, which is --layer's default
     raw_knn_top1      nearest neighbours on pixels, side at most 32     */
#include "support/support.h"
#include "support/evaluation.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAW_SIDE 32

typedef struct study {
    /* options */
    model_options about;
    const char *path;
    int knn, probe, k, layer, limit, batch, threads;
    float temperature;
    uint64_t seed;
    /* what they lead to */
    evaluation_model file;
    data_set data;
    smask_vit v;
    smask_parallel hook;
    int32_t *chosen;                 /* the training images in use         */
    int32_t *all_test;               /* 0, 1, 2, ...                       */
    int32_t *train_label, *guess;
    size_t train_count, test_count;
    int32_t layers;                  /* features kept: all, or 1           */
    float *train, *test;             /* (layers, count, D)                 */
    char trouble[640];
} study;

typedef struct split { study *s; int test; progress *line; } split;

/* Images first, first + 1, ... of a split, normalised. */
static void fill(void *user, size_t first, int32_t count, float *images)
{
    const split *from = (const split *)user;
    study *s = from->s;

    data_batch(&s->data, from->test,
        from->test ? s->all_test + first : s->chosen + first, count,
        s->file.mean, s->file.deviation, images);
    progress_at(from->line, (double)first
        + (from->test ? (double)s->train_count : 0));
}

static float *room(double count, double width)
{
    const double bytes = count * width * sizeof(float);
    float *x = bytes < (double)(SIZE_MAX / 2) ? malloc((size_t)bytes) : NULL;

    if (x == NULL)
        fail("no memory for %.0f MB of features; use --limit",
            bytes / 1e6);
    return x;
}

/* Make the model and take the features of both splits. */
static smask_result take_features(smask_ctx *c, void *user)
{
    study *s = (study *)user;
    const int32_t layer = s->layers > 1 ? -1 : s->layer - 1;
    split from;
    progress line;
    int32_t missing = 0;
    smask_result result;

    memset(&line, 0, sizeof line);
    smask_vit_init(c, &s->v, &s->file.desc);
    if (smask_error(c) == SMASK_OK)
        evaluation_model_read(c, &s->file, &s->v, &missing, s->trouble,
            sizeof s->trouble);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (missing > 0)
        fail("--model %s: %d weights of the encoder are not in the file",
            s->about.model, (int)missing);
    smask_vit_pack(c, &s->v);
    if (!smask_is_dry(c))
        progress_start(&line, "features",
            (double)(s->train_count + s->test_count));
    from.s = s;
    from.line = &line;
    from.test = 0;
    result = evaluation_features(c, &s->v, s->train_count, s->batch, layer,
        fill, &from, s->train);
    from.test = 1;
    if (result == SMASK_OK)
        result = evaluation_features(c, &s->v, s->test_count, s->batch,
            layer, fill, &from, s->test);
    if (!smask_is_dry(c)) progress_end(&line);
    return result;
}

static void check(smask_result result, const char *what)
{
    if (result != SMASK_OK) fail("%s: %s", what, smask_result_text(result));
}

static void run_model(study *s)
{
    smask_desc desc;
    smask_sizes sizes;
    smask_ctx c;
    smask_result result;

    memset(&desc, 0, sizeof desc);
    desc.parallel = s->hook;
    desc.inference = 1;
    desc.seed = s->seed;
    context_for(&c, &desc, take_features, s, &sizes, s->about.model);
    result = take_features(&c, s);
    if (result == SMASK_NUMERIC)
        fail("--model %s: features are not finite; its weights are damaged",
            s->about.model);
    if (result != SMASK_OK)
        fail("%s", s->trouble[0] != '\0' ? s->trouble : smask_detail(&c));
    smask_shutdown(&c);
}

/* ------------------------------------------------------------- answers */

/* Share of right guesses on the test split, in percent. */
static double right(const study *s)
{
    return 100 * evaluation_accuracy(s->guess, s->data.test.label,
        s->test_count);
}

static double knn(study *s, float *train, float *test, size_t width)
{
    evaluation_unit_rows(train, s->train_count, width);
    evaluation_unit_rows(test, s->test_count, width);
    check(evaluation_knn(&s->hook, train, s->train_label, s->train_count,
        test, s->test_count, width, s->data.classes, s->k, s->temperature,
        s->guess), "kNN");
    return right(s);
}

/* Pixels of a split, shrunk to at most RAW_SIDE, as features. */
static float *pixels(study *s, int test, size_t count, size_t small)
{
    const size_t C = (size_t)s->v.desc.channels;
    const size_t S = (size_t)s->v.desc.image;
    float *out = room((double)count, (double)(C * small * small));
    float *image = room(1, (double)(C * S * S));
    const int32_t *which = test ? s->all_test : s->chosen;
    size_t i;

    for (i = 0; i < count; i++) {
        data_batch(&s->data, test, which + i, 1, s->file.mean,
            s->file.deviation,
            image);
        evaluation_shrink(image, 1, C, S, small, out + i * C * small * small);
    }
    free(image);
    return out;
}

static double raw_knn(study *s)
{
    const size_t S = (size_t)s->v.desc.image;
    const size_t small = S < RAW_SIDE ? S : RAW_SIDE;
    float *train = pixels(s, 0, s->train_count, small);
    float *test = pixels(s, 1, s->test_count, small);
    double percent = knn(s, train, test,
        (size_t)s->v.desc.channels * small * small);

    free(train);
    free(test);
    return percent;
}

static double probe_test(study *s, int32_t at, double weight_decay)
{
    const size_t D = (size_t)s->v.desc.dim;

    check(evaluation_probe_test(&s->hook,
        s->train + (size_t)at * s->train_count * D, s->train_label,
        s->train_count, s->test + (size_t)at * s->test_count * D,
        s->test_count, D, s->data.classes, weight_decay, s->guess),
        "the probe");
    return right(s);
}

/* Every layer gets its own decay; held-out training images judge both. */
static void probe(study *s)
{
    const size_t D = (size_t)s->v.desc.dim;
    evaluation_probe found, best;
    double last = 0, top;
    int32_t at, best_at = s->layer - 1;
    progress line;

    memset(&best, 0, sizeof best);
    best.held_accuracy = -1;
    progress_start(&line, "probe", s->layers);
    for (at = 0; at < s->layers; at++) {
        check(evaluation_probe_choose(&s->hook,
            s->train + (size_t)at * s->train_count * D, s->train_label,
            s->train_count, D, s->data.classes, s->seed, &found),
            "the probe");
        /* On equal terms the later layer: it is the one people use. */
        if (found.held_count > 0
            && found.held_accuracy >= best.held_accuracy) {
            best = found;
            best_at = at;
        }
        if (at == s->layer - 1) last = found.weight_decay;
        progress_at(&line, at + 1);
    }
    top = probe_test(s, s->layer - 1, last);
    progress_end(&line);
    result("probe_top1", top, 2);
    if (best.held_accuracy < 0 || best_at == s->layer - 1)
        result("probe_best_top1", top, 2);
    else
        result("probe_best_top1",
            probe_test(s, best_at, best.weight_decay), 2);
    result("probe_best_layer", best_at + 1, 0);
}

/* ---------------------------------------------------------------- main */

static void read_options(study *s, int argc, char **argv)
{
    const option table[] = {
        { "--model", OPTION_TEXT, &s->about.model, 0, 0,
          "a .safetensors file, or random (required)" },
        { "--data", OPTION_TEXT, &s->path, 0, 0,
          "shapes, or a folder: CIFAR-10, IDX, train/CLASS/* with "
          "val/CLASS/*, or CLASS/* (every fifth image is for testing)" },
        { "--knn", OPTION_FLAG, &s->knn, 0, 0,
          "only nearest neighbours; default: both" },
        { "--probe", OPTION_FLAG, &s->probe, 0, 0,
          "only the linear probe; default: both" },
        { "--limit", OPTION_INT, &s->limit, 0, 1e9,
          "use N training images, balanced; 0: all" },
        { "--k", OPTION_INT, &s->k, 1, 10000, "neighbours that vote" },
        { "--temperature", OPTION_REAL, &s->temperature, 1e-4, 100,
          "of the votes, exp(cosine / T)" },
        { "--layer", OPTION_INT, &s->layer, 0, 129,
          "layer whose features are used: 1 .. L after a block, L + 1 the "
          "final norm; 0: the last" },
        { "--batch", OPTION_INT, &s->batch, 1, 65536, "images at a time" },
        PIXEL_OPTIONS(s->about),
        SIZE_OPTIONS(s->about),
        { "--threads", OPTION_INT, &s->threads, 0, 1024, "0: all cores" },
        { "--seed", OPTION_SEED, &s->seed, 0, 0,
          "of random weights, of --limit and of the held-out images" }
    };

    s->path = "shapes";
    s->k = 20;
    s->temperature = 0.07f;
    s->batch = 128;
    s->about.dim = 128;
    s->about.depth = 6;
    s->about.image = 32;
    s->about.patch = 4;
    options_read("how much a frozen encoder knows about classes", table,
        (int)(sizeof table / sizeof table[0]), argc, argv);
    if (s->about.model == NULL)
        fail("--model is missing: give a model file, or random");
    if (!s->knn && !s->probe) s->knn = s->probe = 1;
}

static void open_model(study *s)
{
    const smask_vit_desc *d = &s->file.desc;

    evaluation_model_choose(&s->file, &s->about);
    if (s->layer > d->depth + 1)
        fail("--layer %d: the model has %d blocks; give 1 .. %d", s->layer,
            (int)d->depth, (int)d->depth + 1);
    if (s->layer == 0) s->layer = d->depth + 1;
    s->layers = s->probe ? d->depth + 1 : 1;
}

static void open_data(study *s)
{
    const smask_vit_desc *d = &s->file.desc;
    data_set *data = &s->data;
    size_t i;

    data->threads = s->threads;
    data_open(data, s->path, d->image, d->channels);
    s->test_count = data->test.count;
    data_needs_classes(data, s->path);
    s->chosen = malloc(data->train.count * sizeof *s->chosen);
    s->train_label = malloc(data->train.count * sizeof *s->train_label);
    s->all_test = malloc(s->test_count * sizeof *s->all_test);
    s->guess = malloc(s->test_count * sizeof *s->guess);
    if (s->chosen == NULL || s->train_label == NULL || s->all_test == NULL
        || s->guess == NULL)
        fail("no memory for the list of images");
    s->train_count = evaluation_balanced(data->train.label,
        data->train.count, data->classes, (size_t)s->limit, s->seed,
        s->chosen);
    if (s->train_count == 0) fail("no memory for the list of images");
    for (i = 0; i < s->train_count; i++)
        s->train_label[i] = data->train.label[s->chosen[i]];
    for (i = 0; i < s->test_count; i++) s->all_test[i] = (int32_t)i;
    evaluation_model_pixels(&s->file, &s->about, data->mean, data->deviation);
}

int main(int argc, char **argv)
{
    static study s;
    smask_threads pool;
    size_t D;
    size_t kept;

    read_options(&s, argc, argv);
    open_model(&s);
    open_data(&s);
    if (smask_threads_start(&pool, s.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    s.hook = smask_threads_hook(&pool);
    D = (size_t)s.file.desc.dim;
    s.train = room((double)s.layers * (double)s.train_count, (double)D);
    s.test = room((double)s.layers * (double)s.test_count, (double)D);
    run_model(&s);
    if (s.probe) probe(&s);
    if (s.knn) {
        kept = s.layers > 1 ? (size_t)s.layer - 1 : 0;
        result("knn_top1", knn(&s, s.train + kept * s.train_count * D,
            s.test + kept * s.test_count * D, D), 2);
        result("raw_knn_top1", raw_knn(&s), 2);
    }
    smask_threads_stop(&pool);
    data_close(&s.data);
    free(s.train);
    free(s.test);
    free(s.chosen);
    free(s.train_label);
    free(s.all_test);
    free(s.guess);
    return 0;
}
