"""Search for features by meaning: one list, by the words on which they fire and those that they make the model say.
Torch-free, once what features say is in the cache.

    found = search_features(workspace, "cooking")
    print(found)                       # label first, strength, and the words on which each fires

`find_by_meaning` says which sources speak for a feature and how they are weighted, `fired_words` what the statistics of
a hit are. A query is a word, a list of words, a phrase, a pasted example, or several of them joined by AND and NOT
(`query`). The Match of texts joined by AND is the smallest of theirs: an upper bound of the probability that the
feature is right for each. A feature that fits a text after NOT better than those before is left out. Hits that no
source lifts above its null, or weaker than `CONVINCING`, come last, and few of them.

Other forms of a query: `like 12` or `like NAME:12` (nearest decoder directions by cosine similarity; baseline: the
median over all features of the cosine to the nearest one), and `#12` or `NAME:12` (that feature). `search_vector`
takes any vector.

A search query: words to find, joined by AND, and words to leave out after NOT.

    parse_query("cooking AND french").wanted           # ("cooking", "french"): each has to be found
    parse_query("bank NOT river").unwanted             # ("river",)
    parse_query("def ").wanted                         # ("def ",): "def" as a whole word and in this case

AND and NOT are written in capitals. What stands between them is a text: one word, a list of words, or a phrase.

**p** of a cosine: the probability that one of as many isotropic random directions reaches it (Holm-adjusted tail of the
Beta distribution). Directions of a dictionary share directions of large variance, so its nearest neighbours pass this
null easily; the baseline of `like` is the usual nearest neighbour of a feature. Weights in bfloat16 need torch.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError, WorkbenchError, program
from interp.models.short_name import short_name
from interp.nulls import ALPHA, holm
from interp.workspace import Workspace
from saes.features._label_search import largest, names_of
from saes.features._phrase_vectors import phrase_vectors
from saes.features.example_texts import ExampleTexts, example_texts, shown_examples
from saes.features.find_by_meaning import LEARNT, SET, WEIGHTS, FeatureEvidence, gather
from saes.features.fired_words import AT_ONCE, Fired, FiringIndex, IndexedWord
from saes.features.found import By, Example, FeatureHits, Filter, Hit, Kind, columns_of
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

    A space at the end of a text counts, one at its beginning does not: with or without it, a word is the same. Raises
    `ConfigError` for a query that is empty, too long, or names nothing to find.

    >>> parse_query("bank NOT river")
    TextQuery(wanted=('bank',), unwanted=('river',))
    """
    if not text.strip() or len(text) > MAX_TEXT:
        raise ConfigError(f"a query has 1 to {MAX_TEXT:,} characters, got {len(text):,}; type a word")
    first, *rest = _JOINT.split(text)
    parts = [("AND", first), *zip(rest[::2], rest[1::2], strict=True)]
    last = len(parts) - 1
    cleaned = [(joint, part.lstrip() if i == last else part.strip()) for i, (joint, part) in enumerate(parts)]
    wanted = [part for joint, part in cleaned if joint == "AND" and part.strip()]
    unwanted = [part for joint, part in cleaned if joint != "AND" and part.strip()]
    if not wanted or len(wanted) + len(unwanted) < len(parts) - (not first.strip()):
        raise ConfigError(f"{text.strip()!r} names nothing on one side of AND or NOT; write `bank NOT river`")
    if len(parts) > MAX_TEXTS:
        raise ConfigError(f"a query joins at most {MAX_TEXTS} texts by AND and NOT, got {len(parts)}; leave some out")
    return TextQuery(tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted)))


CONVINCING = 0.25
"""Least Match of a hit that convinces: fitted on nonsense words, of which at most a twentieth find such a hit in the
dictionary that ships (docs/trust.md)."""
BELOW = 3
"""Hits that do not convince which are shown all the same: what came nearest."""
MAX_SAID = 4
"""Most dictionaries searched by the words that features make the model say; each takes seconds the first time."""
_LIKE = re.compile(r"^like\s+(?:([\w.-]+):)?#?(\d{1,9})$", re.IGNORECASE)
_NUMBER = re.compile(r"^(?:([A-Za-z][\w.-]*):|#)(\d{1,9})$")
_BY: dict[str, By] = {
    "fires": "tokens", "related_fires": "related", "says": "says", "related_says": "says", "label": "label",
    "alike": "label", "covered": "label", "contains": "examples", "concept": "concept", "name": "name",
}  # fmt: skip


def search_features(
    workspace: Workspace,
    text: str,
    *,
    features: str | None = None,
    hook_point: str | None = None,
    density: tuple[float, float] = (0.0, 1.0),
    min_strength: float = 0.0,
    region: tuple[str, int] | None = None,
    kind: Kind | None = None,
    leave_out: str = "",
    limit: int = 20,
    examples: bool = True,
    meanings: Callable[[Workspace, Features], Meaning | None] | None = None,
) -> FeatureHits:
    """Return the features that fit a query, best first; those that do not convince last.

    `workspace` is searched for `text`, words or the number of a feature. Only features are returned whose `density`
    lies in the range, whose match is at least `min_strength`, and, with `kind`, of dictionaries of that sort; at most
    `limit` of them.

    `features` names one artefact or set of transcoders (default: all but the layers of sets), and `region` a region of
    an atlas, as (name, number). `leave_out` names a measured concept that must not be used. With `examples` every hit
    holds one example, that with the query in it if there is one. `meanings` returns what the features of an artefact
    make the model say; default: `meaning_of`, which loads the model the first time.

    Raises `ConfigError` for an empty query, `UnknownNameError` for names that do not exist.
    """
    query = parse_query(text)
    within = Filter(
        features=features, hook_point=hook_point, density=density, min_strength=min_strength, region=region, kind=kind
    )
    artefacts, sets_left_out = within.artefacts(workspace)
    names, problem = names_of(workspace)
    notes = [f"Your own names could not be read: {problem}"] if problem else []
    bare = text.strip()
    if match := _LIKE.match(bare) or _NUMBER.match(bare):
        number = int(match[2])
        made = workspace.open(Features, match[1] or _with_feature(artefacts, number))
        find = similar if _LIKE.match(bare) else numbered
        hits = find(workspace, made, number, within, limit)
        shown = _with_examples(workspace, [made], hits, {}, {}) if examples else hits
        return FeatureHits(query=bare, hits=_with_names(shown, names), notes=tuple(notes))
    parts = []
    for number, made in enumerate(artefacts):
        meaning, missing = _meaning(workspace, made, meanings or meaning_of) if number < MAX_SAID else (None, "")
        notes += [missing] if missing else []
        index = FiringIndex.open(workspace, made, keep=len(artefacts) <= AT_ONCE)
        texts = example_texts(workspace, made, len(artefacts))
        parts.append(_Part.of(index, meaning, texts, query, within, names, limit, leave_out))
    if any(made.settings.labels for made in artefacts) and phrase_vectors() is None:
        notes.append("Written labels were found by their words alone; pip install '.[search]' finds them by meaning")
    hits = sorted([hit for part in parts for hit in part.hits], key=lambda h: (not h.convincing, -(h.strength or 0)))
    above = [hit for hit in hits if hit.convincing][:limit]
    hits = [*above, *[hit for hit in hits if not hit.convincing][: max(min(BELOW, limit - len(above)), 0)]]
    pieces = {word.word: word.pieces for part in parts for word in part.words}
    related = {word.word: word.pieces for part in parts for term in part.wanted for word in term.near}
    if bare.isdecimal() and len(bare) < 10 and (name := _with_feature(artefacts, int(bare))):
        hits = [*numbered(workspace, workspace.open(Features, name), int(bare), within, limit), *hits]
    return _found(query_text(query), parts, hits, pieces, related, workspace, sets_left_out, names, notes, examples)


def _with_feature(artefacts: Sequence[Features], number: int) -> str:
    """Return the name of the newest artefact that has a feature of this number, of an SAE if possible; empty for none.

    Where none has it, the newest of all is named, whose features an error can count.
    """
    having = [made for made in artefacts if number < made.n_features] or artefacts[:1]
    return next((made.name for made in having if made.sae), having[0].name if having else "")


def query_text(query: TextQuery) -> str:
    """Return the text of a query as it was understood."""
    return " NOT ".join([" AND ".join(query.wanted), *query.unwanted]).rstrip()


def _found(
    query: str, parts: "list[_Part]", hits: list[Hit], pieces: dict[str, int], related: dict[str, int],
    workspace: Workspace, sets_left_out: tuple[str, ...], names: Mapping[str, str], notes: list[str], examples: bool,
) -> FeatureHits:  # fmt: skip
    sought = [term.sought for part in parts for term in part.wanted]
    first = [[term.sought for term in part.wanted] for part in parts]
    made = [part.index.made for part in parts]

    def in_all(name: str) -> tuple[str, ...]:
        """Return the words that every artefact lacks."""
        lacking = [tuple(word for lookup in lookups for word in getattr(lookup, name)) for lookups in first]
        return tuple(w for w in dict.fromkeys(lacking[0] if lacking else ()) if all(w in words for words in lacking))

    return FeatureHits(
        query=query,
        hits=_with_names(_with_examples(workspace, made, hits, pieces, related) if examples else hits, names),
        words=tuple(dict.fromkeys(word.word for lookup in sought for word in lookup.words)),
        phrases=tuple(dict.fromkeys(word.word for lookup in sought for word in lookup.phrases)),
        missing_phrases=in_all("missing_phrases"),
        missing=in_all("missing"),
        left_out=tuple(dict.fromkeys(word for lookup in sought for word in lookup.left_out)),
        near=max((lookup.near for lookup in sought), key=lambda near: sum(n for _, n in near), default=()),
        sets_left_out=sets_left_out,
        covers={part.index.made.name: "all text" if part.index.complete else "examples" for part in parts},
        related=tuple(dict.fromkeys(word.word for part in parts for term in part.wanted for word in term.related)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _meaning(
    workspace: Workspace, made: Features, meanings: Callable[[Workspace, Features], Meaning | None]
) -> tuple[Meaning | None, str]:
    """Return what the features of an artefact say; without that, a sentence about what is missing."""
    model = made.settings.model
    try:
        meaning = meanings(workspace, made)
        lens = lens_for(workspace, made) if meaning is None else None
    except WorkbenchError as error:
        return None, f"{made.name} was not searched by the words that its features make the model say: {error}"
    if meaning is not None:
        return meaning, ""
    if lens is not None and made.set_name:
        return None, (
            f"{made.name} was not searched by the words that its features make the model say: they are computed when "
            "the page of one is opened"
        )
    if lens is not None:
        return None, f"{made.name} was searched only by the words on which it fires: it writes to no residual stream"
    return None, (
        f"No dictionary of {short_name(model)} was searched by the words that features make it say, for want of a "
        f"Jacobian lens: {program()} lens {model} --kind jacobian"
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Hits within one artefact."""

    index: FiringIndex
    wanted: tuple[FeatureEvidence, ...]
    hits: tuple[Hit, ...]

    @property
    def words(self) -> list[IndexedWord]:
        return [word for term in self.wanted for word in (*term.sought.words, *term.sought.phrases)]

    @classmethod
    def of(
        cls, index: FiringIndex, meaning: Meaning | None, examples: ExampleTexts | None, query: TextQuery,
        within: Filter, names: Mapping[str, str], limit: int, leave_out: str,
    ) -> "_Part":  # fmt: skip
        """Search one artefact."""
        terms = [*query.wanted, *query.unwanted]
        every = gather(index, meaning, terms, within, names=names, examples=examples, leave_out=leave_out)
        wanted, unwanted = every[: len(query.wanted)], every[len(query.wanted) :]
        strength, p = np.min([term.strength for term in wanted], 0), np.max([term.p for term in wanted], 0)
        for term in unwanted:
            strength = np.where(term.logit < np.max([w.logit for w in wanted], 0), strength * (1 - term.strength), 0.0)
        searched = (strength > 0) & (strength >= within.min_strength)
        above = searched & (p <= ALPHA) & (strength >= CONVINCING)
        below = searched & ~above & ((p <= ALPHA) | _lifted(wanted))
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
    for scores in (fired for evidence in wanted for fired in (evidence.fired, evidence.phrases) if fired is not None):
        mask[scores.feature[scores.score > scores.null]] = True
    return mask


def _hits(
    index: FiringIndex, wanted: Sequence[FeatureEvidence], strength: np.ndarray, above: np.ndarray, best: Sequence[int]
) -> list[Hit]:
    known = index.columns.hits(index.made.name, best, "tokens")
    words = {
        word.word: word
        for term in wanted
        for word in (*term.sought.phrases, *term.sought.words, *term.sought.last)
    }  # fmt: skip
    matches = wanted[0].firings.matches(list(words.values()), best)
    hits = []
    for i in best:
        evidence = max(wanted, key=lambda term: float(term.logit[i]))
        label = evidence.labels.get(i)
        hits.append(
            replace(
                _with_statistics(known[i], evidence),
                by=_reason(evidence, i),
                strength=float(strength[i]),
                convincing=bool(above[i]),
                matches=matches.get(i, ()),
                says=None if evidence.raised is None else float(evidence.raised.z[i]),
                label_score=label and label.score,
                label_null=label and label.null,
                concept=evidence.concepts.get(i, ("", 0.0))[0],
                other=label.label if label else "",
            )
        )
    return hits


def _reason(evidence: FeatureEvidence, i: int) -> By:
    if evidence.values["phrase"][i] > 0:
        return "phrase"
    weights = dict(zip(LEARNT, WEIGHTS[evidence.with_lens], strict=True)) | SET
    contributions = {
        name: weights[name] * float(np.broadcast_to(evidence.values.get(name, 0.0), evidence.live.shape)[i])
        for name in _BY
    }
    return _BY[max(contributions, key=lambda name: contributions[name])]


def _with_statistics(hit: Hit, evidence: FeatureEvidence) -> Hit:
    """Return a hit with share, recall, score and p of the words, or of the phrase, on which the feature fires."""
    for scores in (evidence.phrases, evidence.fired):
        if scores is not None and (at := _row(scores, hit.feature)) is not None:
            return replace(
                hit,
                score=scores.score[at].item(),
                null=scores.null[at].item(),
                share=scores.share[at].item(),
                recall=scores.recall[at].item(),
                fired=scores.fired[at].item(),
                tries=scores.tries[at].item(),
                p=scores.p[at].item(),
                expected=float(scores.tries[at] * scores.rate[at]),
            )
    return hit


def _row(scores: Fired, i: int) -> int | None:
    at = int(np.searchsorted(scores.feature, i))
    return at if at < len(scores.feature) and scores.feature[at] == i else None


def _with_names(hits: Sequence[Hit], names: Mapping[str, str]) -> tuple[Hit, ...]:
    return tuple(replace(hit, own=names.get(hit.key, "")) for hit in hits)


def numbered(workspace: Workspace, made: Features, index: int, within: Filter, limit: int) -> list[Hit]:
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
            texts = example_texts(workspace, made, len(among))
            examples = shown_examples(workspace, made, features, texts, wanted, related)
            shown |= {(made.name, feature): example for feature, example in examples.items()}
    return [replace(hit, example=shown.get((hit.features, hit.feature))) for hit in hits]


_ROWS = 8192
MAX_FILE = 16_000_000
"""Bytes of a file with a vector."""


def load_vector(path: Path | str) -> np.ndarray:
    """Return the vector `[d]` of a `.npy` file, float64; `[1, d]` is taken too.

    Raises `MissingError` where there is no file, `ConfigError` for one that holds no finite vector or pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no file at {path}; numpy.save writes a vector to one")
    if path.stat().st_size > MAX_FILE:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; a vector has at most {MAX_FILE:,}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        why = "it holds pickled objects, which can run code" if "allow_pickle" in str(error) else str(error)
        raise ConfigError(f"{path} cannot be read as an array of numbers: {why}; save it with numpy.save") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays (.npz)"
        raise ConfigError(f"{path} holds {kind}, expected one array of real numbers; save it with numpy.save")
    vector = array[0] if array.ndim == 2 and len(array) == 1 else array
    if vector.ndim != 1 or not len(vector):
        raise ConfigError(f"{path} holds an array of shape {list(array.shape)}, expected a vector [d]; choose a row")
    return vector.astype(np.float64)


def search_vector(
    workspace: Workspace, vector: np.ndarray, *, name: str = "the vector", features: str | None = None,
    hook_point: str | None = None, density: tuple[float, float] = (0.0, 1.0), min_strength: float = 0.0,
    kind: Kind | None = None, limit: int = 20,
) -> FeatureHits:  # fmt: skip
    """Return the features whose decoder directions have the largest cosine similarity to `vector [d]`.

    SAEs of another width are left out, and so are neurons. Raises `ConfigError` for a vector that is zero or not
    finite, or whose width no SAE has.
    """
    vector = np.asarray(vector, np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        bad = int((~np.isfinite(vector)).sum())
        what = (
            f"{bad} of {vector.size} numbers are NaN or infinite" if bad else f"shape {list(vector.shape)}, or all zero"
        )
        raise ConfigError(f"expected a vector [d] of finite numbers, not all zero, got {what}; compute it again")
    within = Filter(features=features, hook_point=hook_point, density=density, min_strength=min_strength,
                    kind=kind)  # fmt: skip
    hits, widths = [], {}
    for made in within.artefacts(workspace)[0]:
        path = _weights(workspace, made)
        if path is None:
            continue
        widths[made.name] = _width(path)
        if widths[made.name] == len(vector):
            hits += _nearest(workspace, made, path, vector, within, limit)
    if len(vector) not in widths.values():
        known = ", ".join(f"{source} {width}" for source, width in widths.items()) or "no SAE whose weights are here"
        raise ConfigError(f"the vector has {len(vector)} numbers; decoder directions have: {known}")
    best = sorted(hits, key=lambda hit: -(hit.strength or 0))[:limit]
    return FeatureHits(query=f"like {name}", hits=tuple(best), covers={})


def _nearest(
    workspace: Workspace, made: Features, path: Path, vector: np.ndarray, within: Filter, limit: int, *,
    leave_out: int | None = None, null: float | None = None,
) -> list[Hit]:  # fmt: skip
    """Return the features that pass the filter, by cosine to a vector, largest first."""
    cosines = np.concatenate([
        block @ vector / np.maximum(np.linalg.norm(block, axis=1), 1e-12) for block in _blocks(path)
    ]) / np.linalg.norm(vector)  # fmt: skip
    if leave_out is not None:
        cosines[leave_out] = -np.inf
    columns = columns_of(workspace, made)
    inside = within.mask(workspace, columns)
    among = np.flatnonzero(inside[: len(cosines)] & (cosines[: len(inside)] >= (within.min_strength or -1)))
    best = np.argsort(-cosines[among], kind="stable")[:limit]
    p = chance_of_cosine(cosines[among], len(vector), int(inside.sum()))
    known = columns.hits(made.name, among[best], "similar")
    return [
        replace(known[i], strength=float(cosines[i]), null=null, p=float(p_value))
        for i, p_value in zip(among[best].tolist(), p[best], strict=True)
    ]


def chance_of_cosine(cosines: np.ndarray, d: int, n: int) -> np.ndarray:
    """Return the Holm-adjusted probability that a random direction in `d` dimensions reaches each of `cosines [m]`.

    `n >= m` directions were compared; those not given count with p = 1. The cosine of an isotropic random direction
    with a fixed one is distributed as `2 B - 1`, `B ~ Beta((d - 1) / 2, (d - 1) / 2)`.
    """
    from scipy.special import betainc

    if d < 2:
        return np.ones(len(cosines))
    p = np.ones(max(n, len(cosines)))
    half = (d - 1) / 2
    p[: len(cosines)] = betainc(half, half, np.clip((1 - cosines) / 2, 0.0, 1.0))
    return holm(p)[: len(cosines)]


def similar(workspace: Workspace, made: Features, index: int, within: Filter, limit: int) -> list[Hit]:
    """Return the features whose decoder directions have the largest cosine similarity to that of a feature.

    From the SAE's weights where they are in the workspace, else the nearest neighbours stored with the features.
    """
    table = workspace.table_path("features", made.name, "features")
    sql = """select neighbours, neighbour_cosines, (select median(neighbour_cosines[1]) from f) as usual
             from f where feature = ?"""
    rows = workspace.query(sql, index, f=table).to_pylist()
    if not rows:
        raise UnknownNameError("feature", str(index), [f"0 to {made.n_features - 1}"])
    usual, path = rows[0]["usual"], _weights(workspace, made)
    if path is not None:
        direction = next(_blocks(path, index, index + 1))[0].astype(np.float64)
        return _nearest(workspace, made, path, direction, within, limit, leave_out=index, null=usual)
    cosines = dict(zip(rows[0]["neighbours"], rows[0]["neighbour_cosines"], strict=True))
    columns = columns_of(workspace, made)
    inside = within.mask(workspace, columns)
    hits = [
        replace(hit, strength=cosines[i], null=usual)
        for i, hit in columns.hits(made.name, sorted(cosines), "similar").items()
        if inside[i] and cosines[i] >= within.min_strength
    ]
    return sorted(hits, key=lambda hit: -(hit.strength or 0))[:limit]


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


def _width(path: Path) -> int:
    with _opened(path, "numpy") as file:
        return int(file.get_slice("W_dec").get_shape()[1])


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
