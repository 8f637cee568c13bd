"""The page `/`: artefacts of the workspace and where they came from.

- `page`  the page
- `data`  one card per artefact: a sentence and its main numbers
"""
