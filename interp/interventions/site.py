"""One dictionary in a model: what it reads, where it writes, and many directions added there at once.

An activation at a hook point does not depend on what is added at that hook point. So ablating a latent is adding minus
its activation times its direction, and null directions are added in the same amounts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.interventions.edits import adding
from interp.models.adapter import Hook, available_hook_points, bos_token_id, token_strings
from interp.models.generation import NextToken, Offset, generate
from interp.models.hooked import HookedModel
from interp.models.passes import block_after, capture, run_from
from interp.names import canonical_hook_point, parse_hook_point
from interp.seeds import make_generator

PASS_TOKENS = 1024
"""Tokens of one forward pass over several directions: their logits are in memory together."""


@dataclass(frozen=True)
class DictionarySite:
    """The hook points of a dictionary in a model."""

    model: HookedModel
    dictionary: Any
    reads: str
    writes: str
    first: int
    """positions at the start that are left alone: 1 where the model has a BOS token"""

    @classmethod
    def of(cls, model: HookedModel, dictionary: Any) -> "DictionarySite":
        """Return the hook points of an SAE, a transcoder or neurons. Raises `ConfigError` for a crosscoder."""
        reads = canonical_hook_point(dictionary.hook_point)
        writes = canonical_hook_point(getattr(dictionary, "hook_point_out", "") or reads)
        if len(getattr(dictionary, "hook_points", (reads,))) > 1:
            raise ConfigError(f"{dictionary} reads several hook points at once; choose a dictionary of one of them")
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
        """True where the direction is added to the residual stream between two blocks: it needs no hook."""
        return block_after(self.model, self.writes) is not None

    @property
    def stream(self) -> str:
        """Hook point of the residual stream in which the directions lie; `writes` where that is no layer's output."""
        if self.writes.endswith(("mlp.out.hook_out", "hook_mlp_out", "hook_attn_out")):
            return f"blocks.{parse_hook_point(self.writes).layer}.hook_resid_post"
        return self.writes

    def size(self, x: Tensor) -> Tensor:
        """Return the factor of every addition, `[..., 1]`: 1, or a token's scale where the dictionary normalises."""
        if not hasattr(self.dictionary, "scale") or self.writes != self.reads:
            return x.new_ones(*x.shape[:-1], 1)
        one = x.new_ones(*x.shape[:-1], 1)
        return self.dictionary.complete(one, x) - self.dictionary.complete(one - one, x)

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
        size = self.size(x)[..., 0].clone()
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
    site: DictionarySite,
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
        hooks: list[tuple[str, Hook]] = [("unembed.hook_in", lambda value, hook: value[:, first:])]
        if site.between_blocks:
            value = value + added.to(value)
        else:
            hooks.append((site.writes, adding(added)))
        logits = run_from(site.model, value, hooks, layer=site.start or 0)
        assert logits is not None  # only a pass with `until` has none
        found.append(measure(logits.unflatten(0, (len(part), n))).cpu())
        if done:
            done(len(part) * n * pos)
    return torch.cat(found)


def continuations(site: DictionarySite, tokens: Tensor, strength: float, directions: Tensor, n: int) -> list[str]:
    """Return the most likely continuations of `tokens [1, pos]`: unchanged first, then along each direction."""
    both = torch.cat([torch.zeros_like(directions[:1]), directions])
    n = min(n, site.model.cfg.n_ctx - tokens.shape[1])
    offset, scaled = Offset(), strength * both[:, None]
    stored: dict[str, Tensor] = {}

    def read(value: Tensor, hook: Any = None) -> None:
        size = site.size(value.float())
        size[:, : max(0, site.first - offset.tokens)] = 0
        stored["size"] = size

    hooks = [(site.reads, read), (site.writes, adding(lambda value: stored["size"] * scaled.to(stored["size"])))]
    step = NextToken(site.model, hooks, offset=offset)
    written = torch.stack(list(generate(step, tokens.repeat(len(both), 1), n)), 1) if n > 0 else tokens[:, :0]
    return ["".join(token_strings(site.model, row)) for row in written.expand(len(both), -1)]
