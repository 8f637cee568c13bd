"""The page `/feature/<features>/<index>`: a list of features, or one of them.

- `page`  the page
- `data`  one feature with its examples and labels, or a slice of the sorted list
"""
