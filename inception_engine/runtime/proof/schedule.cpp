#include "schedule.h"

#include "extents.h"
#include "fields.h"
#include "refusal.h"

namespace ie::proof {
namespace {

// The tiles of every op, of which no task is seen yet.
std::vector<OpTiles> cut_into_tiles(const Program& p) {
  std::vector<OpTiles> tiles_of_ops(p.ops.size());
  uint64_t total = 0;
  for (uint32_t i = 0; i < p.ops.size(); ++i) {
    OpTiles& tiles = tiles_of_ops[i];
    tiles.down = tiles_down(p, p.ops[i]);
    tiles.across = tiles_across(p.ops[i]);
    tiles.parts = part_count(p.ops[i]);
    tiles.first = total;
    total = tiles.end();
    require_op(total <= p.tasks.size(), p, i, IE_PLAN_TILES, "has more tiles than the program has tasks");
    tiles.band.assign(tiles.down, kNone);
  }
  return tiles_of_ops;
}

// Counters of arrivals have no other use: a wait for one would have no signals to wait for.
void prove_arrivals(const Program& p, const Schedule& schedule) {
  std::vector<bool> taken(p.header.counter_count);
  for (uint32_t i = 0; i < p.ops.size(); ++i) {
    const OpRecord& op = p.ops[i];
    if (op.part_depth == 0) continue;
    const uint64_t end = op.first_arrival + schedule.tiles[i].down * schedule.tiles[i].across;
    for (uint64_t counter = op.first_arrival; counter < end; ++counter) {
      require_op(schedule.signals[counter] == 0 && !taken[counter], p, i, IE_PLAN_COUNTER,
                 "a counter of its arrivals has another use");
      taken[counter] = true;
    }
  }
}

void find_ends_of_bands(OpTiles* tiles) {
  tiles->band_end.assign(tiles->down, static_cast<uint32_t>(tiles->down));
  for (uint64_t i = tiles->down; i-- > 1;) {
    tiles->band_end[i - 1] =
        tiles->band[i - 1] == tiles->band[i] ? tiles->band_end[i] : static_cast<uint32_t>(i);
  }
}

}  // namespace

void prove_launches(const Program& p) {
  uint64_t next = 0;
  for (const LaunchRecord& launch : p.launches) {
    require(reserved_zero(launch), IE_PLAN_RESERVED, "a reserved field of a launch is set");
    require(launch.mode >= 1 && launch.mode <= 3, IE_PLAN_VALUE, "unknown launch mode");
    require(in_strings(p, launch.name, launch.name_bytes), IE_PLAN_TABLES,
            "a launch's name leaves the strings");
    require(launch.first_task == next && launch.task_count >= 1, IE_PLAN_LAUNCH,
            "launches do not follow each other");
    next += launch.task_count;
  }
  require(next == p.tasks.size(), IE_PLAN_LAUNCH, "launches do not cover the tasks");
}

Schedule prove_tasks(const Program& p) {
  Schedule schedule{cut_into_tiles(p), {}, {}};
  const uint64_t total = schedule.tiles.back().end();
  std::vector<bool> seen(total),
      begun(total);  // per tile; per first tile of a row: whether its band is known
  schedule.signals.assign(p.header.counter_count, 0);
  schedule.last_signal.assign(p.header.counter_count, 0);
  uint64_t waits = 0, joins = 0;
  size_t launch = 0;
  for (uint32_t t = 0; t < p.tasks.size(); ++t) {
    const TaskRecord& task = p.tasks[t];
    while (t >= uint64_t{p.launches[launch].first_task} + p.launches[launch].task_count) ++launch;
    require_task(reserved_zero(task), t, IE_PLAN_RESERVED, "a reserved field is set");
    require_task(task.wait_begin == waits, t, IE_PLAN_TABLES, "its waits do not follow the last task's");
    waits += task.wait_count;
    require_task(waits <= p.waits.size(), t, IE_PLAN_TABLES, "its waits leave their table");
    require_task(task.signal == kNone || task.signal < p.header.counter_count, t, IE_PLAN_VALUE,
                 "signals a counter that does not exist");
    if (task.signal != kNone) {
      ++schedule.signals[task.signal];
      schedule.last_signal[task.signal] = t;
    }
    if (task.op == kNone) {
      require_task(task.row == 0 && task.column == 0 && task.part == 0, t, IE_PLAN_VALUE,
                   "a JOIN with a tile");
      ++joins;
      continue;
    }
    require_task(task.op < p.ops.size(), t, IE_PLAN_VALUE, "an op that does not exist");
    const OpRecord& op = p.ops[task.op];
    OpTiles& tiles = schedule.tiles[task.op];
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
  require(waits == p.waits.size(), IE_PLAN_TABLES, "waits that no task has");
  require(total + joins == p.tasks.size(), IE_PLAN_TILES, "an op lacks tiles");
  prove_arrivals(p, schedule);
  for (OpTiles& tiles : schedule.tiles) find_ends_of_bands(&tiles);
  return schedule;
}

}  // namespace ie::proof
