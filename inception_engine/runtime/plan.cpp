#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "hash.h"
#include "proof/proof.h"

namespace ie {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 34;
constexpr uint64_t kMaxMetadataBytes = uint64_t{1} << 26;
constexpr uint32_t kMaxPrograms = 64;

[[noreturn]] void refuse(ie_status status, std::string message) { throw Refusal{status, std::move(message)}; }

struct File {
  int descriptor;
  ~File() {
    if (descriptor >= 0) close(descriptor);
  }
};

template <typename Record>
Record read_record(const std::byte* from) {
  Record record;
  std::memcpy(&record, from, sizeof record);
  return record;
}

bool all_zero(const std::byte* begin, const std::byte* end) {
  return std::all_of(begin, end, [](std::byte b) { return b == std::byte{0}; });
}

// Copies the next table of a program out of its section.
template <typename Record>
void take(const std::byte** cursor, const std::byte* end, uint32_t count, std::vector<Record>* table) {
  const uint64_t bytes = uint64_t{count} * sizeof(Record);
  if (bytes > static_cast<uint64_t>(end - *cursor)) {
    refuse(IE_PLAN_TABLES, "a program's tables are longer than its section");
  }
  table->resize(count);
  if (bytes > 0) std::memcpy(table->data(), *cursor, bytes);
  *cursor += bytes;
}

Program read_program(const std::byte* data, uint64_t bytes) {
  if (bytes < sizeof(ProgramHeader)) refuse(IE_PLAN_TABLES, "a program's section is shorter than its header");
  Program program;
  program.header = read_record<ProgramHeader>(data);
  const ProgramHeader& header = program.header;
  proof::check_limits(header);
  const std::byte* cursor = data + sizeof(ProgramHeader);
  const std::byte* const end = data + bytes;
  take(&cursor, end, header.buffer_count, &program.buffers);
  take(&cursor, end, header.output_count, &program.outputs);
  take(&cursor, end, header.op_count, &program.ops);
  take(&cursor, end, header.launch_count, &program.launches);
  take(&cursor, end, header.task_count, &program.tasks);
  take(&cursor, end, header.wait_count, &program.waits);
  if (static_cast<uint64_t>(end - cursor) != header.string_bytes) {
    refuse(IE_PLAN_TABLES, "a program's tables do not fill its section");
  }
  program.strings.assign(reinterpret_cast<const char*>(cursor), header.string_bytes);
  return program;
}

FileHeader read_header(const Image& image) {
  const std::byte* data = image.data.get();
  if (std::memcmp(data, kMagic, std::min(image.bytes, sizeof kMagic)) != 0 || image.bytes == 0) {
    refuse(IE_PLAN_FOREIGN, "not a plan file");
  }
  if (image.bytes < sizeof(FileHeader)) refuse(IE_PLAN_TRUNCATED, "the file ends inside its header");
  const auto header = read_record<FileHeader>(data);
  if (header.version == 0 || header.version > kVersion) {
    refuse(IE_PLAN_VERSION, "plan format version " + std::to_string(header.version) +
                                "; this library reads versions up to " + std::to_string(kVersion));
  }
  if (image.bytes < header.file_bytes) {
    refuse(IE_PLAN_TRUNCATED, "the file has " + std::to_string(image.bytes) + " of " +
                                  std::to_string(header.file_bytes) + " bytes");
  }
  if (image.bytes > header.file_bytes) refuse(IE_PLAN_SECTIONS, "the file is longer than its header says");
  if (xxh64(data + sizeof header, image.bytes - sizeof header) != header.hash) {
    refuse(IE_PLAN_HASH, "the file's content does not match its hash; it was damaged");
  }
  if (std::any_of(std::begin(header.reserved), std::end(header.reserved),
                  [](uint32_t r) { return r != 0; })) {
    refuse(IE_PLAN_RESERVED, "a reserved field of the file header is set");
  }
  return header;
}

}  // namespace

std::string error_text(int error) {
  static const locale_t kPlain = newlocale(LC_ALL_MASK, "C", nullptr);
  return strerror_l(error, kPlain);
}

Image read_file(const char* path, const Allocator& allocator) {
  const auto fail = [&](const char* what) {
    refuse(IE_ERROR_FILE, std::string(path) + ": " + what + ": " + error_text(errno));
  };
  // Opening must not wait for a writer when the path is a pipe.
  const File file{open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.descriptor < 0) fail("cannot open");
  struct stat status;
  if (fstat(file.descriptor, &status) != 0) fail("cannot read");
  if (!S_ISREG(status.st_mode)) refuse(IE_ERROR_FILE, std::string(path) + ": not a regular file");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > kMaxFileBytes) refuse(IE_PLAN_LIMIT, std::string(path) + ": the file is larger than 16 GiB");

  // The header alone decides whether the rest is worth reading.
  std::byte start[sizeof kMagic] = {};
  const ssize_t begun = pread(file.descriptor, start, sizeof start, 0);
  if (begun < 0) fail("cannot read");
  if (begun == 0 || std::memcmp(start, kMagic, static_cast<size_t>(begun)) != 0) {
    refuse(IE_PLAN_FOREIGN, "not a plan file");
  }
  Image image{allocate(allocator, size), size};
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(file.descriptor, image.data.get() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read");
    if (got == 0) refuse(IE_PLAN_TRUNCATED, std::string(path) + ": the file shrank while it was read");
    done += static_cast<size_t>(got);
  }
  return image;
}

Image copy_memory(const void* data, size_t bytes, const Allocator& allocator) {
  if (bytes > kMaxFileBytes) refuse(IE_PLAN_LIMIT, "the plan is larger than 16 GiB");
  Image image{allocate(allocator, bytes), bytes};
  if (bytes > 0) std::memcpy(image.data.get(), data, bytes);
  return image;
}

Plan load_plan(Image image) {
  const FileHeader header = read_header(image);
  std::byte* const data = image.data.get();
  if (header.section_count > kMaxPrograms + 2) refuse(IE_PLAN_LIMIT, "more than 64 programs");
  uint64_t end = sizeof header + uint64_t{header.section_count} * sizeof(SectionRecord);
  if (end > image.bytes) refuse(IE_PLAN_SECTIONS, "the section table leaves the file");

  Plan plan;
  int metadata = 0, weights = 0;
  for (uint32_t i = 0; i < header.section_count; ++i) {
    const auto section = read_record<SectionRecord>(data + sizeof header + i * sizeof(SectionRecord));
    if (section.reserved != 0 || section.reserved2 != 0) {
      refuse(IE_PLAN_RESERVED, "a reserved field of section " + std::to_string(i) + " is set");
    }
    if (section.offset % kSectionAlignment != 0 || section.offset < end || section.offset > image.bytes ||
        section.bytes > image.bytes - section.offset || !all_zero(data + end, data + section.offset)) {
      refuse(IE_PLAN_SECTIONS, "section " + std::to_string(i) + " is misplaced");
    }
    end = section.offset + section.bytes;
    std::byte* const begin = data + section.offset;
    switch (static_cast<Section>(section.kind)) {
      case Section::kMetadata:
        if (section.bytes > kMaxMetadataBytes) refuse(IE_PLAN_LIMIT, "more than 64 MiB of metadata");
        plan.metadata = {reinterpret_cast<const char*>(begin), section.bytes};
        ++metadata;
        break;
      case Section::kWeights:
        plan.weights = begin;
        plan.weight_bytes = section.bytes;
        ++weights;
        break;
      case Section::kProgram:
        plan.programs.push_back(read_program(begin, section.bytes));
        break;
      default:
        refuse(IE_PLAN_VALUE, "unknown section kind " + std::to_string(section.kind));
    }
  }
  if (end != image.bytes) refuse(IE_PLAN_SECTIONS, "bytes follow the last section");
  if (metadata != 1 || weights != 1 || plan.programs.empty()) {
    refuse(IE_PLAN_SECTIONS, "a plan has one metadata section, one weights section and a program");
  }
  for (const Program& program : plan.programs) proof::prove(program, plan.weight_bytes);
  plan.image = std::move(image);
  return plan;
}

}  // namespace ie
