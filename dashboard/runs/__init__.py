"""The page *Runs*: analyses started from the page, by the queue (`dashboard.queue`).

- `page`  a form for every verb, the queue, and artefacts with their sizes
"""
