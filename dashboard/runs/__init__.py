"""The page *Runs*: analyses started from a form and queued (`dashboard.queue`), and artefacts with the trash."""
