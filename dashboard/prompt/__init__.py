"""The page `/prompt`: one prompt on a live model.

- `page`      the page, and the answers that its browser side asks for (assets/prompt/)
- `live`      a model that answers prompts, loaded at the first one
- `compute`   what it computes; with `live`, the only modules of the dashboard that need torch
- `turns`     the fair queue before the model
- `panels`    attribution of an answer to heads and features, one attention score by its parts, activation patching
"""
