"""The page `/`: findings of the workspace, its artefacts, and their origin.

- `page`      the page
- `data`      one card per artefact: a sentence and its main numbers
- `findings`  results of the artefacts, each with its null, strongest first
"""
