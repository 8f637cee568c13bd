"""The page `/prompt`: one prompt on a live model, which answers acts (`saes.acts`).

- `page`      the page; its browser side asks what is seen (assets/prompt/)
- `_panels`   attribution of an answer to heads and features, one attention score by its parts, activation patching
"""
