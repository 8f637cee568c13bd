"""The page `/glossary`: one word per idea, to which texts of other pages link.

- `page`  the page
"""
