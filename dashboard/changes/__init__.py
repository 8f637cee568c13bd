"""The page `/changes`: two models compared.

- `page`  changes of weights, residual stream and heads; words for a fine-tune; a crosscoder's latents
"""
