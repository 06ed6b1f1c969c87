#include "plan_parts.h"

#include <algorithm>
#include <cstring>

#include "hash.h"

namespace hardening {
namespace {

using namespace ie;

template <typename Record>
bool take(const uint8_t** cursor, const uint8_t* end, uint32_t count, std::vector<Record>* table) {
  const uint64_t bytes = uint64_t{count} * sizeof(Record);
  if (bytes > static_cast<uint64_t>(end - *cursor)) return false;
  table->resize(count);
  if (bytes > 0) std::memcpy(table->data(), *cursor, bytes);
  *cursor += bytes;
  return true;
}

std::optional<Program> take_program(const uint8_t* data, size_t bytes) {
  if (bytes < sizeof(ProgramHeader)) return std::nullopt;
  Program program;
  std::memcpy(&program.header, data, sizeof program.header);
  const ProgramHeader& header = program.header;
  const uint8_t* cursor = data + sizeof header;
  const uint8_t* const end = data + bytes;
  const bool taken = take(&cursor, end, header.buffer_count, &program.buffers) &&
                     take(&cursor, end, header.output_count, &program.outputs) &&
                     take(&cursor, end, header.op_count, &program.ops) &&
                     take(&cursor, end, header.launch_count, &program.launches) &&
                     take(&cursor, end, header.task_count, &program.tasks) &&
                     take(&cursor, end, header.wait_count, &program.waits) &&
                     static_cast<uint64_t>(end - cursor) == header.string_bytes;
  if (!taken) return std::nullopt;
  program.strings.assign(reinterpret_cast<const char*>(cursor), header.string_bytes);
  return program;
}

template <typename Record>
void add(Bytes* to, const Record* records, size_t count) {
  const auto* begin = reinterpret_cast<const uint8_t*>(records);
  to->insert(to->end(), begin, begin + count * sizeof(Record));
}

template <typename Record>
void add(Bytes* to, const std::vector<Record>& table) {
  add(to, table.data(), table.size());
}

Bytes program_section(const Program& program) {
  ProgramHeader header = program.header;
  header.buffer_count = static_cast<uint32_t>(program.buffers.size());
  header.output_count = static_cast<uint32_t>(program.outputs.size());
  header.op_count = static_cast<uint32_t>(program.ops.size());
  header.launch_count = static_cast<uint32_t>(program.launches.size());
  header.task_count = static_cast<uint32_t>(program.tasks.size());
  header.wait_count = static_cast<uint32_t>(program.waits.size());
  header.string_bytes = static_cast<uint32_t>(program.strings.size());
  Bytes bytes;
  add(&bytes, &header, 1);
  add(&bytes, program.buffers);
  add(&bytes, program.outputs);
  add(&bytes, program.ops);
  add(&bytes, program.launches);
  add(&bytes, program.tasks);
  add(&bytes, program.waits);
  add(&bytes, program.strings.data(), program.strings.size());
  return bytes;
}

}  // namespace

std::optional<PlanParts> take_apart(const uint8_t* data, size_t bytes) {
  FileHeader header;
  if (bytes < sizeof header) return std::nullopt;
  std::memcpy(&header, data, sizeof header);
  const uint64_t table = uint64_t{header.section_count} * sizeof(SectionRecord);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || table > bytes - sizeof header)
    return std::nullopt;
  PlanParts plan;
  plan.version = header.version;
  for (uint32_t i = 0; i < header.section_count; ++i) {
    SectionRecord record;
    std::memcpy(&record, data + sizeof header + i * sizeof record, sizeof record);
    if (record.offset > bytes || record.bytes > bytes - record.offset) return std::nullopt;
    const uint8_t* begin = data + record.offset;
    SectionParts section;
    section.kind = record.kind;
    if (record.kind == uint32_t(Section::kProgram)) section.program = take_program(begin, record.bytes);
    if (!section.program) section.content.assign(begin, begin + record.bytes);
    plan.sections.push_back(std::move(section));
  }
  return plan;
}

Bytes put_together(const PlanParts& plan) {
  const auto count = static_cast<uint32_t>(plan.sections.size());
  Bytes file(sizeof(FileHeader) + count * sizeof(SectionRecord));
  for (uint32_t i = 0; i < count; ++i) {
    const SectionParts& section = plan.sections[i];
    file.resize((file.size() + kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment);
    const Bytes content = section.program ? program_section(*section.program) : section.content;
    SectionRecord record{};
    record.kind = section.kind;
    record.offset = file.size();
    record.bytes = content.size();
    std::memcpy(file.data() + sizeof(FileHeader) + i * sizeof record, &record, sizeof record);
    file.insert(file.end(), content.begin(), content.end());
  }
  FileHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = plan.version;
  header.section_count = count;
  std::memcpy(file.data(), &header, sizeof header);
  mend(file.data(), file.size());
  return file;
}

void mend(uint8_t* data, size_t bytes) {
  FileHeader header;
  if (bytes < sizeof header) return;
  std::memcpy(&header, data, sizeof header);
  header.file_bytes = bytes;
  header.hash = xxh64(reinterpret_cast<const std::byte*>(data) + sizeof header, bytes - sizeof header);
  std::memcpy(data, &header, sizeof header);
}

double work(const Program& program) {
  double sum = 0;
  for (const OpRecord& op : program.ops) {
    const double each =
        double(program.header.max_batch) * op.out_h * op.out_w * (double(op.out_padded) + kPanel);
    double inner = double(op.kernel_h) * op.kernel_w;
    if (op.kind == uint32_t(OpKind::kConv)) inner *= op.in_channels;
    if (has_lrn(op)) inner += op.lrn_size;
    sum += each * inner;
  }
  return sum;
}

}  // namespace hardening
