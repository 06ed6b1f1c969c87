#include "archive.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "../hash.h"

namespace ie::cuda {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;
constexpr uint32_t kMaxRecords = 4096;
constexpr uint32_t kMaxThreads = 1024, kWarp = 32;
constexpr uint32_t kMaxShared = 1u << 18;  // more than any GPU has
// Of a module: a side of an image, of a box, or a group; channels; tickets of a group; the driver's enumerations.
constexpr uint32_t kMaxSide = 256, kMaxChannels = 1u << 16, kMaxTickets = 1u << 20;
constexpr uint32_t kMaxMapType = 12, kMaxSwizzle = 3;

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  Archive read() {
    Archive archive;
    archive.file = read_file();
    const std::byte* data = archive.file.data.get();
    const size_t size = archive.file.bytes;
    ArchiveHeader header;
    require(size >= sizeof header, "it is too short");
    std::memcpy(&header, data, sizeof header);
    require(std::equal(header.magic, std::end(header.magic), kArchiveMagic), "it is not a kernel archive");
    require(header.version == kArchiveVersion, "it has another version");
    require(header.file_bytes == size, "its length is not what it says");
    require(xxh64(data + sizeof header, size - sizeof header) == header.hash,
            "its content does not match its hash");
    require(is_zero(header.reserved, sizeof header.reserved), "a reserved field is set");
    const uint64_t modules = sizeof header + uint64_t{header.record_count} * sizeof(KernelRecord);
    const uint64_t codes = modules + uint64_t{header.module_count} * sizeof(ModuleRecord);
    require(header.record_count <= kMaxRecords && header.module_count <= kMaxRecords && codes <= size,
            "its records do not fit");
    copy(data + sizeof header, header.record_count, &archive.records);
    copy(data + modules, header.module_count, &archive.modules);
    std::vector<Code> found;
    for (const KernelRecord& record : archive.records) {
      check(record, data, codes, size);
      found.push_back({record.offset, record.bytes});
    }
    for (const ModuleRecord& record : archive.modules) {
      check(record, data, codes, size);
      found.push_back({record.offset, record.bytes});
    }
    check_gaps(std::move(found), data, codes, size);
    return archive;
  }

 private:
  struct Code {
    uint64_t offset, bytes;
  };

  template <typename Record>
  static void copy(const std::byte* from, uint32_t count, std::vector<Record>* to) {
    to->resize(count);
    if (count != 0) std::memcpy(to->data(), from, count * sizeof(Record));
  }

  void require(bool holds, const std::string& what) const {
    if (!holds) throw Refusal{IE_ERROR_KERNELS, path_ + ": " + what + "; install the library anew"};
  }

  static bool is_zero(const void* data, size_t bytes) {
    const auto* begin = static_cast<const unsigned char*>(data);
    return std::all_of(begin, begin + bytes, [](unsigned char byte) { return byte == 0; });
  }

  Image read_file() const {
    struct File {
      int descriptor;
      ~File() {
        if (descriptor >= 0) close(descriptor);
      }
    };
    // Opening must not wait for a writer when the path is a pipe.
    const File file{open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    require(file.descriptor >= 0, std::string("the kernels cannot be opened: ") + error_text(errno));
    struct stat status;
    require(fstat(file.descriptor, &status) == 0 && S_ISREG(status.st_mode), "it is not a regular file");
    require(uint64_t(status.st_size) <= kMaxFileBytes, "it is too large");
    Image image{allocate({}, size_t(status.st_size)), size_t(status.st_size)};
    for (size_t done = 0; done < image.bytes;) {
      const ssize_t got = ::read(file.descriptor, image.data.get() + done, image.bytes - done);
      if (got < 0 && errno == EINTR) continue;
      require(got > 0, "it cannot be read");
      done += size_t(got);
    }
    return image;
  }

  static bool whole(uint32_t value, uint32_t of) { return value != 0 && value % of == 0; }

  // What records of both sorts have, behind their kernel's name.
  template <typename Record, size_t kCount>
  void check_common(const Record& r, const uint8_t (&sizes)[kCount], uint32_t flags, const std::byte* data,
                    uint64_t codes, uint64_t size) const {
    static_assert(kCount <= sizeof r.params);
    require(r.form == uint32_t(Form::kCubin) || r.form == uint32_t(Form::kPtx),
            "a record has an unknown form");
    require(r.dtype >= uint32_t(Dtype::kFloat32) && r.dtype <= uint32_t(Dtype::kBfloat16),
            "a record has an unknown dtype");
    require(r.arch >= 10 && r.arch < 1000 && whole(r.threads, kWarp) && r.threads <= kMaxThreads &&
                r.shared <= kMaxShared && (r.flags & ~flags) == 0,
            "a record has a value out of range");
    require(is_zero(r.reserved, sizeof r.reserved), "a reserved field is set");
    require(r.name[0] != '\0' && r.name[sizeof r.name - 1] == '\0', "a record has no name");
    require(r.param_count == kCount && std::equal(sizes, sizes + kCount, r.params) &&
                is_zero(r.params + kCount, sizeof r.params - kCount),
            "a kernel has other parameters than this library passes");
    require(r.offset % kCodeAlignment == 0 && r.offset >= codes && r.offset < size && r.bytes != 0 &&
                r.bytes <= size - r.offset,
            "a kernel's code leaves the file");
    require(r.form != uint32_t(Form::kPtx) || data[r.offset + r.bytes - 1] == std::byte{0},
            "a kernel's PTX does not end");
  }

  void check(const KernelRecord& r, const std::byte* data, uint64_t codes, uint64_t size) const {
    require(r.kernel == uint32_t(KernelName::kWalk) || r.kernel == uint32_t(KernelName::kCopyOutput),
            "a record has an unknown kernel");
    if (r.kernel == uint32_t(KernelName::kWalk)) {
      check_common(r, kWalkSizes, kWaitsItself, data, codes, size);
    } else {
      check_common(r, kCopySizes, kWaitsItself, data, codes, size);
    }
  }

  void check(const ModuleRecord& r, const std::byte* data, uint64_t codes, uint64_t size) const {
    check_common(r, kModuleSizes, 0, data, codes, size);
    require(r.dtype != uint32_t(Dtype::kFloat32), "a module is of float32");
    const ModuleSizes& s = r.sizes;
    const auto side = [](uint32_t n) { return n >= 1 && n <= kMaxSide; };
    const auto channels = [](uint32_t n) { return whole(n, kPanel) && n <= kMaxChannels; };
    require(side(s.height) && side(s.width) && channels(s.channels) &&
                std::all_of(std::begin(s.widths), std::end(s.widths), channels) && s.reduced >= 1 &&
                s.reduced <= s.widths[1] + s.widths[3] && s.third % 2 == 1 && s.third <= kMaxSide &&
                side(r.group) && r.first >= 1 && r.first <= kMaxTickets && r.second >= 1 &&
                r.second <= kMaxTickets,
            "a module has a value out of range");
    for (uint32_t i = 0; i < kMaps; ++i) {
      const MapRecord& m = r.maps[i];
      require(m.rank == kModuleRanks[i] && std::all_of(m.box, m.box + m.rank, side) &&
                  is_zero(m.box + m.rank, (kMaxRank - m.rank) * sizeof m.box[0]) && m.type <= kMaxMapType &&
                  m.swizzle <= kMaxSwizzle,
              "a module's descriptor has a value out of range");
    }
  }

  // Codes follow each other, or are the same, and nothing lies between them.
  void check_gaps(std::vector<Code> found, const std::byte* data, uint64_t end, uint64_t size) const {
    std::sort(found.begin(), found.end(), [](const Code& a, const Code& b) { return a.offset < b.offset; });
    const Code* before = nullptr;
    for (const Code& record : found) {
      if (before != nullptr && record.offset == before->offset) {
        require(record.bytes == before->bytes, "two kernels overlap");
        continue;
      }
      require(record.offset >= end, "two kernels overlap");
      require(is_zero(data + end, record.offset - end), "there are bytes between its kernels");
      end = record.offset + record.bytes;
      before = &record;
    }
    require(is_zero(data + end, size - end), "there are bytes behind its kernels");
  }

  const std::string path_;
};

}  // namespace

std::string default_archive() {
  Dl_info info;
  const std::string name = "inception_engine.kernels";
  if (dladdr(reinterpret_cast<const void*>(&default_archive), &info) == 0 || info.dli_fname == nullptr)
    return name;
  const std::string library = info.dli_fname;
  return library.substr(0, library.rfind('/') + 1) + name;
}

Archive read_archive(const std::string& path) { return Reader(path).read(); }

}  // namespace ie::cuda
