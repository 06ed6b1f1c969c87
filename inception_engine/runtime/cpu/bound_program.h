// A program with its addresses in one context: what its workers compute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../include/inception_engine.h"
#include "../program.h"
#include "counter.h"
#include "kernels.h"
#include "weights.h"

namespace ie::cpu {

// What a context of an instruction set makes of the weights of a program, and so which kernels run it.
Form form_of(const Program& program, ie_isa isa);

// Bytes of activations of a program, in a context of an instruction set.
uint64_t arena_bytes(const Program& program, ie_isa isa);

const Kernels& kernels_of(const Program& program, ie_isa isa);

// AVX512-BF16 and AMX run bfloat16 as it is. Else half precision is float32 numbers in an arena of twice the
// size, where every offset is doubled and so all that overlaps still does; weights are widened, sums are float32, and each
// tile is rounded when it is done. That is what those compute, but for the order of its sums, and for numbers below
// the normal ones, which they take for zeros.
class BoundProgram {
 public:
  // `program` is proven; it, the arena of arena_bytes() and the weights, which were made, outlive this.
  BoundProgram(const Program& program, ie_isa isa, std::byte* arena, const Weights& weights);

  const Program& program() const { return *program_; }

  // Computes a task's tile, as far as `batch` images have it; of one part of K, who comes last finishes the tile. The
  // counters are the program's. Allocates nothing.
  void compute(const TaskRecord& task, uint32_t batch, Counter* counters, const Scratch& scratch) const;

  // The weights to fetch while task number `task` is computed by one of so many workers.
  Lines weights_ahead(uint32_t task, size_t workers) const;

  // Copies `batch` images of an output to the caller: float32, NCHW.
  void copy_output(const ie_output& output, uint32_t batch) const;

 private:
  bool is_bfloat16() const { return form_ != Form::kFloat32; }
  bool widens(uint32_t buffer) const;
  bool rounds(const OpRecord& op) const;
  void round(const OpView& view, const Tile& tile) const;
  bool compute_part(const TaskRecord& task, const OpView& view, const Tile& tile, Counter* counters) const;

  const Program* program_;
  Form form_;
  const Kernels* kernels_;
  std::byte* arena_;
  size_t scale_;  // of offsets in the arena
  std::vector<OpView> ops_;
};

}  // namespace ie::cpu
