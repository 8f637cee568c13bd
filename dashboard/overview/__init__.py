"""The page `/`: findings of the workspace, its artefacts, and where they came from.

- `page`      the page
- `data`      one card per artefact: a sentence and its main numbers
- `findings`  what the artefacts have found, each beside its null, the strongest first
"""
