"""Sparse feature circuits: features and errors at several places as nodes, who causes whom as edges, both tested.

- `network.measure(...)`: the sites of several SAEs on a task, with the gradients that effects are made of
- `edges.edge_scores(...)`: how much of a later node's effect an earlier node causes, by gradients
- `exact.exact_edge(...)`: the same by patching that edge alone
- `bench.FeatureBench`: the model with only some features left
- `find.find_feature_circuit(...)`: all of it in order, as a `Circuit`
- `table.save_feature_circuit(...)`: its folder
"""
