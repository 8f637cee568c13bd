"""A search's answer: the features that were found, each with the reason, and the filters of a search. Torch-free."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from interp.artifacts.tables import query
from interp.errors import CorruptError
from interp.results import Record, Result
from interp.view import Rows, View
from interp.workspace import Workspace
from saes.features.schema import Features

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["tokens", "related", "says", "label", "name", "similar", "number"]
"""Main reason for a hit: it fires on the words, or on related ones; it makes the model say them; its label or the
user's name for it has them; its direction is similar; it was asked for by number."""

CONVINCING = 0.28
"""Least Match of a hit that convinces: fitted on nonsense words, of which at most a twentieth find such a hit in the
dictionary that ships (docs/trust.md)."""
UNCONVINCING = "not convincing"
"""What a search says instead of the strength of a hit that does not convince."""


@dataclass(frozen=True)
class TextMatch:
    """One text on which a feature fires: how often, of how many tokens, and how strongly at most."""

    text: str
    n: int
    seen: int
    max_activation: float


@dataclass(frozen=True)
class Example:
    """A window of text with the activation of a feature on each token, and the positions that match the query."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    marked: tuple[int, ...]
    source: str = ""
    """Label of the document."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One feature that was found, and the reason."""

    features: str
    """Name of the features artefact."""
    feature: int
    by: By
    label: str = ""
    density: float = 0.0
    max_activation: float = 0.0
    strength: float | None = None
    """0 to 1, by which hits are ordered: of a text, the Match, which is the probability that the feature is right, as
    learnt on measured concepts (`find_by_meaning`); of texts joined by AND, the smallest of theirs. `similar`: cosine.
    None for one asked for by number."""
    convincing: bool = True
    """False where no source is above its null, or the strength of a text is below `CONVINCING`."""
    score: float | None = None
    """Score of the words on which it fires, 0 to 1 (`fired_words`)."""
    null: float | None = None
    """The score of a feature that fires as often, on random tokens; of `similar`, the usual nearest neighbour."""
    p: float | None = None
    """Probability of these firings, or of the cosine, by chance, Holm-adjusted for all features that were searched."""
    label_score: float | None = None
    """Score of the label that was found on held-out text, 0.5 by chance; None where it was not judged."""
    label_null: float | None = None
    fired: int | None = None
    """Matching tokens on which it fires, of `tries`."""
    tries: int | None = None
    expected: float | None = None
    """Number of those tokens on which a feature that fires as often would fire by chance."""
    matches: tuple[TextMatch, ...] = ()
    example: Example | None = None
    own: str = ""
    """Name that the user gave to it in the notes."""

    @property
    def key(self) -> str:
        """Return `features/NAME#12`, by which notes and addresses name a feature."""
        return f"features/{self.features}#{self.feature}"


@dataclass(frozen=True, kw_only=True)
class FeatureHits(Result):
    """The features that a query found, best first, with what was searched."""

    query: str
    hits: tuple[Hit, ...]
    words: tuple[str, ...] = ()
    """Words that were looked up, folded."""
    missing: tuple[str, ...] = ()
    """Words that do not occur in the text of any of the artefacts."""
    left_out: tuple[str, ...] = ()
    """Frequent words, left out because the query has rarer ones."""
    covers: dict[str, str] = field(default_factory=dict)
    """Features artefact -> `all text` or `examples`: the text that was searched."""

    sets_left_out: tuple[str, ...] = ()
    """Sets of transcoders whose layers are searched only when they are named."""
    related: tuple[str, ...] = ()
    """Words near those asked for in the model's vocabulary, which were searched too."""
    notes: tuple[str, ...] = ()
    """What could not be searched, and why: sentences."""

    def view(self) -> View:
        partial = [name for name, text in self.covers.items() if text == "examples"]
        only = f"; only the examples of {', '.join(partial)} were searched" if partial else ""
        absent = f"; not in the text: {', '.join(self.missing)}" if self.missing else ""
        weak = sum(not hit.convincing for hit in self.hits)
        doubt = f", {weak} of them {UNCONVINCING}" if weak else ""
        sets = f"; layers of {', '.join(self.sets_left_out)} are searched only when named" if self.sets_left_out else ""
        notes = "".join(f". {note}" for note in self.notes)
        n = f"{len(self.hits)} features{doubt}" if weak < len(self.hits) else f"nothing convincing; {weak} came nearest"
        yield f"{self.query!r}: {n if self.hits else 'no feature'}{only}{absent}{sets}{notes}"
        yield Rows(self._rows)

    def _rows(self) -> list[Record]:
        """Return the main columns of each hit; those that do not convince have no Match."""
        names = ("label", "features", "feature", "match", "by", "density", "matches")
        return [
            {name: row[name] for name in names} | ({} if row["convincing"] else {"match": UNCONVINCING})
            for row in self.to_records()
        ]

    def to_records(self) -> list[Record]:
        """Return one row per hit, its label first."""
        return [
            {"label": (f"{hit.own} · " if hit.own else "") + (hit.label or "no label"), "features": hit.features,
             "feature": hit.feature, "match": hit.strength, "by": hit.by, "convincing": hit.convincing,
             "score": hit.score, "null": hit.null, "p": hit.p, "density": hit.density, "own": hit.own,
             "matches": ", ".join(f"{match.text!r} {match.n}/{match.seen}" for match in hit.matches)}
            for hit in self.hits
        ]  # fmt: skip


def searched(
    workspace: Workspace, features: str | None, hook_point: str | None
) -> tuple[list[Features], tuple[str, ...]]:
    """Return the features artefacts to search, newest first, and the sets left out because nothing asks for them.

    `features` names one artefact, or a set of transcoders: all its layers. Without it, and without a hook point, all
    are searched but the layers of sets, where there is anything else. Raises `UnknownNameError` for an unknown name.
    """
    made = workspace.values(Features)
    named = [source for source in made if features in (source.name, source.set_name)] if features else made
    if features and not named:
        workspace.open(Features, features)  # its error lists near names
    if features or hook_point:
        return [source for source in named if hook_point in (None, "", source.settings.hook_point)], ()
    single = [source for source in made if not source.set_name]
    sets = tuple(dict.fromkeys(source.set_name for source in made if source.set_name))
    return (single, sets) if single else (made, ())


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns that a search reads of every feature of one artefact, kept in memory; `[n_features]` each."""

    density: np.ndarray
    """Fraction of tokens on which it fires."""
    n_fired: np.ndarray
    """Tokens on which it fires."""
    mean_activation: np.ndarray
    max_activation: np.ndarray
    label: "pa.Array"

    def hits(self, name: str, features: Iterable[int], by: By) -> dict[int, Hit]:
        """Return some features of the artefact of this name as hits without evidence, by number.

        A number that no feature has is left out.
        """
        return {
            i: Hit(
                features=name,
                feature=i,
                by=by,
                label=self.label[i].as_py(),
                density=self.density[i].item(),
                max_activation=self.max_activation[i].item(),
            )
            for i in map(int, features)
            if 0 <= i < len(self.density)
        }


def columns_of(workspace: Workspace, made: Features) -> Columns:
    """Return the columns of an artefact, read once. Raises `CorruptError` where a feature is missing."""
    return _columns(workspace.table_path("features", made.name, "features"), made.about.content_hash, made.n_features)


@lru_cache(maxsize=32)
def _columns(path: Path, content_hash: str, n_features: int) -> Columns:
    names = ("density", "n_fired", "mean_activation", "max_activation")
    sql = f"select feature, {', '.join(names)}, coalesce(label, '') as label from f order by feature"
    table = query(sql, f=path)
    if not np.array_equal(table["feature"].to_numpy(), np.arange(n_features)):
        raise CorruptError(f"{path} should list features 0 to {n_features - 1:,} once each; it was edited")
    arrays = [table[name].to_numpy() for name in names]
    return Columns(*arrays, label=table["label"].combine_chunks())
