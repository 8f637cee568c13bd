"""Published files of Jacobian lenses, read and written: `J`, `n_prompts`, `source_layers`, `d_model`, `metadata`.

The form is that of Anthropic's jacobian-lens and of TransformerLens 4.3 (`JacobianLens.save`), in which lenses of many
models are published. `J` has one matrix per block: the derivative of the last residual in the residual after it.
Checkpoints of a fit (`jacobian_sum`, `n_done`) are read too. Files are read with `weights_only`: no code in them runs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.artifacts import atomic_file
from interp.errors import CorruptError, MismatchError, MissingError
from interp.lenses.jacobian_lens import JacobianLens
from interp.models.hooked import HookedModel
from interp.names import parse_hook_point


class PublishedLens(NamedTuple):
    """Contents of a published file."""

    jacobians: dict[int, Tensor]
    """block -> `[d_model, d_model]` float32"""
    n_prompts: int
    metadata: dict[str, Any]


def read_published(path: Path) -> PublishedLens:
    """Read a published file. Raises `MissingError`, and `CorruptError` for one of another form."""
    if not path.is_file():
        raise MissingError(f"no file at {path}")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors
        raise CorruptError(
            f"cannot read {path} as a Jacobian lens, a .pt file with nothing but tensors, numbers and text: {error}"
        ) from error
    try:
        return _published(held)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptError(
            f"{path} is not a Jacobian lens: expected square matrices by layer under 'J', "
            f"{type(error).__name__}: {error}"
        ) from error


def _published(held: Mapping[str, Any]) -> PublishedLens:
    summed = "J" not in held
    n = int(held["n_done"] if summed else held.get("n_prompts", 0))
    matrices = {int(layer): matrix.float() for layer, matrix in held["jacobian_sum" if summed else "J"].items()}
    if (summed and n < 1) or not matrices:
        raise ValueError(f"{len(matrices)} matrices over {n} prompts")
    d = len(next(iter(matrices.values())))
    for layer, matrix in matrices.items():
        if matrix.shape != (d, d) or not matrix.isfinite().all():
            raise ValueError(f"the matrix of layer {layer} is {list(matrix.shape)}, or not finite")
    metadata = dict(held.get("metadata") or {})
    metadata |= {key: held[key] for key in ("model_name", "target_layer") if key in held}
    return PublishedLens({k: m / n if summed else m for k, m in sorted(matrices.items())}, n, metadata)


def check_fits(published: PublishedLens, model: HookedModel) -> None:
    """Raise `MismatchError` for a lens of another width, of more blocks, or that ends before the last block."""
    cfg, layers = model.cfg, list(published.jacobians)
    width = len(published.jacobians[layers[0]])
    target = published.metadata.get("target_layer", cfg.n_layers - 1)
    if width != cfg.d_model or not 0 <= layers[0] <= layers[-1] < cfg.n_layers or target != cfg.n_layers - 1:
        raise MismatchError(
            f"the lens has blocks {layers[0]} to {layers[-1]} of width {width} and ends after block {target}; this "
            f"model has {cfg.n_layers} blocks of width {cfg.d_model}"
        )


def write_published(lens: JacobianLens, path: Path) -> None:
    """Write a lens as a published file; the embedding's Jacobian is left out, as it holds blocks only."""
    blocks = {
        parse_hook_point(layer.hook_point).layer or 0: torch.from_numpy(lens.jacobians[i])
        for i, layer in enumerate(lens.layers)
        if layer.hook_point.endswith("hook_resid_post")
    }
    metadata = {
        "model_name": lens.settings.model,
        "weight_hash": lens.settings.weight_hash,
        "corpus": lens.settings.source,
        "max_seq_len": lens.settings.context_length,
        "skip_first_positions": lens.settings.skip,
    }
    held = {
        "J": blocks,
        "n_prompts": lens.n_texts,
        "source_layers": sorted(blocks),
        "d_model": lens.jacobians.shape[-1],
        "metadata": metadata,
    }
    with atomic_file(path) as temporary:
        torch.save(held, temporary)
