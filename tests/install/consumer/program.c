/* A program outside of the tree: runs a plan on an image of zeros and prints the library's version and the first number.
 *
 *   program PLAN
 */
#include <inception_engine.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 2 || ie_abi_version() != IE_ABI_VERSION) return 2;
  char message[IE_MESSAGE_BYTES];
  ie_engine* engine = NULL;
  ie_context* context = NULL;
  if (ie_engine_load(argv[1], NULL, &engine, message) != IE_OK ||
      ie_context_create(engine, NULL, &context, message) != IE_OK) {
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  ie_engine_info info = {0};
  info.struct_size = sizeof info;
  ie_engine_describe(engine, &info);
  float* image = calloc((size_t)info.channels * info.height * info.width, sizeof *image);
  float* logits = calloc(info.classes, sizeof *logits);
  const ie_input input = {sizeof input, IE_FLOAT32_NCHW, 1, image};
  const ie_output output = {sizeof output, 0, logits};
  const ie_status status = ie_run(context, &input, &output, 1);
  if (status == IE_OK) printf("%s %.9g\n", ie_version(), (double)logits[0]);
  ie_context_free(context);
  ie_engine_free(engine);
  free(image);
  free(logits);
  return status == IE_OK ? 0 : 1;
}
