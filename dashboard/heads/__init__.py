"""The page `/heads/<name>`: scores of every attention head.

- `page`  the page: heat map and table
"""
