/* saving.c: output folders and their lock, files that are complete or not
   there, and model files. See support.h. */
#include "support.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------- folders */

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
static int lock_file = -1;

/* Lock all of a file until it is closed: 1, or 0 and errno. */
static int lock_all(int fd)
{
    struct flock lock;

    memset(&lock, 0, sizeof lock);       /* length 0: all of it            */
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return fcntl(fd, F_SETLK, &lock) == 0;
}

/* Is `fd` open on the file that is now called `name`? */
static int still_named(int fd, const char *name)
{
    struct stat here, held;

    return fstat(fd, &held) == 0 && lstat(name, &here) == 0
        && here.st_dev == held.st_dev && here.st_ino == held.st_ino;
}

int folder_try_lock(const char *path, char *why, size_t why_bytes)
{
    char name[1100];
    int locked;

    if (!make_folders(path, why, why_bytes)) return 0;
    snprintf(name, sizeof name, "%.1024s/.lock", path);
    if (lock_file >= 0) {
        if (still_named(lock_file, name)) return 1;
        close(lock_file);                /* the folder was removed since   */
    }
    lock_file = open(name, O_RDWR | O_CREAT, 0666);
    if (lock_file < 0) {
        snprintf(why, why_bytes, "%s: %s; choose another folder", name,
            strerror(errno));
        return 0;
    }
    locked = lock_all(lock_file);
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

/* --------------------------------------------------------------- files */

static int part_name(char part[1200], const char *path)
{
    if (strlen(path) + 6 > 1200) {
        errno = ENAMETOOLONG;
        return 0;
    }
    sprintf(part, "%s.part", path);
    return 1;
}

/* Remove what a program that died left: nobody locks it. The lock is held
   while it is removed, so a program that has just made the file, and has not
   locked it yet, finds it taken. */
static void remove_left(const char *part)
{
    const int fd = open(part, O_RDWR | O_NOFOLLOW);

    if (fd < 0) return;
    if (lock_all(fd) && still_named(fd, part)) unlink(part);
    close(fd);
}

FILE *part_open(const char *path)
{
    char part[1200];
    struct stat about;
    FILE *file = NULL;
    int fd;

    if (!part_name(part, path)) return NULL;
    /* The rename would replace a device, too. */
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) {
        errno = EEXIST;
        return NULL;
    }
    remove_left(part);
    fd = open(part, O_RDWR | O_CREAT | O_EXCL, 0666);
    if (fd < 0) return NULL;
    /* Where files cannot be locked, O_EXCL alone has to do. */
    if ((!lock_all(fd) && (errno == EACCES || errno == EAGAIN))
        || !still_named(fd, part)) {
        close(fd);
        errno = EEXIST;
        return NULL;
    }
    file = fdopen(fd, "w+b");
    if (file == NULL) close(fd);
    return file;
}

const char *part_error(void)
{
    if (errno == EEXIST)
        return "another program is writing it, or something of that name is "
            "in the way; wait, or give another name";
    return strerror(errno);
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

void file_check_output(const char *name, const char *path)
{
    struct stat about;

    if (strlen(path) > 1000) fail("%s: the path is too long", name);
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode))
        fail("%s %s: is there, and no ordinary file; give another name",
            name, path);
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

/* --------------------------------------------------------- model files */

void notes_pixels(smask_metadata notes[2], char text[2][128],
    const float *mean, const float *deviation, int32_t channels)
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
        snprintf(why, why_bytes, "%s.part: %s; choose another folder", path,
            part_error());
        return 0;
    }
    io = smask_stdio(file);
    errno = 0;
    written = smask_write(c, &io, v, t, a, e, metadata, metadata_count);
    if (written == SMASK_IO) smask_clear(c);  /* the model is as it was    */
    if (written == SMASK_OK && !part_rename(file, path)) written = SMASK_IO;
    number = errno;
    if (written != SMASK_OK) part_remove(path);
    fclose(file);
    if (written == SMASK_OK) return 1;
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
