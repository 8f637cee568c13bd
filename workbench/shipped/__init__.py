"""The dictionary that ships with the package (`data`), and the script that made it.

- `build`   the recipe: `python -m workbench.shipped.build`
- `texts`   the text it was trained on: books and speeches from packages, docstrings, code
"""
