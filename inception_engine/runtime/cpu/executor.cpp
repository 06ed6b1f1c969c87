#include "executor.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>

#include "counter.h"
#include "half.h"
#include "kernels.h"
#include "parts.h"

namespace ie::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpins = 2000;  // pauses before a wait sleeps: 50 to 100 us, what a wake-up costs
constexpr auto kNap = std::chrono::milliseconds(50);  // a sleeper looks after the abort flag this often

// Zeroed, so that no page is touched for the first time in a run.
Memory allocate_zeroed(const Allocator& allocator, size_t bytes) {
  Memory memory = allocate(allocator, bytes);
  std::memset(memory.get(), 0, bytes);
  return memory;
}

bool runs_on_amx(const Program& program, ie_isa isa) { return isa == IE_ISA_AMX && suits_amx(program); }

// Of offsets in the arena.
size_t scale_of(const Program& program, ie_isa isa) {
  return program.header.dtype == uint32_t(Dtype::kFloat32) || runs_on_amx(program, isa) ? 1 : 2;
}

const Kernels& kernels_of(const Program& program, ie_isa isa) {
  if (runs_on_amx(program, isa)) return kAmxKernels;
  return isa >= IE_ISA_AVX512 ? kAvx512Kernels : isa == IE_ISA_AVX2 ? kAvx2Kernels : kPortableKernels;
}

// A program with its addresses. AMX runs bfloat16 as it is. Else half precision is float32 numbers in an arena of twice the
// size, where every offset is doubled and so all that overlaps still does; weights are widened, sums are float32, and each
// tile is rounded when it is done. That is what AMX computes, but for the order of its sums, and for numbers below
// the normal ones, which AMX takes for zeros.
struct BoundProgram {
  const Program* program;
  const Kernels* kernels;
  size_t scale;  // of offsets
  std::vector<OpView> ops;

  bool is_bfloat16() const { return kernels == &kAmxKernels; }  // not float32

  // Whether a buffer of half precision is float32 numbers, which must be rounded.
  bool widens(uint32_t buffer) const {
    return scale != 1 && program->buffers[buffer].dtype != uint32_t(Dtype::kFloat32);
  }

  // Whether what an op computes must be rounded: what maximum pools choose from was rounded before, unless it is float32.
  bool rounds(const OpRecord& op) const {
    return widens(op.out_buffer) && (op.kind != uint32_t(OpKind::kMaxPool) || !widens(op.in_buffer));
  }
};

BoundProgram bind(const Program& program, ie_isa isa, std::byte* arena, const Weights& weights) {
  BoundProgram bound{&program, &kernels_of(program, isa), scale_of(program, isa), {}};
  const Form form = bound.is_bfloat16() ? Form::kAmx : Form::kFloat32;
  const size_t element_bytes = bound.is_bfloat16() ? sizeof(Bfloat16) : sizeof(float);
  for (const OpRecord& op : program.ops) {
    OpView view{};
    view.record = &op;
    const auto element = [&](uint32_t buffer, uint32_t channel) {
      return arena + bound.scale * program.buffers[buffer].offset + channel * element_bytes;
    };
    if (op.kind != uint32_t(OpKind::kInput)) {
      view.in = element(op.in_buffer, op.in_channel);
      view.in_pitch = program.buffers[op.in_buffer].pitch;
    }
    view.out = element(op.out_buffer, op.out_channel);
    view.out_pitch = program.buffers[op.out_buffer].pitch;
    if (op.kind == uint32_t(OpKind::kConv)) {
      view.weights = weights.of(program, op, form);
      view.panel_bytes = Weights::panel_bytes(op, form);
      view.amx_step = amx_step(op);
      view.bias = reinterpret_cast<const float*>(weights.section() + op.bias_offset);
    } else if (op.kind == uint32_t(OpKind::kInput)) {
      view.weights = weights.section() + op.weight_offset;
    }
    if (op.part_depth != 0) view.parts = reinterpret_cast<float*>(element(op.part_buffer, 0));
    bound.ops.push_back(view);
  }
  return bound;
}

// Rounds a tile to the dtype of its program.
void round(const OpView& view, const Tile& tile, uint32_t dtype) {
  for (size_t row = tile.row; row < size_t(tile.row) + tile.rows; ++row) {
    float* out = static_cast<float*>(view.out) + row * view.out_pitch + tile.column;
    if (dtype == uint32_t(Dtype::kBfloat16)) {
      for (uint32_t i = 0; i < tile.columns; ++i) out[i] = rounded_to_bfloat16(out[i]);
    } else {
      for (uint32_t i = 0; i < tile.columns; ++i) out[i] = rounded_to_float16(out[i]);
    }
  }
}

// Of CLOCK_MONOTONIC, which steady_clock is with glibc.
uint64_t now_ns() { return uint64_t(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count()); }

uint32_t processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? uint32_t(CPU_COUNT(&set)) : 1;
}

}  // namespace

uint64_t arena_bytes(const Program& program, ie_isa isa) {
  return scale_of(program, isa) * program.header.arena_bytes;
}

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
  void make_scratch(const std::vector<const Program*>& programs, uint32_t threads);
  void stop();
  void serve(uint32_t worker);
  bool enter();
  void leave();
  void walk(uint32_t worker);
  bool wait(Counter& counter, uint32_t target, bool bounded);
  void compute(const TaskRecord& task, const Scratch& scratch);
  bool compute_part(const TaskRecord& task, const OpView& view, const Tile& tile);
  void look_ahead(uint32_t task, Scratch& scratch) const;
  void copy_output(const ie_output& output) const;

  const Settings settings_;
  const int spins_;
  Memory arena_, scratch_memory_;
  size_t arena_bytes_ = 0;
  const std::shared_ptr<Weights> weights_;
  std::vector<BoundProgram> programs_;
  std::vector<Scratch> scratch_;  // one per worker

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
    const bool amx = runs_on_amx(*program, settings.isa);
    weights_->make(amx ? Form::kAmx : Form::kFloat32, kernels_of(*program, settings.isa));
  }
  arena_ = allocate_zeroed(settings.allocator, arena_bytes_);
  counters_ = std::vector<Counter>(counters);
  for (const Program* program : programs) {
    programs_.push_back(bind(*program, settings.isa, arena_.get(), *weights_));
  }
  make_scratch(programs, settings.threads);
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

void Executor::Machine::make_scratch(const std::vector<const Program*>& programs, uint32_t threads) {
  size_t table = kMinTable, line = 0, zeros = 0, patches = 0, pooled = 0, steps = 0;  // steps of K by AMX
  for (const Program* program : programs) {
    const bool amx = runs_on_amx(*program, settings_.isa);
    for (const OpRecord& op : program->ops) {
      if (op.kind == uint32_t(OpKind::kConv)) {
        table = std::max(table, kMaxBlockRows * taps(op));
        zeros = std::max<size_t>(zeros, op.in_channels);
        if (amx) {
          steps = std::max(steps, amx_steps(op));
        } else if (op.flags & kWinograd) {
          patches = std::max(patches, 2 * size_t{patch_size(op)} * patch_size(op) *
                                          (size_t(op.in_channels) + kWidestGroup + kPanel));
        }
      } else if (op.kind == uint32_t(OpKind::kSoftmax)) {
        line = std::max<size_t>(line, op.in_channels);
      }
      if (op.flags & kMaxPoolFirst) {
        pooled = std::max(pooled, kPooledRows * (size_t{op.in_channels} * sizeof(float) / 64 + 2) * 64);
      }
      if (has_pool(op)) {
        line = std::max(line, size_t(std::min(op.in_w, kPoolPixels)) * kPoolColumns);
      }
      if (has_lrn(op)) {
        line = std::max({line, kLrnSquares, size_t(op.out_channels) + op.lrn_size + 2 * kPanel});
      }
    }
  }
  const auto pad = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  const size_t inside = pad(kTableRows * sizeof(uint64_t));
  if (patches != 0) patches = std::max(patches, kMinPatches);
  const size_t shared = std::max(pad(patches * sizeof(float)), pooled);
  // An odd number of cache lines, so that rows do not meet in one set of a cache.
  const size_t gathered_pitch = steps == 0 ? 0 : (steps | 1) * kAmxStep;
  const size_t gathered = pad(kMaxBlockRows * gathered_pitch * sizeof(Bfloat16));
  const size_t amx_rows = pad(2 * steps * sizeof(AmxRows));
  const size_t each =
      pad(table * sizeof(void*)) + inside + pad(line * sizeof(float)) + shared + gathered + amx_rows;
  const size_t zero_bytes = pad(zeros * sizeof(float));
  scratch_memory_ = allocate_zeroed(settings_.allocator, zero_bytes + threads * each);
  std::byte* next = scratch_memory_.get();
  const auto take = [&next](auto*& pointer, size_t bytes) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next);
    next += bytes;
  };
  Scratch scratch{};
  take(scratch.zeros, zero_bytes);
  scratch.table_entries = table;
  scratch.patch_floats = patches;
  scratch.gathered_pitch = gathered_pitch;
  scratch.input = &input_;
  for (uint32_t worker = 0; worker < threads; ++worker) {
    take(scratch.table, pad(table * sizeof(void*)));
    take(scratch.inside, inside);
    take(scratch.line, pad(line * sizeof(float)));
    take(scratch.patches, shared);
    scratch.pooled = scratch.patches;
    take(scratch.gathered, gathered);
    take(scratch.amx_rows, amx_rows);
    scratch_.push_back(scratch);
  }
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

// Chooses the weights to fetch during `task`: those of the convolution tile as many further on as there are
// workers, which this worker will most often take. They come from memory at a fraction of the rate at which
// the first rows of a tile consume them; fetched ahead, the 7x7 modules run a tenth faster.
void Executor::Machine::look_ahead(uint32_t task, Scratch& scratch) const {
  constexpr uint32_t kHorizon = 32;  // tasks
  const std::vector<TaskRecord>& tasks = current_->program->tasks;
  const uint32_t end = uint32_t(std::min<size_t>(tasks.size(), size_t(task) + kHorizon));
  const auto is_convolution = [&](uint32_t i) {
    return tasks[i].op != kNone && current_->program->ops[tasks[i].op].kind == uint32_t(OpKind::kConv);
  };
  scratch.ahead = {};
  if (!is_convolution(task)) return;
  size_t others = scratch_.size();
  for (uint32_t next = task + 1; next < end; ++next) {
    if (!is_convolution(next) || --others > 0) continue;
    const TaskRecord &here = tasks[task], &there = tasks[next];
    if (there.op == here.op && there.column == here.column) return;  // they are in use
    const OpView& view = current_->ops[there.op];
    const OpRecord& op = *view.record;
    const size_t panel_floats = view.panel_bytes / sizeof(float);
    const uint32_t columns = std::min(op.tile_columns, op.out_padded - there.column);
    scratch.ahead = {static_cast<const float*>(view.weights) + there.column / kPanel * panel_floats,
                     (columns + kPanel - 1) / kPanel * panel_floats / kPanel};
    return;
  }
}

// One part of K of a tile; who comes last adds the parts up. Returns whether the tile is finished.
bool Executor::Machine::compute_part(const TaskRecord& task, const OpView& view, const Tile& tile) {
  const OpRecord& op = *view.record;
  const uint64_t count = part_count(op), number = tile_number(op, task.row, task.column);
  const size_t size = size_t{op.tile_rows} * op.tile_columns;
  float* parts = view.parts + number * count * size;
  sum_part(view, tile, task.part, parts + task.part * size);
  std::atomic<uint32_t>& arrived = counters_[op.first_arrival + number].value;
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 != count) return false;
  add_parts(view, tile, parts, count);
  return true;
}

void Executor::Machine::compute(const TaskRecord& task, const Scratch& scratch) {
  const OpView& view = current_->ops[task.op];
  const OpRecord& op = *view.record;
  const uint64_t rows = uint64_t(input_.batch) * op.out_h * op.out_w;
  if (task.row >= rows) return;  // of an image that this batch does not have
  const Tile tile = {task.row, uint32_t(std::min<uint64_t>(op.tile_rows, rows - task.row)), task.column,
                     std::min(op.tile_columns, op.out_padded - task.column)};
  const Kernels& kernels = *current_->kernels;
  const uint32_t dtype = current_->program->header.dtype;
  if (op.part_depth == 0) {
    (op.flags & kWinograd       ? kernels.winograd
     : op.flags & kMaxPoolFirst ? kernels.behind_pool
                                : kernels.by_kind[op.kind])(view, tile, scratch);
  } else if (!compute_part(task, view, tile)) {
    return;
  }
  if (current_->rounds(op)) round(view, tile, dtype);
  if (op.flags & kThenLrn) {
    OpView in_place = view;
    in_place.in = view.out;
    in_place.in_pitch = view.out_pitch;
    kernels.by_kind[uint32_t(OpKind::kLrn)](in_place, tile, scratch);
    if (current_->widens(op.out_buffer)) round(view, tile, dtype);
  }
}

// Takes tasks by ticket until the program is done. The lowest unfinished task is always held by a worker and
// waits for lower ones only, so any number of workers makes progress.
void Executor::Machine::walk(uint32_t worker) {
  const Program& program = *current_->program;
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
      look_ahead(launch.first_task + next, scratch_[worker]);
      if (task.op != kNone) compute(task, scratch_[worker]);
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

void Executor::Machine::copy_output(const ie_output& output) const {
  const OutputRecord& record = current_->program->outputs[output.index];
  const BufferRecord& buffer = current_->program->buffers[record.buffer];
  const std::byte* memory = arena_.get() + current_->scale * buffer.offset;
  const auto copy = [&](auto* in, auto number) {
    float* out = output.data;
    in += record.channel;
    for (uint32_t image = 0; image < input_.batch; ++image, in += size_t(buffer.rows) * buffer.pitch) {
      for (uint32_t channel = 0; channel < record.channels; ++channel) {
        for (uint32_t row = 0; row < buffer.rows; ++row)
          *out++ = number(in[size_t(row) * buffer.pitch + channel]);
      }
    }
  };
  if (current_->is_bfloat16()) {
    copy(reinterpret_cast<const Bfloat16*>(memory), [](Bfloat16 value) { return from_bfloat16(value.bits); });
  } else {
    copy(reinterpret_cast<const float*>(memory), [](float value) { return value; });
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
  for (uint32_t i = 0; i < count; ++i) copy_output(outputs[i]);
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
