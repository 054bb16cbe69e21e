"""How fast the package is, beside what a user would otherwise run.

``timing``: seconds, memory, and the rate of a matrix product. ``noise``: pictures that show nothing. ``peers``: the
others' programs, on the model as open_clip gives it. ``comparisons``: ours beside one of them, of equal results.
``sweeps``: batches, classes, steps, precisions. Three commands: ``python -m zsar bench`` (``command``),
``bench-evaluate`` (``evaluation``) and ``bench-input`` (``loaders``).
"""
