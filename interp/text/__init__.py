"""Text and tokens.

- `corpora`     any source as documents, the same ones in the same order every time
- `files`       documents of .txt, .jsonl and .parquet files
- `docstrings`  documents from the docstrings of installed packages
- `packing`     documents to contexts in which every token is traced to its document, and to shards of contexts
- `tokens`      the protocol of tokenizers, bytes as tokens, random prompts with a known repeat
"""
