"""Text and tokens.

- `orders`   words that come in an order: days, months, numbers
- `corpora`  any source as documents in a fixed order: files, docstrings of installed packages, data sets of the hub
- `rows`     one row of a table as a document: a column of text, or a conversation through a chat template
- `tokens`   tokenizers, random prompts with a known repeat; documents packed into contexts in which every token is
             traced to its document, and into shards
"""
