/* Lets calls of the operating system fail, for files below given folders only. Preloaded into a real process:
 *
 *   cc -shared -fPIC -O1 -o fail_calls.so fail_calls.c -ldl
 *   FAIL_UNDER=/a:/b FAIL_PLAN=/file FAIL_NOTES=/file LD_PRELOAD=./fail_calls.so program
 *
 * FAIL_UNDER   folders, with colons between them. Calls on other files are neither counted nor failed.
 * FAIL_PLAN    a file of lines "number errno": the call with this number, counted from 1 over all kinds, fails with that errno.
 * FAIL_ALWAYS  "call:errno:text": every call of that kind, on a path that holds the text, fails. Beats the plan.
 * FAIL_NOTES   a file to which a line "number call errno path" is appended for each call that failed.
 *
 * Kinds: open, rename, unlink, mkdir, stat, chmod, read, write, fsync, fsync-folder, ftruncate, fchmod, flock, lock (SQLite's).
 * A call is recognised by its path, or by what /proc says its descriptor leads to. Closing and giving up a lock never fail: whatever
 * they answer, they do what they are for.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_PLANNED 100000

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counted;
static long planned_at[MOST_PLANNED];
static int planned_errno[MOST_PLANNED];
static int planned, loaded, notes = -1;
static __thread int inside;

#define REAL(name) ((typeof(&name)) dlsym(RTLD_NEXT, #name))

static void load(void)
{
    const char *plan = getenv("FAIL_PLAN"), *path = getenv("FAIL_NOTES");
    loaded = 1;
    if (path)
        notes = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    FILE *file = plan ? fopen(plan, "re") : NULL;
    while (file && planned < MOST_PLANNED && fscanf(file, "%ld %d", &planned_at[planned], &planned_errno[planned]) == 2)
        planned++;
    if (file)
        fclose(file);
}

static int lies_under(const char *path)
{
    const char *folder = getenv("FAIL_UNDER");
    while (folder && *folder) {
        size_t length = strcspn(folder, ":");
        if (length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]))
            return 1;
        folder += length + (folder[length] == ':');
    }
    return 0;
}

static int always(const char *call, const char *path)
{
    const char *rule = getenv("FAIL_ALWAYS");
    if (!rule)
        return 0;
    char kind[32] = "", text[256] = "";
    int code = 0;
    if (sscanf(rule, "%31[^:]:%d:%255s", kind, &code, text) < 2)
        return 0;
    return !strcmp(kind, call) && strstr(path, text) ? code : 0;
}

/* Return the errno that a call on a path is to fail with; 0 for none. */
static int fails(const char *call, const char *path)
{
    char text[4400];
    int code = 0;
    if (inside || !path || !lies_under(path))
        return 0;
    inside = 1;
    pthread_mutex_lock(&mutex);
    if (!loaded)
        load();
    counted++;
    code = always(call, path);
    for (int i = 0; !code && i < planned; i++)
        if (planned_at[i] == counted)
            code = planned_errno[i];
    if (code && notes >= 0) {
        int length = snprintf(text, sizeof text, "%ld %s %d %s\n", counted, call, code, path);
        if (REAL(write)(notes, text, length) < 0)
            abort();
    }
    pthread_mutex_unlock(&mutex);
    inside = 0;
    return code;
}

static const char *absolute(int folder, const char *path, char *buffer)
{
    char link[64];
    ssize_t length = 0;
    if (path && path[0] == '/')
        return path;
    if (path && folder == AT_FDCWD) {
        if (!getcwd(buffer, 2048))
            return NULL;
        length = strlen(buffer);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        length = readlink(link, buffer, 2048);
        if (length < 0)
            return NULL;
    }
    buffer[length] = 0;
    if (path)
        snprintf(buffer + length, 4096 - length, "/%s", path);
    return buffer;
}

static int at_path(const char *call, int folder, const char *path)
{
    char buffer[4200];
    int before = errno, code = fails(call, absolute(folder, path, buffer));
    errno = code ? code : before;
    return code;
}

static int at_descriptor(const char *call, int descriptor)
{
    return inside ? 0 : at_path(call, descriptor, NULL);
}

#define MODE                                                                                                            \
    mode_t mode = 0;                                                                                                    \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                                \
        va_list list;                                                                                                   \
        va_start(list, flags);                                                                                          \
        mode = va_arg(list, mode_t);                                                                                    \
        va_end(list);                                                                                                   \
    }

int open(const char *path, int flags, ...)
{
    MODE
    return at_path("open", AT_FDCWD, path) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE
    return at_path("open", AT_FDCWD, path) ? -1 : REAL(open64)(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    MODE
    return at_path("open", folder, path) ? -1 : REAL(openat)(folder, path, flags, mode);
}

static const char *sync_of(int descriptor)
{
    struct stat found;
    return !REAL(fstat)(descriptor, &found) && S_ISDIR(found.st_mode) ? "fsync-folder" : "fsync";
}

#define ON_PATH(call, type, name, signature, path, arguments)                                                           \
    type name signature                                                                                                 \
    {                                                                                                                   \
        return at_path(call, AT_FDCWD, path) ? (type) -1 : REAL(name) arguments;                                        \
    }

#define ON_DESCRIPTOR(call, type, name, signature, arguments)                                                           \
    type name signature                                                                                                 \
    {                                                                                                                   \
        return at_descriptor(call, descriptor) ? (type) -1 : REAL(name) arguments;                                      \
    }

ON_PATH("rename", int, rename, (const char *from, const char *to), from, (from, to))
ON_PATH("unlink", int, unlink, (const char *path), path, (path))
ON_PATH("mkdir", int, mkdir, (const char *path, mode_t mode), path, (path, mode))
ON_PATH("stat", int, stat, (const char *path, struct stat *found), path, (path, found))
ON_PATH("stat", int, lstat, (const char *path, struct stat *found), path, (path, found))
ON_PATH("stat", int, stat64, (const char *path, struct stat64 *found), path, (path, found))
ON_PATH("stat", int, lstat64, (const char *path, struct stat64 *found), path, (path, found))
ON_PATH("chmod", int, chmod, (const char *path, mode_t mode), path, (path, mode))
ON_DESCRIPTOR("read", ssize_t, read, (int descriptor, void *to, size_t size), (descriptor, to, size))
ON_DESCRIPTOR("read", ssize_t, pread, (int descriptor, void *to, size_t size, off_t at), (descriptor, to, size, at))
ON_DESCRIPTOR("read", ssize_t, pread64, (int descriptor, void *to, size_t size, off64_t at), (descriptor, to, size, at))
ON_DESCRIPTOR("write", ssize_t, write, (int descriptor, const void *from, size_t size), (descriptor, from, size))
ON_DESCRIPTOR("write", ssize_t, pwrite, (int descriptor, const void *from, size_t size, off_t at), (descriptor, from, size, at))
ON_DESCRIPTOR("write", ssize_t, pwrite64, (int descriptor, const void *from, size_t size, off64_t at), (descriptor, from, size, at))
ON_DESCRIPTOR(sync_of(descriptor), int, fsync, (int descriptor), (descriptor))
ON_DESCRIPTOR("fsync", int, fdatasync, (int descriptor), (descriptor))
ON_DESCRIPTOR("ftruncate", int, ftruncate, (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR("ftruncate", int, ftruncate64, (int descriptor, off64_t size), (descriptor, size))
ON_DESCRIPTOR("fchmod", int, fchmod, (int descriptor, mode_t mode), (descriptor, mode))
ON_DESCRIPTOR("flock", int, flock, (int descriptor, int operation), (descriptor, operation))
ON_DESCRIPTOR("stat", int, fstat, (int descriptor, struct stat *found), (descriptor, found))
ON_DESCRIPTOR("stat", int, fstat64, (int descriptor, struct stat64 *found), (descriptor, found))

int fstatat(int folder, const char *path, struct stat *found, int flags)
{
    return at_path("stat", folder, path) ? -1 : REAL(fstatat)(folder, path, found, flags);
}

int fstatat64(int folder, const char *path, struct stat64 *found, int flags)
{
    return at_path("stat", folder, path) ? -1 : REAL(fstatat64)(folder, path, found, flags);
}

DIR *opendir(const char *path)
{
    return at_path("open", AT_FDCWD, path) ? NULL : REAL(opendir)(path);
}

/* SQLite's locks. */
#define FCNTL(name)                                                                                                     \
    int name(int descriptor, int command, ...)                                                                          \
    {                                                                                                                   \
        va_list list;                                                                                                   \
        va_start(list, command);                                                                                        \
        void *argument = va_arg(list, void *);                                                                          \
        va_end(list);                                                                                                   \
        int takes = command == F_SETLK && ((struct flock *) argument)->l_type != F_UNLCK;                               \
        if (takes && at_descriptor("lock", descriptor))                                                                 \
            return -1;                                                                                                  \
        return REAL(name)(descriptor, command, argument);                                                               \
    }

FCNTL(fcntl)
FCNTL(fcntl64)
