/* Serves frames over TCP on the loopback interface. A frame is its length and its pixels, the answer its length and the
 * logits; lengths are uint32. Each thread has a context, and serves one connection after the other. SIGTERM ends it.
 *
 *   gcc -std=c99 -D_POSIX_C_SOURCE=200809L server.c -linception_engine -pthread -o server
 *   ./server googlenet.plan 2 7000      # threads, port; port 0 takes a free one, and the first line says which
 */
#include <arpa/inet.h>
#include <inception_engine.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { MOST_THREADS = 64, PATIENCE = 5 /* seconds, of each recv and each send: not of a whole frame */ };

static ie_engine* engine;
static ie_engine_info info;
static int listener;
static volatile sig_atomic_t stopping;

static int receive_all(int connection, void* to, size_t bytes) {
  for (char* next = to; bytes > 0;) {
    const ssize_t got = recv(connection, next, bytes, 0);
    if (got <= 0) return 0;
    next += got, bytes -= (size_t)got;
  }
  return 1;
}

static int send_all(int connection, const void* from, size_t bytes) {
  for (const char* next = from; bytes > 0;) {
    const ssize_t sent = send(connection, next, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return 0;
    next += sent, bytes -= (size_t)sent;
  }
  return 1;
}

/* Until the client goes, is silent for too long or sends what is no frame; or the server stops, after a frame. */
static void serve(int connection, ie_context* context, uint8_t* frame, float* logits) {
  const struct timeval patience = {PATIENCE, 0};
  const uint32_t frame_bytes = info.height * info.width * info.channels;
  const uint32_t answer_bytes = info.classes * (uint32_t)sizeof *logits;
  const ie_input input = {sizeof input, IE_UINT8_NHWC, 1, frame};
  const ie_output output = {sizeof output, 0, logits};
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  for (uint32_t length; !stopping && receive_all(connection, &length, sizeof length);) {
    if (length != frame_bytes || !receive_all(connection, frame, frame_bytes)) return;
    if (ie_run(context, &input, &output, 1) != IE_OK) {
      fprintf(stderr, "server: %s\n", ie_context_message(context));
      return;
    }
    if (!send_all(connection, &answer_bytes, sizeof answer_bytes) ||
        !send_all(connection, logits, answer_bytes)) {
      return;
    }
  }
}

static void* work(void* context) {
  uint8_t* frame = malloc((size_t)info.height * info.width * info.channels);
  float* logits = malloc(info.classes * sizeof *logits);
  while (frame != NULL && logits != NULL && !stopping) {
    const int connection = accept(listener, NULL, NULL);
    if (connection >= 0) {
      serve(connection, context, frame, logits), close(connection);
    } else if (!stopping) { /* the client is gone, or there are too many files: once more, later */
      perror("server: accept"), sleep(1);
    }
  }
  free(frame), free(logits);
  ie_context_free(context);
  return NULL;
}

static int fail(const char* why) { return fprintf(stderr, "server: %s\n", why), 2; }

int main(int argc, char** argv) {
  if (argc != 4) return fail("usage: server PLAN THREADS PORT");
  const int wanted = atoi(argv[2]);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
  socklen_t size = sizeof address;
  char message[IE_MESSAGE_BYTES];
  if (wanted < 1 || wanted > MOST_THREADS) return fail("1 to 64 threads");
  if (ie_engine_load(argv[1], NULL, &engine, message) != IE_OK) return fail(message);
  info.struct_size = sizeof info;
  ie_engine_describe(engine, &info);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr*)&address, size) != 0 || listen(listener, 64) != 0) {
    return fail("the port is taken");
  }
  getsockname(listener, (struct sockaddr*)&address, &size);

  sigset_t stop; /* threads inherit it, so that it comes to sigwait alone */
  sigemptyset(&stop), sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, NULL);
  pthread_t threads[MOST_THREADS];
  const ie_context_options one = {sizeof one, 1, IE_ISA_AUTO, 0, 0};
  for (int i = 0; i < wanted; ++i) {
    ie_context* context;
    if (ie_context_create(engine, &one, &context, message) != IE_OK) return fail(message);
    if (pthread_create(&threads[i], NULL, work, context) != 0) return fail("no thread");
  }
  printf("port %u\n", ntohs(address.sin_port)), fflush(stdout);
  int signal_number;
  sigwait(&stop, &signal_number);
  stopping = 1;
  shutdown(listener, SHUT_RDWR);
  for (int i = 0; i < wanted; ++i) pthread_join(threads[i], NULL);
  close(listener);
  ie_engine_free(engine);
  return 0;
}
