"""The page `/prompt`: one prompt on a live model.

- `page`      the page
- `live`      a model that answers prompts, loaded at the first one: the only module of the dashboard that loads torch
- `why`       direct logit attribution of an answer, and one attention score by its parts
- `patching`  activation patching between two prompts
"""
