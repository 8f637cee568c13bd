"""Quality of a set: each layer on held-out rows, and the loss of the model with all its MLPs replaced.

Replaced one after the other, every transcoder sees a residual stream that those before it have changed, so errors add
up as they do in a replacement model. The baselines have the same number of units per token:

    neurons     of every MLP only the `k` neurons of largest `|activation| * |W_out|`, `k` the layer's own L0
    untrained   the set before its first training step
    mean        every MLP output replaced by its mean: the floor
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import ConfigError
from interp.interventions.edits import at_mask, inserting
from interp.models.adapter import available_hook_points
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.recording.store import Recording
from saes.evaluation.in_model import LOGIT_VALUES, Hooks, Losses, check_documents, logits_of, replace_by
from saes.evaluation.scores import InModel
from saes.sets.set import Firings, TranscoderSet
from saes.training.data import Source, Together
from saes.training.reconstruction import DocumentsOfRows, Sums
from saes.training.scores import Reconstruction

Replaced = Literal["set", "untrained", "neurons"]
"""What replaces the MLPs."""
SCORED = 65_536
"""Held-out tokens on which a set is scored, where a recording has more: the model has to read them again."""


@torch.no_grad()
def evaluate_layers(
    found: TranscoderSet,
    recording: Recording,
    *,
    heldout_fraction: float = 0.1,
    batch_size: int = 4096,
    seed: int = 0,
    limit: int = SCORED,
) -> dict[int, Reconstruction]:
    """Measure every layer on the first `limit` held-out rows of a recording or a few more, in one pass over them.

    Raises `ConfigError` when nothing is held out, `UnknownNameError` when a hook point was not recorded.
    """
    sources = [Source(recording, found.hook_point(n), target=found.hook_point_out(n)) for n in found.layers]
    sums = {layer: Sums(found.d_sae(layer), seed) for layer in found.layers}
    documents = DocumentsOfRows(recording)
    for rows in Together(sources).sequential(batch_size, split="heldout", heldout_fraction=heldout_fraction):
        if not len(rows[0].rows):
            continue
        pass_, document = Prediction(found), documents(rows[0].rows)
        for layer, own in zip(found.layers, rows, strict=True):
            firings, recons = pass_.read(layer, own.x), pass_.predict(layer)
            active = torch.bincount(firings.positions, minlength=len(own.x))
            assert own.target is not None
            sums[layer].add(active, firings.latents, recons, own.target, document)
        if sums[found.layers[0]].n >= limit:
            break
    if not all(each.n for each in sums.values()):
        raise ConfigError(f"{recording.folder} has no held-out tokens; record more documents")
    return {layer: each.result() for layer, each in sums.items()}


class Prediction:
    """One pass of the replacement model: inputs of all layers so far, and the outputs that the set predicts."""

    def __init__(self, found: TranscoderSet):
        self.found = found
        self._inputs: dict[int, Tensor] = {}
        self._firings: dict[int, Firings] = {}

    def read(self, layer: int, x: Tensor) -> Firings:
        """Encode the input `[n, d_in]` of a layer."""
        self._inputs[layer] = x
        self._firings[layer] = self.found.encode(layer, x)
        return self._firings[layer]

    def predict(self, layer: int) -> Tensor:
        """Return the predicted output `[n, d_out]` of a layer; all layers that write to it were read."""
        return self.found.assemble(layer, self._inputs[layer], self._firings)


@torch.no_grad()
def evaluate_in_model(
    found: TranscoderSet,
    model: HookedModel,
    tokens: Int[Tensor, "n pos"],
    *,
    documents: Int[Tensor, "n pos"] | None = None,
    means: Mapping[int, Tensor],
    l0: Mapping[int, float],
    untrained: TranscoderSet | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[Replaced, InModel]:
    """Return the loss of the model with all MLPs replaced by `set`, `neurons` and `untrained`, with that of `mean`.

    `means` are mean outputs `[d_out]` and `l0` active latents per token, both by layer. Positions without text are not
    replaced. `neurons` is missing where the model has no `mlp.hook_post`. Raises `MismatchError` for other weights.
    """
    found.check_model(model, all_layers=False)
    documents = check_documents(tokens, documents)
    size = max(1, LOGIT_VALUES // (tokens.shape[1] * model.cfg.d_vocab))
    sets: dict[Replaced, TranscoderSet] = {"set": found}
    if untrained is not None:
        sets["untrained"] = untrained
    for each in sets.values():
        each.to(model.cfg.device)
    neurons = all(f"blocks.{n}.mlp.hook_post" in available_hook_points(model) for n in found.layers)
    replaced: list[Replaced] = [*sets, *(["neurons"] if neurons else [])]
    losses = Losses(["clean", "zero", "mean", *replaced], seed)
    done = 0
    for batch, document in zip(tokens.split(size), documents.split(size), strict=True):
        text = document >= 0
        variants: dict[str, Hooks] = {
            "clean": [],
            "zero": [(found.hook_point_out(n), replace_by(torch.zeros_like(means[n]), text)) for n in found.layers],
            "mean": [(found.hook_point_out(n), replace_by(means[n].float(), text)) for n in found.layers],
            **{name: splice_all(each, text) for name, each in sets.items()},
        }
        if neurons:
            variants["neurons"] = [
                (f"blocks.{n}.mlp.hook_post", _largest(model, n, round(l0[n]), text)) for n in found.layers
            ]
        losses.add(((name, logits_of(model, batch, hooks)) for name, hooks in variants.items()), batch, document)
        done += len(batch)
        if progress:
            progress(done, len(tokens), {})
    return {name: losses.result(name) for name in replaced}


def splice_all(found: TranscoderSet, text: Tensor) -> Hooks:
    """Return hooks that replace the MLP outputs of all layers of a set at the positions `text [batch, pos]`."""
    pass_, hooks = Prediction(found), []

    def reads(layer: int) -> Callable[..., None]:
        def hook(value: Tensor, hook: Any = None) -> None:
            pass_.read(layer, value.flatten(0, 1))

        return hook

    def writes(layer: int) -> Callable[..., Tensor]:
        return at_mask(inserting(lambda value: pass_.predict(layer).view(*value.shape[:2], -1)), text)

    for layer in found.layers:
        hooks += [(found.hook_point(layer), reads(layer)), (found.hook_point_out(layer), writes(layer))]
    return hooks


def _largest(model: HookedModel, layer: int, k: int, text: Tensor) -> Callable[..., Tensor]:
    """Return a hook that zeroes all but the `k` neurons of a token that write most."""
    norms = model.blocks[layer].mlp.W_out.detach().float().norm(dim=1)

    def largest(value: Tensor) -> Tensor:
        size = value.float().abs() * norms.to(value.device)
        kept = torch.zeros_like(value).scatter_(-1, size.topk(max(1, min(k, size.shape[-1])), dim=-1).indices, 1.0)
        return value * kept

    return at_mask(inserting(largest), text)
