/* Runs for long, and says what has grown.
 *
 *   soak cycles N PLAN                  N times: load, make a context, run, free
 *   soak run SECONDS THREADS PAUSE PLAN
 *       THREADS threads run, PAUSE milliseconds between two runs; one sample a second from 1/6 of the time on
 *
 * Prints one line: resident memory's growth in bytes and, for runs, its slope in bytes an hour (least squares), threads
 * and descriptors at the beginning and at the end, inferences. Every result must be the first one's bits. */
#define _GNU_SOURCE
#include <dirent.h>
#include <inception_engine.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void fail(const char* what) {
  fprintf(stderr, "failed: %s\n", what);
  exit(1);
}

static double resident(void) {
  static long page;
  if (page == 0) page = sysconf(_SC_PAGESIZE);
  long total = 0, pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &total, &pages) != 2) fail("/proc/self/statm");
  fclose(file);
  return (double)pages * (double)page;
}

static int entries(const char* folder) {
  DIR* open = opendir(folder);
  if (open == NULL) fail(folder);
  int count = 0;
  while (readdir(open) != NULL) ++count;
  closedir(open);
  return count - 2;
}

static const char* path;
static ie_engine_info info = {sizeof info};
static size_t image_values, output_values;

static void measure(ie_engine* engine) {
  ie_output_info shape = {sizeof shape};
  ie_engine_describe(engine, &info);
  ie_engine_output(engine, 0, &shape);
  image_values = (size_t)info.channels * info.height * info.width;
  output_values = (size_t)shape.channels * shape.height * shape.width;
}

static ie_engine* load(void) {
  ie_engine* engine = NULL;
  char message[IE_MESSAGE_BYTES];
  if (ie_engine_load(path, NULL, &engine, message) != IE_OK) fail(message);
  return engine;
}

static ie_context* make_context(ie_engine* engine, uint32_t threads) {
  const ie_context_options options = {sizeof options, threads, IE_ISA_AUTO, 0, 0};
  ie_context* context = NULL;
  char message[IE_MESSAGE_BYTES];
  if (ie_context_create(engine, &options, &context, message) != IE_OK) fail(message);
  return context;
}

static void run(ie_context* context, const float* image, float* result) {
  const ie_input input = {sizeof input, IE_FLOAT32_NCHW, 1, image};
  const ie_output output = {sizeof output, 0, result};
  if (ie_run(context, &input, &output, 1) != IE_OK) fail(ie_context_message(context));
}

static float *image, *expected;

static void check(const float* result) {
  if (memcmp(result, expected, output_values * sizeof *result) != 0) fail("a result changed");
}

static void cycles(long count) {
  float* result = malloc(output_values * sizeof *result);
  const long warm = count / 10 + 1;
  double before = 0;
  int descriptors = 0;
  for (long i = 0; i < count + warm; ++i) {
    if (i == warm) before = resident(), descriptors = entries("/proc/self/fd");
    ie_engine* engine = load();
    ie_context* context = make_context(engine, 2);
    run(context, image, result);
    check(result);
    ie_context_free(context);
    ie_engine_free(engine);
  }
  printf("cycles: %ld, growth: %.0f, descriptors: %d %d, threads: 1 %d\n", count, resident() - before,
         descriptors, entries("/proc/self/fd"), entries("/proc/self/task"));
  free(result);
}

static atomic_long inferences;
static atomic_int stop;
static useconds_t pause_us;

static void* serve(void* engine) {
  ie_context* context = make_context(engine, 1);
  float* result = malloc(output_values * sizeof *result);
  do {
    memset(result, 0, output_values * sizeof *result);
    run(context, image, result);
    check(result);
    ++inferences;
    if (pause_us != 0) usleep(pause_us);
  } while (!stop);
  free(result);
  ie_context_free(context);
  return NULL;
}

static void soak(int seconds, int threads) {
  ie_engine* engine = load();
  pthread_t* workers = calloc((size_t)threads, sizeof *workers);
  for (int i = 0; i < threads; ++i) {
    if (pthread_create(&workers[i], NULL, serve, engine) != 0) fail("pthread_create");
  }
  const int warm = seconds / 6 > 0 ? seconds / 6 : 1;
  double n = 0, sum_t = 0, sum_m = 0, sum_tt = 0, sum_tm = 0, first = 0, last = 0;
  int threads_then = 0, descriptors_then = 0;
  for (int second = 0; second < seconds; ++second) {
    sleep(1);
    if (second < warm) continue;
    const double t = second, m = resident();
    if (n == 0)
      first = m, threads_then = entries("/proc/self/task"), descriptors_then = entries("/proc/self/fd");
    last = m;
    n += 1, sum_t += t, sum_m += m, sum_tt += t * t, sum_tm += t * m;
  }
  const int threads_now = entries("/proc/self/task"), descriptors_now = entries("/proc/self/fd");
  stop = 1;
  for (int i = 0; i < threads; ++i) pthread_join(workers[i], NULL);
  free(workers);
  ie_engine_free(engine);
  const double spread = n * sum_tt - sum_t * sum_t;
  const double slope = spread > 0 ? (n * sum_tm - sum_t * sum_m) / spread * 3600 : 0;
  printf("seconds: %d, slope: %.0f, growth: %.0f, threads: %d %d, descriptors: %d %d, inferences: %ld\n",
         seconds, slope, last - first, threads_then, threads_now, descriptors_then, descriptors_now,
         (long)inferences);
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  path = argv[argc - 1];
  ie_engine* engine = load();
  measure(engine);
  image = calloc(image_values, sizeof *image);
  expected = calloc(output_values, sizeof *expected);
  for (size_t i = 0; i < image_values; ++i) image[i] = (float)(i % 13) - 6;
  ie_context* context = make_context(engine, 2);
  run(context, image, expected);
  ie_context_free(context);
  ie_engine_free(engine);
  if (strcmp(argv[1], "cycles") == 0) {
    cycles(atol(argv[2]));
  } else {
    if (argc != 6) return 2;
    pause_us = (useconds_t)atoi(argv[4]) * 1000;
    soak(atoi(argv[2]), atoi(argv[3]));
  }
  free(image);
  free(expected);
  return 0;
}
