/* A program as it was built against the first header, which had no callbacks, labels or pictures: its structures are
 * written out, with what an older program leaves behind them. Prints nothing when all is well; argument: a plan. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
  uint32_t struct_size, device, emulate, ordinal;
  const char* kernels;
  uint32_t specialise;
} engine_options;
typedef struct {
  uint32_t struct_size, threads, isa, poison, timeout_ms;
} context_options;
typedef struct {
  uint32_t struct_size, device, max_batch, channels, height, width, outputs, programs;
  uint64_t arena_bytes, weight_bytes;
  uint32_t specialised;
} engine_info;
typedef struct {
  uint32_t struct_size, format, batch;
  const void* data;
} input;
typedef struct {
  uint32_t struct_size, index;
  float* data;
} output;

extern uint32_t ie_abi_version(void);
extern int ie_engine_load(const char*, const engine_options*, void**, char*);
extern int ie_engine_describe(const void*, engine_info*);
extern int ie_context_create(void*, const context_options*, void**, char*);
extern int ie_run(void*, const input*, const output*, uint32_t);
extern const char* ie_context_message(const void*);
extern void ie_context_free(void*);
extern void ie_engine_free(void*);

int main(int argc, char** argv) {
  if (argc != 2 || ie_abi_version() != 1) return 2;
  char message[512] = "";
  void *engine = NULL, *context = NULL;
  struct {
    engine_options options;
    unsigned char behind[64];
  } asked;
  struct {
    engine_info info;
    unsigned char behind[64];
  } told;
  memset(&asked, 0xEE, sizeof asked); /* also in the padding at the end of the structure */
  memset(&told, 0xEE, sizeof told);
  asked.options.struct_size = sizeof asked.options;
  asked.options.device = asked.options.emulate = asked.options.ordinal = asked.options.specialise = 0;
  asked.options.kernels = NULL;
  told.info.struct_size = sizeof told.info;
  const context_options one = {sizeof one, 1, 0, 0, 0};
  static float images[3 * 64 * 64], logits[10];
  const input given = {sizeof given, 1, 1, images};
  const output wanted = {sizeof wanted, 0, logits};
  logits[0] = -1e30f;

  if (ie_engine_load(argv[1], &asked.options, &engine, message) != 0 ||
      ie_engine_describe(engine, &told.info) != 0 ||
      ie_context_create(engine, &one, &context, message) != 0 || ie_run(context, &given, &wanted, 1) != 0) {
    printf("%s %s\n", message, ie_context_message(context));
    return 1;
  }
  for (size_t i = 0; i < sizeof told.behind; ++i) {
    if (told.behind[i] != 0xEE) return printf("written behind the structure\n"), 1;
  }
  if (told.info.width != 64 || told.info.specialised != 0) return printf("wrong information\n"), 1;
  if (logits[0] == -1e30f) return printf("no logits\n"), 1;
  ie_context_free(context);
  ie_engine_free(engine);
  return 0;
}
