"""Vectors -> a map that says how much it keeps.

- `sources`, `weight_sources`: vectors with labels, of a model's weights, a recording or a file
(`saes.features.sources`: features)
- `neighbours`, `approximate`: nearest neighbours in the full space
- `layout` (`fuzzy`, `engine`, `kernels`): two dimensions for each vector; `place`: for new ones on a map that stays
- `aligned`, `series`: maps of several spaces in one frame
- `quality`: how much of the full space the map keeps
- `regions`: dense parts at several zoom levels (`density`, `hierarchy`), their names (`terms`, `labels`) and `contours`
- `cells`: a grid whose averages are read in words (`readouts`)
- `build`, `tables`: all of it, written as one folder
"""
