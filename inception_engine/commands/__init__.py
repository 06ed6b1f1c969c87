"""The commands of `inception` that belong to no package of their own, and what commands share.

A command is a module with ``add_options``, which its parser is given to, and ``run``, which takes what was parsed and
returns the exit status. None imports more at the top than the standard library and what imports no more itself:
`inception --help` asks all of them for their options.

variant  options for the variant of the network
values   what texts of options stand for
errors   mistakes of the user
"""
