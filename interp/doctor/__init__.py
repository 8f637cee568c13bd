"""A set-up examined by experiments before its numbers are believed: model, hooks, edits, lens.

- `certificate`  what was done, expected and found, one line per check: the artefact
- `trials`      how experiments are written down and run; the set-up they get
- `prompts`      the texts of the experiments, as tokens of a model
- `reference`    transformers alone, with which the model is compared
- `model_checks` logits alone, in batches, padded, with a cache, after generating; tokens, chat, loss
- `hook_checks`  every hook point read, and values against plain forward hooks
- `response_checks` every hook point edited, and gradients against finite differences
- `edit_checks`  steering and patching: where they start, how large they are, what strength 0 does
- `lens_checks`  fitted lenses on held-out text
- `examine`      all of them

Checks of a dictionary are in `saes.evaluation.dictionary_checks`.
"""
