// What the C API adds to the executor behind it, what a second context adds to the first, and what loading adds to
// reading a file. See calling.py.
//
//   calling PLAN overhead PAIRS     one call of ie_run and one of the bare executor, in turns, alternately first
//   calling PLAN contexts SECONDS   runs of one context, and of two at once, each of one thread
//   calling PLAN load TIMES         loads with proof, and reads of the file into fresh memory, in turns
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "api.h"

namespace {

double now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + long(values.size() / 2), values.end());
  return values[values.size() / 2];
}

struct Caller {
  ie_context* context = nullptr;
  std::vector<float> image, logits;
  ie_input input{};
  ie_output output{};

  explicit Caller(ie_engine* engine) {
    ie_engine_info info{};
    info.struct_size = sizeof info;
    ie_engine_describe(engine, &info);
    ie_context_options options{};
    options.struct_size = sizeof options;
    options.threads = 1;
    char message[IE_MESSAGE_BYTES];
    if (ie_context_create(engine, &options, &context, message) != IE_OK) {
      std::fprintf(stderr, "%s\n", message);
      std::exit(1);
    }
    image.resize(size_t{info.channels} * info.height * info.width, 0.5f);
    logits.resize(info.classes);
    input = {sizeof input, IE_FLOAT32_NCHW, 1, image.data()};
    output = {sizeof output, 0, logits.data()};
  }
  ~Caller() { ie_context_free(context); }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  void run() {
    if (ie_run(context, &input, &output, 1) != IE_OK) std::exit(1);
  }
  void run_bare() {
    if (context->cpu->run(0, input, &output, 1, context->message) != IE_OK) std::exit(1);
  }
};

void overhead(ie_engine* engine, int pairs) {
  Caller caller(engine);
  std::vector<double> called, bare, between;
  for (int i = -1000; i < pairs; ++i) {  // the first are not counted
    const bool bare_first = i % 2 == 0;
    const double start = now(CLOCK_MONOTONIC);
    bare_first ? caller.run_bare() : caller.run();
    const double middle = now(CLOCK_MONOTONIC);
    bare_first ? caller.run() : caller.run_bare();
    const double end = now(CLOCK_MONOTONIC);
    if (i < 0) continue;
    called.push_back(bare_first ? end - middle : middle - start);
    bare.push_back(bare_first ? middle - start : end - middle);
    between.push_back(called.back() - bare.back());
  }
  std::printf("{\"ie_run\": %.9f, \"executor\": %.9f, \"difference\": %.9f, \"difference_of_pairs\": %.9f}\n",
              median(called), median(bare), median(called) - median(bare), median(between));
}

// How many runs `count` contexts make per second, each at least one, and the processor time of one run.
void turn(ie_engine* engine, int count, double seconds, double* per_second, double* cpu_per_run) {
  std::vector<std::thread> threads;
  std::vector<long> runs(static_cast<size_t>(count));
  std::vector<double> took(static_cast<size_t>(count)), used(static_cast<size_t>(count));
  std::atomic<int> ready{0};
  for (size_t i = 0; i < size_t(count); ++i) {
    threads.emplace_back([&, i] {
      Caller caller(engine);
      caller.run();
      ++ready;
      while (ready < count) std::this_thread::yield();
      const double start = now(CLOCK_MONOTONIC), before = now(CLOCK_THREAD_CPUTIME_ID);
      do {
        caller.run();
        ++runs[i];
        took[i] = now(CLOCK_MONOTONIC) - start;
      } while (took[i] < seconds);
      used[i] = now(CLOCK_THREAD_CPUTIME_ID) - before;
    });
  }
  for (std::thread& thread : threads) thread.join();
  long all = 0;
  double cpu = 0;
  *per_second = 0;
  for (size_t i = 0; i < size_t(count); ++i) {
    all += runs[i];
    cpu += used[i];
    *per_second += double(runs[i]) / took[i];
  }
  *cpu_per_run = cpu / double(all);
}

void contexts(ie_engine* engine, double seconds) {
  constexpr int kRounds = 9;
  std::vector<double> wall, cpu;
  for (int round = 0; round < kRounds; ++round) {
    double one, two, cpu_of_one, cpu_of_two;
    turn(engine, 1, seconds / kRounds / 2, &one, &cpu_of_one);
    turn(engine, 2, seconds / kRounds / 2, &two, &cpu_of_two);
    wall.push_back(two / one);
    cpu.push_back(2 * cpu_of_one / cpu_of_two);
  }
  const auto [least, most] = std::minmax_element(wall.begin(), wall.end());
  std::printf("{\"ratio\": %.3f, \"least\": %.3f, \"most\": %.3f, \"ratio_by_processor_time\": %.3f}\n",
              median(wall), *least, *most, median(cpu));
}

double read_alone(const char* path) {
  const double start = now(CLOCK_MONOTONIC);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (file < 0 || fstat(file, &status) != 0) std::exit(1);
  void* const memory = std::malloc(size_t(status.st_size));
  if (memory == nullptr || read(file, memory, size_t(status.st_size)) != status.st_size) std::exit(1);
  const double end = now(CLOCK_MONOTONIC);
  std::free(memory);
  close(file);
  return end - start;
}

void load(const char* path, int times) {
  std::vector<double> loads, reads, ratios;
  for (int i = -2; i < times; ++i) {  // the first are not counted
    char message[IE_MESSAGE_BYTES];
    ie_engine* engine = nullptr;
    const double start = now(CLOCK_MONOTONIC);
    if (ie_engine_load(path, nullptr, &engine, message) != IE_OK) std::exit(1);
    const double loaded = now(CLOCK_MONOTONIC) - start;
    ie_engine_free(engine);
    const double alone = read_alone(path);
    if (i < 0) continue;
    loads.push_back(loaded);
    reads.push_back(alone);
    ratios.push_back(loaded / alone);
  }
  const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  std::printf("{\"load\": %.6f, \"read\": %.6f, \"ratio\": %.3f, \"least\": %.3f, \"most\": %.3f}\n",
              median(loads), median(reads), median(ratios), *least, *most);
}

}  // namespace

int main(int argc, char** argv) {
  char message[IE_MESSAGE_BYTES];
  ie_engine* engine = nullptr;
  if (argc != 4) return 2;
  if (ie_engine_load(argv[1], nullptr, &engine, message) != IE_OK) {
    std::fprintf(stderr, "%s\n", message);
    return 1;
  }
  if (std::strcmp(argv[2], "overhead") == 0) {
    overhead(engine, std::atoi(argv[3]));
  } else if (std::strcmp(argv[2], "load") == 0) {
    load(argv[1], std::atoi(argv[3]));
  } else {
    contexts(engine, std::atof(argv[3]));
  }
  ie_engine_free(engine);
  return 0;
}
