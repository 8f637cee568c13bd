"""The shape of representations. Every number comes with what it would be if there were nothing to find.

Points alone (arrays `[n, d]`):

- `spectrum`: anisotropy, participation ratio, dimensions for 50, 90 and 99 % of the variance
- `dimension`: intrinsic dimension by TwoNN, maximum likelihood and local PCA
- `neighbours`: nearest words, analogies, with and without their spelling variants
- `directions`: a concept as difference in means, probe, principal component
- `erasure`: LEACE, after which no linear probe finds a concept
- `probes`: linear probes, split by document, beside base rate and control labels
- `similarity`, `streaming`: unbiased CKA, RSA, Procrustes; CKA of all layers in one pass over a recording
- `transport`: Wasserstein-2 beside its split-half floor, barycentres
- `circles`: is the order of items on a circle, on a line, or not there
- `planes`, `reducibility`: a plane and its coordinates; is a two-dimensional feature one thing or two
- `homology`: loops of a point cloud

Points of a model:

- `concepts`, `words`: lists of words with an order, and what a model makes of each in fixed sentences
- `shapes`: which of those lists are circles, lines, clusters or nothing, over all layers
- `steering`, `rotation`: move along a direction or around a circle, and see what the output does
- `report`: all of it for some lists, as a folder
- `named`, `along`, `direction_report`: one direction (words, a file, a dictionary), what it sets apart and does
"""
