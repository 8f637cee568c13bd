"""The dictionary that ships with the package (`data`), and the script that made it.

- `build`  the recipe, from the text it was trained on to its folders: `python -m workbench.shipped.build`
"""
