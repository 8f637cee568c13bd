"""Computations behind the prompt page, on a model that is loaded. With `nulls` and `live`, all of the dashboard that
needs torch.

A `Reading` has the values of one pass: the residual stream after every layer, the attention of every head, and the
activations of a dictionary. The views draw on it in slices: the lens decodes the columns that are seen, the next-token
distribution one position.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dashboard.answers import lists
from dashboard.components.live import (
    ActiveFeature,
    Exchange,
    FeatureShare,
    FeatureShares,
    Generation,
    LensCells,
    LogitShares,
    NextTokens,
    PromptResult,
    ScoreReasons,
)
from dashboard.prompt import nulls
from dashboard.turns import Turn
from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.interventions.conversation import random_vector
from interp.models.adapter import bos_token_id, final_norm_and_unembed, head_shape, run_with_hooks, token_strings
from interp.models.generation import NextToken, Offset, generate, sampled
from interp.models.hooked import HookedModel
from interp.names import lens_hook_points
from interp.patching.patching_map import PatchingMap

if TYPE_CHECKING:
    from interp.interventions.intervention import Intervention
    from interp.lenses.jacobian_lens import JacobianLens

Changes = Callable[[Offset], list[tuple[str, Any]]]
"""Returns the hooks of a batch of three rows, of which the first is unchanged."""
Check = Callable[[str], None]
"""Names the next stage; raises if the answer is no longer wanted."""
TOP_TOKENS, TOP_FEATURES = 5, 10
TOP_SHARES, SHARE_STEPS = 16, 8
"""Features shown for an answer, and steps of the integrated gradients behind their effects."""
PATCH_DRAWS = 3
"""Null maps that come with a map of patches."""
THUMB = 24
"""Cells along a side of the small picture of a head; each is the maximum of the attention that it covers."""
_LOSS_ROWS, _LENS_CELLS = 64, 256
"""Positions or cells unembedded at a time; each needs one float per token of the vocabulary."""


@dataclass(eq=False)
class Reading:
    """One pass over a prompt of `n` tokens."""

    tokens: Tensor
    """`[1, n]`"""
    residuals: Tensor
    """`[n_layers + 1, n, d_model]`: the embedding, then the residual stream after each block"""
    patterns: Tensor
    """`[n_layers, n_heads, n, n]` float16"""
    parts: dict[str, Tensor]
    """`[1, n, ...]` at the hook points of direct logit attribution; empty if it needs its own pass"""
    activations: Any
    """sparse activations of the dictionary, or None"""
    result: PromptResult
    elsewhere: dict[tuple[str, int | None], nulls.Elsewhere] = field(default_factory=dict)
    """Controls of the lens that were measured, by lens and token."""

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(each.nbytes for each in (self.residuals, self.patterns, *self.parts.values()))


class HookedSAE:
    """An SAE with the hook point that it reads."""

    def __init__(self, sae: Any):
        self.sae, self.hook_point = sae, sae.metadata.hook_point

    def encode_sparse(self, x: Tensor) -> Any:
        """`[n, d_in]` -> (values, indices)."""
        return self.sae.encode_sparse(x)


@torch.no_grad()
def read(
    loaded: HookedModel, spec: str, tokens: Tensor, dictionary: Any, lenses: list[tuple[str, str]], check: Check
) -> Reading:
    """Run the model once over `tokens [1, n]` and keep what the views need; `lenses` are those that can be chosen."""
    from interp.models.passes import Capture
    from saes.features.sources import NeuronBasis

    check("running the model")
    shape = head_shape(loaded)
    layers = list(lens_hook_points(shape.n_layers))
    heads = [f"blocks.{layer}.attn.hook_pattern" for layer in range(shape.n_layers)]
    own = [dictionary.hook_point] if dictionary is not None else []
    attributed = _attributed(loaded)
    with Capture(loaded, list(dict.fromkeys([*layers, *heads, *own, *attributed]))) as capture:
        values = capture(tokens)
    check("computing the losses")
    residuals = torch.stack([values[name][0] for name in layers])
    patterns = torch.stack([values[name][0].half() for name in heads])
    losses = _losses(loaded, residuals[-1], tokens[0], check)
    check("looking for active features")
    first, acts = int(bos_token_id(loaded) is not None), None
    active: list[int] = []
    random: tuple[list[int], list[float]] = [], []
    if dictionary is not None:
        x = values[dictionary.hook_point][0].float()
        acts = dictionary.encode_sparse(x)
        if not isinstance(dictionary, NeuronBasis):
            random = nulls.at_random_vectors(dictionary, x, first)
            active = (acts.values[first:] > 0).sum(1).tolist()
    result = PromptResult(
        model=spec,
        tokens=token_strings(loaded, tokens),
        losses=losses,
        layers=["embedding", *(f"layer {i}" for i in range(shape.n_layers))],
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        features=_strongest(loaded, acts, tokens[0]) if acts is not None else [],
        active=active,
        random_active=random[0],
        random_strongest=random[1],
        lenses=lenses,
        patterns=thumbnails(patterns),
        vocabulary=shape.d_vocab,
        likeliest=token_strings(loaded, [int(final_norm_and_unembed(loaded, residuals[-1, -1:])[0].argmax())])[0],
    )
    return Reading(tokens, residuals, patterns, {name: values[name] for name in attributed}, acts, result)


def _attributed(loaded: HookedModel) -> list[str]:
    """Return the hook points that attribution at any token needs; none in a model for which it is not defined."""
    from interp.lenses.direct_attribution import attribution_points

    try:
        return attribution_points(loaded)
    except ConfigError:  # attribution itself says why
        return []


def thumbnails(patterns: Tensor) -> np.ndarray:
    """Return `[n_layers, n_heads, s, s]` uint8, 255 for an attention of 1: `s` is `n`, or less for long prompts."""
    small = patterns.float()
    if small.shape[-1] > THUMB:
        small = torch.nn.functional.adaptive_max_pool2d(small, THUMB)
    return (small * 255).round().to(torch.uint8).cpu().numpy()


def activations_of(reading: Reading, feature: int) -> list[float]:
    """Return the activation of one feature on every token."""
    found = reading.activations
    mine = torch.where(found.indices == feature, found.values.float(), 0.0).sum(1)
    return lists(mine.clamp_min(0))


@torch.no_grad()
def lens_cells(
    loaded: HookedModel, reading: Reading, start: int, stop: int, translators: Any, token: int | None, check: Check
) -> LensCells:
    """Decode the residual stream of the positions from `start` up to `stop` after every layer.

    With a `token`, its rank (0: the most probable) and probability in each cell come too, and with both the control.
    """
    names = lens_hook_points(len(reading.residuals) - 1)
    chosen = reading.residuals[:, start:stop]
    if translators is not None:
        chosen = torch.stack([translators.translate(name, x) for name, x in zip(names, chosen, strict=True)])
    ids: list[Tensor] = []
    probabilities: list[Tensor] = []
    ranks: list[Tensor] = []
    followed: list[Tensor] = []
    for rows in torch.split(chosen.flatten(0, 1), _LENS_CELLS):
        check("decoding layers")
        logits = final_norm_and_unembed(loaded, rows).float()
        total = logits.logsumexp(-1, keepdim=True)
        best = logits.topk(min(TOP_TOKENS, logits.shape[1]), dim=-1)
        ids.append(best.indices)
        probabilities.append((best.values - total).exp())
        if token is not None:
            own = logits[:, token, None]
            ranks.append((logits > own).sum(-1))
            followed.append((own - total).exp()[:, 0])
    shape = chosen.shape[:2]
    flat = torch.cat(ids)
    texts = np.array(token_strings(loaded, flat), object).reshape(*shape, -1)
    numbers = lists(torch.cat(probabilities).reshape(*shape, -1))
    control = nulls.elsewhere(loaded, reading, translators, token, check)
    others, same, usual = control.cells(flat[:, 0].reshape(shape).cpu().numpy(), start)
    guesses = [
        [list(zip(t, p, strict=True)) for t, p in zip(*layer, strict=True)]
        for layer in zip(texts.tolist(), numbers, strict=True)
    ]
    return LensCells(
        start=start,
        cells=guesses,
        followed=token_strings(loaded, [token])[0] if token is not None else None,
        rank=lists(torch.cat(ranks).reshape(shape)) if token is not None else [],
        probability=lists(torch.cat(followed).reshape(shape)) if token is not None else [],
        others=others,
        top_elsewhere=same,
        rank_elsewhere=usual,
    )


@torch.no_grad()
def next_tokens(loaded: HookedModel, reading: Reading, at: int, temperature: float, top: int = 10) -> NextTokens:
    """Return the likeliest tokens after position `at`, with the softmax at a temperature."""
    log_p = (final_norm_and_unembed(loaded, reading.residuals[-1, at][None]).float()[0] / temperature).log_softmax(-1)
    best = log_p.topk(min(top, len(log_p)))
    return NextTokens(
        after=at,
        token=reading.result.tokens[at],
        temperature=temperature,
        guesses=list(zip(token_strings(loaded, best.indices), lists(best.values.exp()), strict=True)),
        entropy=float(-(log_p.exp() * log_p).nan_to_num().sum()),
        uniform=math.log(len(log_p)),
    )


def steered_rows(
    loaded: HookedModel, sae: Any, feature: int, amount: float, seed: int, offset: Offset
) -> list[tuple[str, Any]]:
    """Return hooks for a batch of three rows: unchanged, steered, and moved as far in a random direction."""
    from interp.interventions.intervention import Direction, Intervention, Latent

    own = sae.decoder_directions[feature].detach().float().cpu()
    point = sae.hook_point_out or sae.hook_point
    steered = Intervention(target=Latent(dictionary="sae", index=feature), amount=amount)
    vector = random_vector(len(own), float(nulls.lengths(own)), [seed])
    control = replace(steered, along=Direction(hook_point=point, vector=vector, origin=f"random, seed {seed}"))
    return _in_rows(loaded, (steered, control), {"sae": sae}, offset)


def exchanged_rows(
    loaded: HookedModel, lens: "JacobianLens | None", exchange: Exchange, seed: int, offset: Offset
) -> list[tuple[str, Any]]:
    """Return hooks for a batch of three rows: unchanged, two words exchanged, and changed as much at random.

    Raises `PromptError` for a word that is not one token, or the same twice, and without a lens of that layer.
    """
    from interp.interventions.intervention import Direction, Intervention
    from interp.lenses.vocabulary import vocabulary_of

    if lens is None:
        raise PromptError(
            "the workspace has no Jacobian lens of this model: `workbench lens MODEL --kind jacobian` fits one"
        )
    lens.check_model(loaded)
    vocabulary, point = vocabulary_of(loaded), f"blocks.{exchange.layer}.hook_resid_post"
    found: list[int] = []
    for word in (exchange.word, exchange.other):
        tokens = vocabulary.spelled(word)
        if not tokens:
            raise PromptError(f"{word!r} is no single token of this model; choose a more common word")
        found.append(tokens[0])
    if found[0] == found[1]:
        raise PromptError("a word exchanged with itself changes nothing; type two words")
    if lens.jacobian(point) is None:
        raise PromptError(f"the Jacobian lens has no layer {exchange.layer}; it has {lens.headline()}")
    own, other = (lens.word_direction(point, vocabulary, token) for token in found)
    exchanged = Intervention(target=own, partner=other, action="exchange")
    units = [each.vector / np.linalg.norm(each.vector) for each in (own, other)]
    vector = random_vector(len(units[0]), float(np.linalg.norm(units[0] - units[1])), [seed])
    control = replace(exchanged, along=Direction(hook_point=point, vector=vector, origin=f"random, seed {seed}"))
    return _in_rows(loaded, (exchanged, control), {}, offset)


def _in_rows(
    loaded: HookedModel, steps: "Sequence[Intervention]", dictionaries: dict[str, Any], offset: Offset
) -> list[tuple[str, Any]]:
    """Return hooks of interventions, each in a row of the batch of its own, from the second row on."""
    from interp.interventions.apply import hooks_of
    from interp.interventions.edits import at_rows

    return [
        (name, at_rows(hook, slice(row, row + 1)))
        for row, step in enumerate(steps, 1)
        for name, hook in hooks_of(loaded, [step], dictionaries, offset=offset)
    ]


@torch.no_grad()
def unchanged_probabilities(loaded: HookedModel, rows: Tensor, start: int) -> list[list[float]]:
    """Return the probability that the unchanged model gives each token of `rows [3, n]` from `start` on."""
    logits = run_with_hooks(loaded, rows, [])[:, start - 1 : -1].float()
    return lists(logits.softmax(-1).gather(2, rows[:, start:, None].to(logits.device))[:, :, 0])


def steps_of(
    loaded: HookedModel, tokens: Tensor, changes: Changes, *, n_new: int,
    temperature: float, seed: int, turn: Callable[[], contextlib.AbstractContextManager[Turn]],
) -> Iterator[Generation]:  # fmt: skip
    """Yield one `Generation` per token, and a last one with the probabilities under the unchanged model.


    Each step takes the `turn` again, so that others are served between two tokens. The rows share the random number of
    each draw, so that equal distributions give equal tokens. Raises `SupersededError` once the turn is dropped.
    """
    from interp.runtime import make_generator

    offset, chances, rows = Offset(), list[list[float]](), [tokens.expand(3, -1)]
    step = NextToken(loaded, changes(offset), offset=offset)
    draw = sampled(temperature, make_generator(seed, "generation"), coupled=1)

    def choose(logits: Tensor) -> Tensor:
        ids = draw(logits).to(logits.device)
        chances.append(lists(logits.softmax(-1).gather(1, ids[:, None])[:, 0]))
        return ids

    written = generate(step, rows[0], n_new, choose)
    for number in range(n_new):
        with turn() as held:
            rows.append(next(written)[:, None])
            held.check()
        texts = token_strings(loaded, rows[-1][:, 0])
        yield Generation(number, list(zip(texts, chances[-1], strict=True)))
    with turn():
        yield Generation(n_new, [], unchanged_probabilities(loaded, torch.cat(rows, 1), tokens.shape[1]))


def check_head(loaded: HookedModel, layer: int, head: int) -> None:
    shape = head_shape(loaded)
    if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
        last = f"L{shape.n_layers - 1}H{shape.n_heads - 1}"
        raise UnknownNameError("head", f"L{layer}H{head}", ["L0H0", last], f"(the last one is {last})")


@torch.no_grad()
def answers(loaded: HookedModel, reading: Reading, at: int, answer: str, contrast: str) -> tuple[int, int | None]:
    """Ids of the answer and the contrast; empty ones come from the model's own ranking after `at`."""
    logits = final_norm_and_unembed(loaded, reading.residuals[-1, at][None]).float()[0]
    likeliest = lists(logits.topk(2).indices)
    right = single_token(loaded, answer, logits) if answer else likeliest[0]
    if contrast:
        return right, single_token(loaded, contrast, logits)
    return right, None if answer else likeliest[1]


@torch.no_grad()
def token_at_end(loaded: HookedModel, reading: Reading, text: str) -> int:
    """Id of a word as the likelier of its two forms at the end of the prompt. Raises `PromptError`: several tokens."""
    return single_token(loaded, text, final_norm_and_unembed(loaded, reading.residuals[-1, -1][None]).float()[0])


def answer_text(loaded: HookedModel, tokens: Tensor, text: str) -> str:
    """The text of the one token that an answer denotes after `tokens [1, n]`."""
    from interp.models.adapter import run_with_cache, token_text

    if not text:
        raise PromptError("the answer to the clean prompt is empty; type a word that is one token")
    return token_text(loaded, single_token(loaded, text, run_with_cache(loaded, tokens, [])[0][0, -1].float()))


def patch_map(
    loaded: HookedModel,
    spec: str,
    pair: tuple[str, str, str, str | None],
    what: Any,
    direction: Any,
    *,
    chat: bool = False,
) -> PatchingMap:
    """Return the map of one pair of prompts; heads are patched at all positions at once."""
    from interp.circuits.tasks import pair_task
    from interp.patching.config import PatchingConfig
    from interp.patching.maps import measure_map

    task = pair_task(loaded, *pair, chat=chat)
    config = PatchingConfig(what=what, direction=direction, by_position=what != "z", draws=PATCH_DRAWS)
    return measure_map(loaded, task, config, model_name=spec)


def position(tokens: Tensor, after: int | None) -> int:
    """The position asked for in `tokens [1, n]`, by default the last. Raises `PromptError`."""
    at = tokens.shape[1] - 1 if after is None else after
    if not 0 <= at < tokens.shape[1]:
        raise PromptError(f"the prompt has positions 0 to {tokens.shape[1] - 1}, got {at}; choose one of them")
    return at


def logit_shares(loaded: HookedModel, reading: Reading, at: int, right: int, wrong: int | None) -> LogitShares:
    """Direct logit attribution of `logit(right) - logit(wrong)` after position `at`."""
    from interp.lenses.direct_attribution import direct_logit_attribution

    earlier = reading.parts or None
    found = direct_logit_attribution(loaded, reading.tokens, right, wrong, position=at, earlier=earlier)
    names = token_strings(loaded, [right] if wrong is None else [right, wrong])
    cap = [f"The logits are those {found.settings['logits']}."] if "logits" in found.settings else []
    return LogitShares(
        answer=names[0],
        contrast=None if wrong is None else names[1],
        after=at,
        token=reading.result.tokens[at],
        total=float(found.total[0]),
        parts=list(zip(found.parts, lists(found.values[:, 0]), strict=True)),
        heads=lists(found.heads[:, :, 0]),
        mlps=lists(found.mlps[:, 0]) if "L0MLP" in found.parts else [],
        note=" ".join([*cap, *found.held_fixed]),
    )


def score_reasons(loaded: HookedModel, tokens: Tensor, layer: int, head: int, query: int, key: int) -> ScoreReasons:
    """QK attribution of one cell of an attention pattern."""
    from interp.circuits.score_explanation import explain_score

    check_head(loaded, layer, head)
    found = explain_score(loaded, tokens, f"L{layer}H{head}", query=query, key=key)
    return ScoreReasons(
        layer=layer,
        head=head,
        query=query,
        key=key,
        query_token=str(found.settings["query_token"]),
        key_token=str(found.settings["key_token"]),
        attention=found.attention,
        score=found.score,
        relative=found.relative_score,
        matrix=found.relative.numpy(),
        query_parts=list(found.query_parts),
        key_parts=list(found.key_parts),
    )


def feature_shares(loaded: HookedModel, sae: Any, tokens: Tensor, right: int, wrong: int | None) -> FeatureShares:
    """The strongest features behind `logit(right) - logit(wrong)` after the last of `tokens [1, n]`."""
    from interp.patching.metrics import LogitDiff
    from saes.circuits.attribution import AttributionConfig, attribute
    from saes.circuits.sites import Prompts

    metric, n = LogitDiff([right], None if wrong is None else [wrong]), tokens.shape[1]
    lengths = tokens.new_tensor([n]).cpu()
    prompts = Prompts(name="", tokens=tokens.cpu(), lengths=lengths, at=lengths[:, None] - 1, metric=metric)
    config = AttributionConfig(steps=SHARE_STEPS, first=int(bos_token_id(loaded) is not None))
    [found] = attribute(loaded, sae, prompts, config)
    texts = token_strings(loaded, tokens[0])
    shares: list[FeatureShare] = []
    for feature, effect in found.top(TOP_SHARES):
        mine = found.feature == feature
        position = int(found.position[mine][found.effect[mine].abs().argmax()])
        shares.append(FeatureShare(feature, effect, position, texts[position]))
    names = token_strings(loaded, [right] if wrong is None else [right, wrong])
    return FeatureShares(
        answer=names[0],
        contrast=None if wrong is None else names[1],
        after=n - 1,
        token=texts[-1],
        hook_point=found.site.writes,
        metric=float(found.metric.mean()),
        baseline=float(found.baseline.mean()),
        explained=found.explained,
        error=found.error_effect,
        gap=found.total - found.explained - found.error_effect,
        n_active=int((found.by_feature != 0).sum()),
        features=shares,
    )


def single_token(loaded: HookedModel, text: str, logits: Tensor) -> int:
    """The id of a word as it is typed or with a leading space, as in a sentence: the likelier of the two here."""
    from interp.lenses.direct_attribution import token_ids

    found: list[int] = []
    for form in (text,) if text.startswith(" ") else (text, f" {text}"):
        with contextlib.suppress(PromptError):
            found.append(int(token_ids(loaded, form, 1)[0]))
    if not found:
        raise PromptError(f"{text!r} is several tokens, with and without a leading space; choose a word that is one")
    return max(found, key=lambda token: float(logits[token]))


def _losses(loaded: HookedModel, residual: Tensor, tokens: Tensor, check: Check) -> list[float | None]:
    """Nats of each token given those before it; None for the first. `residual [n, d_model]`, `tokens [n]`."""
    found: list[float | None] = [None]
    for start in range(0, len(tokens) - 1, _LOSS_ROWS):
        check("computing the losses")
        targets = tokens[start + 1 : start + 1 + _LOSS_ROWS]
        logits = final_norm_and_unembed(loaded, residual[start : start + len(targets)]).float()
        own = logits.gather(1, targets[:, None].to(logits.device))[:, 0]
        found += lists(logits.logsumexp(-1) - own)
    return found


def _strongest(loaded: HookedModel, acts: Any, tokens: Tensor) -> list[list[ActiveFeature]]:
    """The strongest features on each token; none on BOS, on which no dictionary here is trained."""
    best = acts.values.topk(min(TOP_FEATURES, acts.values.shape[1]), dim=1)
    numbers = acts.indices.long().gather(1, best.indices)
    bos = bos_token_id(loaded)
    return [
        [ActiveFeature(n, a) for n, a in zip(*row, strict=True) if a > 0 and token != bos]
        for token, *row in zip(lists(tokens), numbers.tolist(), best.values.tolist(), strict=True)
    ]
