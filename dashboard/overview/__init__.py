"""The page `/`: findings of the workspace, its artefacts, and their origin.

- `page`      the page, and the findings that it picks
- `_data`     one card per artefact: a sentence and its main numbers
"""
