/* progress.c: what a program tells: failures, how far it has come, results;
   and how it writes its model. See support.h. */
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* Make a folder and those above it. 1, or 0 and the reason. */
static int make_folders(const char *path, char *why, size_t why_bytes)
{
    char part[1024];
    struct stat about;
    size_t i;

    snprintf(why, why_bytes, "--out: the path is empty or too long");
    if (path[0] == '\0' || strlen(path) >= sizeof part) return 0;
    for (i = 0; ; i++) {
        if (i > 0 && (path[i] == '/' || path[i] == '\0')) {
            part[i] = '\0';
            if (mkdir(part, 0777) != 0 && errno != EEXIST) {
                snprintf(why, why_bytes, "%s: cannot be made: %s; choose "
                    "another folder", part, strerror(errno));
                return 0;
            }
        }
        if (path[i] == '\0') break;
        part[i] = path[i];
    }
    snprintf(why, why_bytes,
        "%s: is there, but is no folder; choose another name", path);
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

void folder_make(const char *path)
{
    char why[1200];

    if (!make_folders(path, why, sizeof why)) fail("%s", why);
}

/* The lock file of the output folder, while it is open. The kernel releases
   the lock when the process ends, however it ends; the file stays, because
   removing it could take it from under a run that has just opened it. */
static int lock_file = -1, locked;

int folder_try_lock(const char *path, char *why, size_t why_bytes)
{
    char name[1100];
    struct stat here, held;
    struct flock lock;

    if (!make_folders(path, why, why_bytes)) return 0;
    snprintf(name, sizeof name, "%.1024s/.lock", path);
    if (lock_file >= 0) {
        if (fstat(lock_file, &held) == 0 && stat(name, &here) == 0
            && here.st_dev == held.st_dev && here.st_ino == held.st_ino)
            return 1;
        close(lock_file);                /* the folder was removed since   */
    }
    locked = 0;
    lock_file = open(name, O_RDWR | O_CREAT, 0666);
    if (lock_file < 0) {
        snprintf(why, why_bytes, "%s: %s; choose another folder", name,
            strerror(errno));
        return 0;
    }
    memset(&lock, 0, sizeof lock);       /* length 0: all of it            */
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    locked = fcntl(lock_file, F_SETLK, &lock) == 0;
    if (!locked && (errno == EACCES || errno == EAGAIN)) {
        close(lock_file);
        lock_file = -1;
        snprintf(why, why_bytes,
            "another run writes to %s; give another --out", path);
        return 0;
    }
    if (!locked)                         /* some network file systems      */
        warn("%s: cannot be locked: %s; let no other run write there", path,
            strerror(errno));
    return 1;
}

void folder_lock(const char *path)
{
    char why[1200];

    if (!folder_try_lock(path, why, sizeof why)) fail("%s", why);
}

static int part_name(char part[1200], const char *path)
{
    if (strlen(path) + 6 > 1200) {
        errno = ENAMETOOLONG;
        return 0;
    }
    sprintf(part, "%s.part", path);
    return 1;
}

FILE *part_open(const char *path)
{
    char part[1200];
    FILE *file = NULL;
    int fd;

    if (!part_name(part, path)) return NULL;
    /* Under the lock no living run can own what lies there. */
    if (locked) remove(part);
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (fd >= 0) file = fdopen(fd, "wb");
    if (fd >= 0 && file == NULL) close(fd);
    return file;
}

int file_sync(FILE *file)
{
    if (ferror(file) || fflush(file) != 0) return 0;
    /* Not every file system can: there the rest has to do. */
    return fsync(fileno(file)) == 0 || errno == EINVAL || errno == ENOTSUP
        || errno == ENOSYS;
}

/* Bring the entries of the folder that holds `path` to the disk. */
static int folder_sync(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[1200] = ".";
    int fd, good;

    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s",
            slash == path ? 1 : (int)(slash - path), path);
    fd = open(folder, O_RDONLY);
    if (fd < 0) return 1;                /* may be written, but not read   */
    good = fsync(fd) == 0 || errno != EIO;
    close(fd);
    return good;
}

/* The bytes must be on the disk before the name points to them: after a
   power cut the old file is there or the new one, never an empty one. */
int part_rename(FILE *file, const char *path)
{
    char part[1200];

    return part_name(part, path) && file_sync(file)
        && rename(part, path) == 0 && folder_sync(path);
}

void part_remove(const char *path)
{
    const int why = errno;
    char part[1200];

    if (part_name(part, path)) remove(part);
    errno = why;
}

int file_same(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev
        && x.st_ino == y.st_ino;
}

int file_keep(const char *folder, const char *name)
{
    char from[1100], to[1100];

    snprintf(from, sizeof from, "%.1000s/%.60s", folder, name);
    snprintf(to, sizeof to, "%.1000s/%.60s.old", folder, name);
    if (rename(from, to) == 0) return 1;
    if (errno != ENOENT)
        fail("%s: cannot be moved to %s.old: %s; choose another folder",
            from, name, strerror(errno));
    return 0;
}

static size_t read_file(void *user, void *data, size_t bytes)
{
    return fread(data, 1, bytes, (FILE *)user);
}

smask_io io_reading(FILE *stream)
{
    smask_io io;

    memset(&io, 0, sizeof io);
    io.read = read_file;
    io.user = stream;
    return io;
}

void notes_pixels(smask_metadata notes[2], char text[2][128], const float *mean,
    const float *deviation, int32_t channels)
{
    int32_t i;

    for (i = 0; i < channels; i++) {
        const char *apart = i > 0 ? " " : "";
        const size_t m = i > 0 ? strlen(text[0]) : 0;
        const size_t d = i > 0 ? strlen(text[1]) : 0;
        snprintf(text[0] + m, 128 - m, "%s%.9g", apart, (double)mean[i]);
        snprintf(text[1] + d, 128 - d, "%s%.9g", apart,
            (double)deviation[i]);
    }
    notes[0].key = "mean";
    notes[0].value = text[0];
    notes[1].key = "std";
    notes[1].value = text[1];
}

/* Bytes of the UTF-8 character at `s`, or 0 if there is none. */
static size_t utf8(const unsigned char *s)
{
    const size_t bytes = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
        : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
        : 0;
    size_t i;

    for (i = 1; i < bytes; i++) if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)
        || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return bytes;
}

const char *note_text(char *to, size_t bytes, const char *text)
{
    size_t at = 0, n;

    for (; *text != '\0'; text += n > 0 ? n : 1) {
        n = utf8((const unsigned char *)text);
        if (at + (n > 0 ? n : 1) >= bytes) break;
        if (n > 0) memcpy(to + at, text, n);
        else to[at] = '?';
        at += n > 0 ? n : 1;
    }
    to[at] = '\0';
    return to;
}

static size_t write_file(void *user, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, (FILE *)user);
}

int model_try_save(smask_ctx *c, const smask_vit *v,
    const smask_tokenizer *t, const smask_adam *a, const smask_ema *e,
    const smask_metadata *metadata, int32_t metadata_count, const char *path,
    char *why, size_t why_bytes)
{
    smask_io io;
    smask_result written;
    FILE *file = part_open(path);
    int number;

    if (file == NULL) {
        if (errno == EEXIST)
            snprintf(why, why_bytes, "%s.part: is there: another run writes "
                "it, or one that died left it; remove it, or choose another "
                "folder", path);
        else
            snprintf(why, why_bytes, "%s.part: %s; choose another folder",
                path, strerror(errno));
        return 0;
    }
    memset(&io, 0, sizeof io);
    io.write = write_file;
    io.user = file;
    errno = 0;
    written = smask_write(c, &io, v, t, a, e, metadata, metadata_count);
    if (written == SMASK_IO) smask_clear(c);  /* the model is as it was    */
    if (written == SMASK_OK && !part_rename(file, path)) written = SMASK_IO;
    number = errno;
    fclose(file);
    if (written == SMASK_OK) return 1;
    part_remove(path);
    if (written == SMASK_IO)
        snprintf(why, why_bytes, "%s: not written: %s; make room and try "
            "again", path,
            number != 0 ? strerror(number) : "the disk may be full");
    else
        snprintf(why, why_bytes, "%s: not written: %s", path,
            smask_result_text(written));
    return 0;
}

void model_save(smask_ctx *c, const smask_vit *v,
    const smask_metadata *metadata, int32_t metadata_count, const char *path)
{
    char why[1400];

    if (!model_try_save(c, v, NULL, NULL, NULL, metadata, metadata_count,
            path, why, sizeof why))
        fail("%s", why);
}
