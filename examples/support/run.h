/* run.h: a training that can be stopped, killed and resumed: what pretrain
   and finetune share.

   A run writes DIR/model.safetensors with all that --resume needs: weights,
   moments, step and generator, the options that its result depends on, and
   facts about its data. A resumed run must have the same options and facts,
   so it ends with the same bits as one that was never stopped. DIR/log.csv
   is kept in memory too, and is written again where it was lost.          */
#ifndef RUN_H
#define RUN_H

#include "support.h"

#define RUN_OPTIONS 60                   /* capacity of the table          */
#define RUN_FACTS 8

/* Something about the data that a resumed run must find unchanged. */
typedef struct run_fact {
    const char *key;                     /* of the metadata entry          */
    char value[128];
    const char *other;                   /* "other pixels", for a message  */
} run_fact;

typedef struct run_state {
    /* options */
    const char *out;                     /* the folder                     */
    int steps, save_every, resume;
    float save_minutes;
    /* set these before run_open */
    const char *program;                 /* "pretrain"                     */
    const char *path;                    /* of the data                    */
    option table[RUN_OPTIONS];
    int options;
    const char *const *may_change;       /* names of options that a resumed
                                            run may change; ends with NULL */
    /* What an option was in a file that does not name it; 0: not known.
       May be NULL. */
    int (*value_before)(const smask_file *file, const char *name, char *out,
        size_t bytes);
    /* Writes all of log.csv. */
    void (*write_log)(void *user, FILE *file);
    void *user;
    /* A metadata entry of the program's own, saved and read with the rest;
       its key may be NULL. */
    const char *note_key;
    char note[64];
    /* filled here */
    char model_file[1100], log_file[1100], report_file[1100];
    run_fact fact[RUN_FACTS];
    int facts;
    size_t spare;                        /* bytes to read the file         */
    FILE *log;                           /* NULL: could not be written     */
    int64_t saved_step;                  /* in the file; -1: no file yet   */
    double saved_time;
    char why[1400];                      /* the last save failed           */
} run_state;

/* Copy the program's options into the table: count * sizeof(option) bytes. */
void run_options(run_state *r, const option *table, int count);
int run_may_change(const run_state *r, const char *name);
/* The command line again, quoted for a shell, without --resume. Yours to
   free. */
char *run_command(int argc, char **argv);

/* Names of the files. With resume: the model file is there, and the folder
   is locked, so no other run goes on meanwhile. */
void run_open(run_state *r);
/* Add a fact; an empty value: there is no such thing in this data. */
void run_add_fact(run_state *r, const char *key, const char *value,
    const char *other);
/* The facts that all data have: number of images, names of files, and the
   pixels' mean and deviation under two keys. */
void run_data_facts(run_state *r, const data_set *data, size_t images,
    const char *mean_key, const char *deviation_key);
/* With resume: fails unless the file is of this very run. Else the rest of
   the run would not belong to its beginning. Call it when options and facts
   are settled. */
void run_check(run_state *r);
/* Read the state of the run, between steps; t may be NULL. In a dry run,
   plans the memory that this takes. */
void run_read(smask_ctx *c, run_state *r, smask_vit *v, smask_tokenizer *t,
    smask_adam *a);

/* What an earlier run left in the folder gets other names, and the user is
   told. */
void run_keep_earlier(const run_state *r);
/* A new log.csv, ready for more rows: 1, or 0 and errno. */
int run_write_log(run_state *r);
/* Bring the log to the disk. If rows were lost (the disk was full) or the
   file is gone (its folder was removed), it is written again. */
void run_save_log(run_state *r);

/* Is a save due after this step? Every save_every steps, after save_minutes,
   after the last step, and when a signal asks to stop. */
int run_save_due(const run_state *r, int64_t step);
/* Save all: 1, or 0 and the reason in r->why; then the old file is still
   there, and the run can go on. The folder is made again if it is gone.
   What is saved does not tell where or how fast it ran: the same run gives
   the same file. */
int run_save(smask_ctx *c, run_state *r, const char *method,
    const smask_vit *v, const smask_tokenizer *t, const smask_adam *a);
/* Warn that a save failed. */
void run_not_saved(const run_state *r, int64_t step);

/* Training ended by an error in the step after `step`: says why, what is
   saved, and what to do. Never returns. A step that is not finite changes no
   weight, so if nothing is saved yet, `save` writes what the weights are;
   `before` is the generator before that step. */
void run_failed(smask_ctx *c, run_state *r, int64_t step, double lr,
    const smask_random *before, int (*save)(smask_ctx *c, void *user),
    void *user);

#endif /* RUN_H */
