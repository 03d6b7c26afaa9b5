/* finetune.c: train a classifier together with the encoder under it, and
   measure it on the test split.

     build/finetune --model out/pretrain/model.safetensors --data shapes
     build/finetune --model random --dim 128 --depth 6 --data shapes

   The recipe is the one that BEiT and its successors share: mean of the
   patch tokens, a classifier that starts at almost nothing, label
   smoothing, mixup and cutmix, stochastic depth, and a learning rate that
   falls from the head down to the patch embedding (layer decay), because
   what lies deep has been learnt already. In a random encoder nothing has,
   so there the layer decay is 1 unless you say otherwise.

   Prints finetune_top1, in percent, of the LAST epoch: the best epoch by
   the test images would have seen them. DIR/log.csv has the course and the
   accuracy of each class, DIR/model.safetensors the model.              */
#include "support/support.h"
#include "support/evaluation.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct training {
    /* options */
    const char *model, *path, *out;
    int epochs, limit, batch, threads, warmup, test_every;
    int dim, depth, heads, image, patch, bf16;
    float lr, layer_decay, drop_path, mixup, cutmix, smoothing;
    float weight_decay, crop;
    uint64_t seed;
    /* what they lead to */
    evaluation_model file;
    data_set data;
    smask_parallel hook;
    smask_isa isa;
    smask_vit v;
    smask_adam adam;
    float mean[4], deviation[4];
    int32_t *order;                  /* the training images in use         */
    int32_t *all_test, *guess;
    size_t train_count, test_count, pixels;
    int32_t steps;                   /* in an epoch                        */
    int done;                        /* epochs                             */
    FILE *log;
    progress line;                   /* main ends it, after the save       */
    char model_file[1100], trouble[640];
} training;

/* ------------------------------------------------------------- targets */

/* One row of class probabilities per image: 1 - smoothing on the label, the
   rest spread over all classes. */
static void smooth_targets(const training *t, const int32_t *which,
    int32_t B, float *targets)
{
    const int32_t classes = t->data.classes;
    const float rest = t->smoothing / (float)classes;
    int32_t i, k;

    for (i = 0; i < B; i++)
        for (k = 0; k < classes; k++)
            targets[i * classes + k] = rest
                + (k == t->data.train.label[which[i]] ? 1 - t->smoothing : 0);
}

/* ---------------------------------------------------------------- steps */

/* One update on the images `which`; returns the loss, or -1 on error. */
static float train_step(smask_ctx *c, training *t, const int32_t *which,
    int64_t step)
{
    const int32_t B = t->batch;
    float *images, *targets, value = -1;
    smask_tensor *loss;

    smask_begin_step(c);
    images = (float *)smask_alloc(c,
        (size_t)B * t->pixels * sizeof(float));
    targets = (float *)smask_alloc(c,
        (size_t)B * (size_t)t->data.classes * sizeof(float));
    if (!smask_is_dry(c) && smask_error(c) == SMASK_OK) {
        data_augmented(&t->data, which, B, t->mean, t->deviation,
            t->crop, t->seed, step, &t->hook, images);
        smooth_targets(t, which, B, targets);
        mix_batch(images, targets, B, t->v.desc.channels, t->v.desc.image,
            t->data.classes, t->mixup, t->cutmix, t->seed, step);
    }
    t->v.training = 1;
    loss = smask_cross_entropy(c, smask_vit_classify(c, &t->v, images, B),
        targets);
    smask_backward(c, loss);
    smask_adam_update(c, &t->adam, &t->v.params);
    if (loss != NULL && loss->x != NULL) value = loss->x[0];
    smask_end_step(c);
    return smask_error(c) == SMASK_OK ? value : -1;
}

/* Guess the class of every test image. */
static void test_all(smask_ctx *c, training *t)
{
    const int32_t classes = t->data.classes;
    const size_t most = (size_t)t->batch;
    size_t first;

    t->v.training = 0;
    smask_record(c, 0);
    for (first = 0; first < t->test_count; first += most) {
        const size_t left = t->test_count - first;
        const int32_t B = (int32_t)(left < most ? left : most);
        smask_tensor *scores;
        float *images;
        int32_t i, k;

        smask_begin_step(c);
        images = (float *)smask_alloc(c,
            (size_t)B * t->pixels * sizeof(float));
        if (images != NULL)
            data_batch(&t->data, 1, t->all_test + first, B, t->mean,
                t->deviation, images);
        scores = smask_vit_classify(c, &t->v, images, B);
        for (i = 0; i < B && scores != NULL && scores->x != NULL; i++) {
            const float *row = scores->x + i * classes;
            int32_t top = 0;
            for (k = 1; k < classes; k++) if (row[k] > row[top]) top = k;
            t->guess[first + (size_t)i] = top;
        }
        smask_end_step(c);
        if (smask_is_dry(c) || smask_error(c) != SMASK_OK) break;
    }
    smask_record(c, 1);
}

/* ----------------------------------------------------------------- log */

static void log_line(training *t, int epoch, double loss, int tested)
{
    const int32_t classes = t->data.classes;
    int32_t k;
    size_t i;

    fprintf(t->log, "%d,%g,%.5f", epoch, (double)t->adam.rate, loss);
    if (tested)
        fprintf(t->log, ",%.2f", 100 * evaluation_accuracy(t->guess,
            t->data.test.label, t->test_count));
    else
        fprintf(t->log, ",");
    for (k = 0; k < classes; k++) {
        int seen = 0, hits = 0;
        for (i = 0; i < t->test_count && tested; i++)
            if (t->data.test.label[i] == k) {
                seen++;
                hits += t->guess[i] == k;
            }
        if (seen > 0) fprintf(t->log, ",%.2f", 100.0 * hits / seen);
        else fprintf(t->log, ",");
    }
    fprintf(t->log, "\n");
    if (fflush(t->log) != 0)
        fail("%s/log.csv: the disk is full; make room", t->out);
}

/* The log, once the model has been read. Files of an earlier run keep their
   content under another name. */
static void open_log(training *t)
{
    char path[1100];
    int32_t k;

    if (file_keep(t->out, "model.safetensors") + file_keep(t->out, "log.csv")
        > 0)
        warn("%s held an earlier run: its files are now named .old", t->out);
    snprintf(path, sizeof path, "%s/log.csv", t->out);
    t->log = fopen(path, "w");
    if (t->log == NULL) fail("--out: %s: %s", path, strerror(errno));
    fprintf(t->log, "epoch,lr,loss,top1");
    for (k = 0; k < t->data.classes; k++) {
        const char *name = t->data.class_name[k];
        fputc(',', t->log);
        for (; *name != '\0'; name++)
            fputc(*name == ',' || *name == '"' ? '_' : *name, t->log);
    }
    fprintf(t->log, "\n");
}

/* ---------------------------------------------------------------- work */

/* The model and its optimiser; then every epoch. In a dry run one step of
   each kind. */
static smask_result work(smask_ctx *c, void *user)
{
    training *t = (training *)user;
    smask_adam_desc adam;
    smask_random random;
    progress *line = &t->line;
    int32_t missing, b;
    int epoch;

    /* The head begins anew, nearly at zero: one in the file is of another
       task. Its two tensors are the last, and hidden while reading. */
    if (smask_vit_init(c, &t->v, &t->file.desc) != SMASK_OK)
        return smask_error(c);
    t->v.params.count -= 2;
    evaluation_model_read(c, &t->file, &t->v, &missing, t->trouble,
        sizeof t->trouble);
    t->v.params.count += 2;
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (missing > 0)
        fail("--model %s: %d weights of the encoder are not in the file",
            t->model, (int)missing);
    memset(&adam, 0, sizeof adam);
    adam.lr = t->lr;
    adam.beta2 = 0.999f;
    adam.weight_decay = t->weight_decay > 0 ? t->weight_decay : -1;
    adam.clip = -1;
    adam.layer_decay = t->layer_decay;
    adam.steps = (int64_t)t->epochs * t->steps;
    adam.warmup = (int64_t)t->warmup * t->steps;
    adam.final_lr = 1e-6f;
    smask_adam_init(c, &t->adam, &adam, &t->v.params);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (smask_is_dry(c)) {
        train_step(c, t, t->order, 0);
        test_all(c, t);
        return smask_error(c);
    }
    open_log(t);
    stop_catch();
    progress_start(line, "fine-tune", (double)adam.steps
        * (double)t->batch);
    for (epoch = 0; epoch < t->epochs; epoch++) {
        const int tested = epoch + 1 == t->epochs
            || (epoch + 1) % t->test_every == 0;
        double sum = 0;

        smask_seed(&random, t->seed, 100 + (uint64_t)epoch);
        smask_shuffle(&random, t->order, (int32_t)t->train_count);
        for (b = 0; b < t->steps; b++) {
            const int64_t step = (int64_t)epoch * t->steps + b;
            const float loss = train_step(c, t,
                t->order + (size_t)b * (size_t)t->batch, step);
            if (smask_error(c) != SMASK_OK) return smask_error(c);
            if (stop_wanted()) return SMASK_OK;
            sum += loss;
            progress_loss(line, (double)(step + 1) * (double)t->batch,
                loss);
        }
        if (tested) test_all(c, t);
        log_line(t, epoch + 1, sum / t->steps, tested);
        t->done = epoch + 1;
    }
    return smask_error(c);
}

/* ---------------------------------------------------------------- main */

static void read_options(training *t, int argc, char **argv)
{
    const option table[] = {
        { "--model", OPTION_TEXT, &t->model, 0, 0,
          "a .safetensors file, or random (required)" },
        { "--data", OPTION_TEXT, &t->path, 0, 0,
          "shapes, or a folder: CIFAR-10, IDX, train/CLASS/* with "
          "val/CLASS/*, or CLASS/* (every fifth image is for testing)" },
        { "--out", OPTION_TEXT, &t->out, 0, 0,
          "folder for model.safetensors and log.csv" },
        { "--epochs", OPTION_INT, &t->epochs, 1, 100000,
          "passes over the images" },
        { "--limit", OPTION_INT, &t->limit, 0, 1e9,
          "use N training images, balanced; 0: all" },
        { "--batch", OPTION_INT, &t->batch, 1, 65536, "images in a step" },
        { "--lr", OPTION_REAL, &t->lr, 1e-8, 1, "peak learning rate" },
        { "--layer-decay", OPTION_REAL, &t->layer_decay, 0, 1,
          "rate of a block over that of the next; 0: 0.75, or 1 with "
          "random" },
        { "--warmup", OPTION_INT, &t->warmup, -1, 100000,
          "epochs of rising rate; -1: a tenth of all" },
        { "--weight-decay", OPTION_REAL, &t->weight_decay, 0, 10, "of AdamW" },
        { "--drop-path", OPTION_REAL, &t->drop_path, 0, 0.9,
          "stochastic depth of the last block" },
        { "--mixup", OPTION_REAL, &t->mixup, 0, 100, "alpha; 0: none" },
        { "--cutmix", OPTION_REAL, &t->cutmix, 0, 100, "alpha; 0: none" },
        { "--smoothing", OPTION_REAL, &t->smoothing, 0, 0.9, "of the labels" },
        { "--crop", OPTION_REAL, &t->crop, 0.01, 1,
          "least share of the image that a crop keeps" },
        { "--test-every", OPTION_INT, &t->test_every, 0, 100000,
          "epochs between rows with accuracies; 0: a tenth of all" },
        { "--dim", OPTION_INT, &t->dim, 8, 8192, "width D, with random" },
        { "--depth", OPTION_INT, &t->depth, 1, 128, "blocks L, with random" },
        { "--heads", OPTION_INT, &t->heads, 0, 512,
          "heads H, with random; 0: D / 32, at least 1" },
        { "--image", OPTION_INT, &t->image, 4, 1024,
          "side in pixels, with random" },
        { "--patch", OPTION_INT, &t->patch, 1, 256,
          "P in pixels, with random" },
        { "--bf16", OPTION_FLAG, &t->bf16, 0, 0, BF16_TEXT },
        { "--threads", OPTION_INT, &t->threads, 0, 1024, "0: all cores" },
        { "--seed", OPTION_SEED, &t->seed, 0, 0,
          "seed of all random draws" }
    };

    t->path = "shapes";
    t->out = "out/finetune";
    t->epochs = 50;
    t->batch = 64;
    t->lr = 1e-3f;
    t->warmup = -1;
    t->weight_decay = 0.05f;
    t->drop_path = 0.1f;
    t->mixup = 0.8f;
    t->cutmix = 1;
    t->smoothing = 0.1f;
    t->crop = 0.25f;
    t->dim = 128;
    t->depth = 6;
    t->image = 32;
    t->patch = 4;
    options_read("a classifier on a pre-trained encoder", table,
        (int)(sizeof table / sizeof table[0]), argc, argv);
    if (t->model == NULL)
        fail("--model is missing: give a model file, or random");
    t->isa = isa_for(t->bf16);
    if (t->warmup < 0) t->warmup = t->epochs / 10;
    if (t->warmup >= t->epochs)
        fail("--warmup %d: must be less than --epochs %d", t->warmup,
            t->epochs);
    if (t->test_every == 0)
        t->test_every = t->epochs < 10 ? 1 : t->epochs / 10;
}

static void open_model(training *t)
{
    evaluation_model_choose(&t->file, t->model, t->image, t->patch, t->dim,
        t->depth, t->heads);
    t->file.desc.drop_path = t->drop_path;
    if (!(t->layer_decay > 0))
        t->layer_decay = t->file.path[0] == '\0' ? 1 : 0.75f;
}

static void open_data(training *t)
{
    smask_vit_desc *d = &t->file.desc;
    data_set *data = &t->data;
    size_t i;

    data->threads = t->threads;
    data_open(data, t->path, d->image, d->channels);
    t->test_count = data->test.count;
    data_needs_classes(data, t->path);
    d->classes = data->classes;
    t->pixels = (size_t)d->channels * (size_t)d->image * (size_t)d->image;
    t->order = malloc(data->train.count * sizeof *t->order);
    t->all_test = malloc(t->test_count * sizeof *t->all_test);
    t->guess = malloc(t->test_count * sizeof *t->guess);
    if (t->order == NULL || t->all_test == NULL || t->guess == NULL)
        fail("no memory for the list of images");
    t->train_count = evaluation_balanced(data->train.label,
        data->train.count, data->classes, (size_t)t->limit, t->seed,
        t->order);
    if (t->train_count == 0) fail("no memory for the list of images");
    for (i = 0; i < t->test_count; i++) t->all_test[i] = (int32_t)i;
    if ((size_t)t->batch > t->train_count) t->batch = (int)t->train_count;
    t->steps = (int32_t)(t->train_count / (size_t)t->batch);
    for (i = 0; i < 4; i++) {
        const int told = t->file.channels == d->channels;
        t->mean[i] = told ? t->file.mean[i] : data->mean[i];
        t->deviation[i] = told ? t->file.deviation[i] : data->deviation[i];
    }
}

static void save(smask_ctx *c, training *t)
{
    char pixels[2][128], data[1100];
    smask_metadata notes[4];

    notes_pixels(notes, pixels, t->mean, t->deviation, t->v.desc.channels);
    notes[2].key = "data";
    notes[2].value = note_text(data, sizeof data, t->path);
    notes[3].key = "method";
    notes[3].value = "finetune";
    model_save(c, &t->v, notes, 4, t->model_file);
}

int main(int argc, char **argv)
{
    static training t;
    smask_desc desc;
    smask_sizes sizes;
    smask_threads pool;
    smask_ctx c;

    read_options(&t, argc, argv);
    open_model(&t);
    open_data(&t);
    snprintf(t.model_file, sizeof t.model_file, "%.1000s/model.safetensors",
        t.out);
    if (file_same(t.model_file, t.model))
        fail("--out %s: the model of --model lies there, and would be "
            "replaced; give another folder", t.out);
    folder_lock(t.out);
    if (smask_threads_start(&pool, t.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    t.hook = smask_threads_hook(&pool);
    memset(&desc, 0, sizeof desc);
    desc.parallel = t.hook;
    desc.seed = t.seed;
    desc.isa = t.isa;
    context_for(&c, &desc, work, &t, &sizes, t.model);
    if (work(&c, &t) == SMASK_NUMERIC && t.trouble[0] == '\0')
        fail("epoch %d: the loss or its gradient is not finite; try a lower "
            "--lr (now %g)", t.done + 1, (double)t.lr);
    if (smask_error(&c) != SMASK_OK)
        fail("%s", t.trouble[0] != '\0' ? t.trouble : smask_detail(&c));
    /* First the model: printing may fail. */
    save(&c, &t);
    progress_end(&t.line);
    if (t.done == t.epochs) {
        result("finetune_top1", 100 * evaluation_accuracy(t.guess,
            t.data.test.label, t.test_count), 2);
        result("planned_mb", (double)sizes.bytes / 1e6, 1);
    } else {
        warn("stopped after %d of %d epochs; the model as it is now lies in "
            "%s", t.done, t.epochs, t.model_file);
    }
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    fclose(t.log);
    data_close(&t.data);
    free(t.order);
    free(t.all_test);
    free(t.guess);
    return t.done == t.epochs ? 0 : 130;
}
