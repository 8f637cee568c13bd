"""Activations on disk.

- `record`    a model and text to a recording, resumable to the bit
- `writer`    shards to disk on a thread of their own, and the log that a resume reads
- `store`     a recording, read in order, shuffled, or by document
- `live`      a recording that computes activations whenever they are read
- `passages`  the text around rows of a recording
"""
