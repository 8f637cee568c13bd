"""Analyses started from the page: a queue that runs one at a time, and the page that fills it.

- `files`    the runs on disk
- `queue`    the queue, and the processes that it starts
- `page`     the page: a form for every verb, and the queue
- `storage`  the part of the page on artefacts: their sizes, deletion, the trash
"""
