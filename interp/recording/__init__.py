"""Activations on disk.

- `recorded` a recording as an artefact: its settings and size
- `record`  a model and text to a recording, resumable to the bit; its text checked against the corpus
- `writer`  shards to disk on a thread of their own, and the log that a resume reads
- `rows`    rows in files: floating numbers, or int8 with scales
- `store`   a recording, read in order, shuffled, by document, or around given rows
- `live`    a recording that computes activations whenever they are read
"""
