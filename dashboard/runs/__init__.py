"""Analyses started from the page: a queue that runs one at a time, and the page that fills it.

- `queue`  the queue, its state on disk, and the processes that it starts
- `page`   the page: a form for every verb, the queue, and the artefacts with their sizes
"""
