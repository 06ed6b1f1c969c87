"""Accuracy by the protocol of the GoogLeNet paper: crops, ensembles, top-1 and top-5.

    with ie.load("net.safetensors") as backend:
        rows = evaluate(Ensemble([backend]), datasets.opened("val", "held-out"), counts=(1, 10, 144))

crops       the 1, 10 or 144 crops of an image
ensemble    softmax averages over crops and models, and a row of the table for each number of both
metrics     what is counted, and on how many images two evaluations agree
table       the rows beside the paper's; confusion  the matrix as PNG
command     `inception evaluate`; digits  what `inception classify digits` prints
collection  the results of a large collection in parts; workers  processes on several machines that make them
collection_command  `inception classify --ray`
"""
