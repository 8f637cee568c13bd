"""A dictionary held to fewer active features than it has by itself, so that dictionaries compare at one sparsity.

One cutoff for all features: an activation is kept where what it adds, `activation * |decoder row|`, reaches it. It is
set on the rows that are then measured, since features fire more or less often on other text: all that is learned from
them is one number, the sparsity. Nothing is trained again; a dictionary trained at that sparsity would do better,
which is why its own L0 belongs beside every cut score.
"""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from interp.errors import ConfigError
from saes.kernels.state import Active, Ops
from saes.kinds.base import SAE


@final
class TruncatedSAE(SAE):
    """`inner` with its small contributions switched off; made for measuring, not for saving."""

    def __init__(self, inner: SAE, cutoff: float):
        super().__init__(inner.weights, metadata=inner.metadata)
        self.inner, self.cutoff, self.architecture = inner, cutoff, inner.architecture
        self.norms = self.W_dec.norm(dim=1)

    @property
    def hook_points(self) -> tuple[str, ...]:
        return self.inner.hook_points

    def encoder_input(self, x: Tensor) -> Tensor:
        return self.inner.encoder_input(x)

    def activate(self, pre: Tensor) -> Tensor:
        acts = self.inner.activate(pre)
        return acts * (acts * self.norms >= self.cutoff)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        active = self.inner.select(ops, pre)
        return active._replace(values=active.values * (active.values * self.norms[active.latents] >= self.cutoff))

    def complete(self, recons: Tensor, x: Tensor) -> Tensor:
        return self.inner.complete(recons, x)


@torch.no_grad()
def truncate(sae: SAE, batches: Iterator[Tensor], l0: float) -> SAE:
    """`sae` cut to `l0` active features per row on `batches [n, d_in]`; `sae` itself where it has no more than that.

    Raises `ConfigError` without rows, or with an L0 that is not above 0.
    """
    if l0 <= 0:
        raise ConfigError(f"l0 must be above 0, got {l0}")
    norms, found, n = sae.W_dec.norm(dim=1), [], 0
    for x in batches:
        acts = sae.encode_sparse(x)
        added = acts.values * norms[acts.indices.long()]
        found.append(added[added > 0])
        n += len(x)
    if not n:
        raise ConfigError("a cutoff needs rows to be set on; record more documents")
    added, keep = torch.cat(found), max(1, round(l0 * n))
    if len(added) <= keep:
        return sae
    return TruncatedSAE(sae, float(added.topk(keep).values[-1]))
