"""Geometry of representations; every number is reported with its null distribution or baseline.

- `points`            arrays `[n, d]` checked, and the base of findings
- `dimension`         spectrum, anisotropy, and intrinsic dimension by TwoNN, maximum likelihood and local PCA
- `analogies`         nearest words and analogies, with and without spelling variants
- `probes`            linear probes split by document, directions of concepts, and LEACE, which erases one
- `similarity`        unbiased CKA, Procrustes, optimal transport
- `space`             spectrum, anisotropy, dimension and analogies of a model; two models compared, CKA of all layers
- `circles`           order on a circle, on a line, or none; two-dimensional features that do not reduce
- `words`             lists of words, and a model's activations on each in fixed sentences
- `shapes`            lists as circles, lines, clusters or nothing, over all layers
- `_steering`         the residual stream moved along a direction: effect and side effects by strength
- `sweeps`            results of steering and rotation, by strength and step
- `word_geometry`     the geometry of lists of words as an artefact
- `separation`        words along one direction
- `report`            all of it for some lists of words, as an artefact; words turned around their circle
"""
