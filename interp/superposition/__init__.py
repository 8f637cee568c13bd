"""Toy models of superposition: more features than dimensions, and the shapes that they settle in (Elhage et al. 2022).

- `toy`: train many toys at once, one per density, importance and seed
- `geometry`: interference, dimensionality of features, and the polytope that a set of directions is
- `phases`: not represented, dedicated, or in superposition, over density and importance

What a sparse autoencoder recovers of a toy is asked in `saes.toy_recovery`.
"""
