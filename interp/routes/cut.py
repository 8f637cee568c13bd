"""Edges of attention between words, cut: what the answer loses without them.

    run = clean_run(model, tokens)                       # one pass, with everything that later passes take from it
    effects = cut_effects(run, [Cut(((dest, source),))])

Attention knockout (Geva et al. 2023, arXiv 2304.14767): in the chosen layers and heads the score of a destination for a
source becomes minus infinity before the softmax, so that the destination attends to the rest. Position 0, the attention
sink, is never a source. Passes begin at the first layer and position that a cut can change; what lies before comes from
the clean run. An effect is the fall of the answer's log-probability in nats: 0 changes nothing, below 0 the edge speaks
against the answer. Contributions by norms (Ferrando and Voita 2024) are cheaper and change nothing in the model.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import ConfigError, PromptError
from interp.interventions.arms import LEAST_PAST, PASS_LOGITS, PASS_TOKENS
from interp.models.adapter import (
    available_hook_points,
    bos_token_id,
    key_value_cache,
    pattern_is_editable,
    token_strings,
)
from interp.models.hooked import Hook, HookedModel
from interp.models.identity import model_spec, tokenizer_of
from interp.models.passes import past_of, read_hook, run_from, storing_hook
from interp.routes._words import word_spans
from interp.routes.routes import TokenChance

TOP = 5
"""Likeliest next tokens that are kept of a pass."""
PASS_COST = 64
"""Tokens that cost about as much as a pass of its own: reading the weights of a small model."""
Edges = tuple[tuple[range, range], ...]
"""Positions of the destination and of the source of each edge."""
Layers = tuple[int, int]
"""First and last layer."""
Done = Callable[[int], None]
"""Called with the number of tokens of each pass; it may raise, when the answer is no longer wanted."""


@dataclass(frozen=True)
class Cut:
    """Edges that one row of a pass cuts."""

    edges: Edges
    """positions of destinations and of sources"""
    first: int = 0
    """first layer"""
    last: int | None = None
    """last layer; None for the last of the model"""
    heads: frozenset[tuple[int, int]] | None = None
    """layers and heads; None for all heads"""

    @property
    def start(self) -> int:
        """First position that changes."""
        return min((dest.start for dest, _ in self.edges), default=0)


@dataclass(frozen=True, eq=False)
class CleanRun:
    """One unchanged pass over a prompt: its words, and the values that later passes begin with."""

    model: HookedModel
    tokens: Int[Tensor, "1 pos"]
    words: tuple[range, ...]
    """positions of each word; without those of BOS"""
    texts: tuple[str, ...]
    """text of each word"""
    values: dict[str, Tensor]
    """by hook point: residuals, MLP outputs, patterns and values of attention"""
    past: dict[int, Any]
    """keys and values of the positions before each position that passes have begun at"""
    log_probs: Float[Tensor, " d_vocab"]
    answer: int
    """token whose probability is followed"""

    @property
    def n_layers(self) -> int:
        return self.model.cfg.n_layers

    def edges(self) -> list[tuple[int, int]]:
        """Return all edges as numbers of (source, destination); position 0 is no source."""
        return [(s, d) for d in range(len(self.words)) for s in range(d) if self.words[s].start > 0]

    def positions(self, source: int, destination: int) -> tuple[range, range]:
        """Return the positions of the destination and of the source of an edge."""
        return self.words[destination], self.words[source]

    def edges_of(self, sources: Iterable[int], destination: int) -> Edges:
        """Return the positions of the edges from some words to one."""
        return tuple(self.positions(source, destination) for source in sources)

    def resid(self, layer: int) -> Float[Tensor, "1 pos d"]:
        """Return the residual before a layer; before `n_layers` that after the last."""
        return self.values["blocks.0.hook_resid_pre" if layer == 0 else f"blocks.{layer - 1}.hook_resid_post"]

    def past_before(self, position: int) -> Any:
        """Return the keys and values of the positions before one, computed when first asked for; not to be changed.

        Of a model that keeps none there is nothing to ask for (`kept_before`).
        """
        if position not in self.past:
            self.past[position] = past_of(self.model, self.resid(0)[:, :position], 0)
        return self.past[position]


def clean_run(model: HookedModel, tokens: Int[Tensor, "1 pos"], *, joined: bool | None = None) -> CleanRun:
    """Run a prompt once and keep what cuts and swaps need; the answer is the likeliest next token.

    Args:
        model: one whose attention can be edited.
        tokens: of the prompt, `[1, pos]`.
        joined: tokens without a break between them are one word. Default: where the model has a tokenizer.
    Returns: the run, with its words.
    Raises:
        PromptError: fewer than two words, or more tokens than the model reads.
        ConfigError: the attention of the model cannot be edited.

    >>> run = clean_run(model, tokens)
    >>> len(run.words), len(run.edges())
    (7, 21)
    """
    check_attention(model)
    if (n := tokens.shape[1]) > model.cfg.n_ctx:
        raise PromptError(f"the prompt has {n} tokens, and the model reads at most {model.cfg.n_ctx}; shorten it")
    texts = token_strings(model, tokens[0])
    spans = word_spans(texts, joined=tokenizer_of(model, required=False) is not None if joined is None else joined)
    if bos_token_id(model) is not None and int(tokens[0, 0]) == bos_token_id(model):
        spans = spans[1:]
    if len(spans) < 2:
        raise PromptError("routes lead from one word to another, and the prompt has one; give at least two words")
    offered, values = available_hook_points(model), dict[str, Tensor]()
    names = ["blocks.0.hook_resid_pre"]
    for layer in range(model.cfg.n_layers):
        parts = ("hook_resid_post", "hook_mlp_out", "attn.hook_pattern", "attn.hook_v")
        names += [name for part in parts if (name := f"blocks.{layer}.{part}") in offered]
    hooks = [(name, storing_hook(values, name)) for name in names]
    logits = run_from(model, tokens, [*hooks, read_hook(torch.tensor([[tokens.shape[1] - 1]]))])
    assert logits is not None
    log_probs = logits[0, 0].float().log_softmax(-1)
    words, written = zip(*spans, strict=True)
    return CleanRun(model, tokens, words, written, values, {}, log_probs, int(log_probs.argmax()))


def check_attention(model: HookedModel) -> None:
    """Raise `ConfigError` for a model whose attention cannot be cut."""
    offered = available_hook_points(model)
    if "blocks.0.attn.hook_attn_scores" in offered:
        return
    if "blocks.0.attn.hook_pattern" not in offered or not pattern_is_editable(model):
        raise ConfigError(
            f"routes are found by cutting attention, and {model_spec(model)} shows no attention pattern that can be "
            "edited; choose a model whose attention runs step by step"
        )


def likeliest(model: HookedModel, log_probs: Float[Tensor, " d_vocab"]) -> tuple[TokenChance, ...]:
    """Return the likeliest tokens of a distribution."""
    values, ids = log_probs.topk(min(TOP, len(log_probs)))
    texts = token_strings(model, ids)
    return tuple(TokenChance(text, float(p)) for text, p in zip(texts, values.exp(), strict=True))


def run_cuts(run: CleanRun, cuts: Sequence[Cut], hooks: Sequence[tuple[str, Hook]] = ()) -> Float[Tensor, "rows vocab"]:
    """Return the log-probabilities after the last position with the cuts of each row.

    `hooks` see positions from `first_position(run, cuts)` on.
    """
    first, layer = first_position(run, cuts), min(cut.first for cut in cuts)
    return run_rows(run, len(cuts), [*_cutting(run, cuts, first), *hooks], first=first, layer=layer)


def run_rows(
    run: CleanRun, rows: int, hooks: Sequence[tuple[str, Hook]], *, first: int = 0, layer: int = 0
) -> Float[Tensor, "rows vocab"]:
    """Return the log-probabilities after the last position of a number of copies of the prompt, changed by hooks.

    Layers before `layer` and positions before `first`, which hooks do not see, are taken from the clean run.
    """
    value = run.resid(layer)[:, first:].repeat(rows, 1, 1)
    past = copy.deepcopy(run.past_before(first)) if first else None
    if past is not None:
        past.batch_repeat_interleave(rows)
    read = read_hook(torch.full((rows, 1), value.shape[1] - 1))
    logits = run_from(run.model, value, [*hooks, read], layer=layer, past=past)
    assert logits is not None
    return logits[:, 0].float().log_softmax(-1)


def first_position(run: CleanRun, cuts: Sequence[Cut]) -> int:
    """Return the first position of a pass with these cuts; 0 where nothing before them can be kept."""
    return kept_before(run, min(cut.start for cut in cuts))


def kept_before(run: CleanRun, position: int) -> int:
    """Return the number of positions before one that a pass takes from the clean run; 0 where it keeps none."""
    return position if position >= LEAST_PAST and key_value_cache(run.model) is not None else 0


def _cutting(run: CleanRun, cuts: Sequence[Cut], first: int) -> list[tuple[str, Hook]]:
    """Return a hook for each layer that any row cuts."""
    n, n_layers, n_heads = run.tokens.shape[1], run.n_layers, run.model.cfg.n_heads
    masks = torch.zeros(len(cuts), 1, n - first, n, dtype=torch.bool)
    active = torch.zeros(n_layers, len(cuts), n_heads, 1, 1, dtype=torch.bool)
    for row, cut in enumerate(cuts):
        for dest, source in cut.edges:
            masks[row, 0, dest.start - first : dest.stop - first, source.start : source.stop] = True
        last = n_layers - 1 if cut.last is None else cut.last
        for layer in range(cut.first, last + 1):
            heads = range(n_heads) if cut.heads is None else [head for at, head in cut.heads if at == layer]
            active[layer, row, list(heads)] = True
    masks, active = masks.to(run.tokens.device), active.to(run.tokens.device)
    by_score = "blocks.0.attn.hook_attn_scores" in available_hook_points(run.model)
    point, edit = ("hook_attn_scores", _without_scores) if by_score else ("hook_pattern", _without_weights)
    return [
        (f"blocks.{layer}.attn.{point}", edit(masks & active[layer]))
        for layer in range(n_layers)
        if active[layer].any()
    ]


def _without_scores(mask: Bool[Tensor, "rows heads q k"]) -> Hook:
    """Return a hook that cuts by scores; a layer with a sliding window keeps the last of the keys before a pass."""

    def edit(value: Tensor, hook: object) -> Tensor:
        return value.masked_fill(mask[..., -value.shape[-1] :], torch.finfo(value.dtype).min)

    return edit


def _without_weights(mask: Bool[Tensor, "rows heads q k"]) -> Hook:
    def edit(value: Tensor, hook: object) -> Tensor:
        cut = mask[..., -value.shape[-1] :]
        kept = value.masked_fill(cut, 0)
        total = kept.sum(-1, keepdim=True)
        seen = torch.ones_like(cut).tril(value.shape[-1] - value.shape[-2]) & ~cut
        uniform = seen / seen.sum(-1, keepdim=True).clamp(min=1)  # all that the destination attended to is cut
        return torch.where(total > 1e-9, kept / total.clamp(min=1e-9), uniform.to(value))

    return edit


@dataclass(frozen=True)
class CutEffect:
    """Effect of a cut on the next token."""

    effect: float
    """fall of the answer's log-probability, nats"""
    kl: float
    """KL of the changed distribution from the unchanged one, nats"""
    after: tuple[TokenChance, ...]


def passes_of(run: CleanRun, starts: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the numbers of the rows of each pass, by the first position and the first layer that each row changes.

    Rows share a pass until the positions that they compute needlessly cost more than another pass.
    """
    order, n = sorted(range(len(starts)), key=lambda row: starts[row]), run.tokens.shape[1]
    passes: list[list[int]] = []
    wasted = 0
    for row in order:
        first = starts[passes[-1][0]][0] if passes else 0
        wasted += starts[row][0] - first
        size = (len(passes[-1]) + 1) * (n - first) if passes else 0
        full = size > PASS_TOKENS or (len(passes[-1]) + 1) * run.model.cfg.d_vocab > PASS_LOGITS if passes else True
        if full or wasted > PASS_COST:
            passes.append([])
            wasted = 0
        passes[-1].append(row)
    return passes


def tokens_of(run: CleanRun, cuts: Sequence[Cut]) -> int:
    """Return the tokens that the passes of some cuts compute: their price."""
    n, passes = run.tokens.shape[1], passes_of(run, [(cut.start, cut.first) for cut in cuts])
    return sum(len(rows) * (n - first_position(run, [cuts[row] for row in rows])) for rows in passes)


@torch.no_grad()
def cut_effects(run: CleanRun, cuts: Sequence[Cut], done: Done | None = None) -> list[CutEffect]:
    """Return the effect of each cut.

    Args:
        run: unchanged pass over the prompt.
        cuts: edges, layers and heads of each row.
        done: called with the number of tokens of each pass; an error that it raises ends the measurement.
    Returns: an effect for each cut, in their order.

    >>> run = clean_run(model, tokens)
    >>> effects = cut_effects(run, [Cut((run.positions(*edge),)) for edge in run.edges()])
    >>> len(effects)
    21
    """
    effects: dict[int, CutEffect] = {}
    for rows in passes_of(run, [(cut.start, cut.first) for cut in cuts]):
        chosen = [cuts[row] for row in rows]
        log_probs = run_cuts(run, chosen)
        for row, changed in zip(rows, log_probs, strict=True):
            effects[row] = effect_of(run, changed)
        if done:
            done(len(rows) * (run.tokens.shape[1] - first_position(run, chosen)))
    return [effects[row] for row in range(len(cuts))]


def effect_of(run: CleanRun, changed: Float[Tensor, " d_vocab"]) -> CutEffect:
    """Return the effect of a changed distribution."""
    clean = run.log_probs
    kl = float((clean.exp() * (clean - changed)).sum().clamp(min=0))
    return CutEffect(float(clean[run.answer] - changed[run.answer]), kl, likeliest(run.model, changed))
