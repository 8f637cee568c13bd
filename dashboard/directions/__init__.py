"""The page *Directions*: layer and strength of steering, the methods, samples, and what the direction means.

- `page`     the page
- `panels`   how it was made and chosen, and what steering along it does
- `say`      chats side by side, steered and not
- `meaning`  tokens, words, variance and probes along it, each with its null
"""
