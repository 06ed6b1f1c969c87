#include "order.h"

#include <algorithm>
#include <cstdint>

#include "extents.h"
#include "limits.h"
#include "refusal.h"

namespace ie::proof {
namespace {

// How many tasks of which op signal a counter. Those of counter c are list[first[c]] up to first[c + 1], or up to one
// without tasks.
struct Share {
  uint32_t op, tasks;
};
struct Shares {
  std::vector<uint32_t> first;
  std::vector<Share> list;
};

Shares share_counters(const Program& p, const std::vector<uint32_t>& signals) {
  Shares shares{std::vector<uint32_t>(p.header.counter_count + 1), {}};
  for (uint32_t c = 0; c < p.header.counter_count; ++c) {
    shares.first[c + 1] = shares.first[c] + std::min(signals[c], kMaxOpsPerCounter);
  }
  shares.list.resize(shares.first.back());
  for (uint64_t t = 0; t < p.tasks.size(); ++t) {
    const TaskRecord& task = p.tasks[t];
    if (task.op == kNone || task.signal == kNone) continue;
    uint32_t s = shares.first[task.signal];
    const uint32_t end = shares.first[task.signal + 1];
    while (s < end && shares.list[s].tasks != 0 && shares.list[s].op != task.op) ++s;
    require_task(s < end, t, IE_PLAN_WORK, "too many ops signal its counter");
    shares.list[s].op = task.op;
    ++shares.list[s].tasks;
  }
  return shares;
}

// The input line, counted over the whole batch, that tap `tap` of an output row reads; clipped into its image.
uint64_t line(const OpRecord& op, uint64_t row, uint32_t tap) {
  const uint64_t y = row / op.out_w % op.out_h, image = row / op.out_w / op.out_h;
  const uint64_t shifted = y * op.stride_h + tap;
  const uint64_t inside = shifted < op.pad_top ? 0 : std::min<uint64_t>(shifted - op.pad_top, op.in_h - 1);
  return image * op.in_h + inside;
}

// Goes through the tasks in order and knows of each which ops are complete when it begins.
class Order {
 public:
  Order(const Program& p, const Writers& writers, const Schedule& schedule, const std::vector<OpSet>& needed)
      : p_(p),
        writers_(writers),
        schedule_(schedule),
        needed_(needed),
        words_(words_of_set(p.ops.size())),
        complete_at_(p.header.counter_count * words_),
        shares_(share_counters(p, schedule.signals)),
        waited_by_(p.header.counter_count, kNone),
        counted_by_(p.ops.size(), kNone),
        counted_(p.ops.size()),
        complete_(p.ops.size()),
        steps_(64 * (p.tasks.size() + p.waits.size()) + (uint64_t{1} << 16)) {}

  void prove() {
    OpSet launched(p_.ops.size());
    size_t launch = 0;
    for (uint32_t t = 0; t < p_.tasks.size(); ++t) {
      const TaskRecord& task = p_.tasks[t];
      if (t == uint64_t{p_.launches[launch].first_task} + p_.launches[launch].task_count) {
        ++launch;
        for (uint32_t i = 0; i < p_.ops.size(); ++i) {
          if (schedule_.tiles[i].launch < launch) launched.add(i);
        }
      }
      complete_ = launched;
      pass_waits(t, task);
      if (task.op != kNone) {
        reads_are_done(t, task);
        const OpRecord& op = p_.ops[task.op];
        reused_is_free(t, op.out_buffer);
        if (op.part_depth != 0) reused_is_free(t, op.part_buffer);
      }
      if (task.signal != kNone) {
        uint64_t* at = &complete_at_[task.signal * words_];
        for (size_t i = 0; i < words_; ++i) at[i] |= complete_.words[i];
      }
    }
  }

 private:
  // Rule 4, and what is complete behind the waits of a task.
  void pass_waits(uint32_t t, const TaskRecord& task) {
    for (uint64_t w = task.wait_begin; w < uint64_t{task.wait_begin} + task.wait_count; ++w) {
      const WaitRecord& wait = p_.waits[w];
      require_task(wait.counter < p_.header.counter_count, t, IE_PLAN_VALUE,
                   "waits for a counter that does not exist");
      require_task(wait.target == schedule_.signals[wait.counter] && wait.target > 0, t, IE_PLAN_COUNTER,
                   "a wait's target is not the number of its counter's signals");
      require_task(schedule_.last_signal[wait.counter] < t, t, IE_PLAN_ORDER,
                   "waits for itself or a later task");
      if (waited_by_[wait.counter] == t) continue;
      waited_by_[wait.counter] = t;
      const uint64_t* at = &complete_at_[wait.counter * words_];
      for (size_t i = 0; i < words_; ++i) complete_.words[i] |= at[i];
      for (uint32_t s = shares_.first[wait.counter]; s < shares_.first[wait.counter + 1]; ++s) {
        const Share& share = shares_.list[s];
        if (share.tasks == 0) break;
        if (counted_by_[share.op] != t) counted_[share.op] = 0;
        counted_by_[share.op] = t;
        counted_[share.op] += share.tasks;
        if (counted_[share.op] == schedule_.tiles[share.op].count) complete_.add(share.op);
      }
    }
  }

  // Rule 5, writing.
  void reused_is_free(uint32_t t, uint32_t buffer) const {
    const OpSet& needed = needed_[buffer];
    for (size_t i = 0; i < words_; ++i) {
      require_task((needed.words[i] & ~complete_.words[i]) == 0, t, IE_PLAN_REUSE,
                   "writes memory that an unfinished task may still use");
    }
  }

  // Rule 5, reading: every tile that holds rows which the task reads is waited for.
  void reads_are_done(uint32_t t, const TaskRecord& task) {
    const OpRecord& op = p_.ops[task.op];
    if (op.in_buffer == kNone) return;
    const uint64_t last = std::min(uint64_t{task.row} + op.tile_rows, buffer_rows(p_, op.out_buffer)) - 1;
    const uint64_t begin = line(op, task.row, 0) * op.in_w;
    const uint64_t end = (line(op, last, op.kernel_h - 1) + 1) * op.in_w;
    const Range sources = writers_.sources[task.op];
    const std::vector<uint32_t>& writers = writers_.of_buffer[op.in_buffer];
    for (uint32_t source = sources.begin; source < sources.end; ++source) {
      require_task(steps_-- > 0, t, IE_PLAN_WORK, "the proof takes too long");
      const uint32_t writer = writers[source];
      if (complete_.has(writer)) continue;
      const OpTiles& tiles = schedule_.tiles[writer];
      const uint64_t tile_rows = p_.ops[writer].tile_rows;
      for (uint64_t i = begin / tile_rows; i <= (end - 1) / tile_rows; i = tiles.band_end[i]) {
        require_task(steps_-- > 0, t, IE_PLAN_WORK, "the proof takes too long");
        const uint32_t counter = tiles.band[i];
        require_task(counter != kNone && waited_by_[counter] == t, t, IE_PLAN_MISSING_WAIT,
                     "reads a tile that it does not wait for");
      }
    }
  }

  const Program& p_;
  const Writers& writers_;
  const Schedule& schedule_;
  const std::vector<OpSet>& needed_;
  const size_t words_;                 // of a set of ops
  std::vector<uint64_t> complete_at_;  // per counter: ops complete when it is reached
  const Shares shares_;
  std::vector<uint32_t> waited_by_;   // per counter: the last task that waited for it
  std::vector<uint32_t> counted_by_;  // per op: the last task that counted its tasks
  std::vector<uint64_t> counted_;     // per op: tasks that signal what that task waits for
  OpSet complete_;                    // at the task
  uint64_t steps_;                    // that are left
};

}  // namespace

void prove_order(const Program& p, const Writers& writers, const Schedule& schedule,
                 const std::vector<OpSet>& needed) {
  const uint64_t words = p.header.counter_count * words_of_set(p.ops.size());
  require(words <= kProofWordsPerTask * p.tasks.size() + kFreeProofWords, IE_PLAN_WORK,
          "too many counters for so many ops");
  Order(p, writers, schedule, needed).prove();
}

}  // namespace ie::proof
