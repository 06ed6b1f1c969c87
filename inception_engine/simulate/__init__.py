"""What a GPU's schedule would take: a simulation of a CUDA program's task table, with no GPU.

gpu      the constants of one GPU, each with where it comes from (costs/*.json)
work     what a task computes and moves
events   workers take tickets, wait, run, signal
path     the chain of tasks that sets the end, and bounds that no schedule beats
report   all of it as a document and as text; trace  for Perfetto and chrome://tracing
fit      constants from measured times; tiles  tile shapes by predicted latency
prediction  what `inception simulate` finds
"""

from inception_engine.simulate.events import Run, simulate
from inception_engine.simulate.fit import Fit, fit
from inception_engine.simulate.gpu import Gpu, SimulationError
from inception_engine.simulate.tiles import best_tiles

__all__ = ["Fit", "Gpu", "Run", "SimulationError", "best_tiles", "fit", "simulate"]
