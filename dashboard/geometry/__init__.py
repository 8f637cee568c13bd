"""The page `/geometry`: shapes of word lists, and how representations fill their space.

- `page`  a list of words, one panel per question; spaces and their comparison, each number with its null
"""
