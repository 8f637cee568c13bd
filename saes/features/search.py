"""Search for features by meaning: one list, by the words on which they fire and those that they make the model say.
Torch-free, once what features say is in the cache.

    found = search_features(workspace, "cooking")
    print(found)                       # label first, strength, and the words on which each fires

`find_by_meaning` says which sources speak for a feature and how they are weighted, `fired_words` what the statistics of
a hit are. A query is a word, a list of words, a pasted example, or several of them joined by AND and NOT. The Match of
texts joined by AND is the smallest of theirs: an upper bound of the probability that the feature is right for each. A
feature that fits a text after NOT better than those before is left out. Hits that no source lifts above its null, or
weaker than `CONVINCING`, come last, and few of them.

    parse_query("cooking AND french").wanted           # ("cooking", "french"): each has to be found
    parse_query("bank NOT river").unwanted             # ("river",)

AND and NOT are written in capitals. What stands between them is a text: one word, or a list of words.

Other forms of a query: `like 12` or `like NAME:12` (nearest decoder directions by cosine similarity; baseline: the
median over all features of the cosine to the nearest one), and `#12` or `NAME:12` (that feature). **p** of a cosine is
the probability that one of as many isotropic random directions reaches it (Holm-adjusted tail of the Beta
distribution). Directions of a dictionary share directions of large variance, so its nearest neighbours pass this null
easily. Weights in bfloat16 need torch.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import ConfigError, CorruptError, UnknownNameError, WorkbenchError, program
from interp.models.short_name import short_name
from interp.nulls import ALPHA, holm
from interp.workspace import Workspace
from saes.features._example import shown_examples
from saes.features._label_search import largest, names_of
from saes.features.find_by_meaning import FeatureEvidence, gather
from saes.features.fired_words import AT_ONCE, Fired, FiringIndex
from saes.features.found import CONVINCING, By, Example, FeatureHits, Hit, columns_of, searched
from saes.features.meaning import Meaning, lens_for, meaning_of
from saes.features.schema import Features

if TYPE_CHECKING:
    from safetensors import safe_open


MAX_TEXT = 2000
"""Characters of a query."""
MAX_TEXTS = 6
"""Texts that AND and NOT join."""
_JOINT = re.compile(r"(?:^|(?<=\s))(AND NOT|AND|NOT)(?=\s|$)")


@dataclass(frozen=True)
class TextQuery:
    """The texts of a query."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


def parse_query(text: str) -> TextQuery:
    """Return the texts of a query.

    Raises `ConfigError` for a query that is empty, too long, or names nothing to find.

    >>> parse_query("bank NOT river")
    TextQuery(wanted=('bank',), unwanted=('river',))
    """
    if not text.strip() or len(text) > MAX_TEXT:
        raise ConfigError(f"a query has 1 to {MAX_TEXT:,} characters, got {len(text):,}; type a word")
    first, *rest = _JOINT.split(text)
    parts = [("AND", first), *zip(rest[::2], rest[1::2], strict=True)]
    wanted = [part.strip() for joint, part in parts if joint == "AND" and part.strip()]
    unwanted = [part.strip() for joint, part in parts if joint != "AND" and part.strip()]
    if not wanted or len(wanted) + len(unwanted) < len(parts) - (not first.strip()):
        raise ConfigError(f"{text.strip()!r} names nothing on one side of AND or NOT; write `bank NOT river`")
    if len(parts) > MAX_TEXTS:
        raise ConfigError(f"a query joins at most {MAX_TEXTS} texts by AND and NOT, got {len(parts)}; leave some out")
    return TextQuery(tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted)))


BELOW = 3
"""Hits that do not convince which are shown all the same: what came nearest."""
MAX_SAID = 4
"""Most dictionaries searched by the words that features make the model say; each takes seconds the first time."""
_LIKE = re.compile(r"^like\s+(?:([\w.-]+):)?#?(\d{1,9})$", re.IGNORECASE)
_NUMBER = re.compile(r"^(?:([A-Za-z][\w.-]*):|#)(\d{1,9})$")
_BY: dict[str, By] = {
    "fires": "tokens", "related_fires": "related", "says": "says", "label": "label", "name": "name",
}  # fmt: skip
Meanings = Callable[[Workspace, Features], Meaning | None]
"""Returns what the features of an artefact make the model say; None where that is not known."""


def search_features(
    workspace: Workspace,
    text: str,
    *,
    features: str | None = None,
    hook_point: str | None = None,
    limit: int = 20,
    examples: bool = True,
    meanings: Meanings | None = None,
) -> FeatureHits:
    """Return the features that fit a query, best first; those that do not convince last.

    `workspace` is searched for `text`, words or the number of a feature; at most `limit` hits are returned. `features`
    names one artefact or set of transcoders (default: all but the layers of sets), `hook_point` a hook point.
    With `examples` every hit holds one example, that with the query in it if there is one. `meanings` returns what
    the features of an artefact make the model say; default: `meaning_of`, which loads the model the first time.

    Raises `ConfigError` for an empty query, `UnknownNameError` for names that do not exist.
    """
    query = parse_query(text)
    artefacts, sets_left_out = searched(workspace, features, hook_point)
    names, problem = names_of(workspace)
    notes = [f"Your own names could not be read: {problem}"] if problem else []
    bare = text.strip()
    if match := _LIKE.match(bare) or _NUMBER.match(bare):
        number = int(match[2])
        made = workspace.open(Features, match[1] or _with_feature(artefacts, number))
        hits = similar(workspace, made, number, limit) if _LIKE.match(bare) else numbered(workspace, made, number)
        shown = _with_examples(workspace, [made], hits, {}, {}) if examples else hits
        return FeatureHits(query=bare, hits=_with_names(shown, names), notes=tuple(notes))
    parts = []
    for number, made in enumerate(artefacts):
        meaning, missing = _meaning(workspace, made, meanings or meaning_of) if number < MAX_SAID else (None, "")
        notes += [missing] if missing else []
        index = FiringIndex.open(workspace, made, keep=len(artefacts) <= AT_ONCE)
        parts.append(_Part.of(index, meaning, query, names, limit))
    hits = sorted([hit for part in parts for hit in part.hits], key=lambda h: (not h.convincing, -(h.strength or 0)))
    above = [hit for hit in hits if hit.convincing][:limit]
    hits = [*above, *[hit for hit in hits if not hit.convincing][: max(min(BELOW, limit - len(above)), 0)]]
    if bare.isdecimal() and len(bare) < 10 and (name := _with_feature(artefacts, int(bare))):
        hits = [*numbered(workspace, workspace.open(Features, name), int(bare)), *hits]
    terms = [term for part in parts for term in part.wanted]
    if examples:
        pieces = {word.word: word.pieces for term in terms for word in term.sought.words}
        related = {word.word: word.pieces for term in terms for word in term.near}
        hits = _with_examples(workspace, [part.index.made for part in parts], hits, pieces, related)
    lacking = [{word for term in part.wanted for word in term.sought.missing} for part in parts]
    return FeatureHits(
        query=" NOT ".join([" AND ".join(query.wanted), *query.unwanted]),
        hits=_with_names(hits, names),
        words=tuple(dict.fromkeys(word.word for term in terms for word in term.sought.words)),
        missing=tuple(sorted(set.intersection(*lacking))) if lacking else (),
        left_out=tuple(dict.fromkeys(word for term in terms for word in term.sought.left_out)),
        sets_left_out=sets_left_out,
        covers={part.index.made.name: "all text" if part.index.complete else "examples" for part in parts},
        related=tuple(dict.fromkeys(word.word for term in terms for word in term.near)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _with_feature(artefacts: Sequence[Features], number: int) -> str:
    """Return the name of the newest artefact that has a feature of this number, of an SAE if possible; empty for none.

    Where none has it, the newest of all is named, whose features an error can count.
    """
    having = [made for made in artefacts if number < made.n_features] or artefacts[:1]
    return next((made.name for made in having if made.sae), having[0].name if having else "")


def _meaning(workspace: Workspace, made: Features, meanings: Meanings) -> tuple[Meaning | None, str]:
    """Return what the features of an artefact say; without that, a sentence about what is missing."""
    model, why = made.settings.model, ""
    try:
        meaning = meanings(workspace, made)
        if meaning is not None:
            return meaning, ""
        if lens_for(workspace, made) is None:
            return None, (
                f"No dictionary of {short_name(model)} was searched by the words that features make it say, for want "
                f"of a Jacobian lens: {program()} lens {model} --kind jacobian"
            )
    except WorkbenchError as error:
        why = f": {error}"
    return None, f"{made.name} was not searched by the words that its features make the model say{why}"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Hits within one artefact."""

    index: FiringIndex
    wanted: tuple[FeatureEvidence, ...]
    hits: tuple[Hit, ...]

    @classmethod
    def of(
        cls, index: FiringIndex, meaning: Meaning | None, query: TextQuery, names: Mapping[str, str], limit: int
    ) -> "_Part":
        """Search one artefact."""
        every = gather(index, meaning, [*query.wanted, *query.unwanted], names=names)
        wanted, unwanted = every[: len(query.wanted)], every[len(query.wanted) :]
        strength, p = np.min([term.strength for term in wanted], 0), np.max([term.p for term in wanted], 0)
        for term in unwanted:
            strength = np.where(term.logit < np.max([w.logit for w in wanted], 0), strength * (1 - term.strength), 0.0)
        above = (p <= ALPHA) & (strength >= CONVINCING)
        below = (strength > 0) & ~above & ((p <= ALPHA) | _lifted(wanted))
        best = [
            i
            for mask, n in ((above, limit), (below, BELOW))
            for i in largest(np.where(mask, strength, 0.0), n).tolist()
            if mask[i]
        ]
        return cls(index=index, wanted=tuple(wanted), hits=tuple(_hits(index, wanted, strength, above, best)))


def _lifted(wanted: Sequence[FeatureEvidence]) -> np.ndarray:
    """Return the features that fire on the words more than their null, though chance does so too."""
    mask = np.zeros(len(wanted[0].live), bool)
    for scores in (evidence.fired for evidence in wanted if evidence.fired is not None):
        mask[scores.feature[scores.score > scores.null]] = True
    return mask


def _hits(
    index: FiringIndex, wanted: Sequence[FeatureEvidence], strength: np.ndarray, above: np.ndarray, best: Sequence[int]
) -> list[Hit]:
    known = index.columns.hits(index.made.name, best, "tokens")
    words = {word.word: word for term in wanted for word in term.sought.words}
    matches = wanted[0].firings.matches(list(words.values()), best)
    hits = []
    for i in best:
        evidence = max(wanted, key=lambda term: float(term.logit[i]))
        label = evidence.labels.get(i)
        hits.append(
            replace(
                _with_statistics(known[i], evidence.fired),
                by=_reason(evidence, i),
                strength=float(strength[i]),
                convincing=bool(above[i]),
                matches=matches.get(i, ()),
                label_score=label and label.score,
                label_null=label and label.null,
            )
        )
    return hits


def _reason(evidence: FeatureEvidence, i: int) -> By:
    parts = evidence.contributions()
    return _BY[max(_BY, key=lambda name: parts[name][i])]


def _with_statistics(hit: Hit, scores: Fired | None) -> Hit:
    """Return a hit with the score and p of the words on which the feature fires."""
    if scores is None or (at := _row(scores, hit.feature)) is None:
        return hit
    return replace(
        hit,
        score=scores.score[at].item(),
        null=scores.null[at].item(),
        fired=scores.fired[at].item(),
        tries=scores.tries[at].item(),
        p=scores.p[at].item(),
        expected=float(scores.tries[at] * scores.rate[at]),
    )


def _row(scores: Fired, i: int) -> int | None:
    at = int(np.searchsorted(scores.feature, i))
    return at if at < len(scores.feature) and scores.feature[at] == i else None


def _with_names(hits: Sequence[Hit], names: Mapping[str, str]) -> tuple[Hit, ...]:
    return tuple(replace(hit, own=names.get(hit.key, "")) for hit in hits)


def numbered(workspace: Workspace, made: Features, index: int) -> list[Hit]:
    """Return the feature of this number, and none where the artefact has no such feature."""
    return list(columns_of(workspace, made).hits(made.name, [index], "number").values())


def _with_examples(
    workspace: Workspace, among: Sequence[Features], hits: Sequence[Hit], wanted: dict[str, int],
    related: dict[str, int],
) -> list[Hit]:  # fmt: skip
    """Return the hits, each with the example that `shown_examples` chooses."""
    shown: dict[tuple[str, int], Example] = {}
    for made in among:
        if features := [hit.feature for hit in hits if hit.features == made.name]:
            examples = shown_examples(workspace, made, features, wanted, related)
            shown |= {(made.name, feature): example for feature, example in examples.items()}
    return [replace(hit, example=shown.get((hit.features, hit.feature))) for hit in hits]


_ROWS = 8192


def chance_of_cosine(cosines: np.ndarray, d: int) -> np.ndarray:
    """Return the Holm-adjusted probability that a random direction in `d` dimensions reaches each of `cosines [n]`.

    The cosine of an isotropic random direction with a fixed one is distributed as `2 B - 1`,
    `B ~ Beta((d - 1) / 2, (d - 1) / 2)`.
    """
    from scipy.special import betainc

    if d < 2:
        return np.ones(len(cosines))
    half = (d - 1) / 2
    return holm(betainc(half, half, np.clip((1 - cosines) / 2, 0.0, 1.0)))


def similar(workspace: Workspace, made: Features, index: int, limit: int) -> list[Hit]:
    """Return the features whose decoder directions have the largest cosine similarity to that of a feature.

    From the SAE's weights where they are in the workspace, else the nearest neighbours stored with the features.
    """
    table = workspace.table_path("features", made.name, "features")
    sql = """select neighbours, neighbour_cosines, (select median(neighbour_cosines[1]) from f) as usual
             from f where feature = ?"""
    rows = workspace.query(sql, index, f=table).to_pylist()
    if not rows:
        raise UnknownNameError("feature", str(index), [f"0 to {made.n_features - 1}"])
    columns, path = columns_of(workspace, made), _weights(workspace, made)
    among = np.flatnonzero((columns.n_fired > 0) & (np.arange(made.n_features) != index))
    cosines = np.full(made.n_features, -np.inf)
    p: dict[int, float] = {}
    if path is None:
        cosines[rows[0]["neighbours"]] = rows[0]["neighbour_cosines"]
    else:
        direction = next(_blocks(path, index, index + 1))[0].astype(np.float64)
        cosines[:] = _cosines(path, direction)
        p = dict(zip(among.tolist(), chance_of_cosine(cosines[among], len(direction)).tolist(), strict=True))
    best = [i for i in among[largest(cosines[among], limit)].tolist() if np.isfinite(cosines[i])]
    known = columns.hits(made.name, best, "similar")
    return [replace(known[i], strength=float(cosines[i]), null=rows[0]["usual"], p=p.get(i)) for i in best]


def _cosines(path: Path, direction: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of every decoder direction to one `[d]`, `[n_features]`."""
    parts = [block @ direction / np.maximum(np.linalg.norm(block, axis=1), 1e-12) for block in _blocks(path)]
    return np.concatenate(parts) / np.linalg.norm(direction)


def _weights(workspace: Workspace, made: Features) -> Path | None:
    """Return the weights of the SAE that these features were made of; None where they are not here, or other ones."""
    name = made.sae
    if not name:
        return None
    path = workspace.path("sae", name) / "sae_weights.safetensors"
    same = path.is_file() and workspace.manifest("sae", name).content_hash == made.about.parents.get(f"saes/{name}")
    return path if same else None


@contextmanager
def _opened(path: Path, kind: str) -> Iterator["safe_open"]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, kind) as file:
            yield file
    except SafetensorError as error:
        raise CorruptError(f"{path} is damaged ({error}); `workbench verify` checks the others") from None


def _blocks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield the decoder directions from `start` to `stop`, `[n, d]` float32, some at a time."""
    with _opened(path, "numpy") as file:
        weights = file.get_slice("W_dec")
        end = stop or int(weights.get_shape()[0])
        wide = weights.get_dtype() == "BF16"  # no type of numpy
        for at in range(start, end, _ROWS):
            rows = slice(at, min(at + _ROWS, end))
            if wide:
                with _opened(path, "pt") as tensors:
                    yield tensors.get_slice("W_dec")[rows].float().numpy()
            else:
                yield weights[rows].astype(np.float32)
