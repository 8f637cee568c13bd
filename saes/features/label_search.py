"""Features by their labels and names, and by the word classes that labels name. Torch-free.

Labels and other readings are searched from the beginning of a word, a plural also as its singular: "months" finds
"calendar month", "sport" not "transport". Their strength is the balanced accuracy of the label above chance, `2 * score
- 1`, times the share of its letters that the query has: "month" finds a long label less strongly. Labels without a
score count as a little above chance.

A class of words is found by its words too: "January April August" are calendar months, and so is the label of a feature
that fires on them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts.tables import query as read
from interp.errors import WorkbenchError
from interp.notes import own_names
from interp.workspace import Workspace
from saes.features.lexicon import Lexicon
from saes.features.schema import Features
from saes.features.written_labels import Labels

if TYPE_CHECKING:
    import pyarrow as pa

UNJUDGED = 0.05
"""Strength of a label without a score."""
LEAST_COVERED = 0.5
"""Fraction of the words of a query that a class must have."""
LEAST_DEPTH = 3
"""Classes above a class that make it specific enough to name words."""
NO_LABEL = "no label"
"""Beginning of a label that names no meaning: the tokens that it quotes do not count as one."""


@dataclass(frozen=True)
class Named:
    """A label that contains a query, or names the class of its words."""

    strength: float
    """0 to 1"""
    score: float | None = None
    """Balanced accuracy of the label on held-out text, 0.5 by chance."""
    null: float | None = None
    label: str = ""
    """The label that was found, where it is not the feature's own."""


def by_label(readings: "pa.Table", written: Sequence[Labels], text: str, inside: np.ndarray) -> dict[int, Named]:
    """Return the features in the mask `inside [n_features]` that have `text` in their label or in another candidate.

    Labels of `workbench explain` for these features, `written`, count with their detection score, and its null.
    """
    forms = _forms(text)
    found: dict[int, list[dict[str, Any]]] = {}
    for row in _with_any(readings, forms).to_pylist():
        if inside[row["feature"]]:
            found.setdefault(row["feature"], []).append(row)
    best = {i: max(rows, key=lambda row: (row["own"], row["score"] or 0.0)) for i, rows in found.items()}
    named = {i: _named(x["label"], x["score"], x["null"], forms, other=not x["own"]) for i, x in best.items()}
    return named | _explained(written, text, forms)


def written_labels(workspace: Workspace, made: Features) -> list[Labels]:
    """Return the labels of `workbench explain` for some features, the oldest first."""
    every = reversed(workspace.values(Labels))
    return [each for each in every if each.settings.features_hash == made.about.content_hash]


def readings_of(workspace: Workspace, made: Features) -> "pa.Table":
    """Return the labels of all features and then their other readings, read once: `_readings` names the columns."""
    return _readings(workspace.table_path("features", made.name, "features"), made.about.content_hash)


@lru_cache(maxsize=32)
def _readings(path: Path, content_hash: str) -> "pa.Table":
    """Return `feature, label, score, null, class, own, words`: `own` for labels, `words` in lower case after spaces."""
    sql = f"""with every as (
              select feature, case when not starts_with(label, '{NO_LABEL}') then label end as label,
                     label_score as score, label_null as "null",
                     case when label_kind = 'class' then label_names[1] end as class, true as own from f
              union all
              select feature, unnest(other_labels), unnest(other_scores), null, null, false from f)
              select *, ' ' || regexp_replace(lower(label), '[^\\pL\\pN_]+', ' ', 'g') as words from every"""
    return read(sql, f=path)


def _with_any(readings: "pa.Table", forms: Sequence[str]) -> "pa.Table":
    """Return the readings in which any of the forms begins at a word; a form without words is found anywhere."""
    import pyarrow.compute as compute

    texts, before = readings["words"], " "
    if not re.search(r"\w", forms[0]):
        texts, before = compute.call_function("utf8_lower", [readings["label"]]), ""
    options = [compute.MatchSubstringOptions(before + form) for form in forms]
    masks = [compute.call_function("match_substring", [texts], each) for each in options]
    return readings.filter(np.any([compute.fill_null(mask, False) for mask in masks], axis=0))


def _named(label: str, score: float | None, null: float | None, forms: Sequence[str], *, other: bool = False) -> Named:
    bare = " ".join(re.findall(r"\w+", re.sub(r"\(\d+ %.*?\)", "", label.lower()))) or label
    covered = max((len(form) for form in forms if form in bare), default=0) / max(len(bare), 1)
    above = UNJUDGED if score is None else max(2 * score - 1, 0.0)
    return Named(above * min(1.0, 2 * covered), score, null, label if other else "")


def _forms(query: str) -> list[str]:
    """Return a query in lower case, words only if it has any, and as a singular where it may be a plural."""
    lower = query.strip().lower()
    words = " ".join(re.findall(r"\w+", lower)) or lower
    return [words, *singulars(words)]


def singulars(word: str) -> list[str]:
    """Return what a word may be the plural of.

    >>> singulars("cities")
    ['city', 'citi', 'citie']
    """
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    found = [word.removesuffix(end) + instead for end, instead in endings if word.endswith(end)]
    return [each for each in found if len(each) > 2]


def _explained(written: Sequence[Labels], text: str, forms: Sequence[str]) -> dict[int, Named]:
    """Return the labels of `workbench explain` that contain the query, by feature."""
    found: dict[int, Named] = {}
    for each in written:
        rows = each.labels.rows("label is not null and contains(lower(label), lower(?))", text.strip())
        scores = {score.feature: score for score in each.scores.rows("name = 'detection'")} if rows else {}
        for row in rows:
            score = scores.get(row.feature)
            judged = (score and score.accuracy, score and score.null)
            found[row.feature] = _named(row.label or "", *judged, forms, other=True)
    return found


def by_class(readings: "pa.Table", words: Sequence[str], inside: np.ndarray) -> dict[int, Named]:
    """Return the features whose label names a class of most of the words, by the share of words in it.

    Only those in the mask `inside [n_features]`.
    """
    if not words:
        return {}
    lexicon = _lexicon()
    classes = [lexicon.classes_of(word) for word in words]
    shares = {name: sum(name in each for each in classes) / len(words) for name in set().union(*classes)}
    named = {n: s for n, s in shares.items() if s >= LEAST_COVERED and lexicon.depth(n) >= LEAST_DEPTH}
    import pyarrow as pa
    import pyarrow.compute as compute

    wanted = compute.SetLookupOptions(pa.array(list(named), pa.string()))
    rows = readings.filter(compute.call_function("is_in", [readings["class"]], wanted)).to_pylist()
    return {
        row["feature"]: Named(named[row["class"]] * max(2 * (row["score"] or 0.5) - 1, 0.0), row["score"], row["null"])
        for row in rows
        if inside[row["feature"]]
    }


@cache
def _lexicon() -> Lexicon:
    return Lexicon()


def names_of(workspace: Workspace) -> tuple[dict[str, str], str]:
    """Return the user's own names of features by key, or the reason why they cannot be read."""
    try:
        return own_names(workspace), ""
    except WorkbenchError as error:
        return {}, str(error)


def by_own_name(made: Features, query: str, names: Mapping[str, str]) -> set[int]:
    """Return the features with `query` in the name that the user gave them; `names` by key, `features/NAME#12`."""
    start, wanted = f"features/{made.name}#", query.strip().lower()
    parts = [
        key.removeprefix(start) for key, title in names.items() if key.startswith(start) and wanted in title.lower()
    ]
    return {int(part) for part in parts if part.isdigit() and int(part) < 2**31}
