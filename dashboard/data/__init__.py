"""Queries of several pages to a workspace; those of one page are in its own folder.

- `workspace`  models, notes, and whether anything changed
- `features`   feature tables: one feature, lists, relations, uses
- `meaning`    words that features make the model say, through the Jacobian lens
- `circuits`   circuits: edges and nodes with their scores, prompts, groups of heads
"""
