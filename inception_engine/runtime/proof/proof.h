// The proof that makes a plan from a stranger safe to run.
//
// A program that passes can do no harm whatever its tables say, because these hold:
//
//  1. Values. Every field has a value that exists; counts, sizes and work are capped. (proof.cpp, ops.cpp)
//  2. Addresses. At every batch up to the maximum, what an op reads and writes lies in its buffers, its buffers in
//     the arena, its weights in their section. (arena.cpp, ops.cpp, weights.cpp)
//  3. Tiles. The tasks of an op are its tiles, each once; ops that write one buffer write different columns;
//     what is read has a writer. (tiling.cpp, writers.cpp, schedule.cpp)
//  4. Termination. A wait's target is the number of all signals that its counter ever gets, and they come from
//     tasks with lower numbers. Workers take tasks in order, so the lowest unfinished task can always run. (order.cpp)
//  5. Order. A wait therefore means that *all* tasks that signal the counter are done. An op is *complete* at
//     a task when all its tasks are in earlier launches, or all signal counters that the task waits for, or the op
//     was complete at a task that signals such a counter.
//     - Before a task reads rows of a buffer, each op that writes the columns it reads is complete, or the task
//       waits for the counters of the tiles that hold those rows.
//     - Before a task writes a buffer that shares memory with an older one, every op that reads or writes the
//       older one is complete. Readers of the newer one come after its writers, so after those as well.
//     Hence two tasks that touch the same memory, one of them writing, are always ordered. (arena.cpp, order.cpp)
//     The one exception are the parts of a tile (plan_format.h, 10): they share sums, and it is their own counter of
//     arrivals, which nothing else counts on, that says who may read them. Their buffer has no other use. (prove_parts)
//
// The rules are stricter than happens-before: they ask for direct waits where a chain of waits would do. That
// is what makes the proof linear in tasks plus waits.
#pragma once

#include <cstdint>

#include "../program.h"

namespace ie::proof {

// Refuses counts that nobody needs, before anything is allocated for them. Throws Refusal.
void check_limits(const ProgramHeader& header);

// Throws Refusal with the first rule that the program breaks.
void prove(const Program& program, uint64_t weight_bytes);

}  // namespace ie::proof
