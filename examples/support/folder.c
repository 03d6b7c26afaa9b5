/* folder.c: the names of the images in folders, and whole files. See
   data.h. */
#include "data.h"
#include <dirent.h>
#include <errno.h>
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

/* The folders that a search is in. A symbolic link back to one of them is
   not followed: it would lead round in a loop. */
int folder_enter(const char *path, const above *up, above *here)
{
    struct stat about;

    if (stat(path, &about) != 0) fail("%s: %s", path, strerror(errno));
    here->device = about.st_dev;
    here->number = about.st_ino;
    here->next = up;
    for (; up != NULL; up = up->next)
        if (up->device == about.st_dev && up->number == about.st_ino)
            return 0;
    return 1;
}

void folder_images(const char *path, const above *up, names *images)
{
    names files, folders;
    above here;
    char full[1100];
    size_t i;

    if (!folder_enter(path, up, &here)) return;
    memset(&files, 0, sizeof files);
    memset(&folders, 0, sizeof folders);
    folder_list(path, &files, &folders);
    for (i = 0; i < files.count; i++)
        if (image_kind(files.item[i])) names_add(images, path, files.item[i]);
        else images->others++;
    for (i = 0; i < folders.count; i++)
        folder_images(path_join(full, path, folders.item[i]), &here, images);
    names_free(&files);
    names_free(&folders);
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

void set_reason(char *why, size_t bytes, const char *text)
{
    if (why != NULL) snprintf(why, bytes, "%s", text);
}

uint8_t *file_read(const char *path, size_t *bytes, char *why,
    size_t why_bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    long end;

    if (file == NULL) {
        set_reason(why, why_bytes, strerror(errno));
        return NULL;
    }
    if (fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) >= 0
        && fseek(file, 0, SEEK_SET) == 0) {
        *bytes = (size_t)end;
        data = (uint8_t *)data_memory(*bytes + 1, 1);
        if (fread(data, 1, *bytes, file) != *bytes) {
            free(data);
            data = NULL;
        }
    }
    if (data == NULL) set_reason(why, why_bytes, "cannot be read");
    fclose(file);
    return data;
}
