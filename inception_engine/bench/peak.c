/* What the machine can do at most, in loops that do nothing else:
 *
 *   peak THREADS SECONDS
 *
 * prints {"macs_per_s": ..., "bytes_per_s": ..., "vector_bytes": ...}, of all threads together. Multiply-adds: float32, in
 * registers, more chains than the latency of a multiply-add needs. Bytes: a[i] = b[i] + s * c[i] over arrays beyond the
 * caches, 12 bytes for each element as STREAM counts them. Each is the best of several
 * passes, of multiply-adds the best stretch of each thread. Compiled for this
 * machine (-march=native). */
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
enum { kLanes = kBytes / 4, kChains = 12, kPasses = 8, kElements = 8 << 20 }; /* 32 MiB an array and thread */

static int threads;
static double pass_seconds;
static pthread_barrier_t line;

typedef struct worker {
  pthread_t thread;
  float *a, *b, *c;
  double macs[kPasses], bytes[kPasses]; /* per second */
  float sink;
} worker;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The best of many short stretches: what else runs on the machine interrupts some of them only. */
static double multiply_add(worker* w) {
  enum { kRounds = 20000 };
  vector x[kChains];
  for (int i = 0; i < kChains; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) x[i][lane] = (float)(i + lane);
  }
  vector factor = x[0] * 0.0f + 0.999f, term = x[0] * 0.0f + 0.5f;
  __asm__ volatile("" : "+x"(factor), "+x"(term)); /* not known to the compiler */
  const double begin = now();
  double best = 1, last = begin;
  while (last - begin < pass_seconds) {
    const double start = now();
    for (int n = 0; n < kRounds; ++n) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) x[i] = x[i] * factor + term;
    }
    last = now();
    if (last - start < best) best = last - start;
  }
  for (int i = 0; i < kChains; ++i) w->sink += x[i][0];
  return (double)kRounds * kChains * kLanes / best;
}

static double stream(worker* w) {
  float* restrict a = w->a, * restrict b = w->b, * restrict c = w->c;
  uint64_t sweeps = 0;
  const double begin = now();
  double end;
  do {
    for (size_t i = 0; i < kElements; ++i) a[i] = b[i] + 3.0f * c[i];
    __asm__ volatile("" ::: "memory");
    ++sweeps;
    end = now();
  } while (end - begin < pass_seconds);
  w->sink += a[kElements / 2];
  return (double)sweeps * kElements * 12 / (end - begin);
}

static void* work(void* argument) {
  worker* w = argument;
  for (size_t i = 0; i < kElements; ++i) w->a[i] = w->b[i] = w->c[i] = 1.0f;
  for (int pass = 0; pass < kPasses; ++pass) {
    pthread_barrier_wait(&line);
    w->macs[pass] = multiply_add(w);
    pthread_barrier_wait(&line);
    w->bytes[pass] = stream(w);
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
    w->a = malloc(3 * (size_t)kElements * sizeof(float));
    if (w->a == NULL) return 1;
    w->b = w->a + kElements;
    w->c = w->b + kElements;
    if (i > 0 && pthread_create(&w->thread, NULL, work, w) != 0) return 1;
  }
  work(&workers[0]);
  for (int i = 1; i < threads; ++i) pthread_join(workers[i].thread, NULL);
  double macs = 0, bytes = 0, sink = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    double pass_macs = 0, pass_bytes = 0;
    for (int i = 0; i < threads; ++i) {
      pass_macs += workers[i].macs[pass];
      pass_bytes += workers[i].bytes[pass];
    }
    if (pass_macs > macs) macs = pass_macs;
    if (pass_bytes > bytes) bytes = pass_bytes;
  }
  for (int i = 0; i < threads; ++i) sink += workers[i].sink;
  if (sink == 0) return 1;
  printf("{\"macs_per_s\": %.6g, \"bytes_per_s\": %.6g, \"vector_bytes\": %d}\n", macs, bytes, kBytes);
  return 0;
}
