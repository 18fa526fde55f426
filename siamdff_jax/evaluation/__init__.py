"""How good a tracker is: running it on labelled data, metrics, one protocol per benchmark, comparisons, reports.

Whoever has result files already needs no JAX: `comparison`, what it is made of, and `report` import none.
"""
