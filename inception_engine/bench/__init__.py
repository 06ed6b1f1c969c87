"""inception-bench: our engine and its peers on the same network, the same images, the same threads, in one run.

``cases`` says what is run, ``peers`` who runs it, ``timing`` how it is measured, ``records`` what is kept,
``report`` how it is shown and ``command`` is the command line. The method is in benchmarks/README.md.
"""
