/* Classifies image files, as `inception classify` does: the same five classes, the same numbers.
 *
 *   gcc -std=c99 classify.c picture.c -linception_engine -ljpeg -lpng -lm -o classify
 *   ./classify googlenet.plan photo.jpg
 */
#include <inception_engine.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "picture.h"

enum { TOP = 5 };

static int complain(const char* what, const char* why) {
  fprintf(stderr, "classify: %s: %s\n", what, why);
  return 2;
}

/* A line of text from a plan: its control characters must not reach a terminal. */
static void print_line(const char* text) {
  for (; *text != '\0'; ++text) putchar((unsigned char)*text < 0x20 || *text == 0x7F ? '?' : *text);
  putchar('\n');
}

/* Softmax of the logits, and the most probable classes. */
static void print_top(const ie_engine* engine, const float* logits, uint32_t classes) {
  double* probability = malloc(classes * sizeof *probability);
  double largest = -INFINITY, sum = 0.0;
  if (probability == NULL) return;
  for (uint32_t i = 0; i < classes; ++i) {
    if (!(logits[i] <= largest)) largest = logits[i]; /* a NaN becomes the largest, and stays */
  }
  for (uint32_t i = 0; i < classes; ++i) sum += probability[i] = exp(logits[i] - largest);
  if (isnan(sum)) printf("  no classes: the network's output holds NaN\n");
  for (uint32_t rank = 0; rank < TOP && rank < classes && !isnan(sum); ++rank) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < classes; ++i) {
      if (probability[i] > probability[best]) best = i; /* of equals the first */
    }
    printf("  %6.2f%%  ", probability[best] / sum * 100.0);
    const char* label = ie_engine_label(engine, best);
    if (label[0] != '\0') {
      print_line(label);
    } else {
      printf("class %u\n", best);
    }
    probability[best] = -1.0;
  }
  free(probability);
}

static int classify(const ie_engine* engine, ie_context* context, const char* path, uint8_t* pixels,
                    float* logits, uint32_t classes) {
  char message[IE_MESSAGE_BYTES];
  ie_picture picture;
  const char* wrong = picture_read(path, &picture);
  if (wrong != NULL) return complain(path, wrong);
  const ie_status made = ie_preprocess(engine, &picture, pixels, message);
  free((void*)picture.data);
  if (made != IE_OK) return complain(path, message);

  const ie_input input = {sizeof input, IE_UINT8_NHWC, 1, pixels};
  const ie_output output = {sizeof output, 0, logits};
  if (ie_run(context, &input, &output, 1) != IE_OK) return complain(path, ie_context_message(context));
  printf("%s\n", path);
  print_top(engine, logits, classes);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3) return complain("usage", "classify PLAN IMAGE...");
  char message[IE_MESSAGE_BYTES];
  ie_engine* engine;
  ie_context* context;
  if (ie_engine_load(argv[1], NULL, &engine, message) != IE_OK) return complain(argv[1], message);
  int status = 0;
  if (ie_context_create(engine, NULL, &context, message) != IE_OK) {
    status = complain(argv[1], message);
  } else {
    ie_engine_info info = {0};
    info.struct_size = sizeof info;
    ie_engine_describe(engine, &info);
    if (info.random_weights) printf("The network's weights are random: the classes below mean nothing.\n");
    uint8_t* pixels = malloc((size_t)info.height * info.width * info.channels);
    float* logits = malloc(info.classes * sizeof *logits);
    if (pixels == NULL || logits == NULL) status = complain(argv[1], "no memory");
    for (int i = 2; i < argc && pixels != NULL && logits != NULL; ++i) {
      if (classify(engine, context, argv[i], pixels, logits, info.classes) != 0) status = 2;
    }
    free(pixels);
    free(logits);
  }
  ie_context_free(context);
  ie_engine_free(engine);
  return status;
}
