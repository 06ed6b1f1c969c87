// The tile kernels: one function per kind of op, built for float32 three times (portable C++, AVX2 with FMA, AVX-512) and
// for bfloat16 twice (AVX512-BF16, AMX).
//
// Only plain structures stand here, no inline function: whatever two of those builds shared could end up in
// the library with instructions that the machine does not have.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../include/inception_engine.h"
#include "../plan_format.h"

namespace ie::cpu {

struct Bfloat16 {
  uint16_t bits;
};

// How AMX takes K of a convolution: `runs` runs of `run` elements, which lie side by side in a line of the image, each in
// `steps` steps of `step` elements.
struct AmxDepth {
  size_t runs, run, steps;
  uint32_t step;
};

// An op with its addresses. Fixed when a context is created. Elements are those of the kernels: float32 or bfloat16.
struct OpView {
  const OpRecord* record;
  const void* in;  // element (row 0, in_channel); null for INPUT
  void* out;       // element (row 0, out_channel)
  size_t in_pitch, out_pitch;
  const void* weights;  // as weights.h has them; for INPUT float32: scales, then shifts
  size_t panel_bytes;   // of the weights of 16 columns of a convolution
  AmxDepth amx;         // of a convolution
  const float* bias;
  float* parts;  // sums of the parts of K; null where K is whole
};

// Rows and columns [begin, begin + count) of an op's output; the rows are those that the running batch has.
struct Tile {
  uint32_t row, rows;
  uint32_t column, columns;
};

constexpr size_t kMaxBlockRows = 32;    // no micro-kernel computes more rows at a time
constexpr size_t kTableRows = 512;      // rows of a tile whose addresses are known at a time, at most
constexpr uint32_t kPoolColumns = 64;   // of float32, that pools do at a time
constexpr uint32_t kPoolPixels = 4096;  // of a line that pools do at a time; no window is that wide
constexpr uint32_t kPooledRows = 64;    // that a pool makes at a time for the convolution behind it
constexpr size_t kLrnSquares = 1024;    // that LRN takes at a time, or those of a row
constexpr size_t kWidestGroup = 64;     // columns that a micro-kernel computes, at most
constexpr size_t kMinPatches = size_t(1) << 17;   // floats: 512 KB, about what L2 keeps
constexpr size_t kMinGathered = size_t(1) << 16;  // elements: 128 KB of L2
constexpr size_t kMinTable = 4096;                // addresses: 32 KB, which L2 keeps while a tile is computed

// Memory to fetch into a cache, in lines of kPanel floats: 64 bytes.
struct Lines {
  const float* begin;
  size_t count;
};

// 16 rows of a convolution's input, of which a multiplication of AMX takes kAmxStep elements each, or fewer.
struct AmxRows {
  const void* begin;
  ptrdiff_t stride;  // bytes from one row to the next
};
constexpr uint32_t kAmxStep = 32;

// Memory of one worker.
struct Scratch {
  // Of a convolution's tile: the address of each row's input pixel, [taps][rows], and a bit per row and tap
  // that says whether it lies in the image (bit 63 stands for all taps from the 63rd on).
  const void** table;
  size_t table_entries;  // at least kMinTable, and kMaxBlockRows * taps of any convolution
  uint64_t* inside;      // kTableRows
  // Of a convolution by Winograd's algorithm: patches at their points, then sums at the points of a group of panels.
  float* patches;
  size_t patch_floats;  // at least kMinPatches, and room for two patches of any convolution
  // Of a convolution behind a pool: kPooledRows rows of in_channels, so many bytes apart. The same memory.
  void* pooled;
  size_t pooled_pitch;
  // Of a convolution by AMX: what was gathered of kMaxBlockRows rows, room for K of any convolution in each, or lines of the
  // image; and where the rows of each step of K lie, [steps][2].
  Bfloat16* gathered;
  size_t gathered_pitch;
  size_t gathered_elements;  // at least kMinGathered
  AmxRows* amx_rows;
  // LRN: out_channels + size + 2 * kPanel, or kLrnSquares; softmax: channels; pools: min(in_w, kPoolPixels) *
  // kPoolColumns.
  float* line;
  const void* zeros;      // a pixel outside the image: in_channels float32 of any convolution
  const ie_input* input;  // of this run
  Lines ahead;            // weights that this worker will probably need for its next task
};

using Kernel = void (*)(const OpView&, const Tile&, const Scratch&);

// A panel of weights for Winograd's algorithm: [size * size][channels][16] to [patch * patch][channels][16]. The windows may
// be the last of the memory that the points are written to. Every build gives the same bits.
using WindowsToPoints = void (*)(const float* windows, uint32_t size, uint32_t patch, size_t channels,
                                 float* points);

struct Kernels {
  Kernel by_kind[7];                  // indexed by OpKind
  Kernel winograd;                    // a convolution whose weights are at points; null for AMX
  Kernel behind_pool;                 // a convolution that is flagged kMaxPoolFirst
  WindowsToPoints windows_to_points;  // null for AMX
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;  // of bfloat16
extern const Kernels kAmxKernels;         // of bfloat16

}  // namespace ie::cpu
