"""`inception train`: the paper's recipe, on one machine or many.

config                every key of a training, its default and its check: YAML file and options alike
command               the options, and what happens around the loop
loop                  steps, epochs, validation
optimiser, averaging  SGD with the paper's schedule; Polyak averaging, with batch-norm statistics of its own
start                 the model to begin with: new, or of a network or checkpoint, with frozen layers
checkpoint            one hashed file from which training goes on bit for bit
distributed           processes started by torchrun
logs                  progress, CSV, TensorBoard, curves
augment, loader       images as the network sees them in training, in an order that a seed gives
"""
