#include "executor.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <system_error>
#include <thread>

#include "counter.h"
#include "scratch.h"

namespace ie::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpins = 2000;  // pauses before a wait sleeps: 50 to 100 us, what a wake-up costs
constexpr auto kNap = std::chrono::milliseconds(50);  // a sleeper looks after the abort flag this often

// Of CLOCK_MONOTONIC, which steady_clock is with glibc.
uint64_t now_ns() { return uint64_t(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count()); }

uint32_t processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? uint32_t(CPU_COUNT(&set)) : 1;
}

}  // namespace

// Threads and memory. Worker 0 is the thread that calls run().
class Executor::Machine {
 public:
  Machine(const std::vector<const Program*>& programs, std::shared_ptr<Weights> weights,
          const Settings& settings);
  ~Machine();
  ie_status run(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
                char* message);
  void trace(uint64_t* times, size_t count) {
    times_ = times;
    timed_ = count;
  }

 private:
  void stop();
  void serve(uint32_t worker);
  bool enter();
  void leave();
  void walk(uint32_t worker);
  bool wait(Counter& counter, uint32_t target, bool bounded);

  const Settings settings_;
  const int spins_;
  Memory arena_;
  size_t arena_bytes_ = 0;
  const std::shared_ptr<Weights> weights_;
  std::vector<BoundProgram> programs_;
  ScratchMemory scratch_;

  // Of the current run; written before the gate opens.
  const BoundProgram* current_ = nullptr;
  ie_input input_{};
  uint64_t* times_ = nullptr;  // four numbers for each of the first `timed_` tasks, see ie_context_trace
  size_t timed_ = 0;

  // The program's counters, then a ticket and a count of finished tasks for each launch. They are cleared by
  // run() while no worker is inside: 64 bytes each, some 10 us in a run of milliseconds, and no second bank.
  std::vector<Counter> counters_;
  std::atomic<bool> aborted_{false};  // sticky: a wait passed its bound
  std::atomic<bool> stopping_{false};

  // A run is open to workers while kOpen is set in the gate; its other bits count the workers inside. So a
  // run does not end before every worker inside has left, and does not wait for one that never woke up.
  static constexpr uint32_t kOpen = 0x80000000u;
  Counter runs_;  // started so far; idle workers wait for the next
  alignas(64) std::atomic<uint32_t> gate_{0};
  std::vector<std::thread> threads_;
};

Executor::Machine::Machine(const std::vector<const Program*>& programs, std::shared_ptr<Weights> weights,
                           const Settings& settings)
    : settings_(settings),
      spins_(settings.threads <= processors() ? kSpins : 1),
      weights_(std::move(weights)) {
  size_t counters = 0;
  for (const Program* program : programs) {
    const ProgramHeader& header = program->header;
    arena_bytes_ = std::max<size_t>(arena_bytes_, arena_bytes(*program, settings.isa));
    counters = std::max<size_t>(counters, header.counter_count + 2 * size_t(header.launch_count));
  }
  for (const Program* program : programs) {
    weights_->make(form_of(*program, settings.isa), kernels_of(*program, settings.isa));
  }
  arena_ = allocate_zeroed(settings.allocator, arena_bytes_);
  counters_ = std::vector<Counter>(counters);
  for (const Program* program : programs) {
    programs_.emplace_back(*program, settings.isa, arena_.get(), *weights_);
  }
  scratch_ = make_scratch(programs, settings.isa, settings.threads, settings.allocator, &input_);
  threads_.reserve(settings.threads - 1);
  try {
    for (uint32_t i = 1; i < settings.threads; ++i) threads_.emplace_back(&Machine::serve, this, i);
  } catch (...) {
    stop();
    throw;
  }
}

Executor::Machine::~Machine() { stop(); }

void Executor::Machine::stop() {
  stopping_ = true;
  runs_.add(1);
  for (std::thread& thread : threads_) thread.join();
}

// Spins a little, then sleeps. False when the run was aborted, or `bounded` and the bound has passed.
bool Executor::Machine::wait(Counter& counter, uint32_t target, bool bounded) {
  for (int i = 0; i < spins_; ++i) {
    if (counter.reached(target)) return true;
    _mm_pause();
  }
  const std::chrono::milliseconds bound(settings_.timeout_ms);
  std::chrono::nanoseconds slept(0);
  while (!counter.reached(target)) {
    if (bounded) {
      if (aborted_) return false;
      if (slept >= bound) {
        aborted_ = true;
        return false;
      }
    }
    const Clock::time_point start = Clock::now();
    counter.sleep(target, bounded ? std::min<std::chrono::nanoseconds>(bound, kNap) : std::chrono::hours(1));
    // The time for which a process was stopped is not time in which others could have made progress.
    slept += std::min<std::chrono::nanoseconds>(Clock::now() - start, 2 * kNap);
  }
  return true;
}

// Takes tasks by ticket until the program is done. The lowest unfinished task is always held by a worker and
// waits for lower ones only, so any number of workers makes progress.
void Executor::Machine::walk(uint32_t worker) {
  const Program& program = current_->program();
  Scratch& scratch = scratch_.workers[worker];
  Counter* ticket = counters_.data() + program.header.counter_count;
  for (const LaunchRecord& launch : program.launches) {
    uint32_t finished = 0, next;
    while ((next = ticket[0].value.fetch_add(1, std::memory_order_relaxed)) < launch.task_count) {
      const TaskRecord& task = program.tasks[launch.first_task + next];
      const size_t number = launch.first_task + next;
      uint64_t* const time = number < timed_ ? times_ + 4 * number : nullptr;
      if (time != nullptr) time[0] = now_ns();
      for (uint32_t i = 0; i < task.wait_count; ++i) {
        const WaitRecord& wait_for = program.waits[task.wait_begin + i];
        if (!wait(counters_[wait_for.counter], wait_for.target, true)) return;
      }
      if (aborted_.load(std::memory_order_relaxed)) return;
      if (time != nullptr) time[1] = now_ns();
      scratch.ahead = current_->weights_ahead(launch.first_task + next, scratch_.workers.size());
      if (task.op != kNone) current_->compute(task, input_.batch, counters_.data(), scratch);
      if (time != nullptr) {
        time[2] = now_ns();
        time[3] = worker;
      }
      if (task.signal != kNone) counters_[task.signal].add(1);
      ++finished;
    }
    if (finished != 0) ticket[1].add(finished);
    if (!wait(ticket[1], launch.task_count, true)) return;
    ticket += 2;
  }
}

bool Executor::Machine::enter() {
  uint32_t gate = gate_.load();
  while (gate & kOpen) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) return true;
  }
  return false;
}

void Executor::Machine::leave() {
  if (gate_.fetch_sub(1) == 1) futex_wake(gate_);
}

void Executor::Machine::serve(uint32_t worker) {
  for (uint32_t seen = 0;;) {
    wait(runs_, seen + 1, false);
    if (stopping_) return;
    seen = runs_.value.load();
    if (enter()) {
      walk(worker);
      leave();
    }
  }
}

ie_status Executor::Machine::run(uint32_t program, const ie_input& input, const ie_output* outputs,
                                 uint32_t count, char* message) {
  if (!aborted_) {
    current_ = &programs_[program];
    input_ = input;
    if (settings_.poison) std::memset(arena_.get(), 0xFF, arena_bytes_);  // every float a NaN
    for (Counter& counter : counters_) counter.value.store(0, std::memory_order_relaxed);
    if (!threads_.empty()) {
      gate_.store(kOpen);
      runs_.add(1);
    }
    walk(0);
    for (uint32_t inside = gate_.fetch_and(~kOpen) & ~kOpen; inside != 0; inside = gate_.load()) {
      for (int i = 0; i < spins_ && gate_.load() != 0; ++i) _mm_pause();
      if (gate_.load() == inside) futex_wait(gate_, inside, nullptr);
    }
  }
  if (aborted_) {
    std::snprintf(message, IE_MESSAGE_BYTES,
                  "a wait inside a run passed its bound of %u ms; the context is spent",
                  settings_.timeout_ms);
    return IE_ERROR_TIMEOUT;
  }
  for (uint32_t i = 0; i < count; ++i) current_->copy_output(outputs[i], input_.batch);
  return IE_OK;
}

Executor::Executor(std::unique_ptr<Machine> machine) : machine_(std::move(machine)) {}

Executor::~Executor() = default;

ie_status Executor::create(const std::vector<const Program*>& programs, std::shared_ptr<Weights> weights,
                           const Settings& settings, std::unique_ptr<Executor>* out, std::string* error) {
  try {
    out->reset(new Executor(std::make_unique<Machine>(programs, std::move(weights), settings)));
    return IE_OK;
  } catch (const std::system_error&) {
    *error = "cannot start " + std::to_string(settings.threads) + " threads";
    return IE_ERROR_THREAD;
  } catch (const std::exception&) {  // bad_alloc, or length_error from a vector
    *error = "not enough memory for the activations and weights of a context";
    return IE_ERROR_MEMORY;
  }
}

ie_status Executor::run(uint32_t program, const ie_input& input, const ie_output* outputs, uint32_t count,
                        char* message) {
  return machine_->run(program, input, outputs, count, message);
}

void Executor::trace(uint64_t* times, size_t count) { machine_->trace(times, count); }

}  // namespace ie::cpu
