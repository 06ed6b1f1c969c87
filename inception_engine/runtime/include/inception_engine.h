/* inception_engine.h: run a compiled Inception network from C.
 *
 *   static void report(void* user, uint32_t level, const char* line) { fprintf(user, "%u %s\n", level, line); }
 *
 *   char message[IE_MESSAGE_BYTES];
 *   ie_engine_options options = {sizeof options};
 *   options.log = report;
 *   options.log_user = stderr;
 *   ie_engine* engine;
 *   ie_context* context;
 *   if (ie_engine_load("googlenet.plan", &options, &engine, message) != IE_OK) die(message);
 *   if (ie_context_create(engine, NULL, &context, message) != IE_OK) die(message);
 *
 *   ie_engine_info info = {sizeof info};
 *   ie_engine_describe(engine, &info);
 *   uint8_t* pixels = malloc((size_t)info.height * info.width * info.channels);
 *   float* logits = malloc(info.classes * sizeof *logits);
 *
 *   ie_picture picture = {sizeof picture, 640, 480, 3, 1, rgb, 0}; // decoded: 480 rows of 640 pixels, R G B
 *   if (ie_preprocess(engine, &picture, pixels, message) != IE_OK) die(message);
 *   ie_input input = {sizeof input, IE_UINT8_NHWC, 1, pixels};
 *   ie_output output = {sizeof output, 0, logits};
 *   if (ie_run(context, &input, &output, 1) != IE_OK) die(ie_context_message(context));
 *   printf("%s: %f\n", ie_engine_label(engine, 0), logits[0]);
 *
 *   ie_context_free(context);
 *   ie_engine_free(engine);
 *   free(pixels);
 *   free(logits);
 *
 * Engines. An engine is a proven plan on a device: immutable, shared by any number of threads. It lives at least as long
 * as its contexts: freeing it earlier only gives up the caller's share of it. Strings that it hands out live until
 * ie_engine_free.
 *
 * Contexts. A context is one run at a time: its threads and its memory. Create one for each thread that calls ie_run,
 * or hand one from thread to thread; calls on one context must not overlap. Calls on different contexts may. A context
 * does not outlive a fork: its threads stay behind, and the child can only leave it alone.
 *
 * Functions say what else they need; where nothing is said, a function may be called from any thread at any time.
 *
 * The device is the CPU or an NVIDIA GPU of compute capability 8.0 or newer, whose driver (CUDA 12.0 or newer) is
 * looked for when a plan with programs for GPUs is loaded. The caller's current CUDA context is left as it is.
 *
 * Nothing here prints, aborts, calls exit or reads the locale. A `message` is a buffer of IE_MESSAGE_BYTES that receives
 * one line of text, empty after success; or NULL.
 *
 * Versions. Structures begin with their own size, `struct_size`, which the caller sets to sizeof. Fields are only ever
 * added at the end, and 0 is always what was before them, so a program that was built against an older header keeps
 * working; one that sets a field that this library does not know gets IE_ERROR_ARGUMENT. ie_input and ie_output do not
 * grow: runs take exactly their size. IE_ABI_VERSION, and with it the name libinception_engine.so.N, changes when that
 * promise is broken.
 */
#ifndef INCEPTION_ENGINE_H
#define INCEPTION_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define IE_API __attribute__((visibility("default")))
#else
#define IE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define IE_ABI_VERSION 1u
#define IE_MESSAGE_BYTES 512

typedef enum ie_status {
  IE_OK = 0,
  /* the caller */
  IE_ERROR_ARGUMENT = 1,   /* NULL, a wrong struct_size, a value out of range */
  IE_ERROR_BATCH = 2,      /* the batch is 0 or larger than any program of the plan takes */
  IE_ERROR_DEVICE = 3,     /* unknown device, or one that this machine or this process does not have */
  IE_ERROR_NO_PROGRAM = 4, /* the plan holds no program that this machine can run */
  /* the machine */
  IE_ERROR_FILE = 10,        /* cannot be opened or read */
  IE_ERROR_MEMORY = 11,      /* out of memory, the machine's or the GPU's */
  IE_ERROR_THREAD = 12,      /* a thread could not be started */
  IE_ERROR_TIMEOUT = 13,     /* a wait passed its bound; on the CPU the context is spent */
  IE_ERROR_NO_DRIVER = 14,   /* there is no CUDA driver: libcuda.so.1 cannot be loaded */
  IE_ERROR_DRIVER = 15,      /* the CUDA driver is too old, or refused a call */
  IE_ERROR_GPU = 16,         /* the library has no kernels for this GPU */
  IE_ERROR_KERNELS = 17,     /* the kernel archive is missing, damaged or of another version */
  IE_ERROR_DEVICE_LOST = 18, /* the GPU failed; contexts on it refuse to run, another process may */
  /* the plan file */
  IE_PLAN_TRUNCATED = 20,    /* shorter than it says */
  IE_PLAN_FOREIGN = 21,      /* not a plan */
  IE_PLAN_VERSION = 22,      /* made by a newer version */
  IE_PLAN_HASH = 23,         /* changed since it was written */
  IE_PLAN_SECTIONS = 24,     /* sections missing, overlapping or outside the file */
  IE_PLAN_LIMIT = 25,        /* more of something than the runtime accepts */
  IE_PLAN_TABLES = 26,       /* a program's tables do not fill its section */
  IE_PLAN_RESERVED = 27,     /* a reserved field is set */
  IE_PLAN_VALUE = 28,        /* a field has a value that does not exist */
  IE_PLAN_BUFFER = 29,       /* a buffer is misaligned or leaves the arena */
  IE_PLAN_GEOMETRY = 30,     /* an op's sizes do not fit each other or its buffers */
  IE_PLAN_BOUNDS = 31,       /* an op would read or write outside its buffer */
  IE_PLAN_WEIGHTS = 32,      /* weights misaligned or outside their section */
  IE_PLAN_ALIGNMENT = 33,    /* a divisibility that the target's kernels assume does not hold */
  IE_PLAN_TILES = 34,        /* the tasks of an op do not cut its output into its tiles, each once */
  IE_PLAN_OVERLAP = 35,      /* two ops write the same elements */
  IE_PLAN_UNWRITTEN = 36,    /* something is read that nothing writes */
  IE_PLAN_LAUNCH = 37,       /* launches do not cover the tasks in order, or an op lies in two */
  IE_PLAN_COUNTER = 38,      /* a wait's target is not the number of signals on its counter */
  IE_PLAN_ORDER = 39,        /* a task waits for itself or for a later task: it might never end */
  IE_PLAN_MISSING_WAIT = 40, /* a task reads a tile that it does not wait for */
  IE_PLAN_REUSE = 41,        /* a task writes memory that an unfinished task may still use */
  IE_PLAN_WORK = 42,         /* the program or its proof would take unreasonable work */
  IE_PLAN_METADATA = 43      /* the description of the network (labels, preprocessing) is damaged */
} ie_status;

typedef enum ie_device { IE_DEVICE_AUTO = 0, IE_DEVICE_CPU = 1, IE_DEVICE_CUDA = 2 } ie_device;

/* Instruction sets of the CPU kernels; AUTO takes the best that the machine has. Their order is PORTABLE, AVX2, AVX512,
 * AVX512_BF16, AMX: whoever has one has those before it. The last two are those of bfloat16 programs, beside AVX-512; they run
 * all others as AVX512 does. Where the processor has AMX, the library asks Linux for it when an engine or
 * the best instruction set is described or a context is created; the process's alternate signal stacks (sigaltstack) must then
 * have some 11 KB or more. */
typedef enum ie_isa {
  IE_ISA_AUTO = 0,
  IE_ISA_PORTABLE = 1,
  IE_ISA_AVX2 = 2,
  IE_ISA_AVX512 = 3,
  IE_ISA_AMX = 4,
  IE_ISA_AVX512_BF16 = 5
} ie_isa;

typedef enum ie_format {
  IE_FLOAT32_NCHW = 1, /* (batch, channels, height, width), already normalised */
  IE_UINT8_NHWC = 2    /* (batch, height, width, channels); the plan's mean and scale are applied */
} ie_format;

/* Whether launches of Inception modules take a kernel that was compiled for their sizes, on GPUs of compute capability
 * 9.0 or 10.0, instead of the one that runs everything. Results agree within the dtype's rounding; the weights of these
 * modules then lie on the GPU twice. */
typedef enum ie_specialise {
  IE_SPECIALISE_AUTO = 0, /* where the kernel archive says that it was measured to be faster */
  IE_SPECIALISE_NEVER = 1,
  IE_SPECIALISE_ALWAYS = 2 /* wherever the kernel archive has one */
} ie_specialise;

/* The order of an image's colours in memory. */
typedef enum ie_order { IE_ORDER_RGB = 0, IE_ORDER_BGR = 1 } ie_order;

typedef enum ie_log_level {
  IE_LOG_ERROR = 1,   /* a function failed; its status and message say the same */
  IE_LOG_WARNING = 2, /* all is well, but not as it was meant: why IE_DEVICE_AUTO took the CPU */
  IE_LOG_INFO = 3     /* what was loaded, on which device, with which instruction set and how much memory */
} ie_log_level;

typedef struct ie_engine ie_engine;
typedef struct ie_context ie_context;

/* Receives one line of UTF-8 without its end, which lives during the call. Called by the thread that called the
 * library, before that call returns, so by several threads at once if they call at once; a run that succeeds logs
 * nothing. It may call the library, but not free what the call in progress uses, and must not throw nor jump. */
typedef void (*ie_log_function)(void* user, uint32_t level, const char* line);

/* Returns `bytes` of memory at a multiple of `alignment`, a power of two from 64 on; or NULL, which makes the call in
 * progress fail with IE_ERROR_MEMORY. The content does not matter. Called by whichever thread calls the library; must
 * not throw nor jump. */
typedef void* (*ie_allocate_function)(void* user, size_t bytes, size_t alignment);
/* Takes back what the other returned for `bytes`. */
typedef void (*ie_release_function)(void* user, void* memory, size_t bytes);

/* Large memory comes from `allocate`: the plan with its weights, those that the CPU makes of them for its kernels (of half
 * precision, of Winograd's algorithm, of what `emulate` runs), the activations and scratch of contexts on the CPU, and
 * what ie_preprocess needs while it runs. The rest - tables of the programs, labels, bookkeeping, stacks of threads - comes
 * from malloc and the system, some bytes for each task of a program; memory of a GPU comes from its driver. Without these
 * functions, pages of the plan that nobody will read any more go back to the system when contexts are created on the
 * CPU, mostly the first. Functions and their user pointers must work until the engine and all its contexts are freed. */
typedef struct ie_engine_options {
  uint32_t struct_size;
  uint32_t device;     /* ie_device */
  uint32_t emulate;    /* 1: the CPU also walks programs for other devices, slowly, same results (tests) */
  uint32_t ordinal;    /* which GPU, as CUDA counts them */
  const char* kernels; /* path of the kernel archive; NULL: inception_engine.kernels beside this library */
  uint32_t specialise; /* ie_specialise */
  uint32_t reserved;   /* 0; not looked at */
  ie_log_function log; /* NULL: nothing is logged */
  void* log_user;
  ie_allocate_function allocate; /* both, or NULL for both: the C library's */
  ie_release_function release;
  void* allocate_user;
} ie_engine_options;

/* On a GPU only poison counts; the bound on a wait is part of the kernels there, some seconds. */
typedef struct ie_context_options {
  uint32_t struct_size;
  uint32_t threads;    /* 0: as many as the process may run on */
  uint32_t isa;        /* ie_isa */
  uint32_t poison;     /* 1: fill the arena with NaN before each run (tests) */
  uint32_t timeout_ms; /* bound on one wait inside a run; 0: 60,000 */
} ie_context_options;

typedef struct ie_engine_info {
  uint32_t struct_size;
  uint32_t device;    /* ie_device that the engine runs on */
  uint32_t max_batch; /* of the largest program */
  uint32_t channels, height, width;
  uint32_t outputs;
  uint32_t programs; /* that this engine can run */
  uint64_t
      arena_bytes; /* of activations that a context with the best isa allocates: of the largest program */
  uint64_t weight_bytes;   /* of all programs in the plan */
  uint32_t specialised;    /* launches of these programs that take a kernel for their sizes */
  uint32_t classes;        /* numbers in output 0, of one image: channels * height * width */
  uint32_t labels;         /* names of classes: of as many as output 0 has channels, or 0 */
  uint32_t random_weights; /* 1: the plan was built without trained weights */
  const char* name;        /* of the network; never NULL; lives as long as the engine */
} ie_engine_info;

/* How an image becomes the network's input: its shorter side resized, the centre cut out, colours ordered: ie_preprocess
 * does this, to uint8. Then (value - mean) / std for each channel in that order, value 0 to 255: runs of IE_UINT8_NHWC
 * do this themselves, with factors that the plan holds; runs of IE_FLOAT32_NCHW take the result. */
typedef struct ie_preprocess_info {
  uint32_t struct_size;
  uint32_t resize;    /* the shorter side in pixels, if the input is not larger than that */
  uint32_t order;     /* ie_order */
  uint32_t channels;  /* numbers in `mean` and in `std`: the input's channels, or 1 for all of them */
  const double* mean; /* both live as long as the engine */
  const double* std;
} ie_preprocess_info;

/* A decoded picture in memory. */
typedef struct ie_picture {
  uint32_t struct_size;
  uint32_t width, height;
  uint32_t channels;    /* 1: grey; 3: R, G, B; 2 and 4: the same with a last one that is ignored */
  uint32_t orientation; /* how the camera was held, as in EXIF: 1 to 8; 0: 1, upright */
  const uint8_t* data;
  size_t stride; /* bytes from one row to the next; 0: width * channels */
} ie_picture;

/* Output 0 of a classifier is "logits". Shape (batch, channels, height, width), float32. */
typedef struct ie_output_info {
  uint32_t struct_size;
  uint32_t channels, height, width;
  const char* name; /* lives as long as the engine */
} ie_output_info;

typedef struct ie_input {
  uint32_t struct_size;
  uint32_t format; /* ie_format */
  uint32_t batch;
  const void* data; /* contiguous; read during ie_run only */
} ie_input;

typedef struct ie_output {
  uint32_t struct_size;
  uint32_t index; /* of ie_engine_output */
  float* data;    /* room for batch * channels * height * width */
} ie_output;

/* "1.2.3"; and the IE_ABI_VERSION that the library was built with. Static. */
IE_API const char* ie_version(void);
IE_API uint32_t ie_abi_version(void);

/* "IE_PLAN_HASH" for IE_PLAN_HASH; "unknown status" for what is none. Static; never NULL. */
IE_API const char* ie_status_name(ie_status status);

/* Best instruction set of this machine (ie_isa). */
IE_API uint32_t ie_cpu_isa(void);

/* Reads and proves a plan, and readies its device. `options` may be NULL, and is read during the call only, but for its
 * functions. The engine is the caller's, to be freed with ie_engine_free; on failure *engine is NULL. IE_DEVICE_AUTO
 * takes the GPU if the plan has programs for one and it can be used, else the CPU; IE_DEVICE_CUDA fails with the
 * reason. */
IE_API ie_status ie_engine_load(const char* path, const ie_engine_options* options, ie_engine** engine,
                                char* message);
/* The same from memory, which is copied. */
IE_API ie_status ie_engine_load_memory(const void* data, size_t bytes, const ie_engine_options* options,
                                       ie_engine** engine, char* message);
/* Proves every program of a plan, whatever machine it is for, and keeps nothing. */
IE_API ie_status ie_plan_check(const void* data, size_t bytes, char* message);
/* Gives up the caller's share. Not while another thread is in a function on this engine; its contexts may be in use. NULL
 * is allowed. */
IE_API void ie_engine_free(ie_engine* engine);
/* Why IE_DEVICE_AUTO took the CPU though the plan has programs for a GPU: one line, or empty. Never NULL; lives as long
 * as the engine. */
IE_API const char* ie_engine_note(const ie_engine* engine);

/* Each fills *info up to info->struct_size, which the caller sets, as far as this library knows: what a newer header has
 * behind that stays as it was. `index` counts from 0. */
IE_API ie_status ie_engine_describe(const ie_engine* engine, ie_engine_info* info);
IE_API ie_status ie_engine_output(const ie_engine* engine, uint32_t index, ie_output_info* info);
IE_API ie_status ie_engine_preprocess(const ie_engine* engine, ie_preprocess_info* info);
/* The name of a class in UTF-8, or empty where it has none. Never NULL; lives as long as the engine. */
IE_API const char* ie_engine_label(const ie_engine* engine, uint32_t index);
/* All of the plan's description as UTF-8 JSON. Not terminated by a zero; lives as long as the engine. */
IE_API const char* ie_engine_metadata(const ie_engine* engine, size_t* bytes);

/* Makes the network's input of a picture: uint8 (height, width, channels) as ie_engine_info has them, one image of
 * IE_UINT8_NHWC, at `pixels`, which the caller owns. The picture is turned upright, made grey or RGB, resized by its
 * shorter side (bilinear with antialiasing, rounded after each direction, as Pillow does), and its centre cut out: bit
 * for bit what the Python package makes of the same pixels. IE_ERROR_ARGUMENT for a picture of no or of more than
 * 100,000,000 pixels, before or after resizing, and for networks whose input does not have 1 or 3 channels. */
IE_API ie_status ie_preprocess(const ie_engine* engine, const ie_picture* picture, uint8_t* pixels,
                               char* message);

/* Allocates all memory and starts all threads that runs will use. `options` may be NULL, and is read during the call
 * only. The context is the caller's, to be freed with ie_context_free; on failure *context is NULL. */
IE_API ie_status ie_context_create(ie_engine* engine, const ie_context_options* options, ie_context** context,
                                   char* message);
/* Ends its threads and frees its memory, and the engine's if that was freed before. Not while another thread is in a
 * function on it. NULL is allowed. */
IE_API void ie_context_free(ie_context* context);

/* Runs the program with the smallest maximum batch that fits, and writes `count` of the outputs. Buffers are the
 * caller's, and free to be used again when ie_run returns. Nothing is allocated. One thread at a time per context. After
 * IE_ERROR_TIMEOUT a context on the CPU refuses to run.
 *
 * On a GPU each buffer may be host memory or memory of that GPU, which must be ready when ie_run is called. A run from
 * host memory to host memory becomes a CUDA graph when its batch, format and outputs are first seen, which does
 * allocate. */
IE_API ie_status ie_run(ie_context* context, const ie_input* input, const ie_output* outputs, uint32_t count);

/* The same on a GPU without waiting: all buffers are memory of that GPU, and the work is left to a stream (CUstream or
 * cudaStream_t of the GPU's primary context; NULL: the legacy default stream). `input` and `outputs` are read during the
 * call, buffers when the stream gets there. Nothing is allocated. Runs of one context follow each other, whatever their
 * streams. A stream that is capturing only records; then the order of what is replayed, and that it ends before the
 * context does, is the caller's to see to. IE_ERROR_DEVICE on the CPU. One thread at a time per context. */
IE_API ie_status ie_enqueue(ie_context* context, const ie_input* input, const ie_output* outputs,
                            uint32_t count, void* stream);
/* Waits for what was enqueued. IE_ERROR_TIMEOUT, once, if a wait inside a run gave up: results since the last check are
 * void, and the context can be used on. IE_OK on the CPU. One thread at a time per context. */
IE_API ie_status ie_context_check(ie_context* context);

/* From now on each run writes when its tasks ran: four numbers for each task of its program, in the plan's order, for
 * `count` tasks at most. When a worker took it, began it (all that it waits for was there) and was done, in ns of
 * CLOCK_MONOTONIC; and the worker, from 0, which is the thread that calls ie_run. NULL ends it. `times` is the caller's,
 * and must live until then or until the context is freed. It costs some readings of the clock for each task.
 * IE_ERROR_DEVICE on a GPU. One thread at a time per context. */
IE_API ie_status ie_context_trace(ie_context* context, uint64_t* times, size_t count);

/* One line on the last call with this context, empty if it succeeded; lives until the next one. Never NULL. One thread at
 * a time per context. */
IE_API const char* ie_context_message(const ie_context* context);

#ifdef __cplusplus
}
#endif

#endif /* INCEPTION_ENGINE_H */
