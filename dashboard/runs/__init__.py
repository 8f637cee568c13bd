"""The page *Runs*: analyses started from the page, by the queue (`dashboard.queue`).

- `page`     the page: a form for every verb, and the queue
- `storage`  the part of the page on artefacts: their sizes, deletion, the trash
"""
