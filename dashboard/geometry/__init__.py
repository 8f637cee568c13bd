"""The page `/geometry`: shapes of word lists, directions, and how representations fill their space.

- `page`    the page
- `data`    lists of words and directions of an artefact
- `panels`  one panel per question: a figure, how to read it against its null, the numbers
"""
