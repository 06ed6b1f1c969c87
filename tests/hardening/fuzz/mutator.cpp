// Mutations that know the format: they change records, fields, sections or bytes, and most of them then mend what a
// fuzzer would never hit by chance (hashes, lengths, targets of waits), so that what comes behind is reached, too.
#include "mutator.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <set>

#include "plan_parts.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t bytes, size_t most);

namespace hardening {
namespace {

using namespace ie;

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x2545F4914F6CDD1Du) {}

  uint64_t next() {  // xorshift64*
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du >> 16;
  }
  uint64_t below(uint64_t n) { return n == 0 ? 0 : next() % n; }
  bool one_in(uint32_t n) { return below(n) == 0; }
  template <typename List>
  auto& pick(List& list) {
    return list[below(list.size())];
  }

  void change(PlanParts* plan) {
    if (plan->sections.empty() || one_in(24)) return change_sections(plan);
    std::vector<SectionParts*> programs;
    for (SectionParts& section : plan->sections) {
      if (section.program) programs.push_back(&section);
    }
    if (programs.empty() || one_in(16)) {
      SectionParts& section = pick(plan->sections);
      if (!section.program) change_bytes(&section.content);
      return;
    }
    Program& program = *pick(programs)->program;
    change_program(&program);
    mend_program(&program, plan);
  }

 private:
  void change_sections(PlanParts* plan) {
    std::vector<SectionParts>& all = plan->sections;
    switch (all.empty() ? 0 : below(6)) {
      case 0: {
        SectionParts made;
        made.kind = uint32_t(below(5));
        all.insert(all.begin() + long(below(all.size() + 1)), made);
        break;
      }
      case 1:
        all.erase(all.begin() + long(below(all.size())));
        break;
      case 2:
        all.push_back(pick(all));
        break;
      case 3:
        std::swap(pick(all), pick(all));
        break;
      case 4:
        pick(all).kind = uint32_t(below(5));
        break;
      default:
        plan->version = uint32_t(below(3));
    }
  }

  void change_bytes(Bytes* content) {
    constexpr uint32_t kFloats[] = {0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x00000001, 0x80000000};
    if (one_in(2) && content->size() >= 4) {
      std::memcpy(content->data() + below(content->size() / 4) * 4, &kFloats[below(std::size(kFloats))], 4);
      return;
    }
    const size_t most = content->size() + 64;
    content->resize(most);
    content->resize(LLVMFuzzerMutate(content->data(), most - 64, most));
  }

  uint32_t value(uint32_t old, const Program& program) {
    const ProgramHeader& h = program.header;
    const uint32_t known[] = {0,
                              1,
                              2,
                              3,
                              4,
                              15,
                              16,
                              17,
                              32,
                              64,
                              kNone,
                              kNone - 1,
                              0x80000000u,
                              0x7FFFFFFFu,
                              0x00FFFFFFu,
                              0x01000000u,
                              1023,
                              1024,
                              4096,
                              h.max_batch,
                              h.counter_count,
                              uint32_t(h.arena_bytes),
                              h.input_channels,
                              h.input_height,
                              h.input_width,
                              uint32_t(program.ops.size()),
                              uint32_t(program.tasks.size()),
                              uint32_t(program.buffers.size()),
                              uint32_t(program.strings.size())};
    switch (below(6)) {
      case 0:
        return old + 1;
      case 1:
        return old - 1;
      case 2:
        return old ^ (1u << below(32));
      case 3:
        return uint32_t(below(20));
      case 4:
        return old * 2;
      default:
        return known[below(std::size(known))];
    }
  }

  template <typename Record>
  void change_field(Record* record, const Program& program) {
    uint32_t words[sizeof(Record) / 4];
    std::memcpy(words, record, sizeof words);
    uint32_t& word = words[below(std::size(words))];
    word = value(word, program);
    std::memcpy(record, words, sizeof words);
  }

  template <typename Record>
  void change_table(std::vector<Record>* table, const Program& program) {
    if (table->empty()) {
      table->push_back(Record{});
      return;
    }
    const size_t at = below(table->size()), other = below(table->size());
    switch (below(12)) {
      case 0:
        table->erase(table->begin() + long(at));
        break;
      case 1:
        table->insert(table->begin() + long(at), Record((*table)[other]));
        break;
      case 2:
        std::swap((*table)[at], (*table)[other]);
        break;
      case 3:
        std::rotate(table->begin() + long(std::min(at, other)), table->begin() + long(at),
                    table->begin() + long(at) + 1);
        break;
      case 4: {  // one field of another record
        const size_t word = below(sizeof(Record) / 4) * 4;
        std::memcpy(reinterpret_cast<char*>(&(*table)[at]) + word,
                    reinterpret_cast<const char*>(&(*table)[other]) + word, 4);
        break;
      }
      default:
        change_field(&(*table)[at], program);
    }
  }

  void change_program(Program* program) {
    switch (below(16)) {
      case 0:
        change_field(&program->header, *program);
        break;
      case 1:
      case 2:
        change_table(&program->buffers, *program);
        break;
      case 3:
        change_table(&program->outputs, *program);
        break;
      case 4:
      case 5:
      case 6:
      case 7:
        change_table(&program->ops, *program);
        break;
      case 8:
        change_table(&program->launches, *program);
        break;
      case 9:
      case 10:
      case 11:
        change_table(&program->tasks, *program);
        break;
      case 12:
      case 13:
        change_table(&program->waits, *program);
        break;
      case 14:
        change_dtype(program);
        break;
      default: {
        Bytes strings(program->strings.begin(), program->strings.end());
        change_bytes(&strings);
        program->strings.assign(strings.begin(), strings.end());
      }
    }
  }

  void change_dtype(Program* program) {
    const uint32_t old = program->header.dtype;
    program->header.target = uint32_t(1 + below(2));
    program->header.dtype = uint32_t(1 + below(3));
    for (BufferRecord& buffer : program->buffers) {
      if (buffer.dtype == old) buffer.dtype = program->header.dtype;
    }
  }

  // Each of these may do harm to a plan that was right; so each is left out now and then.
  void mend_program(Program* program, PlanParts* plan) {
    if (one_in(4)) mend_shapes(program);
    if (one_in(2)) mend_arena(program);
    if (one_in(2)) mend_weights(program, plan);
    if (one_in(6)) schedule(program);
    if (one_in(2)) mend_waits(program);
    if (one_in(2)) mend_launches(program);
  }

  static uint32_t element_bytes(uint32_t dtype) { return dtype == uint32_t(Dtype::kFloat32) ? 4 : 2; }

  // Outputs as large as the windows make them.
  static void mend_shapes(Program* program) {
    std::vector<BufferRecord>& buffers = program->buffers;
    for (OpRecord& op : program->ops) {
      const uint64_t height = uint64_t{op.in_h} + op.pad_top + op.pad_bottom;
      const uint64_t width = uint64_t{op.in_w} + op.pad_left + op.pad_right;
      if (op.stride_h == 0 || op.stride_w == 0 || height < op.kernel_h || width < op.kernel_w) continue;
      op.out_h = uint32_t((height - op.kernel_h) / op.stride_h + 1);
      op.out_w = uint32_t((width - op.kernel_w) / op.stride_w + 1);
      if (op.out_buffer >= buffers.size()) continue;
      buffers[op.out_buffer].rows = op.out_h * op.out_w;
      for (OpRecord& reader : program->ops) {
        if (reader.in_buffer != op.out_buffer) continue;
        reader.in_h = op.out_h;
        reader.in_w = op.out_w;
      }
      for (OutputRecord& output : program->outputs) {
        if (output.buffer != op.out_buffer) continue;
        output.height = op.out_h;
        output.width = op.out_w;
      }
    }
  }

  // The arena ends where its last buffer does; sometimes the buffers are laid out anew, one behind the other.
  void mend_arena(Program* program) {
    const bool anew = one_in(3);
    uint64_t end = 0;
    for (BufferRecord& buffer : program->buffers) {
      if (anew) buffer.offset = end;
      const uint64_t bytes =
          uint64_t{buffer.rows} * program->header.max_batch * buffer.pitch * element_bytes(buffer.dtype);
      end = std::max(end, (buffer.offset + bytes + 63) / 64 * 64);
    }
    program->header.arena_bytes = end;
  }

  // In a section that has room for those of which a CPU makes others, too.
  static void mend_weights(Program* program, PlanParts* plan) {
    constexpr uint64_t kMost = 8192;
    uint64_t needed = 0, made = 0;
    for (OpRecord& op : program->ops) {
      const uint64_t columns = (uint64_t{op.out_channels} + kPanel - 1) / kPanel * kPanel;
      if (op.kind == uint32_t(OpKind::kConv)) {
        op.packing = uint32_t(Packing::kPanel16);
        op.weight_bytes = columns * taps(op) * op.in_channels * element_bytes(program->header.dtype);
        made += op.weight_bytes;
        needed = std::max({needed, made, op.weight_offset + op.weight_bytes, op.bias_offset + columns * 4});
      } else if (op.kind == uint32_t(OpKind::kInput)) {
        op.weight_bytes = uint64_t{op.in_channels} * 8;
        needed = std::max(needed, op.weight_offset + op.weight_bytes);
      } else {
        op.packing = op.weight_bytes = 0;
      }
    }
    for (SectionParts& section : plan->sections) {
      if (section.kind == uint32_t(Section::kWeights) && needed <= kMost) {
        section.content.resize(std::max<size_t>(section.content.size(), needed));
      }
    }
  }

  // One task per tile and part, each op behind all that went before: a schedule that suits any graph.
  void schedule(Program* program) {
    constexpr uint64_t kMost = 200;
    std::vector<TaskRecord> tasks;
    std::vector<WaitRecord> waits;
    uint32_t counters = uint32_t(program->ops.size());
    for (uint32_t i = 0; i < program->ops.size(); ++i) {
      OpRecord& op = program->ops[i];
      if (op.tile_rows == 0 || op.tile_columns == 0) return;
      const uint64_t rows = uint64_t{op.out_h} * op.out_w * program->header.max_batch;
      const uint64_t down = (rows + op.tile_rows - 1) / op.tile_rows;
      const uint64_t across = (uint64_t{op.out_padded} + op.tile_columns - 1) / op.tile_columns;
      const uint64_t parts = part_count(op);
      if (down > kMost || across > kMost || parts > kMost || tasks.size() + down * across * parts > kMost)
        return;
      if (op.part_depth != 0) {
        op.first_arrival = counters;
        counters += uint32_t(down * across);
      }
      for (uint64_t tile = 0; tile < down * across * parts; ++tile) {
        TaskRecord task{};
        task.op = i;
        task.row = uint32_t(tile / parts / across * op.tile_rows);
        task.column = uint32_t(tile / parts % across * op.tile_columns);
        task.part = uint32_t(tile % parts);
        task.signal = i;
        task.wait_begin = uint32_t(waits.size());
        if (i > 0) {
          task.wait_count = 1;
          waits.push_back({i - 1, 0});
        }
        tasks.push_back(task);
      }
    }
    LaunchRecord launch{};
    launch.task_count = uint32_t(tasks.size());
    launch.mode = uint32_t(LaunchMode::kNetwork);
    program->tasks = std::move(tasks);
    program->waits = std::move(waits);
    program->launches = {launch};
    program->header.counter_count = counters;
    mend_waits(program);
  }

  // Waits follow each other, and wait for all signals.
  static void mend_waits(Program* program) {
    std::map<uint32_t, uint32_t> signals;
    uint32_t begin = 0;
    for (TaskRecord& task : program->tasks) {
      if (task.signal != kNone) ++signals[task.signal];
      task.wait_count = std::min<uint32_t>(task.wait_count, uint32_t(program->waits.size()) - begin);
      task.wait_begin = begin;
      begin += task.wait_count;
    }
    program->waits.resize(begin);
    for (WaitRecord& wait : program->waits) {
      const auto found = signals.find(wait.counter);
      if (found != signals.end()) wait.target = found->second;
    }
  }

  static void mend_launches(Program* program) {
    uint64_t next = 0;
    const uint64_t all = program->tasks.size();
    for (LaunchRecord& launch : program->launches) {
      launch.first_task = uint32_t(next);
      const bool last = &launch == &program->launches.back();
      launch.task_count = uint32_t(last ? all - next : std::min<uint64_t>(launch.task_count, all - next));
      next += launch.task_count;
    }
  }

  uint64_t state_;
};

size_t give(const Bytes& file, uint8_t* data, size_t bytes, size_t most) {
  if (file.size() > most) return bytes;
  std::memcpy(data, file.data(), file.size());
  return file.size();
}

}  // namespace

size_t mutate(uint8_t* data, size_t bytes, size_t most, uint32_t seed, bool always_mend) {
  Mutator mutator(seed);
  const uint64_t style = mutator.below(16);
  std::optional<PlanParts> plan;
  if (style >= 3) plan = take_apart(data, bytes);
  if (!plan) {  // as bytes
    bytes = LLVMFuzzerMutate(data, bytes, most);
    if (style >= 1 || always_mend) mend(data, bytes);
    return bytes;
  }
  for (uint64_t count = mutator.below(3) + 1; count > 0; --count) mutator.change(&*plan);
  bytes = give(put_together(*plan), data, bytes, most);
  if (style == 3 && bytes >= 128) {  // a field of the section table, under a right hash
    const size_t table = std::min<size_t>(bytes - 64, 32 * plan->sections.size());
    LLVMFuzzerMutate(data + 64, table, table);
    mend(data, bytes);
  }
  if (style == 4 && !always_mend)
    data[mutator.below(std::min<size_t>(bytes, 64))] ^= uint8_t(1u << mutator.below(8));
  return bytes;
}

size_t cross(const uint8_t* one, size_t one_bytes, const uint8_t* two, size_t two_bytes, uint8_t* out,
             size_t most, uint32_t seed) {
  Mutator mutator(seed);
  std::optional<PlanParts> a = take_apart(one, one_bytes);
  const std::optional<PlanParts> b = take_apart(two, two_bytes);
  if (!a || !b || b->sections.empty()) return 0;
  const SectionParts& given = b->sections[mutator.below(b->sections.size())];
  std::vector<SectionParts*> same;
  for (SectionParts& section : a->sections) {
    if (section.kind == given.kind) same.push_back(&section);
  }
  if (same.empty() || (given.kind == uint32_t(ie::Section::kProgram) && mutator.one_in(3))) {
    a->sections.push_back(given);
  } else {
    SectionParts& section = *same[mutator.below(same.size())];
    if (section.program && given.program && mutator.one_in(2)) {  // some tables only
      if (mutator.one_in(2)) section.program->ops = given.program->ops;
      if (mutator.one_in(2)) section.program->buffers = given.program->buffers;
      if (mutator.one_in(2)) section.program->outputs = given.program->outputs;
      if (mutator.one_in(2)) {
        section.program->tasks = given.program->tasks;
        section.program->waits = given.program->waits;
        section.program->launches = given.program->launches;
      }
    } else {
      section = given;
    }
  }
  const Bytes file = put_together(*a);
  if (file.size() > most) return 0;
  std::memcpy(out, file.data(), file.size());
  return file.size();
}

}  // namespace hardening
