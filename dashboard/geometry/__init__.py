"""The page `/geometry`: shapes of word lists, directions, and how representations fill their space.

- `page`              the page
- `panels`            one panel per question about a list: a figure, how to read it against its null, the numbers
- `direction_panels`  the same of a direction
- `space_panels`      the same of spaces and their comparison
"""
