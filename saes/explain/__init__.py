"""Natural-language labels of features from a language model, scored on held-out text.

- `_contexts`        contexts on which a feature fires, shown or held out, and contexts on which it is silent
- `cases`            everything that is asked about one feature, the text that is sent, and the parsing of replies
- `providers`        language models that answer: an OpenAI-compatible endpoint or a local model
- `asking`           the provider protocol, requests within a budget, replies on disk; yes or no about texts
- `carried`          labels of another dictionary, for features that fire on the same words
- `imported`         labels from an export of Neuronpedia, with the scores given there
- `run`              from cases to labels
- `adopt`            features that take over the labels that hold
"""
