"""Measurements behind the proof of a feature: effects of ablating and steering it, and those of both nulls.

`prove` makes the measures of `saes.features.proof`, part by part. In ablation a null direction is added in the same
amounts as the feature's; in steering, with the strength that it chose. It is scaled to the norm of the feature's
direction. `DictionarySite.arms` makes these directions, `words_of` reads their words, `read_case`
(`saes.features.proof`) chooses the features of like density. `saes.acts.features` gives single answers instead.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import as_json, from_json, open_artefact, read_json, write_json
from interp.artifacts.artefact import is_stored
from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError, WorkbenchError
from interp.interventions.arms import Arms, positions_from, prefix_of, read_arms
from interp.interventions.site import DictionarySite, continuations
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import lens_point
from interp.lenses.vocabulary import vocabulary_of
from interp.models.adapter import bos_token_id, to_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point
from interp.nulls import PER_PART
from interp.progress import Progress
from interp.statistics import auroc, t_interval
from saes.features.meaning import KEPT
from saes.features.proof import (
    AblatedText,
    FeatureCase,
    Passage,
    Proof,
    ProofConfig,
    ProofMeasure,
    ProofPart,
    ProofSettings,
    SteeredContinuations,
    measure_of,
    read_case,
)
from saes.features.schema import Features
from saes.features.sources import writes_to_residual

if TYPE_CHECKING:
    from interp.geometry.words import WordActivations

PROMPTS = (
    "The meeting was moved to",
    "I would like to tell you about",
    "The answer is",
    "Yesterday we spoke about",
    "Everybody in the room was thinking of",
    "The first word of the page was",
    "What comes to my mind is",
    "She looked at the list and chose",
)
"""Neutral prompts. On the first three, half of the words choose the strength; on the others, the other half judge."""
CHOOSING = 3
STRENGTHS = (0.5, 1.0, 2.0)
"""Strengths to choose from, in units of the largest activation."""
SHOWN_PROMPTS = 3
LEAST = 3
"""Fewest tokens on either side of an AUROC."""
LIST_TOKENS = 6000
"""Approximate number of tokens of all lists of words in their sentences."""


@dataclass(frozen=True)
class WordHalves:
    """Tokens that each of some directions should raise, in two halves: to choose with, and held back to judge."""

    ids: list[int]
    """all tokens of all directions"""
    halves: list[tuple[list[int], ...]]
    """of each direction, as indices into `ids`"""

    def means(self, changes: np.ndarray, half: int) -> np.ndarray:
        """Return the mean of `changes [k, ..., ids]` over one half of each direction's own words, `[k]`."""
        return np.array([change[..., at[half]].mean() for change, at in zip(changes, self.halves, strict=True)])

    def held_back(self, model: HookedModel) -> list[str]:
        """Return the words of the first direction that judge it, each once, without spaces and with escapes."""
        texts = token_strings(model, [self.ids[at] for at in self.halves[0][1]])
        return list(dict.fromkeys(repr(text.strip())[1:-1] or repr(text) for text in texts))


def words_of(
    site: DictionarySite, directions: Tensor, draws: int, lens: JacobianLens | None, sign: float = 1.0
) -> WordHalves:
    """Return the words of a feature, of random directions and of features of like density: `DictionarySite.arms`.

    They are those that a direction raises most (lowers, with a `sign` below 0) through the lens, or directly. Features
    of like density have the words of the feature. Forms of one word are in one half; the strongest word judges. Raises
    `ConfigError` where the directions are not in the residual stream.
    """
    if not writes_to_residual(site.dictionary):
        raise ConfigError(f"directions at {site.writes} are not in the residual stream, so they name no words")
    vocabulary, unit = vocabulary_of(site.model), directions[: 1 + draws] * sign
    carried = unit if lens is None else lens.carry(lens_point(site.writes, site.model.cfg.n_layers), unit)
    logits = carried.numpy() @ vocabulary.directions.astype(np.float32).T
    best = np.argsort(-logits, axis=1, kind="stable")[:, :KEPT].tolist()
    ids = sorted({token for row in best for token in row})
    where = {token: at for at, token in enumerate(ids)}
    halves = []
    for row in best:
        forms: dict[str, list[int]] = {}
        for token in row:
            form = vocabulary.texts[token].strip(" \ufffd").casefold() or str(token)
            forms.setdefault(form, []).append(where[token])
        groups = list(forms.values()) if len(forms) > 1 else [[where[token]] for token in row]
        halves.append(tuple([at for form in groups[first::2] for at in form] for first in (1, 0)))
    return WordHalves(ids, halves + halves[:1] * (len(directions) - len(unit)))


def with_bos(model: HookedModel, passages: Sequence[Passage]) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens `[n, pos]` with BOS first where the model has one, lengths and peaks `[n]`.

    Shorter passages are padded at the end, which causal attention does not see.
    """
    bos = bos_token_id(model)
    start = [] if bos is None else [bos]
    ids = [start + list(passage.token_ids) for passage in passages]
    width = max(map(len, ids))
    device = model.cfg.device
    tokens = torch.tensor([row + [row[-1]] * (width - len(row)) for row in ids], device=device)
    peaks = torch.tensor([passage.peak + len(start) for passage in passages], device=device)
    return tokens, torch.tensor([len(row) for row in ids], device=device), peaks


class _Bar:
    """Counter of tokens that reports to the progress bar."""

    def __init__(self, progress: Progress | None, total: int):
        self._progress, self._total, self._n, self._start, self.stage = progress, total, 0, 0, ""

    def begin(self, stage: str) -> None:
        self._start, self.stage = self._n, stage

    def add(self, tokens: int) -> None:
        self._n += tokens
        if self._progress:
            self._progress(min(self._n, self._total), self._total, {"stage": self.stage})

    def end(self, cost: int) -> None:
        """Count the whole stage, even if it was done earlier."""
        self.add(self._start + cost - self._n)


def _made_now(name: str, make: Callable[[], ProofPart]) -> ProofPart:
    return make()


class FinishedParts:
    """The finished parts of a proof, kept in the folder of unfinished work so that an interrupted one resumes.

    Parts of other weights or tables, by the hashes in `parents`, are made again.
    """

    def __init__(self, folder: Path, parents: dict[str, str]):
        self.folder, of = folder, folder / "of.json"
        if of.exists() and read_json(of) != parents:
            shutil.rmtree(folder)
        write_json(of, parents)

    def __call__(self, name: str, make: Callable[[], ProofPart]) -> ProofPart:
        """Return a part that was made earlier, or make and keep it."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, as_json(make()))
        return from_json(ProofPart, read_json(path), path)


@torch.no_grad()
def prove(
    model: HookedModel,
    dictionary: Dictionary,
    features: Path,
    feature: int,
    config: ProofConfig | None = None,
    *,
    model_name: str = "",
    lens: JacobianLens | None = None,
    prompts: Sequence[str] = PROMPTS,
    lists: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    remembered: Callable[[str, Callable[[], ProofPart]], ProofPart] = _made_now,
) -> Proof:
    """Run the standard proof of one feature, with the texts and controls of the features artefact in `features`.

    `lens`: the Jacobian lens through which its words are read; None for its direct effect. `prompts`: neutral prompts,
    more than three; a model without a tokenizer takes passages of other text. Cost: about `2 * draws` passes over the
    examples and twice over the prompts, from the hook point on. `remembered(name, make)` returns a part that was made
    earlier, or makes it. Raises `UsageError` for a feature that does not exist or never fires, `MismatchError` for
    tables of another dictionary or a lens of other weights, `ConfigError` for a crosscoder.
    """
    config = config or ProofConfig()
    if lens is not None:
        lens.check_model(model)
    site = DictionarySite.of(model, dictionary)
    _check(dictionary, features)
    case = read_case(features, feature, config, seed=seed)
    arms = site.arms(feature, case.alike, config.draws, seed)
    directions = arms.vectors
    prompted = _prompts(model, prompts, case)
    cost = _cost(case, config, prompted, len(directions), lists)
    todo = _Bar(progress, sum(cost.values()))
    parts: dict[str, ProofPart] = {}

    def attempt(name: str, make: Callable[[], ProofPart]) -> None:
        def made() -> ProofPart:
            try:
                return make()
            except WorkbenchError as error:
                return ProofPart(missing=str(error))

        todo.begin(name)
        parts[name] = remembered(name, made)
        todo.end(cost.get(name, 0))

    def tell() -> ProofPart:
        random, alike = _nulls(np.arange(len(directions)), config.draws)
        shown = arms.part([0, random[0], alike[0] if len(alike) else random[0]]).times(strength)
        continued = [_continue(site, tokens, shown, config.new_tokens) for tokens in prompted[-SHOWN_PROMPTS:]]
        return ProofPart(continuations=tuple(continued))

    words = lru_cache(maxsize=1)(lambda: words_of(site, directions, config.draws, lens))
    attempt("activation", lambda: ProofPart(measures=(_selectivity(site, case, directions, config.draws),)))
    attempt("steer", lambda: _steer(site, case, config, prompted, words(), arms, todo))
    attempt("ablate", lambda: _ablate(site, case, config, words(), arms, todo))
    attempt("ablate other text", lambda: ProofPart(measures=(_ablate_other(site, case, config, arms, todo),)))
    if lists:
        attempt("lists", lambda: ProofPart(measures=(_lists(site, directions, config.draws, todo),)))
    strength = parts["steer"].strength or (config.strength or 1.0) * case.max_activation
    attempt("continuations", tell)
    settings = ProofSettings(**vars(config), features=case.features, feature=feature, model=model_name or "the model")
    through = "" if lens is None else lens.key if is_stored(lens) else lens.settings.source
    return Proof(
        settings=settings, label=case.label, hook_point=site.writes, strength=strength, lens=through, parts=parts,
        alike=case.alike,
    )  # fmt: skip


def _check(dictionary: Dictionary, folder: Path) -> None:
    described = open_artefact(Features, folder)
    n, at = described.n_features, canonical_hook_point(described.settings.hook_point)
    reads = canonical_hook_point(dictionary.hook_point)
    if n != dictionary.d_sae or at != reads:
        raise MismatchError(
            f"{folder.name!r} describes {n} features at {at}, the dictionary has {dictionary.d_sae} at {reads}; "
            "build its own features with `workbench features`"
        )


def _prompts(model: HookedModel, prompts: Sequence[str], case: FeatureCase) -> list[Tensor]:
    """Return the tokens `[1, pos]` of each prompt; beginnings of other text where the model has no tokenizer."""
    from interp.models.identity import tokenizer_of

    if len(prompts) <= CHOOSING:
        raise ConfigError(f"more than {CHOOSING} prompts are needed: these choose the tokens, the others judge")
    if tokenizer_of(model, required=False) is not None:
        return [to_tokens(model, text) for text in prompts]
    if len(case.other) <= CHOOSING:
        raise ConfigError("the model has no tokenizer, and there is too little other text to serve as prompts")
    tokens, lengths, _ = with_bos(model, case.other[: len(prompts)])
    return [row[None, : min(int(length), 8)] for row, length in zip(tokens, lengths, strict=True)]


def _cost(case: FeatureCase, config: ProofConfig, prompts: list[Tensor], k: int, lists: bool) -> dict[str, int]:
    """Return the tokens that each part will run, for the progress bar."""
    widths = sum(len(passage.token_ids) + 1 for passage in case.strongest(config.examples))
    tries = 1 if config.strength else len(STRENGTHS)
    steered = sum(tokens.shape[1] * (tries if at < CHOOSING else 1) for at, tokens in enumerate(prompts))
    return {"ablate": (k + 1) * widths, "steer": (k + 1) * steered, "lists": LIST_TOKENS * lists}


def _nulls(values: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Split `[1 + draws + n]` into both nulls."""
    random, alike = DictionarySite.null_slices(draws)
    return values[random], values[alike]


def _selectivity(site: DictionarySite, case: FeatureCase, directions: Tensor, draws: int) -> ProofMeasure:
    """AUROC of activation for the tokens on which the feature peaks in the other half of the examples.

    Random directions fire on as many of these tokens as the feature does: the ones with the largest projections.
    """
    choosing, judging = case.halves()
    names = {passage.token_ids[passage.peak] for passage in choosing}
    tokens, lengths, _ = with_bos(site.model, (*judging, *case.other))
    reading = site.read(tokens)
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    inside[:, : site.first] = False
    truth = torch.isin(tokens, torch.tensor(sorted(names), device=tokens.device))[inside].cpu().numpy()
    if min(truth.sum(), (~truth).sum()) < LEAST:
        raise ConfigError("the tokens on which it fires in one half of its examples are too rare in the other half")
    acts = site.activations(reading.x, [case.feature, *case.alike])[inside].cpu().numpy()
    rate = float((acts[:, 0] > 0).mean())
    random = np.zeros((len(truth), 0))
    if directions.shape[1] == reading.x.shape[-1]:
        random = (reading.x[inside] @ directions[site.null_slices(draws)[0]].T.to(reading.x)).cpu().numpy()
        random = np.maximum(random - np.quantile(random, 1 - rate, axis=0), 0)
    scores = [np.array([auroc(column, truth) for column in activations.T]) for activations in (acts, random)]
    shown = ", ".join(repr(token) for token in token_strings(site.model, sorted(names))[:6])
    return measure_of(
        "activation", float(scores[0][0]), "AUROC", int(truth.sum()), (scores[1], scores[0][1:]),
        f"held-out tokens {shown}",
    )  # fmt: skip


def _ablate(
    site: DictionarySite,
    case: FeatureCase,
    config: ProofConfig,
    words: WordHalves,
    arms: Arms,
    bar: _Bar,
) -> ProofPart:
    """Fall of the held-back words at and after the peaks when the feature is ablated, and rise of the loss there."""
    passages = case.strongest(config.examples)
    if not passages:
        raise ConfigError("no token follows the peak of any stored example")
    changes, peaks, texts = [], [], []
    for passage in passages:  # one by one: their lengths differ
        at = passage.peak + site.first
        change = -ablation_changes(site, [passage], case.feature, arms, bar.add, words.ids, start=at)
        changes.append(change[:, 0, at : at + config.after].mean(1))
        peaks.append(change[:, 0, at, 0])
        texts.append(token_strings(site.model, list(passage.token_ids)))
    changed = torch.stack(changes, 1).double().numpy()  # [1 + nulls, examples, 1 + ids]
    losses = {"ablate loss": changed[..., 0], "ablate loss at peak": torch.stack(peaks, 1).double().numpy()}
    examples = tuple(
        AblatedText(passage.document, text, passage.peak, *change)
        for passage, text, *change in zip(passages, texts, *(rows[0].tolist() for rows in losses.values()), strict=True)
    )
    fallen = [_words_measure("ablate", changed[..., 1:], words, config.draws)]
    units = ("nats per token", "nats")
    fallen += [
        measure_of(name, t_interval(rows[0]), unit, len(passages), _nulls(rows.mean(1), config.draws))
        for (name, rows), unit in zip(losses.items(), units, strict=True)
    ]
    return ProofPart(measures=tuple(fallen), examples=examples)


def _words_measure(name: str, changes: np.ndarray, words: WordHalves, draws: int, details: str = "") -> ProofMeasure:
    """Return a measure of the held-back words, from `changes [1 + nulls, prompts or examples, ids]` in nats."""
    change = changes[0][:, words.halves[0][1]].mean(1)
    return measure_of(name, t_interval(change), "nats", len(change), _nulls(words.means(changes, 1), draws), details)


def ablation_changes(
    site: DictionarySite,
    passages: Sequence[Passage],
    feature: int,
    arms: Arms,
    done: Callable[[int], None] | None = None,
    ids: Sequence[int] = (),
    *,
    start: int = 0,
) -> Tensor:
    """Return changes of log-probability `[k, n, pos - 1, 1 + ids]` when activation times each direction is subtracted.

    They are those of the token that follows, then of the tokens `ids`, as predicted at each position. A change is 0
    before the feature fires, and beyond the end of a passage; those before the position `start` are not read and are 0.
    """
    tokens, lengths, _ = with_bos(site.model, passages)
    reading = site.read(tokens)
    activation = site.activations(reading.x, [feature])[..., 0]
    changes = torch.zeros(len(arms), len(tokens), tokens.shape[1] - 1, 1 + len(ids))
    fires = activation.any(0).nonzero()[:, 0].tolist()
    if not fires or (first := max(fires[0], start)) >= tokens.shape[1] - 1:
        return changes
    following = tokens[None, :, first + 1 :, None]

    def log_p(logits: Tensor) -> Tensor:
        logits = logits.float()
        wanted = logits.gather(-1, following.expand(len(logits), -1, -1, 1))
        return torch.cat([wanted, logits[..., list(ids)]], -1) - logits.logsumexp(-1, keepdim=True)

    removed = replace(reading.prefix, sizes=reading.prefix.sizes * -activation)
    log_ps = read_arms(site.model, removed, arms, log_p, at=positions_from(tokens, first)[:, :-1], done=done)
    changes[:, :, first:] = log_ps[1:] - log_ps[:1]
    return changes * (torch.arange(1, tokens.shape[1]) < lengths.cpu()[:, None])[..., None]


def _ablate_other(site: DictionarySite, case: FeatureCase, config: ProofConfig, arms: Arms, bar: _Bar) -> ProofMeasure:
    """Change of loss per token of other text; passages on which the feature does not fire do not change at all."""
    if len(case.other) < 2:
        raise ConfigError("the tables hold too little other text")
    random, alike = _nulls(np.arange(len(arms)), config.draws)
    few = [0, *random[:PER_PART].tolist(), *alike[:PER_PART].tolist()]
    tokens, lengths, _ = with_bos(site.model, case.other)
    fires = site.activations(site.read(tokens).x, [case.feature])[..., 0]
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    counts = (fires > 0) & inside
    losses = torch.zeros(len(few), len(case.other), dtype=torch.float64)
    for at in counts.any(1).nonzero()[:, 0].tolist():
        change = ablation_changes(site, [case.other[at]], case.feature, arms.part(few), bar.add)
        losses[:, at] = -change.double().sum((1, 2, 3)) / (int(lengths[at]) - 1)
    means = losses.mean(1).numpy()
    return measure_of(
        "ablate loss, other text", t_interval(losses[0].numpy()), "nats per token", len(case.other),
        _nulls(means, min(PER_PART, config.draws)), f"it fires on {int(counts.sum())} of {int(inside.sum())} tokens",
    )  # fmt: skip


def _steer(
    site: DictionarySite,
    case: FeatureCase,
    config: ProofConfig,
    prompts: list[Tensor],
    words: WordHalves,
    arms: Arms,
    bar: _Bar,
) -> ProofPart:
    """Rise of the held-back words on held-out prompts, and the shift of the next token.

    Each direction, null or not, first chooses its strength by the other half of its words on the first prompts.
    """
    tries = [strength * case.max_activation for strength in ([config.strength] if config.strength else STRENGTHS)]
    gains = [
        words.means(next_token_changes(site, prompts[:CHOOSING], arms.times(amount), words.ids, bar.add)[0], 0)
        for amount in tries
    ]
    strengths = np.array(tries)[np.argmax(gains, 0)]
    chosen = arms.times(torch.from_numpy(strengths))
    moved, shift = next_token_changes(site, prompts[CHOOSING:], chosen, words.ids, bar.add)
    measures = (
        _words_measure("steer", moved, words, config.draws, ", ".join(words.held_back(site.model))),
        measure_of("steer shift", t_interval(shift[0]), "nats of KL divergence", shift.shape[1],
                   _nulls(shift.mean(1), config.draws)),
    )  # fmt: skip
    return ProofPart(measures=measures, strength=float(strengths[0]))


def next_token_changes(
    site: DictionarySite,
    prompts: Sequence[Tensor],
    arms: Arms,
    ids: Sequence[int],
    done: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Steer each prompt along each direction, and return two changes of the next-token distribution.

    They are changes of log-probability `[k, prompts, ids]` in nats, and `KL(unchanged || steered)`, `[k, prompts]`.
    """
    moved, shift = [], []
    for tokens in prompts:
        clean: list[Tensor] = []

        def measure(logits: Tensor, clean: list[Tensor] = clean) -> Tensor:
            last = logits[:, 0, -1].float()
            total = last.logsumexp(-1, keepdim=True)
            if not clean:
                clean.append((last[0] - total[0]).exp())
            return torch.cat([last[:, list(ids)], (last @ clean[0])[:, None]], dim=1) - total

        prefix, _ = prefix_of(site.model, tokens, arms)
        changes = read_arms(site.model, prefix, arms, measure, at=positions_from(tokens, -1), done=done).double()
        moved.append(changes[1:, :-1] - changes[0, :-1])
        shift.append(changes[0, -1] - changes[1:, -1])
    return torch.stack(moved, 1).numpy(), torch.stack(shift, 1).numpy()


def _lists(site: DictionarySite, directions: Tensor, draws: int, bar: _Bar) -> ProofMeasure:
    """Largest separation of a list of words along a direction, in standard deviations over random directions."""
    from interp.geometry.separation import separations

    lists = read_lists(site, lambda: bar.add(LIST_TOKENS // 7))
    separated = separations(lists, site.stream, directions.double().numpy())  # [lists, k]
    scores = np.abs(separated / separated[:, site.null_slices(draws)[0]].std(1, keepdims=True))
    best = list(lists)[int(scores[:, 0].argmax())]
    return measure_of("lists", float(scores[:, 0].max()), "standard deviations", len(lists),
                      _nulls(scores.max(0), draws), best)  # fmt: skip


def read_lists(site: DictionarySite, done: Callable[[], None] | None = None) -> "dict[str, WordActivations]":
    """Return the activations of every list of words where a direction of the site lies; `done` is called after each."""
    from interp.geometry.words import find_concepts, read_words

    lists = {}
    for concept in find_concepts([]):
        lists[concept.name] = read_words(site.model, concept, hook_points=[site.stream])
        if done:
            done()
    return lists


def _continue(site: DictionarySite, tokens: Tensor, arms: Arms, n: int) -> SteeredContinuations:
    """Continue a prompt, unchanged and steered along three directions, by the most likely token each time."""
    prompt = token_strings(site.model, tokens[0, site.first :])
    return SteeredContinuations("".join(prompt), *continuations(site, tokens, arms, n))
