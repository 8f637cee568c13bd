"""Measurements behind the proof of a feature: effects of ablating and steering it, and those of both nulls.

`prove` makes the measures of `saes.features.proof`, part by part. A null direction is added in the same
amounts as the feature's, scaled to its norm. `DictionarySite.nulls` (`saes.features.intervene`) makes these directions;
`read_case` (`saes.features.proof`) chooses the features of like density. `saes.features.answers` gives single
answers instead.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import as_json, from_json, open_artefact, read_json, write_json
from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError, WorkbenchError
from interp.interventions.site import DictionarySite, continuations, effects_of
from interp.models.adapter import bos_token_id, to_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point
from interp.progress import Progress
from interp.statistics import auroc, crossed_interval, t_interval
from saes.features.proof import (
    ROLES,
    AblatedText,
    Continuations,
    FeatureCase,
    Passage,
    Proof,
    ProofConfig,
    ProofMeasure,
    ProofPart,
    ProofSettings,
    measure_of,
    read_case,
)
from saes.features.schema import Features

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
"""Neutral prompts: the first three choose which tokens a direction raises, the others judge."""
CHOOSING = 3
SHOWN_PROMPTS = 3
OTHER_DRAWS = 9
"""Directions of each null that are ablated on other text."""
LEAST = 3
"""Fewest tokens on either side of an AUROC."""
RESAMPLES = 1000
LIST_TOKENS = 6000
"""Tokens of all lists of words in their sentences, about."""


def with_bos(model: HookedModel, passages: Sequence[Passage]) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens `[n, pos]` with BOS first where the model has one, lengths and peaks `[n]`.

    Shorter passages are padded at the end, which causal attention does not see.
    """
    bos = bos_token_id(model)
    start = [] if bos is None else [bos]
    ids = [start + list(each.token_ids) for each in passages]
    width = max(map(len, ids))
    device = model.cfg.device
    tokens = torch.tensor([row + [row[-1]] * (width - len(row)) for row in ids], device=device)
    peaks = torch.tensor([each.peak + len(start) for each in passages], device=device)
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
        """Count the whole stage, also where it was done earlier."""
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
    prompts: Sequence[str] = PROMPTS,
    lists: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    remembered: Callable[[str, Callable[[], ProofPart]], ProofPart] = _made_now,
) -> Proof:
    """Run the standard proof of one feature, with the texts and controls of the features artefact in `features`.

    `prompts`: neutral prompts, more than three; a model without a tokenizer takes passages of other text. Cost: about
    `2 * draws` passes over the examples and over the prompts, from the hook point on. `remembered(name, make)` returns
    a part that was made earlier, or makes it. Raises `UsageError` for a feature that is not there or never fires,
    `MismatchError` for tables of another dictionary, `ConfigError` for a crosscoder.
    """
    config = config or ProofConfig()
    site = DictionarySite.of(model, dictionary)
    _check(dictionary, features)
    case = read_case(features, feature, config, seed=seed)
    directions = site.nulls(feature, case.alike, config.draws, seed)
    asked = _prompts(model, prompts, case)
    cost = _cost(case, config, asked, len(directions), lists)
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
        shown = directions[[0, random[0], alike[0] if len(alike) else random[0]]]
        told = [_continue(site, tokens, strength, shown, config.new_tokens) for tokens in asked[-SHOWN_PROMPTS:]]
        return ProofPart(continuations=tuple(told))

    strength = config.strength or case.max_activation
    attempt("activation", lambda: ProofPart(measures=(_selectivity(site, case, directions, config.draws),)))
    attempt("ablate", lambda: _ablate(site, case, config, directions, todo))
    attempt("ablate other text", lambda: ProofPart(measures=(_ablate_other(site, case, config, directions, todo),)))
    attempt(
        "steer",
        lambda: ProofPart(measures=tuple(_steer(site, case, asked, strength, directions, config.draws, seed, todo))),
    )
    if lists:
        attempt("lists", lambda: ProofPart(measures=(_lists(site, directions, config.draws, todo),)))
    attempt("continuations", tell)
    about = ProofSettings(**vars(config), features=case.features, feature=feature, model=model_name or "the model")
    return Proof(
        settings=about, label=case.label, hook_point=site.writes, strength=strength, parts=parts, alike=case.alike
    )


def _check(dictionary: Dictionary, folder: Path) -> None:
    described = open_artefact(Features, folder)
    n, at = described.n_features, canonical_hook_point(described.settings.hook_point)
    own = canonical_hook_point(dictionary.hook_point)
    if n != dictionary.d_sae or at != own:
        raise MismatchError(
            f"{folder.name!r} describes {n} features at {at}, the dictionary has {dictionary.d_sae} at {own}; "
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
    widths = sum(len(each.token_ids) + 1 for each in case.strongest(config.examples))
    steered = sum(each.shape[1] for each in prompts)
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
    names = {each.token_ids[each.peak] for each in choosing}
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
    scores = [np.array([auroc(column, truth) for column in each.T]) for each in (acts, random)]
    shown = ", ".join(repr(each) for each in token_strings(site.model, sorted(names))[:6])
    return measure_of(
        "activation", float(scores[0][0]), "AUROC", int(truth.sum()), (scores[1], scores[0][1:]),
        f"held-out tokens {shown}",
    )  # fmt: skip


def _ablate(site: DictionarySite, case: FeatureCase, config: ProofConfig, directions: Tensor, bar: _Bar) -> ProofPart:
    """Change of loss at and after the peaks, and at the peaks alone, when the feature is ablated."""
    passages = case.strongest(config.examples)
    if not passages:
        raise ConfigError("no token follows the peak of any stored example")
    changes, texts = [], []
    for each in passages:  # one by one: their lengths differ
        change = ablation_changes(site, [each], case.feature, directions, bar.add)
        at = each.peak + site.first
        changes.append(torch.stack([change[:, 0, at : at + config.after].mean(1), change[:, 0, at]]))
        texts.append(token_strings(site.model, list(each.token_ids)))
    found = torch.stack(changes, 2).double().numpy()  # [2, 1 + nulls, examples]
    examples = tuple(
        AblatedText(each.document, text, each.peak, change, at_peak)
        for each, text, change, at_peak in zip(passages, texts, *found[:, 0].tolist(), strict=True)
    )
    names = {"ablate": "nats per token", "ablate at peak": "nats"}
    measures = tuple(
        measure_of(name, t_interval(rows[0]), unit, len(passages), _nulls(rows.mean(1), config.draws))
        for (name, unit), rows in zip(names.items(), found, strict=True)
    )
    return ProofPart(measures=measures, examples=examples)


def ablation_changes(
    site: DictionarySite,
    passages: Sequence[Passage],
    feature: int,
    directions: Tensor,
    done: Callable[[int], None] | None = None,
) -> Tensor:
    """Return changes of loss `[k, n, pos - 1]` when a feature's activation times each direction is subtracted.

    Entry `t` is the change for token `t + 1`. It is 0 before the feature fires, and beyond the end of a passage.
    """
    tokens, lengths, _ = with_bos(site.model, passages)
    reading = site.read(tokens)
    amounts = -site.activations(reading.x, [feature])[..., 0]
    changes = torch.zeros(len(directions), len(tokens), tokens.shape[1] - 1)
    fires = amounts.any(0).nonzero()[:, 0].tolist()
    if not fires or (first := fires[0]) == tokens.shape[1] - 1:
        return changes
    following = tokens[None, :, first + 1 :, None]

    def losses(logits: Tensor) -> Tensor:
        logits = logits[:, :, :-1].float()
        return logits.logsumexp(-1) - logits.gather(-1, following.expand(len(logits), -1, -1, 1))[..., 0]

    both = torch.cat([torch.zeros_like(directions[:1]), directions])
    found = effects_of(site, reading, amounts, both, losses, done, first=first)
    changes[:, :, first:] = found[1:] - found[:1]
    return changes * (torch.arange(1, tokens.shape[1]) < lengths.cpu()[:, None])


def _ablate_other(
    site: DictionarySite, case: FeatureCase, config: ProofConfig, directions: Tensor, bar: _Bar
) -> ProofMeasure:
    """Change of loss per token of other text; passages on which the feature does not fire do not change at all."""
    if len(case.other) < 2:
        raise ConfigError("the tables hold too little other text")
    random, alike = _nulls(np.arange(len(directions)), config.draws)
    few = [0, *random[:OTHER_DRAWS].tolist(), *alike[:OTHER_DRAWS].tolist()]
    tokens, lengths, _ = with_bos(site.model, case.other)
    fires = site.activations(site.read(tokens).x, [case.feature])[..., 0]
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    counts = (fires > 0) & inside
    found = torch.zeros(len(few), len(case.other), dtype=torch.float64)
    for at in counts.any(1).nonzero()[:, 0].tolist():
        change = ablation_changes(site, [case.other[at]], case.feature, directions[few], bar.add)
        found[:, at] = change.double().sum((1, 2)) / (int(lengths[at]) - 1)
    means = found.mean(1).numpy()
    return measure_of(
        "ablate other text", t_interval(found[0].numpy()), "nats per token", len(case.other),
        _nulls(means, min(OTHER_DRAWS, config.draws)), f"it fires on {int(counts.sum())} of {int(inside.sum())} tokens",
    )  # fmt: skip


def _steer(
    site: DictionarySite,
    case: FeatureCase,
    prompts: list[Tensor],
    strength: float,
    directions: Tensor,
    draws: int,
    seed: int,
    bar: _Bar,
) -> list[ProofMeasure]:
    """Change of the log-probability of tokens of held-out examples on held-out prompts, and the next-token shift.

    Each direction, null or not, first chooses whether it raises the tokens on which the feature fires or those that
    follow: on the first prompts, by one half of the examples. The other prompts and the other half judge.
    """
    halves = case.halves()
    targets = {
        (role, half): [each.token_ids[each.peak + (role == "follow")] for each in passages
                       if each.peak + (role == "follow") < len(each.token_ids)]
        for role in ROLES
        for half, passages in enumerate(halves)
    }  # fmt: skip
    roles = [role for role in ROLES if targets[role, 0] and targets[role, 1]]
    if not roles:
        raise ConfigError("steering needs at least two examples of the feature, one to choose tokens and one to judge")
    ids = sorted({token for each in targets.values() for token in each})
    where = {token: at for at, token in enumerate(ids)}
    moved, shift = next_token_changes(site, prompts, strength, directions, ids, bar.add)

    def gains(role: str, half: int, rows: slice) -> np.ndarray:  # [k, prompts, examples]
        return moved[:, rows][:, :, [where[token] for token in targets[role, half]]]

    choosing, judging = slice(0, CHOOSING), slice(CHOOSING, None)
    chosen = np.stack([gains(role, 0, choosing).mean((1, 2)) for role in roles]).argmax(0)
    judged = [gains(role, 1, judging) for role in roles]
    values = np.array([judged[role][at].mean() for at, role in enumerate(chosen)])
    best = judged[chosen[0]][0]  # [prompts, examples]
    interval = crossed_interval(best, np.random.default_rng(seed), n_resamples=RESAMPLES)
    role = roles[chosen[0]]
    common = sorted(set(targets[role, 1]), key=targets[role, 1].count, reverse=True)
    text = ", ".join(repr(each) for each in token_strings(site.model, common)[:5])
    about = f"{'tokens on which it fires' if role == 'fire' else 'tokens that follow its peaks'} ({text})"
    return [
        measure_of("steer", interval, "nats", best.size, _nulls(values, draws), about),
        measure_of("steer shift", t_interval(shift[0]), "nats of KL divergence", len(prompts),
                   _nulls(shift.mean(1), draws)),
    ]  # fmt: skip


def next_token_changes(
    site: DictionarySite,
    prompts: Sequence[Tensor],
    strength: float,
    directions: Tensor,
    ids: Sequence[int],
    done: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Steer each prompt along each direction, and return two changes of the next-token distribution.

    They are changes of log-probability `[k, prompts, ids]` in nats, and `KL(unchanged || steered)`, `[k, prompts]`.
    """
    both = torch.cat([torch.zeros_like(directions[:1]), directions])
    moved, shift = [], []
    for tokens in prompts:
        reading = site.read(tokens)
        clean: list[Tensor] = []

        def measure(logits: Tensor, clean: list[Tensor] = clean) -> Tensor:
            log_p = logits[:, 0, -1].float().log_softmax(-1)
            if not clean:
                clean.append(log_p[0])
            kl = (clean[0].exp() * (clean[0] - log_p)).sum(-1)
            return torch.cat([log_p[:, list(ids)], kl[:, None]], dim=1)

        amounts = torch.full(tokens.shape, strength, device=tokens.device)
        found = effects_of(site, reading, amounts, both, measure, done, first=-1).double()
        moved.append(found[1:, :-1] - found[0, :-1])
        shift.append(found[1:, -1])
    return torch.stack(moved, 1).numpy(), torch.stack(shift, 1).numpy()


def _lists(site: DictionarySite, directions: Tensor, draws: int, bar: _Bar) -> ProofMeasure:
    """Largest separation of a list of words along a direction, in standard deviations over random directions."""
    from interp.geometry.separation import separations

    lists = read_lists(site, lambda: bar.add(LIST_TOKENS // 7))
    found = separations(lists, site.stream, directions.double().numpy())  # [lists, k]
    scores = np.abs(found / found[:, site.null_slices(draws)[0]].std(1, keepdims=True))
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


def _continue(site: DictionarySite, tokens: Tensor, strength: float, directions: Tensor, n: int) -> Continuations:
    """Continue a prompt, unchanged and steered along three directions, by the most likely token each time."""
    text = continuations(site, tokens, strength, directions, n)
    own = token_strings(site.model, tokens[0, site.first :])
    return Continuations("".join(own), *text)
