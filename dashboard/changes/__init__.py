"""The page `/changes`: two models compared.

- `page`         the page: changes of weights, residual stream and heads, or a crosscoder's latents
- `word_panels`  its panels of words for a fine-tune, and of texts of both models
"""
