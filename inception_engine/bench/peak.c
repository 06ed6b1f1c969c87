/* What the machine can do at most, in loops that do nothing else:
 *
 *   peak THREADS SECONDS
 *
 * prints {"macs_per_s": ..., "bytes_per_s": ..., "vector_bytes": ...}, of all threads together. Multiply-adds: float32, in
 * registers, more chains than the latency of a multiply-add needs. Bytes: a[i] = b[i] + s * c[i] over arrays beyond the
 * caches, 12 bytes for each element as STREAM counts them. Each is what all threads did in the best of many short slices
 * of time, the same slice for all: threads that take turns on a core count as that core. What else runs on the machine
 * disturbs some slices only. Compiled for this machine (-march=native). */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
enum { kBytes = 64 };
#elif defined(__AVX__)
enum { kBytes = 32 };
#else
enum { kBytes = 16 };
#endif
typedef float vector __attribute__((vector_size(kBytes)));
enum { kLanes = kBytes / 4, kChains = 12, kPasses = 8, kSlices = 64, kLong = 8, kElements = 8 << 20 };
/* kElements: 32 MiB an array and thread. kLong: slices in which bytes are counted, so that caches are full by then. */

static int threads;
static double pass_seconds, pass_begin;
static pthread_barrier_t line;

typedef struct worker {
  pthread_t thread;
  int first;
  float *a, *b, *c;
  /* Pieces that were done by the end of each slice, counted where they ended. */
  uint64_t products[kPasses][kSlices], blocks[kPasses][kSlices];
  float sink;
} worker;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Pieces are short, microseconds, so that where a slice cuts one in two makes no difference. */
enum { kRounds = 2000, kBlock = 8192 };

/* Counts a piece in its slice. Returns 0 when the pass is over. */
static int count(uint64_t* slices) {
  const double slice = (now() - pass_begin) / pass_seconds * kSlices;
  if (slice >= kSlices) return 0;
  ++slices[(int)slice];
  return 1;
}

static void multiply_add(worker* w, uint64_t* slices) {
  vector x[kChains];
  for (int i = 0; i < kChains; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) x[i][lane] = (float)(i + lane);
  }
  vector factor = x[0] * 0.0f + 0.999f, term = x[0] * 0.0f + 0.5f;
  __asm__ volatile("" : "+x"(factor), "+x"(term)); /* not known to the compiler */
  do {
    for (int n = 0; n < kRounds; ++n) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) x[i] = x[i] * factor + term;
    }
  } while (count(slices));
  for (int i = 0; i < kChains; ++i) w->sink += x[i][0];
}

static void stream(worker* w, uint64_t* slices) {
  size_t begin = 0;
  do {
    float* restrict a = w->a + begin, * restrict b = w->b + begin, * restrict c = w->c + begin;
    for (size_t i = 0; i < kBlock; ++i) a[i] = b[i] + 3.0f * c[i];
    __asm__ volatile("" ::: "memory");
    begin = (begin + kBlock) % kElements;
  } while (count(slices));
  w->sink += w->a[kElements / 2];
}

/* Nobody begins before all are there, and the first one has looked at the clock. */
static void line_up(const worker* w) {
  pthread_barrier_wait(&line);
  if (w->first) pass_begin = now();
  pthread_barrier_wait(&line);
}

static void* work(void* argument) {
  worker* w = argument;
  for (size_t i = 0; i < kElements; ++i) w->a[i] = w->b[i] = w->c[i] = 1.0f;
  for (int pass = 0; pass < kPasses; ++pass) {
    line_up(w);
    multiply_add(w, w->products[pass]);
    line_up(w);
    stream(w, w->blocks[pass]);
  }
  return NULL;
}

int main(int argc, char** argv) {
  threads = argc == 3 ? atoi(argv[1]) : 0;
  if (threads < 1) return 2;
  pass_seconds = atof(argv[2]) / (2 * kPasses);
  worker* workers = calloc((size_t)threads, sizeof *workers);
  if (workers == NULL) return 1;
  pthread_barrier_init(&line, NULL, (unsigned)threads);
  for (int i = 0; i < threads; ++i) {
    worker* w = &workers[i];
    w->first = i == 0;
    w->a = malloc(3 * (size_t)kElements * sizeof(float));
    if (w->a == NULL) return 1;
    w->b = w->a + kElements;
    w->c = w->b + kElements;
    if (i > 0 && pthread_create(&w->thread, NULL, work, w) != 0) return 1;
  }
  work(&workers[0]);
  for (int i = 1; i < threads; ++i) pthread_join(workers[i].thread, NULL);
  uint64_t most_products = 0, most_blocks = 0, blocks = 0;
  for (int slice = 0; slice < kPasses * kSlices; ++slice) {
    uint64_t products = 0;
    if (slice % kLong == 0) blocks = 0;
    for (int i = 0; i < threads; ++i) {
      products += workers[i].products[slice / kSlices][slice % kSlices];
      blocks += workers[i].blocks[slice / kSlices][slice % kSlices];
    }
    if (products > most_products) most_products = products;
    if (blocks > most_blocks) most_blocks = blocks;
  }
  const double seconds = pass_seconds / kSlices;
  const double macs = (double)most_products * kRounds * kChains * kLanes / seconds;
  const double bytes = (double)most_blocks * kBlock * 12 / (seconds * kLong);
  double sink = 0;
  for (int i = 0; i < threads; ++i) sink += workers[i].sink;
  if (sink == 0) return 1;
  printf("{\"macs_per_s\": %.6g, \"bytes_per_s\": %.6g, \"vector_bytes\": %d}\n", macs, bytes, kBytes);
  return 0;
}
