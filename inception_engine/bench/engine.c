/* The worker of `engine-c`: worker.py in C, for the times and the memory of a program that is C alone.
 *
 *   engine PLAN IMAGES LOGITS BATCH FORMAT THREADS STREAMS DEVICE SPECIALISE DESCRIPTOR
 *
 * IMAGES: the bytes of a batch in FORMAT (ie_format). LOGITS: written by the first run of every stream, one stream
 * behind the other. Commands and answers are those of worker.py; an error is answered, and ends the process. */
#define _GNU_SOURCE
#include <errno.h>
#include <inception_engine.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct stream {
  ie_engine* engine;
  ie_context* context;
  float* logits;
  pthread_t thread;
  int64_t* ns; /* times of the current command */
  size_t count, room;
} stream;

typedef struct requests {
  const int64_t* at;
  int64_t* latency; /* -1: not answered */
  size_t count;
  int64_t begin, bound;
  size_t most, first;
  size_t next, late; /* atomic */
} requests;

static ie_input input;
static stream* streams;
static size_t stream_count, logit_count;
static int64_t turn_duration;
static size_t turn_least, turn_most;
static requests open_loop;
static pthread_barrier_t start_line;
static FILE* answers;

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void fail(const char* format, ...) {
  char text[IE_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  for (char* c = text; *c != 0; ++c) {
    if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '\'';
  }
  fprintf(answers, "{\"error\": \"%s\"}\n", text);
  fflush(answers);
  exit(1);
}

static void* allocate(size_t bytes) {
  void* memory = malloc(bytes == 0 ? 1 : bytes);
  if (memory == NULL) fail("out of memory");
  return memory;
}

static void run(stream* s) {
  const ie_output output = {sizeof output, 0, s->logits};
  if (ie_run(s->context, &input, &output, 1) != IE_OK) fail("%s", ie_context_message(s->context));
}

static void open_stream(stream* s, char** arguments) {
  char message[IE_MESSAGE_BYTES];
  ie_engine_options options = {.struct_size = sizeof options};
  ie_context_options settings = {.struct_size = sizeof settings};
  options.device = (uint32_t)atoi(arguments[8]);
  options.specialise = (uint32_t)atoi(arguments[9]);
  settings.threads = (uint32_t)atoi(arguments[6]);
  if (ie_engine_load(arguments[1], &options, &s->engine, message) != IE_OK ||
      ie_context_create(s->engine, &settings, &s->context, message) != IE_OK) {
    fail("%s", message);
  }
  ie_output_info info = {.struct_size = sizeof info};
  if (ie_engine_output(s->engine, 0, &info) != IE_OK) fail("the plan has no output");
  logit_count = (size_t)info.channels * info.height * info.width * input.batch;
  s->logits = allocate(logit_count * sizeof(float));
}

static void keep(stream* s, int64_t ns) {
  if (s->count == s->room) {
    s->room = s->room == 0 ? 4096 : 2 * s->room;
    s->ns = realloc(s->ns, s->room * sizeof *s->ns);
    if (s->ns == NULL) fail("out of memory");
  }
  s->ns[s->count++] = ns;
}

static void* repeat(void* argument) {
  stream* s = argument;
  pthread_barrier_wait(&start_line);
  const int64_t end = now() + turn_duration;
  for (;;) {
    const int64_t start = now();
    run(s);
    const int64_t stop = now();
    keep(s, stop - start);
    if (s->count >= turn_most || (stop >= end && s->count >= turn_least)) return NULL;
  }
}

static void* answer_requests(void* argument) {
  stream* s = argument;
  requests* r = &open_loop;
  pthread_barrier_wait(&start_line);
  while (__atomic_load_n(&r->late, __ATOMIC_RELAXED) <= r->most) {
    const size_t number = __atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED);
    if (number >= r->count) return NULL;
    const int64_t ahead = r->begin + r->at[number] - now();
    if (ahead > 0) {
      const struct timespec nap = {ahead / 1000000000, ahead % 1000000000};
      nanosleep(&nap, NULL);
    }
    run(s);
    r->latency[number] = now() - r->begin - r->at[number];
    if (number >= r->first && r->latency[number] > r->bound)
      __atomic_fetch_add(&r->late, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}

/* Every stream in a thread, the first in this one. Returns how long all took. */
static int64_t together(void* (*body)(void*)) {
  for (size_t i = 0; i < stream_count; ++i) streams[i].count = 0;
  const int64_t begin = open_loop.begin = now();
  for (size_t i = 1; i < stream_count; ++i) {
    if (pthread_create(&streams[i].thread, NULL, body, &streams[i]) != 0) fail("cannot start a thread");
  }
  body(&streams[0]);
  for (size_t i = 1; i < stream_count; ++i) pthread_join(streams[i].thread, NULL);
  return now() - begin;
}

static void list(const char* name, const int64_t* ns, size_t count) {
  fprintf(answers, "\"%s\": [", name);
  int first = 1;
  for (size_t i = 0; i < count; ++i) {
    if (ns[i] < 0) continue;
    fprintf(answers, first ? "%lld" : ", %lld", (long long)ns[i]);
    first = 0;
  }
  fputc(']', answers);
}

static void time_command(const char* numbers) {
  long long duration;
  if (sscanf(numbers, "%lld %zu %zu", &duration, &turn_least, &turn_most) != 3) fail("time: what is it?");
  turn_duration = duration;
  const int64_t wall = together(repeat);
  size_t count = 0;
  for (size_t i = 0; i < stream_count; ++i) count += streams[i].count;
  int64_t* all = allocate(count * sizeof *all);
  count = 0;
  for (size_t i = 0; i < stream_count; ++i) {
    memcpy(all + count, streams[i].ns, streams[i].count * sizeof *all);
    count += streams[i].count;
  }
  fputc('{', answers);
  list("ns", all, count);
  fprintf(answers, ", \"wall_ns\": %lld}\n", (long long)wall);
  free(all);
}

static void arrivals_command(char* numbers) {
  const size_t room = strlen(numbers) / 2 + 1;
  int64_t *at = allocate(room * sizeof *at), *latency = allocate(room * sizeof *latency);
  char* end;
  open_loop = (requests){.at = at, .latency = latency};
  open_loop.bound = strtoll(numbers, &end, 10);
  open_loop.most = strtoull(end, &end, 10);
  open_loop.first = strtoull(end, &end, 10);
  for (numbers = end;; numbers = end) {
    const int64_t value = strtoll(numbers, &end, 10);
    if (end == numbers) break;
    latency[open_loop.count] = -1;
    at[open_loop.count++] = value;
  }
  const int64_t wall = together(answer_requests);
  fputc('{', answers);
  list("ns", latency, open_loop.count);
  fprintf(answers, ", \"wall_ns\": %lld}\n", (long long)wall);
  free(at);
  free(latency);
}

static void parts_command(const char* numbers) {
  const int count = atoi(numbers);
  int64_t* compute = allocate((size_t)count * sizeof *compute);
  run(&streams[0]);
  for (int i = 0; i < count; ++i) {
    const int64_t start = now();
    run(&streams[0]);
    compute[i] = now() - start;
  }
  fprintf(answers, "{\"parts\": {");
  list("compute", compute, (size_t)count);
  fprintf(answers, "}}\n");
  free(compute);
}

static void read_images(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail("%s: %s", path, strerror(errno));
  fseek(file, 0, SEEK_END);
  const size_t bytes = (size_t)ftell(file);
  rewind(file);
  void* images = allocate(bytes);
  if (fread(images, 1, bytes, file) != bytes) fail("%s: cannot be read", path);
  fclose(file);
  input.data = images;
}

int main(int argc, char** argv) {
  answers = argc == 11 ? fdopen(atoi(argv[10]), "w") : NULL;
  if (answers == NULL) return 2;
  input = (ie_input){
      .struct_size = sizeof input, .format = (uint32_t)atoi(argv[5]), .batch = (uint32_t)atoi(argv[4])};
  read_images(argv[2]);
  stream_count = (size_t)atoi(argv[7]);
  streams = allocate(stream_count * sizeof *streams);
  memset(streams, 0, stream_count * sizeof *streams);
  pthread_barrier_init(&start_line, NULL, (unsigned)stream_count);
  FILE* logits = fopen(argv[3], "wb");
  if (logits == NULL) fail("%s: %s", argv[3], strerror(errno));

  const int64_t start = now();
  open_stream(&streams[0], argv);
  const int64_t opened = now();
  run(&streams[0]);
  const int64_t first = now();
  for (size_t i = 0; i < stream_count; ++i) {
    if (i > 0) {
      open_stream(&streams[i], argv);
      run(&streams[i]);
    }
    if (fwrite(streams[i].logits, sizeof(float), logit_count, logits) != logit_count)
      fail("cannot write logits");
  }
  fclose(logits);
  fprintf(answers, "{\"import_ns\": 0, \"load_ns\": %lld, \"first_ns\": %lld, \"shape\": [%zu, %zu]}\n",
          (long long)(opened - start), (long long)(first - opened), stream_count * input.batch,
          logit_count / input.batch);
  fflush(answers);

  char* line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0 && strncmp(line, "quit", 4) != 0) {
    if (strncmp(line, "time ", 5) == 0)
      time_command(line + 5);
    else if (strncmp(line, "arrivals ", 9) == 0)
      arrivals_command(line + 9);
    else if (strncmp(line, "parts ", 6) == 0)
      parts_command(line + 6);
    else
      fail("unknown command");
    fflush(answers);
  }
  for (size_t i = 0; i < stream_count; ++i) {
    ie_context_free(streams[i].context);
    ie_engine_free(streams[i].engine);
    free(streams[i].logits);
    free(streams[i].ns);
  }
  free(streams);
  free((void*)input.data);
  free(line);
  return 0;
}
