"""Two-dimensional maps of vectors, with measures of how faithful each map is.

- `sources`     vectors with labels: of a model's weights, a recording or a file (`saes.features.sources` adds
                features)
- `neighbours`  nearest neighbours in the full space, exact or approximate; how many of them a map retains
- `layout`      two coordinates for each vector: UMAP's fuzzy graph and its layout; new vectors on an existing map
- `_kernels`    compiled loops of neighbours and layout
- `regions`     clusters at several zoom levels, cut from the peaks of the density over the map
- `_labels`     a short label for every region
- `cells`       a grid over the map; each cell's mean vector as tokens or features
- `build`       every step above, written as one folder; maps of several spaces in one frame
- `vector_map`  a map as an artefact, and its settings
"""
