"""What training does over time.

- `transitions`: is there a sudden change on a curve, and where (with its null)
- `modular`, `fourier`, `grokking`: modular addition, what it grows, and the phases of generalising late
- `induction`: a toy trained until induction heads form, beside its one-layer twin
- `save`: the dynamics folder
"""
