"""Attribution of a metric to features of dictionaries.

- `config`       its settings
- `sites`        a dictionary at its hook points in a model, prompts with a metric, decomposed values of all sites
- `attribution`  effects of features and of error nodes on a metric, from gradients, and by ablating one feature
"""
