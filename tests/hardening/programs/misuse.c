/* Every function with NULL, structures of every size, plans of other versions, calls in the wrong order: a status and a
 * line, or an empty answer, never a crash. Argument: a plan. Prints nothing when all is well. */
#include <inception_engine.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;
static void expect(int line, int holds, ie_status got) {
  if (holds) return;
  printf("line %d: %s\n", line, ie_status_name(got));
  ++failures;
}
#define EXPECT(call, wanted)                  \
  do {                                        \
    const ie_status got_ = (call);            \
    expect(__LINE__, got_ == (wanted), got_); \
  } while (0)
#define HOLDS(condition) expect(__LINE__, (condition), IE_OK)

static char plan[1 << 22];
static size_t plan_bytes;
static float image[1 << 16], result[1 << 16];
static uint8_t pixels[1 << 16], decoded[64];

/* A structure of `size` bytes at the end of its own memory, the rest of it unreadable for a sanitiser or a lucky guard. */
static void* sized(const void* from, size_t whole, size_t size) {
  char* memory = malloc(size < sizeof(uint32_t) ? sizeof(uint32_t) : size);
  if (memory == NULL) exit(2);
  memset(memory, 0, size);
  memcpy(memory, from, size < whole ? size : whole);
  const uint32_t said = (uint32_t)size;
  memcpy(memory, &said, sizeof said);
  return memory;
}

static void nulls(void) {
  ie_engine* engine = NULL;
  ie_context* context = NULL;
  EXPECT(ie_engine_load(NULL, NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_load("x", NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_load(NULL, NULL, &engine, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_load("", NULL, &engine, NULL), IE_ERROR_FILE);
  EXPECT(ie_engine_load_memory(NULL, 0, NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_load_memory(plan, plan_bytes, NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_load_memory(NULL, plan_bytes, NULL, &engine, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_load_memory(plan, 0, NULL, &engine, NULL), IE_PLAN_FOREIGN);
  EXPECT(ie_engine_load_memory(plan, (size_t)-1, NULL, &engine, NULL), IE_PLAN_LIMIT);
  EXPECT(ie_plan_check(NULL, 0, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_plan_check(plan, 0, NULL), IE_PLAN_FOREIGN);
  EXPECT(ie_plan_check(plan, (size_t)-1, NULL), IE_PLAN_LIMIT);
  ie_engine_free(NULL);
  HOLDS(ie_engine_note(NULL)[0] == '\0');
  EXPECT(ie_engine_describe(NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_output(NULL, 0, NULL), IE_ERROR_ARGUMENT);
  size_t bytes = 9;
  HOLDS(ie_engine_metadata(NULL, &bytes)[0] == '\0' && bytes == 0);
  HOLDS(ie_engine_metadata(NULL, NULL) != NULL);
  HOLDS(ie_engine_label(NULL, 0)[0] == '\0');
  EXPECT(ie_engine_preprocess(NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_preprocess(NULL, NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_context_create(NULL, NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_context_create(NULL, NULL, &context, NULL), IE_ERROR_ARGUMENT);
  ie_context_free(NULL);
  EXPECT(ie_run(NULL, NULL, NULL, 0), IE_ERROR_ARGUMENT);
  EXPECT(ie_enqueue(NULL, NULL, NULL, 0, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_context_check(NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_context_trace(NULL, NULL, 0), IE_ERROR_ARGUMENT);
  HOLDS(ie_context_message(NULL)[0] == '\0');
  HOLDS(ie_version()[0] != '\0' && ie_abi_version() == IE_ABI_VERSION && ie_cpu_isa() >= IE_ISA_PORTABLE);
  for (int status = -2; status < 100; ++status) HOLDS(ie_status_name((ie_status)status)[0] != '\0');
}

/* Of options: any size from its own field on is that of some version. Of a run: this version's alone. */
static void sizes(ie_engine* engine, ie_context* context) {
  const ie_engine_options options = {sizeof options, IE_DEVICE_CPU, 0, 0, NULL, 0};
  const ie_context_options context_options = {sizeof context_options, 1, IE_ISA_AUTO, 0, 0};
  const ie_engine_info info = {sizeof info};
  const ie_output_info output_info = {sizeof output_info};
  const ie_preprocess_info preprocess_info = {sizeof preprocess_info};
  const ie_picture picture = {sizeof picture, 4, 4, 3, 0, decoded, 0};
  const ie_input input = {sizeof input, IE_FLOAT32_NCHW, 1, image};
  const ie_output output = {sizeof output, 0, result};
  for (size_t size = 0; size < 160; ++size) {
    const ie_status wanted = size < sizeof(uint32_t) ? IE_ERROR_ARGUMENT : IE_OK;
    ie_engine* made = NULL;
    ie_context* created = NULL;
    void* memory = sized(&options, sizeof options, size);
    EXPECT(ie_engine_load_memory(plan, plan_bytes, memory, &made, NULL), wanted);
    HOLDS((made != NULL) == (wanted == IE_OK));
    ie_engine_free(made);
    free(memory);
    memory = sized(&context_options, sizeof context_options, size);
    EXPECT(ie_context_create(engine, memory, &created, NULL), wanted);
    HOLDS((created != NULL) == (wanted == IE_OK));
    ie_context_free(created);
    free(memory);
    memory = sized(&info, sizeof info, size);
    EXPECT(ie_engine_describe(engine, memory), wanted);
    free(memory);
    memory = sized(&output_info, sizeof output_info, size);
    EXPECT(ie_engine_output(engine, 0, memory), wanted);
    free(memory);
    memory = sized(&preprocess_info, sizeof preprocess_info, size);
    EXPECT(ie_engine_preprocess(engine, memory), wanted);
    free(memory);
    if (size > offsetof(ie_picture, data) && size < offsetof(ie_picture, stride))
      continue; /* half a pointer */
    memory = sized(&picture, sizeof picture, size);
    EXPECT(ie_preprocess(engine, memory, pixels, NULL),
           size >= offsetof(ie_picture, stride) ? IE_OK : IE_ERROR_ARGUMENT);
    free(memory);

    memory = sized(&input, sizeof input, size);
    EXPECT(ie_run(context, memory, &output, 1), size == sizeof input ? IE_OK : IE_ERROR_ARGUMENT);
    free(memory);
    memory = sized(&output, sizeof output, size);
    EXPECT(ie_run(context, &input, memory, 1), size == sizeof output ? IE_OK : IE_ERROR_ARGUMENT);
    free(memory);
  }
}

static void pictures(ie_engine* engine) {
  ie_picture picture = {sizeof picture, 4, 4, 3, 0, decoded, 0};
  EXPECT(ie_preprocess(engine, &picture, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_preprocess(engine, NULL, pixels, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_preprocess(NULL, &picture, pixels, NULL), IE_ERROR_ARGUMENT);
  picture.data = NULL;
  EXPECT(ie_preprocess(engine, &picture, pixels, NULL), IE_ERROR_ARGUMENT);
  picture.data = decoded;
  for (uint32_t channels = 0; channels < 6; ++channels) {
    picture.channels = channels;
    const int known = channels >= 1 && channels <= 4;
    EXPECT(ie_preprocess(engine, &picture, pixels, NULL), known ? IE_OK : IE_ERROR_ARGUMENT);
  }
  picture.channels = 3;
  for (uint32_t orientation = 0; orientation < 10; ++orientation) {
    picture.orientation = orientation;
    EXPECT(ie_preprocess(engine, &picture, pixels, NULL), orientation <= 8 ? IE_OK : IE_ERROR_ARGUMENT);
  }
  picture.orientation = 0, picture.stride = 11; /* shorter than a row */
  EXPECT(ie_preprocess(engine, &picture, pixels, NULL), IE_ERROR_ARGUMENT);
  picture.stride = 0, picture.width = 0;
  EXPECT(ie_preprocess(engine, &picture, pixels, NULL), IE_ERROR_ARGUMENT);
  picture.width = 0xFFFFFFFFu, picture.height = 0xFFFFFFFFu;
  EXPECT(ie_preprocess(engine, &picture, pixels, NULL), IE_ERROR_ARGUMENT);
  HOLDS(ie_engine_label(engine, 0xFFFFFFFFu)[0] == '\0');
}

static void versions(void) {
  char message[IE_MESSAGE_BYTES];
  ie_engine* engine = NULL;
  for (uint32_t version = 0; version < 4; ++version) {
    memcpy(plan + 8, &version, sizeof version);
    EXPECT(ie_plan_check(plan, plan_bytes, message), version == 1 ? IE_OK : IE_PLAN_VERSION);
    EXPECT(ie_engine_load_memory(plan, plan_bytes, NULL, &engine, message),
           version == 1 ? IE_OK : IE_PLAN_VERSION);
    HOLDS((message[0] == '\0') == (version == 1));
    ie_engine_free(engine);
  }
  const uint32_t version = 1;
  memcpy(plan + 8, &version, sizeof version);
}

static void order(void) {
  ie_engine *engine = NULL, *other = NULL;
  ie_context *first = NULL, *second = NULL;
  const ie_input input = {sizeof input, IE_FLOAT32_NCHW, 1, image};
  const ie_output output = {sizeof output, 0, result};
  const ie_output unknown = {sizeof unknown, 1000, result};
  EXPECT(ie_engine_load_memory(plan, plan_bytes, NULL, &engine, NULL), IE_OK);
  EXPECT(ie_context_create(engine, NULL, &first, NULL), IE_OK);
  EXPECT(ie_context_check(first), IE_OK); /* nothing was enqueued, or run */
  HOLDS(ie_context_message(first)[0] == '\0');
  EXPECT(ie_enqueue(first, &input, &output, 1, NULL), IE_ERROR_DEVICE);
  HOLDS(ie_context_message(first)[0] != '\0');
  EXPECT(ie_context_create(engine, NULL, &second, NULL), IE_OK);
  ie_engine_free(engine); /* before its contexts */
  EXPECT(ie_run(first, &input, &unknown, 1), IE_ERROR_ARGUMENT);
  EXPECT(ie_run(second, &input, &output, 1), IE_OK); /* of another context's failure it knows nothing */
  HOLDS(ie_context_message(second)[0] == '\0');
  EXPECT(ie_run(first, &input, &output, 1), IE_OK);
  HOLDS(ie_context_message(first)[0] == '\0');
  ie_context_free(first);
  EXPECT(ie_engine_load_memory("INCPLAN\n", 8, NULL, &other, NULL), IE_PLAN_TRUNCATED);
  HOLDS(other == NULL);
  ie_engine_free(other);
  EXPECT(ie_run(second, &input, &output, 1), IE_OK);
  ie_context_free(second);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  FILE* file = fopen(argv[1], "rb");
  if (file == NULL) return 2;
  plan_bytes = fread(plan, 1, sizeof plan, file);
  fclose(file);
  ie_engine* engine = NULL;
  ie_context* context = NULL;
  nulls();
  EXPECT(ie_engine_load_memory(plan, plan_bytes, NULL, &engine, NULL), IE_OK);
  EXPECT(ie_context_create(engine, NULL, &context, NULL), IE_OK);
  EXPECT(ie_context_create(engine, NULL, NULL, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_describe(engine, NULL), IE_ERROR_ARGUMENT);
  EXPECT(ie_engine_output(engine, 0, NULL), IE_ERROR_ARGUMENT);
  sizes(engine, context);
  pictures(engine);
  ie_context_free(context);
  ie_engine_free(engine);
  versions();
  order();
  return failures != 0;
}
