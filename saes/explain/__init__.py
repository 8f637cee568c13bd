"""What features mean, in words.

- `tokens.py`: a label for every feature from token statistics alone; no model is asked
- `run.py`: labels by a language model, scored on text that it did not see:
  contexts (`contexts.py`, `negatives.py`, `trials.py`, `cases.py`) -> prompts (`prompts.py`) -> replies
  (`providers.py`, `endpoint.py`, `local.py`, kept by `asking.py`) -> readings (`parsing.py`) -> scores (`scores.py`,
  `tables.py`); what it will cost: `plan.py`
- `adopt.py`: labels into a features folder
"""
