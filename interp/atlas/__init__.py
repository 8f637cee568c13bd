"""Vectors -> a map that says how much it keeps.

- `sources`: vectors with labels, from a model's embeddings, a recording or a file (`saes.atlas` adds decoders)
- `neighbours`: exact nearest neighbours in the full space
- `layout`: two dimensions for each vector
- `quality`: how much of the full space the map keeps
- `regions`: clusters of the map, their labels, local density
- `build`: all of it, written as one folder
"""
