"""The page *Search*: features by what they fire on, by label, by similarity.

- `page` the layout, the rows of hits, and the callbacks of the box in the bar of every page
"""
