/* Writes what ie_preprocess makes of image files, one after the other, to standard output.
 *
 *   pixels PLAN IMAGE...
 */
#include <inception_engine.h>
#include <stdio.h>
#include <stdlib.h>

#include "picture.h"

int main(int argc, char** argv) {
  char message[IE_MESSAGE_BYTES] = "";
  ie_engine* engine;
  ie_engine_info info = {0};
  info.struct_size = sizeof info;
  if (argc < 3 || ie_engine_load(argv[1], NULL, &engine, message) != IE_OK) return 1;
  ie_engine_describe(engine, &info);
  const size_t bytes = (size_t)info.height * info.width * info.channels;
  uint8_t* pixels = malloc(bytes);
  for (int i = 2; i < argc; ++i) {
    ie_picture picture;
    const char* wrong = picture_read(argv[i], &picture);
    if (wrong == NULL && ie_preprocess(engine, &picture, pixels, message) != IE_OK) wrong = message;
    if (wrong != NULL) return fprintf(stderr, "%s: %s\n", argv[i], wrong), 1;
    free((void*)picture.data);
    fwrite(pixels, 1, bytes, stdout);
  }
  free(pixels);
  ie_engine_free(engine);
  return 0;
}
