/* Counts what a program and its libraries allocate, and says how much of it was inside ie_run.
 *
 *   allocation PLAN BATCH THREADS [RUNS]
 *
 * Prints "loaded <n> ran <n>": allocations from ie_engine_load to ie_context_create, and in all runs. Plain C99: a C++
 * compiler refuses it.
 */
#ifdef __cplusplus
#error "the header must serve C; compile this as C"
#endif
#include <inception_engine.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

static atomic_long allocations;

void* malloc(size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  ++allocations;
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  char message[IE_MESSAGE_BYTES] = "";
  ie_engine* engine = NULL;
  ie_context* context = NULL;
  ie_context_options options = {sizeof options, (uint32_t)atoi(argv[3]), IE_ISA_AUTO, 0, 0};
  const uint32_t batch = (uint32_t)atoi(argv[2]);
  const int runs = argc > 4 ? atoi(argv[4]) : 3;

  const long before = allocations;
  if (ie_engine_load(argv[1], NULL, &engine, message) != IE_OK ||
      ie_context_create(engine, &options, &context, message) != IE_OK) {
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  const long loaded = allocations - before;

  ie_engine_info info = {sizeof info};
  ie_output_info first = {sizeof first};
  ie_engine_describe(engine, &info);
  ie_engine_output(engine, 0, &first);
  float* images = calloc((size_t)batch * info.channels * info.height * info.width, sizeof *images);
  float* logits = calloc((size_t)batch * first.channels * first.height * first.width, sizeof *logits);
  if (images == NULL || logits == NULL) return 1;
  const ie_input input = {sizeof input, IE_FLOAT32_NCHW, batch, images};
  const ie_output output = {sizeof output, 0, logits};

  const long start = allocations;
  for (int i = 0; i < runs; ++i) {
    const ie_status status = ie_run(context, &input, &output, 1);
    if (status != IE_OK) {
      fprintf(stderr, "%s: %s\n", ie_status_name(status), ie_context_message(context));
      return 1;
    }
  }
  printf("loaded %ld ran %ld\n", loaded, allocations - start);

  ie_engine_free(engine); /* the context keeps what it needs */
  if (ie_run(context, &input, &output, 1) != IE_OK) return 1;
  ie_context_free(context);
  free(images);
  free(logits);
  return 0;
}
