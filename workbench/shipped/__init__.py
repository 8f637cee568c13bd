"""The dictionary that ships with the package, and the script that made it.

texts.py     the text it was trained on: books and speeches from packages, docstrings, code
build.py     the recipe, from text to the folder that ships: `python -m workbench.shipped.build`
"""
