"""The page `/`: a prompt to ask about, findings of the workspace, its artefacts, and their origin.

- `page`      the page, and the findings that it picks
- `_ask`      its head: the field for a prompt, and links to stored graphs
- `_data`     one card per artefact: a sentence and its main numbers
"""
