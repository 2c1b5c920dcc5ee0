/* Lets one of the operations on files below a directory fail, or kills the process there.
 *
 * LOWBIT_TEST_ROOT: the directory. LOWBIT_TEST_FAULT: `once:N`, `full:N` (from the N-th on, what needs room fails) or `kill:N`,
 * counted from 0. LOWBIT_TEST_HIT: a file that is made when it happens. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long done;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int below(const char *path) {
    const char *root = getenv("LOWBIT_TEST_ROOT");
    char whole[2 * PATH_MAX];
    if (!root || !path) return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
    }
    return strncmp(whole, root, strlen(root)) == 0;
}

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

/* Whether this operation is to fail. */
static int fails(int needs_room) {
    const char *fault = getenv("LOWBIT_TEST_FAULT"), *hit = getenv("LOWBIT_TEST_HIT");
    if (!fault || !hit) return 0;
    long at = atol(strchr(fault, ':') + 1), n = atomic_fetch_add(&done, 1);
    int full = strncmp(fault, "full", 4) == 0;
    if (full ? n < at || !needs_room : n != at) return 0;
    int fd = REAL(open)(hit, O_WRONLY | O_CREAT, 0600);
    if (fd >= 0) close(fd);
    if (strncmp(fault, "kill", 4) == 0) raise(SIGKILL);
    return 1;
}

#define CREATING(name)                                                    \
    int name(const char *path, int flags, ...) {                          \
        mode_t mode = 0;                                                  \
        if (flags & O_CREAT) {                                            \
            va_list rest;                                                 \
            va_start(rest, flags);                                        \
            mode = va_arg(rest, mode_t);                                  \
            va_end(rest);                                                 \
        }                                                                 \
        if (flags & O_CREAT && below(path) && fails(1)) {                 \
            errno = ENOSPC;                                               \
            return -1;                                                    \
        }                                                                 \
        return REAL(name)(path, flags, mode);                             \
    }
CREATING(open)
CREATING(open64)

ssize_t write(int fd, const void *bytes, size_t n) {
    if (below_fd(fd) && fails(1)) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(write)(fd, bytes, n);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (below_fd(fd) && fails(1)) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(writev)(fd, parts, n);
}

int fsync(int fd) {
    if (below_fd(fd) && fails(1)) {
        errno = EIO;
        return -1;
    }
    return REAL(fsync)(fd);
}

int rename(const char *from, const char *to) {
    if (below(to) && fails(0)) {
        errno = EIO;
        return -1;
    }
    return REAL(rename)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    if (below(to) && fails(1)) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(linkat)(a, from, b, to, flags);
}

int unlink(const char *path) {
    if (below(path) && fails(0)) {
        errno = EIO;
        return -1;
    }
    return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    if (below(path) && fails(1)) {
        errno = ENOSPC;
        return -1;
    }
    return REAL(mkdir)(path, mode);
}

int fchmod(int fd, mode_t mode) {
    if (below_fd(fd) && fails(0)) {
        errno = EIO;
        return -1;
    }
    return REAL(fchmod)(fd, mode);
}
