"""One question a file, answered as a ratio against a peer that runs in the same process.

`python -m benchmarks.recording` prints a table, `--json` the same as data. Shared printing: `benchmarks.report`.
"""
