"""Examples of features as text: those that contain a query, and the one that a hit shows. Torch-free.

    texts = example_texts(workspace, made)
    found = texts.features_with(["lasagna"])       # features whose strongest examples contain it, with its null

A word of several tokens, or one that is too rare for the index of firings, is found in the text around the strongest
firings: three of the eight strongest examples of a feature of recipes contain "lasagna", wherever in them it fires.

**Null**: the examples of all features. **p** is the chance that so many documents of a feature contain the text where
each does so as often as the strongest examples of all features (binomial tail, Holm). Documents are counted, not
examples, because one document repeats its words.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from interp.artifacts.tables import query
from interp.workspace import Workspace
from saes.features.fired_words import AT_ONCE, chance_of_firings
from saes.features.found import Example
from saes.features.schema import Features
from saes.features.token_index import fold, word_positions

IN_MEMORY = 10_000
"""Features of an artefact up to which its examples are kept in memory, 5 kB each; reading some takes 0.1 s."""
LEAST_DOCUMENTS = 2
"""Documents among a feature's strongest examples that contain a text, so that it counts."""
_COLUMNS = "feature, tokens, activations, peak, document, document_label, group_order"


@dataclass(frozen=True, kw_only=True)
class Containing:
    """Features whose strongest examples contain a text, `[n]` each."""

    feature: np.ndarray
    share: np.ndarray
    """Share of the documents of these examples that contain it, 0 to 1."""
    p: np.ndarray
    """Holm-adjusted for all features."""


@dataclass(frozen=True, eq=False)
class ExampleTexts:
    """All examples of an artefact, sorted by feature, the strongest first."""

    table: pa.Table
    starts: np.ndarray
    """Row at which the examples of each feature start, `[n_features + 1]`"""
    strongest: np.ndarray
    """Rows of the group of strongest firings."""
    text: pa.Array
    """Their text in lower case."""
    documents: np.ndarray
    """Documents among the strongest examples of each feature, `[n_features]`."""

    @classmethod
    def of(cls, table: pa.Table, n_features: int) -> "ExampleTexts":
        """Return the examples of a table that is sorted by feature, with their texts."""
        feature = table["feature"].to_numpy()
        strongest = np.flatnonzero(table["group_order"].to_numpy() == 0)
        pairs = np.unique(np.stack([feature[strongest], table["document"].to_numpy()[strongest]]), axis=1)
        tokens = table["tokens"].combine_chunks().take(pa.array(strongest))
        joined = compute.call_function("binary_join", [tokens, pa.array([""])[0]])
        text = compute.call_function("utf8_lower", [joined])
        starts = np.searchsorted(feature, np.arange(n_features + 1))
        return cls(table, starts, strongest, text, np.bincount(pairs[0], minlength=n_features))

    def features_with(self, texts: Collection[str]) -> Containing:
        """Return the features with `LEAST_DOCUMENTS` documents or more that contain one of some texts, as words."""
        rows = self._rows_with(texts)
        pairs = [self.table[name].take(pa.array(rows)).to_numpy() for name in ("feature", "document")]
        feature, n = np.unique(np.unique(np.stack(pairs), axis=1)[0], return_counts=True)
        rate = n.sum() / max(int(self.documents.sum()), 1)
        many = n >= LEAST_DOCUMENTS
        feature, n = feature[many], n[many]
        tries = self.documents[feature]
        p = chance_of_firings(n, tries, np.full(len(n), rate), len(self.documents))
        return Containing(feature=feature, share=n / np.maximum(tries, 1), p=p)

    def _rows_with(self, texts: Collection[str]) -> np.ndarray:
        """Return the rows of the strongest examples that contain one of some texts as whole words."""
        holds = np.zeros(len(self.strongest), bool)
        for text in filter(None, map(fold, texts)):
            mask = compute.call_function("match_substring", [self.text], compute.MatchSubstringOptions(text))
            rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
            whole = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
            holds[[i for i in rows.tolist() if whole.search(self.text[i].as_py())]] = True
        return self.strongest[holds]

    def rows_of(self, features: Sequence[int]) -> pa.Table:
        """Return the examples of some features."""
        parts = [self.table.slice(self.starts[i], self.starts[i + 1] - self.starts[i]) for i in features]
        return pa.concat_tables(parts) if parts else self.table.slice(0, 0)


def example_texts(workspace: Workspace, made: Features, n_artefacts: int = 1) -> ExampleTexts | None:
    """Return the examples of an artefact, read once; None for one too large, or where too many are searched."""
    if made.n_features > IN_MEMORY or n_artefacts > AT_ONCE:
        return None
    return _kept(workspace.table_path("features", made.name, "examples"), made.about.content_hash, made.n_features)


@lru_cache(maxsize=AT_ONCE)
def _kept(path: Path, content_hash: str, n_features: int) -> ExampleTexts:
    return ExampleTexts.of(query(f"select {_COLUMNS} from e order by feature, group_order, rank", e=path), n_features)


def shown_examples(
    workspace: Workspace, made: Features, features: Sequence[int], texts: ExampleTexts | None,
    wanted: dict[str, int], related: dict[str, int],
) -> dict[int, Example]:  # fmt: skip
    """Return the example that each feature shows.

    It is the one in which the feature fires most on a word of `wanted`, a folded text with its number of tokens; else
    one that contains such a word; else the one in which it fires most on a `related` word; else its strongest.
    """
    if texts is not None:
        table = texts.rows_of(features)
    else:
        sql = f"""select {_COLUMNS} from e where feature in (select unnest(?::int[]))
                  order by feature, group_order, rank"""
        table = workspace.query(sql, list(features), e=workspace.table_path("features", made.name, "examples"))
    best: dict[int, tuple[int, float]] = {}
    shown: dict[int, Example] = {}
    for row in table.to_pylist():
        tokens, activations = row["tokens"], row["activations"]
        positions, near = word_positions(tokens, wanted), word_positions(tokens, related)
        on, beside = ([i for i in at if activations[i] > 0] for at in (positions, near))
        rank = 3 if on else 2 if positions else 1 if beside else 0
        marked = on or ([] if positions else beside) or [row["peak"]]
        worth = rank, max(activations[i] for i in marked) if rank in (1, 3) else 0.0
        if worth > best.get(row["feature"], (-1, 0.0)):
            best[row["feature"]] = worth
            shown[row["feature"]] = Example(
                tuple(tokens), tuple(activations), tuple(marked), source=row["document_label"] or ""
            )
    return shown
