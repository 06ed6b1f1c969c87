#include "proof.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "plan.h"

namespace ie {
namespace {

// Products of these fit 64 bits: rows of a whole batch < 2^31, times pitch < 2^24, times 4 bytes.
constexpr uint64_t kMaxRows = uint64_t{1} << 31;
constexpr uint32_t kMaxSize = 1u << 24;  // channels, heights, widths, strides
constexpr uint32_t kMaxWindow = 1u << 10;
constexpr uint32_t kMaxBatch = 4096;
constexpr uint32_t kMaxBuffers = 1024, kMaxOps = 1024, kMaxLaunches = 4096, kMaxOutputs = 4096;
constexpr uint32_t kMaxTasks = 1u << 22, kMaxWaits = 1u << 25, kMaxCounters = 1u << 22;
constexpr uint32_t kMaxStrings = 1u << 24;
constexpr uint64_t kMaxArena = uint64_t{1} << 36;
constexpr uint64_t kMaxWork = uint64_t{1} << 44;  // multiply-adds of one run: minutes, not days
// The proof holds little more memory than the tables: for each task at most so many words of sets of complete ops,
// beside some that every program may have.
constexpr uint64_t kProofWordsPerTask = 3, kFreeProofWords = uint64_t{1} << 16;
constexpr uint64_t kFreeNames = uint64_t{1} << 16;  // bytes of outputs' names beyond those of the strings
constexpr uint32_t kMaxOpsPerCounter = 16;
constexpr uint64_t kMaxParts = 64;  // of K

[[noreturn]] void refuse(ie_status status, std::string message) { throw Refusal{status, std::move(message)}; }

void require(bool holds, ie_status status, const char* message) {
  if (!holds) refuse(status, message);
}

bool is_zero(const uint32_t* begin, const uint32_t* end) {
  return std::all_of(begin, end, [](uint32_t r) { return r == 0; });
}

template <typename Record>
bool reserved_zero(const Record& record) {
  return is_zero(std::begin(record.reserved), std::end(record.reserved));
}

bool reserved_zero(const TaskRecord& record) { return record.reserved == 0; }

uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// A set of ops, as bits.
struct OpSet {
  std::vector<uint64_t> words;
  explicit OpSet(size_t count) : words(count) {}
  void add(uint32_t op) { words[op / 64] |= uint64_t{1} << (op % 64); }
  bool has(uint32_t op) const { return (words[op / 64] >> (op % 64)) & 1; }
};

class Proof {
 public:
  Proof(const Program& program, uint64_t weight_bytes)
      : p_(program), weight_bytes_(weight_bytes), words_((program.ops.size() + 63) / 64) {}

  void run() {
    values();
    buffers();
    for (uint32_t i = 0; i < p_.ops.size(); ++i) op(i);
    made_weights();
    writers();
    launches();
    tasks();
    reuse();
    order();
  }

 private:
  // Rule 1 for what has no better place.
  void values() const {
    const ProgramHeader& h = p_.header;
    require(reserved_zero(h), IE_PLAN_RESERVED, "a reserved field of a program header is set");
    require(h.target == uint32_t(Target::kCpu) || h.target == uint32_t(Target::kCuda), IE_PLAN_VALUE,
            "unknown target");
    require(dtype(h.dtype), IE_PLAN_VALUE, "unknown dtype");
    require(h.max_batch >= 1, IE_PLAN_VALUE, "the maximum batch is 0");
    require(size(h.input_channels) && size(h.input_height) && size(h.input_width), IE_PLAN_VALUE,
            "the input has no size");
    require(!p_.ops.empty() && !p_.tasks.empty() && !p_.launches.empty() && !p_.outputs.empty(),
            IE_PLAN_VALUE, "a program without ops, tasks, launches or outputs");
  }

  static bool dtype(uint32_t value) { return value >= 1 && value <= 3; }
  static bool size(uint32_t value) { return value >= 1 && value < kMaxSize; }
  static uint64_t element_bytes(uint32_t dtype) { return dtype == uint32_t(Dtype::kFloat32) ? 4 : 2; }

  bool text(uint32_t begin, uint32_t bytes) const { return uint64_t{begin} + bytes <= p_.strings.size(); }

  uint64_t buffer_rows(uint32_t buffer) const {
    return uint64_t{p_.buffers[buffer].rows} * p_.header.max_batch;
  }
  uint64_t buffer_bytes(uint32_t buffer) const {
    const BufferRecord& b = p_.buffers[buffer];
    return buffer_rows(buffer) * b.pitch * element_bytes(b.dtype);
  }

  void buffers() const {
    uint64_t end = 0;
    for (uint32_t i = 0; i < p_.buffers.size(); ++i) {
      const BufferRecord& b = p_.buffers[i];
      require(reserved_zero(b), IE_PLAN_RESERVED, "a reserved field of a buffer is set");
      require(dtype(b.dtype) && (b.dtype == p_.header.dtype || b.dtype == uint32_t(Dtype::kFloat32)),
              IE_PLAN_VALUE, "a buffer's dtype is neither its program's nor float32");
      require(b.rows >= 1 && buffer_rows(i) < kMaxRows && size(b.pitch), IE_PLAN_BUFFER,
              "a buffer's rows or pitch are out of range");
      require(b.offset % kBufferAlignment == 0, IE_PLAN_BUFFER, "a buffer is misaligned");
      const uint64_t bytes = buffer_bytes(i);
      require(b.offset <= p_.header.arena_bytes && bytes <= p_.header.arena_bytes - b.offset, IE_PLAN_BUFFER,
              "a buffer leaves the arena");
      end = std::max(end, b.offset + bytes);
    }
    // A context allocates the arena: a small file must not ask for more memory than it has a use for.
    require(p_.header.arena_bytes - end < kBufferAlignment, IE_PLAN_BUFFER,
            "the arena is larger than its buffers");
  }

  [[noreturn]] void refuse_op(uint32_t i, ie_status status, const char* message) const {
    const OpRecord& op = p_.ops[i];
    std::string name =
        text(op.name, op.name_bytes) ? p_.strings.substr(op.name, std::min(op.name_bytes, 64u)) : "";
    // The name comes from the file and goes to somebody's terminal or log.
    std::replace_if(name.begin(), name.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    refuse(status, "op " + std::to_string(i) + " (" + name + "): " + message);
  }
  void require_op(bool holds, uint32_t i, ie_status status, const char* message) const {
    if (!holds) refuse_op(i, status, message);
  }

  // Rules 1 and 2 for one op.
  void op(uint32_t i) {
    const OpRecord& op = p_.ops[i];
    const auto kind = static_cast<OpKind>(op.kind);
    require_op(reserved_zero(op), i, IE_PLAN_RESERVED, "a reserved field is set");
    require_op(text(op.name, op.name_bytes) && text(op.module, op.module_bytes), i, IE_PLAN_TABLES,
               "its name leaves the strings");
    require_op(op.kind >= 1 && op.kind <= 6, i, IE_PLAN_VALUE, "unknown kind");
    const uint32_t flags = kind == OpKind::kConv
                               ? uint32_t{kRelu | kWinograd | kSmallPatches | kThenLrn | kMaxPoolFirst}
                           : kind == OpKind::kMaxPool     ? uint32_t{kThenLrn}
                           : kind == OpKind::kAveragePool ? uint32_t{kCountIncludePad}
                                                          : 0;
    require_op((op.flags & ~flags) == 0, i, IE_PLAN_VALUE, "a flag that its kind does not have");
    require_op(op.packing == uint32_t(kind == OpKind::kConv ? Packing::kPanel16 : Packing::kNoWeights), i,
               IE_PLAN_VALUE, "a packing that its kind does not have");
    for (uint32_t value : {op.in_channels, op.out_channels, op.out_padded, op.in_h, op.in_w, op.out_h,
                           op.out_w, op.stride_h, op.stride_w, op.tile_columns}) {
      require_op(size(value), i, IE_PLAN_VALUE, "a size is out of range");
    }
    for (uint32_t value : {op.pad_top, op.pad_left, op.pad_bottom, op.pad_right}) {
      require_op(value <= kMaxWindow, i, IE_PLAN_VALUE, "padding is out of range");
    }
    const bool window = kind == OpKind::kConv || kind == OpKind::kMaxPool || kind == OpKind::kAveragePool;
    require_op(op.kernel_h >= 1 && op.kernel_w >= 1 && op.kernel_h <= kMaxWindow && op.kernel_w <= kMaxWindow,
               i, IE_PLAN_VALUE, "the window is out of range");
    require_op(window || (op.kernel_h == 1 && op.kernel_w == 1 && op.stride_h == 1 && op.stride_w == 1), i,
               IE_PLAN_VALUE, "a window that its kind does not have");
    require_op(
        window || kind == OpKind::kInput || (op.pad_top | op.pad_left | op.pad_bottom | op.pad_right) == 0, i,
        IE_PLAN_VALUE, "padding that its kind does not have");
    require_op(op.tile_rows >= 1 && op.tile_rows < kMaxRows, i, IE_PLAN_VALUE, "a tile has no rows");
    require_op(op.out_buffer < p_.buffers.size(), i, IE_PLAN_VALUE, "no such output buffer");
    require_op((kind == OpKind::kInput) == (op.in_buffer == kNone) &&
                   (op.in_buffer == kNone || op.in_buffer < p_.buffers.size()),
               i, IE_PLAN_VALUE, "no such input buffer");
    require_op(op.in_buffer != op.out_buffer, i, IE_PLAN_OVERLAP, "reads and writes one buffer");

    // Output.
    const BufferRecord& out = p_.buffers[op.out_buffer];
    require_op(uint64_t{op.out_h} * op.out_w == out.rows, i, IE_PLAN_GEOMETRY,
               "the output's height and width do not make its buffer's rows");
    require_op(op.out_channels <= op.out_padded &&
                   ceil_div(op.out_channels, kPanel) == ceil_div(op.out_padded, kPanel),
               i, IE_PLAN_GEOMETRY, "padding of the output's columns passes their last panel");
    require_op(uint64_t{op.out_channel} + op.out_padded <= out.pitch, i, IE_PLAN_BOUNDS,
               "writes beyond its buffer's columns");

    // Input.
    if (kind == OpKind::kInput) {
      require_op(op.in_h == p_.header.input_height && op.in_w == p_.header.input_width &&
                     op.in_channels == p_.header.input_channels && op.in_channel == 0,
                 i, IE_PLAN_GEOMETRY, "does not read the program's input");
      require_op(op.out_h == op.in_h && op.out_w == uint64_t{op.in_w} + op.pad_left + op.pad_right &&
                     op.pad_top == 0 && op.pad_bottom == 0 && op.out_channels == op.in_channels,
                 i, IE_PLAN_GEOMETRY, "the output is not the padded input");
    } else {
      const BufferRecord& in = p_.buffers[op.in_buffer];
      require_op(uint64_t{op.in_h} * op.in_w == in.rows, i, IE_PLAN_GEOMETRY,
                 "the input's height and width do not make its buffer's rows");
      if (kind == OpKind::kConv && op.in_channels > in.pitch) {
        require_op(op.in_channel == 0 && op.kernel_w == 1 && op.pad_left == 0 && op.pad_right == 0, i,
                   IE_PLAN_GEOMETRY, "a folded convolution with taps or padding to the side");
        const uint64_t last = uint64_t{op.out_w - 1} * op.stride_w;  // pixel at which the last run begins
        require_op(last < op.in_w && last * in.pitch + op.in_channels <= uint64_t{op.in_w} * in.pitch, i,
                   IE_PLAN_BOUNDS, "reads beyond the end of a line");
      } else {
        require_op(uint64_t{op.in_channel} + op.in_channels <= in.pitch, i, IE_PLAN_BOUNDS,
                   "reads beyond its buffer's columns");
        if (window) {
          require_op(slides(op.in_w, op.pad_left, op.pad_right, op.kernel_w, op.stride_w, op.out_w), i,
                     IE_PLAN_GEOMETRY, "the output's width is not what its window makes of the input's");
        }
      }
      if (window) {
        require_op(slides(op.in_h, op.pad_top, op.pad_bottom, op.kernel_h, op.stride_h, op.out_h), i,
                   IE_PLAN_GEOMETRY, "the output's height is not what its window makes of the input's");
      } else {
        require_op(op.in_h == op.out_h && op.in_w == op.out_w && op.in_channels == op.out_channels, i,
                   IE_PLAN_GEOMETRY, "input and output differ in size");
      }
    }
    const bool pool = kind == OpKind::kMaxPool || kind == OpKind::kAveragePool;
    require_op(!pool || op.in_channels == op.out_channels, i, IE_PLAN_GEOMETRY,
               "a pool changes the channels");
    if (pool || op.flags & kMaxPoolFirst) {
      require_op(std::max(op.pad_top, op.pad_bottom) < op.kernel_h &&
                     std::max(op.pad_left, op.pad_right) < op.kernel_w,
                 i, IE_PLAN_GEOMETRY, "a window lies in the padding alone");
    }
    if (has_lrn(op)) {
      require_op(size(op.lrn_size), i, IE_PLAN_VALUE, "the window over channels is out of range");
      require_op(std::isfinite(op.lrn_alpha) && std::isfinite(op.lrn_beta) && std::isfinite(op.lrn_k), i,
                 IE_PLAN_VALUE, "a constant is not finite");
    }
    if (op.flags & kThenLrn) {
      require_op(p_.header.target == uint32_t(Target::kCpu) && op.part_depth == 0, i, IE_PLAN_VALUE,
                 "LRN behind an op on a target that lacks it, or behind parts");
    }
    require_op(!(op.flags & kSmallPatches) || (op.flags & kWinograd && op.kernel_h == 3), i, IE_PLAN_VALUE,
               "small patches that its algorithm or window does not have");
    if (op.flags & kMaxPoolFirst) {
      require_op(p_.header.target == uint32_t(Target::kCpu) && op.part_depth == 0 &&
                     !(op.flags & kWinograd) && op.in_channels <= p_.buffers[op.in_buffer].pitch,
                 i, IE_PLAN_VALUE, "a pool in front of a convolution that cannot have one");
    }
    if (op.flags & kWinograd) patches(i);
    weights(i);
    alignment(i);
    parts(i);

    uint64_t inner = uint64_t{op.kernel_h} * op.kernel_w;  // below 2^20
    // A patch makes at least one output.
    if (op.flags & kWinograd) inner = uint64_t{patch_size(op)} * patch_size(op);
    if (kind == OpKind::kConv) inner *= op.in_channels;
    if (kind == OpKind::kLrn) inner = 0;
    if (has_lrn(op)) inner += op.lrn_size;
    // Below 2^31 rows times 2^24 columns; what is left of 64 bits is enough to see that it is too much.
    const uint64_t cells = buffer_rows(op.out_buffer) * (ceil_div(op.out_padded, kPanel) * kPanel);
    require_op(cells <= kMaxWork / inner, i, IE_PLAN_WORK, "takes unreasonable work");
    work_ += cells * inner;
    require_op(work_ <= kMaxWork, i, IE_PLAN_WORK, "the program takes unreasonable work");
  }

  // A convolution by Winograd's algorithm. The lines that a patch reads are those of the outputs that it makes: a patch
  // that leaves the output reads nothing beyond the image's end, for the stride is 1. So with whole patches in a tile
  // the rules of order see all that it reads.
  void patches(uint32_t i) const {
    const OpRecord& op = p_.ops[i];
    require_op(p_.header.target == uint32_t(Target::kCpu) && p_.header.dtype != uint32_t(Dtype::kFloat16), i,
               IE_PLAN_VALUE, "Winograd's algorithm on a target or of a dtype that lack it");
    require_op(op.kernel_h == op.kernel_w && (op.kernel_h == 3 || op.kernel_h == 5) && op.stride_h == 1 &&
                   op.stride_w == 1 && op.in_channels <= p_.buffers[op.in_buffer].pitch && op.part_depth == 0,
               i, IE_PLAN_VALUE, "a window that is not for Winograd's algorithm");
    const uint32_t side = patch_size(op) + 1 - op.kernel_h;
    const uint64_t image = uint64_t{op.out_h} * op.out_w, line = uint64_t{side} * op.out_w;
    require_op(op.tile_rows % image == 0 || (op.out_h % side == 0 && op.tile_rows % line == 0), i,
               IE_PLAN_ALIGNMENT, "its tiles do not hold whole patches");
  }

  // What the CPU makes of weights, for Winograd's algorithm and of half precision, is made of no byte of the file twice in one way.
  void made_weights() const {
    if (p_.header.target != uint32_t(Target::kCpu)) return;
    const bool half = p_.header.dtype != uint32_t(Dtype::kFloat32);
    // What the made ones are a function of: offset and bytes, the size of patches or 0, taps, those of a line, and channels.
    std::vector<std::tuple<uint64_t, uint64_t, uint32_t, uint32_t, uint32_t, uint32_t>> places;
    for (const OpRecord& op : p_.ops) {
      const uint32_t patches = op.flags & kWinograd ? patch_size(op) : 0;
      if (static_cast<OpKind>(op.kind) != OpKind::kConv || !(half || patches != 0)) continue;
      places.emplace_back(op.weight_offset, op.weight_bytes, patches, taps(op), taps_across(op),
                          op.in_channels);
    }
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    uint64_t sum = 0;  // each at most the section, one for an op at most
    for (const auto& place : places) sum += std::get<1>(place);
    require(sum <= weight_bytes_, IE_PLAN_LIMIT, "weights of which others are made overlap");
  }

  // Of one op, with its tiles over the whole batch.
  uint64_t tiles_down(const OpRecord& op) const { return ceil_div(buffer_rows(op.out_buffer), op.tile_rows); }
  static uint64_t tiles_across(const OpRecord& op) { return ceil_div(op.out_padded, op.tile_columns); }

  // How a product is cut along K.
  void parts(uint32_t i) const {
    const OpRecord& op = p_.ops[i];
    if (op.part_depth == 0) {
      require_op(op.part_buffer == 0 && op.first_arrival == 0, i, IE_PLAN_VALUE,
                 "a place for parts that it lacks");
      return;
    }
    const uint64_t depth = uint64_t{op.kernel_h} * op.kernel_w * op.in_channels;
    require_op(static_cast<OpKind>(op.kind) == OpKind::kConv, i, IE_PLAN_VALUE,
               "parts that its kind does not have");
    require_op(op.part_depth < depth && part_count(op) <= kMaxParts, i, IE_PLAN_VALUE,
               "a number of parts out of range");
    require_op(op.part_depth % kPanel == 0 && op.in_channels % kPanel == 0, i, IE_PLAN_ALIGNMENT,
               "its parts are not whole panels");
    require_op(op.part_buffer < p_.buffers.size(), i, IE_PLAN_VALUE, "a buffer that does not exist");
    require_op(p_.buffers[op.part_buffer].dtype == uint32_t(Dtype::kFloat32), i, IE_PLAN_VALUE,
               "its parts are not float32");
    // A tile has less than 2^55 elements and more than the buffer's 2^34 are refused at once; then products fit.
    const uint64_t capacity = buffer_bytes(op.part_buffer) / sizeof(float);
    const uint64_t tile = uint64_t{op.tile_rows} * op.tile_columns;
    const uint64_t tiles = tiles_down(op) * tiles_across(op);
    require_op(tile <= capacity && tiles <= p_.tasks.size() && tile * tiles * part_count(op) <= capacity, i,
               IE_PLAN_BOUNDS, "its parts do not fit into their buffer");
    require_op(uint64_t{op.first_arrival} + tiles <= p_.header.counter_count, i, IE_PLAN_VALUE,
               "counters of arrivals that do not exist");
  }

  static bool slides(uint64_t in, uint64_t before, uint64_t after, uint64_t kernel, uint64_t stride,
                     uint64_t out) {
    const uint64_t padded = in + before + after;
    return padded >= kernel && (padded - kernel) / stride + 1 == out;
  }

  bool in_weights(uint64_t offset, uint64_t bytes) const {
    return offset <= weight_bytes_ && bytes <= weight_bytes_ - offset;
  }

  void weights(uint32_t i) const {
    const OpRecord& op = p_.ops[i];
    if (static_cast<OpKind>(op.kind) == OpKind::kConv) {
      const uint64_t taps = ie::taps(op);  // at most 2^20, times 2^24 channels
      require_op(taps * op.in_channels <= kMaxRows, i, IE_PLAN_LIMIT, "the window holds too many elements");
      const uint64_t columns = ceil_div(op.out_channels, kPanel) * kPanel;
      require_op(op.weight_bytes == columns * taps * op.in_channels * element_bytes(p_.header.dtype), i,
                 IE_PLAN_WEIGHTS, "the weights do not have the size of its window");
      require_op(op.weight_offset % kBufferAlignment == 0 && op.bias_offset % kBufferAlignment == 0, i,
                 IE_PLAN_WEIGHTS, "weights or bias are misaligned");
      require_op(in_weights(op.weight_offset, op.weight_bytes) && in_weights(op.bias_offset, columns * 4), i,
                 IE_PLAN_WEIGHTS, "weights or bias leave their section");
    } else if (static_cast<OpKind>(op.kind) == OpKind::kInput) {
      require_op(op.weight_bytes == uint64_t{op.in_channels} * 8 &&
                     op.weight_offset % kBufferAlignment == 0 &&
                     in_weights(op.weight_offset, op.weight_bytes),
                 i, IE_PLAN_WEIGHTS, "scale and shift are misaligned or leave the weights");
    } else {
      require_op(op.weight_bytes == 0, i, IE_PLAN_WEIGHTS, "has weights");
    }
  }

  // What kernels assume of tile sizes and positions. On a GPU slices are whole panels, so that loads are wide.
  void alignment(uint32_t i) const {
    const OpRecord& op = p_.ops[i];
    const auto kind = static_cast<OpKind>(op.kind);
    const bool whole = has_lrn(op) || kind == OpKind::kSoftmax || kind == OpKind::kInput;
    require_op(op.tile_columns >= op.out_padded || (!whole && op.tile_columns % kPanel == 0), i,
               IE_PLAN_ALIGNMENT,
               whole ? "a tile must have all columns" : "a tile's columns are not whole panels");
    if (p_.header.target != uint32_t(Target::kCuda)) return;
    const auto panels = [](uint64_t value) { return value % kPanel == 0; };
    require_op(kind == OpKind::kInput || (panels(op.out_channel) && panels(op.out_padded) &&
                                          panels(p_.buffers[op.out_buffer].pitch)),
               i, IE_PLAN_ALIGNMENT, "the slice that it writes is not whole panels");
    if (kind == OpKind::kInput) return;
    // A convolution whose runs are no whole panels (the folded stem) is computed by a loop that loads quarters of them.
    const bool ragged = kind == OpKind::kConv && !panels(op.in_channels);
    const uint32_t unit = ragged ? kPanel / 4 : kPanel;
    require_op(panels(op.in_channel) && p_.buffers[op.in_buffer].pitch % unit == 0, i, IE_PLAN_ALIGNMENT,
               "the slice that it reads does not begin at whole panels");
    require_op(!ragged || op.in_channels % unit == 0, i, IE_PLAN_ALIGNMENT,
               "the runs that it reads are not whole quarters of a panel");
  }

  // Rule 3: who writes which columns of each buffer.
  void writers() {
    writers_.resize(p_.buffers.size());
    for (uint32_t i = 0; i < p_.ops.size(); ++i) writers_[p_.ops[i].out_buffer].push_back(i);
    std::vector<bool> taken(p_.buffers.size());  // for the parts of an op
    for (uint32_t i = 0; i < p_.ops.size(); ++i) {
      const OpRecord& op = p_.ops[i];
      if (op.part_depth == 0) continue;
      require_op(writers_[op.part_buffer].empty() && !taken[op.part_buffer], i, IE_PLAN_OVERLAP,
                 "the buffer of its parts has another use");
      taken[op.part_buffer] = true;
    }
    for (std::vector<uint32_t>& list : writers_) {
      std::sort(list.begin(), list.end(),
                [&](uint32_t a, uint32_t b) { return p_.ops[a].out_channel < p_.ops[b].out_channel; });
      for (size_t j = 1; j < list.size(); ++j) {
        const OpRecord& before = p_.ops[list[j - 1]];
        require_op(before.out_channel + before.out_padded <= p_.ops[list[j]].out_channel, list[j],
                   IE_PLAN_OVERLAP, "writes columns that another op writes");
      }
    }
    sources_.resize(p_.ops.size());
    for (uint32_t i = 0; i < p_.ops.size(); ++i) {
      const OpRecord& op = p_.ops[i];
      if (op.in_buffer == kNone) continue;
      const uint32_t pitch = p_.buffers[op.in_buffer].pitch;
      const uint32_t end = op.in_channels > pitch ? pitch : op.in_channel + op.in_channels;
      sources_[i] = find_writers(op.in_buffer, op.in_channel, end);
      require_op(!sources_[i].empty(), i, IE_PLAN_UNWRITTEN, "reads columns that no op writes");
    }
    is_output_.resize(p_.buffers.size());
    uint64_t names = 0;
    for (const OutputRecord& output : p_.outputs) {
      require(output.reserved == 0, IE_PLAN_RESERVED, "a reserved field of an output is set");
      require(output.buffer < p_.buffers.size(), IE_PLAN_VALUE, "an output of a buffer that does not exist");
      require(text(output.name, output.name_bytes), IE_PLAN_TABLES, "an output's name leaves the strings");
      // An engine copies them: many names of one long string would take memory that the file has not.
      names += output.name_bytes;
      require(names <= p_.strings.size() + kFreeNames, IE_PLAN_LIMIT, "the outputs' names are too long");
      const BufferRecord& buffer = p_.buffers[output.buffer];
      require(size(output.channels) && size(output.height) && size(output.width), IE_PLAN_VALUE,
              "an output's size is out of range");
      require(uint64_t{output.height} * output.width == buffer.rows, IE_PLAN_GEOMETRY,
              "an output's height and width do not make its buffer's rows");
      require(uint64_t{output.channel} + output.channels <= buffer.pitch, IE_PLAN_BOUNDS,
              "an output reads beyond its buffer's columns");
      require(!find_writers(output.buffer, output.channel, output.channel + output.channels).empty(),
              IE_PLAN_UNWRITTEN, "an output has columns that no op writes");
      is_output_[output.buffer] = true;
    }
  }

  // Of writers_ of some buffer: [begin, end).
  struct Range {
    uint32_t begin = 0, end = 0;
    bool empty() const { return begin == end; }
  };

  // The ops that write columns [begin, end) of a buffer; empty unless they write all of them.
  Range find_writers(uint32_t buffer, uint64_t begin, uint64_t end) const {
    const std::vector<uint32_t>& list = writers_[buffer];
    Range found;
    for (uint32_t i = 0; i < list.size() && begin < end; ++i) {
      const OpRecord& op = p_.ops[list[i]];
      const uint64_t from = op.out_channel, to = from + op.out_padded;
      if (to <= begin) continue;
      if (from > begin) return {};
      if (found.empty()) found.begin = i;
      found.end = i + 1;
      begin = to;
    }
    return begin >= end ? found : Range{};
  }

  void launches() const {
    uint64_t next = 0;
    for (const LaunchRecord& launch : p_.launches) {
      require(reserved_zero(launch), IE_PLAN_RESERVED, "a reserved field of a launch is set");
      require(launch.mode >= 1 && launch.mode <= 3, IE_PLAN_VALUE, "unknown launch mode");
      require(text(launch.name, launch.name_bytes), IE_PLAN_TABLES, "a launch's name leaves the strings");
      require(launch.first_task == next && launch.task_count >= 1, IE_PLAN_LAUNCH,
              "launches do not follow each other");
      next += launch.task_count;
    }
    require(next == p_.tasks.size(), IE_PLAN_LAUNCH, "launches do not cover the tasks");
  }

  [[noreturn]] static void refuse_task(uint64_t t, ie_status status, const char* message) {
    refuse(status, "task " + std::to_string(t) + ": " + message);
  }
  static void require_task(bool holds, uint64_t t, ie_status status, const char* message) {
    if (!holds) refuse_task(t, status, message);
  }

  struct OpTiles {
    uint64_t down = 0, across = 0;   // tiles of the output
    uint64_t parts = 1;              // of each tile
    uint64_t first = 0;              // of this op, in the flat tables of tiles' parts
    uint64_t count = 0;              // tasks seen
    uint32_t launch = kNone;         // that holds its tasks
    std::vector<uint32_t> band;      // per row of tiles: the counter that all its tasks signal, or kNone
    std::vector<uint32_t> band_end;  // per row of tiles: the first row behind it with another counter
  };

  // Rules 3 and 4 for tasks.
  void tasks() {
    tiles_.resize(p_.ops.size());
    uint64_t total = 0, joins = 0;
    for (uint32_t i = 0; i < p_.ops.size(); ++i) {
      OpTiles& tiles = tiles_[i];
      tiles.down = tiles_down(p_.ops[i]);
      tiles.across = tiles_across(p_.ops[i]);
      tiles.parts = part_count(p_.ops[i]);
      tiles.first = total;
      total += tiles.down * tiles.across * tiles.parts;
      require_op(total <= p_.tasks.size(), i, IE_PLAN_TILES, "has more tiles than the program has tasks");
      tiles.band.assign(tiles.down, kNone);
    }
    std::vector<bool> seen(total),
        begun(total);  // per tile; per first tile of a row: whether its band is known
    signals_.assign(p_.header.counter_count, 0);
    last_signal_.assign(p_.header.counter_count, 0);
    uint64_t waits = 0;
    size_t launch = 0;
    for (uint32_t t = 0; t < p_.tasks.size(); ++t) {
      const TaskRecord& task = p_.tasks[t];
      while (t >= uint64_t{p_.launches[launch].first_task} + p_.launches[launch].task_count) ++launch;
      require_task(reserved_zero(task), t, IE_PLAN_RESERVED, "a reserved field is set");
      require_task(task.wait_begin == waits, t, IE_PLAN_TABLES, "its waits do not follow the last task's");
      waits += task.wait_count;
      require_task(waits <= p_.waits.size(), t, IE_PLAN_TABLES, "its waits leave their table");
      require_task(task.signal == kNone || task.signal < p_.header.counter_count, t, IE_PLAN_VALUE,
                   "signals a counter that does not exist");
      if (task.signal != kNone) {
        ++signals_[task.signal];
        last_signal_[task.signal] = t;
      }
      if (task.op == kNone) {
        require_task(task.row == 0 && task.column == 0 && task.part == 0, t, IE_PLAN_VALUE,
                     "a JOIN with a tile");
        ++joins;
        continue;
      }
      require_task(task.op < p_.ops.size(), t, IE_PLAN_VALUE, "an op that does not exist");
      const OpRecord& op = p_.ops[task.op];
      OpTiles& tiles = tiles_[task.op];
      const uint64_t i = task.row / op.tile_rows, j = task.column / op.tile_columns;
      require_task(task.row % op.tile_rows == 0 && task.column % op.tile_columns == 0 && i < tiles.down &&
                       j < tiles.across && task.part < tiles.parts,
                   t, IE_PLAN_TILES, "not a tile of its op");
      const uint64_t tile = tiles.first + (i * tiles.across + j) * tiles.parts + task.part;
      require_task(!seen[tile], t, IE_PLAN_TILES, "computes a tile again");
      seen[tile] = true;
      ++tiles.count;
      require_task(tiles.launch == kNone || tiles.launch == launch, t, IE_PLAN_LAUNCH,
                   "its op has tasks in an earlier launch");
      tiles.launch = static_cast<uint32_t>(launch);
      const uint64_t row = tiles.first + i * tiles.across * tiles.parts;
      if (!begun[row]) tiles.band[i] = task.signal;
      if (tiles.band[i] != task.signal) tiles.band[i] = kNone;
      begun[row] = true;
    }
    require(waits == p_.waits.size(), IE_PLAN_TABLES, "waits that no task has");
    require(total + joins == p_.tasks.size(), IE_PLAN_TILES, "an op lacks tiles");
    arrivals();
    for (OpTiles& tiles : tiles_) {
      tiles.band_end.assign(tiles.down, static_cast<uint32_t>(tiles.down));
      for (uint64_t i = tiles.down; i-- > 1;) {
        tiles.band_end[i - 1] =
            tiles.band[i - 1] == tiles.band[i] ? tiles.band_end[i] : static_cast<uint32_t>(i);
      }
    }
  }

  // Counters of arrivals have no other use: a wait for one would have no signals to wait for.
  void arrivals() const {
    std::vector<bool> taken(p_.header.counter_count);
    for (uint32_t i = 0; i < p_.ops.size(); ++i) {
      const OpRecord& op = p_.ops[i];
      if (op.part_depth == 0) continue;
      const uint64_t end = op.first_arrival + tiles_[i].down * tiles_[i].across;
      for (uint64_t counter = op.first_arrival; counter < end; ++counter) {
        require_op(signals_[counter] == 0 && !taken[counter], i, IE_PLAN_COUNTER,
                   "a counter of its arrivals has another use");
        taken[counter] = true;
      }
    }
  }

  // For each buffer, the ops that must be complete before it is written.
  void reuse() {
    const auto count = static_cast<uint32_t>(p_.buffers.size());
    std::vector<OpSet> users(count, OpSet(words_));
    std::vector<uint32_t> first(count, kNone);
    for (uint32_t i = 0; i < p_.ops.size(); ++i) {
      const OpRecord& op = p_.ops[i];
      users[op.out_buffer].add(i);
      first[op.out_buffer] = std::min(first[op.out_buffer], i);
      if (op.in_buffer != kNone) users[op.in_buffer].add(i);
      if (op.part_depth != 0) {
        users[op.part_buffer].add(i);
        first[op.part_buffer] = i;
      }
    }
    needed_.assign(count, OpSet(words_));
    for (uint32_t a = 0; a < count; ++a) {
      for (uint32_t b = a + 1; b < count; ++b) {
        const BufferRecord &one = p_.buffers[a], &two = p_.buffers[b];
        const bool meet =
            one.offset < two.offset + buffer_bytes(b) && two.offset < one.offset + buffer_bytes(a);
        if (!meet || first[a] == kNone || first[b] == kNone) continue;
        const uint32_t older = first[a] < first[b] ? a : b, newer = a + b - older;
        require(!is_output_[older], IE_PLAN_REUSE, "the memory of an output is used again");
        for (size_t w = 0; w < words_; ++w) needed_[newer].words[w] |= users[older].words[w];
      }
    }
  }

  // How many tasks of which op signal a counter. Those of counter c are list[first[c]] up to first[c + 1], or up to one
  // without tasks.
  struct Share {
    uint32_t op, tasks;
  };
  struct Shares {
    std::vector<uint32_t> first;
    std::vector<Share> list;
  };

  Shares share_counters() const {
    Shares shares{std::vector<uint32_t>(p_.header.counter_count + 1), {}};
    for (uint32_t c = 0; c < p_.header.counter_count; ++c) {
      shares.first[c + 1] = shares.first[c] + std::min(signals_[c], kMaxOpsPerCounter);
    }
    shares.list.resize(shares.first.back());
    for (uint64_t t = 0; t < p_.tasks.size(); ++t) {
      const TaskRecord& task = p_.tasks[t];
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

  // Rules 4 and 5.
  void order() {
    const uint64_t counters = p_.header.counter_count;
    require(counters * words_ <= kProofWordsPerTask * p_.tasks.size() + kFreeProofWords, IE_PLAN_WORK,
            "too many counters for so many ops");
    std::vector<uint64_t> complete_at(counters * words_);  // per counter: ops complete when it is reached
    const Shares shares = share_counters();
    std::vector<uint32_t> waited_by(counters, kNone);  // the last task that waited for it
    std::vector<uint32_t> counted_by(p_.ops.size(), kNone);
    std::vector<uint64_t> counted(p_.ops.size());
    OpSet launched(words_), complete(words_);
    uint64_t steps = 64 * (p_.tasks.size() + p_.waits.size()) + (uint64_t{1} << 16);
    size_t launch = 0;
    for (uint32_t t = 0; t < p_.tasks.size(); ++t) {
      const TaskRecord& task = p_.tasks[t];
      if (t == uint64_t{p_.launches[launch].first_task} + p_.launches[launch].task_count) {
        ++launch;
        for (uint32_t i = 0; i < p_.ops.size(); ++i) {
          if (tiles_[i].launch < launch) launched.add(i);
        }
      }
      complete = launched;
      for (uint64_t w = task.wait_begin; w < uint64_t{task.wait_begin} + task.wait_count; ++w) {
        const WaitRecord& wait = p_.waits[w];
        require_task(wait.counter < counters, t, IE_PLAN_VALUE, "waits for a counter that does not exist");
        require_task(wait.target == signals_[wait.counter] && wait.target > 0, t, IE_PLAN_COUNTER,
                     "a wait's target is not the number of its counter's signals");
        require_task(last_signal_[wait.counter] < t, t, IE_PLAN_ORDER, "waits for itself or a later task");
        if (waited_by[wait.counter] == t) continue;
        waited_by[wait.counter] = t;
        const uint64_t* at = &complete_at[wait.counter * words_];
        for (size_t i = 0; i < words_; ++i) complete.words[i] |= at[i];
        for (uint32_t s = shares.first[wait.counter]; s < shares.first[wait.counter + 1]; ++s) {
          const Share& share = shares.list[s];
          if (share.tasks == 0) break;
          if (counted_by[share.op] != t) counted[share.op] = 0;
          counted_by[share.op] = t;
          counted[share.op] += share.tasks;
          if (counted[share.op] == tiles_[share.op].count) complete.add(share.op);
        }
      }
      if (task.op != kNone) {
        reads_are_done(t, task, complete, waited_by, &steps);
        const OpRecord& op = p_.ops[task.op];
        reused_is_free(t, op.out_buffer, complete);
        if (op.part_depth != 0) reused_is_free(t, op.part_buffer, complete);
      }
      if (task.signal != kNone) {
        uint64_t* at = &complete_at[task.signal * words_];
        for (size_t i = 0; i < words_; ++i) at[i] |= complete.words[i];
      }
    }
  }

  // Rule 5, writing.
  void reused_is_free(uint64_t t, uint32_t buffer, const OpSet& complete) const {
    const OpSet& needed = needed_[buffer];
    for (size_t i = 0; i < words_; ++i) {
      require_task((needed.words[i] & ~complete.words[i]) == 0, t, IE_PLAN_REUSE,
                   "writes memory that an unfinished task may still use");
    }
  }

  // Rule 5, reading: every tile that holds rows which the task reads is waited for.
  void reads_are_done(uint32_t t, const TaskRecord& task, const OpSet& complete,
                      const std::vector<uint32_t>& waited_by, uint64_t* steps) const {
    const OpRecord& op = p_.ops[task.op];
    if (op.in_buffer == kNone) return;
    const uint64_t last = std::min(uint64_t{task.row} + op.tile_rows, buffer_rows(op.out_buffer)) - 1;
    const uint64_t begin = line(op, task.row, 0) * op.in_w;
    const uint64_t end = (line(op, last, op.kernel_h - 1) + 1) * op.in_w;
    for (uint32_t source = sources_[task.op].begin; source < sources_[task.op].end; ++source) {
      require_task((*steps)-- > 0, t, IE_PLAN_WORK, "the proof takes too long");
      const uint32_t writer = writers_[op.in_buffer][source];
      if (complete.has(writer)) continue;
      const OpTiles& tiles = tiles_[writer];
      const uint64_t tile_rows = p_.ops[writer].tile_rows;
      for (uint64_t i = begin / tile_rows; i <= (end - 1) / tile_rows; i = tiles.band_end[i]) {
        require_task((*steps)-- > 0, t, IE_PLAN_WORK, "the proof takes too long");
        const uint32_t counter = tiles.band[i];
        require_task(counter != kNone && waited_by[counter] == t, t, IE_PLAN_MISSING_WAIT,
                     "reads a tile that it does not wait for");
      }
    }
  }

  // The input line, counted over the whole batch, that tap `tap` of an output row reads; clipped into its image.
  static uint64_t line(const OpRecord& op, uint64_t row, uint32_t tap) {
    const uint64_t y = row / op.out_w % op.out_h, image = row / op.out_w / op.out_h;
    const uint64_t shifted = y * op.stride_h + tap;
    const uint64_t inside = shifted < op.pad_top ? 0 : std::min<uint64_t>(shifted - op.pad_top, op.in_h - 1);
    return image * op.in_h + inside;
  }

  const Program& p_;
  const uint64_t weight_bytes_;
  const size_t words_;  // of a set of ops
  uint64_t work_ = 0;
  std::vector<std::vector<uint32_t>> writers_;   // per buffer, by column
  std::vector<Range> sources_;                   // per op: who writes what it reads
  std::vector<bool> is_output_;                  // per buffer
  std::vector<OpTiles> tiles_;                   // per op
  std::vector<uint32_t> signals_, last_signal_;  // per counter: how many; the last task
  std::vector<OpSet> needed_;                    // per buffer: ops that must be complete before it is written
};

}  // namespace

void check_limits(const ProgramHeader& h) {
  const auto limit = [](uint64_t value, uint64_t most, const char* what) {
    if (value > most) refuse(IE_PLAN_LIMIT, std::string("more than ") + std::to_string(most) + " " + what);
  };
  limit(h.max_batch, kMaxBatch, "images in a batch");
  limit(h.buffer_count, kMaxBuffers, "buffers");
  limit(h.output_count, kMaxOutputs, "outputs");
  limit(h.op_count, kMaxOps, "ops");
  limit(h.launch_count, kMaxLaunches, "launches");
  limit(h.task_count, kMaxTasks, "tasks");
  limit(h.wait_count, kMaxWaits, "waits");
  limit(h.counter_count, std::min(kMaxCounters, h.task_count), "counters, or more than tasks");
  limit(h.string_bytes, kMaxStrings, "bytes of names");
  limit(h.arena_bytes, kMaxArena, "bytes of arena");
}

void prove(const Program& program, uint64_t weight_bytes) { Proof(program, weight_bytes).run(); }

}  // namespace ie
