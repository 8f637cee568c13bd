"""Simulate every kind of interval and p-value that the project prints.

    python -m tests.campaigns.intervals --n 2000 --seed 0

Each case draws data from a population whose true value is known, asks the project's own function for the interval, and
counts how often it holds the truth. A nominal 95 % interval should do so in .93 to .97 of the draws. P-values are drawn
under their null, and counted at .05 and .01. The table goes to the terminal, or with `--write` into `docs/trust.md`,
between the two markers of this campaign.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from interp.seeds import derive_seed
from tests.campaigns import analyses, report
from tests.campaigns.cases import Case, Null, Rng, draw_seed, each, holds, skewed

LOWEST, HIGHEST = 0.93, 0.97


def means(draw: Callable[[Rng, tuple[int, int]], np.ndarray], truth: float, size: int) -> Callable[[Rng, int], Any]:
    """Return a drawer of t intervals of the mean of `size` observations."""
    from interp.statistics import t_interval

    return lambda rng, n: holds(t_interval(draw(rng, (n, size))), truth)


def bootstrapped(size: int, draw: Callable[[Rng, tuple[int, int]], np.ndarray], truth: float) -> Any:
    """Return a drawer of bootstrap intervals of a mean; each call of scipy resamples 25 samples alike."""
    from interp.statistics import bootstrap_interval

    def covers(rng: Rng, n: int) -> np.ndarray:
        found = [bootstrap_interval(np.mean, draw(rng, (25, size)), rng=rng) for _ in range(-(-n // 25))]
        return np.concatenate([holds(one, truth) for one in found])[:n]

    return covers


def faithful(size: int) -> Any:
    """Return a drawer of intervals of faithfulness .8: a ratio of means over prompts."""
    from interp.circuits.judging import faithfulness_interval

    def covers(rng: Rng) -> bool:
        full, empty = skewed(rng, (size,)) * 3, rng.normal(0, 0.5, size)
        values = 0.8 * full + rng.normal(0, 0.8, size)
        return bool(holds(faithfulness_interval(values, empty, full, seed=draw_seed(rng)), 0.8))

    return each(covers)


def documents(size: int, score: str) -> Any:
    """Return a drawer of intervals over documents of skewed length: FVU, or recovered cross-entropy."""
    import torch

    from interp.statistics import DocumentBootstrap

    def covers(rng: Rng) -> bool:
        lengths = np.maximum(1, rng.lognormal(3, 0.8, size)).astype(int)
        of = np.repeat(np.arange(size), lengths)
        hard = rng.lognormal(-0.125, 0.5, size)[of]
        if score == "FVU":
            values = np.stack([0.2 * hard * rng.exponential(1, len(of)), hard * rng.exponential(1, len(of))], 1)
            truth, measure = 0.2, lambda sums: sums[:, 0] / sums[:, 1]
        else:
            clean = 3 * hard * rng.gamma(2, 0.5, len(of))
            values = np.stack(
                [clean, clean + 0.1 * rng.exponential(1, len(of)), clean + 5 * rng.gamma(2, 0.5, len(of))], 1
            )
            truth, measure = 0.98, lambda sums: (sums[:, 2] - sums[:, 1]) / (sums[:, 2] - sums[:, 0])
        bootstrap = DocumentBootstrap(seed=draw_seed(rng))
        bootstrap.add(torch.from_numpy(values), torch.from_numpy(of + rng.integers(2**40)))
        ends = bootstrap.interval(measure)
        return ends is not None and bool(holds(ends, truth))

    return each(covers)


def answers(n_yes: int, n_no: int, rate: float) -> Any:
    """Return a drawer of intervals of the balanced accuracy of a label."""
    from saes.explain.run import score_answers

    truth = np.arange(n_yes + n_no) < n_yes

    def covers(rng: Rng) -> bool:
        right = rng.random(len(truth)) < rate
        found = score_answers(truth.tolist(), (right == truth).tolist(), generator=rng)
        return found is not None and bool(holds(found, rate))

    return each(covers)


def concept(words: int, others: int, measure: int) -> Any:
    """Return a drawer of intervals of F1 (0) or AUROC (1) of a latent for a concept of some words."""
    from scipy.stats import norm

    from saes.evaluation.concepts import judge

    templates, apart, spread = 4, 2.0, 0.6
    sd = (1 + spread**2) ** 0.5
    hit, false = norm.sf((1 - apart) / sd), norm.sf(1 / sd)
    f1 = 2 * hit * words / (hit * words + false * others + words)
    truth = (f1, norm.cdf(apart / (sd * 2**0.5)))[measure]

    def covers(rng: Rng) -> bool:
        own = np.arange(words + others) < words
        values = apart * own[:, None] + rng.normal(0, 1, (len(own), 1)) + rng.normal(0, spread, (len(own), templates))
        return bool(holds(judge(values, own, 1.0, rng)[measure], truth))

    return each(covers)


def proportions(size: int, rate: float) -> Any:
    """Return a drawer of intervals of a share of concepts or prompts."""
    from interp.statistics import proportion_interval

    return lambda rng, n: holds(proportion_interval(rng.binomial(size, rate, n), size), rate)


def correlations(size: int, rho: float) -> Any:
    """Return a drawer of intervals of Spearman's correlation of normal pairs."""
    from interp.statistics import rank_correlation_interval

    truth = 6 / np.pi * np.arcsin(rho / 2)

    def covers(rng: Rng) -> bool:
        one, noise = rng.normal(size=(2, size))
        two = rho * one + (1 - rho**2) ** 0.5 * noise
        return bool(holds(rank_correlation_interval(one, two, rng=rng), truth))

    return each(covers)


def edges(size: int) -> Any:
    """Return a drawer of intervals of edge scores over prompts; the true score is 1."""
    from types import SimpleNamespace

    import torch

    from interp.circuits._edge_scores import EdgeScores

    def covers(rng: Rng, n: int) -> np.ndarray:
        found: list[np.ndarray] = []
        while sum(map(len, found)) < n:  # one draw of weights serves all edges of a circuit
            scores: Any = SimpleNamespace(per_prompt=torch.from_numpy(skewed(rng, (size, 10))))
            found.append(holds(EdgeScores.interval(scores, seed=draw_seed(rng)), 1.0))
        return np.concatenate(found)[:n]

    return covers


def dimensions(name: str) -> Any:
    """Return a drawer of intervals of the intrinsic dimension of 400 points of a uniform cube of 3 dimensions."""
    from interp.geometry.dimension import intrinsic_dimension

    def covers(rng: Rng) -> bool:
        points = rng.random((400, 3)) @ rng.normal(size=(3, 8))
        found = intrinsic_dimension(points, seed=draw_seed(rng))
        return bool(holds(next(e.dimension for e in found.estimates if e.estimator == name), 3.0))

    return each(covers)


def laws() -> Any:
    """Return a drawer of intervals of the exponent of a scaling law, from 12 runs with noise of 2 %."""
    from saes.evaluation.scaling import Law, ScalingRun, fit_scaling

    law = Law(alpha=0.0, beta_k=-0.2, beta_n=-0.3, gamma=0.02)

    def covers(rng: Rng) -> bool:
        runs = [
            ScalingRun(n=n, k=k, loss=law.loss(n, k) * float(np.exp(rng.normal(0, 0.02))))
            for n in (256, 512, 1024, 2048)
            for k in (8, 16, 32)
        ]
        found = fit_scaling(runs, n_bootstrap=100, generator=rng)
        return bool(holds(found.exponents[16], law.exponent(16)))

    return each(covers)


def cases() -> Iterator[Case]:
    """Return all cases of intervals."""
    normal = lambda rng, shape: rng.normal(1, 1, shape)  # noqa: E731
    hits = lambda rng, shape: rng.random(shape) < 0.9  # noqa: E731
    for size in (3, 8, 30):
        yield Case("mean, Student t", f"{size} normal values", means(normal, 1.0, size), 5)
    for size in (8, 30):
        yield Case("mean, Student t", f"{size} log-normal values", means(skewed, 1.0, size), 5)
    yield Case("mean, Student t", "6 strengths of steering, differences, t with 3 degrees of freedom",
               means(lambda rng, shape: rng.standard_t(3, shape), 0.0, 6), 5)  # fmt: skip
    yield Case("mean, Student t", "30 answers, 90 % right", means(hits, 0.9, 30), 5)
    for size in (8, 30):
        yield Case("mean, bootstrap", f"{size} normal values", bootstrapped(size, normal, 1.0), 0.5)
        yield Case("mean, bootstrap", f"{size} log-normal values", bootstrapped(size, skewed, 1.0), 0.5)
    for size in (8, 24):
        yield Case("faithfulness, bootstrap", f"{size} prompts", faithful(size), 0.25)
        yield Case("edge score, bootstrap", f"{size} log-normal prompts", edges(size))
    for size in (8, 12, 40):
        yield Case("FVU, documents", f"{size} documents of skewed length and difficulty", documents(size, "FVU"), 0.5)
        yield Case("recovered loss, documents", f"{size} documents of the same kind", documents(size, "CE"), 0.5)
    for size, rate in ((10, 0.5), (20, 0.05), (20, 0.95), (40, 0.8)):
        yield Case("share, Wilson", f"{size} concepts, true share {rate:.2f}", proportions(size, rate), 5)
    for counts, rate in (((5, 5), 0.8), ((10, 10), 0.9), ((20, 20), 0.98)):
        yield Case("balanced accuracy of a label", f"{counts[0]} and {counts[1]} trials, {rate:.2f} right",
                   answers(*counts, rate))  # fmt: skip
    for words in (6, 12):
        yield Case("F1 of a concept, bootstrap", f"{words} words, 200 others", concept(words, 200, 0), 0.25)
        yield Case("AUROC of a concept, DeLong", f"{words} words, 200 others", concept(words, 200, 1), 0.25)
    for size, rho in ((10, 0.0), (10, 0.8), (48, 0.4)):
        yield Case("Spearman's correlation", f"{size} normal pairs of correlation {rho}", correlations(size, rho), 0.5)
    yield Case("exponent of a scaling law", "12 runs, noise of 2 %", laws(), 0.05)
    for name in ("TwoNN", "MLE", "local PCA"):
        yield Case(f"intrinsic dimension, {name}", "400 points of a cube of 3 dimensions", dimensions(name), 0.05,
                   "spread of the estimate, not of its bias")  # fmt: skip
    yield from analyses.cases()


def nulls() -> Iterator[Null]:
    """Return all kinds of p-values."""
    from interp.nulls import holm, p_from_null, prediction_bound
    from interp.statistics import p_above
    from interp.studies._transitions import walk_p_value

    def permuted(rng: Rng, n: int) -> np.ndarray:
        return p_from_null(rng.exponential(1, n), rng.exponential(1, (99, n)))

    def few(rng: Rng, n: int) -> np.ndarray:
        return p_from_null(rng.integers(0, 4, n), rng.integers(0, 4, (99, n)))

    def adjusted(rng: Rng, n: int) -> np.ndarray:
        return np.array([holm(rng.random(20)).min() for _ in range(n)])

    def walks(correlation: float, df: float) -> Callable[[Rng, int], np.ndarray]:
        def draw(rng: Rng, n: int) -> np.ndarray:
            from scipy.signal import lfilter

            moves = np.asarray(lfilter([1.0], [1.0, -correlation], rng.standard_t(df, (n, 120))))[:, 60:]
            return np.array([walk_p_value(np.arange(60.0), walk) for walk in moves.cumsum(1)])

        return draw

    def bounded(rng: Rng, n: int) -> np.ndarray:
        """Return .05 where one of 30 heads of a null passes its bound, else 1."""
        null = rng.normal(size=(n, 30, 12))
        bound = prediction_bound(null.mean(2), null.std(2, ddof=1), 12, n_tests=30)
        return np.where((rng.normal(size=(n, 30)) > bound).any(1), 0.05, 1.0)

    yield Null("`p_from_null`", "99 draws of the null, continuous", permuted, 5)
    yield Null("`p_from_null`", "99 draws of the null, four values (ties count against)", few, 5)
    yield Null("`p_above` (Student t)", "8 normal differences", lambda rng, n: p_above(rng.normal(size=(n, 8))), 5)
    yield Null("`p_above` (Student t)", "8 log-normal values less their mean: skewed to the right",
               lambda rng, n: p_above(skewed(rng, (n, 8)) - 1), 5)  # fmt: skip
    yield Null("`p_above` (Student t)", "8 such values, skewed to the left",
               lambda rng, n: p_above(1 - skewed(rng, (n, 8))), 5)  # fmt: skip
    yield Null("`holm`", "smallest of 20", adjusted, 5)
    yield Null("`prediction_bound`", "any of 30 heads, 12 draws of each null", bounded)
    for correlation, df, name in (
        (0.0, 1e9, "Gaussian walks"),
        (0.0, 2.0, "walks of t with 2 degrees of freedom"),
        (0.8, 1e9, "AR(1) walks, .8"),
        (0.8, 2.0, "AR(1) walks, .8, of t with 2"),
    ):
        yield Null("`walk_p_value` (transitions)", name, walks(correlation, df), 0.5)
    yield from analyses.nulls()


def measure(case: Case | Null, n: int, seed: int) -> tuple[np.ndarray, int]:
    """Return the draws of a case, and how many there are."""
    n = max(20, round(n * case.share))
    rng = np.random.default_rng(derive_seed(seed, case.name, case.data))
    return (case.covers if isinstance(case, Case) else case.draw)(rng, n), n


def tables(n: int, seed: int, only: str = "") -> list[str]:
    """Return the lines of both tables in Markdown, and report each line as it is measured."""
    from interp.statistics import proportion_interval

    lines = ["| interval, nominal .95 | data | reached | draws |", "|---|---|---|---|"]
    for case in cases():
        if only and only not in f"{case.name} {case.data}":
            continue
        found, drawn = measure(case, n, seed)
        rate = float(found.mean())
        known = proportion_interval(int(found.sum()), drawn)
        low, high = known.high < LOWEST, known.low > HIGHEST
        mark = " (low" if low else " (high" if high else ""
        note = mark and f"{mark}{': ' + case.said if case.said else ''})"
        lines.append(f"| {case.name} | {case.data} | {rate:.3f}{note} | {drawn:,} |")
        print(lines[-1], flush=True)
    lines += ["", "| p-value under its null | data | p <= .05 | p <= .01 | draws |", "|---|---|---|---|---|"]
    for null in nulls():
        if only and only not in f"{null.name} {null.data}":
            continue
        p, drawn = measure(null, n, seed)
        lines.append(f"| {null.name} | {null.data} | {(p <= 0.05).mean():.3f} | {(p <= 0.01).mean():.3f} | {drawn:,} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="draws of a case (slow ones take a share of them)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name or data hold this text")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/trust.md")
    args = parser.parse_args()
    lines = tables(args.n, args.seed, args.only)
    if args.write:
        report.put("intervals", [f"`python -m tests.campaigns.intervals --n {args.n} --seed {args.seed}`:", "", *lines])


if __name__ == "__main__":
    main()
