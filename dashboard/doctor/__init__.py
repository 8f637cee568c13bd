"""The page `/doctor`: what an examination of a set-up did, expected and found.

- `page`  the page
"""
