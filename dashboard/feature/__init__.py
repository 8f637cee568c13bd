"""The page `/feature/<features>/<index>`: a list of features, or one of them.

- `page`       the page
- `data`       one feature with its examples, labels, relations and uses, or a slice of the sorted list
- `examples`   the histogram of activations, the examples in a range of it, and their documents
- `export`     a feature as one HTML file that needs no server
- `relations`  panels on logits, neurons, companions and uses
- `prove`      the panel *Prove it*: the stored proof, and live answers with their controls
"""
