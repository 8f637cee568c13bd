"""What each page asks of the workspace: small, capped queries that return plain values. Torch-free.

`overview` artefacts and where they came from · `features` one feature, or a slice of the list · `atlas` points, the
table and true neighbours, `atlas_columns` what colours points, `atlas_selection` which are meant · `heads` scores ·
`circuit` a circuit · `sae`, `sae_log`, `sae_scores` dictionaries, their training and how they compare · `geometry`
shapes of lists of words · `dynamics` what training did · `changes` two models compared.
"""
