"""The page `/prompt`: one prompt on a live model.

- `page`      the page, and the answers that its browser side asks for (assets/prompt/)
- `live`      a model that answers prompts, loaded at the first one
- `compute`   what it computes; with `live`, the only modules of the dashboard that need torch
- `turns`     the fair queue before the model
- `why`       attribution of an answer to heads and to features, and one attention score by its parts
- `patching`  activation patching between two prompts
"""
