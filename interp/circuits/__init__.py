"""Which parts of a model do what.

- `patterns`: what a previous-token, duplicate-token, induction, first-token, current-token pattern IS
- `heads`: every head scored for these, against nulls, with intervals and a verdict
- `head_table`: the scores as a folder
"""
