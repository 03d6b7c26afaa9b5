/* main.c: the benchmark's commands and options. See bench.h.

   Build   make build/bench          Run   build/bench --help            */
#include "bench.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>

const char *const trans_names[3] = { "NN", "NT", "TN" };
const char *const method_names[2] = { "splitmask", "beit" };

static const struct command {
    const char *name;
    int bit;
    void (*run)(bench *b);
    const char *text;
} commands[] = {
    { "gemm", GEMM, run_gemm, "a matrix product, or those of ViTs" },
    { "attention", ATTENTION, run_attention,
      "attention forward and backward, N 49 to 196" },
    { "step", STEP, run_model, "a training step, all but reading images" },
    { "forward", FORWARD, run_model,
      "the encoder alone, as in use after training" },
    { "scale", SCALE, run_scale,
      "cost against batch, tokens, width, depth, vocabulary" },
    { "tokenizer", TOKENIZER, run_tokenizer,
      "visual tokens of a batch, and k-means" },
    { "adam", ADAM, run_adam, "AdamW's update of all parameters" },
    { "peak", PEAK, run_peak, "what the multiply-add units can do" }
};
#define COMMANDS ((int)(sizeof commands / sizeof commands[0]))

static const struct { int dim, depth, heads; } models[] = {
    { 128, 6, 4 }, { 192, 12, 3 }, { 384, 12, 6 }, { 768, 12, 12 }
};

/* -------------------------------------------------------------- options */

#define ISA_CHOICE(name, text) "|" text
static const char isa_choices[] = SMASK_ISAS(ISA_CHOICE) " instruction set";

/* The options that have a meaning for `bits`. */
static int list_options(options *o, int bits, option *list)
{
    const struct { int bits; option option; } table[] = {
        { GEMM, { "--m", OPTION_INT, &o->m, 1, 1 << 20,
          "gemm: rows of the product" } },
        { GEMM, { "--n", OPTION_INT, &o->n, 1, 1 << 20,
          "gemm: its columns" } },
        { GEMM, { "--k", OPTION_INT, &o->k, 1, 1 << 20,
          "gemm: length of its sums" } },
        { GEMM, { "--trans", OPTION_CHOICE, &o->trans, 0, 0,
          "NN|NT|TN gemm: T marks a transposed operand" } },
        { GEMM, { "--suite", OPTION_CHOICE, &o->suite, 0, 0, "none|vit gemm: "
          "the products of ViT-Tiny, Small and Base in training" } },
        { STEP | TOKENIZER | SCALE | ADAM, { "--method", OPTION_CHOICE,
          &o->method, 0, 0, "splitmask|beit objective" } },
        { MODEL, { "--model", OPTION_CHOICE, &o->model, 0, 0,
          "micro|tiny|small|base size of the encoder" } },
        { MODEL, { "--dim", OPTION_INT, &o->dim, 0, 8192,
          "width; 0: the model's" } },
        { MODEL, { "--depth", OPTION_INT, &o->depth, 0, 128,
          "blocks; 0: the model's" } },
        { MODEL, { "--heads", OPTION_INT, &o->heads, 0, 128,
          "heads; 0: the model's, with --dim one per 64" } },
        { MODEL, { "--image", OPTION_INT, &o->image, 0, 4096,
          "side in pixels; 0: 224 for forward, small and base, else 32" } },
        { MODEL, { "--patch", OPTION_INT, &o->patch, 0, 512,
          "side in pixels; 0: 16 from --image 128 on, else 4" } },
        { MODEL | ATTENTION, { "--batch", OPTION_INT, &o->batch, 0, 65536,
          "images; 0: 1 for forward, 8 from --image 128 on, else 128 for "
          "micro and 64 for others; attention: 3136 / N" } },
        { STEP | TOKENIZER | ADAM, { "--vocab", OPTION_INT, &o->vocab, 0,
          1 << 20, "visual tokens; 0: 1024 for micro, else 8192" } },
        { STEP | FORWARD | SCALE | TOKENIZER, { "--steps", OPTION_INT,
          &o->steps, 1, 1000000, "steps to measure" } },
        { STEP, { "--profile", OPTION_FLAG, &o->profile, 0, 0,
          "step: time, GFLOP/s and GB/s of each operation" } },
        { STEP | SCALE, { "--recompute", OPTION_FLAG, &o->recompute, 0, 0,
          "blocks run again in backward: time for memory" } },
        { STEP | FORWARD, { "--serve", OPTION_FLAG, &o->serve, 0, 0,
          "one measurement for each line of standard input" } },
        { ALL, { "--threads", OPTION_INT, &o->threads, 0, 1024,
          "0: all cores" } },
        { ALL, { "--seed", OPTION_SEED, &o->seed, 0, 0,
          "seed of all random values" } },
        { ALL, { "--repeat", OPTION_INT, &o->repeat, 1, 1000,
          "samples of everything else" } },
        { ALL, { "--isa", OPTION_CHOICE, &o->isa, 0, 0, isa_choices + 1 } }
    };
    size_t i;
    int count = 0;

    for (i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].bits & bits) list[count++] = table[i].option;
    return count;
}
#define MAX_OPTIONS 32

static const struct command *find_command(const char *name)
{
    int i;

    for (i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    fail("there is no command %s; give gemm, attention, step, forward, "
        "scale, tokenizer, adam or peak", name);
    return NULL;
}

/* Options without a command: help, or a mistake. Never returns. */
static void without_command(options *o, int argc, char **argv)
{
    static char title[] = "bench COMMAND";
    option list[MAX_OPTIONS];
    char text[1024] = "how near the library comes to what this machine can "
        "do\n\nCommands, each with its own --help:";
    int i;

    for (i = 0; i < COMMANDS; i++)
        sprintf(text + strlen(text), "\n  %-21s %s", commands[i].name,
            commands[i].text);
    for (i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            argv[0] = title;
    options_read(text, list, list_options(o, ALL, list), argc, argv);
    fail("give a command: gemm, attention, step, forward, scale, tokenizer, "
        "adam or peak; see --help");
}

/* What an option of 0 stands for. */
static void settle_model(options *o)
{
    if (o->dim == 0) o->dim = models[o->model].dim;
    else if (o->heads == 0) o->heads = o->dim < 64 ? 1 : o->dim / 64;
    if (o->depth == 0) o->depth = models[o->model].depth;
    if (o->heads == 0) o->heads = models[o->model].heads;
    if (o->image == 0)
        o->image = o->command == FORWARD || o->model >= 2 ? 224 : 32;
    if (o->patch == 0) o->patch = o->image >= 128 ? 16 : 4;
    if (o->vocab == 0) o->vocab = o->model == 0 ? 1024 : 8192;
    if (o->batch == 0) {
        o->batch = o->model == 0 ? 128 : 64;
        if (o->image >= 128) o->batch = 8;
        if (o->command == FORWARD) o->batch = 1;
    }
    if (o->vocab < 2)
        fail("--vocab %d: give 2 visual tokens or more", o->vocab);
    if (o->image % o->patch)
        fail("--image %d is no multiple of --patch %d; choose sides that "
            "divide", o->image, o->patch);
    if (o->image / o->patch < 2)
        fail("--image %d is less than two patches of %d; use a larger image",
            o->image, o->patch);
    if (o->dim % o->heads)
        fail("--dim %d is no multiple of --heads %d; choose heads that "
            "divide it", o->dim, o->heads);
    if (o->patch % 2 && o->patch >= 16)
        fail("--patch %d is odd; from 16 on visual tokens are made at half "
            "the resolution, which needs an even one", o->patch);
}

static const struct command *read_options(options *o, int argc, char **argv)
{
    static char title[64];
    option list[MAX_OPTIONS];
    const struct command *command;

    o->m = o->n = o->k = 512;
    o->steps = 10;
    o->repeat = 7;
    o->seed = 1;
    program_named("bench");
    if (argc < 2 || argv[1][0] == '-') without_command(o, argc, argv);
    command = find_command(argv[1]);
    o->command = command->bit;
    if (o->command == FORWARD) o->model = 1;
    if (o->command == SCALE) o->steps = 3;
    snprintf(title, sizeof title, "bench %s", command->name);
    argv[1] = title;
    options_read(command->text, list, list_options(o, o->command, list),
        argc - 1, argv + 1);
    if (o->command & MODEL) settle_model(o);
    return command;
}

/* ------------------------------------------------- threads and contexts */

/* Print which instruction set runs; fail if it cannot. */
static void check_isa(const bench *b)
{
    static unsigned char memory[4096];
    smask_desc desc;
    smask_ctx c;

    memset(&desc, 0, sizeof desc);
    desc.memory = memory;
    desc.memory_size = sizeof memory;
    desc.isa = (smask_isa)b->o.isa;
    if (smask_setup(&c, &desc) != SMASK_OK)
        fail("--isa: this processor or build lacks that instruction set; "
            "leave it out");
    printf("# splitmask %s, isa %s, %d thread%s\n", SMASK_VERSION,
        smask_isa_text(&c), b->threads, b->threads == 1 ? "" : "s");
    smask_shutdown(&c);
}

void bench_context(const bench *b, smask_ctx *c, int inference,
    smask_result (*work)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes)
{
    smask_desc desc;

    memset(&desc, 0, sizeof desc);
    desc.parallel = b->hook;
    desc.seed = b->o.seed;
    desc.isa = (smask_isa)b->o.isa;
    desc.inference = inference;
    context_for(c, &desc, work, user, sizes, "planning memory");
}

int main(int argc, char **argv)
{
    static bench b;
    const struct command *command = read_options(&b.o, argc, argv);

    if (smask_threads_start(&b.pool, b.o.threads) != SMASK_OK)
        fail("the threads cannot be started; use --threads 1");
    b.threads = b.pool.workers;
    b.hook = smask_threads_hook(&b.pool);
    check_isa(&b);
    peak_choose(&b);
    command->run(&b);
    smask_threads_stop(&b.pool);
    return 0;
}
