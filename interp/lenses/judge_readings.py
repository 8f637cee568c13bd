"""Judge readings of activations: does a text about an activation say more of it than the prompt does?

Each kind of reading is scored by what it lets one predict, without another language model:

1. A text becomes the embeddings of its words in the model: the mean over all, the first, the last, the last but one,
   and the mean of the last four. No pass of the model is in it, so it knows words, not what was computed from them.
2. Ridge regression predicts the activation from that, fitted on other documents (five folds, several splits; its
   strength is chosen within the training documents). The score is the cosine of predicted and actual activation, each
   coordinate in units of its root mean square.
3. The same with the reading of another position of the same document (shuffled), with one text for all (empty: it
   predicts the mean activation), with the words of the prompt up to the position, and with the prompt and a reading
   together. Each is fitted anew, so no null is worse for having been fitted on something else.

A kind is shown as a reading at a hook point where its cosine is above shuffled and empty, and the prompt with it above
the prompt alone and above the prompt with a shuffled one. All four differences, paired by document, are at least 0.01,
with a lower end above 0, corrected for the number of rows (Bonferroni). The words of the prompt, copied, add nothing to
it. Not excluded is what a person or a model can guess from the prompt and this regression cannot (Li et al. 2025).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.artifacts import Draft, Table
from interp.artifacts.draft import RESUME
from interp.artifacts.files import read_json, write_json
from interp.errors import ConfigError
from interp.lenses.judged_readings import (
    JudgedReadings,
    ReadingExample,
    ReadingsConfig,
    ReadingScore,
    ReadingsSettings,
    patchscope_name,
)
from interp.lenses.lens import Lens
from interp.lenses.patchscope import patchscope
from interp.lenses.reading_positions import ReadPositions, shown_end
from interp.models.adapter import available_hook_points, final_norm_and_unembed, ordinary_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of, weight_hash
from interp.names import check_hook_points
from interp.nulls import ALPHA
from interp.progress import Progress
from interp.statistics import t_interval

Counted = Callable[[int], None]
Read = Callable[[str, Tensor, Counted], list[str]]
"""Hook point, activations `[n, d]`, and a function that counts those done -> texts."""
FOLDS = 5
STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e6)
"""Of the ridge, as multiples of the mean variance of a text; the last predicts the mean."""
PROMPT_MIXES = ((1.0, 1, 1, 1, 1), (1.0, 0, 4, 1, 1), (1.0, 0, 16, 1, 1), (4.0, 0, 1, 0, 1))
"""Weights of the parts of a prompt: mean over its words, first, last, last but one, mean of the last four. The best in
training documents is taken, so that a reading gains nothing by repeating the words that matter."""
WEIGHTS = (1.0, 0.3, 0.1)
"""Of a reading beside the prompt; the best in training documents is taken."""
LEAST = 0.01
"""Smallest difference of cosines that counts."""
N_EXAMPLES = 8


@dataclass(frozen=True)
class ReadingKind:
    """A kind of reading: how a text is made from an activation."""

    name: str
    read: Read
    hook_points: tuple[str, ...] = ()
    """Where it exists; empty for all."""
    of_residual: bool = False
    """True for a kind that reads the residual stream alone."""
    version: str = ""
    """What determines it besides the settings, such as the hash of a lens."""


def reading_kinds(
    model: HookedModel, config: ReadingsConfig, *, jacobian: Lens | None = None, explanations: list[str] | None = None
) -> list[ReadingKind]:
    """Return the kinds that a model offers by itself and through a Jacobian lens, and given explanations."""

    def patched(prompt: str, point: str, rows: Tensor, done: Counted) -> list[str]:
        return patchscope(model, rows, point, prompt, n_new=config.new_tokens, done=done)

    words = partial(_lens_words, model, config.n_words)
    kinds = [ReadingKind(patchscope_name(prompt), partial(patched, prompt)) for prompt in config.target_prompts]
    kinds.append(ReadingKind("logit lens", partial(words, None), of_residual=True))
    if jacobian is not None:
        version = jacobian.about.content_hash
        kinds.append(ReadingKind("Jacobian lens", partial(words, jacobian), of_residual=True, version=version))
    if explanations is not None:
        kinds.append(ReadingKind("explanations", lambda point, rows, done: explanations))
    return kinds


@torch.no_grad()
def _lens_words(model: HookedModel, k: int, lens: Lens | None, point: str, rows: Tensor, done: Counted) -> list[str]:
    """Return the `k` most probable next tokens of each activation as a text."""
    kept, texts = ordinary_tokens(model), []
    for batch in rows.split(64):
        batch = batch.to(model.cfg.device, model.cfg.dtype)
        carried = batch if lens is None else lens.translate(point, batch)
        top = kept[final_norm_and_unembed(model, carried)[:, kept].topk(k).indices.cpu()]
        texts += [" ".join(word.strip() for word in token_strings(model, ids)) for ids in top]
        done(len(texts))
    return texts


def judge_readings(
    model: HookedModel,
    positions: ReadPositions,
    kinds: Sequence[ReadingKind],
    hook_points: Sequence[str],
    config: ReadingsConfig | None = None,
    *,
    model_name: str = "the model",
    draft: Callable[[ReadingsSettings], Draft] | None = None,
    progress: Progress | None = None,
) -> JudgedReadings:
    """Make readings of activations by each kind, and score them beside their nulls.

    Args:
        model: its activations are read.
        positions: which activations.
        kinds: how they are read; `reading_kinds` has those of the model itself.
        hook_points: where, values with one vector for each token.
        config: what is drawn; the default has the settings of the command.
        model_name: the name in the result.
        draft: returns the work in progress of some settings; readings of a kind at a hook point are kept there.
        progress: called with (readings done, all, facts).
    Raises:
        UnknownNameError: a hook point that the model lacks.
        ConfigError: a kind that exists at other hook points alone, or a value that is not a vector for each token.
    """
    config = config or ReadingsConfig()
    hook_points = check_hook_points(list(hook_points), available_hook_points(model), model.cfg.n_layers)
    pairs = [
        (kind, point)
        for kind in kinds
        for point in hook_points
        if point in (kind.hook_points or hook_points) and ("hook_resid" in point or not kind.of_residual)
    ]
    if elsewhere := [kind for kind in kinds if kind.hook_points and kind not in [pair[0] for pair in pairs]]:
        kind = elsewhere[0]
        raise ConfigError(f"{kind.name} exist at {', '.join(kind.hook_points)} alone; name that hook point too")
    settings = ReadingsSettings(
        **{name: getattr(config, name) for name in ReadingsConfig.__dataclass_fields__}, model=model_name,
        weight_hash=weight_hash(model), source=positions.source, source_hash=positions.hash,
        hook_points=tuple(hook_points), kinds={kind.name: kind.version for kind, _ in pairs},
    )  # fmt: skip
    folder = None if draft is None else draft(settings).path / RESUME
    rows, n = positions.activations(model, hook_points), len(positions.text)
    judge = ReadingJudge(model, positions, config)
    table, examples = [], []
    for number, (kind, point) in enumerate(pairs):

        def counted(done: int, number: int = number, kind: ReadingKind = kind, point: str = point) -> None:
            if progress is not None:
                progress(number * n + done, len(pairs) * n, {"reads": f"{kind.name} at {point}"})

        file = None if folder is None else folder / f"{number}.json"
        if file is not None and file.exists():  # an interrupted run made them
            texts = read_json(file)["texts"]
        else:
            texts = kind.read(point, rows[point], counted)
            if file is not None:
                file.parent.mkdir(exist_ok=True)
                write_json(file, {"texts": texts})
        row, shown = judge.score(kind.name, point, texts, rows[point], n_rows=len(pairs))
        table.append(row)
        examples += shown
        counted(n)
    table, examples = Table.of(ReadingScore, table), Table.of(ReadingExample, examples)
    return JudgedReadings(settings=settings, documents=judge.n_documents, scores=table, examples=examples)


class ReadingJudge:
    """Scores readings of the same positions: the folds, the shuffled positions and the words of the prompts."""

    def __init__(self, model: HookedModel, positions: ReadPositions, config: ReadingsConfig):
        self.model, self.prompts = model, positions.prompts
        self.embeddings = model.W_E.detach().float().cpu()
        generator = torch.Generator().manual_seed(config.seed)
        self.documents = positions.text.unique(return_inverse=True)[1]
        self.n_documents = n = int(self.documents.max()) + 1
        self.folds = [torch.randperm(n, generator=generator)[self.documents] % FOLDS for _ in range(config.repeats)]
        self.others = [other_positions(self.documents, generator) for _ in self.folds]
        self.shown = torch.randperm(len(self.documents), generator=generator)[:N_EXAMPLES].tolist()
        parts = self.similarities(self.prompts)
        self.mixes = [torch.einsum("p,pij->ij", torch.tensor(mix) / sum(mix), parts) for mix in PROMPT_MIXES]
        self._alone: dict[str, list[tuple[Tensor, list[list[int]]]]] = {}
        """By hook point: predictions by one text for all, and by the prompt alone."""

    def score(
        self, kind: str, hook_point: str, texts: list[str], rows: Float[Tensor, "n d"], n_rows: int
    ) -> tuple[ReadingScore, list[ReadingExample]]:
        """Return the score of one kind at one hook point, one of `n_rows` that are judged; examples if it passes."""
        own = self.similarities(tokenizer_of(self.model).encode_batch(texts)).mean(0)
        dealt = [own[others][:, others] for others in self.others]
        if hook_point not in self._alone:
            nothing = torch.zeros_like(own)
            self._alone[hook_point] = [
                self.cosines(rows, lambda repeat, fold, grams=grams: grams) for grams in ([nothing], self.mixes)
            ]
        (empty, _), (prompt, chosen) = self._alone[hook_point]

        def beside_prompt(repeat: int, fold: int, gram: Tensor) -> list[Tensor]:
            return [self.mixes[chosen[repeat][fold]] + weight * gram for weight in WEIGHTS]

        by_position = {
            "cosine": self.cosines(rows, lambda repeat, fold: [own])[0],
            "shuffled": self.cosines(rows, lambda repeat, fold: [dealt[repeat]])[0],
            "empty": empty,
            "prompt": prompt,
            "with_prompt": self.cosines(rows, lambda repeat, fold: beside_prompt(repeat, fold, own))[0],
            "with_shuffled": self.cosines(rows, lambda repeat, fold: beside_prompt(repeat, fold, dealt[repeat]))[0],
        }
        by = {name: self.by_document(values) for name, values in by_position.items()}
        above, adds = (
            [t_interval(by[name] - by[null], 1 - 2 * ALPHA / n_rows) for null in nulls]
            for name, nulls in (("cosine", ("shuffled", "empty")), ("with_prompt", ("prompt", "with_shuffled")))
        )
        least = {
            "above_nulls": min(float(ends.estimate) for ends in above),
            "above_nulls_low": min(float(ends.low) for ends in above),
            "adds": min(float(ends.estimate) for ends in adds),
            "adds_low": min(float(ends.low) for ends in adds),
        }
        passes = min(least["above_nulls"], least["adds"]) >= LEAST and min(least.values()) > 0
        ends, means = t_interval(by["cosine"]), {name: float(values.mean()) for name, values in by.items()}
        low, high = float(ends.low), float(ends.high)
        row = ReadingScore(kind=kind, hook_point=hook_point, low=low, high=high, **means, **least, shown=passes)
        examples = [
            ReadingExample(
                kind=kind, hook_point=hook_point, prompt=shown_end(self.model, self.prompts[i]), reading=texts[i],
                cosine=float(by_position["cosine"][i]), shuffled=float(by_position["shuffled"][i]),
            )
            for i in self.shown
        ]  # fmt: skip
        return row, examples if passes else []

    def similarities(self, texts: Sequence[Sequence[int]]) -> Float[Tensor, "n_parts n n"]:
        """Return the inner products of texts, given as tokens, by part; the mean of each diagonal is 1."""
        parts = torch.zeros(5, len(texts), self.embeddings.shape[1])
        for i, ids in enumerate(texts):
            if ids:
                words = self.embeddings[list(ids)]
                parts[:, i] = torch.stack(
                    [words.mean(0), words[0], words[-1], words[-2 if len(words) > 1 else -1], words[-4:].mean(0)]
                )
        parts -= parts.mean(1, keepdim=True)
        grams = parts @ parts.mT
        return grams / grams.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)[:, None, None]

    def cosines(
        self, rows: Float[Tensor, "n d"], grams: Callable[[int, int], list[Tensor]]
    ) -> tuple[Float[Tensor, " n"], list[list[int]]]:
        """Return the cosine of predicted and actual activation at each position, mean over repeats.

        `grams(repeat, fold)` are inner products of texts; of several the best in training documents is taken, whose
        number is returned by repeat and fold.
        """
        cosines, chosen = torch.zeros(len(rows)), [[0] * FOLDS for _ in self.folds]
        for repeat, folds in enumerate(self.folds):
            for fold in range(FOLDS):
                test, train = (folds == fold).nonzero()[:, 0], (folds != fold).nonzero()[:, 0]
                size = rows[train].square().mean(0).sqrt()
                values = rows / size.clamp_min(1e-6 * float(size.max()) + 1e-30)
                inner = folds[train] == (fold + 1) % FOLDS
                guess, chosen[repeat][fold] = _predict(grams(repeat, fold), values, train, test, inner)
                cosines[test] += torch.cosine_similarity(guess, values[test], dim=1) / len(self.folds)
        return cosines, chosen

    def by_document(self, values: Float[Tensor, " n"]) -> Float[np.ndarray, " n_documents"]:
        """Return the mean over the positions of each document."""
        sums = torch.zeros(self.n_documents).index_add_(0, self.documents, values)
        return (sums / self.documents.bincount()).double().numpy()


def other_positions(documents: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Return another position for each: of the same document, or of another where it has only one.

    >>> other_positions(torch.tensor([0, 0, 1, 1, 2, 3]), torch.Generator().manual_seed(0)).tolist()
    [1, 0, 3, 2, 5, 4]
    """
    others = torch.arange(len(documents))
    groups = [(documents == number).nonzero()[:, 0] for number in documents.unique()]
    single = [group for group in groups if len(group) == 1]
    for group in [*(group for group in groups if len(group) > 1), *([torch.cat(single)] if single else [])]:
        mixed = group[torch.randperm(len(group), generator=generator)]
        others[mixed] = mixed.roll(1)
    return others


def _predict(
    grams: Sequence[Tensor], values: Tensor, train: Tensor, test: Tensor, inner: Tensor
) -> tuple[Float[Tensor, "n_test d"], int]:
    """Return ridge predictions of test rows, and the number of the inner products that were taken.

    `inner [n_train]` are the training rows on which these and the strength are chosen.
    """
    fit, chosen = train[~inner], train[inner]
    errors = {
        (number, strength): float((guess - values[chosen]).square().mean())
        for number, gram in enumerate(grams)
        for strength, guess in zip(STRENGTHS, _ridge(gram, values, fit, chosen, STRENGTHS), strict=True)
    }
    number, strength = min(errors, key=errors.__getitem__)
    return _ridge(grams[number], values, train, test, (strength,))[0], number


def _ridge(
    gram: Tensor, values: Tensor, train: Tensor, test: Tensor, strengths: Sequence[float]
) -> list[Float[Tensor, "n_test d"]]:
    """Return the predictions of test rows for each strength, by the dual form, with an intercept."""
    inside, across = gram[train][:, train], gram[test][:, train]
    mean = inside.mean(0)
    inside = inside - mean - mean[:, None] + mean.mean()
    across = across - mean - across.mean(1, keepdim=True) + mean.mean()
    middle = values[train].mean(0)
    size = inside.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(len(train))
    solved = (torch.linalg.solve(inside + strength * size * eye, across.T) for strength in strengths)
    return [middle + weights.T @ (values[train] - middle) for weights in solved]
