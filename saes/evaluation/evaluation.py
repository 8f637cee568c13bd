"""Evaluation of one dictionary as an artefact: held-out rows, the model, and the optional parts. Torch-free."""

from dataclasses import dataclass
from typing import Annotated, Literal

from interp.artifacts import Document, Finding
from interp.results import Record
from saes.evaluation.concept_scores import ConceptScores
from saes.evaluation.config import AbsorptionConfig, ProbingConfig
from saes.evaluation.scores import CAVEAT, Absorption, DecoderCosines, InModel, Probing, absorption_table
from saes.features.found import NamedFeature, NamesFeatures
from saes.training.scores import Reconstruction


@dataclass(frozen=True, kw_only=True)
class GivenFile:
    """A file of the user, by name and content."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Settings that determine the probes of a dictionary."""

    config: ProbingConfig
    labels: GivenFile | None
    """Further tasks."""


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """Settings that determine the concepts that are scored."""

    listed: GivenFile
    set: Literal["all", "choose", "judge"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings that determine the evaluation of a dictionary; None: this part was not asked for."""

    sae: str
    recording: str
    contexts: int
    """Largest number of held-out contexts for the loss inside the model; 0 skips that part."""
    probing: ProbeSettings | None
    absorption: AbsorptionConfig | None
    concepts: ConceptSettings | None


@dataclass(frozen=True, kw_only=True)
class SAEEvaluation(NamesFeatures, kind="evaluation", made_by="evaluate"):
    """Evaluation of an SAE. A part is None where it was not asked for, and a text where it was refused: the reason."""

    settings: EvaluationSettings
    heldout: Reconstruction
    decoder: DecoderCosines
    in_model: InModel | None
    """None for planted features, for several hook points, and without whole held-out contexts."""
    probing: Annotated[Probing | str | None, Document("probing.json")]
    absorption: Annotated[dict[str, Absorption] | str | None, Document("absorption.json")]
    """Of the dictionary, by its name, and of an `untrained` one of its size."""
    concepts: Annotated[ConceptScores | str | None, Document("concepts.json")]

    @property
    def concept_scores(self) -> ConceptScores | None:
        """Scores of everyday concepts; None where they were not measured."""
        return self.concepts if isinstance(self.concepts, ConceptScores) else None

    def named(self) -> tuple[NamedFeature, ...]:
        """Return the best latent of each concept that was measured."""
        scores = self.concept_scores.scores if self.concept_scores else ()
        return tuple(
            NamedFeature(
                feature=each.own.unit,
                concept=each.concept.name,
                words=each.concept.words,
                f1=each.own.f1.estimate,
                null=each.null.high,
            )
            for each in scores
        )

    def to_records(self) -> list[Record]:
        """Return one row: the scores on held-out rows, and those in the model."""
        (held,), inside = self.heldout.to_records(), {}
        if self.in_model is not None:
            (inside,) = self.in_model.to_records()
        return [held | {name: value for name, value in inside.items() if name not in held}]

    def headline(self) -> str:
        """Return one line: reconstruction, sparsity, and the loss inside the model."""
        held, inside = self.heldout, self.in_model
        fvu = _with_ends(held.fvu, held.intervals.get("fvu"))
        line = f"FVU {fvu} at L0 {held.l0:.1f} on {held.n_tokens:,} held-out tokens"
        if inside is None:
            return line
        line += f"; in the model the loss goes from {inside.ce_clean:.2f} to {inside.ce_spliced:.2f} nats"
        if inside.ce_recovered is None:
            return f"{line}, and replacing the activations by zeros costs nothing"
        zero = _with_ends(inside.ce_recovered, inside.intervals.get("ce_recovered"))
        mean = _with_ends(inside.ce_recovered_from_mean, inside.intervals.get("ce_recovered_from_mean"))
        return f"{line} ({zero} recovered against zeros, {mean} against the mean)"

    def facts(self) -> list[tuple[str, str]]:
        """Return reconstruction, sparsity, and the loss that is recovered."""
        held, inside = self.heldout, self.in_model
        facts = [("SAE", self.settings.sae), ("FVU", f"{held.fvu:.3g}"), ("L0", f"{held.l0:.3g}")]
        facts += [("dead", f"{held.dead_fraction:.1%}"), ("dense", f"{held.dense_fraction:.1%}")]
        recovered = None if inside is None else inside.ce_recovered
        return facts if recovered is None else [*facts, ("CE recovered", f"{recovered:.3g}")]

    def details(self) -> list[str]:
        """Return the tables of probing, absorption and concepts, or the reasons for their absence."""
        parts = {"probing": self.probing, "absorption": self.absorption, "concepts": self.concepts}
        lines = []
        for name, part in parts.items():
            if isinstance(part, str):
                lines.append(f"{name} was not measured: {part}")
            elif isinstance(part, Probing):
                lines.append(f"probing, balanced accuracy on {part.n_documents} held-out documents:\n{part.table()}")
            elif isinstance(part, ConceptScores):
                lines.append(part.table())
            elif part:
                lines.append(f"absorption of first letters ({CAVEAT}):\n{absorption_table(part)}")
        return [line for part in lines for line in part.split("\n") if line]

    def findings(self) -> list[Finding]:
        """Return the concepts that the dictionary detects beyond every baseline."""
        return list(self.concept_scores.findings(self.settings.sae)) if self.concept_scores else []


def _with_ends(score: float | None, ends: tuple[float, float] | None) -> str:
    """Return a score with its interval, `0.123 [0.119, 0.128]`."""
    if score is None:
        return "undefined, since the baseline costs nothing,"
    return f"{score:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
