"""Sparse features of activations: train them, score them, read them, see their effects.

    from saes import load_sae, compare

    print(compare({"mine": load_sae("workspace/saes/mine")}, recording))

The names below are public: they may be relied on, and importing this package loads none of them before it is used.
Everything else may move.

Subjects, one folder each:

- `training`    settings of a run, batches, the loop, checkpoints; reconstruction on held-out rows
- `kinds`       one file per kind of dictionary, and their settings
- `kernels`     the sparse training step
- `sets`        a transcoder for every layer of a model, in one artefact
- `weights`     our folder, and one file per foreign format
- `features`    statistics, examples and labels of features, by rule; interventions with them
- `evaluation`  in the model, probing, absorption, recovery, comparison, scaling
- `attribution` effects of features on an answer
- `explain`     labels by a language model
- `acts`        questions to a model and about features, each a class
"""

from typing import TYPE_CHECKING

from interp.packages import lazily
from interp.registry import Kind, register

if TYPE_CHECKING:
    from saes.acts.features import Steer
    from saes.acts.run import Run
    from saes.attribution.attribution import attribute as attribute_features
    from saes.attribution.config import AttributionConfig
    from saes.attribution.sites import MeasuredPrompts, open_sites
    from saes.evaluation.absorption import AbsorptionConfig, first_letters, measure_absorption
    from saes.evaluation.compare import compare
    from saes.evaluation.crosscoder_latents import compare_models
    from saes.evaluation.in_model import evaluate_in_model, splice, splice_hooks
    from saes.evaluation.matching import decoder_cosines, match_features
    from saes.evaluation.probing import ProbingConfig, probe, text_tasks
    from saes.evaluation.scaling import fit_scaling
    from saes.evaluation.scaling import runs_of as scaling_runs_of
    from saes.evaluation.synthetic import SyntheticConfig, SyntheticData, measure_recovery
    from saes.features.build import Described, build_features
    from saes.features.case import ProofConfig
    from saes.features.describe_neurons import describe_neurons
    from saes.features.measure_proof import prove
    from saes.features.neurons import NeuronLabels, NeuronsConfig
    from saes.features.recipes import load_recipe
    from saes.features.schema import Features, FeaturesConfig
    from saes.features.search import search_features
    from saes.features.sources import neurons_of
    from saes.kinds.autograd import AutogradKind
    from saes.kinds.base import SAE
    from saes.kinds.config import (
        BatchTopKConfig,
        CrosscoderConfig,
        CrossLayerConfig,
        GatedConfig,
        JumpReLUConfig,
        MatryoshkaConfig,
        ReLUConfig,
        TopKConfig,
        TranscoderConfig,
    )
    from saes.kinds.own import own_config
    from saes.sets.importing import SetOrigin, import_set
    from saes.sets.replacement import SetReplacement, untrained_set
    from saes.sets.replacement import system_of as graph_system
    from saes.sets.set import TranscoderSet, open_set
    from saes.sets.stored import SetTraining
    from saes.sets.train import train_set
    from saes.training.config import TrainConfig
    from saes.training.reconstruction import evaluate_on_recording
    from saes.training.run import Job
    from saes.training.stored import import_dictionary
    from saes.training.train import train, train_many, train_sae
    from saes.weights.folder import load_sae, save_sae
    from saes.weights.importing import Origin
    from saes.weights.read import load_dictionary

register(
    Kind("sae", "saes", "saes.training.stored:StoredSAE"),
    Kind("transcoders", "transcoders", "saes.sets.stored:StoredSet"),
    Kind("features", "features", "saes.features.schema:Features"),
    Kind("neurons", "neurons", "saes.features.neurons:NeuronLabels"),
    Kind("labels", "labels", "saes.features.written_labels:Labels"),
    Kind("proof", "proofs", "saes.features.proof:Proof"),
    Kind("evaluation", "evaluations", "saes.evaluation.evaluation:SAEEvaluation"),
    Kind("sae_comparison", "sae-comparisons", "saes.evaluation.sae_comparison:SAEComparison"),
    Kind("size_law", "size-laws", "saes.evaluation.scaling:SizeLaw"),
    Kind("latent_comparison", "latent-comparisons", "saes.evaluation.latent_comparison:LatentComparison", "changes"),
    Kind("counterparts", "counterparts", "saes.evaluation.counterparts:Counterparts"),
)

__getattr__, __all__ = lazily(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
