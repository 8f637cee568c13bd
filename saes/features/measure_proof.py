"""The proof of a feature, measured: what it reads, what it says, and the same for the directions of its nulls.

`prove` is the algorithm: words, directions, then the claims of `saes.features.proof`, one part each. In ablation a null
direction is subtracted in the same amounts as the feature's; in steering, each has the strength that it chose.
`saes.acts.features` gives single answers instead.
"""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import as_json, from_json, open_artefact, read_json, write_json
from interp.artifacts.artefact import is_stored
from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError, WorkbenchError
from interp.geometry.separation import separations
from interp.geometry.words import WordActivations, WordList, find_concepts, read_words
from interp.interventions.arms import Arms, random_directions
from interp.interventions.site import DictionarySite, continuations
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import lens_point
from interp.lenses.vocabulary import vocabulary_of
from interp.models.adapter import bos_token_id, check_token_ids, to_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, tokenizer_of
from interp.names import canonical_hook_point
from interp.nulls import DRAWS, can_hold
from interp.progress import Progress
from interp.statistics import auroc, auroc_interval, t_interval
from saes.features.case import (
    FeatureCase,
    Passage,
    ProofConfig,
    ProofWords,
    passages_with,
    random_passages,
    read_case,
)
from saes.features.meaning import KEPT
from saes.features.passes import ablated_log_p, next_token_changes, with_bos, words_read
from saes.features.proof import (
    OWN_WORDS,
    TESTS,
    NearDirections,
    Proof,
    ProofMeasure,
    ProofPart,
    ProofSettings,
    SteeredContinuations,
    measure_of,
)
from saes.features.schema import Features
from saes.features.sources import writes_to_residual

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
"""Neutral prompts. The first three choose the strength, the others judge."""
CHOOSING = 3
STRENGTHS = (0.5, 1.0, 2.0)
"""Strengths to choose from, in units of the largest activation."""
SHOWN_PROMPTS = 3
STAGES = (DRAWS["standard"], 2 * DRAWS["standard"])
"""Draws of each null after which a test that can no longer hold is given up."""
LEAST = 3
"""Fewest tokens on either side of an AUROC."""
LEAST_SHARE = 0.5
"""Share of the tested words that a list must hold to be tested."""
LIST_TOKENS = 6000
"""Approximate number of tokens of all lists of words in their sentences."""
COSINES, NEAR_DRAWS = (0.9, 0.7), DRAWS["quick"]
"""Cosines of the directions near the feature's that are ablated instead of it, and how many at each."""
TEXT, BEFORE = 400, 9
"""Examples in which untrained latents read words of their own, and the tokens before the peak of each. In half of them
they read too few: an untrained dictionary passes twice as often as it may (docs/log.md)."""


Remembered = Callable[[str, Callable[[], ProofPart]], ProofPart]
"""Returns the part of that name from an earlier run, or makes it."""


@torch.no_grad()
def prove(
    model: HookedModel,
    dictionary: Dictionary,
    features: Path,
    feature: int,
    config: ProofConfig | None = None,
    *,
    lens: JacobianLens | None = None,
    prompts: Sequence[str] = PROMPTS,
    words: Sequence[int] = (),
    tests: Collection[str] = TESTS,
    seed: int = 0,
    progress: Progress | None = None,
    remembered: Remembered = lambda _, make: make(),
) -> Proof:
    """Run the standard proof of one feature.

    Cost: about `2 * draws` passes over the examples and twice over the prompts, from the hook point on.

    Args:
        model, dictionary: a model, and its dictionary that has the feature.
        features, feature: folder of the features artefact, with its texts and controls, and the index of the feature.
        config: sizes of the tests (default: `ProofConfig()`).
        lens: the Jacobian lens through which directions say words; None for their direct effect.
        prompts: neutral prompts, more than three; a model without a tokenizer takes passages of other text.
        words: tokens that somebody claims the feature is about. Default: those that it reads.
        tests: the claims to test; the others, and the continuations with *steer*, are left out.
        remembered: `remembered(name, make)` returns a part of an interrupted run, or makes it.
    Returns: a verdict on each claim, with its null and p-value.
    Raises:
        UsageError: a feature that does not exist or never fires, or words that are no tokens of the model.
        MismatchError: tables of another dictionary, or a lens of other weights.
        ConfigError: a crosscoder.

    >>> _ = build_features(Described(dictionary=sae, name="sae", folder=folder / "tables"), recording, model)
    >>> prove(model, sae, folder / "tables", 3, ProofConfig(draws=19, others=19), tests=("fires",)).headline()
    'Feature 3: no effect beyond the null: it fires on “-o”, “-x”, “-k” with AUROC 0.52'
    """
    config = config or ProofConfig()
    _check(model, dictionary, features, lens, words)
    site = DictionarySite.of(model, dictionary)
    case = read_case(features, feature, config, seed=seed)

    # The words that are claimed, or that it reads in one half of its examples; all directions are measured on them.
    tested = ProofWords.of(words, vocabulary_of(model), "claim") if words else proof_words(site, case, lens)
    arms = site.arms(feature, case.alike, config.draws, seed)
    trial = Trial(site, features, case, config, tested, arms, _prompts(model, prompts, case), lens, _Bar(progress))

    # The claims, on other documents and prompts: its input side, two effects, its output side (Arad et al. 2025).
    parts = _Parts(trial, remembered)
    claims = {
        "fires": _fires_on_the_words,
        "steer": _steering_raises_the_words,
        "ablate": _ablation_lowers_the_words,
        "joined": _direction_says_the_words,
        "lists": _direction_separates_the_list,
    }
    for name, measure in claims.items():
        if name in tests and (name != "lists" or trial.word_list is not None):
            parts.make(name, measure)

    # What is shown beside them.
    strength = (config.strength or 1.0) * case.max_activation
    if "steer" in parts:
        strength = parts["steer"].strength or strength
        parts.make("continuations", lambda trial: _continuations(trial, strength))
    return Proof(
        settings=ProofSettings(**vars(config), features=case.features, feature=feature, model=model_spec(model)),
        label=case.label,
        words=tested,
        hook_point=site.writes,
        strength=strength,
        lens="" if lens is None else lens.key if is_stored(lens) else lens.settings.source,
        parts=dict(parts),
        alike=case.alike,
    )


class _Bar:
    """Counter of tokens that reports to the progress bar."""

    def __init__(self, progress: Progress | None):
        self._progress, self._n, self._start, self.total, self.stage = progress, 0, 0, 0, ""

    def begin(self, stage: str) -> None:
        self._start, self.stage = self._n, stage

    def add(self, tokens: int) -> None:
        self._n += tokens
        if self._progress:
            self._progress(min(self._n, self.total), self.total, {"stage": self.stage})

    def end(self, cost: int) -> None:
        """Count the whole stage, even if it was done earlier."""
        self.add(self._start + cost - self._n)


@dataclass(frozen=True)
class Trial:
    """All that the parts of a proof share."""

    site: DictionarySite
    features: Path
    """folder of the feature tables"""
    case: FeatureCase
    config: ProofConfig
    words: ProofWords
    arms: Arms
    """the feature's direction, then those of both nulls"""
    prompts: list[Tensor]
    lens: JacobianLens | None
    bar: _Bar

    @property
    def examples(self) -> list[Passage]:
        """Examples on which it is ablated, from documents that chose no word."""
        return self.case.strongest(self.case.judging(), self.config.examples)

    @property
    def word_list(self) -> WordList | None:
        """List of words that holds at least half of the tested tokens."""
        texts = vocabulary_of(self.site.model).texts
        words = [texts[token].strip().casefold() for token in self.words.ids]

        def share(concept: WordList) -> float:
            return float(np.isin(words, [word.casefold() for word in concept.words]).mean())

        best = max(find_concepts([]), key=share)
        return best if share(best) >= LEAST_SHARE else None

    def nulls(self, values: np.ndarray, draws: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Split `[1 + draws + n]` into both nulls; `draws`: random directions where not all were measured."""
        random, alike = self.site.null_slices(self.config.draws if draws is None else draws)
        return values[random], values[alike]

    def until_decided(self, measure: Callable[[Arms, int], Sequence[np.ndarray]]) -> tuple[list[np.ndarray], int]:
        """Measure more and more null directions, until they are all measured or the test can no longer hold.

        `measure` maps some arms, and the number of random directions among them, to arrays `[arms, ...]`; the mean of a
        row of the first is what is tested. Returns them for all arms that were measured, and the number of random ones.
        """
        random, alike = self.nulls(np.arange(len(self.arms)))
        measured, rows, end, stages = [], list[np.ndarray](), 0, [n for n in STAGES if n < self.config.draws]
        for start, end in pairwise([0, *stages, self.config.draws]):
            chosen = np.concatenate([[0], random[start:end], alike[start:end]])
            measured.append((chosen, *measure(self.arms.part(chosen), end - start)))
            arms, *rows = (np.concatenate(parts) for parts in zip(*measured, strict=True))
            order = np.unique(arms, return_index=True)[1]  # the feature is measured in every stage
            rows = [row[order] for row in rows]
            value, *nulls = rows[0][0].mean(), *self.nulls(rows[0].reshape(len(order), -1).mean(1), end)
            if not all(can_hold(value, null, self.config.draws) for null in nulls):
                break
        return rows, end

    def costs(self) -> dict[str, int]:
        """Return the tokens that each part will run, for the progress bar."""
        widths = sum(len(passage.token_ids) + 1 for passage in self.examples)
        tries = 1 if self.config.strength else len(STRENGTHS)
        steered = sum(tokens.shape[1] * (tries if at < CHOOSING else 1) for at, tokens in enumerate(self.prompts))
        k = len(self.arms) + 1
        lists, joined = LIST_TOKENS * (self.word_list is not None), TEXT * (BEFORE + 2)
        near = len(COSINES) * (1 + NEAR_DRAWS) + 1
        return {"steer": k * steered, "ablate": (k + near) * widths, "joined": joined, "lists": lists}

    def mean_of(self, name: str, changes: np.ndarray, unit: str, draws: int) -> ProofMeasure:
        """Return the mean of `changes [1 + nulls, prompts or examples]`, with its interval and both nulls."""
        return measure_of(name, t_interval(changes[0]), unit, changes.shape[1], self.nulls(changes.mean(1), draws))


class _Parts(dict[str, ProofPart]):
    """The parts of a proof, made one after another; one that cannot be made says why."""

    def __init__(self, trial: Trial, remembered: Remembered):
        super().__init__()
        self._trial, self._remembered, self._costs = trial, remembered, trial.costs()
        trial.bar.total = sum(self._costs.values())

    def make(self, name: str, measure: Callable[[Trial], ProofPart]) -> None:
        def made() -> ProofPart:
            try:
                return measure(self._trial)
            except WorkbenchError as error:
                return ProofPart(missing=str(error))

        self._trial.bar.begin(name)
        self[name] = self._remembered(name, made)
        self._trial.bar.end(self._costs.get(name, 0))


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


def _check(
    model: HookedModel, dictionary: Dictionary, folder: Path, lens: JacobianLens | None, words: Sequence[int]
) -> None:
    if lens is not None:
        lens.check_model(model)
    if words:
        check_token_ids(model, torch.tensor(words))
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
    if len(prompts) <= CHOOSING:
        raise ConfigError(f"more than {CHOOSING} prompts are needed: these choose the strength, the others judge")
    if tokenizer_of(model, required=False) is not None:
        return [to_tokens(model, text) for text in prompts]
    if len(case.other) <= CHOOSING:
        raise ConfigError("the model has no tokenizer, and there is too little other text to serve as prompts")
    tokens, lengths = with_bos(model, case.other[: len(prompts)])
    return [row[None, : min(int(length), 8)] for row, length in zip(tokens, lengths, strict=True)]


def proof_words(site: DictionarySite, case: FeatureCase, lens: JacobianLens | None) -> ProofWords:
    """Return the words that a feature reads; where it reads none that can be named, half of those that it says.

    Raises `ConfigError` where it says none either, as its direction is not in the residual stream.
    """
    vocabulary, bos = vocabulary_of(site.model), bos_token_id(site.model)
    words = case.words(vocabulary, () if bos is None else (bos,))
    if words is not None:
        return words
    lens_words = own_words(site, site.directions[[case.feature]].cpu(), lens)[0, : KEPT // 2]
    return ProofWords.of(lens_words.tolist(), vocabulary, "lens")


def own_words(site: DictionarySite, directions: Tensor, lens: JacobianLens | None) -> np.ndarray:
    """Return the `KEPT` tokens that each direction raises most through the lens, `[k, KEPT]`; directly without one."""
    return vocabulary_of(site.model).strongest(_carried(site, directions, lens), KEPT)


def _carried(site: DictionarySite, directions: Tensor, lens: JacobianLens | None) -> np.ndarray:
    """Return directions carried to the last layer. Raises `ConfigError` where they are not in the residual stream."""
    if not writes_to_residual(site.dictionary):
        raise ConfigError(f"directions at {site.writes} are not in the residual stream, so they name no words")
    point = lens_point(site.writes, site.model.cfg.n_layers)
    return (directions if lens is None else lens.carry(point, directions)).numpy()


def _fires_on_the_words(trial: Trial) -> ProofPart:
    """AUROC of activation for the words, in documents that did not choose them.

    They are its other examples, examples of any feature that contain these words, and other text.
    Random directions of the space that is read fire on as many tokens as the feature does: the ones with the largest
    projections.
    """
    if trial.words.chosen_by == "lens":
        raise ConfigError("it peaks on nothing that can be named")
    site, case = trial.site, trial.case
    choosing = {example.document for example in case.halves()[0]}
    seen = {passage.document for passage in (*case.judging(), *case.other)}
    containing = passages_with(
        trial.features, trial.words.ids, trial.config.others, but=choosing | seen, seed=case.feature
    )
    unrelated = [passage for passage in case.other if passage.document not in choosing]
    tokens, lengths = with_bos(site.model, (*case.judging(), *containing, *unrelated))
    reading = site.read(tokens)
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    inside[:, : site.first] = False
    truth = torch.isin(tokens, torch.tensor(trial.words.ids, device=tokens.device))[inside].cpu().numpy()
    if min(truth.sum(), (~truth).sum()) < LEAST:
        raise ConfigError("the words are too rare in other documents, or nearly all of their tokens")
    acts = site.activations(reading.x, [case.feature, *case.alike])[inside].cpu().numpy()
    drawn = random_directions(reading.x.shape[-1], trial.config.draws, case.feature, "reads")
    random = reading.x[inside].cpu().double().numpy() @ drawn.T
    random = np.maximum(random - np.quantile(random, 1 - float((acts[:, 0] > 0).mean()), axis=0), 0)
    scores = [np.array([auroc(column, truth) for column in activations.T]) for activations in (random, acts[:, 1:])]
    true, others = acts[truth, :1], acts[~truth, 0]
    interval = auroc_interval((true > others) + 0.5 * (true == others))
    return ProofPart(measures=(measure_of("fires", interval, "AUROC", int(truth.sum()), scores),))


def _steering_raises_the_words(trial: Trial) -> ProofPart:
    """Rise of the words on held-out prompts when the direction is added (activation addition, Turner et al. 2023).

    Each direction, null or not, first chooses its strength by these words on the first prompts. The words that each
    random direction says most are read from the same passes, at the strength that raises them most.
    """
    site, case, config, words = trial.site, trial.case, trial.config, list(trial.words.ids)
    tries = [strength * case.max_activation for strength in ([config.strength] if config.strength else STRENGTHS)]
    residual = writes_to_residual(site.dictionary)

    def steered(arms: Arms, draws: int) -> list[np.ndarray]:
        lens_words = own_words(site, arms.vectors[: 1 + draws], trial.lens) if residual else np.empty((1, 0), int)
        rows = [at if at < len(lens_words) else 0 for at in range(len(arms))]  # features alike: those of the feature
        ids, at = np.unique(lens_words[rows], return_inverse=True)
        choosing = np.stack([  # [tries, arms, words and ids]
            next_token_changes(site, trial.prompts[:CHOOSING], arms.times(amount), [*words, *ids], trial.bar.add)[0]
            .mean(1) for amount in tries
        ])  # fmt: skip
        strengths = np.array(tries)[choosing[..., : len(words)].mean(-1).argmax(0)]
        steering = arms.times(torch.from_numpy(strengths))
        raised, shift = next_token_changes(site, trial.prompts[CHOOSING:], steering, words, trial.bar.add)
        at = at.reshape(1, len(arms), -1) + len(words)
        spoken = np.take_along_axis(choosing, at, -1).sum(-1).max(0) / KEPT
        return [raised.mean(-1), shift, strengths, spoken]

    (raised, shift, strengths, spoken), draws = trial.until_decided(steered)
    measures = [trial.mean_of("steer", raised, "nats", draws),
                trial.mean_of("steer shift", shift, "nats of KL divergence", draws)]  # fmt: skip
    if residual:
        measures.append(measure_of(OWN_WORDS, spoken[0], "nats", CHOOSING, trial.nulls(spoken, draws)))
    return ProofPart(measures=tuple(measures), strength=float(strengths[0]))


def _ablation_lowers_the_words(trial: Trial) -> ProofPart:
    """Fall of the words in the rest of a passage when the feature is ablated there, and rise of the loss.

    The words are counted as the model expects them: the sum of their probabilities over the positions from the first
    firing on, and its fall in log units. Positions on which the feature is active do not count: it is active on the
    words themselves, and a word just read is seldom next, with the feature or without. As in Bricken et al. 2023,
    activation times direction is subtracted; null directions are subtracted in the same amounts. Where there is a fall,
    so are directions near the feature's.
    """
    site, case, words = trial.site, trial.case, list(trial.words.ids)

    def ablated(arms: Arms, _: int) -> list[np.ndarray]:
        falls, losses = [], []
        for passage in trial.examples:  # one by one: their lengths differ
            log_p, at = ablated_log_p(site, passage, case.feature, arms, words, trial.bar.add, silent=True)
            followed = at < len(passage.token_ids) + site.first - 1
            if followed.any():
                sums = log_p[..., 1].double().logsumexp(1)
                falls.append(sums[0] - sums[1:])
                losses.append((log_p[:1, followed, 0] - log_p[1:, followed, 0]).double().mean(1))
        if not falls:
            raise ConfigError("in no example of these documents is it silent after it was active")
        return [torch.stack(falls, 1).numpy(), torch.stack(losses, 1).numpy()]

    (fallen, losses), draws = trial.until_decided(ablated)
    measure, near = trial.mean_of("ablate", fallen, "nats", draws), tuple[NearDirections, ...]()
    if measure.above_chance and draws == trial.config.draws:  # else there is no effect to have a share of
        shares = np.split(ablated(near_directions(trial), 0)[0].mean(1) / measure.value, len(COSINES))
        near = tuple(
            NearDirections(cosine=cosine, part=float(part), shares=tuple(map(float, others)))
            for cosine, (part, *others) in zip(COSINES, shares, strict=True)
        )
    return ProofPart(measures=(measure, trial.mean_of("ablate loss", losses, "nats per token", draws)), near=near)


def near_directions(trial: Trial) -> Arms:
    """Return for each cosine the part along the feature's direction alone, and directions of its norm with that part.

    Their rest is the part of a random direction of the null that is orthogonal to the feature's.
    """
    own, norm = trial.arms.vectors[0], trial.arms.vectors[0].norm()
    random = trial.arms.vectors[trial.site.null_slices(trial.config.draws)[0]][:NEAR_DRAWS]
    rest = random - (random @ own)[:, None] * own / norm**2
    rest = rest * (norm / rest.norm(dim=1, keepdim=True))
    rests = torch.cat([torch.zeros_like(rest[:1]), rest])
    return trial.site.adding(torch.cat([cosine * own + (1 - cosine**2) ** 0.5 * rests for cosine in COSINES]))


def _direction_says_the_words(trial: Trial) -> ProofPart:
    """Mean logit that the direction adds to the words through the Jacobian lens (Gurnee et al. 2026).

    It is in standard deviations over the vocabulary (a z-score), so lengths do not matter, and no effect is measured.
    """
    if trial.words.chosen_by == "lens":
        raise ConfigError("its direction chose the words")
    vocabulary, carried = vocabulary_of(trial.site.model), _carried(trial.site, trial.arms.vectors, trial.lens)
    scale, ids = vocabulary.scale(carried), list(trial.words.ids)
    scores = rounded(vocabulary.logits(carried, ids).mean(1) / scale)

    # An untrained latent writes what it reads: each random direction on as many words that it reads most itself.
    random, _ = trial.site.null_slices(trial.config.draws)
    text = random_passages(trial.features, TEXT, BEFORE)
    untrained = [
        vocabulary.logits(written[None], words).mean() / size if words else -np.inf
        for written, size, words in zip(
            carried[random],
            scale[random],
            words_read(trial.site, text, trial.arms.vectors[random], len(trial.words.texts)),
            strict=False,
        )
    ]
    measure = measure_of("joined", scores[0], "standard deviations", len(ids), trial.nulls(scores),
                         untrained=rounded(np.array(untrained)))  # fmt: skip
    return ProofPart(measures=(measure,))


def rounded(scores: np.ndarray) -> np.ndarray:
    """Round float32 scores, whose last bits depend on where arrays lie in memory."""
    return scores.astype(np.float64).round(5)


def _direction_separates_the_list(trial: Trial) -> ProofPart:
    """Separation of the words' list along the direction, in standard deviations over random directions."""
    assert trial.word_list is not None
    site, name = trial.site, trial.word_list.name
    lists = read_lists(site, lambda: trial.bar.add(LIST_TOKENS // 7))
    along = separations(lists, site.stream, trial.arms.vectors.double().numpy())[list(lists).index(name)]
    scores = along / trial.nulls(along)[0].std()
    measure = measure_of("lists", scores[0], "standard deviations", 1, trial.nulls(scores), name)
    return ProofPart(measures=(measure,))


def _continuations(trial: Trial, strength: float) -> ProofPart:
    """Continue prompts, unchanged and steered along three directions, by the most likely token each time."""
    site, (random, alike) = trial.site, trial.nulls(np.arange(len(trial.arms)))
    shown = trial.arms.part([0, random[0], alike[0] if len(alike) else random[0]]).times(strength)
    continued = []
    for tokens in trial.prompts[-SHOWN_PROMPTS:]:
        prompt = "".join(token_strings(site.model, tokens[0, site.first :]))
        continued.append(SteeredContinuations(prompt, *continuations(site, tokens, shown, trial.config.new_tokens)))
    return ProofPart(continuations=tuple(continued))


def read_lists(site: DictionarySite, done: Callable[[], None] | None = None) -> dict[str, WordActivations]:
    """Return the activations of every list of words where a direction of the site lies; `done` is called after each."""
    lists = {}
    for concept in find_concepts([]):
        lists[concept.name] = read_words(site.model, concept, hook_points=[site.stream])
        if done:
            done()
    return lists
