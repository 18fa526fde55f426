"""Whether a config makes sense: a table of rules per section, by which commands check what they are given when they
start.

`experiment` has the tables of configs/base.py's sections, `network` that of one which needs more room, `commands` what
a sweep and an ablation add.
"""
