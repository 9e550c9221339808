/* Fails the nth fsync (EIO) or the nth write (ENOSPC) of this process to a ledger's files.
   LD_PRELOAD it, then call ledger_fault(kind, nth, lasting): kind 0 none, 1 fsync, 2 write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int kind, lasting, fired;
static long left;

void ledger_fault(int of, long nth, int stays) { kind = of; left = nth; lasting = stays; fired = 0; }
int ledger_fired(void) { return fired; }

static int strikes(int fd, int of) {
    char link[64], path[4096];
    if (kind != of) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    if (!strstr(path, "/faults")) return 0; /* the folder of the ledger under test */
    if (left > 0) left--;
    if (left > 0) return 0;
    if (!lasting) kind = 0;
    fired++;
    errno = of == 1 ? EIO : ENOSPC;
    return 1;
}

#define REAL(name) static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int fsync(int fd) { REAL(fsync); return strikes(fd, 1) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return strikes(fd, 1) ? -1 : real(fd); }
ssize_t write(int fd, const void *b, size_t n) {
    REAL(write); return strikes(fd, 2) ? -1 : real(fd, b, n);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    REAL(pwrite); return strikes(fd, 2) ? -1 : real(fd, b, n, o);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    REAL(pwrite64); return strikes(fd, 2) ? -1 : real(fd, b, n, o);
}
