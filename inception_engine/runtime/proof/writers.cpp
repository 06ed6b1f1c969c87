#include "writers.h"

#include <algorithm>

#include "fields.h"
#include "refusal.h"

namespace ie::proof {
namespace {

// Of the writers of a buffer those that write columns [begin, end); empty unless they write all of them.
Range find_writers(const Program& p, const std::vector<uint32_t>& list, uint64_t begin, uint64_t end) {
  Range found;
  for (uint32_t i = 0; i < list.size() && begin < end; ++i) {
    const OpRecord& op = p.ops[list[i]];
    const uint64_t from = op.out_channel, to = from + op.out_padded;
    if (to <= begin) continue;
    if (from > begin) return {};
    if (found.empty()) found.begin = i;
    found.end = i + 1;
    begin = to;
  }
  return begin >= end ? found : Range{};
}

}  // namespace

Writers prove_writers(const Program& p) {
  Writers writers;
  writers.of_buffer.resize(p.buffers.size());
  for (uint32_t i = 0; i < p.ops.size(); ++i) writers.of_buffer[p.ops[i].out_buffer].push_back(i);
  std::vector<bool> taken(p.buffers.size());  // for the parts of an op
  for (uint32_t i = 0; i < p.ops.size(); ++i) {
    const OpRecord& op = p.ops[i];
    if (op.part_depth == 0) continue;
    require_op(writers.of_buffer[op.part_buffer].empty() && !taken[op.part_buffer], p, i, IE_PLAN_OVERLAP,
               "the buffer of its parts has another use");
    taken[op.part_buffer] = true;
  }
  for (std::vector<uint32_t>& list : writers.of_buffer) {
    std::sort(list.begin(), list.end(),
              [&](uint32_t a, uint32_t b) { return p.ops[a].out_channel < p.ops[b].out_channel; });
    for (size_t j = 1; j < list.size(); ++j) {
      const OpRecord& before = p.ops[list[j - 1]];
      require_op(before.out_channel + before.out_padded <= p.ops[list[j]].out_channel, p, list[j],
                 IE_PLAN_OVERLAP, "writes columns that another op writes");
    }
  }
  writers.sources.resize(p.ops.size());
  for (uint32_t i = 0; i < p.ops.size(); ++i) {
    const OpRecord& op = p.ops[i];
    if (op.in_buffer == kNone) continue;
    const uint32_t pitch = p.buffers[op.in_buffer].pitch;
    const uint32_t end = op.in_channels > pitch ? pitch : op.in_channel + op.in_channels;
    writers.sources[i] = find_writers(p, writers.of_buffer[op.in_buffer], op.in_channel, end);
    require_op(!writers.sources[i].empty(), p, i, IE_PLAN_UNWRITTEN, "reads columns that no op writes");
  }
  return writers;
}

void prove_outputs(const Program& p, const Writers& writers) {
  uint64_t names = 0;
  for (const OutputRecord& output : p.outputs) {
    require(reserved_zero(output), IE_PLAN_RESERVED, "a reserved field of an output is set");
    require(output.buffer < p.buffers.size(), IE_PLAN_VALUE, "an output of a buffer that does not exist");
    require(in_strings(p, output.name, output.name_bytes), IE_PLAN_TABLES,
            "an output's name leaves the strings");
    // An engine copies them: many names of one long string would take memory that the file has not.
    names += output.name_bytes;
    require(names <= p.strings.size() + kFreeNames, IE_PLAN_LIMIT, "the outputs' names are too long");
    const BufferRecord& buffer = p.buffers[output.buffer];
    require(is_size(output.channels) && is_size(output.height) && is_size(output.width), IE_PLAN_VALUE,
            "an output's size is out of range");
    require(uint64_t{output.height} * output.width == buffer.rows, IE_PLAN_GEOMETRY,
            "an output's height and width do not make its buffer's rows");
    require(uint64_t{output.channel} + output.channels <= buffer.pitch, IE_PLAN_BOUNDS,
            "an output reads beyond its buffer's columns");
    const std::vector<uint32_t>& list = writers.of_buffer[output.buffer];
    require(!find_writers(p, list, output.channel, output.channel + output.channels).empty(),
            IE_PLAN_UNWRITTEN, "an output has columns that no op writes");
  }
}

}  // namespace ie::proof
