"""The kinds of artefact: the folder of each in a workspace, its page, the verb that makes it, and its class.

The class of a kind is named as `module:Class` and imported when it is first needed, so that listing a workspace imports
no analysis. A new kind is a line here and a class (`interp.artifacts.artefact`). Torch-free.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from interp.errors import UnknownNameError

ANY_PAGE = "/artefact/{key}"
"""Address of the page of any artefact, made from its class."""


@dataclass(frozen=True)
class Kind:
    """One kind of artefact."""

    folder: str
    """Its folder in a workspace."""
    title: str
    """Its name on pages."""
    page: str
    """Address of its page, in which `{name}` is the artefact's name and `{key}` its key `folder/name`; empty where only
    the page of any artefact shows it."""
    made_by: str
    """Words of the verb that makes it."""
    defined_in: str
    """`module:Class` of its class."""

    def load(self) -> type[Any]:
        """Return the class."""
        module, _, name = self.defined_in.partition(":")
        return getattr(import_module(module), name)


KINDS: dict[str, Kind] = {
    "recording": Kind("recordings", "Recording", "", "record", "interp.recording.recorded:Recorded"),
    "sae": Kind("saes", "Dictionary", "/sae?name={name}", "train", "saes.training.stored:StoredSAE"),
    "features": Kind("features", "Features", "/feature/{name}", "features", "saes.features.schema:Features"),
    "neurons": Kind("neurons", "Neurons", "", "neurons", "saes.features.neurons:NeuronLabels"),
    "atlas": Kind("atlases", "Map", "/atlas/{name}", "atlas", "interp.atlas.vector_map:VectorMap"),
    "transcoders": Kind("transcoders", "Transcoders", "", "train", "saes.sets.stored:StoredSet"),
    "heads": Kind("heads", "Heads", "/heads/{name}", "heads", "interp.circuits.head_scores:HeadScores"),
    "induction_circuit": Kind(
        "induction-circuits",
        "Induction circuit",
        "/circuit/{key}",
        "circuit induction",
        "interp.circuits.induction_circuit:InductionCircuit",
    ),
    "edge_circuit": Kind(
        "edge-circuits",
        "Circuit of heads",
        "/circuit/{key}",
        "circuit find",
        "interp.circuits.found_circuit:EdgeCircuit",
    ),
    "feature_circuit": Kind(
        "feature-circuits",
        "Circuit of features",
        "/circuit/{key}",
        "circuit features",
        "saes.circuits.feature_circuit:FeatureCircuit",
    ),
    "attribution_graph": Kind(
        "graphs", "Attribution graph", "/graph/{name}", "trace", "interp.tracing.graph:AttributionGraph"
    ),
    "patching": Kind(
        "patching", "Patching map", "/prompt?patching={name}", "patch", "interp.patching.patching_map:PatchingMap"
    ),
    "lens": Kind("lenses", "Tuned lens", "", "lens", "interp.lenses.tuned_lens:TunedLens"),
    "jacobian_lens": Kind(
        "jacobian-lenses", "Jacobian lens", "", "lens --kind jacobian", "interp.lenses.jacobian_lens:JacobianLens"
    ),
    "labels": Kind("labels", "Written labels", "", "explain", "saes.features.written_labels:Labels"),
    "word_geometry": Kind(
        "word-geometry",
        "Word lists",
        "/geometry?name={key}",
        "geometry shapes",
        "interp.geometry.word_geometry:WordGeometry",
    ),
    "space": Kind("spaces", "Space", "/geometry?name={key}", "geometry space", "interp.geometry.space:SpaceReport"),
    "space_comparison": Kind(
        "space-comparisons",
        "Spaces compared",
        "/geometry?name={key}",
        "geometry compare",
        "interp.geometry.space:SpaceComparison",
    ),
    "direction": Kind(
        "directions", "Direction", "/directions/{name}", "direction", "interp.directions.study:DirectionGeometry"
    ),
    "proof": Kind("proofs", "Proof", "", "prove", "saes.features.proof:Proof"),
    "grokking": Kind(
        "grokking", "Grokking", "/dynamics?name={key}", "dynamics grok", "interp.studies.grokking_phases:Grokking"
    ),
    "induction_onset": Kind(
        "induction-onsets",
        "Onset of induction",
        "/dynamics?name={key}",
        "dynamics induction",
        "interp.studies.induction_onset:InductionOnset",
    ),
    "language_scaling": Kind(
        "language-scaling",
        "Scaling of models",
        "/dynamics?name={key}",
        "dynamics scaling",
        "interp.studies.language_scaling:LanguageScaling",
    ),
    "certificate": Kind(
        "certificates", "Certificate", "/doctor/{name}", "doctor", "interp.doctor.certificate:Certificate"
    ),
    "evaluation": Kind("evaluations", "Evaluation", "", "evaluate", "saes.evaluation.evaluation:SAEEvaluation"),
    "sae_comparison": Kind(
        "sae-comparisons", "SAE comparison", "", "compare saes", "saes.evaluation.sae_comparison:SAEComparison"
    ),
    "size_law": Kind("size-laws", "Size law", "", "compare sizes", "saes.evaluation.scaling:SizeLaw"),
    "model_comparison": Kind(
        "model-comparisons",
        "Fine-tuning effects",
        "/changes?name={key}",
        "compare models",
        "interp.changes.comparison:ModelComparison",
    ),
    "latent_comparison": Kind(
        "latent-comparisons",
        "Crosscoder latents",
        "/changes?name={key}",
        "compare latents",
        "saes.evaluation.latent_comparison:LatentComparison",
    ),
}
"""Every kind, by the name that manifests give it, in the order of Overview."""

CIRCUITS = ("induction_circuit", "edge_circuit", "feature_circuit")
GEOMETRY = ("word_geometry", "space", "space_comparison")
STUDIES = ("grokking", "induction_onset", "language_scaling")
MODEL_COMPARISONS = ("model_comparison", "latent_comparison")
FOLDERS = {kind: each.folder for kind, each in KINDS.items()}
"""Kind -> folder of the workspace."""


def check_kind(kind: str) -> None:
    """Raise `UnknownNameError` for an unknown kind."""
    if kind not in KINDS:
        raise UnknownNameError("artefact kind", kind, KINDS)
