/* folder.c: the names of the images in folders, and whole files. See
   data.h. */
#include "data.h"
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* --------------------------------------------------------------- names */

void names_add(names *n, const char *folder, const char *name)
{
    const size_t bytes = strlen(folder) + strlen(name) + 2;

    if (n->count == n->space) {
        char **more = (char **)realloc(n->item,
            (2 * n->space + 16) * sizeof(char *));
        if (more == NULL) fail("no memory for the list of files");
        n->item = more;
        n->space = 2 * n->space + 16;
    }
    n->item[n->count] = (char *)data_memory(bytes, 1);
    snprintf(n->item[n->count], bytes, "%s%s%s", folder,
        folder[0] != '\0' ? "/" : "", name);
    n->count++;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void names_sort(names *n, size_t first)
{
    if (n->count > first + 1)
        qsort(n->item + first, n->count - first, sizeof(char *), by_name);
}

void names_free(names *n)
{
    size_t i;

    for (i = 0; i < n->count; i++) free(n->item[i]);
    free(n->item);
    memset(n, 0, sizeof *n);
}

/* ------------------------------------------------------------- folders */

int path_is_folder(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

int path_is_file(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

const char *path_join(char path[1100], const char *folder,
    const char *name)
{
    const size_t a = strlen(folder), b = strlen(name);

    if (a + b + 2 > 1100)
        fail("%.60s...: the path is too long; move the folder", folder);
    memcpy(path, folder, a);
    path[a] = '/';
    memcpy(path + a + 1, name, b + 1);
    return path;
}

void folder_list(const char *path, names *files, names *folders)
{
    DIR *stream = opendir(path);
    struct dirent *entry;
    char full[1100];

    if (stream == NULL)
        fail("%s: %s", path, strerror(errno));
    while ((entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        path_join(full, path, entry->d_name);
        if (path_is_folder(full)) names_add(folders, "", entry->d_name);
        else if (path_is_file(full)) names_add(files, "", entry->d_name);
    }
    closedir(stream);
    names_sort(files, 0);
    names_sort(folders, 0);
}

int image_kind(const char *name)
{
    static const char *const ending[] = { ".ppm", ".pgm", ".pnm", ".jpg",
        ".jpeg", ".jpe", ".jfif", ".png", ".bmp" };
    const char *dot = strrchr(name, '.');
    size_t i;

    for (i = 0; dot != NULL && i < sizeof ending / sizeof ending[0]; i++)
        if (strcasecmp(dot, ending[i]) == 0) return i < 3 ? 1 : 2;
    return 0;
}

static void about_folder(const char *path, struct stat *about)
{
    if (stat(path, about) != 0) fail("%s: %s", path, strerror(errno));
}

/* Where a folder stands in the set, or the free place for it. */
static struct place *find_place(const visited *v, dev_t device, ino_t number)
{
    uint64_t hash = ((uint64_t)number ^ (uint64_t)device << 40)
        * 11400714819323198485u;
    size_t at = (size_t)(hash >> 20) & (v->space - 1);

    while (v->place[at].used && (v->place[at].device != device
        || v->place[at].number != number)) at = (at + 1) & (v->space - 1);
    return &v->place[at];
}

static void visited_grow(visited *v)
{
    visited more;
    size_t i;

    more.count = v->count;
    more.space = v->space > 0 ? 2 * v->space : 16;
    more.place = (struct place *)data_memory(more.space, sizeof *more.place);
    for (i = 0; i < v->space; i++)
        if (v->place[i].used)
            *find_place(&more, v->place[i].device, v->place[i].number) =
                v->place[i];
    free(v->place);
    *v = more;
}

int visited_add(visited *v, const char *path)
{
    struct stat about;
    struct place *p;

    about_folder(path, &about);
    if (2 * v->count >= v->space) visited_grow(v);
    p = find_place(v, about.st_dev, about.st_ino);
    if (p->used) return 0;
    p->device = about.st_dev;
    p->number = about.st_ino;
    p->used = 1;
    v->count++;
    return 1;
}

int visited_has(const visited *v, const char *path)
{
    struct stat about;

    if (v->count == 0) return 0;
    about_folder(path, &about);
    return find_place(v, about.st_dev, about.st_ino)->used;
}

void visited_free(visited *v)
{
    free(v->place);
    memset(v, 0, sizeof *v);
}

typedef struct search {
    names *images;
    names links;                     /* to folders, to be followed at last */
    visited seen;
} search;

static void walk(search *s, const char *path)
{
    names files, folders;
    struct stat about;
    char full[1100];
    size_t i;

    if (!visited_add(&s->seen, path)) return;
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    folder_list(path, &files, &folders);
    for (i = 0; i < files.count; i++)
        if (image_kind(files.item[i]))
            names_add(s->images, path, files.item[i]);
        else s->images->others++;
    for (i = 0; i < folders.count; i++) {
        path_join(full, path, folders.item[i]);
        if (lstat(full, &about) == 0 && S_ISLNK(about.st_mode))
            names_add(&s->links, "", full);
        else walk(s, full);
    }
    names_free(&files);
    names_free(&folders);
}

void folder_images(const char *path, const visited *roots, names *images)
{
    search s;
    size_t i;

    memset(&s, 0, sizeof s);
    s.images = images;
    walk(&s, path);
    /* What a link leads to may hold further links, which join the list. */
    for (i = 0; i < s.links.count; i++)
        if (roots == NULL || !visited_has(roots, s.links.item[i]))
            walk(&s, s.links.item[i]);
    names_free(&s.links);
    visited_free(&s.seen);
}

char **image_list(const char *path, size_t *count)
{
    names found;
    struct stat about;
    size_t i, bytes = 0;
    char **list, *text;

    memset(&found, 0, sizeof found);
    if (stat(path, &about) != 0) fail("%s: %s", path, strerror(errno));
    if (S_ISDIR(about.st_mode)) folder_images(path, NULL, &found);
    else names_add(&found, "", path);
    names_sort(&found, 0);
    for (i = 0; i < found.count; i++) bytes += strlen(found.item[i]) + 1;
    list = (char **)data_memory(found.count * sizeof(char *) + bytes, 1);
    text = (char *)(list + found.count);
    for (i = 0; i < found.count; i++) {
        list[i] = text;
        strcpy(text, found.item[i]);
        text += strlen(text) + 1;
    }
    *count = found.count;
    names_free(&found);
    return list;
}

/* --------------------------------------------------------- whole files */

void reason(char *why, size_t bytes, const char *format, ...)
{
    va_list list;

    if (why == NULL) return;
    va_start(list, format);
    vsnprintf(why, bytes, format, list);
    va_end(list);
}

double file_bytes(const char *path, char *why, size_t why_bytes)
{
    struct stat about;

    if (stat(path, &about) != 0)
        reason(why, why_bytes, "%s", strerror(errno));
    else if (!S_ISREG(about.st_mode))
        reason(why, why_bytes, "it is not a regular file");
    else return (double)about.st_size;
    return -1;
}

uint8_t *file_read(const char *path, double most, size_t *bytes, char *why,
    size_t why_bytes)
{
    const double size = file_bytes(path, why, why_bytes);
    uint8_t *data;
    FILE *file;

    if (size < 0) return NULL;
    if (size > most) {
        reason(why, why_bytes, "a file of %.0f MB is not read, at most %.0f "
            "MB are; make the image smaller", size / 1e6, most / 1e6);
        return NULL;
    }
    file = fopen(path, "rb");
    if (file == NULL) {
        reason(why, why_bytes, "%s", strerror(errno));
        return NULL;
    }
    data = size < (double)SIZE_MAX ? (uint8_t *)malloc((size_t)size + 1)
        : NULL;
    *bytes = (size_t)size;
    if (data == NULL)
        reason(why, why_bytes, "there is no memory for a file of %.0f MB",
            size / 1e6);
    else if (fread(data, 1, *bytes, file) != *bytes) {
        reason(why, why_bytes, "cannot be read");
        free(data);
        data = NULL;
    }
    fclose(file);
    return data;
}
