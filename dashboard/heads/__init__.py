"""The page `/heads/<name>`: scores of every attention head.

- `page`      the page: every head over a text, scores on random tokens as a heat map and table
- `_table`    columns and rows of the table of heads by score
- `_browser`  heads over a text: a small map for each kind, filters, and a list
"""
