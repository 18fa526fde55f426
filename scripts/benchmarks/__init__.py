"""Speed and memory measurements that documents quote; run by `scripts/benchmark.py`, one file per subcommand.

A measurement is an iterable of rows. A row is a dict: its numbers and strings are columns of the table, its lists
(single timings) and dicts (details) appear in the JSON only. All rows of a table have the same columns.
"""
