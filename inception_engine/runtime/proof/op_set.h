// A set of ops, as bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ie::proof {

inline size_t words_of_set(size_t ops) { return (ops + 63) / 64; }

struct OpSet {
  std::vector<uint64_t> words;
  explicit OpSet(size_t ops) : words(words_of_set(ops)) {}
  void add(uint32_t op) { words[op / 64] |= uint64_t{1} << (op % 64); }
  bool has(uint32_t op) const { return (words[op / 64] >> (op % 64)) & 1; }
};

}  // namespace ie::proof
