"""Features of a dictionary: their firing statistics, the text they fire on, and their effect on the model.

- `build`      the feature tables: statistics, examples, token labels, promoted and suppressed tokens
- `firings`    streamed statistics of every latent
- `_labels`    a label for every feature by rules, with its score on held-out firings
- `_titles`    titles from promoted words, where a label by rule says little
- `written_labels` labels by a language model, or imported, with their scores
- `_views`     what every firing looks like: its token, words, neighbours and surroundings; sets of words near it
- `lexicon`    classes of words, from WordNet and from `words.toml`
- `neurons`    the MLP neurons of all layers in words, for attribution graphs
- `describe_neurons`  their labels, words, examples and background, in one pass
- `sources`    neurons as a dictionary, and dictionaries as sources and readouts of atlases
- `recipes`    recipes of interventions with the dictionaries of a workspace
- `case`       settings of a proof, one feature with its text and controls, the words that it reads
- `proof`      the standard proof of a feature: claims, nulls, verdict
- `measure_proof`  the proof, measured: what the feature reads and says, compared with random and other directions
- `meaning`    words that every feature makes the model say, through the Jacobian lens
- `_relations` logits, neurons and co-active features of every feature, each with its null
- `planes`     two-dimensional features
- `token_index` index of the recorded text: on which tokens and words each feature fires
- `fired_words`  features that fire on words and phrases, or as a model reads a text
- `_label_search` features by their labels, names and word classes; words near some words in a model's unembedding
- `_example_texts` the text of the examples: which contain a query, and which one a hit shows
- `_phrase_vectors` vectors of phrases, by which a query finds labels that share no word with it
- `find_by_meaning`  one strength of every feature for a text, from these sources
- `telling`    the features to show first
- `search`     features by text, by label, by own name, by number, by similar direction
- `found`      the answer of a search: hits with their reasons, and filters
- `schema`     columns of the tables; labels by number
"""
