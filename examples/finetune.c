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
   accuracy of each class, DIR/model.safetensors the model with all that
   --resume needs.

   The images of an epoch, what happens to them and how they mix depend on
   the seed and the step alone, and the generator of the model is saved with
   it. So a run that was stopped and resumed ends with the same bits as one
   that was not.                                                         */
#include "support/support.h"
#include "support/evaluation.h"
#include "support/run.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct training {
    /* options */
    run_state state;                 /* out, steps, saves, resume          */
    model_options about;
    const char *path;
    int epochs, limit, batch, threads, warmup, test_every;
    int bf16;
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
    int32_t *order;                  /* the training images in use         */
    int32_t *all_test, *guess;
    size_t train_count, test_count, pixels;
    int32_t per_epoch;               /* steps                              */
    int shuffled;                    /* epochs that `order` has seen       */
    double sum;                      /* of this epoch's losses so far      */
    int finished;                    /* the last test was made             */
    char *rows;                      /* of log.csv, one an epoch           */
    size_t row_bytes, row_room;
    int row_count;
    progress line;                   /* main ends it, after the save       */
    char *command;
    char folder[1100];               /* of the images                      */
    char trouble[640];
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
        data_augmented(&t->data, which, B, t->file.mean, t->file.deviation,
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
            data_batch(&t->data, 1, t->all_test + first, B, t->file.mean,
                t->file.deviation, images);
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

static void add_row(training *t, const char *row)
{
    const size_t bytes = strlen(row);

    if (t->row_bytes + bytes + 1 > t->row_room) {
        const size_t room = 2 * t->row_room + bytes + 4096;
        char *more = (char *)realloc(t->rows, room);
        if (more == NULL) fail("no memory for the rows of the log");
        t->rows = more;
        t->row_room = room;
    }
    memcpy(t->rows + t->row_bytes, row, bytes + 1);
    t->row_bytes += bytes;
    t->row_count++;
}

/* A number after a comma, or nothing after a comma. */
static char *put_share(char *to, double share, int known)
{
    if (known) return to + sprintf(to, ",%.2f", 100 * share);
    return to + sprintf(to, ",");
}

/* The row of an epoch: mean loss and, if it was tested, accuracies. */
static void log_epoch(training *t, int epoch, double loss, int tested)
{
    const int32_t classes = t->data.classes;
    char *row = (char *)malloc(128 + 16 * (size_t)classes), *to = row;
    int32_t k;
    size_t i;

    if (row == NULL) fail("no memory for a row of the log");
    to += sprintf(to, "%d,%g,%.5f", epoch,
        (double)smask_adam_rate(&t->adam, t->adam.step - 1), loss);
    to = put_share(to, tested ? evaluation_accuracy(t->guess,
        t->data.test.label, t->test_count) : 0, tested);
    for (k = 0; k < classes; k++) {
        int seen = 0, hits = 0;
        for (i = 0; i < t->test_count && tested; i++)
            if (t->data.test.label[i] == k) {
                seen++;
                hits += t->guess[i] == k;
            }
        to = put_share(to, seen > 0 ? (double)hits / seen : 0, seen > 0);
    }
    strcpy(to, "\n");
    add_row(t, row);
    if (t->state.log != NULL) {
        fputs(row, t->state.log);
        fflush(t->state.log);            /* a failure shows at the save    */
    }
    free(row);
}

static void write_log(void *user, FILE *file)
{
    const training *t = (const training *)user;
    int32_t k;

    fprintf(file, "epoch,lr,loss,top1");
    for (k = 0; k < t->data.classes; k++) {
        const char *name = t->data.class_name[k];
        fputc(',', file);
        for (; *name != '\0'; name++)
            fputc(*name == ',' || *name == '"' ? '_' : *name, file);
    }
    fprintf(file, "\n");
    if (t->rows != NULL) fputs(t->rows, file);
}

/* One line of any length, with its end, or NULL. */
static char *read_line(FILE *file)
{
    size_t room = 0, used = 0;
    char *line = NULL;

    do {
        char *more = (char *)realloc(line, room += 4096);
        if (more == NULL) fail("no memory for a row of the log");
        line = more;
        if (fgets(line + used, (int)(room - used), file) == NULL) break;
        used += strlen(line + used);
    } while (used > 0 && line[used - 1] != '\n');
    if (used > 0 && line[used - 1] == '\n') return line;
    free(line);
    return NULL;
}

/* The rows of a resumed run, up to `epochs`; later ones are made again. */
static void read_log(training *t, int epochs)
{
    FILE *file = fopen(t->state.log_file, "r");
    char *line;

    while (file != NULL && (line = read_line(file)) != NULL) {
        const long epoch = strtol(line, NULL, 10);
        if (epoch == t->row_count + 1 && epoch <= epochs) add_row(t, line);
        free(line);
    }
    if (file != NULL) fclose(file);
    if (t->row_count < epochs)
        warn("%s lacks rows of the %d epochs made", t->state.log_file,
            epochs);
}

/* ---------------------------------------------------------------- work */

static int save(smask_ctx *c, void *user)
{
    training *t = (training *)user;

    sprintf(t->state.note, "%.17g", t->sum);
    return run_save(c, &t->state, "finetune", &t->v, NULL, &t->adam);
}

/* Its images, in an order of the epoch's own. */
static const int32_t *batch_of(training *t, int64_t step)
{
    smask_random random;

    for (; t->shuffled <= step / t->per_epoch; t->shuffled++) {
        smask_seed(&random, t->seed, 100 + (uint64_t)t->shuffled);
        smask_shuffle(&random, t->order, (int32_t)t->train_count);
    }
    return t->order + (size_t)(step % t->per_epoch) * (size_t)t->batch;
}

/* Does an epoch end after so many steps? The last may be cut short. */
static int ends_epoch(const training *t, int64_t step)
{
    return step > 0
        && (step % t->per_epoch == 0 || step == t->state.steps);
}

/* The test, where one is due, and the row of the log. */
static void end_epoch(smask_ctx *c, training *t)
{
    const int last = t->adam.step == t->state.steps;
    const int64_t begun = (t->adam.step - 1) / t->per_epoch;
    const int epoch = (int)begun + 1;
    const int tested = last || epoch % t->test_every == 0;

    if (tested) test_all(c, t);
    if (smask_error(c) != SMASK_OK) return;
    log_epoch(t, epoch, t->sum
        / (double)(t->adam.step - begun * t->per_epoch), tested);
    t->finished = last;
}

/* All steps from where the optimiser stands. The model is saved before the
   test at the end of an epoch, so a resumed run repeats that test. */
static void train(smask_ctx *c, training *t)
{
    progress *line = &t->line;
    smask_random before;

    stop_catch();
    progress_start(line, "fine-tune", (double)t->state.steps * t->batch);
    line->first = line->done = (double)t->adam.step * t->batch;
    t->state.saved_time = seconds_now();
    if (ends_epoch(t, t->adam.step)) end_epoch(c, t);
    while (t->adam.step < t->state.steps && !stop_wanted()
        && smask_error(c) == SMASK_OK) {
        float loss;
        before = c->random;
        loss = train_step(c, t, batch_of(t, t->adam.step), t->adam.step);
        if (smask_error(c) != SMASK_OK) {
            progress_end(line);
            run_failed(c, &t->state, t->adam.step, (double)t->lr, &before,
                save, t);
        }
        if (ends_epoch(t, t->adam.step - 1)) t->sum = 0;
        t->sum += (double)loss;
        /* First save, then print: a print may wait for its reader. */
        if (run_save_due(&t->state, t->adam.step) && !save(c, t))
            run_not_saved(&t->state, t->adam.step);
        if (stop_wanted()) return;
        progress_loss(line, (double)t->adam.step * t->batch, (double)loss);
        if (ends_epoch(t, t->adam.step)) end_epoch(c, t);
    }
}

/* The weights that training starts from. The head begins anew, nearly at
   zero: one in the file is of another task, and evaluation_model_read leaves
   it out. */
static void read_encoder(smask_ctx *c, training *t)
{
    int32_t missing;

    evaluation_model_read(c, &t->file, &t->v, &missing, t->trouble,
        sizeof t->trouble);
    if (smask_error(c) == SMASK_OK && missing > 0)
        fail("--model %s: %d weights of the encoder are not in the file",
            t->about.model, (int)missing);
}

/* The model and its optimiser; then every epoch. In a dry run one step of
   each kind. */
static smask_result work(smask_ctx *c, void *user)
{
    training *t = (training *)user;
    smask_adam_desc adam;

    smask_vit_init(c, &t->v, &t->file.desc);
    if (smask_error(c) == SMASK_OK && !t->state.resume) read_encoder(c, t);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    memset(&adam, 0, sizeof adam);
    adam.lr = t->lr;
    adam.beta2 = 0.999f;
    adam.weight_decay = t->weight_decay > 0 ? t->weight_decay : -1;
    adam.clip = -1;
    adam.layer_decay = t->layer_decay;
    adam.steps = t->state.steps;
    adam.warmup = (int64_t)t->warmup * t->per_epoch;
    adam.final_lr = 1e-6f;
    smask_adam_init(c, &t->adam, &adam, &t->v.params);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (t->state.resume)
        run_read(c, &t->state, &t->v, NULL, &t->adam);
    if (smask_is_dry(c)) {
        train_step(c, t, t->order, 0);
        test_all(c, t);
        return smask_error(c);
    }
    if (t->state.resume)                 /* its last epoch's is made again */
        read_log(t, (int)((t->adam.step - ends_epoch(t, t->adam.step))
            / t->per_epoch));
    else
        run_keep_earlier(&t->state);
    if (!run_write_log(&t->state))
        fail("--out: %s: %s; choose another folder", t->state.log_file,
            strerror(errno));
    t->sum = strtod(t->state.note, NULL);
    train(c, t);
    return smask_error(c);
}

/* ---------------------------------------------------------------- main */

static const char *const may_change[] = { "--out", "--threads", "--resume",
    "--save-every", "--save-minutes", "--epochs", NULL };

/* What follows from the number of epochs. */
static void settle_epochs(training *t)
{
    if (t->warmup < 0) t->warmup = t->epochs / 10;
    if (t->warmup >= t->epochs)
        fail("--warmup %d: must be less than the %d epochs", t->warmup,
            t->epochs);
    if (t->test_every == 0)
        t->test_every = t->epochs < 10 ? 1 : t->epochs / 10;
}

static void read_options(training *t, int argc, char **argv)
{
    const option table[] = {
        { "--model", OPTION_TEXT, &t->about.model, 0, 0,
          "a .safetensors file, or random (required)" },
        { "--data", OPTION_TEXT, &t->path, 0, 0,
          "shapes, or a folder: CIFAR-10, IDX, train/CLASS/* with "
          "val/CLASS/*, or CLASS/* (every fifth image is for testing)" },
        { "--out", OPTION_TEXT, &t->state.out, 0, 0,
          "folder for model.safetensors and log.csv" },
        { "--epochs", OPTION_INT, &t->epochs, 1, 100000,
          "passes over the images" },
        { "--steps", OPTION_INT, &t->state.steps, 0, 100000000,
          "updates, instead of --epochs; 0: by epochs" },
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
        PIXEL_OPTIONS(t->about),
        SIZE_OPTIONS(t->about),
        { "--bf16", OPTION_FLAG, &t->bf16, 0, 0, BF16_TEXT },
        { "--save-every", OPTION_INT, &t->state.save_every, 0, 100000000,
          "steps between saves; 0: a tenth of all" },
        { "--save-minutes", OPTION_REAL, &t->state.save_minutes, 0, 1e6,
          "save also when so many minutes have passed since the last; 0: "
          "never" },
        { "--resume", OPTION_FLAG, &t->state.resume, 0, 0,
          "go on from DIR/model.safetensors; give the same options again" },
        { "--threads", OPTION_INT, &t->threads, 0, 1024, "0: all cores" },
        { "--seed", OPTION_SEED, &t->seed, 0, 0,
          "seed of all random draws" }
    };
    size_t length;

    t->path = "shapes";
    t->state.out = "out/finetune";
    t->state.save_minutes = 10;
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
    t->about.dim = 128;
    t->about.depth = 6;
    t->about.image = 32;
    t->about.patch = 4;
    run_options(&t->state, table, (int)(sizeof table / sizeof table[0]));
    options_read("a classifier on a pre-trained encoder", t->state.table,
        t->state.options, argc, argv);
    if (t->about.model == NULL)
        fail("--model is missing: give a model file, or random");
    t->isa = isa_for(t->bf16);
    if (t->state.steps == 0) settle_epochs(t);
    length = strlen(t->path);
    if (length > 1000) fail("--data: the path is too long");
    while (length > 1 && t->path[length - 1] == '/') length--;
    sprintf(t->folder, "%.*s", (int)length, t->path);
    t->path = t->folder;                 /* folder/ is folder              */
    t->state.program = "finetune";
    t->state.path = t->path;
    t->state.may_change = may_change;
    t->state.write_log = write_log;
    t->state.user = t;
    t->state.note_key = "epoch.loss";
}

/* A resumed run has its model from its own file: that of --model may have
   gone. */
static void open_model(training *t)
{
    if (t->state.resume) {
        if (evaluation_model_open(&t->file, t->state.model_file, t->trouble,
                sizeof t->trouble) != SMASK_OK)
            fail("--resume: %s", t->trouble);
    } else {
        evaluation_model_choose(&t->file, &t->about);
    }
    t->file.desc.drop_path = t->drop_path;
    if (!(t->layer_decay > 0))
        t->layer_decay = strcmp(t->about.model, "random") == 0 ? 1 : 0.75f;
}

/* The hash of the labels, of both splits. */
static const char *labels_text(const data_set *data, char text[17])
{
    uint64_t hash = 0xcbf29ce484222325u;
    size_t i;

    for (i = 0; i < data->train.count + data->test.count; i++) {
        hash ^= (uint64_t)(i < data->train.count ? data->train.label[i]
            : data->test.label[i - data->train.count]);
        hash *= 0x100000001b3u;
    }
    sprintf(text, "%08lx%08lx", (unsigned long)(hash >> 32),
        (unsigned long)(hash & 0xffffffffu));
    return text;
}

/* What a resumed run must find unchanged, and how pixels are normalised. */
static void add_facts(training *t)
{
    char pixels[2][128], labels[17];
    smask_metadata pixel[2];

    evaluation_model_pixels(&t->file, &t->about, t->data.mean,
        t->data.deviation);
    notes_pixels(pixel, pixels, t->file.mean, t->file.deviation,
        t->data.channels);
    run_add_fact(&t->state, "mean", pixels[0], "other pixels");
    run_add_fact(&t->state, "std", pixels[1], "other pixels");
    run_data_facts(&t->state, &t->data, t->train_count, "data.mean",
        "data.std");
    run_add_fact(&t->state, "data.labels", labels_text(&t->data, labels),
        "other labels");
}

static void open_data(training *t)
{
    smask_vit_desc *d = &t->file.desc;
    data_set *data = &t->data;
    int64_t steps;
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
    t->per_epoch = (int32_t)(t->train_count / (size_t)t->batch);
    steps = (int64_t)t->epochs * t->per_epoch;
    if (t->state.steps == 0 && steps > 100000000)
        fail("--epochs %d: more than 100000000 steps", t->epochs);
    if (t->state.steps == 0) t->state.steps = (int)steps;
    t->epochs = (t->state.steps - 1) / t->per_epoch + 1;
    settle_epochs(t);
    if (t->state.save_every == 0)
        t->state.save_every = t->state.steps < 10 ? 1 : t->state.steps / 10;
    add_facts(t);
}

int main(int argc, char **argv)
{
    static training t;
    smask_desc desc;
    smask_sizes sizes;
    smask_threads pool;
    smask_ctx c;

    read_options(&t, argc, argv);
    t.command = run_command(argc, argv);
    run_open(&t.state);
    if (file_same(t.state.model_file, t.about.model))
        fail("--out %s: the model of --model lies there, and would be "
            "replaced; give another folder", t.state.out);
    open_model(&t);
    open_data(&t);
    run_check(&t.state);
    folder_lock(t.state.out);
    if (smask_threads_start(&pool, t.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    t.hook = smask_threads_hook(&pool);
    memset(&desc, 0, sizeof desc);
    desc.parallel = t.hook;
    desc.seed = t.seed;
    desc.isa = t.isa;
    context_for(&c, &desc, work, &t, &sizes, t.about.model);
    if (work(&c, &t) != SMASK_OK)
        fail("%s", t.trouble[0] != '\0' ? t.trouble : smask_detail(&c));
    /* First the model: printing may fail. */
    run_save_log(&t.state);
    if (t.state.saved_step != t.adam.step && !save(&c, &t))
        fail("%s", t.state.why);
    progress_end(&t.line);
    if (t.finished) {
        result("finetune_top1", 100 * evaluation_accuracy(t.guess,
            t.data.test.label, t.test_count), 2);
        result("planned_mb", (double)sizes.bytes / 1e6, 1);
    } else {
        warn("stopped at step %ld of %d and saved; go on with: %s --resume",
            (long)t.adam.step, t.state.steps, t.command);
    }
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    if (t.state.log != NULL) fclose(t.state.log);
    data_close(&t.data);
    free(t.order);
    free(t.all_test);
    free(t.guess);
    free(t.rows);
    free(t.command);
    return t.finished ? 0 : 130;
}
