"""Routes: words of a prompt that tell other words something, found by cutting and swapping edges of attention.

- `routes`    the artefact: words, routes, swaps
- `_words`    words of a prompt, from its tokens
- `cut`       effects of cutting edges between words
- `when`      the layers and the heads of a route
- `carried`   words that a destination loses without a route
- `swap`      one route with the values of another prompt
- `stations`  words that MLPs add at a word
- `enough`    a small set of routes that keeps the answer
- `find`      all of it on one prompt, step by step
"""
