"""Attribution graphs: direct effects between tokens, latents and logits on one prompt (Ameisen et al. 2025).

- `frozen`         the local replacement model, linear in the residual stream
- `replacement`    dictionaries that replace MLPs, MLP neurons among them
- `edges`          rows of direct effects, exact in the frozen model, chosen by influence
- `_influence`     influence, pruning and scores of an adjacency matrix
- `graph`          a graph as a value and as files, and its settings
- `part`           the part of a graph at other thresholds, or for one target
- `_targets`       what a graph explains; by default the likeliest content word against the next
- `prompts`        prompts whose answers are known, and those that a model answers
- `trace`          from a prompt to a graph; one template with several words
- `effects`        effects in the model against predicted ones; an edge between positions, split by heads
- `reasons`        why a head attended where it did, in nodes of a graph
- `loadings`       share of a graph's influence that passes through each head
- `interventions`  changes of latents against random ones
- `background`     latents that lead every prompt alike
- `_sufficiency`   what the pruned graph holds of the answer, in the mean and in the worst case
- `returning`      latents that return in graphs of paraphrases
- `supernodes`     groups of nodes, judged, and a user's marks
- `interchange`    the JSON of Neuronpedia and circuit-tracer, written and read
- `graph_json`     the parts of that JSON, checked
"""
