"""Sparse features of activations: train them, score them, read them.

Start here:

- `saes.train.train(recording, hook_point, sae_config, train_config, folder)`: the one training loop, a generator
- `saes.weights.folder.load_sae(folder)`: an SAE in SAELens' format
- `saes.weights.read.load_dictionary(path)`: a dictionary of any tool, checked against its own arithmetic
- `saes.evaluate`: what a reconstruction keeps, on recorded text and inside the model
- `saes.compare.compare(saes, recording)`: several at one sparsity, beside baselines that learned nothing
- `saes.scaling.fit_scaling(runs)`: how the error falls with size and sparsity, with intervals
- `saes.synthetic`, `saes.recovery`: rows from a known dictionary, and how much of it an SAE found
- `saes.matching.match_features(one, two)`: which features two dictionaries share
- `saes.features.build_features(...)`: what every feature responds to, as tables
- `saes.intervene`: splice, ablate, clamp and steer features inside the model
"""
