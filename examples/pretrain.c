/* pretrain.c: teach an encoder to see, from images without labels.

     build/pretrain --data shapes
     build/pretrain --data out/cifar10 --tokenizer kmeans --epochs 200
     build/pretrain --data photos --image 96 --patch 8 --method beit

   SplitMask cuts each image in two halves of its patches, predicts the tokens
   of each half from the other (inpaint) and asks the two halves of an image
   to recognise each other in the batch (match). BEiT hides a part and
   predicts it. Neither looks at a label.

   Prints, as means over the last tenth of the steps (ten at least),
     loss             what was descended
     inpaint_loss     cross-entropy of the hidden tokens, nats
     match_loss       InfoNCE between the halves, nats; 0 without
     token_entropy    of the tokens in a sample of augmented training images,
                      nats: a model that ignores context has this inpaint
                      loss
     token_accuracy   percent of the hidden tokens guessed right
     images_per_s     over the steps of this run, reading included
     peak_mb          most memory the program held, in 10^6 bytes
     planned_mb       what it planned for model and step before it began
   Writes DIR/model.safetensors (with all that --resume needs), DIR/log.csv
   (a row per step) and DIR/report.html (curves, tokens and pictures).

   The data of a step depend on the seed and the step alone, and every draw
   of the model comes from a generator that is saved with it. So a run that
   was stopped and resumed ends with the same bits as one that was not.  */
#include "support/support.h"
#include "support/evaluation.h"
#include "support/report.h"
#include "support/run.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIT_PATCHES 200000               /* that a codebook is learnt from */
#define FIT_BYTES 64000000               /* and the most they may take     */

/* Streams of the seed, and numbers of data_augmented's steps, that training
   does not use. */
#define STREAM_ORDER 100
#define STREAM_SCENES 99
#define STREAM_NOISE 97
#define STEP_FIT ((int64_t)1 << 40)
#define STEP_TOKENS ((int64_t)1 << 41)
#define STEP_VIEWS ((int64_t)1 << 42)
#define NOISE_BATCHES 10                 /* at the end; at saves 2         */

typedef struct run {
    /* options */
    run_state state;                     /* out, steps, saves, resume      */
    const char *path;
    int method, tokenizer, preset, mask;
    int vocab, dim, depth, heads, decoder_depth, image, patch, channels;
    int batch, epochs, limit, warmup, threads;
    int no_inpaint, no_match, official, sincos, recompute, extras, bf16;
    int raw_features, all_negatives, stop_keys, no_decoder_embed;
    int shared_positions, splits, match_decoder;
    float view_jitter;
    int half_resolution, full, centre, uniform01, euclidean;
    float ratio, inpaint_weight, match_weight, temperature;
    float layer_scale, drop_path, lr, weight_decay, crop;
    uint64_t seed;
    char *command;
    /* what they lead to */
    smask_vit_desc vit_desc;
    smask_tokenizer_desc token_desc;
    smask_objective objective;
    smask_parallel hook;
    smask_isa isa;
    data_set data;
    int32_t *chosen, *order;             /* training images in use         */
    size_t train_count, pixels;
    int32_t per_epoch, epoch;            /* epoch: the one in `order`      */
    int asked_batch;                     /* before there were too few      */
    /* what is made */
    smask_vit v;
    smask_tokenizer t;
    smask_adam adam;
    smask_losses losses;
    report_tokens tokens;
    report_scenes scenes;
    report_step *row;
    size_t rows, rows_room;
    double busy, trained;                /* seconds, images, of this run   */
    double noise;                        /* match accuracy on noise, as last
                                            measured; NAN: not yet         */
    smask_sizes sizes;
    progress line;
    char folder[1100];                   /* of the images                  */
} run;

/* ----------------------------------------------------------------- data */

/* The training images of a step. Each epoch takes all of them in an order
   of its own; what does not fill a batch waits for another epoch. */
static const int32_t *batch_of(run *r, int64_t step)
{
    const int32_t epoch = (int32_t)(step / r->per_epoch);
    smask_random random;

    if (epoch != r->epoch) {
        memcpy(r->order, r->chosen, r->train_count * sizeof *r->order);
        smask_seed(&random, r->seed, STREAM_ORDER + (uint64_t)epoch);
        smask_shuffle(&random, r->order, (int32_t)r->train_count);
        r->epoch = epoch;
    }
    return r->order + (size_t)(step % r->per_epoch) * (size_t)r->batch;
}

/* ----------------------------------------------------------- tokenizer */

static int fit_progress(void *user, int done, int total, double distance)
{
    (void)total;
    (void)distance;
    progress_at((progress *)user, done);
    return 1;
}

/* Learn the codebook from patches of augmented training images. From each
   image come as few as it takes, so that they come from many. */
static void fit_tokenizer(smask_ctx *c, run *r)
{
    const size_t d = (size_t)r->t.width;
    const size_t N = (size_t)smask_tokenizer_rows(&r->t);
    const size_t B = (size_t)r->batch;
    size_t count = FIT_PATCHES, most = FIT_BYTES / (d * sizeof(float));
    size_t each, taken = 0, b, k;
    float *patches, *images, *rows;
    smask_random random;
    int64_t step;
    progress line;

    if (r->token_desc.kind == SMASK_TOKENS_PROJECTION) return;
    if (count > most) count = most;
    if (count < (size_t)r->vocab) count = (size_t)r->vocab;
    each = count / r->train_count;
    each = each < 1 ? 1 : each > N ? N : each;
    smask_begin_step(c);
    patches = (float *)smask_alloc(c, count * d * sizeof(float));
    images = (float *)smask_alloc(c, B * r->pixels * sizeof(float));
    rows = (float *)smask_alloc(c, B * N * d * sizeof(float));
    smask_seed(&random, r->seed, STREAM_ORDER - 2);
    if (!smask_is_dry(c) && smask_error(c) == SMASK_OK)
        for (step = 0; taken < count; step++) {
            data_augmented(&r->data, batch_of(r, step), r->batch,
                r->data.mean, r->data.deviation, r->crop, r->seed,
                STEP_FIT + step, &r->hook, images);
            smask_tokenizer_patches(&r->t, images, (int32_t)B, rows);
            for (b = 0; b < B; b++)
                for (k = 0; k < each && taken < count; k++)
                    memcpy(patches + taken++ * d, rows + (b * N
                        + smask_below(&random, (uint32_t)N)) * d,
                        d * sizeof(float));
        }
    memset(&line, 0, sizeof line);
    if (!smask_is_dry(c)) progress_start(&line, "codebook", 20);
    smask_tokenizer_fit(c, &r->t, patches, (int32_t)count, 20, fit_progress,
        &line);
    if (!smask_is_dry(c)) progress_end(&line);
    smask_end_step(c);
}

/* How often tokens occur and what they stand for, in a sample of augmented
   training images that is large enough for it and cheap. */
static void study_words(smask_ctx *c, run *r)
{
    const size_t N = (size_t)smask_tokenizer_rows(&r->t);
    const size_t B = (size_t)r->batch;
    const double cost = 2.0 * r->t.width * r->vocab;
    double patches = 2e11 / cost;
    int32_t *ids;
    float *images;
    int64_t step, steps;
    progress line;
    void *memory = smask_alloc(c, report_tokens_bytes(&r->t));

    patches = patches < 16384 ? 16384 : patches > 131072 ? 131072 : patches;
    steps = (int64_t)(patches / (double)(N * B)) + 1;
    memset(&line, 0, sizeof line);
    if (!smask_is_dry(c))
        progress_start(&line, "counting tokens", (double)steps * (double)B);
    if (memory != NULL) report_tokens_begin(&r->tokens, &r->t, memory);
    for (step = 0; step < steps && smask_error(c) == SMASK_OK; step++) {
        smask_begin_step(c);
        images = (float *)smask_alloc(c, B * r->pixels * sizeof(float));
        ids = (int32_t *)smask_alloc(c, B * N * sizeof(int32_t));
        if (images != NULL && ids != NULL)
            data_augmented(&r->data, batch_of(r, step), r->batch,
                r->data.mean, r->data.deviation, r->crop, r->seed,
                STEP_TOKENS + step, &r->hook, images);
        smask_tokenize(c, &r->t, images, r->batch, ids);
        if (memory != NULL && smask_error(c) == SMASK_OK)
            report_tokens_add(&r->tokens, images, r->batch, ids);
        smask_end_step(c);
        if (smask_is_dry(c)) return;
        progress_at(&line, (double)(step + 1) * (double)B);
    }
    progress_end(&line);
    if (smask_error(c) == SMASK_OK) report_tokens_end(&r->tokens);
}

/* ------------------------------------------------------------ pictures */

/* Images for the report, of as many classes as there are. */
static void choose_scenes(smask_ctx *c, run *r)
{
    const int test = r->data.test.count > 0;
    const data_split *split = test ? &r->data.test : &r->data.train;
    const size_t most = r->image > 128 ? 4 : 6;
    const size_t K = split->count < most ? split->count : most;
    const size_t N = (size_t)smask_tokenizer_rows(&r->t);
    report_scenes *s = &r->scenes;
    int32_t which[6], b;
    size_t count = 0, i, k;
    int pass;

    for (pass = 0; pass < 2; pass++)
        for (i = 0; i < split->count && count < K; i++) {
            for (k = 0; k < count; k++)
                if (pass == 0 ? split->label[i] == split->label[which[k]]
                    : (int32_t)i == which[k]) break;
            if (k == count) which[count++] = (int32_t)i;
        }
    s->count = (int32_t)K;
    s->branches = r->method == 0 ? 2 : 1;
    s->held_out = test;
    s->image = (float *)smask_alloc(c, K * r->pixels * sizeof(float));
    s->token = (int32_t *)smask_alloc(c, K * N * sizeof(int32_t));
    for (b = 0; b < s->branches; b++) {
        s->visible[b] = (unsigned char *)smask_alloc(c, K * N);
        s->previous[b] = (int32_t *)smask_alloc(c, K * N * sizeof(int32_t));
        s->after[b] = (int32_t *)smask_alloc(c, K * N * sizeof(int32_t));
    }
    if (!smask_is_dry(c) && smask_error(c) == SMASK_OK)
        data_batch(&r->data, test, which, s->count, r->data.mean,
            r->data.deviation, s->image);
}

static smask_tensor *objective_loss(smask_ctx *c, run *r,
    const float *images, int32_t B)
{
    return r->method == 0
        ? smask_splitmask_loss(c, &r->v, &r->t, &r->objective, images, B,
            &r->losses)
        : smask_beit_loss(c, &r->v, &r->t, &r->objective, images, B,
            &r->losses);
}

/* What the model as it is makes of the scenes: always the same cuts, and
   without a trace in the generator that training draws from. */
static void take_pictures(smask_ctx *c, run *r, int after)
{
    const smask_random saved = c->random;
    report_scenes *s = &r->scenes;
    const smask_mask *m = &r->losses.mask;
    const int32_t *guess;
    int32_t b, i, k;

    smask_seed(&c->random, r->seed, STREAM_SCENES);
    smask_record(c, 0);
    r->v.training = 0;
    smask_begin_step(c);
    objective_loss(c, r, s->image, s->count);
    guess = r->losses.guess;
    if (!smask_is_dry(c) && smask_error(c) == SMASK_OK) {
        const int32_t N = m->N;
        memcpy(s->token, r->losses.tokens,
            (size_t)(s->count * N) * sizeof(int32_t));
        for (b = 0; b < m->branches; b++) {
            int32_t *to = after ? s->after[b] : s->previous[b];
            for (i = 0; i < s->count; i++) {
                for (k = 0; k < m->visible[b]; k++)
                    s->visible[b][i * N
                        + m->visible_at[b][i * m->visible[b] + k]] = 1;
                for (k = 0; k < m->masked[b] && guess != NULL; k++)
                    to[i * N + m->masked_at[b][i * m->masked[b] + k]]
                        = *guess++;
            }
        }
    }
    smask_end_step(c);
    smask_record(c, 1);
    c->random = saved;
}

/* ---------------------------------------------------------------- steps */

/* The images that the halves are cut from: a colour jitter for each view. */
static void draw_views(smask_ctx *c, run *r, const float *images,
    int64_t step)
{
    int k;

    for (k = 0; k < 2; k++) {
        float *view = (float *)smask_alloc(c,
            (size_t)r->batch * r->pixels * sizeof(float));
        if (view != NULL)
            data_jittered(&r->data, images, r->batch, r->data.mean,
                r->data.deviation, r->view_jitter, r->seed,
                STEP_VIEWS + 2 * step + k, &r->hook, view);
        /* In a dry run there is no memory, and any pointer makes the loss
           count what two views take; it is not read. */
        r->objective.view_images[k] = smask_is_dry(c) ? r->data.mean : view;
    }
}

/* One update. */
static void train_step(smask_ctx *c, run *r, int64_t step)
{
    float *images;
    smask_tensor *loss;

    smask_begin_step(c);
    images = (float *)smask_alloc(c,
        (size_t)r->batch * r->pixels * sizeof(float));
    if (images != NULL)
        data_augmented(&r->data, batch_of(r, step), r->batch, r->data.mean,
            r->data.deviation, r->crop, r->seed, step, &r->hook, images);
    if (r->view_jitter > 0 && r->method == 0) draw_views(c, r, images, step);
    r->v.training = 1;
    loss = objective_loss(c, r, images, r->batch);
    smask_backward(c, loss);
    smask_adam_update(c, &r->adam, &r->v.params);
    smask_end_step(c);
    r->objective.view_images[0] = r->objective.view_images[1] = NULL;
}

/* How often a half finds the other by chance, 0 .. 1: its candidates are the
   other halves of the images that share its split and, with --all-negatives,
   the remaining halves of its own side. */
static double match_chance(const run *r)
{
    const int groups = r->splits > 1 && r->splits < r->batch ? r->splits : 1;
    const double images = (double)r->batch / groups;

    return r->all_negatives ? 1 / (2 * images - 1) : 1 / images;
}

/* Is the accuracy on noise, of so many batches, well above chance? */
static int noise_is_high(const run *r, int batches)
{
    const double chance = match_chance(r), trials = 2.0 * batches * r->batch;

    return r->noise > 2 * chance + 4 * sqrt(chance / trials);
}

static void warn_noise(const run *r)
{
    warn("halves of pure noise recognise each other, %.1f %% against %.1f by "
        "chance: the match reads how images are split, not what they show; "
        "use --splits 1", 100 * r->noise, 100 * match_chance(r));
}

/* Is there a match that could be solved by the split alone? */
static int has_match(const run *r)
{
    return r->method == 0 && !r->objective.no_match && r->batch > 1;
}

/* The match accuracy on images of noise, 0 .. 1, over some batches. Halves of
   noise share nothing except the way they were split, so a model that matches
   by content is at chance. The generator that training draws from is not
   moved. */
static double match_noise(smask_ctx *c, run *r, int batches)
{
    const smask_random saved = c->random;
    const smask_losses losses = r->losses;
    smask_random random;
    double sum = 0;
    size_t k;
    int n;

    smask_seed(&c->random, r->seed, STREAM_NOISE - 1);
    smask_seed(&random, r->seed, STREAM_NOISE);
    smask_record(c, 0);
    r->v.training = 0;
    for (n = 0; n < batches && smask_error(c) == SMASK_OK; n++) {
        smask_begin_step(c);
        float *images = (float *)smask_alloc(c,
            (size_t)r->batch * r->pixels * sizeof(float));
        for (k = 0; images != NULL && k < (size_t)r->batch * r->pixels; k++)
            images[k] = smask_normal(&random);
        objective_loss(c, r, images, r->batch);
        sum += (double)r->losses.match_accuracy / batches;
        smask_end_step(c);
    }
    smask_record(c, 1);
    c->random = saved;
    r->losses = losses;
    return sum;
}

/* ----------------------------------------------------------------- log */

static const char log_header[] = "step,lr,loss,inpaint_loss,match_loss,"
    "token_accuracy,match_accuracy,images_per_s,noise_match_accuracy\n";

static void log_row(FILE *file, const report_step *row)
{
    fprintf(file, "%ld,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.1f,",
        (long)row->step, row->lr, row->loss, row->inpaint, row->match,
        row->accuracy, row->match_accuracy, row->images_per_s);
    if (isnan(row->noise)) fprintf(file, "\n");
    else fprintf(file, "%.9g\n", row->noise);
}

static void add_row(run *r, const report_step *row)
{
    if (r->rows == r->rows_room) {
        const size_t room = r->rows_room > 0 ? 2 * r->rows_room : 1024;
        report_step *more = (report_step *)realloc(r->row,
            room * sizeof *more);
        if (more == NULL) fail("no memory for the rows of the log");
        r->row = more;
        r->rows_room = room;
    }
    r->row[r->rows++] = *row;
}

/* Rows of an earlier run, up to its last save; later ones are made anew. */
static void log_read(run *r, int64_t done)
{
    char line[512];
    FILE *f = fopen(r->state.log_file, "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        report_step row;
        long step;
        double x[8];
        x[7] = NAN;                      /* not there before version 0.2   */
        if (sscanf(line, "%ld,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf", &step, &x[0],
                &x[1], &x[2], &x[3], &x[4], &x[5], &x[6], &x[7]) < 8
            || step != (long)r->rows + 1 || step > (long)done)
            continue;
        row.step = step;
        row.lr = (float)x[0];            /* as they were before printing   */
        row.loss = (float)x[1];
        row.inpaint = (float)x[2];
        row.match = (float)x[3];
        row.accuracy = (float)x[4];
        row.match_accuracy = (float)x[5];
        row.images_per_s = x[6];
        row.noise = r->noise = x[7];
        add_row(r, &row);
    }
    if (f != NULL) fclose(f);
    if (r->rows < (size_t)done)
        warn("%s lacks rows of the %ld steps made; curves begin late",
            r->state.log_file, (long)done);
}

static void write_log(void *user, FILE *file)
{
    const run *r = (const run *)user;
    size_t i;

    fputs(log_header, file);
    for (i = 0; i < r->rows; i++) log_row(file, &r->row[i]);
}

/* Means over the last tenth of the steps made. */
static report_step last_part(const run *r)
{
    report_step mean;
    size_t window = (r->rows + 9) / 10, i;

    memset(&mean, 0, sizeof mean);
    if (window < 10) window = 10;
    if (window > r->rows) window = r->rows;
    if (window == 0)                     /* the log is lost: not known     */
        mean.loss = mean.inpaint = mean.match = mean.accuracy = NAN;
    for (i = r->rows - window; i < r->rows; i++) {
        mean.loss += r->row[i].loss / (double)window;
        mean.inpaint += r->row[i].inpaint / (double)window;
        mean.match += r->row[i].match / (double)window;
        mean.accuracy += r->row[i].accuracy / (double)window;
        mean.match_accuracy += r->row[i].match_accuracy / (double)window;
    }
    mean.images_per_s = r->busy > 0 ? r->trained / r->busy : 0;
    return mean;
}

/* ------------------------------------------------------------- options */

/* Options that may differ between a run and its continuation. The named
   models and the epochs are in what follows from them. */
static const char *const may_change[] = { "--out", "--threads", "--resume",
    "--save-every", "--save-minutes", "--epochs", "--model", "--recompute",
    NULL };

/* What an option was in a file that does not name it: version 0.1.0 had no
   such option. Returns 0 if every version has it. */
static int value_before(const smask_file *file, const char *name, char *out,
    size_t bytes)
{
    if (strcmp(name, "--no-decoder-embed") == 0)
        return smask_read_metadata(file, "option--no-bridge", out, bytes)
            >= 0;
    if (strcmp(name, "--splits") == 0)   /* one for each image             */
        return smask_read_metadata(file, "option--batch", out, bytes) >= 0;
    if (strcmp(name, "--match-decoder") == 0) snprintf(out, bytes, "1");
    else if (strcmp(name, "--view-jitter") == 0) snprintf(out, bytes, "0");
    else return 0;
    return 1;
}

static void read_options(run *r, int argc, char **argv)
{
    const option table[] = {
        { "--data", OPTION_TEXT, &r->path, 0, 0,
          "shapes, or a folder: CIFAR-10, IDX, train/CLASS/*, images" },
        { "--method", OPTION_CHOICE, &r->method, 0, 0, "splitmask|beit" },
        { "--tokenizer", OPTION_CHOICE, &r->tokenizer, 0, 0,
          "projection|patches|kmeans tokens are random directions, patches "
          "of the data, or centres of their clusters" },
        { "--vocab", OPTION_INT, &r->vocab, 0, 1000000,
          "tokens V; 0: 1024 up to 64 pixels, else 8192" },
        { "--model", OPTION_CHOICE, &r->preset, 0, 0,
          "micro|tiny|small|base width, blocks and heads 128/6/4, "
          "192/12/3, 384/12/6, 768/12/12" },
        { "--dim", OPTION_INT, &r->dim, 0, 8192, "width D; 0: the model's" },
        { "--depth", OPTION_INT, &r->depth, 0, 128,
          "blocks L; 0: the model's" },
        { "--heads", OPTION_INT, &r->heads, 0, 512,
          "heads H; 0: the model's, or D / 32 with --dim" },
        { "--decoder-depth", OPTION_INT, &r->decoder_depth, 1, 64,
          "blocks of SplitMask's decoder" },
        { "--image", OPTION_INT, &r->image, 4, 1024, "side in pixels" },
        { "--patch", OPTION_INT, &r->patch, 0, 256,
          "P in pixels; 0: 4 up to 64 pixels, 8 up to 128, else 16" },
        { "--channels", OPTION_INT, &r->channels, 1, 3,
          "3, or 1 for grey" },
        { "--batch", OPTION_INT, &r->batch, 1, 65536, "images in a step" },
        { "--epochs", OPTION_INT, &r->epochs, 1, 1000000,
          "passes over the images" },
        { "--steps", OPTION_INT, &r->state.steps, 0, 100000000,
          "updates, instead of --epochs; 0: by epochs" },
        { "--limit", OPTION_INT, &r->limit, 0, 1e9,
          "use N training images, balanced; 0: all" },
        { "--lr", OPTION_REAL, &r->lr, 0, 1,
          "peak learning rate; 0: 1.5e-3 * min(1, 192 / D) * "
          "sqrt(batch / 128), which for the base model at batch 2048 is "
          "the 1.5e-3 of the paper" },
        { "--warmup", OPTION_INT, &r->warmup, -1, 100000000,
          "steps of rising rate; -1: a tenth of all, 10 epochs at most" },
        { "--weight-decay", OPTION_REAL, &r->weight_decay, 0, 10,
          "of AdamW" },
        { "--mask", OPTION_CHOICE, &r->mask, 0, 0,
          "blocks|uniform|quarters|independent what is hidden: BEiT's "
          "rectangles; single patches; all but two disjoint quarters; all "
          "but two quarters that may meet" },
        { "--ratio", OPTION_REAL, &r->ratio, 0, 0.95,
          "share that is hidden; 0: 0.5, of quarters 0.75, of BEiT 0.38" },
        { "--no-inpaint", OPTION_FLAG, &r->no_inpaint, 0, 0,
          "match only" },
        { "--no-match", OPTION_FLAG, &r->no_match, 0, 0, "inpaint only" },
        { "--inpaint-weight", OPTION_REAL, &r->inpaint_weight, 1e-6, 1000,
          "weight of the inpaint loss" },
        { "--match-weight", OPTION_REAL, &r->match_weight, 1e-6, 1000,
          "weight of the match loss" },
        { "--temperature", OPTION_REAL, &r->temperature, 1e-3, 100,
          "of the match" },
        { "--raw-features", OPTION_FLAG, &r->raw_features, 0, 0,
          "match means as they are, not brought to length 1" },
        { "--all-negatives", OPTION_FLAG, &r->all_negatives, 0, 0,
          "match against both halves of the other images" },
        { "--stop-keys", OPTION_FLAG, &r->stop_keys, 0, 0,
          "match without gradient through the keys" },
        { "--match-decoder", OPTION_FLAG, &r->match_decoder, 0, 0,
          "match means of the decoder's outputs, as in the paper" },
        { "--splits", OPTION_INT, &r->splits, 0, 65536,
          "different splits in a batch; as many as --batch: one for each "
          "image, as in the paper; 0: 1" },
        { "--view-jitter", OPTION_REAL, &r->view_jitter, 0, 1,
          "strength of a colour jitter drawn for each half by itself; the "
          "visual tokens are those of the image without it" },
        { "--no-decoder-embed", OPTION_FLAG, &r->no_decoder_embed, 0, 0,
          "no linear layer between encoder and decoder" },
        { "--shared-positions", OPTION_FLAG, &r->shared_positions, 0, 0,
          "the decoder takes the encoder's positions" },
        { "--official", OPTION_FLAG, &r->official, 0, 0,
          "BEiT as its authors run it: class token, shared relative "
          "positions, LayerScale 0.1, drop path 0.1" },
        { "--sincos", OPTION_FLAG, &r->sincos, 0, 0,
          "fixed sine and cosine positions, not learnt ones" },
        { "--layer-scale", OPTION_REAL, &r->layer_scale, 0, 1,
          "first value of LayerScale; 0: none" },
        { "--drop-path", OPTION_REAL, &r->drop_path, -1, 0.9,
          "stochastic depth of the last block; -1: 0 up to width 192, "
          "else 0.1" },
        { "--recompute", OPTION_FLAG, &r->recompute, 0, 0,
          "less memory, more time: blocks run again in backward" },
        { "--bf16", OPTION_FLAG, &r->bf16, 0, 0, BF16_TEXT },
        { "--crop", OPTION_REAL, &r->crop, 0, 1,
          "least share of the image that a crop keeps; 0: 0.2 up to 64 "
          "pixels, else 0.08" },
        { "--extras", OPTION_FLAG, &r->extras, 0, 0,
          "for very small sets: colours change too, grey, blur, solarise" },
        { "--half", OPTION_FLAG, &r->half_resolution, 0, 0,
          "take tokens from a half-size copy (the default from patch 16 on)" },
        { "--full", OPTION_FLAG, &r->full, 0, 0,
          "take tokens from all pixels, even from patch 16 on" },
        { "--centre", OPTION_FLAG, &r->centre, 0, 0,
          "take tokens from patches less their mean" },
        { "--uniform01", OPTION_FLAG, &r->uniform01, 0, 0,
          "projection draws from 0 .. 1, not -1 .. 1" },
        { "--euclidean", OPTION_FLAG, &r->euclidean, 0, 0,
          "the nearest token by distance, not by angle" },
        { "--out", OPTION_TEXT, &r->state.out, 0, 0,
          "folder for model.safetensors, log.csv and report.html" },
        { "--save-every", OPTION_INT, &r->state.save_every, 0, 100000000,
          "steps between saves; 0: a tenth of all" },
        { "--save-minutes", OPTION_REAL, &r->state.save_minutes, 0, 1e6,
          "save also when so many minutes have passed since the last; 0: "
          "never" },
        { "--resume", OPTION_FLAG, &r->state.resume, 0, 0,
          "go on from DIR/model.safetensors; give the same options again" },
        { "--threads", OPTION_INT, &r->threads, 0, 1024, "0: all cores" },
        { "--seed", OPTION_SEED, &r->seed, 0, 0,
          "seed of all random draws" }
    };

    run_state *state = &r->state;
    size_t length;

    r->path = "shapes";
    state->out = "out/pretrain";
    r->image = 32;
    r->channels = 3;
    r->decoder_depth = 2;
    r->batch = 128;
    r->epochs = 100;
    r->warmup = -1;
    r->weight_decay = 0.05f;
    r->inpaint_weight = r->match_weight = 1;
    r->temperature = 0.2f;
    r->drop_path = -1;
    state->save_minutes = 10;
    run_options(state, table, (int)(sizeof table / sizeof table[0]));
    options_read("teach an encoder to see, from images without labels",
        state->table, state->options, argc, argv);
    length = strlen(r->path);
    if (length > 1000) fail("--data: the path is too long");
    while (length > 1 && r->path[length - 1] == '/') length--;
    sprintf(r->folder, "%.*s", (int)length, r->path);
    r->path = r->folder;                 /* folder/ is folder              */
    state->program = "pretrain";
    state->path = r->path;
    state->may_change = may_change;
    state->value_before = value_before;
    state->write_log = write_log;
    state->user = r;
}

/* Sizes of the named models: width, blocks, heads. */
static void settle_model(run *r)
{
    static const int size[4][3] = { { 128, 6, 4 }, { 192, 12, 3 },
        { 384, 12, 6 }, { 768, 12, 12 } };

    if (r->heads == 0)
        r->heads = r->dim == 0 ? size[r->preset][2]
            : r->dim < 64 ? 1 : r->dim / 32;
    if (r->dim == 0) r->dim = size[r->preset][0];
    if (r->depth == 0) r->depth = size[r->preset][1];
    if (r->patch == 0)
        r->patch = r->image <= 64 ? 4 : r->image <= 128 ? 8 : 16;
    if (r->image % r->patch != 0 || r->image / r->patch < 2)
        fail("--image %d: must be a multiple of --patch %d, twice or more",
            r->image, r->patch);
    if (r->dim % r->heads != 0)
        fail("--dim %d is no multiple of --heads %d", r->dim, r->heads);
    if (r->channels == 2) fail("--channels 2: give 3, or 1 for grey");
}

/* Fill in what follows from other options, and refuse what does not go
   together. */
static void settle_options(run *r)
{
    const int beit = r->method == 1;

    settle_model(r);
    r->isa = isa_for(r->bf16);
    if (r->vocab == 0) r->vocab = r->image <= 64 ? 1024 : 8192;
    if (r->vocab < 2) fail("--vocab %d: must be 2 or more", r->vocab);
    if (r->no_inpaint && r->no_match)
        fail("--no-inpaint and --no-match: nothing is left to learn");
    if (beit && r->no_inpaint)
        fail("--no-inpaint: BEiT does nothing else; leave it out");
    if (beit && r->mask >= SMASK_MASK_QUARTERS)
        fail("--mask quarters and independent need the two views of "
            "--method splitmask");
    if (r->official && !beit)
        fail("--official belongs to --method beit");
    if (r->official && r->sincos)
        fail("--official has relative positions; leave --sincos out");
    if (r->half_resolution && r->full)
        fail("--half and --full: give one of the two");
    if (r->half_resolution && r->patch % 2 != 0)
        fail("--half: --patch %d must be even", r->patch);
    if (r->patch >= 16 && r->patch % 2 == 0 && !r->full) r->half_resolution = 1;
    if (r->patch >= 16 && !r->half_resolution) r->full = 1;
    if (!(r->ratio > 0))
        r->ratio = beit ? 75 / 196.0f
            : r->mask >= SMASK_MASK_QUARTERS ? 0.75f : 0.5f;
    if (r->official && !(r->layer_scale > 0)) r->layer_scale = 0.1f;
    if (r->drop_path < 0)
        r->drop_path = r->official || r->dim > 192 ? 0.1f : 0;
    if (!(r->crop > 0)) r->crop = r->image <= 64 ? 0.2f : 0.08f;
    r->asked_batch = r->batch;
    r->data.threads = r->threads;
    r->data.extras = r->extras;
}

static void describe(run *r)
{
    const int beit = r->method == 1;
    smask_vit_desc *d = &r->vit_desc;
    smask_tokenizer_desc *t = &r->token_desc;
    smask_objective *o = &r->objective;

    d->image = t->image = r->image;
    d->patch = t->patch = r->patch;
    d->channels = t->channels = r->channels;
    d->vocabulary = t->vocabulary = r->vocab;
    d->dim = r->dim;
    d->depth = r->depth;
    d->heads = r->heads;
    d->decoder_depth = beit ? 0 : r->decoder_depth;
    d->mask_token = beit;
    d->class_token = r->official;
    d->relative_bias = r->official;
    d->no_position = r->official;
    d->sincos = r->sincos;
    d->no_decoder_embed = r->no_decoder_embed;
    d->decoder_shares_position = r->shared_positions;
    d->recompute = r->recompute;
    d->layer_scale = r->layer_scale;
    d->drop_path = r->drop_path;
    t->kind = (smask_token_kind)r->tokenizer;
    t->half_resolution = r->half_resolution;
    t->centre = r->centre;
    t->uniform01 = r->uniform01;
    t->euclidean = r->euclidean;
    o->mask = (smask_mask_kind)r->mask;
    o->ratio = r->ratio;
    o->no_inpaint = r->no_inpaint;
    o->no_match = r->no_match || r->batch < 2;
    if (r->batch < 2 && r->no_inpaint)
        fail("--no-inpaint: the match takes two images or more in a batch");
    if (r->batch < 2 && !beit && !r->no_match)
        warn("one image in a batch: there is nothing to match it with, so "
            "it is only inpainted");
    o->inpaint_weight = r->inpaint_weight;
    o->match_weight = r->match_weight;
    o->temperature = r->temperature;
    o->raw_features = r->raw_features;
    o->all_negatives = r->all_negatives;
    o->stop_keys = r->stop_keys;
    o->match_decoder = r->match_decoder;
    o->splits = r->splits;
}

static void open_data(run *r)
{
    data_set *data = &r->data;
    int64_t steps;

    data_open(data, r->path, r->image, r->channels);
    if (data->train.count < 1)
        fail("--data %s: has no training images", r->path);
    r->chosen = (int32_t *)malloc(data->train.count * sizeof *r->chosen);
    r->order = (int32_t *)malloc(data->train.count * sizeof *r->order);
    if (r->chosen == NULL || r->order == NULL)
        fail("no memory for the list of images");
    r->train_count = evaluation_balanced(data->train.label,
        data->train.count, data->classes, (size_t)r->limit, r->seed,
        r->chosen);
    if (r->train_count == 0) fail("no memory for the list of images");
    if ((size_t)r->batch > r->train_count) r->batch = (int)r->train_count;
    if (!(r->lr > 0))
        r->lr = 1.5e-3f * (float)sqrt(r->batch / 128.0)
            * (r->dim > 192 ? 192 / (float)r->dim : 1);
    r->pixels = (size_t)r->channels * (size_t)r->image * (size_t)r->image;
    run_data_facts(&r->state, data, r->train_count, "mean", "std");
    r->per_epoch = (int32_t)(r->train_count / (size_t)r->batch);
    r->epoch = -1;
    steps = (int64_t)r->epochs * r->per_epoch;
    if (r->state.steps == 0 && steps > 100000000)
        fail("--epochs %d: more than 100000000 steps", r->epochs);
    if (r->state.steps == 0) r->state.steps = (int)steps;
    if (r->warmup < 0) {
        r->warmup = r->state.steps / 10;
        if (r->warmup > 10 * r->per_epoch) r->warmup = 10 * r->per_epoch;
    }
    if (r->warmup > r->state.steps)
        fail("--warmup %d: there are only %d steps", r->warmup, r->state.steps);
    if (r->state.save_every == 0)
        r->state.save_every = r->state.steps < 10 ? 1 : r->state.steps / 10;
}

/* ---------------------------------------------------- saving, resuming */

static int save(smask_ctx *c, void *user)
{
    run *r = (run *)user;

    return run_save(c, &r->state, r->method == 1 ? "beit" : "splitmask",
        &r->v, &r->t, &r->adam);
}

/* Exchange the weights with those in `other`. */
static void swap_weights(run *r, float *other)
{
    int32_t i;

    for (i = 0; i < r->v.params.count; i++) {
        smask_tensor *t = r->v.params.item[i].t;
        const size_t count = smask_count(t);
        size_t k;
        for (k = 0; k < count; k++) {
            const float x = t->x[k];
            t->x[k] = other[k];
            other[k] = x;
        }
        other += count;
    }
}

static float *copy_weights(const run *r)
{
    float *copy = (float *)malloc(smask_params_count(&r->v.params)
        * sizeof(float)), *to = copy;
    int32_t i;

    if (copy == NULL) fail("no memory for a copy of the weights");
    for (i = 0; i < r->v.params.count; i++) {
        const smask_tensor *t = r->v.params.item[i].t;
        memcpy(to, t->x, smask_count(t) * sizeof(float));
        to += smask_count(t);
    }
    return copy;
}

/* -------------------------------------------------------------- report */

#define RESULTS 8

typedef struct result_line { const char *name; double value; int decimals; }
    result_line;

static void gather_results(const run *r, result_line *line)
{
    static const char *const name[RESULTS] = { "loss", "inpaint_loss",
        "match_loss", "token_entropy", "token_accuracy", "images_per_s",
        "peak_mb", "planned_mb" };
    static const int decimals[RESULTS] = { 4, 4, 4, 4, 2, 1, 1, 1 };
    const report_step mean = last_part(r);
    double value[RESULTS];
    int i;

    value[0] = mean.loss;
    value[1] = mean.inpaint;
    value[2] = mean.match;
    value[3] = r->tokens.use.entropy;
    value[4] = 100 * mean.accuracy;
    value[5] = mean.images_per_s;
    value[6] = peak_memory_mb();
    value[7] = (double)r->sizes.bytes / 1e6;
    for (i = 0; i < RESULTS; i++) {
        line[i].name = name[i];
        line[i].value = value[i];
        line[i].decimals = decimals[i];
    }
}

static void write_report(smask_ctx *c, run *r)
{
    report_pair results[RESULTS], options[RUN_OPTIONS];
    result_line line[RESULTS];
    char result_text[RESULTS][32], option_text[RUN_OPTIONS][1100], title[1200];
    report page;
    int32_t i, option_count = 0;

    gather_results(r, line);
    for (i = 0; i < RESULTS; i++) {
        if (isnan(line[i].value))
            snprintf(result_text[i], sizeof result_text[i], "not known");
        else
            snprintf(result_text[i], sizeof result_text[i], "%.*f",
                line[i].decimals, line[i].value);
        results[i].name = line[i].name;
        results[i].value = result_text[i];
    }
    for (i = 0; i < r->state.options; i++) {
        const option *o = &r->state.table[i];
        if (run_may_change(&r->state, o->name)) continue;
        options[option_count].name = o->name;
        options[option_count].value = option_value(o,
            option_text[option_count], sizeof option_text[0]);
        option_count++;
    }
    snprintf(title, sizeof title, "%s on %.1000s",
        r->method == 1 ? "BEiT" : "SplitMask", r->path);
    memset(&page, 0, sizeof page);
    page.title = title;
    page.command = r->command;
    page.chance = match_chance(r);
    page.noise = r->noise;
    page.done = r->adam.step;
    page.steps = r->state.steps;
    page.batch = r->batch;
    page.beit = r->method == 1;
    page.no_inpaint = r->no_inpaint;
    page.no_match = r->no_match;
    page.result = results;
    page.results = RESULTS;
    page.option = options;
    page.options = option_count;
    page.row = r->row;
    page.rows = r->rows;
    page.tokens = &r->tokens;
    page.scenes = &r->scenes;
    memcpy(page.mean, r->data.mean, sizeof page.mean);
    memcpy(page.deviation, r->data.deviation, sizeof page.deviation);
    take_pictures(c, r, 1);
    if (smask_error(c) == SMASK_OK
        && !report_write(&page, r->state.report_file))
        warn("%s: not written: %s", r->state.report_file, strerror(errno));
}

/* ------------------------------------------------------------ training */

static void keep_row(run *r, double seconds)
{
    report_step row;

    row.step = r->adam.step;
    row.lr = (double)r->adam.rate;
    row.loss = (double)r->losses.total;
    row.inpaint = (double)r->losses.inpaint;
    row.match = (double)r->losses.match;
    row.accuracy = (double)r->losses.accuracy;
    row.match_accuracy = (double)r->losses.match_accuracy;
    row.images_per_s = seconds > 0 ? r->batch / seconds : 0;
    row.noise = r->noise;
    add_row(r, &row);
    /* Without a file, the next save writes all rows. */
    if (r->state.log != NULL) log_row(r->state.log, &row);
    r->busy += seconds;
    r->trained += r->batch;
}

/* All steps from where the optimiser stands. The progress line is left for
   main to end, after the last save. */
static void train(smask_ctx *c, run *r)
{
    progress *line = &r->line;
    smask_random before;

    stop_catch();
    progress_start(line, "pretrain", (double)r->state.steps * r->batch);
    line->first = line->done = (double)r->adam.step * r->batch;
    while (r->adam.step < r->state.steps && !stop_wanted()) {
        const double begin = seconds_now();
        before = c->random;
        train_step(c, r, r->adam.step);
        if (smask_error(c) != SMASK_OK) {
            progress_end(line);
            run_failed(c, &r->state, r->adam.step, (double)r->lr, &before,
                save, r);
        }
        keep_row(r, seconds_now() - begin);
        /* First save, then print: a print may wait for its reader. */
        if (r->adam.step == r->state.steps || stop_wanted()) return;
        if (run_save_due(&r->state, r->adam.step)) {
            /* What is in memory is worth more than what is on the disk:
               go on without the save, there may be room next time. */
            const int saved = save(c, r);
            if (has_match(r) && r->adam.step % r->state.save_every == 0) {
                const int known = noise_is_high(r, 2);
                r->noise = match_noise(c, r, 2);
                if (!known && noise_is_high(r, 2)) warn_noise(r);
            }
            if (saved) write_report(c, r);
            else run_not_saved(&r->state, r->adam.step);
        }
        progress_loss(line, (double)r->adam.step * r->batch,
            (double)r->losses.total);
    }
}

/* The model, its tokens, its optimiser, then all steps. In a dry run one of
   everything. */
static smask_result work(smask_ctx *c, void *user)
{
    run *r = (run *)user;
    smask_adam_desc adam;
    float *first = NULL;

    memset(&adam, 0, sizeof adam);
    adam.lr = r->lr;
    adam.weight_decay = r->weight_decay > 0 ? r->weight_decay : -1;
    adam.warmup = r->warmup;
    adam.steps = r->state.steps;
    smask_vit_init(c, &r->v, &r->vit_desc);
    smask_tokenizer_init(c, &r->t, &r->token_desc);
    smask_adam_init(c, &r->adam, &adam, &r->v.params);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (!r->state.resume) {
        fit_tokenizer(c, r);
    } else if (smask_is_dry(c)) {
        run_read(c, &r->state, &r->v, &r->t, &r->adam);
    } else {
        first = copy_weights(r);
        run_read(c, &r->state, &r->v, &r->t, &r->adam);
        swap_weights(r, first);
    }
    study_words(c, r);
    choose_scenes(c, r);
    take_pictures(c, r, 0);
    if (smask_is_dry(c)) train_step(c, r, 0);
    if (smask_is_dry(c) && has_match(r)) match_noise(c, r, 1);
    if (smask_is_dry(c) || smask_error(c) != SMASK_OK) return smask_error(c);
    if (r->state.resume) {
        swap_weights(r, first);
        free(first);
        log_read(r, r->adam.step);
        if (has_match(r) && r->adam.step % r->state.save_every == 0)
            r->noise = match_noise(c, r, 2);         /* as after that save */
    } else {
        run_keep_earlier(&r->state);
    }
    if (!run_write_log(&r->state))
        fail("%s: %s; choose another --out", r->state.log_file,
            strerror(errno));
    r->state.saved_time = seconds_now();
    train(c, r);
    return smask_error(c);
}

/* Result lines of the match, and a warning if the split alone solves it. */
static void report_noise(const run *r)
{
    result("match_accuracy", 100 * last_part(r).match_accuracy, 2);
    result("noise_match_accuracy", 100 * r->noise, 2);
    result("noise_match_chance", 100 * match_chance(r), 2);
    if (noise_is_high(r, NOISE_BATCHES)) warn_noise(r);
    else
        warn("halves recognised by the split alone: %.3f, by chance %.3f",
            r->noise, match_chance(r));
}

/* ---------------------------------------------------------------- main */

static void set_up(run *r, smask_ctx *c)
{
    smask_desc desc;

    memset(&desc, 0, sizeof desc);
    desc.parallel = r->hook;
    desc.seed = r->seed;
    desc.isa = r->isa;
    context_for(c, &desc, work, r, &r->sizes,
        "these options do not go together");
    if (r->batch < r->asked_batch)
        warn("there are %d images, so that is the batch", r->batch);
    warn("%ld images of %d x %d, %ld steps of %d; %d + %d blocks, width %d; "
        "%s, %d threads", (long)r->train_count, r->image, r->image,
        (long)r->state.steps, r->batch, r->depth,
        (int)r->vit_desc.decoder_depth, r->dim, smask_isa_text(c),
        r->hook.workers);
    warn("planned %.1f MB: %.1f for model and optimiser, %.1f for a step",
        (double)r->sizes.bytes / 1e6, (double)r->sizes.kept_bytes / 1e6,
        (double)r->sizes.step_bytes / 1e6);
}

int main(int argc, char **argv)
{
    static run r;
    result_line line[RESULTS];
    smask_threads pool;
    smask_ctx c;
    int i;

    r.noise = NAN;
    read_options(&r, argc, argv);
    settle_options(&r);
    r.command = run_command(argc, argv);
    run_open(&r.state);
    open_data(&r);
    describe(&r);
    run_check(&r.state);
    folder_lock(r.state.out);
    if (smask_threads_start(&pool, r.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    r.hook = smask_threads_hook(&pool);
    set_up(&r, &c);
    if (work(&c, &r) != SMASK_OK)
        fail("before the first step: %s", smask_detail(&c));
    if (!save(&c, &r)) fail("%s", r.state.why);
    if (r.trained > 0)
        progress_loss(&r.line, (double)r.adam.step * r.batch,
            (double)r.losses.total);
    progress_end(&r.line);
    if (r.adam.step == r.state.steps && has_match(&r))
        r.noise = match_noise(&c, &r, NOISE_BATCHES);
    write_report(&c, &r);
    if (smask_error(&c) != SMASK_OK) fail("%s", smask_detail(&c));
    if (r.adam.step < r.state.steps) {
        warn("stopped at step %ld of %d and saved; go on with: %s --resume",
            (long)r.adam.step, r.state.steps, r.command);
    } else {
        gather_results(&r, line);
        for (i = 0; i < RESULTS; i++)
            if (!isnan(line[i].value))
                result(line[i].name, line[i].value, line[i].decimals);
        if (has_match(&r)) report_noise(&r);
    }
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    if (r.state.log != NULL) fclose(r.state.log);
    data_close(&r.data);
    free(r.chosen);
    free(r.order);
    free(r.row);
    free(r.command);
    return r.adam.step < r.state.steps ? 130 : 0;
}
