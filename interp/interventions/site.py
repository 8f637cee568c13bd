"""One dictionary in a model: what it reads, where it writes, and many directions added there at once.

An activation at a hook point does not depend on what is added at that hook point. So ablating a latent is adding minus
its activation times its direction, and null directions are added in the same amounts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.interventions.arms import AdditionScale, Arms, Prefix, prefix_of
from interp.models.adapter import available_hook_points, bos_token_id, token_strings
from interp.models.generation import NextToken, Offset, generate
from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point, parse_hook_point
from interp.seeds import make_generator


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
    def of(cls, model: HookedModel, dictionary: Dictionary) -> "DictionarySite":
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
    def stream(self) -> str:
        """Hook point of the residual stream in which the directions lie; `writes` where that is no layer's output."""
        if self.writes.endswith(("mlp.out.hook_out", "hook_mlp_out", "hook_attn_out")):
            return f"blocks.{parse_hook_point(self.writes).layer}.hook_resid_post"
        return self.writes

    @property
    def normalises(self) -> bool:
        """True where the dictionary scales each token, so that what it writes is scaled too."""
        return hasattr(self.dictionary, "scale") and self.writes == self.reads

    def size(self, x: Tensor) -> Tensor:
        """Return the factor of every addition, `[..., 1]`: 1, or a token's scale where the dictionary normalises."""
        if not self.normalises:
            return x.new_ones(*x.shape[:-1], 1)
        ones = x.new_ones(*x.shape[:-1], 1)
        return self.dictionary.complete(ones, x) - self.dictionary.complete(ones - ones, x)

    def arms(self, feature: int, alike: Sequence[int], draws: int, seed: int, amount: float = 1.0) -> Arms:
        """Return what is added along the direction of a feature, and along the directions of both nulls.

        The nulls are `draws` random directions, then those of the features `alike`, all with the norm of the feature's
        own. An amount is an activation of the feature.
        """
        direction = self.directions[feature].cpu()
        if not float(direction.norm()) > 0:
            raise ConfigError(f"the direction of feature {feature} is zero, so nothing can be added along it")
        drawn = torch.randn(draws, len(direction), generator=make_generator(seed, "random directions", feature))
        others = torch.cat([drawn, self.directions[list(alike)].cpu()])
        others = others * (direction.norm() / others.norm(dim=1, keepdim=True))
        return self.adding(torch.cat([direction[None], others]), amount)

    def adding(self, directions: Tensor, amount: float = 1.0) -> Arms:
        """Return what is added along directions `[k, d]`, in the amounts in which the dictionary writes."""
        scale = AdditionScale(self.reads, self.size) if self.normalises else None
        return Arms(self.writes, directions, torch.full((len(directions),), amount), scale=scale)

    @staticmethod
    def null_slices(draws: int) -> tuple[slice, slice]:
        """Return where the random directions and those of other features are in `arms`; the feature's own is first."""
        return slice(1, 1 + draws), slice(1 + draws, None)

    def read(self, tokens: Tensor) -> "UnchangedRun":
        """Run the model unchanged on `tokens [n, pos]`, up to the hook points that are needed."""
        arms = self.adding(self.directions[:1])
        prefix, values = prefix_of(self.model, tokens, arms, [self.reads])
        return UnchangedRun(prefix, values[self.reads].float())

    def activations(self, x: Tensor, features: Sequence[int]) -> Tensor:
        """Return the activations of some features, `[..., len(features)]` float32, 0 at positions that are left out."""
        acts = self.dictionary.encode(x)[..., list(features)].detach().float().clone()
        acts[:, : self.first] = 0
        return acts


@dataclass(frozen=True)
class UnchangedRun:
    """Values of an unchanged run."""

    prefix: Prefix
    """the run up to the block where the dictionary writes"""
    x: Tensor
    """`[n, pos, d_in]` float32, at the hook point that is read"""


def continuations(site: DictionarySite, tokens: Tensor, arms: Arms, n: int) -> list[str]:
    """Return the most likely continuations of `tokens [1, pos]`: unchanged first, then of every arm."""
    every = arms.with_unchanged()
    n = min(n, site.model.cfg.n_ctx - tokens.shape[1])
    offset = Offset()
    step = NextToken(site.model, every.hooks(site.model, offset), offset=offset)
    written = torch.stack(list(generate(step, tokens.repeat(len(every), 1), n)), 1) if n > 0 else tokens[:, :0]
    return ["".join(token_strings(site.model, row)) for row in written.expand(len(every), -1)]
