/* progress.c: what a program tells: failures, how far it has come, results;
   and the signals that ask it to end. See support.h. */
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define REDRAW 0.2                   /* seconds, on a terminal             */
#define REPORT 10.0                  /* seconds, elsewhere                 */
#define LOSSES 50                    /* steps that the shown mean spans    */

/* ------------------------------------------------------------- failing */

static char program[64] = "program";
/* The progress line that stands unfinished on the terminal, if any: other
   lines must not begin in its middle. */
static progress *open_line;

void program_named(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    int fd = open("/dev/null", O_RDWR);

    /* A stream that was closed would else be the next file that is opened,
       and messages would go there. */
    while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
    if (fd >= 0) close(fd);
    snprintf(program, sizeof program, "%s",
        slash != NULL ? slash + 1 : argv0);
    /* A reader that ends (`| head`, Ctrl-C in `| tee`) or a limit on the
       size of files makes a write fail; the program must not die of it. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

static void wipe_line(void)
{
    if (open_line == NULL) return;
    fputs("\r\033[K", stderr);
    open_line = NULL;
}

/* One line, whatever the text holds. */
static void say(const char *format, va_list list)
{
    char text[2048];
    char *c;

    vsnprintf(text, sizeof text, format, list);
    /* Names of files may hold anything, codes that steer a terminal too. */
    for (c = text; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
        else if ((unsigned char)*c < 32 || *c == 127) *c = '?';
    fflush(stdout);
    wipe_line();
    fprintf(stderr, "%s: %s\n", program, text);
    fflush(stderr);                      /* it may go to a file            */
}

void fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say(format, list);
    va_end(list);
    exit(2);
}

void warn(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say(format, list);
    va_end(list);
}

smask_isa isa_for(int bf16)
{
    static unsigned char memory[4096];
    smask_desc desc;
    smask_ctx c;

    if (!bf16) return SMASK_ISA_AUTO;
    memset(&desc, 0, sizeof desc);
    desc.memory = memory;
    desc.memory_size = sizeof memory;
    desc.isa = SMASK_ISA_BF16;
    if (smask_setup(&c, &desc) != SMASK_OK)
        fail("--bf16: this processor or build cannot multiply bfloat16; "
            "leave it out");
    smask_shutdown(&c);
    return SMASK_ISA_BF16;
}

/* ------------------------------------------------------------ progress */

double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* "7 s", "3 min 20 s", "2 h 05 min". */
static const char *duration(double seconds, char *text, size_t bytes)
{
    const long s = seconds < 1e9 ? (long)(seconds + 0.5) : 1000000000;

    if (s < 60) snprintf(text, bytes, "%ld s", s);
    else if (s < 3600)
        snprintf(text, bytes, "%ld min %02ld s", s / 60, s % 60);
    else snprintf(text, bytes, "%ld h %02ld min", s / 3600, s / 60 % 60);
    return text;
}

void progress_start(progress *p, const char *name, double total)
{
    memset(p, 0, sizeof *p);
    p->name = name;
    p->total = total;
    p->unit = total < 50 ? NULL : "images";
    p->begin = p->told = seconds_now();
    p->terminal = isatty(STDERR_FILENO);
}

double progress_rate(const progress *p)
{
    const double time = seconds_now() - p->begin;

    return time > 0 ? (p->done - p->first) / time : 0;
}

/* " 42 %, loss 5.3129, 1234 images/s, 1 min 05 s left" */
static void print_line(progress *p, double now)
{
    const double time = now - p->begin, made = p->done - p->first;
    char text[64];

    if (p->terminal) fputs("\r", stderr);
    fprintf(stderr, "%s %3.0f %%", p->name,
        p->total > 0 ? 100 * p->done / p->total : 100.0);
    if (p->losses > 0) fprintf(stderr, ", loss %.4f", p->loss);
    if (p->unit != NULL && time > 0)
        fprintf(stderr, ", %.*f %s/s", made / time < 10 ? 1 : 0, made / time,
            p->unit);
    if (made > 0 && p->done < p->total)
        fprintf(stderr, ", %s left", duration(
            (p->total - p->done) * time / made, text, sizeof text));
    fputs(p->terminal ? "\033[K" : "\n", stderr);
    fflush(stderr);
    p->told = now;
    p->shown = 1;
    if (p->terminal) open_line = p;
}

void progress_at(progress *p, double done)
{
    const double now = seconds_now();

    p->done = done;
    if (p->name != NULL
        && now - p->told >= (p->terminal ? REDRAW : REPORT))
        print_line(p, now);
}

void progress_loss(progress *p, double done, double loss)
{
    if (p->losses < LOSSES) p->losses++;
    p->loss += (loss - p->loss) / p->losses;
    progress_at(p, done);
}

void progress_end(progress *p)
{
    const double time = seconds_now() - p->begin;
    char text[64];

    if (p->name == NULL) return;
    wipe_line();
    /* What was over at once needs no line. */
    if (!p->shown && time < 1) return;
    fprintf(stderr, "%s: done in %s", p->name,
        duration(time, text, sizeof text));
    if (p->losses > 0) fprintf(stderr, ", loss %.4f", p->loss);
    if (p->unit != NULL && time > 0)
        fprintf(stderr, ", %.0f %s/s", (p->done - p->first) / time, p->unit);
    fputc('\n', stderr);
    p->name = NULL;
}

/* -------------------------------------------------------------- signals */

/* What asks a program to end: a user, a terminal that closes, and what batch
   systems send some time before they kill. */
static const int stop_number[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2,
    SIGXCPU, SIGALRM };
#define STOPS (sizeof stop_number / sizeof stop_number[0])
#define PATIENCE 1.0                 /* seconds                            */

static volatile sig_atomic_t stop_asked;
static double stop_time;             /* of the first; the handler's own    */

/* A second Ctrl-C or TERM ends the program at once, but not one that comes
   with the first: timeout sends to the process and then to its group. The
   others may come again and again: XCPU does every second. */
static void ask_to_stop(int number)
{
    const int saved = errno;
    const double now = seconds_now();

    if (!stop_asked) stop_time = now;
    stop_asked = 1;
    if ((number == SIGINT || number == SIGTERM)
        && now - stop_time > PATIENCE) {
        signal(number, SIG_DFL);
        raise(number);                   /* comes when this has returned   */
    }
    errno = saved;
}

void stop_catch(void)
{
    struct sigaction action;
    size_t i;

    memset(&action, 0, sizeof action);
    action.sa_handler = ask_to_stop;
    action.sa_flags = SA_RESTART;        /* a save must not end midway     */
    sigemptyset(&action.sa_mask);
    for (i = 0; i < STOPS; i++) sigaddset(&action.sa_mask, stop_number[i]);
    for (i = 0; i < STOPS; i++) {
        struct sigaction before;
        /* Not where it was to be ignored: nohup. */
        if (sigaction(stop_number[i], NULL, &before) == 0
            && before.sa_handler != SIG_IGN)
            sigaction(stop_number[i], &action, NULL);
    }
}

int stop_wanted(void)
{
    return stop_asked != 0;
}

/* ------------------------------------------------------------- contexts */

static void keep_text(void *user, smask_result code, const char *text)
{
    (void)code;
    snprintf((char *)user, 128, "%s", text);
}

void context_for(smask_ctx *c, const smask_desc *desc,
    smask_result (*work)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes, const char *what)
{
    smask_desc d = *desc;
    char text[128] = "";
    smask_result r;

    d.memory_size = (size_t)64 << 20;    /* for the structs of the plan    */
    d.logger.log = keep_text;
    d.logger.user = text;
    r = smask_plan(&d, work, user, sizes);
    if (r == SMASK_MEMORY)
        fail("%s: too large to plan; use a smaller model or --batch", what);
    if (r != SMASK_OK)
        fail("%s: %s", what, text[0] != '\0' ? text : smask_result_text(r));
    d.memory_size = sizes->bytes;
    d.logger = desc->logger;
    if (smask_setup(c, &d) != SMASK_OK)
        fail("no memory for %.0f MB, %.0f of them for the model; use a "
            "smaller %s", (double)sizes->bytes / 1e6,
            (double)sizes->kept_bytes / 1e6,
            sizes->kept_bytes > sizes->step_bytes ? "model or vocabulary"
            : "--batch or image, or larger patches");
}

/* ------------------------------------------------------------- results */

void result(const char *name, double value, int decimals)
{
    wipe_line();
    printf("%s %.*f\n", name, decimals, value);
    if (fflush(stdout) != 0)
        fail("standard output: %s%s", strerror(errno),
            errno == EPIPE ? "" : "; make room and try again");
}

double peak_memory_mb(void)
{
    struct rusage use;

    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
#ifdef __APPLE__
    return (double)use.ru_maxrss / 1e6;  /* bytes there                    */
#else
    return (double)use.ru_maxrss * 1024 / 1e6;
#endif
}
