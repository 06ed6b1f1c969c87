"""`inception train`: the paper's recipe, on one machine or many.

config                every key of a training, its default and its check: YAML file and options alike
command               the options, and what happens around the loop
loop                  steps, epochs, validation
step, state           one step; all that it changes
validation            one crop of each held-out image
optimiser, averaging  SGD with the paper's schedule; Polyak averaging, with batch-norm statistics of its own
start                 the model to begin with: new, or of a network or checkpoint, with frozen layers
stopping, resuming    signals; the checkpoint to go on from
checkpoint            one hashed file from which training goes on bit for bit
distributed           processes started by torchrun
logs                  progress, CSV, TensorBoard, curves
augment, samples      images as the network sees them in training
loader, sheet         them in batches, in an order that a seed gives; a drawing of them
preview               what the command shows without training
"""
