"""Labels of features, in words: from token statistics, or by a language model and scored on held-out text.

- `tokens`     a label for every feature from token statistics alone
- `config`     settings of labels by a language model
- `contexts`   contexts on which a feature fires: shown or held out
- `cases`      all that is asked about one feature
- `prompts`    the text that is sent, and how answers are read
- `providers`  providers: an endpoint or a local model
- `endpoint`   OpenAI-compatible endpoints
- `asking`     the contract with a provider, requests within a budget, replies on disk
- `scores`     agreement of answers with the truth, with intervals
- `run`        from cases to the artefact, and labels adopted into a features folder
"""
