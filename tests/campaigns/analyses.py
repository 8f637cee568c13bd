"""Cases of single analyses: the intervals and p-values that an analysis computes in a way of its own.

Each function makes a drawer for `Case` or `Null`; `cases` and `nulls` list them with their data.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.campaigns.cases import Case, Null, Rng, draw_seed, each, holds, skewed


def fractions(prompts: int) -> Any:
    """Return a drawer of intervals of the fraction .5 of a behaviour; it differs between prompts, as the gap does."""
    from interp.statistics import ratio_interval

    def covers(rng: Rng, n: int) -> np.ndarray:
        gap = skewed(rng, (n, prompts)) * 3
        return holds(ratio_interval(gap * rng.random((n, prompts)), gap), 0.5)

    return covers


def streams(contexts: int) -> Any:
    """Return a drawer of intervals of the change .1 of a residual stream, over contexts of skewed size."""
    from interp.changes._stream import drawn_changes
    from interp.statistics import expanded, percentile_interval

    def covers(rng: Rng) -> bool:
        spread = skewed(rng, (1, contexts))
        moved = 0.1 * spread * skewed(rng, (1, contexts))
        drawn = drawn_changes(moved, spread, draw_seed(rng))[:, 0]
        return bool(holds(percentile_interval(0.0, drawn, expanded(0.95, contexts)), 0.1))

    return each(covers)


def probed(n_documents: int) -> Any:
    """Return a drawer of intervals of the balanced accuracy of a probe, over documents that differ in it."""
    from interp.statistics import quantile_ends
    from saes.evaluation.probing import Tally

    difficulty = np.random.default_rng(0).normal(0, 0.8, 200_000)
    truth = float((1 / (1 + np.exp(-(1.5 + difficulty)))).mean())

    def covers(rng: Rng) -> bool:
        of = np.repeat(np.arange(n_documents), 20)
        label = (rng.random(len(of)) < 0.5).astype(np.int8)
        right = rng.random(len(of)) < (1 / (1 + np.exp(-(1.5 + rng.normal(0, 0.8, n_documents)))))[of]
        test: Any = SimpleNamespace(document=of + rng.integers(2**40))
        tally = Tally(test, SimpleNamespace())  # type: ignore[arg-type]
        tally.add(("", 1, "", "labels"), np.where(right == (label == 1), 1.0, -1.0), label)
        ends = quantile_ends(tally.accuracies["", 1, "", "labels"][0][1:], n_documents)
        return ends is not None and bool(holds(ends, truth))

    return each(covers)


def absorbed(groups: int) -> Any:
    """Return a drawer of intervals of the share .2 of rows with absorption, over groups of rows that differ in it."""
    from saes.evaluation.absorption import _ends

    def covers(rng: Rng) -> bool:
        group = np.repeat(np.arange(groups), 10)
        full = rng.random(len(group)) < rng.beta(1, 4, groups)[group]
        one: Any = SimpleNamespace(group=group + rng.integers(2**40), full=full)
        ends = _ends({"all": [one]}, "full")
        return ends is not None and bool(holds(ends, 0.2))

    return each(covers)


def geometry_probes(n_documents: int, rate: float) -> Any:
    """Return a drawer of intervals of the accuracy of a probe over held-out documents of 10 tokens."""
    from interp.geometry.probes import accuracy_interval

    of = np.repeat(np.arange(n_documents), 10)
    return each(lambda rng: bool(holds(accuracy_interval(rng.random(len(of)) < rate, of), rate)))


def heads(prompts: int) -> Any:
    """Return a drawer of intervals of the score .1 of a head that attends on few prompts."""
    from interp.circuits.head_kinds import interval

    return lambda rng, n: holds(interval(rng.beta(0.5, 4.5, (n, prompts)), 0.95), 0.1)


def steered(prompts: int) -> Any:
    """Return a drawer of intervals of steering that does nothing, at the best of 8 strengths."""
    from interp.geometry._steering import choose_strength

    def covers(rng: Rng) -> bool:
        effects = rng.normal(size=(1, 1, prompts)) * 0.7 + rng.normal(size=(1, 8, prompts))
        found = choose_strength(np.arange(1.0, 9.0), effects, np.zeros((1, 8, 4)))
        return bool(holds(found.judged_effect, 0.0))

    return each(covers)


def labels(features: int) -> Any:
    """Return a drawer of intervals of the mean score of labels over features: balanced accuracies of mean .8."""
    from saes.explain.run import mean_over_features

    def covers(rng: Rng) -> bool:
        found = mean_over_features(rng.beta(8, 2, features).tolist(), generator=rng)
        return found is not None and bool(holds(found.mean, 0.8))

    return each(covers)


def cases() -> Iterator[Case]:
    """Return the cases of intervals."""
    for size in (4, 8, 16):
        yield Case("fraction of a behaviour, Fieller", f"{size} prompts of skewed gap", fractions(size), 5)
    for size in (8, 24):
        yield Case("change of the residual stream, bootstrap", f"{size} contexts of skewed size", streams(size), 0.5)
    for size in (8, 12, 40):
        yield Case("balanced accuracy of a probe, documents", f"{size} documents that differ", probed(size), 0.25)
        yield Case("absorption, groups", f"{size} groups of 10 rows", absorbed(size), 0.25)
    for size, rate in ((8, 0.9), (8, 0.998), (30, 0.9)):
        yield Case("accuracy of a geometry probe", f"{size} documents, {rate} right", geometry_probes(size, rate))
    for size in (8, 24, 64):
        yield Case("head score, Student t", f"{size} prompts, most of them near 0", heads(size), 5)
    for size in (16, 32):
        yield Case("steering, judged on other prompts", f"{size} prompts, best of 8 strengths", steered(size))
    yield Case("mean score of labels, bootstrap", "12 features", labels(12))


def told(value: Any, p: float = 0.05) -> np.ndarray:
    """Return `p` where a test without p-values found something, else 1."""
    return np.where(np.asarray(value, bool), p, 1.0)


def readings(n_features: int) -> Any:
    """Return a drawer of readings that say nothing of their feature: told where the score exceeds the null's."""
    from saes.features._labels import FiringCounts, LabelReading
    from saes.features._views import TokenView

    firings, n_tokens = 40, 300
    base = 1 / np.arange(1, n_tokens + 1)
    base /= base.sum()

    def draw(rng: Rng, n: int) -> np.ndarray:
        found: list[float] = []
        while len(found) < n:
            feature = np.repeat(np.arange(n_features), firings)
            view = TokenView("token", "token statistics", tuple(map(str, range(n_tokens))))
            view.values, view.counts = [rng.choice(n_tokens, len(feature), p=base)], np.rint(base * 1e6).astype(int)
            views: Any = SimpleNamespace(
                document=rng.integers(0, 200, len(feature)), views={"token": view}, n_tokens=1e6
            )
            columns = rng.permutation(n_tokens)[:n_features]
            chosen = {f: LabelReading("token", (int(c),), 0.6, float(base[c])) for f, c in enumerate(columns)}
            scored = FiringCounts(views, feature, n_features, draw_seed(rng)).score([chosen], view.source)
            found += [0.05 if each.score > each.null_high else 1.0 for [each] in scored.values()]
        return np.array(found[:n])

    return draw


def parts(n_tests: int, prompts: int) -> Any:
    """Return a drawer of tests of so many parts that carry no more than the bound .5; told if any is found."""
    from interp.statistics import ratio_interval

    def draw(rng: Rng, n: int) -> np.ndarray:
        gap = skewed(rng, (n, 1, prompts)) * 3
        low = ratio_interval(gap * rng.random((n, n_tests, prompts)), gap, 1 - 2 * 0.05 / n_tests).low
        return told((low > 0.5).any(1))

    return draw


def null_models(n_null: int) -> Any:
    """Return a drawer of changes of one more null model; told if any of 30 components passes the bound."""
    from interp.changes._components import upper_bound

    def draw(rng: Rng) -> float:
        sizes = np.exp(rng.normal(size=30) + rng.normal(0, 0.3, (n_null + 1, 30)))
        return float(told((sizes[0] > upper_bound(sizes[1:], n_tests=30)).any()))

    return each(draw)


def untrained_heads(is_skewed: bool) -> Any:
    """Return a drawer of scores of another untrained model of 32 heads; told if a head passes the bound of the first.

    The scores are normal, or of a beta distribution of skewness .8.
    """
    from interp.circuits.head_kinds import untrained_bounds

    def draw(rng: Rng) -> float:
        two = rng.beta(4, 36, (2, 32)) if is_skewed else rng.normal(0.1, 0.02, (2, 32))
        other, own = two[..., None] + rng.normal(0, 0.01, (2, 32, 16))
        return float(told((other.mean(-1) > untrained_bounds(own, 0.05, 32)[1]).any()))

    return each(draw)


def orders(rng: Rng) -> float:
    """Return the p-value of a circular order of 7 words without order, over 3 layers."""
    from interp.geometry.circles import order_correlations, order_models, orderings, ranked_distances, share_above

    ranks = np.stack([ranked_distances(rng.normal(size=(7, 5))) for _ in range(3)])
    tried, exact = orderings(7, cyclic=True, n_draws=0, seed=0)
    models = order_models(7, True)
    null = order_correlations(ranks, models, tried).max(2)[0]
    observed = order_correlations(ranks, models, np.arange(7)[None]).max(2)[0, 0]
    return share_above(float(observed), null, exact)


def clusters(rng: Rng) -> float:
    """Return the p-value of a list of 6 words among others like it, over 3 layers."""
    from interp.geometry.shapes import cluster_tests

    lists = {name: list(rng.normal(size=(3, 6, 5))) for name in ("one", "two", "three")}
    return cluster_tests(lists, n_deals=99, seed=draw_seed(rng))["one"].p


def clouds(rng: Rng) -> float:
    """Return the p-value of the distance of two clouds of one distribution."""
    from interp.geometry.similarity import compare_clouds

    return compare_clouds(*skewed(rng, (2, 16, 3)), n_splits=1, n_relabelled=99, seed=draw_seed(rng)).p


def alike(rng: Rng) -> float:
    """Return the p-value of the CKA of two unrelated representations."""
    from interp.geometry.similarity import cka

    return cka(*rng.normal(size=(2, 12, 4)), n_shuffles=99, seed=draw_seed(rng)).p


def cosines(rng: Rng) -> float:
    """Return the smallest p-value of 50 random directions as neighbours of one, after Holm."""
    from saes.features.search import chance_of_cosine

    directions = rng.normal(size=(50, 16))
    return float(chance_of_cosine(directions[:, 0] / np.linalg.norm(directions, axis=1), 16).min())


def hits(rng: Rng) -> float:
    """Return the smallest p-value of 50 features that fire at random, after Holm, of a search for 40 tokens."""
    from saes.features.fired_words import chance_of_firings

    rate = rng.uniform(0.001, 0.1, 50)
    return float(chance_of_firings(rng.binomial(40, rate).astype(float), np.full(50, 40.0), rate, 50).min())


def nulls() -> Iterator[Null]:
    """Return the kinds of p-values, and tests that say only whether something was found (.05 or 1)."""
    for size in (5, 12, 60):
        yield Null("reading of a label above its null", f"{size} features whose readings say nothing",
                   readings(size), 2)  # fmt: skip
    for size in (4, 8, 16):
        yield Null("transplant: any of 10 parts found", f"{size} prompts, at the bound", parts(10, size), 2)
    for size in (3, 8):
        yield Null("model comparison: any of 30 components found", f"one more of {size} null models",
                   null_models(size))  # fmt: skip
    for is_skewed, shape in ((False, "normal"), (True, "skewed")):
        yield Null("head kinds: any of 32 heads found", f"another untrained model, {shape} scores",
                   untrained_heads(is_skewed))  # fmt: skip
    yield Null("order of a word list", "7 words without order, 3 layers", each(orders))
    yield Null("cluster of a word list", "6 of 18 words alike, 3 layers", each(clusters), 0.8)
    yield Null("distance of two clouds", "16 points each, of one distribution", each(clouds), 0.2)
    yield Null("CKA against shuffled rows", "12 unrelated rows", each(alike))
    yield Null("neighbours by cosine, Holm", "smallest of 50 random directions", each(cosines))
    yield Null("search of features, Holm", "smallest of 50 features that fire at random", each(hits))
