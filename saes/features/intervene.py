"""Interventions on a model through an SAE: splicing, ablation, clamping and steering, and sampled continuations.

    model.run_with_hooks(tokens, fwd_hooks=splice_hooks(sae, keep_error=True, edit=ablate(sae, 12)))
    model.run_with_hooks(tokens, fwd_hooks=steer_hooks(sae, 12, 8.0))

A hook is `fn(value, hook) -> value` on values `[batch, pos, d]`. An edit is a function of latent activations,
`[batch, pos, d_sae] -> [batch, pos, d_sae]`. A transcoder takes two hooks: one records its input, the other replaces
the value that it predicts.

`FeatureSite` names the hook points of an SAE, a transcoder or neurons, and `effects_of` adds many directions there at
once. An activation at a hook point does not depend on what is added at that hook point. So ablating a feature is adding
minus its activation times its direction, and null directions are added in the same amounts.

`continue_tokens` continues a text with hooks applied, greedily or sampled from a seed. It runs the whole text again for
every new token, so that hooks see the same values as on a text given at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import (
    Hook,
    available_hook_points,
    bos_token_id,
    run_with_hooks,
    token_strings,
)
from interp.models.hooked import HookedModel
from interp.models.passes import capture, run_from
from interp.names import canonical_hook_point, parse_hook_point
from interp.notes import Notes, Recipe, Step
from interp.runtime import make_generator
from interp.workspace import Workspace
from saes.features.schema import Features
from saes.kinds.base import SAE
from saes.kinds.crosscoder import CrosscoderSAE
from saes.weights.folder import check_model, load_sae

Edit = Callable[[Tensor], Tensor]


def splice(sae: SAE, *, keep_error: bool = False, edit: Edit | None = None) -> Hook:
    """Return a hook that replaces the activation by the SAE's reconstruction, after an optional `edit` of its latents.

    With `keep_error` the reconstruction error is added back, so that only the edit has an effect. Without an edit the
    value then passes through unchanged. Raises `ConfigError` for a transcoder, whose output belongs at another hook
    point (`splice_hooks` returns both hooks), and for a crosscoder.
    """
    if _writes_elsewhere(sae):
        raise ConfigError(
            f"an SAE that reconstructs {sae.hook_point} was expected, {sae} predicts {sae.hook_point_out}; "
            "take `splice_hooks`"
        )
    _check_single_hook_point(sae)

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return _spliced(sae, value, value, keep_error, edit)

    return hook


def splice_hooks(
    sae: SAE, *, keep_error: bool = False, edit: Edit | None = None, first: int = 0
) -> list[tuple[str, Hook]]:
    """Return the hooks that splice an SAE or a transcoder into a model, each with its hook point.

    The `first` positions keep their values. `keep_error` is as in `splice`; the error of a transcoder is the value at
    its output hook point minus its prediction.
    """
    if not _writes_elsewhere(sae):
        return [(sae.hook_point, keep_positions(splice(sae, keep_error=keep_error, edit=edit), first))]
    read: dict[str, Tensor] = {}

    def reads(value: Tensor, hook: Any = None) -> None:
        read["x"] = value

    def writes(value: Tensor, hook: Any = None) -> Tensor:
        return _spliced(sae, read["x"], value, keep_error, edit)

    return [(sae.hook_point, reads), (sae.hook_point_out, keep_positions(writes, first))]


def _spliced(sae: SAE, x: Tensor, value: Tensor, keep_error: bool, edit: Edit | None) -> Tensor:
    """Return the reconstruction from the input `x` that replaces `value`."""
    if keep_error and edit is None:
        return value
    x = x.to(sae.W_enc.dtype)
    acts = sae.encode(x)
    recons = sae.complete(sae.decode(edit(acts) if edit else acts), x)
    if keep_error:
        recons = value.to(recons.dtype) + (recons - sae.complete(sae.decode(acts), x))
    return recons.to(value.dtype)


def ablate(sae: SAE, *features: int) -> Edit:
    """Return an edit that ablates latents: it sets them to 0. Raises `ConfigError` for a number outside the SAE."""
    _check(sae, features)

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., list(features)] = 0
        return edited

    return edit


def clamp(sae: SAE, feature: int, value: float) -> Edit:
    """Return an edit that clamps a latent to `value` on every token."""
    _check(sae, (feature,))

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., feature] = value
        return edited

    return edit


def steer(sae: SAE, feature: int, amount: float) -> Hook:
    """Return a steering hook for the SAE's output hook point: it adds `amount` times a decoder direction to every
    token.

    Nothing is encoded. For an SAE that normalises tokens, the addition is also multiplied by each token's own scale.
    """
    _check(sae, (feature,))
    _check_single_hook_point(sae)
    direction = sae.decoder_directions[feature] * amount

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        added = direction.to(value.device)
        if not _writes_elsewhere(sae):
            x = value.to(added.dtype)
            added = sae.complete(sae.b_dec + added, x) - sae.complete(sae.b_dec.expand_as(added), x)
        return value + added.to(value.dtype)

    return hook


def steer_hooks(sae: SAE, feature: int, amount: float, *, first: int = 0) -> list[tuple[str, Hook]]:
    """Return the hook of `steer` with its hook point; the `first` positions keep their values."""
    return [(sae.hook_point_out or sae.hook_point, keep_positions(steer(sae, feature, amount), first))]


def keep_positions(inner: Hook, n: int) -> Hook:
    """Return a hook that applies `inner` to all but the first `n` positions (SAEs are trained without BOS)."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return torch.cat([value[:, :n], inner(value, hook=hook)[:, n:]], dim=1)

    return hook


def _writes_elsewhere(sae: SAE) -> bool:
    return sae.hook_point_out not in ("", sae.hook_point)


def _check_single_hook_point(sae: SAE) -> None:
    if isinstance(sae, CrosscoderSAE):
        raise ConfigError(f"{sae} reads several hook points at once; splice an SAE or a transcoder of one of them")


def _check(sae: SAE, features: tuple[int, ...]) -> None:
    for feature in features:
        if not 0 <= feature < sae.d_sae:
            raise ConfigError(f"there is no feature {feature}; choose one of the SAE's features 0 to {sae.d_sae - 1}")


PASS_TOKENS = 1024
"""Tokens of one forward pass over several directions: their logits are in memory together."""


@dataclass(frozen=True)
class FeatureSite:
    """The hook points of a dictionary in a model."""

    model: HookedModel
    dictionary: Any
    reads: str
    writes: str
    first: int
    """positions at the start that are left alone: 1 where the model has a BOS token"""

    @classmethod
    def of(cls, model: HookedModel, dictionary: Any) -> "FeatureSite":
        """Return the hook points of an SAE, a transcoder or neurons. Raises `ConfigError` for a crosscoder."""
        reads = canonical_hook_point(dictionary.hook_point)
        writes = canonical_hook_point(getattr(dictionary, "hook_point_out", "") or reads)
        if len(getattr(dictionary, "hook_points", (reads,))) > 1:
            raise ConfigError(f"{dictionary} reads several hook points at once; prove a feature of one of them")
        point = parse_hook_point(reads)
        if point.suffix == "mlp.hook_post":  # neurons write through W_out
            known = available_hook_points(model)
            inner, outer = (f"blocks.{point.layer}.{name}" for name in ("mlp.out.hook_out", "hook_mlp_out"))
            writes = inner if inner in known else outer  # before a post-norm, where there is one
        return cls(model, dictionary, reads, writes, int(bos_token_id(model) is not None))

    @property
    def directions(self) -> Tensor:
        """`[d_sae, d]` float32: the vector that a unit of each feature writes."""
        return self.dictionary.decoder_directions.detach().float()

    @property
    def start(self) -> int | None:
        """Block from which a pass has to run; None for the whole model. The end of a block is the start of the next."""
        point = parse_hook_point(self.writes)
        if point.layer is None:
            return None
        return point.layer + self.between_blocks

    @property
    def between_blocks(self) -> bool:
        """True where the direction is added to the stream between two blocks: it needs no hook."""
        point = parse_hook_point(self.writes)
        return point.suffix == "hook_resid_post" and (point.layer or 0) + 1 < self.model.cfg.n_layers

    @property
    def stream(self) -> str:
        """Hook point of the residual stream in which the directions lie; `writes` where that is no layer's output."""
        if self.writes.endswith(("mlp.out.hook_out", "hook_mlp_out", "hook_attn_out")):
            return f"blocks.{parse_hook_point(self.writes).layer}.hook_resid_post"
        return self.writes

    def nulls(self, feature: int, alike: Sequence[int], draws: int, seed: int) -> Tensor:
        """Return the direction of a feature, `draws` random ones and those of `alike`, `[1 + draws + n, d]`.

        All have the norm of the feature's direction.
        """
        own = self.directions[feature].cpu()
        if not float(own.norm()) > 0:
            raise ConfigError(f"the direction of feature {feature} is zero, so nothing can be added along it")
        drawn = torch.randn(draws, len(own), generator=make_generator(seed, "random directions", feature))
        others = torch.cat([drawn, self.directions[list(alike)].cpu()])
        others = others * (own.norm() / others.norm(dim=1, keepdim=True))
        return torch.cat([own[None], others])

    @staticmethod
    def null_slices(draws: int) -> tuple[slice, slice]:
        """Return where the random directions and those of other features are in `nulls`; the feature's own is first."""
        return slice(1, 1 + draws), slice(1 + draws, None)

    def read(self, tokens: Tensor) -> "Reading":
        """Run the model unchanged on `tokens [n, pos]`, up to the hook points that are needed."""
        names = {self.reads} | ({f"blocks.{self.start}.hook_resid_pre"} if self.start is not None else set())
        values = capture(self.model, tokens, sorted(names))
        x = values[self.reads].float()
        before = tokens if self.start is None else values[f"blocks.{self.start}.hook_resid_pre"]
        size = x.new_ones(x.shape[:2])
        if hasattr(self.dictionary, "scale") and self.writes == self.reads:
            size = self.dictionary.scale(x).size[..., 0]
        size = size.clone()
        size[:, : self.first] = 0
        return Reading(tokens, x, before, size)

    def activations(self, x: Tensor, features: Sequence[int]) -> Tensor:
        """Return the activations of some features, `[..., len(features)]` float32, 0 at positions that are left out."""
        acts = self.dictionary.encode(x)[..., list(features)].detach().float().clone()
        acts[:, : self.first] = 0
        return acts


@dataclass(frozen=True)
class Reading:
    """Values of an unchanged run."""

    tokens: Tensor
    x: Tensor
    """`[n, pos, d_in]` float32, at the hook point that is read"""
    before: Tensor
    """residual before the block from which passes run, or the tokens"""
    size: Tensor
    """`[n, pos]`: factor of every addition, for dictionaries that normalise tokens; 0 where nothing is added"""


@torch.no_grad()
def effects_of(
    site: FeatureSite,
    reading: Reading,
    amounts: Tensor,
    directions: Tensor,
    measure: Callable[[Tensor], Tensor],
    done: Callable[[int], None] | None = None,
    *,
    first: int = 0,
) -> Tensor:
    """Return what `measure` reads from the logits when `amounts [n, pos]` times each direction is added.

    `measure` maps logits `[m, n, pos - first, d_vocab]` to `[m, ...]`; a `first` below 0 counts from the end. Logits of
    earlier positions are not computed. The result has one row for each of `directions [k, d]`; a direction of zeros
    gives the unchanged model. `done` is called with the number of tokens of each pass.
    """
    n, pos = reading.tokens.shape
    scaled = (amounts * reading.size)[None, :, :, None]
    found = []
    for part in directions.to(scaled).split(max(1, PASS_TOKENS // (n * pos))):
        added = (scaled * part[:, None, None]).flatten(0, 1)
        value = reading.before.repeat(len(part), *[1] * (reading.before.ndim - 1))
        logits = _steered(site, value, added, first)
        found.append(measure(logits.unflatten(0, (len(part), n))).cpu())
        if done:
            done(len(part) * n * pos)
    return torch.cat(found)


def _steered(site: FeatureSite, before: Tensor, added: Tensor, first: int) -> Tensor:
    """Return the logits from position `first` on when `added [n, pos, d]` is added where the site writes."""
    hooks: list[tuple[str, Hook]] = [("unembed.hook_in", lambda value, hook: value[:, first:])]
    if site.between_blocks:
        before = before + added.to(before)
    else:
        hooks.append((site.writes, lambda value, hook: value + added.to(value)))
    logits = run_from(site.model, before, hooks, layer=site.start or 0)
    assert logits is not None
    return logits


@torch.no_grad()
def continue_tokens(
    model: HookedModel,
    tokens: Int[Tensor, "1 pos"],
    n_new: int,
    *,
    hooks: Sequence[tuple[str, Hook]] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " {n_new}"]:
    """Return the `[n_new]` token ids that follow `tokens [1, pos]`.

    At temperature 0 these are the most likely ones, above it samples drawn by `generator`. Raises `ConfigError` for a
    negative temperature, sampling without a generator, or a text longer than the context.
    """
    if temperature < 0 or (temperature > 0 and generator is None):
        raise ConfigError(f"temperature must be at least 0, and sampling needs a generator; got {temperature}")
    if tokens.shape[1] + n_new > model.cfg.n_ctx:
        raise ConfigError(
            f"{tokens.shape[1]} tokens and {n_new} new ones exceed the context of {model.cfg.n_ctx}; ask for fewer"
        )
    start = tokens.shape[1]
    for _ in range(n_new):
        logits = run_with_hooks(model, tokens, [*hooks])[0, -1].float()
        tokens = torch.cat([tokens, _next(logits, temperature, generator).view(1, 1).to(tokens)], dim=1)
    return tokens[0, start:]


@torch.no_grad()
def next_token_logits(
    model: HookedModel, tokens: Int[Tensor, "1 pos"], hooks: Sequence[tuple[str, Hook]] = ()
) -> Float32[Tensor, " d_vocab"]:
    """Return the logits `[d_vocab]` float32 of the token that follows `tokens [1, pos]`."""
    return run_with_hooks(model, tokens, [*hooks])[0, -1].float()


def _next(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if not temperature:
        return logits.argmax()
    return torch.multinomial((logits / temperature).softmax(-1).cpu(), 1, generator=generator)[0]


@torch.no_grad()
def continuations(site: FeatureSite, tokens: Tensor, strength: float, directions: Tensor, n: int) -> list[str]:
    """Return the most likely continuations of `tokens [1, pos]`: unchanged first, then along each direction."""
    both = torch.cat([torch.zeros_like(directions[:1]), directions])
    if tokens.shape[1] + n > site.model.cfg.n_ctx:
        n = site.model.cfg.n_ctx - tokens.shape[1]
    rows = tokens.repeat(len(both), 1)
    scaled = strength * both
    for _ in range(n):
        reading = site.read(rows)
        added = reading.size[:, :, None] * scaled[:, None].to(reading.x)
        logits = _steered(site, reading.before, added, -1)
        rows = torch.cat([rows, logits[:, -1].argmax(-1)[:, None]], dim=1)
    return ["".join(token_strings(site.model, row[tokens.shape[1] :])) for row in rows]


@dataclass(frozen=True)
class LoadedRecipe:
    """A saved intervention with the SAEs of its steps, by key; steps on neurons need none."""

    recipe: Recipe
    saes: dict[str, SAE]
    neurons: dict[str, str]
    """Hook point of the neurons of a step, by key."""

    def hooks(self, model: HookedModel, *, allow_other_weights: bool = False) -> list[tuple[str, Hook]]:
        """Return the hooks that carry the recipe out on every token but the BOS.

        Clamps and ablations of one SAE are made in one splice that adds the reconstruction error back; additions come
        last. Raises `MismatchError` when an SAE was trained on other weights, unless `allow_other_weights`.
        """
        from interp.models.identity import weight_hash

        first, hooks = int(bos_token_id(model) is not None), []
        for key, sae in self.saes.items():
            check_model(sae, weight_hash(model), allow_other_weights=allow_other_weights)
            on_device = sae.to(model.cfg.device)
            steps = [step for step in self.recipe.steps if step.dictionary == key]
            edits = [_edit(on_device, step) for step in steps if step.action != "add"]
            if edits:
                hooks += splice_hooks(on_device, keep_error=True, edit=_in_turn(edits), first=first)
            for step in steps:
                if step.action == "add":
                    hooks += steer_hooks(on_device, step.feature, step.amount, first=first)
        for step in self.recipe.steps:
            if step.dictionary in self.neurons:
                hooks.append((self.neurons[step.dictionary], keep_positions(_on_neuron(step), first)))
        return hooks


def load_recipe(workspace: Workspace | Path | str, name: str) -> LoadedRecipe:
    """Return the recipe of this name among the notes of a workspace.

        hooks = load_recipe("workspace", "months up").hooks(model)
        model.run_with_hooks(tokens, fwd_hooks=hooks)

    Raises `UnknownNameError`: no such recipe, or no such dictionary any more.
    """
    opened = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    notes = Notes.open(opened)
    recipe = notes.recipe(name)
    notes.close()
    saes, neurons = {}, {}
    for key in dict.fromkeys(step.dictionary for step in recipe.steps):
        folder, _, artefact = key.partition("/")
        source = f"sae:{artefact}"
        if folder == "features":
            source = opened.open(Features, artefact).dictionary
        kind, _, rest = source.partition(":")
        if kind == "sae":
            opened.manifest("sae", rest)  # the clearer error when it is gone
            saes[key] = load_sae(opened.path("sae", rest))
        else:
            neurons[key] = rest
    return LoadedRecipe(recipe, saes, neurons)


def _edit(sae: SAE, step: Step) -> Edit:
    return ablate(sae, step.feature) if step.action == "ablate" else clamp(sae, step.feature, step.amount)


def _in_turn(edits: Sequence[Edit]) -> Edit:
    def edit(acts: Tensor) -> Tensor:
        for each in edits:
            acts = each(acts)
        return acts

    return edit


def _on_neuron(step: Step) -> Hook:
    def hook(value: Tensor, hook: Any = None) -> Tensor:
        if not 0 <= step.feature < value.shape[-1]:
            raise ConfigError(f"there is no neuron {step.feature}; choose one of 0 to {value.shape[-1] - 1}")
        edited = value.clone()
        kept = value[..., step.feature] if step.action == "add" else 0.0
        edited[..., step.feature] = kept + (0.0 if step.action == "ablate" else step.amount)
        return edited

    return hook
