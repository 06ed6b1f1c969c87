// Happens-before: what a task reads is written, and what it writes over is read no more.
#pragma once

#include <vector>

#include "../program.h"
#include "op_set.h"
#include "schedule.h"
#include "writers.h"

namespace ie::proof {

// Rules 4 and 5. `needed`: for each buffer, the ops that must be complete before it is written.
void prove_order(const Program& p, const Writers& writers, const Schedule& schedule,
                 const std::vector<OpSet>& needed);

}  // namespace ie::proof
