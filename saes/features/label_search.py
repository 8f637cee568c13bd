"""Features by their labels and names, and by the word classes that labels name. Torch-free.

Labels and other readings are searched from the beginning of a word, a plural also as its singular: "months" finds
"calendar month", "sport" not "transport". Their strength is the balanced accuracy of the label above chance,
`2 * score - 1`, times the share of its letters that the query has: "month" says less of a label of many words. Labels
without a score count as a little above chance.

A class of words is found by its words too: "January April August" are calendar months, and so is the label of a feature
that fires on them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from interp.errors import WorkbenchError
from interp.notes import own_names
from interp.workspace import Workspace
from saes.features.found import Filter
from saes.features.lexicon import Lexicon
from saes.features.schema import Features
from saes.features.written_labels import Labels

UNJUDGED = 0.05
"""Strength of a label without a score."""
LEAST_COVERED = 0.5
"""Fraction of the words of a query that a class must have."""
LEAST_DEPTH = 3
"""Classes above a class that make it specific enough to name words."""
NO_READING = "no reading"
"""Beginning of a label that names no meaning: the tokens that it quotes are no label."""


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


def by_label(workspace: Workspace, made: Features, query: str, within: Filter) -> dict[int, Named]:
    """Return the features with `query` in their label or another reading.

    Labels of `workbench explain` for these features count, with their detection score, and its null.
    """
    condition, more = within.condition(workspace)
    others = "[{'label': y, 'score': other_scores[i]} for y, i in coalesce(other_labels, []::varchar[])]"
    forms = _forms(query)
    own, each = _has_any("label", forms), _has_any("x.label", forms)
    named = f"not starts_with(label, '{NO_READING}')"
    sql = f"""select feature, own, label, label_score as score, label_null as "null", found
              from (select *, {own} and {named} as own, [x for x in {others} if {each}] as found from f)
              where {condition} and (own or len(found) > 0)"""
    path = workspace.table_path("features", made.name, "features")
    hits = {}
    for row in workspace.query(sql, *forms * 2, f=path, **more).to_pylist():
        if row["own"]:
            hits[row["feature"]] = _named(row["label"], row["score"], row["null"], forms)
        else:
            best = max(row["found"], key=lambda x: x["score"] or 0.0)
            hits[row["feature"]] = _named(best["label"], best["score"], None, forms, other=True)
    return hits | _explained(workspace, made, query, forms)


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


def _has_any(column: str, forms: list[str]) -> str:
    """Return SQL for a text in which any of the forms, each a parameter, begins at a word; without words, anywhere."""
    text, start = f"lower(coalesce({column}, ''))", ""
    if re.search(r"\w", forms[0]):
        text, start = f"' ' || regexp_replace({text}, '[^\\pL\\pN_]+', ' ', 'g')", "' ' || "
    return "(" + " or ".join([f"contains({text}, {start}?)"] * len(forms)) + ")"


def _explained(workspace: Workspace, made: Features, query: str, forms: Sequence[str]) -> dict[int, Named]:
    """Return the labels of `workbench explain` that contain the query, by feature."""
    found: dict[int, Named] = {}
    for written in reversed(workspace.values(Labels)):
        if written.settings.features_hash == made.about.content_hash:
            rows = written.labels.rows("label is not null and contains(lower(label), lower(?))", query.strip())
            scores = {each.feature: each for each in written.scores.rows("name = 'detection'")} if rows else {}
            for row in rows:
                score = scores.get(row.feature)
                judged = (score and score.accuracy, score and score.null)
                found[row.feature] = _named(row.label or "", *judged, forms, other=True)
    return found


def by_class(workspace: Workspace, made: Features, words: Sequence[str], within: Filter) -> dict[int, Named]:
    """Return the features whose label names a class of most of the words, by the share of words in it."""
    if not words:
        return {}
    lexicon = _lexicon()
    classes = [lexicon.classes_of(word) for word in words]
    shares = {name: sum(name in each for each in classes) / len(words) for name in set().union(*classes)}
    named = {n: s for n, s in shares.items() if s >= LEAST_COVERED and lexicon.depth(n) >= LEAST_DEPTH}
    condition, more = within.condition(workspace)
    sql = f"""select feature, label_names[1] as name, label_score as score, label_null as "null" from f
              where label_kind = 'class' and list_contains(?::varchar[], label_names[1]) and {condition}"""
    path = workspace.table_path("features", made.name, "features")
    return {
        row["feature"]: Named(named[row["name"]] * max(2 * (row["score"] or 0.5) - 1, 0.0), row["score"], row["null"])
        for row in workspace.query(sql, list(named), f=path, **more).to_pylist()
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
