"""Text and tokens.

- `corpora`  any source as documents in a fixed order: files, docstrings of installed packages, data sets of the hub
- `packing`  documents to contexts in which every token is traced to its document, and to shards of contexts
- `tokens`   the protocol of tokenizers, bytes as tokens, random prompts with a known repeat
"""
