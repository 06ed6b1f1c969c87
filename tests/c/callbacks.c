/* The caller's log and allocator: what comes through them, and that all of it goes back. Prints nothing when all is well.
 *
 *   callbacks PLAN
 */
#include <inception_engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;
#define CHECK(holds) ((holds) ? (void)0 : (void)(printf("line %d: %s\n", __LINE__, #holds), ++failures))

typedef struct pool {
  size_t bytes, most; /* given out now; at most */
  int calls, fail_at, misalign, wrong;
} pool;

/* Each block begins with its size, a cache line before what is given out. */
static void* take(void* user, size_t bytes, size_t alignment) {
  pool* p = user;
  if (alignment < 64 || (alignment & (alignment - 1)) != 0) ++p->wrong;
  if (++p->calls == p->fail_at) return NULL;
  char* block = aligned_alloc(alignment, bytes + 2 * alignment);
  if (block == NULL) return NULL;
  memset(block, 0xA5, bytes + 2 * alignment);
  char* given = block + alignment + (p->misalign ? 32 : 0);
  memcpy(given - 32, &block, sizeof block);
  memcpy(given - 16, &bytes, sizeof bytes);
  p->bytes += bytes;
  if (p->bytes > p->most) p->most = p->bytes;
  return given;
}

static void give_back(void* user, void* memory, size_t bytes) {
  pool* p = user;
  char *given = memory, *block;
  size_t size;
  memcpy(&block, given - 32, sizeof block);
  memcpy(&size, given - 16, sizeof size);
  if (size != bytes) ++p->wrong;
  p->bytes -= bytes;
  free(block);
}

typedef struct lines {
  int count[4];
  char last[4][IE_MESSAGE_BYTES];
} lines;

static void note(void* user, uint32_t level, const char* line) {
  lines* l = user;
  CHECK(level >= IE_LOG_ERROR && level <= IE_LOG_INFO && strchr(line, '\n') == NULL);
  ++l->count[level];
  snprintf(l->last[level], IE_MESSAGE_BYTES, "%s", line);
}

/* The first status that is not IE_OK of load, context, run. */
static ie_status whole_life(const char* plan, const ie_engine_options* options, int* running) {
  ie_engine* engine = NULL;
  ie_context* context = NULL;
  char message[IE_MESSAGE_BYTES];
  const ie_context_options one = {sizeof one, 1, 0, 0, 0};
  *running = 0;
  ie_status status = ie_engine_load(plan, options, &engine, message);
  if (status == IE_OK) status = ie_context_create(engine, &one, &context, message);
  if (status == IE_OK) {
    static uint8_t pixels[64 * 64 * 3];
    static float logits[4096];
    const pool* p = options->allocate_user;
    const uint8_t decoded[5 * 7 * 3] = {1, 2, 3};
    const ie_picture picture = {sizeof picture, 5, 7, 3, 0, decoded, 0};
    const ie_input input = {sizeof input, IE_UINT8_NHWC, 1, pixels};
    const ie_output output = {sizeof output, 0, logits};
    status = ie_preprocess(engine, &picture, pixels, message);
    ie_engine_free(engine); /* its functions serve until the context is gone, too */
    engine = NULL;
    const int calls = p == NULL ? 0 : p->calls;
    if (status == IE_OK) status = ie_run(context, &input, &output, 1);
    CHECK(p == NULL || calls == p->calls);
    *running = status == IE_OK;
  }
  if (status != IE_OK && *running == 0 && message[0] == '\0') CHECK(!"a failure without a message");
  ie_context_free(context);
  ie_engine_free(engine);
  return status;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  lines log = {{0}, {""}};
  pool memory = {0};
  int running;
  ie_engine_options options = {sizeof options, IE_DEVICE_CPU};
  options.log = note;
  options.log_user = &log;
  options.allocate = take;
  options.release = give_back;
  options.allocate_user = &memory;

  CHECK(whole_life(argv[1], &options, &running) == IE_OK && running);
  CHECK(memory.bytes == 0 && memory.wrong == 0);
  const int calls = memory.calls;
  CHECK(calls >= 5); /* plan, arena, scratch, and two of ie_preprocess */
  CHECK(log.count[IE_LOG_INFO] == 2 && log.count[IE_LOG_ERROR] == 0 && log.count[IE_LOG_WARNING] == 0);
  CHECK(strstr(log.last[IE_LOG_INFO], "1 thread") != NULL);

  ie_engine* engine;
  ie_engine_info info = {sizeof info};
  CHECK(ie_engine_load(argv[1], &options, &engine, NULL) == IE_OK);
  CHECK(ie_engine_describe(engine, &info) == IE_OK);
  CHECK(memory.most > info.weight_bytes + info.arena_bytes && memory.bytes >= info.weight_bytes);
  CHECK(strstr(log.last[IE_LOG_INFO], info.name) != NULL && strstr(log.last[IE_LOG_INFO], "the CPU") != NULL);
  ie_output_info none = {sizeof none};
  CHECK(ie_engine_output(engine, 99, &none) == IE_ERROR_ARGUMENT && log.count[IE_LOG_ERROR] == 1);
  CHECK(strncmp(log.last[IE_LOG_ERROR], "IE_ERROR_ARGUMENT: ", 19) == 0);
  ie_engine_free(engine);
  CHECK(memory.bytes == 0);

  for (int n = 1; n <= calls; ++n) { /* the n-th allocation fails */
    pool failing = {0, 0, 0, n, 0, 0};
    options.allocate_user = &failing;
    CHECK(whole_life(argv[1], &options, &running) == IE_ERROR_MEMORY && !running);
    CHECK(failing.calls == n && failing.bytes == 0 && failing.wrong == 0);
  }
  CHECK(log.count[IE_LOG_ERROR] == 1 + calls);
  pool crooked = {0, 0, 0, 0, 1, 0};
  options.allocate_user = &crooked;
  CHECK(whole_life(argv[1], &options, &running) == IE_ERROR_MEMORY);
  CHECK(crooked.bytes == 0 && crooked.calls == 1);

  options.release = NULL;
  CHECK(ie_engine_load(argv[1], &options, &engine, NULL) == IE_ERROR_ARGUMENT && engine == NULL);
  return failures != 0;
}
