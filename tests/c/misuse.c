/* Wrong calls get a status and one line, never a crash. Prints nothing when all is well; argument: a plan. */
#include <inception_engine.h>
#include <stdio.h>
#include <string.h>

static int failures;

static void expect(int line, ie_status got, ie_status wanted, const char* message) {
  if (got == wanted && (got == IE_OK || message == NULL || message[0] != '\0')) return;
  printf("line %d: %s, not %s (%s)\n", line, ie_status_name(got), ie_status_name(wanted),
         message ? message : "");
  ++failures;
}
#define EXPECT(call, wanted, message) expect(__LINE__, call, wanted, message)

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  char message[IE_MESSAGE_BYTES];
  ie_engine* engine = (ie_engine*)argv; /* a creator that fails must set it to NULL */
  ie_context* context = NULL;

  EXPECT(ie_engine_load(NULL, NULL, &engine, message), IE_ERROR_ARGUMENT, message);
  if (engine != NULL) printf("engine not cleared\n"), ++failures;
  EXPECT(ie_engine_load(argv[1], NULL, NULL, message), IE_ERROR_ARGUMENT, message);
  EXPECT(ie_engine_load("/nonexistent/x.plan", NULL, &engine, message), IE_ERROR_FILE, message);
  EXPECT(ie_engine_load("/", NULL, &engine, message), IE_ERROR_FILE, message);
  EXPECT(ie_engine_load("/dev/zero", NULL, &engine, message), IE_ERROR_FILE, message);
  EXPECT(ie_engine_load_memory("", 0, NULL, &engine, message), IE_PLAN_FOREIGN, message);
  EXPECT(ie_engine_load_memory(NULL, 5, NULL, &engine, NULL), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_plan_check("INCPLAN\n", 8, message), IE_PLAN_TRUNCATED, message);
  const ie_engine_options cuda = {sizeof cuda, IE_DEVICE_CUDA}, unknown = {sizeof unknown, 77},
                          empty = {0, 0}, special = {sizeof special, 0, 0, 0, NULL, 3};
  EXPECT(ie_engine_load(argv[1], &cuda, &engine, message), IE_ERROR_NO_PROGRAM, message);
  EXPECT(ie_engine_load(argv[1], &unknown, &engine, message), IE_ERROR_DEVICE, message);
  EXPECT(ie_engine_load(argv[1], &empty, &engine, message), IE_ERROR_ARGUMENT, message);
  EXPECT(ie_engine_load(argv[1], &special, &engine, message), IE_ERROR_ARGUMENT, message);
  EXPECT(ie_engine_load(argv[1], NULL, &engine, NULL), IE_OK, NULL);

  EXPECT(ie_context_create(NULL, NULL, &context, message), IE_ERROR_ARGUMENT, message);
  EXPECT(ie_context_create(engine, NULL, NULL, message), IE_ERROR_ARGUMENT, message);
  const ie_context_options many = {sizeof many, 5000, 0, 0, 0}, isa = {sizeof isa, 1, 9, 0, 0};
  EXPECT(ie_context_create(engine, &many, &context, message), IE_ERROR_ARGUMENT, message);
  EXPECT(ie_context_create(engine, &isa, &context, message), IE_ERROR_ARGUMENT, message);
  const ie_context_options shorter = {2 * sizeof(uint32_t), 1, 9, 9,
                                      9}; /* as an older program would pass it */
  EXPECT(ie_context_create(engine, &shorter, &context, message), IE_OK, NULL);

  ie_engine_info info = {0}, part = {2 * sizeof(uint32_t), 9, 9, 9, 9, 9, 9, 9, 9, 9};
  EXPECT(ie_engine_describe(engine, NULL), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_engine_describe(engine, &info), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_engine_describe(engine, &part), IE_OK, NULL);
  if (part.device != IE_DEVICE_CPU || part.max_batch != 9) printf("wrote past struct_size\n"), ++failures;
  info.struct_size = sizeof info;
  EXPECT(ie_engine_describe(engine, &info), IE_OK, NULL);
  ie_output_info output_info = {sizeof output_info, 0, 0, 0, NULL};
  EXPECT(ie_engine_output(engine, info.outputs, &output_info), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_engine_output(engine, 0, &output_info), IE_OK, NULL);
  if (strcmp(output_info.name, "logits") != 0) printf("output 0 is %s\n", output_info.name), ++failures;

  static float data[1 << 20];
  ie_input input = {sizeof input, IE_FLOAT32_NCHW, 1, data};
  ie_output output = {sizeof output, 0, data};
  EXPECT(ie_run(NULL, &input, &output, 1), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_run(context, NULL, &output, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  EXPECT(ie_run(context, &input, NULL, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  input.batch = 0;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_BATCH, ie_context_message(context));
  input.batch = info.max_batch + 1;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_BATCH, ie_context_message(context));
  input.batch = 0xFFFFFFFFu;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_BATCH, ie_context_message(context));
  input.batch = 1, input.format = 3;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  input.format = IE_FLOAT32_NCHW, input.data = NULL;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  input.data = data, output.index = info.outputs;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  output.index = 0, output.data = NULL;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  output.data = data, output.struct_size = 1;
  EXPECT(ie_run(context, &input, &output, 1), IE_ERROR_ARGUMENT, ie_context_message(context));
  output.struct_size = sizeof output;
  EXPECT(ie_run(context, &input, &output, 1), IE_OK, NULL);
  EXPECT(ie_run(context, &input, NULL, 0), IE_OK, NULL);
  EXPECT(ie_enqueue(NULL, &input, &output, 1, NULL), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_enqueue(context, &input, &output, 1, NULL), IE_ERROR_DEVICE, ie_context_message(context));
  EXPECT(ie_context_check(NULL), IE_ERROR_ARGUMENT, NULL);
  EXPECT(ie_context_check(context), IE_OK, NULL);
  if (ie_engine_note(engine)[0] != '\0' || ie_engine_note(NULL)[0] != '\0') printf("a note\n"), ++failures;

  size_t bytes = 0;
  if (ie_engine_metadata(engine, &bytes)[0] != '{' || bytes == 0) printf("no metadata\n"), ++failures;
  ie_engine_metadata(NULL, NULL);
  if (strcmp(ie_status_name((ie_status)12345), "unknown status") != 0) printf("status name\n"), ++failures;
  ie_context_free(context), ie_context_free(NULL);
  ie_engine_free(engine), ie_engine_free(NULL);
  return failures != 0;
}
