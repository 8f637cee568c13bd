"""Everyday concepts, and the latent of a dictionary that detects each of them.

    scores = measure_concepts(sae, model, heldout)
    print(scores)                      # one row per concept: the best latent, its F1 and AUROC, and baselines

The list (`concepts.toml`, read by `config.read_concepts`) has 60 concepts in 8 classes: months, kinship, past tense,
prices, French ... A class has templates that fit each of its words. Every word in every template is one sentence, and
the score of a latent on a sentence is its largest activation over the tokens of the word.

1. Half of a concept's words choose a latent and a threshold: those with the largest F1 against four times as many words
   of other concepts in the same templates. Of several such latents the one with the largest correlation is taken.
2. The other half, against other words of other concepts, judges it: F1 at that threshold, with an interval
   bootstrapped over words, and AUROC, with DeLong's. Always saying yes has F1 1/3.
3. Baselines by the same procedure: neurons of the layer's MLP, principal components of held-out activations and
   coordinates, all three with either sign, and the latents of an untrained dictionary of the same size and sparsity.
4. Null distribution: the same procedure with the concept's label shuffled over words, in each half.
5. Steering: the latent's direction is added to neutral prompts. Its effect on the log-probability of the first tokens
   of the judging words is compared with that of random latents of like density, added with the same norm.
6. Search: whether a search for the concept's name, or for its choosing words, gives the latent among the first three.

The score of a dictionary is the share of concepts with F1 of at least `GOOD_F1`: of 40 that may guide choices, and of
20 that judge once. Its interval is Wilson's, over concepts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.models.hooked import HookedModel
from interp.nulls import ALIKE_LATENTS, DRAWS, p_from_null
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import Interval, auroc_interval, bootstrap_counts, expanded, percentile_interval
from saes.evaluation.evaluation import ConceptScore, ConceptScores, Detector
from saes.evaluation.scores import GOOD_F1, Concept, ConceptList, read_concepts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from interp.interventions.site import DictionarySite
    from interp.workspace import Workspace
    from saes.kinds.base import SAE

    Columns = csr_matrix | np.ndarray

RESAMPLES = 500
FIRST_HITS = 3
"""Number of first hits among which a search has to give the latent."""
STRENGTH = 0.5
"""Norm that steering adds, as a fraction of the median norm of the activations of the prompt."""
POOL, PROMPTS_STEERED = 200, 4
"""Random latents that are steered for all concepts, and neutral prompts."""


def measure_concepts(
    sae: "SAE",
    model: HookedModel,
    heldout: "Tensor",
    listed: ConceptList | None = None,
    *,
    others: "Mapping[str, SAE] | None" = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ConceptScores:
    """Score a dictionary, and the baselines at its hook point, on concepts: by default all that ship.

    `others` are further dictionaries of the hook point, by name, which are scored as baselines are.

    `heldout [n, d_in]` are activations of held-out documents, for components, densities and the sparsity of the
    untrained dictionary. Raises `ConfigError` for a dictionary of several hook points, `MissingError` for a model that
    reads no text, `PromptError` where its context is too short.
    """
    from interp.interventions.site import DictionarySite
    from interp.models.adapter import available_hook_points
    from interp.names import parse_hook_point
    from saes.evaluation.probing import sparse_columns

    listed = listed or read_concepts()
    site = DictionarySite.of(model, sae)
    sentences = listed.sentences()
    weight = len(sentences) // 50 or 1  # scoring a concept takes about as long as reading so many sentences
    n_done, total = 0, len(sentences) + len(listed.measured) * weight

    def done(n: int, stage: str) -> None:
        nonlocal n_done
        n_done += n
        if progress:
            progress(n_done, total, {"stage": stage})

    layer = parse_hook_point(site.reads).layer
    neurons = f"blocks.{layer}.mlp.hook_post"
    names = [site.reads, *[neurons] * (neurons in available_hook_points(model))]
    values, starts = read_words(model, list(sentences.values()), names, done)
    on_text = sparse_columns(sae, heldout)
    density = np.asarray((on_text > 0).mean(axis=0)).ravel()
    bases = _bases(sae, values[site.reads], heldout, max(1, round(on_text.nnz / len(heldout))), seed)
    bases |= {name: sparse_columns(other, values[site.reads]) for name, other in (others or {}).items()}
    if neurons in values:
        bases["neuron"] = values[neurons].numpy()
    peaks = {name: peaks_of(basis, starts) for name, basis in bases.items()}
    row_of = {key: number for number, key in enumerate(sentences)}
    scored: list[tuple[ConceptScore, np.ndarray]] = []
    for concept in listed.measured:
        scored.append(score_concept(concept, listed, peaks, row_of, seed=seed))
        done(weight, concept.name)
    return steer_concepts(site, gathered(scored), density, seed=seed)


def gathered(scored: "Sequence[tuple[ConceptScore, np.ndarray]]") -> ConceptScores:
    """Return the scores of all concepts, each given with its F1 for every shuffled label."""
    null = {}
    for name in dict.fromkeys(score.concept.set for score, _ in scored):
        f1 = np.array([shuffled for score, shuffled in scored if score.concept.set == name])
        good = (f1 >= GOOD_F1).mean(0)
        null[name] = percentile_interval(float(good.mean()), good)
    return ConceptScores(scores=tuple(score for score, _ in scored), null=null)


def read_words(
    model: HookedModel,
    sentences: Sequence[tuple[str, int, int]],
    names: Sequence[str],
    done: Callable[[int, str], None],
) -> "tuple[dict[str, Tensor], np.ndarray]":
    """Return the values at hook points on the tokens of each sentence's word, `[n_tokens, d]`, sentence by sentence.

    Also the first row of each sentence, `[n_sentences]`. A word's tokens begin with the space before it. `done` is
    called with the number of sentences of each pass.
    """
    import torch

    from interp.geometry.words import by_length, encode
    from interp.models.identity import tokenizer_of
    from interp.models.passes import Capture

    prompts = encode(model, [text for text, _, _ in sentences])
    tokenizer = tokenizer_of(model)
    before = tokenizer.encode_batch([text[:start].rstrip() for text, start, _ in sentences])
    until = tokenizer.encode_batch([text[:end] for text, _, end in sentences])
    first = int(tokenizer.bos_token_id is not None)
    spans = [slice(first + len(a), first + max(len(b), len(a) + 1)) for a, b in zip(before, until, strict=True)]
    values = {name: [torch.empty(0)] * len(prompts) for name in names}
    with Capture(model, list(names)) as capture:
        for group in by_length(prompts, 64):
            tokens = torch.tensor([prompts[i] for i in group], device=model.cfg.device)
            for name, value in capture(tokens).items():
                for i, row in zip(group, value.float().cpu(), strict=True):
                    values[name][i] = row[spans[i]].clone()
            done(len(group), "reading sentences")
    lengths = [len(rows) for rows in values[names[0]]]
    return {name: torch.cat(rows) for name, rows in values.items()}, np.cumsum([0, *lengths[:-1]])


def _bases(sae: "SAE", x: "Tensor", heldout: "Tensor", k: int, seed: int) -> "dict[str, Columns]":
    """Return the values of every basis but neurons on `x [n, d]`: sparse for dictionaries, else `[n, m]`."""
    import torch

    from saes.evaluation.baselines import random_dictionary_like
    from saes.evaluation.probing import sparse_columns

    centred = (heldout.cpu() - heldout.cpu().mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return {
        "dictionary": sparse_columns(sae, x),
        "component": (x @ vectors.flip(1).to(x)).numpy(),
        "coordinate": x.numpy(),
        "untrained": sparse_columns(random_dictionary_like(sae, k=k, seed=seed), x),
    }


def peaks_of(values: "Columns", starts: np.ndarray) -> "Columns":
    """Return the largest value over each run of rows that begins at `starts [n]`.

    Activations of a dictionary, CSR `[rows, m]`, become CSR `[n, m]`. Signed values `[rows, m]` become `[n, 2 m]`, with
    those of the negatives last.
    """
    if isinstance(values, np.ndarray):
        return np.concatenate([np.maximum.reduceat(values, starts), -np.minimum.reduceat(values, starts)], axis=1)
    from scipy.sparse import csr_matrix

    n, m = values.shape
    run = np.repeat(np.arange(len(starts)), np.diff([*starts, n]))
    entries = values.tocoo()
    key = run[entries.row] * m + entries.col.astype(np.int64)
    order = np.argsort(key, kind="stable")
    key, begins = np.unique(key[order], return_index=True)
    data = np.maximum.reduceat(entries.data[order], begins) if len(key) else entries.data
    return csr_matrix((data, (key // m, key % m)), shape=(len(starts), m))


class _Half(NamedTuple):
    """Sentences of one half of a concept's words and of its negatives."""

    rows: np.ndarray
    """`[words, templates]`: rows of the peaks"""
    truth: np.ndarray
    """`[words]` bool"""


def score_concept(
    concept: Concept,
    listed: ConceptList,
    peaks: "Mapping[str, Columns]",
    row_of: Mapping[tuple[str, str, int], int],
    *,
    seed: int = 0,
) -> tuple[ConceptScore, np.ndarray]:
    """Choose the best unit of every basis by one half of a concept's words, and judge it by the other.

    Returns the scores, and F1 for every shuffled label. `peaks`: basis -> score of each unit on each sentence,
    `[n_sentences, m]` (`peaks_of`). `row_of`: key of `ConceptList.sentences` -> row.
    """
    templates = range(len(listed.templates[concept.kind]))
    halves = []
    for half in (0, 1):
        words = [*concept.half(half), *listed.negatives(concept, half, seed=seed)]
        rows = np.array([[row_of[concept.kind, word, number] for number in templates] for word in words])
        halves.append(_Half(rows, np.arange(len(words)) < len(concept.half(half))))
    choosing, judging = halves
    rng = np.random.default_rng(derive_seed(seed, "concept words", concept.name))
    detectors, null = {}, []
    for basis, values in peaks.items():
        ranked = RankedUnits.of(values, choosing.rows.ravel())
        unit, threshold = ranked.best(np.repeat(choosing.truth, len(templates)))
        judged = _column(values, unit)[judging.rows]
        f1, auroc = judge(judged, judging.truth, threshold, rng)
        signed = isinstance(values, np.ndarray)
        width = values.shape[1] // 2 if signed else values.shape[1]
        sign = -1 if unit >= width else 1
        detectors[basis] = Detector(unit=unit % width, sign=sign, threshold=threshold, f1=f1, auroc=auroc)
        for _ in range(DRAWS["standard"] if basis == "dictionary" else 0):
            unit, threshold = ranked.best(np.repeat(rng.permutation(choosing.truth), len(templates)))
            says = _column(values, unit)[judging.rows] > threshold
            null.append(float(f1_of(says.sum(1), rng.permutation(judging.truth)[None], len(templates))[0]))
    shuffled = np.array(null)
    ends = percentile_interval(float(shuffled.mean()), shuffled)
    return ConceptScore(concept=concept, detectors=detectors, null=ends), shuffled


def _column(values: "Columns", unit: int) -> np.ndarray:
    return values[:, unit] if isinstance(values, np.ndarray) else values[:, [unit]].toarray()[:, 0]


@dataclass(frozen=True)
class RankedUnits:
    """Units ordered by their scores on some sentences, to find the best one for any label."""

    columns: np.ndarray
    """`[m]`: units"""
    order: np.ndarray
    """`[n, m]`: sentences of each unit, largest score first"""
    values: np.ndarray
    """`[n, m]`: scores in that order"""
    standardised: np.ndarray
    """`[n, m]`: scores in the order of the sentences, with mean 0 and variance 1"""

    @classmethod
    def of(cls, values: "Columns", rows: np.ndarray) -> "RankedUnits":
        """Rank the columns of `values [n_sentences, m]` on some rows; of a dictionary, only latents that fire there."""
        if isinstance(values, np.ndarray):
            columns, dense = np.arange(values.shape[1]), values[rows]
        else:
            part = values[rows]
            columns = np.unique(part.indices) if part.nnz else np.zeros(1, int)
            dense = part[:, columns].toarray()
        order = np.argsort(-dense, axis=0, kind="stable")
        spread = dense.std(0)
        standardised = (dense - dense.mean(0)) / np.where(spread > 0, spread, 1)
        return cls(columns, order, np.take_along_axis(dense, order, 0), standardised)

    def best(self, truth: np.ndarray) -> tuple[int, float]:
        """Return the unit and the threshold with the largest F1 for `truth [n]` bool; ties by correlation.

        The threshold lies halfway between two neighbouring scores. A unit that always says yes has one below all.
        """
        n, m = self.order.shape
        hits = truth[self.order].cumsum(0)
        apart = np.ones((n, m), dtype=bool)
        apart[:-1] = self.values[:-1] > self.values[1:]
        f1 = np.where(apart, 2 * hits / (np.arange(1, n + 1)[:, None] + truth.sum()), 0.0)
        top = f1.max(0)
        tied = np.flatnonzero(top >= top.max() - 1e-12)
        best = int(tied[((truth - truth.mean()) @ self.standardised[:, tied]).argmax()])
        at = int(f1[:, best].argmax())
        column = self.values[:, best]
        below = column[at + 1] if at + 1 < n else column[at] - 1
        return int(self.columns[best]), float((column[at] + below) / 2)


def f1_of(yes: np.ndarray, weights: np.ndarray, templates: int, others: np.ndarray | None = None) -> np.ndarray:
    """Return F1 `[r]` of words with `yes [words]` sentences above the threshold, out of `templates` each.

    `weights [r, words]` count the words of the concept, `others` (by default the rest) those of other concepts.
    """
    others = 1 - weights.astype(float) if others is None else others
    hits, false = weights @ yes, others @ yes
    return 2 * hits / np.maximum(hits + false + weights.sum(1) * templates, 1)


def judge(
    values: np.ndarray, truth: np.ndarray, threshold: float, rng: np.random.Generator
) -> tuple[Interval[float], Interval[float]]:
    """Return F1 at a threshold, and AUROC, of scores `[words, templates]`; `truth [words]` bool.

    The interval of F1 resamples the words of the concept, and those of others.
    """
    inside, outside = values[truth], values[~truth]
    draws = [bootstrap_counts(len(scores), RESAMPLES, rng) for scores in (inside, outside)]
    weights = np.zeros((2, 1 + RESAMPLES, len(truth)))
    for weight, counts, rows in zip(weights, draws, (truth, ~truth), strict=True):
        weight[0, rows] = 1
        weight[1:, rows] = counts
    f1 = f1_of((values > threshold).sum(1), weights[0], values.shape[1], weights[1])
    ties = np.equal.outer(inside, outside)  # [inside, templates, outside, templates]
    wins = np.greater.outer(inside, outside) + 0.5 * ties
    ends = percentile_interval(float(f1[0]), f1[1:], expanded(0.95, len(inside)))
    return ends, auroc_interval(wins.mean((1, 3)))


def steer_concepts(
    site: "DictionarySite", scores: ConceptScores, density: np.ndarray, *, seed: int = 0
) -> ConceptScores:
    """Add each chosen latent's direction to neutral prompts, and compare the effect on its words with random latents'.

    `density [d_sae]`: fraction of held-out tokens on which a latent fires. Scores remain without steering where fewer
    than `ALIKE_LATENTS` other latents fire.
    """
    import torch

    from interp.interventions.arms import positions_from, read_arms
    from interp.models.adapter import to_tokens
    from interp.models.identity import tokenizer_of
    from saes.features.measure_proof import PROMPTS

    chosen = [score.own.unit for score in scores.scores]
    others = np.setdiff1d(np.flatnonzero(density > 0), chosen)
    if len(others) < ALIKE_LATENTS:
        return scores
    rng = np.random.default_rng(derive_seed(seed, "concept steering"))
    pool = rng.permutation(others)[:POOL]
    tokenizer = tokenizer_of(site.model)
    targets = [
        sorted({ids[0] for ids in tokenizer.encode_batch([f" {word}" for word in score.concept.half(1)])})
        for score in scores.scores
    ]
    directions = torch.nn.functional.normalize(site.directions[[*chosen, *pool.tolist()]], dim=1)

    def measure(logits: "Tensor") -> "Tensor":
        log_p = logits[:, 0, -1].float().log_softmax(-1)
        return torch.stack([log_p[:, ids].logsumexp(-1) for ids in targets], dim=1)

    rises = []
    for text in PROMPTS[:PROMPTS_STEERED]:
        tokens = to_tokens(site.model, text)
        prefix = site.read(tokens).prefix
        size = STRENGTH * float(prefix.value[:, site.first :].float().norm(dim=-1).median())
        arms = site.adding(directions, size)
        effects = read_arms(site.model, prefix, arms, measure, at=positions_from(tokens, -1))
        rises.append((effects[1:] - effects[:1]).double().numpy())
    rise = np.mean(rises, axis=0)  # [chosen + pool, concepts]
    steered = []
    for number, score in enumerate(scores.scores):
        like = np.abs(np.log(density[pool]) - np.log(max(density[chosen[number]], 1 / 10**6))).argsort()[:ALIKE_LATENTS]
        null = rise[len(chosen) + like, number]
        gain = rise[number, number]
        p = float(p_from_null(gain, null))
        steered.append(replace(score, steering=float(gain - null.mean()), steering_p=p))
    return replace(scores, scores=tuple(steered))


def search_concepts(workspace: "Workspace", features: str, scores: ConceptScores) -> ConceptScores:
    """Search a features artefact for each concept's name and its choosing words; store the latent's best position."""
    from saes.features.search import search_features

    searched = []
    for score in scores.scores:
        ranks = [
            rank
            for query in (score.concept.name, " ".join(score.concept.half(0)))
            for rank, hit in enumerate(
                search_features(workspace, query, features=features, limit=FIRST_HITS, examples=False).hits[:FIRST_HITS]
            )
            if hit.feature == score.own.unit
        ]
        searched.append(replace(score, search_rank=min(ranks) + 1 if ranks else None))
    return replace(scores, scores=tuple(searched), features=features)
