"""Whether a config makes sense: a table of rules per section, by which commands check what they are given when they
start.

`rules` are the kinds of rules, `experiment` has the tables of configs/base.py's sections, `network` and `tracker` those
of two sections that need more room, `commands` what a sweep and an ablation add.
"""
