"""Scores of every head for several kinds of attention pattern, with nulls, intervals and verdicts.

The kinds are previous-token, duplicate-token, induction, first-token, current-token and predecessor. A kind is a set of
*targets*: for each query (dest), the keys (src) that a head of that kind attends to. Targets are computed from the
tokens or the words of a prompt, not from diagonals, so they are correct for any text: every earlier copy counts. BOS is
not text, so it is neither a query nor the source of a match, except that the first-token kind measures attention to
position 0, which is usually BOS. To add a kind, add a function here, its line to `KINDS` and a sentence about it to
`interp.names.HEAD_KINDS`.

1. Draw prompts and compute their targets: random tokens that repeat a block, each with its own lag; for a kind on text,
   texts with controls (`draw_texts`).
2. Run one pass per batch. Each layer's patterns are reduced to scores inside the hook and not stored.
3. Measure nulls. For induction and duplicate tokens: the same targets on prompts without repeats. For kinds on text:
   the same targets on the controls. For the others: a head with uniform attention, and the heads of an untrained model.
4. A kind is *found* in a head when the low end of its 95 % interval is above the null's upper bound, corrected for all
   heads, by 0.1: a head with random weights can attend to one position a little more than uniformly, on every prompt.

One prompt is one observation: the intervals are Student t over all prompts of all seeds. `head_patterns` returns the
attention of a few heads on one prompt, which circuits store so that a page can show it without the model.

A kind that is looked for on text has texts with its targets, such as words in an order (`ordered_text`). Its null is
the same texts with the words that make the targets replaced by others with the same number of tokens, so that a target
has the same position in both.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property, partial
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from interp.artifacts import Table
from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_scores import HeadScore, HeadScores, HeadSettings
from interp.errors import ConfigError
from interp.models.adapter import Hook
from interp.models.hooked import HookedModel
from interp.names import HeadName
from interp.nulls import prediction_bound
from interp.progress import Progress
from interp.seeds import derive_seed, make_generator
from interp.statistics import Interval, t_interval
from interp.text.corpora import CYCLIC, MONTHS, NUMBER_WORDS, ORDINALS, WEEKDAYS


class PromptWord(NamedTuple):
    """A word of a prompt, and the positions of its first and last token."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class HeadPrompts:
    """Prompts in which a kind of head finds its targets."""

    tokens: Int[Tensor, "batch pos"]
    is_bos: Bool[Tensor, "batch pos"]
    pieces: Sequence[Sequence[str]] = ()
    """Text of every token, by prompt, with its spaces; empty for BOS. None for random tokens, which are not text."""

    @cached_property
    def words(self) -> list[list[PromptWord]]:
        """Words of every prompt: runs of letters and digits, of one token or several."""
        return [list(_words(pieces)) for pieces in self.pieces]


def _words(pieces: Sequence[str]) -> Iterable[PromptWord]:
    token_at = [token for token, piece in enumerate(pieces) for _ in piece]
    for match in re.finditer(r"[^\W_]+", "".join(pieces)):
        yield PromptWord(match[0], token_at[match.start()], token_at[match.end() - 1])


DrawText = Callable[[Random, Callable[[str], int], int], tuple[str, str]]
"""Draws a text and its control from a generator, a counter of tokens and the least number of tokens of either."""


def draw_texts(
    model: HookedModel, draw: DrawText, n_prompts: int, context_length: int, seed: int
) -> tuple[HeadPrompts, Int64[Tensor, "{n_prompts} {context_length}"]]:
    """Draw texts of one seed, cut to `context_length` tokens with BOS first, and the tokens of their controls.

    Raises `MissingError` for a model without a tokenizer, `ConfigError` where texts are too short or a control cannot
    have the tokens of its text.
    """
    from interp.models.identity import tokenizer_of

    tokenizer = tokenizer_of(model)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    random = Random(derive_seed(seed, "head texts"))
    kept = context_length - len(bos)
    n_tokens = cache(lambda text: len(tokenizer.encode_batch([text])[0]))
    rows, controls, pieces = [], [], []
    for _ in range(n_prompts):
        text, control = draw(random, n_tokens, kept)
        row, control_row = tokenizer.encode_batch([text, control])
        if len(row) != len(control_row) or len(row) < kept:
            raise ConfigError(
                f"expected a text and a control of at least {kept} tokens; the tokenizer of this model makes "
                f"{len(row)} and {len(control_row)}; choose other kinds"
            )
        rows.append([*bos, *row[:kept]])
        controls.append([*bos, *control_row[:kept]])
        pieces.append([""] * len(bos) + _pieces(text, [tokenizer.token_text(token) for token in row[:kept]]))
    tokens = torch.tensor(rows)
    is_bos = torch.zeros_like(tokens, dtype=torch.bool)
    is_bos[:, : len(bos)] = True
    return HeadPrompts(tokens, is_bos, pieces), torch.tensor(controls)


def _pieces(text: str, decoded: Iterable[str]) -> list[str]:
    """Return the part of a text that each token covers. A token decoded alone may lack its leading space."""
    pieces, at = [], 0
    for piece in decoded:
        start = text.find(piece.strip(), at)
        end = at if start < 0 else start + len(piece.strip())
        pieces.append(text[at:end])
        at = end
    return pieces


# Texts in order

PREVIOUS = {
    word: order[at - 1]
    for order in (WEEKDAYS, MONTHS, NUMBER_WORDS, ORDINALS)
    for at, word in enumerate(order)
    if at or order in CYCLIC
}
"""Word -> the word before it in its order."""
NAMES = (
    *("Tom", "Ben", "Ann", "Joe", "Anna", "Paul", "Mark", "Jane", "Maria", "Peter", "David", "Laura", "Susan"),
    *("Robert", "Albert", "Daniel", "Martin", "Hannah", "William", "Charles", "Richard", "Matthew", "Rebecca"),
    *("Benjamin", "Jonathan", "Margaret", "Nicholas", "Victoria", "Elizabeth", "Alexander", "Christian", "Katherine"),
)
NOUNS = (
    *("cat", "dog", "car", "box", "cup", "tree", "book", "fish", "bird", "door", "house", "table", "chair", "glass"),
    *("river", "stone", "garden", "window", "bottle", "letter", "bridge", "kitchen", "picture", "village", "morning"),
)
JOINTS = (", ", " and ", " then ")
REMARKS = (
    *("it rained", "nothing happened", "we stayed at home", "the shop was closed", "a letter came", "they called"),
    *("the train was late", "I slept well", "we had soup", "the lights went out", "a friend came", "we painted"),
)


def ordered_text(random: Random, n_tokens: Callable[[str], int], length: int) -> tuple[str, str]:
    """Draw a text with four orders, the words of each in a list or with a remark on each of them, and its control.

    In the control every such word is a name or a noun with the same number of tokens. Both end in the same remarks.
    """
    text = control = "Notes."
    for passage, order in enumerate(random.sample((WEEKDAYS, MONTHS, NUMBER_WORDS, ORDINALS), 4)):
        n = random.randint(4, 6)
        start = random.randrange(len(order) if order in CYCLIC else len(order) - n + 1)
        words = [order[(start + at) % len(order)] for at in range(n)]
        if passage == 0 or random.random() < 0.5:
            gaps = [random.choice(JOINTS)] * (n - 1) + ["."]
        else:
            gaps = [f": {random.choice(REMARKS)}." + " " * (at < n - 1) for at in range(n)]
        text += " " + "".join(map("".join, zip(words, gaps, strict=True)))
        control += " " + "".join(map("".join, zip(_others(words, n_tokens, random), gaps, strict=True)))
    remarks = random.choices(REMARKS, k=length // 3 + 1)  # each has at least three tokens
    end = "".join(f" {remark[0].upper()}{remark[1:]}." for remark in remarks)
    return text + end, control + end


def _others(words: Sequence[str], n_tokens: Callable[[str], int], random: Random) -> list[str]:
    """Return a name or a noun with the same number of tokens for each word, no two alike."""
    made: list[str] = []
    for word in words:
        n, pool = n_tokens(f" {word}"), NAMES if word[0].isupper() else NOUNS
        fit = [candidate for candidate in pool if candidate not in made and n_tokens(f" {candidate}") == n]
        if not fit:
            raise ConfigError(f"no control word has the {n} tokens that the tokenizer of this model makes of {word!r}")
        made.append(random.choice(fit))
    return made


Targets = Bool[Tensor, "batch pos pos"]


def previous_token(prompts: HeadPrompts) -> Targets:
    """Return the targets of a previous-token head: the key one position back; none for a query right after BOS."""
    n, length = prompts.tokens.shape
    before = _shift(torch.eye(length, dtype=torch.bool)[None].expand(n, -1, -1), -1)
    return before & ~prompts.is_bos[:, None]


def duplicate_token(prompts: HeadPrompts) -> Targets:
    """Return the targets of a duplicate-token head: every earlier copy of the query's token."""
    return _same(prompts.tokens) & _before(prompts.tokens, 1) & ~prompts.is_bos[:, None]


def induction(prompts: HeadPrompts) -> Targets:
    """Return the targets of an induction head: every key whose previous token is the query's token.

    Keys up to the query itself count (`k <= q`), as in the prefix matching score of Olsson et al. (2022).
    """
    followed = _shift(_same(prompts.tokens), 1)
    follows_bos = _shift(prompts.is_bos[:, None], 1)
    return followed & _before(prompts.tokens, 0) & ~follows_bos


def first_token(prompts: HeadPrompts) -> Targets:
    """Return the targets of a first-token head: position 0, BOS or not; the query at position 0 does not count."""
    target = _none(prompts)
    target[:, 1:, 0] = True
    return target


def current_token(prompts: HeadPrompts) -> Targets:
    """Return the targets of a current-token head: the query's own position; position 0 does not count."""
    target = torch.eye(prompts.tokens.shape[1], dtype=torch.bool)[None].repeat(len(prompts.tokens), 1, 1)
    target[:, 0] = False
    return target


def predecessor(prompts: HeadPrompts) -> Targets:
    """Return the targets of a head that follows an order: from the token before a word to the word that it comes after.

    The token before " Tuesday" attends to every earlier "Monday", at the last token of that word. Successor heads
    attend like this to write the next word (Gould et al. 2023, arXiv 2312.09230); what a head writes is not measured.
    """
    target = _none(prompts)
    for prompt, words in enumerate(prompts.words):
        for word in words:
            due = PREVIOUS.get(word.text)
            for earlier in words:
                if due == earlier.text and earlier.last < word.first:
                    target[prompt, word.first - 1, earlier.last] = True
    return target


class HeadKind(NamedTuple):
    """A kind of head: its targets, and the prompts on which heads are scored."""

    targets: Callable[[HeadPrompts], Targets]
    repeats: bool = False
    """Only repeats give it targets, so its null is prompts without them, not an untrained model and uniform attention.
    """
    text: DrawText | None = None
    """Draws its texts and their controls, which are its null. None: random tokens that repeat a block. A kind on text
    needs passes of its own, so it is scored only on request."""


KINDS: dict[str, HeadKind] = {
    "previous_token": HeadKind(previous_token),
    "duplicate_token": HeadKind(duplicate_token, repeats=True),
    "induction": HeadKind(induction, repeats=True),
    "first_token": HeadKind(first_token),
    "current_token": HeadKind(current_token),
    "predecessor": HeadKind(predecessor, text=ordered_text),
}


def target_masks(
    tokens: Int[Tensor, "batch pos"], bos: int | None, kinds: Iterable[str] = tuple(KINDS)
) -> dict[str, Targets]:
    """Return the targets of each kind on random tokens, `[batch, dest, src]` bool, for `tokens [batch, pos]`."""
    tokens = tokens.cpu()
    is_bos = tokens == bos if bos is not None else torch.zeros_like(tokens, dtype=torch.bool)
    prompts = HeadPrompts(tokens, is_bos)
    return {kind: targets_of(kind, prompts) for kind in kinds if not KINDS[kind].text}


def targets_of(kind: str, prompts: HeadPrompts) -> Targets:
    """Return the targets of one kind; BOS is not a query."""
    return KINDS[kind].targets(prompts) & ~prompts.is_bos[:, :, None]


def target_weights(masks: dict[str, Bool[Tensor, "batch dest src"]]) -> Float32[Tensor, "batch dest*src n_kinds"]:
    """Return weights `[batch, dest * src, n_kinds]` float32, for which `pattern.flatten() @ weights` is the score.

    A prompt's score is the mean, over queries with at least one target, of the attention summed over the targets: 0 is
    no attention on targets, 1 all attention. A prompt without such a query has the score NaN.
    """
    columns = []
    for mask in masks.values():
        n_queries = mask.any(2).sum(1)
        weight = torch.full((len(mask),), torch.nan).where(n_queries == 0, 1 / n_queries)
        columns.append(
            torch.where(mask.flatten(1), weight[:, None], torch.where(n_queries == 0, torch.nan, 0)[:, None])
        )
    return torch.stack(columns, dim=2)


def score_pattern(
    pattern: Float[Tensor, "batch n_heads dest src"], weights: Float[Tensor, "batch dest*src n_kinds"]
) -> Float[Tensor, "batch n_heads n_kinds"]:
    """Return scores `[batch, n_heads, n_kinds]` of `pattern [batch, n_heads, dest, src]`."""
    return torch.bmm(
        rearrange(pattern, "batch head dest src -> batch head (dest src)"), weights.to(pattern.device, pattern.dtype)
    )


def uniform_scores(
    weights: Float[Tensor, "batch dest_src n_kinds"], context_length: int
) -> Float[Tensor, "batch n_kinds"]:
    """Return the scores of a head with uniform attention over all keys up to the query, `[batch, n_kinds]`."""
    ones = torch.ones(context_length, context_length).tril()
    uniform = ones / ones.sum(1, keepdim=True)
    return score_pattern(uniform.expand(len(weights), 1, -1, -1), weights)[:, 0]


def _none(prompts: HeadPrompts) -> Tensor:
    return torch.zeros(*prompts.tokens.shape, prompts.tokens.shape[1], dtype=torch.bool)


def _same(tokens: Tensor) -> Tensor:
    """Return true where the tokens of dest and src are equal, `[batch, dest, src]`."""
    return tokens[:, :, None] == tokens[:, None, :]


def _before(tokens: Tensor, at_least: int) -> Tensor:
    """Return true where src is at least `at_least` positions before dest, `[1, dest, src]`."""
    n = tokens.shape[1]
    return torch.ones(n, n, dtype=torch.bool).tril(-at_least)[None]


def _shift(mask: Tensor, by: int) -> Tensor:
    """Return a mask shifted along src by `by` positions; new entries are False."""
    out = torch.zeros_like(mask)
    if by > 0:
        out[..., by:] = mask[..., :-by]
    else:
        out[..., :by] = mask[..., -by:]
    return out


def head_patterns(
    model: HookedModel, tokens: Int[Tensor, "1 pos"], heads: Iterable[HeadName]
) -> tuple[tuple[str, ...], Float32[np.ndarray, "n_heads dest src"] | None]:
    """Return the names of heads and their attention patterns on `tokens [1, pos]`.

    Nothing when the model's attention kernel computes no patterns.
    """
    from interp.models.adapter import available_hook_points, run_with_cache

    points = {head: pattern_point(head.layer) for head in heads}
    if not points or not set(points.values()) <= available_hook_points(model):
        return (), None
    last = max(head.layer for head in points)
    _, cache = run_with_cache(model, tokens.to(model.cfg.device), sorted(set(points.values())), stop_at_layer=last + 1)
    patterns = [cache[point][0, head.head].float().cpu().numpy() for head, point in points.items()]
    return tuple(map(str, points)), np.stack(patterns)


CONFIDENCE = 0.95
SMALLEST_FOUND = 0.1
"""Least score above the null's bound, or over a text above shuffled keys."""


def score_heads(
    model: HookedModel,
    config: HeadScoresConfig | None = None,
    *,
    progress: Progress | None = None,
) -> HeadScores:
    """Score every head of a model on `n_prompts` prompts per seed.

    Each seed takes a pass over repeated and one over unrepeated prompts, and over the texts of each kind on text and
    their controls; the first seed also one of an untrained model.

    Args:
        model: its heads are scored.
        config: prompts, seeds, kinds of head (default: `HeadScoresConfig()`).
    Returns: one score of each kind, head and seed; the fraction of attention to the targets of the kind, 0 to 1.
    Raises:
        ConfigError: fewer than two prompts, a prompt beyond the context, lags that leave no repeat, or texts that
            cannot be made.
        MissingError: a kind on text, and a model without a tokenizer.

    >>> quick = HeadScoresConfig(n_prompts=4, seeds=(0,), context_length=16, min_lag=4, max_lag=7)
    >>> score_heads(load_model("planted:induction"), quick).headline()
    '2 heads of planted:induction, above their nulls: 1 previous-token, 1 induction'
    """
    from interp.models.adapter import bos_token_id, ordinary_tokens, untrained_model, weight_hash
    from interp.models.identity import model_spec

    config = config or HeadScoresConfig()
    length, batch_size = config.context_length, config.batch_size
    if length > model.cfg.n_ctx:
        raise ConfigError(f"context_length {length} exceeds the model's context of {model.cfg.n_ctx}")
    ids, bos = ordinary_tokens(model), bos_token_id(model)
    on_tokens = [kind for kind in config.kinds or KINDS if not KINDS[kind].text]
    on_text = [kind for kind in config.kinds if KINDS[kind].text]
    steps = _Steps(progress, 2 * len(config.seeds) * (bool(on_tokens) + len(on_text)) + bool(on_tokens))
    scores, controls, uniform, untrained_scores = [], [], [], None
    for seed in config.seeds:
        runs = [_text_run(model, kind, config, seed) for kind in on_text]
        if on_tokens:
            tokens, control = draw_prompts(ids, bos, config.n_prompts, length, config.min_lag, config.max_lag, seed)
            weights = target_weights(target_masks(tokens, bos, on_tokens))
            runs.insert(0, _Run(tokens, control, weights))
            uniform.append(uniform_scores(weights, length))
            if untrained_scores is None:
                null = untrained_model(model, seed)
                untrained_scores = steps.done(pattern_scores(null, tokens, weights, batch_size))
        for parts, field in ((scores, "tokens"), (controls, "control")):
            passes = (pattern_scores(model, getattr(run, field), run.weights, batch_size) for run in runs)
            parts.append(torch.cat([steps.done(chunk) for chunk in passes], 2))
    settings = HeadSettings(
        model=model_spec(model),
        weight_hash=weight_hash(model),
        prompts=config.n_prompts,
        seeds=config.seeds,
        lags=(config.min_lag, config.max_lag),
        context_length=length,
        bos=bos,
    )
    nulls = None if untrained_scores is None else (torch.cat(uniform), untrained_scores)
    return summarise_scores([*on_tokens, *on_text], torch.cat(scores, 3), torch.cat(controls, 3), nulls, settings)


class _Run(NamedTuple):
    """Prompts of one seed, those of their null, and the weights of the targets on both."""

    tokens: Tensor
    control: Tensor
    weights: Tensor


def _text_run(model: HookedModel, kind: str, config: HeadScoresConfig, seed: int) -> _Run:
    draw = KINDS[kind].text
    assert draw is not None, "a kind on text"
    prompts, control = draw_texts(model, draw, config.n_prompts, config.context_length, seed)
    weights = target_weights({kind: targets_of(kind, prompts)})
    if weights.isnan().any():
        raise ConfigError(
            f"a text of the kind {kind} has no target within {config.context_length} tokens; choose a larger "
            "context_length or other kinds"
        )
    return _Run(prompts.tokens, control, weights)


def draw_prompts(
    ids: Int[Tensor, " n"], bos: int | None, n_prompts: int, context_length: int, min_lag: int, max_lag: int, seed: int
) -> tuple[Int64[Tensor, "{n_prompts} {context_length}"], Int64[Tensor, "{n_prompts} {context_length}"]]:
    """Draw repeated and unrepeated prompts of one seed, `[n_prompts, context_length]` each, with the same lags."""
    from interp.text.tokens import repeated_random_tokens, unrepeated_random_tokens

    drawn = [
        draw(
            n_prompts=n_prompts,
            context_length=context_length,
            d_vocab_ids=ids,
            min_lag=min_lag,
            max_lag=max_lag,
            bos=bos,
            generator=make_generator(seed, "head prompts"),
        ).tokens
        for draw in (repeated_random_tokens, unrepeated_random_tokens)
    ]
    return drawn[0], drawn[1]


@torch.no_grad()
def pattern_scores(
    model: HookedModel,
    tokens: Int[Tensor, "n_prompts pos"],
    weights: Float[Tensor, "n_prompts pos*pos n_kinds"],
    batch_size: int,
) -> Float32[Tensor, "n_layers n_heads n_kinds n_prompts"]:
    """Return scores of every head, `[n_layers, n_heads, n_kinds, n_prompts]` float32.

    A layer's patterns are in memory only inside its hook. The pass ends with the last layer's patterns.
    """
    parts = []
    for batch, batch_weights in zip(tokens.split(batch_size), weights.split(batch_size), strict=True):
        layers = list(_layer_scores(model, batch, batch_weights))
        parts.append(rearrange(layers, "layer batch head kind -> layer head kind batch"))
    return torch.cat(parts, 3)


def _layer_scores(model: HookedModel, tokens: Tensor, weights: Tensor) -> Iterator[Tensor]:
    """Yield scores of each layer, `[batch, n_heads, n_kinds]`, on the CPU."""
    from interp.models.passes import run_from

    layers = range(model.cfg.n_layers)
    scores: dict[int, Tensor] = {}
    hooks = scoring_hooks(layers, weights.to(model.cfg.device), scores)
    run_from(model, tokens.to(model.cfg.device), hooks, until=pattern_point(layers[-1]))
    if len(scores) != len(layers):
        raise ConfigError(
            f"{len(scores)} of {len(layers)} layers gave attention patterns; load the model with attention='eager'"
        )
    yield from scores.values()


def scoring_hooks(layers: Iterable[int], weights: Tensor, scores: dict[int, Tensor]) -> list[tuple[str, Hook]]:
    """Return hooks that store the scores of each layer, `[batch, n_heads, n_kinds]` on the CPU, from its attention."""

    def score(pattern: Tensor, hook: object, *, layer: int) -> None:
        scores[layer] = score_pattern(pattern.float(), weights).cpu()

    return [(pattern_point(layer), partial(score, layer=layer)) for layer in layers]


def pattern_point(layer: int) -> str:
    """Return the hook point of a layer's attention patterns."""
    return f"blocks.{layer}.attn.hook_pattern"


def summarise_scores(
    kinds: Sequence[str],
    scores: Float[Tensor, "n_layers n_heads n_kinds n_prompts"],
    controls: Float[Tensor, "n_layers n_heads n_kinds n_controls"],
    nulls: tuple[
        Float[Tensor, "n_prompts_on_tokens n_on_tokens"], Float[Tensor, "n_layers n_heads n_on_tokens n_untrained"]
    ]
    | None,
    settings: HeadSettings,
) -> HeadScores:
    """Compute means, intervals, nulls and verdicts.

    Args:
        kinds: the kinds of the arrays, those on random tokens first.
        scores: `[n_layers, n_heads, n_kinds, n_prompts]`.
        controls: the same on the control prompts.
        nulls: of kinds on random tokens the scores of uniform attention `[n_prompts, n_on_tokens]`, and of an untrained
            model `[n_layers, n_heads, n_on_tokens, n_prompts]`; None without such kinds.
        settings: as stored.
    """
    values = scores.double().numpy()
    n_all_heads = values.shape[0] * values.shape[1]
    whole = interval(values, CONFIDENCE)
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(HeadScore)}
    layer, head = np.indices(values.shape[:2])
    for i, kind in enumerate(kinds):
        if KINDS[kind].text or KINDS[kind].repeats or nulls is None:
            null, null_high = control_bounds(controls[:, :, i].double().numpy(), n_all_heads)
        else:
            uniform, untrained = (null.double().numpy() for null in nulls)
            bounds = untrained_bounds(untrained[:, :, i], float(uniform[:, i].mean()), n_all_heads)
            null, null_high = (np.full(values.shape[:2], bound) for bound in bounds)
        score, low, high = (grid[:, :, i] for grid in whole)
        verdicts = low > null_high + SMALLEST_FOUND
        of_kind = {"layer": layer, "head": head, "kind": np.full(layer.shape, kind, object), "score": score}
        of_kind |= {"low": low, "high": high, "null": null, "null_high": null_high, "above_null": verdicts}
        for name, column in of_kind.items():
            columns[name].append(column.ravel())
    rows = {name: np.concatenate(parts) for name, parts in columns.items()}
    return HeadScores(settings=settings, scores=Table.of_columns(HeadScore, rows), per_prompt=values)


def interval(values: np.ndarray, confidence: float) -> Interval[np.ndarray]:
    """Return mean and Student t interval over the last axis, clipped to 0 and 1; NaN prompts do not count."""
    return t_interval(values, confidence).clip(0, 1)


def control_bounds(null_values: np.ndarray, n_all_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each head's mean on control prompts, and its upper bound at 5 % over all heads (Bonferroni)."""
    mean, _, high = interval(null_values, 1 - 2 * (1 - CONFIDENCE) / n_all_heads)
    return mean, high


def untrained_bounds(values: np.ndarray, uniform: float, n_all_heads: int) -> tuple[float, float]:
    """Return mean and upper bound of untrained heads' scores; both are at least the score of uniform attention.

    The sample is the heads, not the prompts: by its initial weights a head can have a peaked pattern on every prompt.
    The bound is the mean plus the Bonferroni t quantile times the spread of heads, and at least their maximum. It is
    for normal scores: of 32 heads of another untrained model with scores of skewness 0.8, one passes in a fifth of
    models.
    """
    heads = np.nanmean(values, axis=-1).ravel()
    mean, bound = float(heads.mean()), float(heads.max())
    if len(heads) > 1:
        bound = max(bound, prediction_bound(mean, heads.std(ddof=1), len(heads), n_tests=n_all_heads))
    return max(uniform, mean), float(min(max(uniform, bound), 1.0))


class _Steps:
    """Counts passes for a progress callback."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.n = progress, total, 0

    def done(self, value: Tensor) -> Tensor:
        self.n += 1
        if self.progress is not None:
            self.progress(self.n, self.total, {})
        return value
