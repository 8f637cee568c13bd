"""The page `/geometry`: shapes of word lists, and how representations fill their space.

- `page`          the page
- `panels`        one panel per question about a list: a figure, how to read it against its null, the numbers
- `space_panels`  the same of spaces and their comparison
"""
