"""Small models that teach one thing each, trained in minutes.

- `grokking`                modular addition: memorised first, generalised late, with Fourier components as progress
                            measure
- `induction_emerges`       a toy trained until induction heads form, beside a one-layer model that never gets them
- `language_models`         small language models of several sizes
- `language_scaling`        the law by which their loss falls with size
- `superposition`           toys with more features than dimensions, and their phases
- `superposition_geometry`  interference, feature dimensionality, polytopes
- `hopfield`                modern Hopfield retrieval, and attention heads measured as such
- `classical_networks`      the Hopfield network of 1982, and the capacity of both kinds
- `boltzmann`               a Boltzmann machine, and next-token distributions as Boltzmann distributions
- `save`                    the artefact of a study
"""
