/* Power loss, for tests: LD_PRELOAD this into a server, and POWER_LOSS_DURABLE holds what a disk would have of the folder
 * POWER_LOSS_DATA if the power went now: every file as it was at its last fsync, and none that was never synced. Writes
 * that were not synced are lost all of them, which is the most that POSIX allows.
 *
 * Names are durable at once (rename, unlink): a server that trusts them without an fsync of the folder is not found out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the disk has a path of the data folder; 0 for another path. */
static int durable(const char *path, char *to)
{
    const char *data = getenv("POWER_LOSS_DATA"), *disk = getenv("POWER_LOSS_DURABLE");
    char whole[PATH_MAX], folder[PATH_MAX];
    if (!data || !disk || !path) return 0;
    if (path[0] != '/') { /* PostgreSQL works in its data folder */
        if (!getcwd(folder, sizeof folder)) return 0;
        if (snprintf(whole, sizeof whole, "%s/%s", folder, path[0] == '.' && path[1] == '/' ? path + 2 : path) >= PATH_MAX) return 0;
        path = whole;
    }
    size_t length = strlen(data);
    if (strncmp(path, data, length) != 0 || path[length] != '/') return 0;
    return snprintf(to, PATH_MAX, "%s%s", disk, path + length) < PATH_MAX;
}

static void make_folders(const char *file)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", file);
    for (char *at = path + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = 0;
        mkdir(path, 0700);
    }
}

/* A file goes to the disk: whole, beside the earlier state, then over it. */
static int flushed(int fd)
{
    char link[64], path[PATH_MAX], to[PATH_MAX], beside[PATH_MAX + 32];
    struct stat state;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (!durable(path, to) || stat(path, &state) != 0) return errno = saved, 0;
    make_folders(to);
    if (S_ISDIR(state.st_mode)) {
        mkdir(to, 0700);
        return errno = saved, 0;
    }
    snprintf(beside, sizeof beside, "%s.%d.unfinished", to, getpid());
    int from = open(path, O_RDONLY | O_CLOEXEC), target = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int failed = from < 0 || target < 0;
    while (!failed) {
        ssize_t copied = sendfile(target, from, NULL, 1 << 20);
        if (copied == 0) break;
        failed = copied < 0;
    }
    if (from >= 0) close(from);
    if (target >= 0) close(target);
    failed = failed || rename(beside, to) != 0;
    if (failed) {
        unlink(beside);
        return errno = EIO, -1;
    }
    return errno = saved, 0;
}

int fsync(int fd) { return flushed(fd); }

int fdatasync(int fd) { return flushed(fd); }

int rename(const char *old, const char *new)
{
    static int (*real)(const char *, const char *);
    char old_there[PATH_MAX], new_there[PATH_MAX];
    if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    int result = real(old, new), saved = errno;
    if (result == 0 && durable(old, old_there) && durable(new, new_there)) {
        make_folders(new_there);
        real(old_there, new_there);
    }
    return errno = saved, result;
}

int unlink(const char *path)
{
    static int (*real)(const char *);
    char there[PATH_MAX];
    if (!real) real = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    int result = real(path), saved = errno;
    if (result == 0 && durable(path, there)) real(there);
    return errno = saved, result;
}
