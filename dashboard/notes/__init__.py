"""The page *Notes*: stars, texts, lists and recipes.

- `page`  the page, and the routes that its controls ask
"""
