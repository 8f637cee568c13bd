"""The page `/prompt`: one prompt on a live model.

- `page`      the page, and the answers that its browser side asks for (assets/prompt/)
- `live`      a model that answers prompts, loaded at the first one
- `loaded`    the models and dictionaries in memory
- `graphs`    its part for the page *Graph*
- `compute`   what it computes
- `nulls`     its nulls, and the suggestion of a second prompt; with `live`, `graphs`, `loaded` and `compute` the
              only modules of the dashboard that need torch
- `panels`    attribution of an answer to heads and features, one attention score by its parts, activation patching
"""
