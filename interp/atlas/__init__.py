"""From vectors to a map in the plane, with measures of how far it can be trusted.

- `sources`     vectors with labels: of a model's weights, a recording or a file (`saes.features.sources` adds
                features)
- `neighbours`  nearest neighbours in the full space, exact or approximate
- `layout`      two dimensions for each vector: the fuzzy graph and its layout
- `kernels`     compiled loops of neighbours and layout
- `new_points`  positions for new vectors on an existing map
- `series`      maps of several spaces in one frame: layers or checkpoints
- `quality`     neighbours retained, trustworthiness, continuity, triplets
- `density`     density over the map and its peaks
- `regions`     clusters at several zoom levels, cut from the density
- `labels`      a few words for every region
- `cells`       a grid over the map, each cell's mean vector read in words
- `build`       all of it, written as one folder
- `config`      settings of a map
"""
