/* probe.c: single operations in a loop, in the current directory, without the noise of a script around each.
 *
 *   probe stat LIST ROUNDS        lstat of every name in LIST (one a line)
 *   probe absent LIST ROUNDS      lstat of a name beside each that is not there
 *   probe read LIST ROUNDS        open, read to the end, close
 *   probe mmap LIST ROUNDS        map each whole, touch its pages in a scattered order, unmap
 *   probe exec PROGRAM TIMES      start it and wait
 *   probe create DIRECTORY FILES  make the directory and files of 1 KiB in it
 *   probe rename DIRECTORY FILES  give each of those files another name
 *   probe swap DIRECTORY TIMES    rename a directory to .x and back
 *   probe write FILE MIB          write in 64 KiB pieces, then all of it once more over itself
 *   probe append LIST FROM COUNT  add one byte to names FROM.. of LIST
 *   probe watch LIST SECONDS      read one after another until the time is up; prints operations, failures, longest in ms
 *
 * Ends with status 1 and a message at the first thing that fails. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10, NAME = 4096, PAGE = 4096 };

extern char **environ;
static char piece[PIECE];
static char **names;
static size_t count;

static void fail(const char *what, const char *name) {
    fprintf(stderr, "%s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void load(const char *list) {
    FILE *file = fopen(list, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    if (!file)
        fail("open", list);
    while ((length = getline(&line, &room, file)) > 0) {
        if (line[length - 1] == '\n')
            line[length - 1] = 0;
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = strdup(line);
    }
    free(line);
    fclose(file);
    if (!count)
        fail("nothing in", list);
}

static void stat_all(void) {
    struct stat status;
    for (size_t i = 0; i < count; i++)
        if (lstat(names[i], &status))
            fail("lstat", names[i]);
}

static void absent_all(void) {
    struct stat status;
    char name[NAME];
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s.none", names[i]);
        if (!lstat(name, &status) || errno != ENOENT)
            fail("lstat of an absent name", name);
    }
}

static long read_one(const char *name) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    long total = 0;
    ssize_t got;
    if (fd < 0)
        return -1;
    while ((got = read(fd, piece, sizeof piece)) > 0)
        total += got;
    close(fd);
    return got < 0 ? -1 : total;
}

static void read_all(void) {
    for (size_t i = 0; i < count; i++)
        if (read_one(names[i]) < 0)
            fail("read", names[i]);
}

static void map_all(void) {
    volatile char sink;
    for (size_t i = 0; i < count; i++) {
        struct stat status;
        int fd = open(names[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &status))
            fail("open", names[i]);
        const char *bytes = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            fail("mmap", names[i]);
        /* A stride that shares no factor with a power of two visits every page, none beside the one before. */
        size_t pages = status.st_size / PAGE, at = 0;
        for (size_t n = 0; n < pages; n++, at = (at + 337) % pages)
            sink = bytes[at * PAGE];
        (void)sink;
        munmap((void *)bytes, status.st_size);
        close(fd);
    }
}

static void exec_many(char *program, int times) {
    char *arguments[] = {program, NULL};
    for (int i = 0; i < times; i++) {
        pid_t pid;
        int status;
        errno = posix_spawn(&pid, program, NULL, NULL, arguments, environ);
        if (errno || waitpid(pid, &status, 0) < 0 || status)
            fail("exec", program);
    }
}

static void create_many(const char *directory, int files) {
    char name[NAME];
    if (mkdir(directory, 0755))
        fail("mkdir", directory);
    for (int i = 0; i < files; i++) {
        snprintf(name, sizeof name, "%s/%d", directory, i);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, piece, 1024) != 1024 || close(fd))
            fail("create", name);
    }
}

static void rename_many(const char *directory, int files) {
    char from[NAME], to[NAME];
    for (int i = 0; i < files; i++) {
        snprintf(from, sizeof from, "%s/%d", directory, i);
        snprintf(to, sizeof to, "%s/renamed-%d", directory, i);
        if (rename(from, to))
            fail("rename", from);
    }
}

static void swap_many(const char *directory, int times) {
    for (int i = 0; i < times; i++)
        if (rename(directory, ".x") || rename(".x", directory))
            fail("rename of the directory", directory);
}

static void write_twice(const char *name, int mebibytes) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        fail("create", name);
    for (int turn = 0; turn < 2; turn++) {
        lseek(fd, 0, SEEK_SET);
        for (int i = 0; i < mebibytes * 16; i++)
            if (write(fd, piece, PIECE) != PIECE)
                fail("write", name);
    }
    if (close(fd))
        fail("close", name);
}

static void append_some(size_t from, size_t much) {
    for (size_t i = from; i < from + much; i++) {
        int fd = open(names[i % count], O_WRONLY | O_APPEND | O_CLOEXEC);
        if (fd < 0 || write(fd, "\n", 1) != 1 || close(fd))
            fail("append", names[i % count]);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void watch(double seconds) {
    double end = now() + seconds, longest = 0;
    long done = 0, failed = 0;
    for (double begin = now(); begin < end; done++) {
        failed += read_one(names[done % count]) < 0;
        double after = now();
        longest = after - begin > longest ? after - begin : longest;
        begin = after;
    }
    printf("%ld %ld %.3f\n", done, failed, longest * 1000);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return fputs("what? see the head of probe.c\n", stderr), 2;
    const char *what = argv[1];
    int number = atoi(argv[3]);
    if (!strcmp(what, "exec"))
        return exec_many(argv[2], number), 0;
    if (!strcmp(what, "create"))
        return create_many(argv[2], number), 0;
    if (!strcmp(what, "rename"))
        return rename_many(argv[2], number), 0;
    if (!strcmp(what, "swap"))
        return swap_many(argv[2], number), 0;
    if (!strcmp(what, "write"))
        return write_twice(argv[2], number), 0;
    load(argv[2]);
    if (!strcmp(what, "append"))
        return append_some(number, argc > 4 ? atoi(argv[4]) : 0), 0;
    if (!strcmp(what, "watch"))
        return watch(atof(argv[3])), 0;
    void (*pass)(void) = !strcmp(what, "stat") ? stat_all : !strcmp(what, "absent") ? absent_all
                       : !strcmp(what, "read") ? read_all : !strcmp(what, "mmap") ? map_all : NULL;
    if (!pass)
        return fputs("what? see the head of probe.c\n", stderr), 2;
    for (int turn = 0; turn < number; turn++)
        pass();
    return 0;
}
