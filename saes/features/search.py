"""Search for features: by the text on which they fire, by label, by similarity, by number. Torch-free.

    found = search_features(workspace, "January")
    print(found)                       # the features that fire on it, each with its null

**Score of one word.** F1 of two fractions, 0 to 1:

- `share`, how selectively: the fraction of the feature's whole activation that falls on this word;
- `recall`, how reliably: the fraction of the word's tokens on which the feature fires.

A word is found in any case, with or without a leading space, and as several tokens (its last one counts). **Null**: the
same for one random feature that fires as often, on random tokens.

**Score of several words.** The mean over the words of `sqrt(a)`, where `a` is the feature's mean activation on the
tokens of the word over its largest in the text: 0 where it never fires, 1 where it always fires as strongly as
anywhere. The root favours features that fire on all of the words: "January April August" finds the feature of months
before one of April. F1 does not, since the share of a few of its words is small (docs/log.md compares twelve scores).
Words are weighted by their information, `log2(1 / frequency)`; those that make up more than `FREQUENT` of the text are
left out when there are rarer ones. `share` is then the fraction that falls on any of them, `recall` the weighted mean.
**Null**: the root of the feature's mean activation on all tokens over its largest; a random feature has at most that.

**p**: the probability that it fires on at least as many of the matching tokens (binomial tail), Holm-adjusted for all
features searched. Hits are features with p of at most 0.05; where there is none, the best of the others are given, and
marked. Tokens of one document are not independent, so p is optimistic where a word occurs in few documents.

**Phrases.** Of several words, adjacent pairs are searched first, in their order: `New York` is found at "York" after
"New" (`by="phrase"`). Features that fire on the words in any order follow. The index holds pairs that occur at least
`token_index.PHRASE_FROM` times.

The numbers come from the index that `workbench features` writes (`saes/features/token_index.py`). Features without one
are searched through their examples: then `share` and `recall` are fractions of the activation and of the tokens in
those. `recall` is then bounded by `share` times the feature's firings in all text, over the word's tokens.

**Labels** and other readings are searched from the beginning of a word, a plural also as its singular: "months" finds
"calendar month", "sport" not "transport". Balanced accuracy above chance, `2 * score - 1`, is 0 to 1 like the others,
and orders hits by label among those by text. Labels without a score come last. A feature has one hit, its best.

Other forms of a query: `like 12` or `like NAME:12` (nearest decoder directions by cosine similarity; baseline: the
median over all features of the cosine to the nearest one), and `#12` or `NAME:12` (that feature). The names that the
user gave to features in the notes come first.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import ConfigError, WorkbenchError
from interp.notes import own_names
from interp.workspace import Workspace
from saes.features.examples_index import indexed_examples
from saes.features.found import ALPHA, COLUMNS, By, Example, Filter, Found, Hit, Match, feature_rows
from saes.features.schema import Features
from saes.features.similar import similar
from saes.features.token_index import FOLDER, TABLES, query_words, word_positions
from saes.features.written_labels import Labels

FREQUENT = 0.005
"""A word that makes up more than this fraction of all tokens is left out where the query has rarer ones."""
MAX_WORDS, MAX_TEXT = 12, 2000
MAX_MATCHES = 6
"""Matching tokens given per hit."""
_LIKE = re.compile(r"^like\s+(?:([\w.-]+):)?#?(\d{1,9})$", re.IGNORECASE)
_NUMBER = re.compile(r"^(?:([A-Za-z][\w.-]*):|#)(\d{1,9})$")


def search_features(
    workspace: Workspace,
    text: str,
    *,
    features: str | None = None,
    hook_point: str | None = None,
    density: tuple[float, float] = (0.0, 1.0),
    min_score: float = 0.0,
    region: tuple[str, int] | None = None,
    limit: int = 20,
    examples: bool = True,
) -> Found:
    """Return the features that a query finds: those that fire on it, and those whose label or own name contains it.

    `features` names one artefact or set of transcoders (default: all but the layers of sets), and `region` a region of
    an atlas, as (name, number). With `examples` every hit holds one example with the matching tokens marked. At most
    `limit` hits by tokens, and as many by label.

    Raises `ConfigError` for an empty query, `UnknownNameError` for names that do not exist.
    """
    query = " ".join(text.split())
    if not query or len(text) > MAX_TEXT:
        raise ConfigError(f"a query of 1 to {MAX_TEXT:,} characters was expected, got {len(text):,}; type a word")
    within = Filter(features=features, hook_point=hook_point, density=density, min_score=min_score, region=region)
    artefacts = within.artefacts(workspace)
    names, problem = _own_names(workspace)
    if match := _LIKE.match(query) or _NUMBER.match(query):
        name, index = match[1] or (artefacts[0].name if artefacts else ""), int(match[2])
        made = workspace.open(Features, name)
        find = similar if _LIKE.match(query) else numbered
        hits = find(workspace, made, index, within, limit)
        shown = _with_examples(workspace, hits, {}) if examples else hits
        return Found(query=query, hits=_with_names(shown, names), names_problem=problem)
    parts = [_by_tokens(workspace, made, query, within, limit) for made in artefacts]
    ordered = _best([hit for part in parts for hit in part.phrase_hits], limit)
    inside = {hit.key for hit in ordered}
    best = _best([hit for part in parts for hit in part.hits if hit.key not in inside], limit)
    labelled = [hit for made in artefacts for hit in by_label(workspace, made, query, within, limit)]
    named = [hit for made in artefacts for hit in by_own_name(workspace, made, query, names, within)][:limit]
    by_strength = sorted([*best, *_best(labelled, limit)], key=_strength, reverse=True)
    once: dict[str, Hit] = {}
    for hit in (*named, *ordered, *by_strength):
        once.setdefault(hit.key, hit)
    hits = list(once.values())
    wanted = {word: n for part in parts for word, n in part.pieces.items()}
    return Found(
        query=query,
        hits=_with_names(_with_examples(workspace, hits, wanted) if examples else hits, names),
        names_problem=problem,
        words=tuple(dict.fromkeys(word for part in parts for word in part.words)),
        phrases=tuple(dict.fromkeys(phrase for part in parts for phrase in part.phrases)),
        missing_phrases=_in_all([part.missing_phrases for part in parts]),
        missing=_in_all([part.missing for part in parts]),
        left_out=tuple(dict.fromkeys(word for part in parts for word in part.left_out)),
        near=max((part.near for part in parts), key=lambda near: sum(n for _, n in near), default=()),
        sets_left_out=within.left_out(workspace, artefacts),
        covers={part.name: "all text" if part.complete else "examples" for part in parts},
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Hits by tokens within one artefact."""

    name: str
    hits: list[Hit]
    complete: bool
    phrase_hits: list[Hit] = field(default_factory=list)
    phrases: tuple[str, ...] = ()
    missing_phrases: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    near: tuple[tuple[str, int], ...] = ()
    pieces: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Word:
    """A word in the index: its range of units, its tokens in the text, and its longest unit in tokens."""

    word: str
    low: int
    high: int
    n: int
    pieces: int


def _tables(workspace: Workspace, made: Features) -> tuple[dict[str, Path], bool]:
    """Return the tables of the index, and whether it covers all of the text (else that of the examples)."""
    folder = workspace.path("features", made.name) / FOLDER
    complete = folder.is_dir()
    if complete:
        paths = {t: workspace.table_path("features", made.name, f"{FOLDER}/{t}") for t in TABLES}
    else:
        examples = workspace.table_path("features", made.name, "examples")
        key = str((made.about.files.get("examples.parquet") or {}).get("sha256") or made.about.content_hash)
        folder = indexed_examples(examples, key, made.n_features)
        paths = {t: folder / f"{t}.parquet" for t in TABLES}
    return {"units": paths["units"], "firings": paths["firings"], "seen": paths["features"]}, complete


def _by_tokens(workspace: Workspace, made: Features, query: str, within: Filter, limit: int) -> _Part:
    tables, complete = _tables(workspace, made)
    readings = query_words(query)[: 4 * MAX_WORDS]
    pairs = [f"{a} {b}" for one, two in pairwise(readings) for a in one for b in two]
    known = _look_up(workspace, tables["units"], [*(each for reading in readings for each in reading), *pairs])
    chosen: dict[str, _Word] = {}
    missing = []
    for whole, *rest in readings:
        words = [known[whole]] if whole in known else [known[each] for each in rest if each in known]
        chosen |= {each.word: each for each in words}
        missing += [] if words else [whole]
    n_text = workspace.query("select sum(n)::bigint as n from u where pieces = 1", u=tables["units"])["n"][0].as_py()
    rare = [each for each in chosen.values() if each.n <= FREQUENT * (n_text or 1)] or list(chosen.values())
    used = sorted(rare, key=lambda each: each.n)[:MAX_WORDS]
    near = _longer_words(workspace, tables["units"], readings[0][0]) if len(readings) == 1 else ()

    def hits(by: By, sought: list[_Word], shown: list[_Word]) -> list[Hit]:
        rows = _score(workspace, made, tables, sought, n_text or 1, within, limit, complete)
        matches = _matches(workspace, tables, shown, [row["feature"] for row in rows])
        return [Hit(features=made.name, by=by, matches=matches.get(row["feature"], ()), **row) for row in rows]

    phrases, absent = _phrases(readings, known)
    last = {word: known[word] for word in (each.word.rsplit(" ", 1)[1] for each in phrases) if word in known}
    return _Part(
        phrase_hits=hits("phrase", phrases, [*phrases, *last.values()]) if phrases else [],
        phrases=tuple(each.word for each in phrases),
        missing_phrases=absent,
        name=made.name,
        hits=hits("tokens", used, used),
        complete=complete,
        words=tuple(each.word for each in used),
        missing=tuple(missing),
        left_out=tuple(word for word, each in chosen.items() if each not in used),
        near=near,
        pieces={each.word: each.pieces for each in (*used, *phrases)},
    )


def _phrases(readings: list[tuple[str, ...]], known: dict[str, _Word]) -> tuple[list[_Word], tuple[str, ...]]:
    """Return the adjacent pairs of words that the index holds, and those that it does not."""
    found: dict[str, _Word] = {}
    absent = []
    for one, two in pairwise(readings):
        here = next((known[pair] for a in one for b in two if (pair := f"{a} {b}") in known), None)
        if here is None:
            absent.append(f"{one[0]} {two[0]}")
        else:
            found[here.word] = here
    return list(found.values())[:MAX_WORDS], tuple(dict.fromkeys(absent))


def _look_up(workspace: Workspace, units: Path, words: Sequence[str]) -> dict[str, _Word]:
    sql = """select folded as word, min(unit) as low, max(unit) as high, sum(n)::bigint as n, max(pieces) as pieces
             from u where folded in (select unnest(?::varchar[])) group by folded having sum(n) > 0"""
    return {row["word"]: _Word(**row) for row in workspace.query(sql, list(dict.fromkeys(words)), u=units).to_pylist()}


def _longer_words(workspace: Workspace, units: Path, word: str) -> tuple[tuple[str, int], ...]:
    sql = """select folded, sum(n)::bigint as n from u where folded > ? and folded < ? and starts_with(folded, ?)
             and not contains(folded, ' ') group by folded order by n desc, folded limit 6"""
    rows = workspace.query(sql, word, word + "\U0010ffff", word, u=units).to_pylist()
    return tuple((row["folded"], row["n"]) for row in rows)


def _score(
    workspace: Workspace, made: Features, tables: dict[str, Path], words: list[_Word], n_text: int,
    within: Filter, limit: int, complete: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the features that fire on the words more than by chance, best first; where none does, those below chance.

    Rows have the fields of a hit, without the matching texts.
    """
    if not words:
        return []
    condition, more = within.condition(workspace)
    bits = [math.log2((n_text + 1) / w.n) for w in words]
    union = " union all ".join(
        f"select {weight / sum(bits)!r} as weight, {w.n} as n_word, feature, sum(n) as n, sum(seen) as seen, "
        f"sum(share)::double as share from firings where unit between {w.low} and {w.high} group by feature"
        for w, weight in zip(words, bits, strict=True)
    )
    bound = "n / n_word" if complete else "least(n / seen, n_fired * share / n_word)"
    rate = "density" if complete else "(seen.n_fired / greatest(seen.n_tokens, 1))"
    fraction = sum(w.n for w in words) / n_text
    if len(words) == 1:
        score, null = (
            "2 * share * recall / (share + recall)",
            f"2 * {fraction!r} * {rate} / ({fraction!r} + {rate} + 1e-30)",
        )
    else:
        score, null = "strength", "sqrt(density * mean_activation / max_activation)"
    tries = str(sum(w.n for w in words)) if complete else "scored.seen"
    sql = f"""with found as ({union}),
        chosen as (select feature, density, n_fired, mean_activation, max_activation from features where {condition}),
        each_word as (select *, least(1.0, {bound}) as recall,
            least(1.0, share * n_fired * mean_activation / (n_word * max_activation)) as strong
            from found join chosen using (feature)),
        scored as (select feature, sum(share) as share, sum(weight * recall) as recall,
            sum(weight * sqrt(strong)) as strength, sum(n)::bigint as fired, sum(seen)::bigint as seen
            from each_word group by feature)
        select scored.feature, {score} as score, share, recall, fired, {tries}::bigint as tries, {rate} as rate,
            {null} as "null", (select count(*) from chosen) as searched
        from scored join chosen using (feature) {"" if complete else "join seen using (feature)"}"""
    paths = {"firings": tables["firings"], "seen": tables["seen"], **more}
    paths["features"] = workspace.table_path("features", made.name, "features")
    found = workspace.query(sql, **paths)
    columns = {name: found[name].to_numpy() for name in found.column_names}
    p = _chance(columns["fired"], columns["tries"], columns["rate"], int(columns["searched"].max(initial=0)))
    shown = (columns["score"] > columns["null"]) & (columns["score"] >= within.min_score)
    shown &= (p <= ALPHA) if (p[shown] <= ALPHA).any() else shown
    best = np.flatnonzero(shown)
    best = best[np.lexsort((columns["feature"][best], -columns["score"][best]))][:limit]
    known = feature_rows(workspace, made.name, columns["feature"][best].tolist())
    fields = ("score", "null", "share", "recall", "fired", "tries")
    return [
        known[int(columns["feature"][i])]
        | {name: columns[name][i].item() for name in fields}
        | {"expected": float(columns["tries"][i] * columns["rate"][i]), "p": float(p[i])}
        for i in best
    ]


def _chance(fired: np.ndarray, tries: np.ndarray, rate: np.ndarray, n_searched: int) -> np.ndarray:
    """Return the Holm-adjusted probability of `fired [n]` or more firings of `tries [n]` at chance `rate [n]`.

    The null fires on each token independently, as often as the feature does in all of the text (binomial tail; the
    hypergeometric one is smaller). Features of the `n_searched` that fire on none of the tokens have p = 1.
    """
    from scipy.special import bdtrc

    from interp.statistics import holm

    p = np.ones(max(n_searched, len(fired)))
    p[: len(fired)] = bdtrc(fired - 1.0, np.maximum(tries, fired), np.clip(rate, 0.0, 1.0))
    return holm(p)[: len(fired)]


def _matches(
    workspace: Workspace, tables: dict[str, Path], words: list[_Word], features: list[int]
) -> dict[int, tuple[Match, ...]]:
    """Return for some features the texts on which they fire, those with most activation first."""
    if not words or not features:
        return {}
    ranges = " or ".join(f"unit between {w.low} and {w.high}" for w in words)
    sql = f"""select feature, text, sum(firings.n)::bigint as n, sum(seen)::bigint as seen,
              max(max_activation) as largest
              from firings join (select unit, text from units where {ranges}) using (unit)
              where ({ranges.replace("unit", "firings.unit")}) and list_contains(?::int[], feature)
              group by feature, text order by feature, sum(share) desc, text"""
    found: dict[int, tuple[Match, ...]] = {}
    for row in workspace.query(sql, features, firings=tables["firings"], units=tables["units"]).to_pylist():
        mine = found.get(row["feature"], ())
        if len(mine) < MAX_MATCHES:
            found[row["feature"]] = (*mine, Match(row["text"], row["n"], row["seen"], row["largest"]))
    return found


def by_label(workspace: Workspace, made: Features, query: str, within: Filter, limit: int) -> list[Hit]:
    """Return the features with `query` in their label or another reading, the best score first.

    Labels of `workbench explain` for these features count, with their detection score, and its null.
    """
    condition, more = within.condition(workspace)
    path = workspace.table_path("features", made.name, "features")
    others = "[{'label': y, 'score': other_scores[i]} for y, i in coalesce(other_labels, []::varchar[])]"
    explained, forms = _explained(workspace, made, query), _forms(query)
    ids, own, each = list(explained), _has_any("label", forms), _has_any("x.label", forms)
    sql = f"""select {COLUMNS}, case when own then label_null end as "null",
                     case when own then label_score else list_max([x.score for x in found]) end as score,
                     case when own then '' else array_to_string([x.label for x in found], ', ') end as other
              from (select *, {own} as own, [x for x in {others} if {each}] as found from f)
              where {condition} and (own or len(found) > 0 or list_contains(?::int[], feature))
              order by list_contains(?::int[], feature) desc, score desc nulls last, density desc, feature limit ?"""
    rows = workspace.query(sql, *forms * 2, ids, ids, limit, f=path, **more).to_pylist()
    hits = [Hit(features=made.name, by="label", **(row | explained.get(row["feature"], {}))) for row in rows]
    enough = [hit for hit in hits if not within.min_score or (hit.score or 0) >= within.min_score]
    return sorted(enough, key=lambda hit: -(hit.score or 0))


def _forms(query: str) -> list[str]:
    """Return a query in lower case, words only if it has any, and as a singular where it may be a plural."""
    lower = query.lower()
    words = " ".join(re.findall(r"\w+", lower)) or lower
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    found = [words.removesuffix(end) + instead for end, instead in endings if words.endswith(end)]
    return [words, *(each for each in found if len(each) > 2)]


def _has_any(column: str, forms: list[str]) -> str:
    """Return SQL for a text in which any of the forms, each a parameter, begins at a word; without words, anywhere."""
    text, start = f"lower(coalesce({column}, ''))", ""
    if re.search(r"\w", forms[0]):
        text, start = f"' ' || regexp_replace({text}, '[^\\pL\\pN_]+', ' ', 'g')", "' ' || "
    return "(" + " or ".join([f"contains({text}, {start}?)"] * len(forms)) + ")"


def _explained(workspace: Workspace, made: Features, query: str) -> dict[int, dict[str, Any]]:
    """Return the labels of `workbench explain` that contain the query, by feature, as fields of a hit."""
    found: dict[int, dict[str, Any]] = {}
    for written in reversed(workspace.values(Labels)):
        if written.settings.features_hash == made.about.content_hash:
            sql = "label is not null and contains(lower(label), lower(?))"
            rows = written.labels.rows(sql, query)
            scores = {each.feature: each for each in written.scores.rows("name = 'detection'")} if rows else {}
            for row in rows:
                score = scores.get(row.feature)
                judged = {"score": score and score.accuracy, "null": score and score.null}
                found[row.feature] = {"feature": row.feature, "label": row.label, "other": "", **judged}
    return found


def _in_all(words: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the words that every artefact lacks."""
    return tuple(word for word in dict.fromkeys(words[0] if words else ()) if all(word in each for each in words))


def _best(hits: list[Hit], limit: int) -> list[Hit]:
    """Return the best hits of all artefacts: those above chance first, then by score."""
    return sorted(hits, key=lambda hit: ((hit.p or 0.0) > ALPHA, -(hit.score or 0)))[:limit]


def _strength(hit: Hit) -> float:
    """Return how well a hit by text or label fits, 0 by chance to 1."""
    if hit.by == "label":
        return 2 * max(hit.score or 0.0, 0.5) - 1
    return (hit.score or 0.0) * ((hit.p or 0.0) <= ALPHA)


def _own_names(workspace: Workspace) -> tuple[dict[str, str], str]:
    """Return the user's own names of features by key, or the reason why they cannot be read."""
    try:
        return own_names(workspace), ""
    except WorkbenchError as error:
        return {}, str(error)


def _with_names(hits: Sequence[Hit], names: dict[str, str]) -> tuple[Hit, ...]:
    return tuple(replace(hit, own=names.get(hit.key, "")) for hit in hits)


def by_own_name(workspace: Workspace, made: Features, query: str, names: dict[str, str], within: Filter) -> list[Hit]:
    """Return the features with `query` in the name that the user gave them; `names` by key, `features/NAME#12`."""
    if within.min_score:
        return []
    start, wanted = f"features/{made.name}#", query.lower()
    parts = [
        key.removeprefix(start) for key, title in names.items() if key.startswith(start) and wanted in title.lower()
    ]
    numbers = [int(part) for part in parts if part.isdigit() and int(part) < 2**31]
    if not numbers:
        return []
    condition, more = within.condition(workspace)
    sql = f"select {COLUMNS} from f where list_contains(?::int[], feature) and {condition} order by feature"
    path = workspace.table_path("features", made.name, "features")
    rows = workspace.query(sql, numbers, f=path, **more).to_pylist()
    return [Hit(features=made.name, by="name", **row) for row in rows]


def numbered(workspace: Workspace, made: Features, index: int, within: Filter, limit: int) -> list[Hit]:
    """Return the feature of this number, and none where the artefact has no such feature."""
    rows = feature_rows(workspace, made.name, [index])
    return [Hit(features=made.name, by="number", **row) for row in rows.values()]


def rank_active(
    workspace: Workspace, name: str, tokens: Sequence[str], active: Sequence[Sequence[tuple[int, float]]], limit: int
) -> list[Hit]:
    """Return the features that fire on a text, by strength and rarity.

    `active` holds the (feature, activation) of every token. The score is the strongest activation, as a fraction of the
    feature's maximum, times `log10(1 / density)`; the null is the probability that a feature of the same density fires
    on one of so many random tokens.
    """
    values: dict[int, list[float]] = {}
    for i, token in enumerate(active):
        for feature, activation in token:
            values.setdefault(feature, [0.0] * len(tokens))[i] = activation
    n_read = sum(bool(token) for token in active)
    hits = []
    for feature, row in feature_rows(workspace, name, list(values)).items():
        mine = values[feature]
        strength = min(1.0, max(mine) / (row["max_activation"] or max(mine)))
        rarity = -math.log10(min(1.0, max(row["density"], 1e-9)))
        chance = 1 - (1 - row["density"]) ** n_read
        at = tuple(i for i, value in enumerate(mine) if value > 0)
        matches = tuple(Match(tokens[i], 1, 1, mine[i]) for i in sorted(at, key=lambda i: -mine[i])[:MAX_MATCHES])
        shown = Example(tuple(tokens), tuple(mine), (max(at, key=lambda i: mine[i]),))
        hits.append(
            Hit(features=name, by="active", score=strength * rarity, null=chance, matches=matches, example=shown, **row)
        )
    return sorted(hits, key=lambda hit: (-(hit.score or 0), hit.feature))[:limit]


def _with_examples(workspace: Workspace, hits: Sequence[Hit], wanted: dict[str, int]) -> list[Hit]:
    """Return the hits, each with the example in which the wanted words have the largest activation."""
    shown: dict[tuple[str, int], Example] = {}
    for name in dict.fromkeys(hit.features for hit in hits):
        features = [hit.feature for hit in hits if hit.features == name]
        sql = """select feature, tokens, activations, peak, document_label from e
                 join (select unnest(?::int[]) as feature) using (feature) order by feature, group_order, rank"""
        best: dict[int, float] = {}
        path = workspace.table_path("features", name, "examples")
        for row in workspace.query(sql, features, e=path).to_pylist():
            marked = [i for i in word_positions(row["tokens"], wanted) if row["activations"][i] > 0]
            worth = max((row["activations"][i] for i in marked), default=0.0)
            if worth > best.get(row["feature"], -1.0):
                best[row["feature"]] = worth
                marks = marked or [row["peak"]]
                values = (tuple(row["tokens"]), tuple(row["activations"]), tuple(marks))
                shown[name, row["feature"]] = Example(*values, source=row["document_label"] or "")
    return [replace(hit, example=shown.get((hit.features, hit.feature))) for hit in hits]
