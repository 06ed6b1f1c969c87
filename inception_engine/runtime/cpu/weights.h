// Weights as the tile kernels read them: a plan's own, or made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "../memory.h"
#include "../program.h"
#include "kernels.h"

namespace ie::cpu {

// How the weights of a convolution lie, panel by panel of 16 columns.
enum class Form {
  kFloat32,  // [taps, or the points of a patch][in_channels][16] float32
  kPairs,  // [taps][in_channels / 2][16][2] bfloat16, a zero behind an odd channel; points of large patches as above
  kAmx  // [runs][steps][16][16][2] bfloat16: element 2 * i + j of a step and a column stand at [run][step][i][column][j]
};
constexpr size_t kForms = 3;

// Whether AVX512-BF16 and AMX can compute a program: what it reads and writes is bfloat16 everywhere, and each K is whole.
bool suits_bfloat16(const Program& program);

// Whether a form has the points of patches for a convolution, which so is computed by Winograd's algorithm. bfloat16 is
// multiplied twice as fast as float32, so that only large patches of 3x3 windows, a quarter of the products, are left to
// gain from it.
bool takes_points(const OpRecord& op, Form form);

// A window's lines, taken in steps of kAmxStep elements of which the last ends with the line; or, where they are shorter,
// each line in one step if there are no more steps for that, or else the whole of K, filled up with zeros.
AmxDepth amx_depth(const OpRecord& op);

// Those of all programs of an engine. Half precision is widened, and windows for Winograd's algorithm are taken to the
// points of a patch, 36 for 9 or 25, or 16 for 9; or bfloat16 is ordered as AVX512-BF16 or AMX read it. A form is made
// for the first context that needs it and shared by all; a plan is read and proven in less time than it takes.
//
// When no form is left to be made, nobody reads what they were made of, nor what belongs to programs that this engine does
// not run: these pages of the section go back to the system, one op after the other, so that both are never there in full.
// So on the CPU the section is this class's and its kernels' alone.
class Weights {
 public:
  // `programs` are proven; they and the WEIGHTS section, in memory that `allocator` gave, outlive this.
  Weights(std::vector<const Program*> programs, std::byte* section, uint64_t section_bytes,
          const Allocator& allocator)
      : programs_(std::move(programs)),
        section_(section),
        section_bytes_(section_bytes),
        allocator_(allocator) {}

  // Once for each form, whichever thread comes first; of all programs that can have it. With whichever float32 kernels: all
  // make the same bits. Throws std::bad_alloc.
  void make(Form form, const Kernels& kernels);

  const std::byte* section() const { return section_; }

  // Of a convolution, in a form that was made, and the bytes of one panel.
  const std::byte* of(const Program& program, const OpRecord& op, Form form) const;
  static size_t panel_bytes(const OpRecord& op, Form form);

 private:
  // Offset, bytes, dtype, the size of patches or 0; taps, those of a line, and channels, which say how the weights lie.
  using Key = std::tuple<uint64_t, uint64_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>;
  struct Made {
    bool done = false;
    std::map<Key, size_t> places;  // in bytes; without those that are read from the section itself
    Memory memory;
  };

  static Key key(const Program& program, const OpRecord& op, Form form);
  Made make_all(Form form, const Kernels& kernels) const;
  bool reads(const Program& program, const OpRecord& op, Form made) const;

  // Bytes of the section.
  struct Range {
    uint64_t begin, end;
  };
  std::vector<Range> unread(Form made) const;
  void give_back_before(uint64_t end, std::vector<Range>* unread) const;

  const std::vector<const Program*> programs_;
  std::byte* const section_;
  const uint64_t section_bytes_;
  const Allocator allocator_;
  std::mutex making_;
  Made made_[kForms];  // by Form
};

}  // namespace ie::cpu
