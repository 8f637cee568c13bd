"""The page `/artefact/<folder>/<name>`: any artefact, from its class.

- `page`      the page, a text under a monitor, and the test pairs of an alignment with their runs
- `sections`  its panels, for the page and notebooks
"""
