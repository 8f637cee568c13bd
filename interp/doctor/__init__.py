"""A set-up examined by experiments before its numbers are believed: model, hooks, edits, lens.

- `certificate`  what was done, expected and found, one line per check: the artefact
- `trials`      how experiments are written down and run; the set-up they get
- `_prompts`     the texts of the experiments, as tokens of a model
- `_reference`   transformers alone, with which the model is compared
- `_model_checks` logits alone, in batches, padded, with a cache, after generating; tokens, chat, loss
- `_hook_checks` every hook point read, and values against plain forward hooks
- `_response_checks` every hook point edited, and gradients against finite differences
- `_edit_checks` steering and patching: where they start, how large they are, what strength 0 does
- `_lens_checks` fitted lenses on held-out text
- `examine`      all of them
- `engine`       an inference engine held against transformers
- `_engine_checks` its rows by part of a block, and in other batches
- `_engine_rows` the rows of transformers, and what wrong rows are instead

Checks of a dictionary are in `saes.evaluation.dictionary_checks`.
"""
