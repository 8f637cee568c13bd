"""The page *Notes*: stars, texts, lists, saved searches and recipes.

- `page`  the page, and the routes by which controls on other pages read and write notes
"""
