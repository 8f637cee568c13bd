"""The page *Notes*: stars, texts, lists, saved searches, recipes and conversations.

- `page`  the page, and the routes by which controls on other pages read and write notes
"""
