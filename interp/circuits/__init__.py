"""Which parts of a model do what.

- `patterns`: what a previous-token, duplicate-token, induction, first-token, current-token pattern IS
- `heads`: every head scored for these, against nulls, with intervals and a verdict
- `head_table`: the scores as a folder
- `head_weights`, `composition`, `copying`: what the weights of heads say alone
- `induction`: the induction circuit, from pattern to proof; `induction_verdict` holds the rule, `induction_prompts` the
  corrupted twins, `induction_evidence` the measurements, `induction_table` the folder
"""
