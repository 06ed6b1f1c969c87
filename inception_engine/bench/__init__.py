"""inception-bench: our engine and its peers on the same network, the same images, the same threads, in one run.

What is run: ``cases`` (a Case is a row), ``artefacts`` (the files that peers load). Who runs it: ``peers`` (the table
of them), ``runners`` and ``runners_cuda`` (how each is called), ``worker`` (the process that holds one), ``engine.c``
(that process in C). How: ``process`` (the parent's end of a worker), ``timing`` (rounds and percentiles),
``arrivals`` (open loop), ``suite`` (one group of cases from start to ``rows``), ``selftest``. What is left:
``records``, ``environment``, ``report``, ``plots``, ``compare``, ``profiling`` with ``peak``. ``command`` is the
command line; the method is in benchmarks/README.md.
"""
