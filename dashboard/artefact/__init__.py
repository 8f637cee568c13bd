"""The page `/artefact/<folder>/<name>`: any artefact, from its class.

- `page`      the page
- `_monitor`  a text under a monitor
- `sections`  its panels, for the page and notebooks
"""
