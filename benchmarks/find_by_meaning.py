"""Search by meaning: learn how sources are weighted, and judge the ranking on concepts that did not choose it.

    python -m benchmarks.find_by_meaning WORKSPACE            # learn on the 40 concepts that may guide choices
    python -m benchmarks.find_by_meaning WORKSPACE --judge    # report the 20 that judge, and 40 new ones

The workspace is that of `workbench demo`, with a Jacobian lens. A query is a concept's name, the half of its words that
chose its feature, or one word of the other half. **Right** is a feature that detects the concept's words, with F1 of at
least `DETECTS` in both halves of them (shuffled words: 0.33), or one that a reader took as an answer to its name
(`read_features.toml`, also of the first hits of rankings that were tried; a feature that nobody read counts as wrong).
*The best* is the feature of the largest F1, or one within `WITHIN` of it in both halves. New concepts
(`new_concepts.toml`) were written before anything was measured for them. Beside the ranking stand the one without each
source, with weights learnt anew; scores dealt out anew among the features, the null; and nonsense, which must find
nothing. The Match is compared with the share of right features among the first ten hits.

Reading the sentences of both lists takes 10 minutes of one core; the result is kept in the cache of the user.
"""

import json
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from saes.features.find_by_meaning import FeatureEvidence

WITHIN, DETECTS = 0.05, 0.5
FIRST = (1, 3, 10)
TOP = 10
"""First hits of a query on which the Match is fitted and judged."""
BINS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
L2 = 0.1
"""Penalty of the squared weights."""
READ = Path(__file__).with_name("read_features.toml")
NEW = Path(__file__).with_name("new_concepts.toml")
QUERIES = ("name", "words", "each word")


@dataclass(frozen=True)
class Wanted:
    """A concept, and the features that count as found."""

    name: str
    set: str
    words: tuple[str, ...]
    own: int
    good: tuple[int, ...]
    """The best feature, and those within `WITHIN` of it."""
    right: tuple[int, ...]

    def queries(self, kind: str) -> tuple[str, ...]:
        """Return the queries of a kind: its name, the words that chose its feature, or each of the others."""
        return {"name": (self.name,), "words": (" ".join(self.words[::2]),), "each word": self.words[1::2]}[kind]


def wanted(workspace: Path) -> list[Wanted]:
    """Return all concepts; measured the first time, then read from a file."""
    from interp.cache import cache_folder

    sae = workspace / "saes" / "demo"
    key = json.loads((sae / "manifest.json").read_text(encoding="utf-8"))["content_hash"][:24]
    kept = cache_folder() / "concept-features" / f"{key}-2.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows = [vars(concept) for concept in _measure(sae)]
        kept.write_text(json.dumps(rows), encoding="utf-8")
    rows = json.loads(kept.read_text(encoding="utf-8"))
    read = tomllib.loads(READ.read_text(encoding="utf-8"))
    answers = read["right"] if read["dictionary"] == key else {}
    lists = ("words", "good", "right")
    concepts = [Wanted(**row | {name: tuple(row[name]) for name in lists}) for row in rows]
    return [replace(c, right=(*c.right, *answers.get(c.name, ()))) for c in concepts]


def _measure(path: Path) -> Iterator[Wanted]:
    from interp.models.loading import load_model
    from saes.evaluation.concepts import peaks_of, read_words
    from saes.evaluation.probing import sparse_columns
    from saes.evaluation.scores import LIST, read_concepts
    from saes.weights.folder import load_sae

    sae, model = load_sae(path), load_model("smollm2-135m")
    for listed, new in ((read_concepts(LIST), False), (read_concepts(NEW), True)):
        sentences = listed.sentences()
        values, starts = read_words(model, list(sentences.values()), [sae.hook_point], lambda n, stage: None)
        peaks = peaks_of(sparse_columns(sae, values[sae.hook_point]), starts)
        row_of = {key: row for row, key in enumerate(sentences)}
        for concept in listed.measured:
            templates = range(len(listed.templates[concept.kind]))
            halves = []
            for half in (0, 1):
                words = [*concept.half(half), *listed.negatives(concept, half)]
                rows = np.array([[row_of[concept.kind, word, t] for t in templates] for word in words])
                halves.append((rows, np.arange(len(words)) < len(concept.half(half))))
            latent, *features = _detectors(peaks, halves[0], halves[1])
            yield Wanted(concept.name, "new" if new else concept.set, concept.words, latent, *features)


def _detectors(
    peaks: Any, choosing: tuple[np.ndarray, np.ndarray], judging: tuple[np.ndarray, np.ndarray]
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return the best latent by the words that choose, those within `WITHIN` of it, and those that detect the words."""
    from saes.evaluation.concepts import RankedUnits, f1_of

    templates = choosing[0].shape[1]
    ranked, truth = RankedUnits.of(peaks, choosing[0].ravel()), np.repeat(choosing[1], templates)
    latent, _ = ranked.best(truth)
    n, m = ranked.order.shape
    hits, apart = truth[ranked.order].cumsum(0), np.ones((n, m), dtype=bool)
    apart[:-1] = ranked.values[:-1] > ranked.values[1:]
    f1 = np.where(apart, 2 * hits / (np.arange(1, n + 1)[:, None] + truth.sum()), 0.0)
    at, column = f1.argmax(0), np.arange(m)
    value = ranked.values[at, column]
    below = np.where(at + 1 < n, ranked.values[np.minimum(at + 1, n - 1), column], value - 1)
    activations = peaks[judging[0].ravel()][:, ranked.columns].toarray().reshape(len(judging[1]), templates, m)
    yes = (activations > (value + below) / 2).sum(1)
    judged, chosen = f1_of(yes, judging[1][None].astype(float), templates)[0], f1.max(0)
    best = int(np.flatnonzero(ranked.columns == latent)[0])
    good = (chosen >= chosen[best] - WITHIN) & (judged >= judged[best] - WITHIN)
    right = (chosen >= DETECTS) & (judged >= DETECTS) | (ranked.columns == latent)
    best_ones, right_ones = (tuple(int(number) for number in ranked.columns[mask]) for mask in (good, right))
    return latent, best_ones, right_ones


@dataclass(frozen=True)
class Asked:
    """A query with the evidence for every feature."""

    concept: Wanted
    kind: str
    evidence: "FeatureEvidence"

    def rank(self, score: np.ndarray, *, best: bool = False) -> int:
        """Return the position of the first right feature, or of the best; ties in the order of their numbers."""
        order = np.lexsort((np.arange(len(score)), -score))
        place = np.empty(len(score), np.int64)
        place[order] = np.arange(1, len(score) + 1)
        wanted = self.concept.good if best else self.concept.right
        return min(int(place[i]) if np.isfinite(score[i]) else len(score) + 1 for i in wanted)


def ask(root: Path, concepts: list[Wanted], *, lens: bool = True) -> list[Asked]:
    """Gather the evidence of all queries of some concepts."""
    from interp.workspace import Workspace
    from saes.features.find_by_meaning import gather
    from saes.features.fired_words import FiringIndex
    from saes.features.meaning import meaning_of
    from saes.features.schema import Features

    workspace = Workspace(root)
    made = workspace.open(Features, "demo")
    index = FiringIndex.open(workspace, made, keep=True)
    meaning = meaning_of(workspace, made) if lens else None
    queries = [(concept, kind, text) for concept in concepts for kind in QUERIES for text in concept.queries(kind)]
    return [Asked(concept, kind, gather(index, meaning, [text])[0]) for concept, kind, text in queries]


def learn(queries: list[Asked], without: Collection[str] = ()) -> tuple[np.ndarray, float]:
    """Return the weights that make right features most probable (conditional logit), and the offset.

    Names and words teach them: by single words, density would count for more than any source. Sources `without` get no
    weight. Both are scaled by a logistic regression of "is right" on the weighted sum, over the first `TOP` hits.
    """
    from scipy.optimize import minimize

    from saes.features.find_by_meaning import LEARNT

    used = [i for i, name in enumerate(LEARNT) if name not in without]
    lists = []
    for query in (query for query in queries if query.kind != "each word"):
        live = np.flatnonzero(query.evidence.live)
        x = np.stack([np.broadcast_to(query.evidence.values.get(name, 0.0), query.evidence.live.shape)[live]
                      for name in np.array(LEARNT)[used]], 1)  # fmt: skip
        lists.append((x, np.isin(live, query.concept.right)))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = L2 / 2 * float(w @ w), L2 * w
        for x, y in lists:
            p = np.exp(x @ w - (x @ w).max())
            p /= p.sum()
            q = np.where(y, p, 0) / p[y].sum()
            total -= float(np.log(p[y].sum()))
            slope = slope - x.T @ (q - p)
        return total, slope

    w = minimize(loss, np.full(len(used), 0.1), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(used)).x
    top = [(s[best], y[best]) for x, y in lists for s in [x @ w] for best in [np.argsort(-s)[:TOP]]]
    s, y = np.concatenate([a for a, _ in top]), np.concatenate([b for _, b in top])

    def off(scale: np.ndarray) -> float:
        z = scale[0] * s + scale[1]
        return float(np.logaddexp(0, z).sum() - z[y].sum())

    scale, offset = minimize(off, [0.3, -1.0]).x
    return scale * np.bincount(used, w, minlength=len(LEARNT)), float(offset)


def reliability(queries: list[Asked]) -> list[tuple[float, float, int, float]]:
    """Return for each bin of the Match its bounds, the number of first hits in it, and the share that is right."""
    queries = [query for query in queries if query.kind != "each word"]
    best = [np.argsort(-query.evidence.strength)[:TOP] for query in queries]
    match = np.concatenate([query.evidence.strength[at] for query, at in zip(queries, best, strict=True)])
    right = np.concatenate([np.isin(at, query.concept.right) for query, at in zip(queries, best, strict=True)])
    masks = [(match >= low) & (match < high) for low, high in pairwise(BINS)]
    return [(low, high, int(m.sum()), float(right[m].mean()) if m.any() else 0.0)
            for (low, high), m in zip(pairwise(BINS), masks, strict=True)]  # fmt: skip


def nonsense_hits(root: Path, n: int = 200) -> list[float]:
    """Return the largest Match of a hit beyond chance for each of `n` nonsense words, the largest first; 0: none."""
    from interp.workspace import Workspace
    from saes.features import search

    rng = np.random.default_rng(40)
    syllables = [consonant + vowel for consonant in "bcdfgklmnprstvz" for vowel in "aeiou"]
    words = ["".join(rng.choice(syllables, k)) for k in rng.integers(2, 5, n)]
    search.CONVINCING = 0.0  # pyright: ignore[reportAttributeAccessIssue]
    found = [search.search_features(Workspace(root), word, features="demo", examples=False) for word in words]
    return sorted(max([h.strength or 0.0 for h in hits.hits if h.convincing], default=0.0) for hits in found)[::-1]


Score = Callable[["FeatureEvidence"], np.ndarray]


def rates(queries: list[Asked], score: Score, *, best: bool = False) -> dict[str, np.ndarray]:
    """Return the ranks by kind of query."""
    return {
        kind: np.array([asked.rank(score(asked.evidence), best=best) for asked in queries if asked.kind == kind])
        for kind in QUERIES
    }


def weighted(weights: np.ndarray) -> Score:
    """Return the score by some weights of `LEARNT`, as `FeatureEvidence.logit` is by the stored ones."""
    from saes.features.find_by_meaning import LEARNT

    def score(evidence: "FeatureEvidence") -> np.ndarray:
        parts = [weight * evidence.values[name] for name, weight in zip(LEARNT, weights, strict=True)]
        spoken = np.any([part > 0 for part in parts], axis=0)
        return np.where(evidence.live & spoken, np.sum(parts, axis=0), -np.inf)

    return score


def dealt_out(evidence: "FeatureEvidence") -> np.ndarray:
    """Return the scores of other features: the null."""
    live = np.flatnonzero(evidence.live)
    score = np.full(len(evidence.live), -np.inf)
    score[live] = evidence.logit[np.random.default_rng(len(live)).permutation(live)]
    return score


def line(name: str, ranks: dict[str, np.ndarray], kinds: tuple[str, ...] = QUERIES) -> str:
    """Return a line of the table: among the first 1, 3 and 10, with Wilson's intervals."""
    from interp.statistics import proportion_interval

    cells = []
    for kind in kinds:
        of = [proportion_interval(int((ranks[kind] <= k).sum()), len(ranks[kind])) for k in FIRST]
        cells.append(f"{kind} " + ", ".join(f"{x.estimate:.0%} ({x.low:.0%} to {x.high:.0%})" for x in of))
    return f"{name:30} " + "; ".join(cells)


def main(arguments: list[str]) -> None:
    from saes.features.find_by_meaning import LEARNT

    root, judge = Path(arguments[0]), "--judge" in arguments
    concepts = wanted(root)
    choose = [concept for concept in concepts if concept.set == "choose"]
    chosen = ask(root, choose)
    for with_lens in () if judge else (True, False):
        weights, offset = learn(chosen if with_lens else ask(root, choose, lens=False))
        print("with a lens" if with_lens else "without", dict(zip(LEARNT, np.round(weights, 2).tolist(), strict=True)),
              f"offset {offset:.2f}")  # fmt: skip
    for names in (("judge",), ("new",), ("judge", "new")) if judge else (("choose",),):
        mine = [concept for concept in concepts if concept.set in names]
        queries = ask(root, mine)
        print(f"\n{' and '.join(names)}, {len(mine)} concepts: first, among three, among ten")
        print(line("right", rates(queries, lambda e: e.logit)))
        print(line("the best", rates(queries, lambda e: e.logit, best=True)))
        for source in LEARNT:
            print(line(f"without {source}", rates(queries, weighted(learn(chosen, [source])[0]))))
        print(line("without a lens", rates(ask(root, mine, lens=False), lambda e: e.logit)))
        print(line("null: scores dealt out", rates(queries, dealt_out)))
        bins = [f"{low:.1f} to {high:.1f}: {n}, {share:.2f}" for low, high, n, share in reliability(queries)]
        print("Match: number, share right", *bins, sep="\n  ")
    if judge:
        print("nonsense, largest Match of 200:", " ".join(f"{match:.2f}" for match in nonsense_hits(root)[:24]))


if __name__ == "__main__":
    main(sys.argv[1:])
