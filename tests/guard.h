/* guard.h: memory between two inaccessible pages: a read or a write one
   float outside an operand ends the program with a message. POSIX. */
#ifndef SPLITMASK_GUARD_H
#define SPLITMASK_GUARD_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct guard {
    unsigned char *first;                /* first byte that may be used    */
    size_t bytes;                        /* that may; whole pages          */
} guard;

/* The current check, for the message of a fault. */
static volatile const char *guard_doing = "";

static void guard_fault(int number)
{
    static const char text[] = "memory outside an operand was touched in ";
    const char *doing = (const char *)guard_doing;
    ssize_t done = write(1, text, sizeof text - 1);

    (void)number;
    done += write(1, doing, strlen(doing));
    done += write(1, "\n", 1);
    _exit(done > 0 ? 101 : 102);
}

/* Allocate `floats` floats between the guard pages. Prints and exits if the
   system has no memory: the test cannot run then. */
static inline guard guard_make(size_t floats)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const int zero = open("/dev/zero", O_RDWR);
    struct sigaction action;
    void *map;
    guard g;

    g.bytes = (floats * sizeof(float) + page - 1) / page * page;
    map = mmap(NULL, g.bytes + 2 * page, PROT_READ | PROT_WRITE,
        MAP_PRIVATE, zero, 0);
    if (zero < 0 || map == MAP_FAILED
        || mprotect(map, page, PROT_NONE) != 0
        || mprotect((char *)map + page + g.bytes, page, PROT_NONE) != 0) {
        perror("guard pages");
        exit(1);
    }
    close(zero);
    g.first = (unsigned char *)map + page;
    memset(&action, 0, sizeof action);
    action.sa_handler = guard_fault;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    return g;
}

/* `floats` floats that end at the upper guard, or begin at the lower. */
static inline float *guard_at(const guard *g, size_t floats, int at_end)
{
    if (floats * sizeof(float) > g->bytes) {
        printf("guard.h: %lu floats asked for, %lu bytes there\n",
            (unsigned long)floats, (unsigned long)g->bytes);
        exit(1);
    }
    return (float *)(void *)(at_end
        ? g->first + g->bytes - floats * sizeof(float) : g->first);
}

#endif /* SPLITMASK_GUARD_H */
