"""Activations on disk.

- `record.record(model, documents, folder, ...)` writes a recording, resumable to the bit
- `store.Recording` reads one: in order, shuffled (`shuffle`), or by document
- steps of writing: `preflight` (does it fit?), `contexts` (text -> shards of contexts), `shards` (arrays -> bytes,
  checks, moments), `writer` (bytes -> disk beside the computation, and the log that a resume reads)
"""
