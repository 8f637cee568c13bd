"""The page `/geometry`: shapes of word lists, and directions.

- `page`    the page
- `data`    lists of words and directions of an artefact
- `panels`  one panel per question: a figure, how to read it against its null, the numbers
- `space`   how representations of a model fill their space, and how similar two of them are
"""
