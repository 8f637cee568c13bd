"""Shapes of lists of words in a model as an artefact: verdicts, probes, steering and rotation of each list.

`interp.geometry.report` measures them. Torch-free.
"""

from dataclasses import dataclass
from typing import Annotated

from interp.artifacts import Artefact, DocumentField
from interp.geometry.points import GeometryResult, ShapesConfig
from interp.geometry.probes import ProbeResult
from interp.geometry.shapes import Shape
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.geometry.words import WordList
from interp.models.short_name import short_name
from interp.results import Record
from interp.view import Dots, Facts, Finding, View


@dataclass(frozen=True, kw_only=True)
class ConceptGeometry(GeometryResult):
    """All measurements of one list. A part that is a string gives the reason why it is missing."""

    shape: Shape
    probes: tuple[ProbeResult, ...] | str
    """per hook point: does a word belong to this list? Words are held out"""
    steering: StrengthSweep | str
    rotation: RotationSweep | str

    def sentence(self) -> str:
        parts = [str(self.shape)]
        parts += [str(part) if isinstance(part, GeometryResult) else "" for part in (self.steering, self.rotation)]
        return ". ".join(filter(None, parts))

    def to_records(self) -> list[Record]:
        """Return one row per hook point: RSA, silhouette, and the probe with its base rate and control."""
        shapes = self.shape.to_records()
        probes = (
            [probe.to_records()[0] for probe in self.probes] if isinstance(self.probes, tuple) else [{}] * len(shapes)
        )
        return [
            row
            | {f"probe_{name}": probe.get(name) for name in ("accuracy", "low", "high")}
            | {name: probe.get(name) for name in ("base_rate", "control", "selectivity")}
            for row, probe in zip(shapes, probes, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class ShapesSettings(ShapesConfig):
    """Settings that determine the geometry of lists of words."""

    model: str
    weight_hash: str
    lists: tuple[WordList, ...]
    sentences: tuple[str, ...]


_ORDERS = {"circle": "on a ring", "line": "on a line", "ordered": "in an order"}
"""Words for the verdicts on an order."""


@dataclass(frozen=True, kw_only=True)
class WordGeometry(Artefact, kind="word_geometry", title="Word lists", made_by="geometry shapes"):
    """Geometry of lists of words in a model."""

    settings: ShapesSettings
    lists: Annotated[dict[str, ConceptGeometry], DocumentField("lists.json")]
    """By name, in the order of the settings."""

    def view(self) -> View:
        shaped = [entry for entry in self.lists.values() if entry.shape.verdict not in ("nothing", "undecided")]
        n = len(self.lists)
        yield (
            f"{len(shaped)} of {n} list{'s' * (n > 1)} of words form a circle, line, order or cluster in "
            f"{short_name(self.settings.model)}, beyond words shuffled"
        )
        yield Facts(*[(name, geometry.shape.verdict) for name, geometry in self.lists.items()])
        for name, geometry in self.lists.items():
            order, turned, moved = geometry.shape.order, geometry.rotation, ""
            if isinstance(turned, RotationSweep):
                verb = "moves" if turned.moves_output else "does not move"
                moved = f"; rotation {verb} the output, at {turned.n_following} of {len(turned.steps)} steps"
            yield (
                f"{name}: {geometry.shape.verdict} ({geometry.shape.reason}; circular {order.circular:.2f} p "
                f"{order.p_circular:.4f}, linear {order.linear:.2f} p {order.p_linear:.4f}{moved})"
            )
        turned = [(name, geometry.shape, geometry.rotation) for name, geometry in self.lists.items()
                  if isinstance(geometry.rotation, RotationSweep) and geometry.rotation.moves_output]  # fmt: skip
        ordered = [candidate for candidate in turned if candidate[1].verdict in _ORDERS]
        if not ordered:
            return
        name, shape, rotation = max(ordered, key=lambda candidate: candidate[2].overall.low - candidate[2].random_high)
        across, up = shape.coordinates[1].T.tolist()
        yield Finding(
            kind="ring",
            title=f"{name.capitalize()} lie {_ORDERS[shape.verdict]} that {short_name(self.settings.model)} uses",
            sentence=f"Rotate the {name} on their plane and the model's answers move with them.",
            more=f"Mean move {rotation.overall.estimate:.2f} nats, at {rotation.n_following} of "
            f"{len(rotation.steps)} steps; random directions or the other way at most {rotation.random_high:.2f}. "
            f"The order itself has p {min(shape.order.p_circular, shape.order.p_linear):.2g}.",
            value=rotation.overall.estimate,
            null=max(rotation.random_high, 0.0),
            about="nats; null: random directions, and the other sense",
            href=f"?list={name}#rotation",
            proof="See the proof",
            dots=Dots(x=tuple(across), y=tuple(up), texts=shape.words, alike=True),
        )

    def to_records(self) -> list[Record]:
        """Return one row per list: its verdict with the numbers behind it, and whether rotation moves the output."""
        rows = []
        for name, geometry in self.lists.items():
            order, cluster, turned = geometry.shape.order, geometry.shape.cluster, geometry.rotation
            row = {"list": name, "verdict": geometry.shape.verdict, "hook_point": geometry.shape.hook_point}
            row |= {key: getattr(order, key) for key in ("circular", "p_circular", "linear", "p_linear", "smallest_p")}
            row |= {"silhouette": cluster and cluster.silhouette, "p_cluster": cluster and cluster.p}
            rows.append(row | {"moves_output": None if isinstance(turned, str) else turned.moves_output})
        return rows
