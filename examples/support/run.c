/* run.c: save, check and resume a training run. See run.h. */
#include "run.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------- options */

void run_options(run_state *r, const option *table, int count)
{
    if (count > RUN_OPTIONS) fail("RUN_OPTIONS: must be %d", count);
    memcpy(r->table, table, (size_t)count * sizeof *table);
    r->options = count;
}

int run_may_change(const run_state *r, const char *name)
{
    int i;

    for (i = 0; r->may_change[i] != NULL; i++)
        if (strcmp(name, r->may_change[i]) == 0) return 1;
    return 0;
}

char *run_command(int argc, char **argv)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
    size_t bytes = 1;
    char *text, *to;
    int i;

    for (i = 0; i < argc; i++) bytes += 4 * strlen(argv[i]) + 3;
    to = text = (char *)malloc(bytes);
    if (text == NULL) fail("no memory for a line of text");
    for (i = 0; i < argc; i++) {
        const char *from = argv[i];
        const int quoted = from[0] == '\0'
            || from[strspn(from, plain)] != '\0';
        if (strcmp(from, "--resume") == 0) continue;
        if (i > 0) *to++ = ' ';
        if (quoted) *to++ = '\'';
        for (; *from != '\0'; from++) {
            if (*from == '\'') {
                memcpy(to, "'\\''", 4);
                to += 4;
            } else {
                *to++ = *from;
            }
        }
        if (quoted) *to++ = '\'';
    }
    *to = '\0';
    return text;
}

/* ------------------------------------------------------ facts and check */

static FILE *open_state(const run_state *r, smask_io *io)
{
    FILE *stream = fopen(r->model_file, "rb");

    if (stream == NULL)
        fail("--resume: %s: %s; run without --resume to begin", r->model_file,
            strerror(errno));
    *io = smask_stdio(stream);
    return stream;
}

void run_open(run_state *r)
{
    smask_io io;

    if (strlen(r->out) > 1000) fail("--out: the path is too long");
    snprintf(r->model_file, sizeof r->model_file, "%s/model.safetensors",
        r->out);
    snprintf(r->log_file, sizeof r->log_file, "%s/log.csv", r->out);
    snprintf(r->report_file, sizeof r->report_file, "%s/report.html", r->out);
    r->saved_step = -1;
    if (r->resume) {
        fclose(open_state(r, &io));
        folder_lock(r->out);
    }
}

void run_add_fact(run_state *r, const char *key, const char *value,
    const char *other)
{
    run_fact *f = &r->fact[r->facts];

    if (r->facts == RUN_FACTS) fail("RUN_FACTS: must be more");
    f->key = key;
    f->other = other;
    snprintf(f->value, sizeof f->value, "%s", value);
    r->facts++;
}

void run_data_facts(run_state *r, const data_set *data, size_t images,
    const char *mean_key, const char *deviation_key)
{
    char pixels[2][128], text[32];
    smask_metadata pixel[2];

    notes_pixels(pixel, pixels, data->mean, data->deviation, data->channels);
    run_add_fact(r, mean_key, pixels[0], "other pixels (see their mean)");
    run_add_fact(r, deviation_key, pixels[1],
        "other pixels (see their deviation)");
    snprintf(text, sizeof text, "%ld", (long)images);
    run_add_fact(r, "images", text, "another number of images");
    /* The shuffle starts from the order of the names. */
    snprintf(text, sizeof text, "%08lx%08lx",
        (unsigned long)(data->names_hash >> 32),
        (unsigned long)(data->names_hash & 0xffffffffu));
    run_add_fact(r, "data.names", data->names_hash != 0 ? text : "",
        "files of other names, or another order,");
}

static void check_option(const run_state *r, const smask_file *file,
    const option *o)
{
    char key[40], value[1100], old[1100];
    const char *now;

    snprintf(key, sizeof key, "option%.32s", o->name);
    if (smask_read_metadata(file, key, old, sizeof old) < 0
        && (r->value_before == NULL
            || !r->value_before(file, o->name, old, sizeof old)))
        fail("--resume: %s is no run that %s can go on with (it has no entry "
            "%s); give another --out, or run without --resume",
            r->model_file, r->program, key);
    now = option_value(o, value, sizeof value);
    if (strcmp(old, now) != 0 && strcmp(o->name, "--steps") == 0)
        fail("--resume: %s was trained for %s steps, not %s (epochs "
            "times steps in one); the learning rate was planned for "
            "them, so give the same, or begin anew with another --out",
            r->model_file, old, now);
    if (strcmp(old, now) != 0 && (old[0] == '\0' || now[0] == '\0'))
        fail("--resume: %s was trained %s %s%s%s; give the same options, or "
            "another --out without --resume", r->model_file,
            old[0] == '\0' ? "without" : "with", o->name,
            old[0] == '\0' ? "" : " ", old);
    if (strcmp(old, now) != 0)
        fail("--resume: %s was trained with %s %s, not %s; give the "
            "same options, or another --out without --resume",
            r->model_file, o->name, old, now);
}

void run_check(run_state *r)
{
    char old[1100], method[64] = "";
    smask_vit_desc desc;
    smask_ctx c;
    smask_io io;
    smask_file file;
    FILE *stream;
    int i;

    if (!r->resume) return;
    stream = open_state(r, &io);
    if (smask_setup(&c, NULL) != SMASK_OK)
        fail("--resume: no memory for the header of %s", r->model_file);
    if (smask_open(&c, &file, &io) != SMASK_OK)
        fail("--resume: %s: %s; run without --resume to begin",
            r->model_file, smask_detail(&c));
    if (smask_read_vit_desc(&c, &file, &desc) != SMASK_OK)
        fail("--resume: %s: %s", r->model_file, smask_detail(&c));
    smask_read_metadata(&file, "method", method, sizeof method);
    if ((strcmp(method, "finetune") == 0)
        != (strcmp(r->program, "finetune") == 0))
        fail("--resume: %s was not written by %s; give another --out",
            r->model_file, r->program);
    for (i = 0; i < r->options; i++)
        if (!run_may_change(r, r->table[i].name))
            check_option(r, &file, &r->table[i]);
    for (i = 0; i < r->facts; i++) {
        const run_fact *f = &r->fact[i];
        /* A file of 0.1.0 does not have them all. */
        if (smask_read_metadata(&file, f->key, old, sizeof old) >= 0
            && strcmp(old, f->value) != 0)
            fail("--resume: --data %s has %s than %s was trained on (%s, not "
                "%s); give back what there was, or start a new run with "
                "another --out", r->path, f->other, r->model_file,
                f->value[0] != '\0' ? f->value : "none", old);
    }
    if (smask_read_metadata(&file, "adam.step", old, sizeof old) >= 0
        && strtod(old, NULL) > r->steps)
        fail("--resume: %s is at step %.20s, and --steps is %d; the file is "
            "damaged; start a new run with another --out", r->model_file, old,
            r->steps);
    if (r->note_key != NULL
        && smask_read_metadata(&file, r->note_key, old, sizeof old) >= 0)
        snprintf(r->note, sizeof r->note, "%.63s", old);
    r->spare = 2 * file.header_bytes + 65536
        + (size_t)file.count * (sizeof(smask_file_entry) + 4);
    smask_shutdown(&c);
    fclose(stream);
}

void run_read(smask_ctx *c, run_state *r, smask_vit *v, smask_tokenizer *t,
    smask_adam *a)
{
    smask_io io;
    smask_file file;
    FILE *stream;
    int32_t missing = 0;

    smask_begin_step(c);
    if (smask_is_dry(c)) {
        smask_alloc(c, r->spare);
        smask_end_step(c);
        return;
    }
    stream = open_state(r, &io);
    if (smask_open(c, &file, &io) != SMASK_OK
        || smask_read(c, &file, v, t, a, NULL, &missing) != SMASK_OK)
        fail("--resume: %s: %s", r->model_file, smask_detail(c));
    if (missing > 0)
        fail("--resume: %s lacks %d of the weights", r->model_file,
            (int)missing);
    smask_end_step(c);
    fclose(stream);
    r->saved_step = a->step;
}

/* ----------------------------------------------------------------- log */

void run_keep_earlier(const run_state *r)
{
    const int model = file_keep(r->out, "model.safetensors");

    if (file_keep(r->out, "log.csv") + file_keep(r->out, "report.html")
        + model > 0)
        warn("%s held an earlier run: its files are now named .old%s",
            r->out, model ? "; --resume would have gone on with it" : "");
}

int run_write_log(run_state *r)
{
    int why;

    if (r->log != NULL) fclose(r->log);
    r->log = part_open(r->log_file);
    if (r->log == NULL) return 0;
    r->write_log(r->user, r->log);
    if (part_rename(r->log, r->log_file)) return 1;
    why = errno;
    part_remove(r->log_file);
    fclose(r->log);
    r->log = NULL;
    errno = why;
    return 0;
}

void run_save_log(run_state *r)
{
    if (r->log != NULL && access(r->log_file, F_OK) == 0
        && file_sync(r->log))
        return;
    if (!run_write_log(r))
        warn("%s: not written: %s; it is tried again at the next save",
            r->log_file, part_error());
}

/* -------------------------------------------------------------- saving */

int run_save_due(const run_state *r, int64_t step)
{
    return step % r->save_every == 0 || step == r->steps || stop_wanted()
        || (r->save_minutes > 0 && seconds_now() - r->saved_time
            >= 60 * (double)r->save_minutes);
}

int run_save(smask_ctx *c, run_state *r, const char *method,
    const smask_vit *v, const smask_tokenizer *t, const smask_adam *a)
{
    static char value[RUN_OPTIONS][1100], key[RUN_OPTIONS][40];
    smask_metadata notes[RUN_OPTIONS + RUN_FACTS + 3];
    char data[1100];
    int32_t count = 0, i;

    for (i = 0; i < r->facts; i++)
        if (r->fact[i].value[0] != '\0') {
            notes[count].key = r->fact[i].key;
            notes[count++].value = r->fact[i].value;
        }
    notes[count].key = "data";
    notes[count++].value = note_text(data, sizeof data, r->path);
    notes[count].key = "method";
    notes[count++].value = method;
    if (r->note_key != NULL) {
        notes[count].key = r->note_key;
        notes[count++].value = r->note;
    }
    for (i = 0; i < r->options; i++) {
        if (run_may_change(r, r->table[i].name)) continue;
        snprintf(key[i], sizeof key[i], "option%.32s", r->table[i].name);
        notes[count].key = key[i];
        notes[count++].value = option_value(&r->table[i], value[i],
            sizeof value[i]);
    }
    r->saved_time = seconds_now();
    if (!folder_try_lock(r->out, r->why, sizeof r->why)) return 0;
    run_save_log(r);
    if (!model_try_save(c, v, t, a, NULL, notes, count, r->model_file,
            r->why, sizeof r->why))
        return 0;
    r->saved_step = a->step;
    return 1;
}

void run_not_saved(const run_state *r, int64_t step)
{
    warn("step %ld: not saved, tried again later: %s", (long)step, r->why);
}

void run_failed(smask_ctx *c, run_state *r, int64_t step, double lr,
    const smask_random *before, int (*save)(smask_ctx *c, void *user),
    void *user)
{
    run_save_log(r);
    if (smask_error(c) != SMASK_NUMERIC)
        fail("step %ld: %s", (long)step + 1, smask_detail(c));
    if (r->saved_step < 0 && step > 0) {
        smask_clear(c);
        c->random = *before;
        if (!save(c, user)) run_not_saved(r, step);
    }
    if (r->saved_step < 0)
        fail("step %ld: the loss or its gradient is not finite; try a lower "
            "--lr (now %g). Nothing was saved", (long)step + 1, lr);
    fail("step %ld: the loss or its gradient is not finite; try a lower "
        "--lr (now %g). %s holds the last good save, of step %ld",
        (long)step + 1, lr, r->model_file, (long)r->saved_step);
}
