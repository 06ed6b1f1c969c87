// Engines shared by many threads, contexts of each thread's own, the first of an engine by all threads at once, and both
// made and freed all the time; built with the thread sanitiser, which reports what is not ordered.
//
//   threads THREADS RUNS PLAN
//
// RUNS inferences in all. Each result must be the bits of the first one. Prints one line.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "include/inception_engine.h"

namespace {

using Values = std::vector<float>;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "failed: %s\n", what);
  std::_Exit(1);
}
void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

struct Shape {
  uint32_t batch;
  size_t image, output;  // values of one
};

ie_engine* load(const std::vector<char>& plan) {
  ie_engine* engine = nullptr;
  char message[IE_MESSAGE_BYTES];
  require(ie_engine_load_memory(plan.data(), plan.size(), nullptr, &engine, message) == IE_OK, message);
  return engine;
}

ie_context* make_context(ie_engine* engine, uint32_t threads) {
  ie_context_options options{};
  options.struct_size = sizeof options;
  options.threads = threads;
  ie_context* context = nullptr;
  char message[IE_MESSAGE_BYTES];
  require(ie_context_create(engine, &options, &context, message) == IE_OK, message);
  return context;
}

Values run(ie_context* context, const Shape& shape, uint32_t batch) {
  Values image(batch * shape.image), result(batch * shape.output);
  for (size_t i = 0; i < image.size(); ++i) image[i] = float(i % 13) - 6;
  ie_input input{};
  input.struct_size = sizeof input;
  input.format = IE_FLOAT32_NCHW;
  input.batch = batch;
  input.data = image.data();
  ie_output output{};
  output.struct_size = sizeof output;
  output.data = result.data();
  require(ie_run(context, &input, &output, 1) == IE_OK, ie_context_message(context));
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int threads = std::atoi(argv[1]);
  const long runs = std::atol(argv[2]);
  std::vector<char> plan;
  FILE* file = std::fopen(argv[3], "rb");
  if (file == nullptr) return 2;
  for (int c; (c = std::fgetc(file)) != EOF;) plan.push_back(char(c));
  std::fclose(file);

  ie_engine* shared = load(plan);
  ie_engine_info info{};
  info.struct_size = sizeof info;
  ie_engine_describe(shared, &info);
  ie_output_info output{};
  output.struct_size = sizeof output;
  ie_engine_output(shared, 0, &output);
  const Shape shape = {info.max_batch, size_t{info.channels} * info.height * info.width,
                       size_t{output.channels} * output.height * output.width};
  std::vector<Values> expected(1);
  ie_context* first = make_context(shared, 1);
  for (uint32_t batch = 1; batch <= shape.batch; ++batch) expected.push_back(run(first, shape, batch));
  ie_context_free(first);

  ie_engine* fresh = load(plan);  // whoever makes its first context makes its weights
  std::atomic<long> done{0}, contexts{0}, engines{0};
  const auto work = [&](uint32_t seed) {
    ie_context* among_the_first = make_context(fresh, 1 + seed % 2);
    ++contexts;
    require(run(among_the_first, shape, 1) == expected[1], "a result changed");
    ie_context_free(among_the_first);
    uint32_t random = seed * 2654435761u + 1;
    const auto below = [&random](uint32_t n) {
      return (random = random * 1664525u + 1013904223u) / 65536 % n;
    };
    while (done.load(std::memory_order_relaxed) < runs) {
      ie_engine* own = below(4) == 0 ? load(plan) : nullptr;
      ie_context* context = make_context(own != nullptr ? own : shared, 1 + below(3));
      ++contexts;
      engines += own != nullptr;
      if (below(2) == 0) ie_engine_free(own), own = nullptr;  // before its context
      for (uint32_t i = below(24) + 1; i > 0 && done.fetch_add(1, std::memory_order_relaxed) < runs; --i) {
        const uint32_t batch = below(shape.batch) + 1;
        require(run(context, shape, batch) == expected[batch], "a result changed");
      }
      ie_context_free(context);
      ie_engine_free(own);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back(work, uint32_t(i));
  for (std::thread& worker : workers) worker.join();
  ie_engine_free(shared);
  ie_engine_free(fresh);
  std::printf("threads: %d, inferences: %ld, contexts: %ld, engines: %ld\n", threads, runs, contexts.load(),
              engines.load() + 2);
  return 0;
}
