/* test_options.c: the command line, its errors, progress and results. Each
   case runs in a child process, since an error ends the program. */
#include "examples/support/support.h"
#include "test.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char said[8192], printed[8192];

/* What a pipe holds until its other end is closed. */
static void drain(int from, char *text, size_t bytes)
{
    size_t have = 0;
    ssize_t got;

    while (have < bytes - 1
        && (got = read(from, text + have, bytes - 1 - have)) > 0)
        have += (size_t)got;
    text[have] = '\0';
    close(from);
}

/* Run fn(arg) in a child, which then exits with 0. Returns the exit code;
   standard error goes to `said`, standard output to `printed`. Neither may
   be larger than what a pipe holds. */
static int in_child(void (*fn)(void *arg), void *arg)
{
    int error[2], output[2], status = 0;
    pid_t child;

    fflush(stdout);
    if (pipe(error) != 0 || pipe(output) != 0 || (child = fork()) < 0)
        return -1;
    if (child == 0) {
        dup2(error[1], STDERR_FILENO);
        dup2(output[1], STDOUT_FILENO);
        close(error[0]);
        close(output[0]);
        fn(arg);
        fflush(stdout);
        _exit(0);
    }
    close(error[1]);
    close(output[1]);
    waitpid(child, &status, 0);
    drain(error[0], said, sizeof said);
    drain(output[0], printed, sizeof printed);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ------------------------------------------------------------- options */

typedef struct values {
    const char *text;
    int number, flag, choice;
    float real;
    uint64_t seed;
} values;

static values v;

static void read_line(int argc, char **argv)
{
    const option table[] = {
        { "--text", OPTION_TEXT, &v.text, 0, 0, "some words" },
        { "--number", OPTION_INT, &v.number, -3, 10, "how many of a long "
          "list of things, told in so many words that the line has to be "
          "broken somewhere" },
        { "--real", OPTION_REAL, &v.real, 0.5, 2, "a factor" },
        { "--flag", OPTION_FLAG, &v.flag, 0, 0, "do it" },
        { "--seed", OPTION_SEED, &v.seed, 0, 0, "of the generator" },
        { "--a-choice-of-three", OPTION_CHOICE, &v.choice, 0, 0,
          "red|green|blue the colour" }
    };

    options_read("a test", table, (int)(sizeof table / sizeof table[0]),
        argc, argv);
}

static void defaults(void)
{
    memset(&v, 0, sizeof v);
    v.text = "here";
    v.number = 7;
    v.real = 1.5f;
    v.seed = 11;
    v.choice = 1;
}

#define MOST 16
typedef struct line { int count; char *word[MOST]; } line;

/* Cut a copy of the text into words. */
static line split(char *copy, size_t bytes, const char *text)
{
    line l;
    char *at;

    snprintf(copy, bytes, "%s", text);
    l.count = 0;
    for (at = strtok(copy, " "); at != NULL && l.count < MOST;
        at = strtok(NULL, " "))
        l.word[l.count++] = at;
    return l;
}

static void values_are_read(void)
{
    char copy[512];
    line l = split(copy, sizeof copy, "dir/prog --text out/x --number -3 "
        "--real=0.75 --flag --seed 18446744073709551615 "
        "--a-choice-of-three blue --number 9");

    defaults();
    read_line(l.count, l.word);
    CHECK_TEXT(v.text, "out/x");
    SAME(v.number, 9);
    NEAR(v.real, 0.75, 0);
    SAME(v.flag, 1);
    SAME(v.choice, 2);
    CHECK(v.seed == UINT64_MAX);
    l = split(copy, sizeof copy, "prog");
    defaults();
    read_line(l.count, l.word);
    CHECK_TEXT(v.text, "here");
    SAME(v.number, 7);
    SAME(v.flag, 0);
}

static void read_text(void *arg)
{
    char copy[512];
    line l = split(copy, sizeof copy, (const char *)arg);

    defaults();
    read_line(l.count, l.word);
}

/* Exit 2 and one line, "prog: ...", in which `what` occurs. */
static void refuses(const char *command, const char *what)
{
    char copy[512];

    snprintf(copy, sizeof copy, "%s", command);
    SAME(in_child(read_text, copy), 2);
    CHECK(strncmp(said, "prog: ", 6) == 0);
    if (!CHECK(strstr(said, what) != NULL)) printf("    said: %s", said);
    CHECK(strchr(said, '\n') == said + strlen(said) - 1);
    CHECK(printed[0] == '\0');
}

static void bad_lines_are_refused(void)
{
    refuses("./prog --unknown 3", "unknown option --unknown");
    refuses("./prog --unknown=3", "unknown option --unknown;");
    refuses("./prog --num 3", "unknown option --num;");
    refuses("./prog -x", "unknown option -x");
    refuses("./prog words", "words");
    refuses("./prog --flag words", "words");
    refuses("./prog --text", "--text: its value is missing");
    refuses("./prog --text --flag", "--text: its value is missing");
    refuses("./prog --number=", "--number : give a whole number");
    refuses("./prog --flag=1", "--flag takes no value");
    refuses("./prog --number 11", "--number 11: must be -3 .. 10");
    refuses("./prog --number -4", "must be -3 .. 10");
    refuses("./prog --number 99999999999999999999", "must be -3 .. 10");
    refuses("./prog --number 3.5", "whole number");
    refuses("./prog --number 3x", "whole number");
    refuses("./prog --real 0.4", "--real 0.4: must be 0.5 .. 2");
    refuses("./prog --real nan", "must be 0.5 .. 2");
    refuses("./prog --real inf", "must be 0.5 .. 2");
    refuses("./prog --real x", "give a number");
    refuses("./prog --seed -1", "0 or more");
    refuses("./prog --seed 18446744073709551616", "whole number");
    refuses("./prog --a-choice-of-three pink", "red|green|blue");
    refuses("./prog --a-choice-of-three re", "red|green|blue");
    refuses("./prog --text=", "--text: the value is empty");
}

static void help(void)
{
    char copy[] = "./prog --number 99 --help";
    const char *at;
    size_t longest = 0;

    SAME(in_child(read_text, copy), 0);
    CHECK(said[0] == '\0');
    CHECK(strncmp(printed, "prog: a test\n", 13) == 0);
    CHECK(strstr(printed, "--text TEXT") != NULL);
    CHECK(strstr(printed, "some words [here]\n") != NULL);
    CHECK(strstr(printed, "broken somewhere [7]\n") != NULL);
    CHECK(strstr(printed, "[1.5]") != NULL);
    CHECK(strstr(printed, "[11]") != NULL);
    CHECK(strstr(printed, "--a-choice-of-three red|green|blue\n") != NULL);
    CHECK(strstr(printed, "  the colour [green]\n") != NULL);
    CHECK(strstr(printed, "--help") != NULL);
    for (at = printed; *at != '\0'; at += strcspn(at, "\n") + 1)
        if (strcspn(at, "\n") > longest) longest = strcspn(at, "\n");
    CHECK(longest <= 79);
}

/* ------------------------------------------------------------ messages */

static void tell(void *arg)
{
    (void)arg;
    program_named("some/where/prog");
    result("loss", 1.25, 3);
    result("count", 1e6, 0);
    warn("a\nbreak in %s", "between");
    fail("%d is %s", 3, "enough");
}

static void messages(void)
{
    SAME(in_child(tell, NULL), 2);
    CHECK_TEXT(printed, "loss 1.250\ncount 1000000\n");
    CHECK_TEXT(said, "prog: a break in between\nprog: 3 is enough\n");
}

/* ------------------------------------------------------------ progress */

static void hurry(void *arg)
{
    progress p;
    int i;

    (void)arg;
    progress_start(&p, "train", 1000);
    for (i = 1; i <= 1000; i++) progress_loss(&p, i, 5);
    progress_end(&p);
}

/* Set the start time back: as if the work had begun long ago. */
static void take_long(void *arg)
{
    progress p;

    (void)arg;
    progress_start(&p, "train", 4000);
    p.first = 1000;
    p.begin -= 60;
    p.told -= 60;
    progress_loss(&p, 2500, 4);
    progress_loss(&p, 2500, 2);
    p.told -= 11;
    progress_loss(&p, 2500, 3);
    progress_end(&p);
    progress_end(&p);
}

static void few(void *arg)
{
    progress p;

    (void)arg;
    progress_start(&p, "probe", 7);
    p.begin -= 3700;
    p.told -= 100;
    progress_at(&p, 1);
    progress_end(&p);
}

static void progress_lines(void)
{
    /* Work that takes no time prints no line. */
    SAME(in_child(hurry, NULL), 0);
    CHECK_TEXT(said, "");
    /* A line at the start, none soon after, one 11 s later, one at the end. */
    SAME(in_child(take_long, NULL), 0);
    CHECK_TEXT(said, "train  62 %, loss 4.0000, 25 images/s, 1 min 00 s "
        "left\ntrain  62 %, loss 3.0000, 25 images/s, 1 min 00 s left\n"
        "train: done in 1 min 00 s, loss 3.0000, 25 images/s\n");
    CHECK_TEXT(printed, "");
    /* The unit counted here is not images. */
    SAME(in_child(few, NULL), 0);
    CHECK_TEXT(said, "probe  14 %, 6 h 10 min left\n"
        "probe: done in 1 h 01 min\n");
}

static void rates(void)
{
    progress p;

    progress_start(&p, "x", 1000);
    p.first = 100;
    p.begin -= 10;
    progress_at(&p, 600);
    NEAR(progress_rate(&p), 50, 0.5);
    CHECK(seconds_now() >= p.begin);
}

/* ------------------------------------------------------------- folders */

static void make(void *arg)
{
    program_named("prog");
    folder_make((const char *)arg);
}

static void folders(void)
{
    char deep[] = "out/test_options/a/b//c/", file[] = "out/test_options/f",
        below[] = "out/test_options/f/g", nothing[] = "";
    struct stat about;
    FILE *f;

    SAME(in_child(make, deep), 0);
    SAME(in_child(make, deep), 0);
    CHECK(stat("out/test_options/a/b/c", &about) == 0
        && S_ISDIR(about.st_mode));
    f = fopen(file, "w");
    CHECK(f != NULL);
    if (f != NULL) fclose(f);
    SAME(in_child(make, file), 2);
    CHECK(strstr(said, "is no folder") != NULL);
    SAME(in_child(make, below), 2);
    SAME(in_child(make, nothing), 2);
}

/* ------------------------------------------------------- saving a model */

static smask_ctx context;
static smask_vit model;

static void save(void *arg)
{
    program_named("prog");
    model_save(&context, &model, NULL, 0, (const char *)arg);
}

static void saving(void)
{
    char good[] = "out/test_options/m.safetensors",
        bad[] = "out/test_options/none/m.safetensors";
    smask_vit_desc desc;
    struct stat about;

    memset(&desc, 0, sizeof desc);
    desc.image = 8;
    desc.dim = 8;
    desc.depth = 1;
    SAME(smask_setup(&context, NULL), SMASK_OK);
    SAME(smask_vit_init(&context, &model, &desc), SMASK_OK);
    SAME(in_child(save, good), 0);
    CHECK(stat(good, &about) == 0
        && (size_t)about.st_size > 4 * smask_params_count(&model.params));
    CHECK(stat("out/test_options/m.safetensors.part", &about) != 0);
    SAME(in_child(save, bad), 2);
    CHECK(strstr(said, "No such file") != NULL);
    smask_shutdown(&context);
}

int main(void)
{
    if (system("rm -rf out/test_options") != 0) return 1;
    RUN(values_are_read);
    RUN(bad_lines_are_refused);
    RUN(help);
    RUN(messages);
    RUN(progress_lines);
    RUN(rates);
    RUN(folders);
    RUN(saving);
    return DONE("test_options");
}
