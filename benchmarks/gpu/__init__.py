"""`tools/gpu`: every figure that needs a GPU, in one command; and its rehearsal on a machine without one.

stages     the stages in their order, with their time limits; each runs in a process of its own
stage      that process; what a stage is given (Job)
scale      how much is run: quick, in full, or rehearsed
device     tensors, clocks, graphs and traces of a GPU, or of the CPU that stands in for one
cases      networks, modules, images and their references
runners    our engines, and others, as calls on tensors of the device
compare    parity first, then interleaved times
records    what is written: JSON lines; report  as Markdown, plots  as pictures
rehearsal  what takes a GPU's place
"""
