"""Benchmarks: one question per file, answered as a ratio to a baseline that runs in the same process.

`python -m benchmarks.recording` prints a table, `--json` the same as data. Shared printing: `benchmarks.report`.
"""
