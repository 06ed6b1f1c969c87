/* What the machine refuses, the library reports: memory, threads and files that fail at the n-th call, for every n.
 *
 *   faults memory PLAN    malloc and its kin, and pthread_create: the n-th call fails, then all from the n-th on
 *   faults files PLAN     open, fstat, pread and read: the n-th fails, reads are short or interrupted, files shrink
 *
 * Every status is one that the header names for it, nothing is leaked, and what does succeed gives the right bits.
 * Prints one line on what was tried; lines that begin with "failed" otherwise. Linked to the library as it is shipped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inception_engine.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);

static atomic_long left = -1;    /* calls until one fails; below 0: none does */
static atomic_int and_the_rest;  /* all later calls fail, too */
static atomic_long live, failed; /* blocks held; calls that failed */

static int fails(void) {
  const long before = atomic_fetch_sub(&left, 1);
  if (before == 0 || (before < 0 && and_the_rest)) {
    ++failed;
    return 1;
  }
  return 0;
}

static void* counted(void* memory) {
  if (memory != NULL) ++live;
  return memory;
}

void* malloc(size_t size) { return fails() ? NULL : counted(__libc_malloc(size)); }
void* calloc(size_t count, size_t size) { return fails() ? NULL : counted(__libc_calloc(count, size)); }
void* realloc(void* old, size_t size) {
  if (fails()) return NULL;
  void* memory = __libc_realloc(old, size);
  if (old == NULL) counted(memory);
  return memory;
}
void* aligned_alloc(size_t alignment, size_t size) {
  return fails() ? NULL : counted(__libc_memalign(alignment, size));
}
void free(void* memory) {
  if (memory != NULL) --live;
  __libc_free(memory);
}

static void disarm(void) {
  left = -1;
  and_the_rest = 0;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) {
  static int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  return fails() ? EAGAIN : real(thread, attributes, start, argument);
}

/* Files. */

enum { NOTHING, FAILS, SHORT, INTERRUPTED, ENDS, LONGER, SHORTER };
static int how = NOTHING;
static long file_calls_left = -1;
static int now(int wanted) { return how == wanted && file_calls_left-- == 0; }

int open(const char* path, int flags, ...) {
  static int (*real)(const char*, int, ...);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "open");
  if (now(FAILS)) return errno = EIO, -1;
  return real(path, flags, 0);
}

int fstat(int descriptor, struct stat* status) {
  static int (*real)(int, struct stat*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "fstat");
  if (now(FAILS)) return errno = EIO, -1;
  const int result = real(descriptor, status);
  if (how == LONGER) status->st_size += 100;
  if (how == SHORTER) status->st_size -= 100;
  return result;
}

ssize_t pread(int descriptor, void* to, size_t bytes, off_t offset) {
  static ssize_t (*real)(int, void*, size_t, off_t);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "pread");
  if (now(FAILS)) return errno = EIO, -1;
  return real(descriptor, to, how == SHORT && bytes > 3 ? 3 : bytes, offset);
}

ssize_t read(int descriptor, void* to, size_t bytes) {
  static ssize_t (*real)(int, void*, size_t);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "read");
  if (now(FAILS)) return errno = EIO, -1;
  if (now(INTERRUPTED)) return errno = EINTR, -1;
  if (now(ENDS)) return 0;
  if ((how == SHORT || how == FAILS || how == ENDS || how == INTERRUPTED) && bytes > 777) bytes = 777;
  return real(descriptor, to, bytes);
}

static int failures;
static void expect(int holds, const char* what, long n, ie_status status) {
  if (holds) return;
  printf("failed: %s at call %ld: %s\n", what, n, ie_status_name(status));
  ++failures;
}

static float image[1 << 16], expected[1 << 12], found[1 << 12];
static size_t values;

/* Loads, makes a context, runs twice, frees. The first status that is not IE_OK, or IE_OK. */
static ie_status life(const char* path, const void* plan, size_t bytes, float* result) {
  char message[IE_MESSAGE_BYTES];
  ie_engine* engine = NULL;
  ie_context* context = NULL;
  const ie_context_options options = {sizeof options, 3, IE_ISA_AUTO, 1, 0};
  ie_status status = path != NULL ? ie_engine_load(path, NULL, &engine, message)
                                  : ie_engine_load_memory(plan, bytes, NULL, &engine, message);
  expect((status == IE_OK) == (engine != NULL), "an engine and a status", 0, status);
  if (status == IE_OK) {
    status = ie_context_create(engine, &options, &context, message);
    expect((status == IE_OK) == (context != NULL), "a context and a status", 0, status);
  }
  expect((status == IE_OK) == (message[0] == '\0'), "a message", 0, status);
  if (status == IE_OK) {
    const ie_input input = {sizeof input, IE_FLOAT32_NCHW, 1, image};
    const ie_output output = {sizeof output, 0, result};
    status = ie_run(context, &input, &output, 1);
    if (status == IE_OK) status = ie_run(context, &input, &output, 1);
  }
  ie_context_free(context);
  ie_engine_free(engine);
  return status;
}

static void memory(const char* path, const void* plan, size_t bytes) {
  long points = 0, of_memory = 0, of_threads = 0;
  for (int rest = 0; rest < 2; ++rest) {
    for (int from_memory = 0; from_memory < 2; ++from_memory) {
      for (long n = 0;; ++n) {
        long before = 0;
        ie_status status = IE_OK;
        for (int time = 0; time < 3; ++time) { /* what stays after the first time is the C library's */
          before = live;
          failed = 0;
          memset(found, 0, sizeof found);
          left = n;
          and_the_rest = rest;
          status = life(from_memory ? NULL : path, plan, bytes, found);
          disarm();
        }
        expect(live <= before, "blocks leaked", n, status);
        expect(status == IE_OK || status == IE_ERROR_MEMORY || status == IE_ERROR_THREAD, "status", n,
               status);
        if (status == IE_OK)
          expect(memcmp(found, expected, values * sizeof *found) == 0, "result", n, status);
        if (failed == 0) break;
        ++points;
        of_memory += status == IE_ERROR_MEMORY;
        of_threads += status == IE_ERROR_THREAD;
      }
    }
  }
  printf("memory: %ld points of failure, %ld without memory, %ld without threads\n", points, of_memory,
         of_threads);
}

static void files(const char* path) {
  static const struct {
    int how;
    ie_status wanted;
    const char* name;
  } kinds[] = {
      {FAILS, IE_ERROR_FILE, "a failing call"},        {SHORT, IE_OK, "short reads"},
      {INTERRUPTED, IE_OK, "an interrupted read"},     {ENDS, IE_PLAN_TRUNCATED, "an early end"},
      {LONGER, IE_PLAN_TRUNCATED, "a shrinking file"}, {SHORTER, IE_PLAN_TRUNCATED, "a growing file"}};
  long points = 0;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i) {
    for (long n = 0; n < 1000; ++n) {
      how = kinds[i].how;
      file_calls_left = n;
      const ie_status status = life(path, NULL, 0, found);
      const int reached = file_calls_left < 0 || how == SHORT || how == LONGER || how == SHORTER;
      const int whole = how == SHORT || how == LONGER || how == SHORTER;
      how = NOTHING;
      if (!reached) {
        expect(status == IE_OK, "no fault", n, status);
        break;
      }
      ++points;
      expect(status == kinds[i].wanted, kinds[i].name, n, status);
      if (whole) break;
    }
  }
  const int before = open("/dev/null", O_RDONLY);
  close(before);
  for (int i = 0; i < 100; ++i) {
    how = FAILS;
    file_calls_left = i % 6;
    life(path, NULL, 0, found);
    how = NOTHING;
  }
  const int after = open("/dev/null", O_RDONLY);
  close(after);
  expect(before == after, "descriptors leaked", after, IE_OK);
  printf("files: %ld points of failure\n", points);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  FILE* file = fopen(argv[2], "rb");
  if (file == NULL) return 2;
  static char plan[1 << 22];
  const size_t bytes = fread(plan, 1, sizeof plan, file);
  fclose(file);
  for (size_t i = 0; i < sizeof image / sizeof *image; ++i) image[i] = (float)(i % 13) - 6;

  ie_engine* engine = NULL;
  ie_output_info shape = {sizeof shape};
  if (ie_engine_load_memory(plan, bytes, NULL, &engine, NULL) != IE_OK) return 2;
  ie_engine_output(engine, 0, &shape);
  values = (size_t)shape.channels * shape.height * shape.width;
  ie_engine_free(engine);
  if (values > sizeof expected / sizeof *expected || life(argv[2], NULL, 0, expected) != IE_OK) return 2;
  life(NULL, plan, bytes, found); /* what the C library keeps is kept now */

  if (strcmp(argv[1], "memory") == 0) {
    memory(argv[2], plan, bytes);
  } else {
    files(argv[2]);
  }
  return failures != 0;
}
