// Runs a fuzz target where the compiler brings no fuzzer:
//
//   TARGET -runs=N [-seed=N] [-max_len=N] FILE...   every file as it is, then N mutations of them (chains of up to 8)
//   TARGET -prefixes FILE...     every prefix of every file, as it is and under a mended hash
//   TARGET -flips FILE...        every file with each of its bits flipped (of the weights some), as it is and under a
//                                mended hash; the files are plans
//
// What it runs is said by the target's own summary at the end. An input that ends the process is left in ./finding.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "plan_parts.h"

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t bytes, size_t most, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t* one, size_t one_bytes, const uint8_t* two, size_t two_bytes,
                                 uint8_t* out, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t* data, size_t bytes, size_t most);
void __sanitizer_set_death_callback(void (*callback)());
}

namespace {

using hardening::Bytes;

constexpr size_t kWeightBits = 37;  // of the weights, every so many

uint64_t state = 1;
uint32_t random_below(uint64_t n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return n == 0 ? 0 : uint32_t((state >> 33) % n);
}

const Bytes* current;
void keep() {
  if (current == nullptr) return;
  if (FILE* file = std::fopen("finding", "wb")) {
    std::fwrite(current->data(), 1, current->size(), file);
    std::fclose(file);
  }
}

void execute(const Bytes& input) {
  current = &input;
  // A copy of its own: a read behind its end is seen.
  const auto exact = std::vector<uint8_t>(input.begin(), input.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  current = nullptr;
}

Bytes read(const char* path) {
  FILE* file = std::fopen(path, "rb");
  if (file == nullptr) {
    std::perror(path);
    std::exit(2);
  }
  Bytes bytes;
  uint8_t buffer[4096];
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, file)) > 0;) {
    bytes.insert(bytes.end(), buffer, buffer + got);
  }
  std::fclose(file);
  return bytes;
}

void prefixes(const Bytes& file) {
  for (size_t end = 0; end < file.size(); ++end) {
    Bytes cut(file.begin(), file.begin() + long(end));
    execute(cut);
    hardening::mend(cut.data(), cut.size());
    execute(cut);
  }
}

// Where the weights lie, of which every bit is as good as any.
std::pair<size_t, size_t> weights(const Bytes& file) {
  ie::FileHeader header;
  std::memcpy(&header, file.data(), sizeof header);
  for (uint32_t i = 0; i < header.section_count; ++i) {
    ie::SectionRecord section;
    std::memcpy(&section, file.data() + sizeof header + i * sizeof section, sizeof section);
    if (section.kind == uint32_t(ie::Section::kWeights))
      return {section.offset, section.offset + section.bytes};
  }
  return {0, 0};
}

void flips(Bytes file) {
  const auto [begin, end] = weights(file);
  for (size_t bit = 0; bit < 8 * file.size(); ++bit) {
    if (bit / 8 >= begin && bit / 8 < end && bit % kWeightBits != 0) continue;
    file[bit / 8] ^= uint8_t(1u << bit % 8);
    execute(file);
    Bytes mended = file;
    hardening::mend(mended.data(), mended.size());
    execute(mended);
    file[bit / 8] ^= uint8_t(1u << bit % 8);
  }
}

void mutations(const std::vector<Bytes>& corpus, unsigned long long runs, size_t most) {
  Bytes input;
  for (unsigned long long i = 0; i < runs; ++i) {
    if (i % 8 == 0 || random_below(4) == 0) {
      input = corpus[random_below(corpus.size())];
    } else if (random_below(16) == 0) {
      const Bytes& other = corpus[random_below(corpus.size())];
      Bytes crossed(most);
      crossed.resize(LLVMFuzzerCustomCrossOver(input.data(), input.size(), other.data(), other.size(),
                                               crossed.data(), most, random_below(1u << 31)));
      if (!crossed.empty()) input = crossed;
    }
    const size_t bytes = input.size();
    input.resize(std::max(most, bytes));
    input.resize(LLVMFuzzerCustomMutator(input.data(), bytes, input.size(), random_below(1u << 31)));
    execute(input);
  }
}

}  // namespace

// Bytes changed at random.
size_t LLVMFuzzerMutate(uint8_t* data, size_t bytes, size_t most) {
  switch (random_below(5)) {
    case 0:
      if (bytes < most) {
        const size_t at = random_below(bytes + 1);
        std::memmove(data + at + 1, data + at, bytes - at);
        data[at] = uint8_t(random_below(256));
        return bytes + 1;
      }
      break;
    case 1:
      if (bytes > 1) {
        const size_t at = random_below(bytes);
        std::memmove(data + at, data + at + 1, bytes - at - 1);
        return bytes - 1;
      }
      break;
    case 2:
      if (bytes > 1 && random_below(4) == 0) return 1 + random_below(bytes - 1);
      break;
    default:
      break;
  }
  for (uint32_t count = random_below(4) + 1; count > 0 && bytes > 0; --count) {
    uint8_t& byte = data[random_below(bytes)];
    byte = random_below(2) == 0 ? uint8_t(byte ^ 1u << random_below(8)) : uint8_t(random_below(256));
  }
  return bytes;
}

int main(int argc, char** argv) {
  __sanitizer_set_death_callback(keep);
  std::vector<Bytes> corpus;
  unsigned long long runs = 0;
  size_t most = 16384;
  std::string mode;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("-runs=", 0) == 0) {
      runs = std::strtoull(argv[i] + 6, nullptr, 10);
    } else if (argument.rfind("-seed=", 0) == 0) {
      state = std::strtoull(argv[i] + 6, nullptr, 10);
    } else if (argument.rfind("-max_len=", 0) == 0) {
      most = std::strtoull(argv[i] + 9, nullptr, 10);
    } else if (argument == "-prefixes" || argument == "-flips") {
      mode = argument;
    } else {
      corpus.push_back(read(argv[i]));
    }
  }
  if (corpus.empty()) return 2;
  for (const Bytes& file : corpus) {
    execute(file);
    if (mode == "-prefixes") prefixes(file);
    if (mode == "-flips") flips(file);
  }
  if (mode.empty()) mutations(corpus, runs, most);
  return 0;
}
