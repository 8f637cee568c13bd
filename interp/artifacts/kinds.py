"""The kinds of artefact: the folder of each in a workspace, its page, the verb that makes it, and its class.

The class of a kind is named as `module:Class` and imported when it is first needed, so that listing a workspace imports
no analysis. A new kind is a line here and a class (`interp.artifacts.artefact`). Torch-free.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from interp.errors import UnknownNameError


@dataclass(frozen=True)
class Kind:
    """One kind of artefact."""

    folder: str
    """Its folder in a workspace."""
    page: str
    """Address of its page, in which `{name}` is the artefact's name and `{key}` its key `folder/name`; empty where no
    page shows it."""
    made_by: str
    """Words of the verb that makes it."""
    defined_in: str
    """`module:Class` of its class."""

    def load(self) -> type[Any]:
        """Return the class."""
        module, _, name = self.defined_in.partition(":")
        return getattr(import_module(module), name)


KINDS: dict[str, Kind] = {
    "certificate": Kind("certificates", "/doctor/{name}", "doctor", "interp.doctor.certificate:Certificate"),
    "recording": Kind("recordings", "", "record", "interp.recording.recorded:Recorded"),
    "sae": Kind("saes", "/sae?name={name}", "train", "saes.training.stored:StoredSAE"),
    "transcoders": Kind("transcoders", "", "train", "saes.sets.stored:StoredSet"),
    "features": Kind("features", "/feature/{name}", "features", "saes.features.schema:Features"),
    "neurons": Kind("neurons", "", "neurons", "saes.features.neurons:NeuronLabels"),
    "atlas": Kind("atlases", "/atlas/{name}", "atlas", "interp.atlas.vector_map:VectorMap"),
    "heads": Kind("heads", "/heads/{name}", "heads", "interp.circuits.head_scores:HeadScores"),
    "evaluation": Kind("evaluations", "", "evaluate", "saes.evaluation.evaluation:SAEEvaluation"),
    "sae_comparison": Kind("sae-comparisons", "", "compare saes", "saes.evaluation.sae_comparison:SAEComparison"),
    "size_law": Kind("size-laws", "", "compare sizes", "saes.evaluation.scaling:SizeLaw"),
    "model_comparison": Kind(
        "model-comparisons", "/changes?name={key}", "compare models", "interp.changes.comparison:ModelComparison"
    ),
    "latent_comparison": Kind(
        "latent-comparisons",
        "/changes?name={key}",
        "compare latents",
        "saes.evaluation.latent_comparison:LatentComparison",
    ),
    "induction_circuit": Kind(
        "induction-circuits",
        "/circuit/{key}",
        "circuit induction",
        "interp.circuits.induction_circuit:InductionCircuit",
    ),
    "edge_circuit": Kind("edge-circuits", "/circuit/{key}", "circuit find", "interp.circuits.edge_circuit:EdgeCircuit"),
    "feature_circuit": Kind(
        "feature-circuits", "/circuit/{key}", "circuit features", "saes.circuits.feature_circuit:FeatureCircuit"
    ),
    "attribution_graph": Kind("graphs", "/graph/{name}", "trace", "interp.tracing.graph:AttributionGraph"),
    "lens": Kind("lenses", "", "lens", "interp.lenses.tuned_lens:TunedLens"),
    "jacobian_lens": Kind("jacobian-lenses", "", "lens --kind jacobian", "interp.lenses.jacobian_lens:JacobianLens"),
    "patching": Kind("patching", "/prompt?patching={name}", "patch", "interp.patching.patching_map:PatchingMap"),
    "labels": Kind("labels", "", "explain", "saes.features.written_labels:Labels"),
    "proof": Kind("proofs", "", "prove", "saes.features.proof:Proof"),
    "word_geometry": Kind(
        "word-geometry", "/geometry?name={key}", "geometry shapes", "interp.geometry.word_geometry:WordGeometry"
    ),
    "direction": Kind("directions", "/directions/{name}", "direction", "interp.directions.study:DirectionGeometry"),
    "space": Kind("spaces", "/geometry?name={key}", "geometry space", "interp.geometry.space:SpaceReport"),
    "space_comparison": Kind(
        "space-comparisons", "/geometry?name={key}", "geometry compare", "interp.geometry.space:SpaceComparison"
    ),
    "grokking": Kind("grokking", "/dynamics?name={key}", "dynamics grok", "interp.studies.grokking_phases:Grokking"),
    "induction_onset": Kind(
        "induction-onsets",
        "/dynamics?name={key}",
        "dynamics induction",
        "interp.studies.induction_onset:InductionOnset",
    ),
    "language_scaling": Kind(
        "language-scaling",
        "/dynamics?name={key}",
        "dynamics scaling",
        "interp.studies.language_scaling:LanguageScaling",
    ),
}
"""Every kind, by the name that manifests give it."""

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
