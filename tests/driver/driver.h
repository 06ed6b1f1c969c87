// A stand-in for libcuda.so.1, for testing what calls it on machines without a GPU.
//
//  1. It exports the driver functions that the runtime uses, and no others, as CUDA 12's cuda.h declares them.
//  2. It checks the driver's rules: cuInit first, a current context, live handles, copies inside of allocations, what a
//     stream capture forbids, block sizes and shared memory of a launch. A broken rule is a `violation` line in the log,
//     and the error that the real driver gives.
//  3. Device memory lies elsewhere than its addresses say: host code that follows a device pointer crashes. New
//     memory holds NaN. Work is done late, when something waits for it, all streams in order of submission; so results
//     that are read too early are not there. Accesses by two streams that nothing orders are violations. A copy
//     from pageable memory orders nothing but the streams that wait for the default stream, as documented.
//  4. Kernels are written out in C++ (walk.cpp), chosen by a text that stands where machine code would:
//         inception driver double
//         code FORM ARCH
//         entry NAME KERNEL DTYPE KINDS ROWS COLUMNS THREADS SHARED REGISTERS PARAM_SIZE...
//     FORM: cubin or ptx; KERNEL: walk or copy_output; the rest as in a record of the kernel archive. For `module`
//     (inception.cpp) the line is
//         entry NAME module DTYPE HEIGHT WIDTH CHANNELS N1 C3 N3 C5 N5 PROJECTION REDUCED THIRD GROUP FIRST SECOND
//             THREADS SHARED REGISTERS (TYPE SWIZZLE BOX0 BOX1 BOX2 BOX3)... PARAM_SIZE...
//     with nine tensor maps. Real machine code is taken too: entries are its kernels' names, of the dtype in
//     IE_DOUBLE_DTYPE; what `module` was compiled for is then read off its tensor maps.
//  5. Environment, all optional: IE_DOUBLE_FAIL=name:n=code,... (call n of that function, counted from 1, fails with
//     that error; the name * counts all calls), IE_DOUBLE_VERSION (12080), IE_DOUBLE_DEVICES (1), IE_DOUBLE_CAPABILITY
//     (90), IE_DOUBLE_MULTIPROCESSORS (4), IE_DOUBLE_LOG (a file: one JSON object a line for each call, each kernel that
//     is executed, each violation, and at the end for what was not released).
//     A release that is told to fail releases, then says so, as the real driver reports errors of earlier work. Errors
//     that the real driver keeps are kept: every later call in the context gives the same.
//  6. Functions for tests, outside of all rules: see the end of this file.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace fake {

constexpr int kCapability = 90;
constexpr uint32_t kDefaultShared = 48 << 10, kMostShared = 227 << 10;

using Clock = std::map<int, uint64_t>;  // stream -> how many of its operations are known to be done

struct Context {
  int device = 0;
  int retained = 0;
  CUresult sticky = CUDA_SUCCESS;
};

struct Allocation {
  Context* context;
  size_t bytes;
  std::vector<std::byte> backing;
  bool pinned;
  int writer = -1;  // stream of the last write
  uint64_t written = 0;
  Clock reads;
};

struct Module;

enum class Kernel { kWalk, kCopyOutput, kInception };

// What `module` was compiled for; height 0: not known.
struct InceptionEntry {
  uint32_t height = 0, width, channels, n1, c3, n3, c5, n5, projected, reduced, third, group, first, second;
  struct {
    uint8_t type, swizzle;
    uint16_t box[5];
  } maps[9];
};

struct Function {
  Module* module;
  std::string name;
  Kernel kernel;
  uint32_t dtype, kinds, rows, columns, threads, shared, registers;  // 0: not known
  std::vector<uint32_t> params;
  uint32_t shared_limit = kDefaultShared;
  InceptionEntry inception = {};
};

struct Module {
  Context* context;
  std::vector<std::unique_ptr<Function>> functions;
};

struct Work {  // an operation of a stream, or a node of a graph
  CUgraphNodeType type;
  // Kernel.
  Function* function = nullptr;
  uint32_t grid[3] = {}, block[3] = {}, shared = 0;
  std::vector<std::vector<std::byte>> params;
  bool programmatic = false;
  // Copy or fill.
  uintptr_t to = 0, from = 0;
  size_t bytes = 0;
  uint32_t value = 0;
  std::vector<std::byte> payload;  // of pageable memory
  // Graph.
  std::vector<std::shared_ptr<Work>> nodes;
  uintptr_t exec = 0;
};

struct Graph {
  Context* context;
  std::vector<std::shared_ptr<Work>> nodes;
};

struct Exec {
  Context* context;
  std::vector<std::shared_ptr<Work>> nodes;
};

struct Stream {
  Context* context = nullptr;
  int id = 0;
  bool blocking = true;  // waits for the default stream and is waited for by it
  Clock clock = {};
  Graph* capture = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread = {};
  bool invalid = false;  // the capture
};

struct Event {
  Context* context;
  Clock clock;
  Graph* captured = nullptr;
};

// Objects are never deleted, so that a dead handle is known for one.
struct State {
  bool initialised = false;
  std::vector<Context> contexts;
  std::map<uintptr_t, Allocation> memory;  // by the address that the caller sees
  std::set<Module*> modules;
  std::set<Function*> functions;
  std::set<Stream*> streams;
  std::set<Event*> events;
  std::set<Graph*> graphs;
  std::set<Exec*> execs;
  Stream legacy;
  Clock host;
};

extern State state;
extern thread_local std::vector<Context*> current;  // stack

int setting(const char* name, int fallback);

// What a function asks for before its body, and of whom.
enum Rule : unsigned {
  kAnywhere = 0,
  kInitialised = 1,
  kInContext = 3,
  kRelease = 4,  // is done even when told to fail
  kUnsafe = 8,   // not while a stream is captured in a mode that this thread minds
};

class Line {  // of the log
 public:
  explicit Line(const char* kind, const std::string& name);
  Line& add(const char* name, uint64_t value);
  Line& text(const char* name, const std::string& value);
  Line& list(const char* name, const std::vector<uint64_t>& values);
  void write();

 private:
  std::string json_;
};

CUresult call(const char* name, unsigned rules, const std::function<CUresult(Line&)>& body);
// Notes a broken rule and returns the error.
CUresult violation(CUresult result, const std::string& what);
// JSON of what is not released.
std::string leaks();

template <typename T, typename Handle>
T* live(const std::set<T*>& table, Handle handle) {
  T* object = reinterpret_cast<T*>(handle);
  return table.count(object) != 0 ? object : nullptr;
}

// ---- work.cpp

struct Fault {
  std::string what;
};

// The allocation that holds all of [address, address + bytes), or null.
std::pair<const uintptr_t, Allocation>* find(uintptr_t address, size_t bytes = 1);
bool capturing_unsafe();  // a capture that forbids this thread's unsafe calls; it is invalid from now on
Stream* stream_of(CUstream handle);  // null with a violation
// Captures it or leaves it for later.
CUresult submit(Stream* stream, std::shared_ptr<Work> work);
CUresult flush();  // does everything submitted; CUDA_SUCCESS or the error that it ended in
void merge(Clock* to, const Clock& from);
void forget_work();

// Device memory of the operation that is being done: checked when it is opened and at each access.
class Span {
 public:
  Span() = default;
  Span(std::byte* data, size_t bytes, uintptr_t address) : data_(data), bytes_(bytes), address_(address) {}
  template <typename T>
  T* at(uint64_t offset, uint64_t count = 1) const {
    if (offset > bytes_ || count > (bytes_ - offset) / sizeof(T)) {
      throw Fault{"access to " + std::to_string(count * sizeof(T)) + " bytes at " + std::to_string(offset) +
                  " behind an address with " + std::to_string(bytes_) + " bytes"};
    }
    if ((address_ + offset) % alignof(T) != 0) throw Fault{"misaligned access"};
    return reinterpret_cast<T*>(data_ + offset);
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  uintptr_t address_ = 0;
};

Span open(uintptr_t address, bool write, const char* what, size_t alignment = 1);

// ---- walk.cpp, inception.cpp: throw Fault

void run_walk(const Work& launch);
void run_copy_output(const Work& launch);
void run_inception(const Work& launch);

}  // namespace fake

extern "C" {
// A new script as IE_DOUBLE_FAIL has it; calls are counted from here on.
void double_script(const char* failures);
uint64_t double_calls(void);
uint64_t double_violations(void);
// Reads or writes device memory, after all work. 0, or 1 if that is not inside an allocation.
int double_read(uint64_t address, void* to, size_t bytes);
int double_write(uint64_t address, const void* from, size_t bytes);
// JSON of what is not released, of at most `bytes`; "{}" if nothing.
void double_leaks(char* text, size_t bytes);
// The context on top of this thread's stack, and its height.
uint64_t double_current(void);
uint64_t double_depth(void);
// Forgets every object and error.
void double_reset(void);
}
