"""The dictionary and the graphs that ship with the package (`data`), and the recipes that make them.

- `sampled`  text that SmolLM2 writes itself: `python -m workbench.shipped.sampled`
- `sources`  that and other texts, each from a package of a registry, as documents
- `lexicon`  classes of words for labels, from WordNet: `python -m workbench.shipped.lexicon`
- `build`    the dictionary, from the text it was trained on to its folders: `python -m workbench.shipped.build`
- `graphs`   transcoders of all layers and the graphs of four prompts: `python -m workbench.shipped.graphs`
"""
