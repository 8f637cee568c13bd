"""Sparse features of activations: train them, score them, read them.

Start here:

- `saes.training.train.train(recording, hook_point, sae_config, train_config, folder)`: the one training loop, a
                                                                                        generator
- `saes.weights.folder.load_sae(folder)`: an SAE in SAELens' format
- `saes.weights.read.load_dictionary(path)`: a dictionary of any tool, checked against its own arithmetic
- `saes.evaluation.reconstruction`: what a reconstruction keeps, on recorded text and inside the model
- `saes.evaluation.compare.compare(saes, recording)`: several at one sparsity, beside baselines that learned nothing
- `saes.evaluation.scaling.fit_scaling(runs)`: how the error falls with size and sparsity, with intervals
- `saes.evaluation.synthetic`, `saes.evaluation.recovery`: rows from a known dictionary, and how much of it an SAE found
- `saes.evaluation.matching.match_features(one, two)`: which features two dictionaries share
- `saes.features.build.build_features(...)`: what every feature responds to, as tables
- `saes.features.intervene`: splice, ablate, clamp and steer features inside the model
"""
