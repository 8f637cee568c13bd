"""Text and tokens.

- `documents.Document`: one text with an id and a label
- `corpora.open_corpus(spec)`: any source -> a `Corpus` of documents, the same ones in the same order every time
- `docstrings`, `files`, `hub`: the sources
- `packing.pack(documents, tokenizer, ...)`: documents -> contexts in which every token is traced to its document
- `tokens.repeated_random_tokens(...)`: random prompts with a known repeat, and their unrepeated twins
"""
