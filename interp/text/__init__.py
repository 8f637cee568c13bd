"""Text and tokens.

- `corpora`  any source as documents in a fixed order: files, docstrings of installed packages, data sets of the hub
- `tokens`   tokenizers, random prompts with a known repeat; documents packed into contexts in which every token is
             traced to its document, and into shards
- `passages` plain prose that no model was trained on
- `function_words` English words without a meaning of their own
"""
