"""Campaigns: long checks that anyone can run, whose results are in `docs/trust.md`.

- `intervals`  coverage of every kind of interval, and p-values under their null (`cases`, those of single `analyses`)
- `files`      damaged files, read by every reader, and by the dashboard (`pages`)
- `kill`       verbs killed at random moments
- `conditions` verbs on full and read-only disks, with a clock that goes backwards, beside others; a moved workspace
- `requests`   many requests to a dashboard, and its memory
- `mutants`    small changes to the numeric core, and the tests that notice them
"""
