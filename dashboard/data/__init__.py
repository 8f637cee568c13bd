"""Queries of several pages to a workspace; those of one page are in its own folder.

- `workspace`  notes, and whether anything changed
- `features`   feature tables: one feature, lists, relations, uses
- `feature_names`  the menu of a field that takes a feature
- `heads`      heads over a text: the list and its filters, all about one
- `meaning`    words that features make the model say, through the Jacobian lens
- `tour`       the steps of the tour, from what the workspace has
"""
