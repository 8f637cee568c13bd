"""Labels of features: written by a language model and scored on held-out text, imported, or carried.

- `endpoint`  the language model that is asked, at an OpenAI-compatible address
- `asking`    requests counted before they are sent, and replies on disk
- `cases`     everything that is asked about one feature, the text that is sent, and the parsing of replies
- `run`       from cases to labels
- `carried`   labels of another dictionary, for features that fire on the same words
- `imported`  labels from an export of Neuronpedia, with the scores given there
- `adopt`     features that take over the labels that hold
"""
