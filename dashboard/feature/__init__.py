"""The page `/feature/<features>/<index>`: a list of features, or one of them.

- `page`       the list, one feature, and the buttons that ask an endpoint for labels
- `_examples`  the histogram of activations, the examples in a range of it
- `sections`   label, numbers, effects, neighbours, logits, companions and uses, for the page, notebooks and the file
- `export`     a feature as one HTML file that needs no server
- `_prove`     the panel *Prove it*: the stored proof, and live answers with their controls
"""
