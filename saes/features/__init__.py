"""Features of a dictionary: their firing statistics, the text they fire on, and their effect on the model.

- `build`      the feature tables: statistics, examples, token labels, promoted and suppressed tokens
- `firings`    streamed statistics of every latent
- `labels`     a label for every feature by rules, with its score on held-out firings
- `written_labels` labels by a language model, or imported, with their scores
- `views`      what every firing looks like: its token, words, neighbours and surroundings
- `readings`   predicates of the text, counted, chosen on one half of the documents and judged on the other
- `lexicon`    classes of words, from WordNet and from `words.toml`
- `sources`    neurons as a dictionary, and dictionaries as sources and readouts of atlases
- `splicing`   a model that runs on the reconstruction of a dictionary
- `recipes`    recipes of interventions with the dictionaries of a workspace
- `proof`      the standard proof of a feature: settings, text and controls, verdict
- `measure_proof`  its measurements: ablation and steering, compared with random directions and other features
- `answers`    single answers about a feature, each with its controls
- `meaning`    words that every feature makes the model say, through the Jacobian lens
- `relations`  logits, neurons and co-active features of every feature, each with its null
- `planes`     two-dimensional features
- `token_index` index of the recorded text: on which tokens and words each feature fires
- `examples_index`  the same index from the examples alone, in the user's cache
- `search`     features by text, by label, by own name, by number
- `similar`    features of similar direction, to a feature or to a vector
- `found`      the answer of a search: hits with their reasons, and filters
- `schema`     columns of the tables
"""
