"""The page `/changes`: two models compared.

- `page`  what fine-tuning changed, as a list beside its nulls; a crosscoder's latents
"""
