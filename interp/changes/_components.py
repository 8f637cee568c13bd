"""Components of a model by canonical name, and the null that changes are compared with.

**Components** are views into a model's live weights, under the same names for every architecture:

    L3H5.W_Q  L3KV1.W_K  L3H5.W_O  L3.b_O     per head; grouped keys and values by their group
    L3.mlp.gate  L3.mlp.in  L3.mlp.out  L3.ln1  L3.ln2
    embed  pos_embed  ln_final  unembed        a tied unembedding is part of `embed`
    other:NAME                                 a parameter that is none of these

Matrices are laid out as `x @ W [d_in, d_out]`. A bias is one more row, as for a constant input of 1. Together the
components hold every parameter once: writing all components of one model into another makes the two equal.

**The null.** Every measure is compared with its value for models without the fine-tuning in question:

- *Continuations*: the base trained further on the same kind of data with other seeds, without the fine-tuning. At least
  three are needed, since the bound is a prediction interval for one more continuation. The variance of `n` log values
  per test is moderated, `(d0 s0^2 + (n - 1) s^2) / (d0 + n - 1)`, with the mean variance of all tests as `s0^2` (Smyth
  2004; `d0` is fixed at 4, and 0 for a single test). The bound is Student's t at 5 % over all tests (Bonferroni). It is
  conservative (0.3 % errors in families of 20 tests) where the true variances of all tests are equal.
- *Rounding*, without continuations: the base with its weights rounded to bfloat16, a common storage format. Changes
  below twice the effect of rounding are not reported.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.changes.comparison import SMALLEST
from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.models.adapter import HeadShape, head_shape, tokenizer_hash
from interp.models.hooked import HookedModel
from interp.models.identity import plain_parameters
from interp.nulls import prediction_bound

SIDE_NAMES = (("q", "W_Q"), ("k", "W_K"), ("v", "W_V"))
SAME = ("architecture", "act_fn", "normalization_type", "positional_embedding_type", "parallel_attn_mlp")
"""settings that two models of one architecture share, in addition to their sizes"""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightComponent:
    """One component of a model. Writing into `tensors` changes the model."""

    name: str
    kind: str
    """the name after the layer or head: `W_Q`, `mlp.in`, `ln1`, `embed` ..."""
    layer: int | None = None
    tensors: tuple[Tensor, ...]
    """the matrix `[d_in, d_out]` (or a gain `[d]`), then the bias `[d_out]` where there is one"""

    @property
    def place(self) -> str:
        """Site in the model: `embed`, `L0` and so on, `unembed` or `other`."""
        if self.layer is not None:
            return f"L{self.layer}"
        ends = {"embed": "embed", "pos_embed": "embed", "other": "other"}
        return ends.get(self.kind, "unembed")

    @property
    def part(self) -> str:
        """The part that is transplanted with it: its site, of a layer `L0.attn` or `L0.mlp` by what reads it."""
        if self.layer is None:
            return self.place
        return f"{self.place}.mlp" if self.kind.startswith("mlp") or self.kind == "ln2" else f"{self.place}.attn"

    def matrix(self) -> Tensor:
        """Return a float64 copy `[rows, d_out]`, with the bias as the last row."""
        return torch.cat([t.detach().double().reshape(-1, t.shape[-1]) for t in self.tensors])


def components(model: HookedModel) -> list[WeightComponent]:
    """Return every component of a model, from the embedding to the unembedding.

    Raises `ConfigError` where attention has no separate query, key, value and output weights.
    """
    shape = head_shape(model)
    parts = [*_module(model, "embed", "embed"), *_module(model, "pos_embed", "pos_embed")]
    for layer in range(shape.n_layers):
        block = model.blocks[layer]
        parts += _module(block, "ln1", f"L{layer}.ln1", layer)
        parts += _attention(block.attn, layer, shape)
        parts += _module(block, "ln2", f"L{layer}.ln2", layer)
        mlp = getattr(block, "mlp", None)
        for part in ("gate", "in", "out"):
            parts += _module(mlp, part, f"L{layer}.mlp.{part}", layer)
    parts += _module(model, "ln_final", "ln_final")
    if not _shares(model.unembed.original_component.weight, parts):
        parts += _module(model, "unembed", "unembed")
    return parts + _others(model, parts)


def check_comparable(base: HookedModel, tuned: HookedModel) -> tuple[list[WeightComponent], list[WeightComponent]]:
    """Return the components of two models, as two lists in the same order.

    Raises `MismatchError` when the models differ in architecture or vocabulary, `NonFiniteError` naming the component
    that holds NaN or infinity.
    """
    base_shape, tuned_shape = head_shape(base), head_shape(tuned)
    for size in base_shape._fields:
        if getattr(base_shape, size) != getattr(tuned_shape, size):
            what = "vocabularies" if size == "d_vocab" else "architectures"
            raise MismatchError(
                f"the models have different {what}: {size} is {getattr(base_shape, size)} and "
                f"{getattr(tuned_shape, size)}; compare two checkpoints of one model"
            )
    for setting in SAME:
        values = [getattr(model.cfg, setting, None) for model in (base, tuned)]
        if values[0] != values[1]:
            raise MismatchError(
                f"the models have different architectures: {setting} is {values[0]} and {values[1]}; compare two "
                "checkpoints of one model"
            )
    if tokenizer_hash(base) != tokenizer_hash(tuned):
        raise MismatchError(
            "the models have different vocabularies: their tokenizers assign different tokens to one id; use two "
            "models with the same tokenizer"
        )
    parts = components(base), components(tuned)
    names = [[(c.name, [tuple(t.shape) for t in c.tensors]) for c in checkpoint] for checkpoint in parts]
    if names[0] != names[1]:
        differ = sorted({n for n, _ in names[0]} ^ {n for n, _ in names[1]}) or ["the shape of a component"]
        raise MismatchError(
            f"the models have different components: {', '.join(differ[:3])}; compare two checkpoints of one model"
        )
    for which, checkpoint in zip(("first", "second"), parts, strict=True):
        for component in checkpoint:
            if not all(bool(t.isfinite().all()) for t in component.tensors):
                raise NonFiniteError(f"{component.name} of the {which} model holds NaN or infinity")
    return parts


def same(base: WeightComponent, tuned: WeightComponent) -> bool:
    """Return whether a component is equal in two models, to the bit."""
    return all(torch.equal(a, b.to(a.device)) for a, b in zip(base.tensors, tuned.tensors, strict=True))


@contextlib.contextmanager
def written(targets: Sequence[WeightComponent], values: Sequence[Sequence[Tensor]]) -> Iterator[None]:
    """Write other values into `targets` for the duration of the block, then restore the old ones to the bit.

    `values` has the tensors of each target. The model is changed in place: do not use it elsewhere meanwhile.
    """
    flat = [
        (t, v)
        for target, tensors in zip(targets, values, strict=True)
        for t, v in zip(target.tensors, tensors, strict=True)
    ]
    saved = [t.detach().clone() for t, _ in flat]
    try:
        with torch.no_grad():
            for tensor, value in flat:
                tensor.copy_(value)
        yield
    finally:
        with torch.no_grad():
            for (tensor, _), old in zip(flat, saved, strict=True):
                tensor.copy_(old)


def units(parts: Sequence[WeightComponent]) -> dict[str, list[int]]:
    """Map the parts of a model (`embed`, `L0.attn`, `L0.mlp` ... `unembed`, `other`) to indices of their components.

    Every component is in one part. A norm belongs to the module that reads it: `ln1` to attention, `ln2` to the MLP,
    `ln_final` to the unembedding.
    """
    indices: dict[str, list[int]] = {}
    for i, part in enumerate(parts):
        indices.setdefault(part.part, []).append(i)
    return indices


def _module(owner: object, attribute: str, name: str, layer: int | None = None) -> list[WeightComponent]:
    """Return the component of a wrapped linear map, embedding or norm, as a list; empty if there is no such module."""
    wrapped = getattr(owner, attribute, None) if owner is not None else None
    module = getattr(wrapped, "original_component", None)
    if getattr(module, "weight", None) is None:
        return []
    kind = name.split(".", 1)[-1] if layer is not None else name
    return [WeightComponent(name=name, kind=kind, layer=layer, tensors=_tensors(module))]


def _tensors(module: Any) -> tuple[Tensor, ...]:
    """Return the weight as `x @ W`, then the bias; `nn.Linear` stores its weight transposed."""
    weight = module.weight.T if isinstance(module, torch.nn.Linear) else module.weight
    bias = getattr(module, "bias", None)
    return (weight,) if bias is None else (weight, bias)


def _attention(attn: object, layer: int, shape: HeadShape) -> list[WeightComponent]:
    parts = []
    for side, kind in SIDE_NAMES:
        tensors = _tensors(_projection(attn, side))
        grouped = side != "q" and shape.n_kv_heads != shape.n_heads
        for head in range(shape.n_kv_heads if side != "q" else shape.n_heads):
            columns = slice(head * shape.d_head, (head + 1) * shape.d_head)
            owner = f"L{layer}{'KV' if grouped else 'H'}{head}"
            views = tuple(t[..., columns] for t in tensors)
            parts.append(WeightComponent(name=f"{owner}.{kind}", kind=kind, layer=layer, tensors=views))
    weight, *bias = _tensors(_projection(attn, "o"))
    for head in range(shape.n_heads):
        rows = weight[head * shape.d_head : (head + 1) * shape.d_head]
        parts.append(WeightComponent(name=f"L{layer}H{head}.W_O", kind="W_O", layer=layer, tensors=(rows,)))
    return parts + [WeightComponent(name=f"L{layer}.b_O", kind="b_O", layer=layer, tensors=(b,)) for b in bias]


def _projection(attn: object, side: str) -> Any:
    module = getattr(getattr(attn, side, None), "original_component", None)
    if getattr(module, "weight", None) is None:
        raise ConfigError(
            f"heads can be compared where attention has separate query, key, value and output weights; this model has "
            f"none for {side!r}"
        )
    return module


def _shares(tensor: Tensor, parts: Sequence[WeightComponent]) -> bool:
    return any(tensor.untyped_storage().data_ptr() == t.untyped_storage().data_ptr() for p in parts for t in p.tensors)


def _others(model: HookedModel, parts: list[WeightComponent]) -> list[WeightComponent]:
    """Return parameters of which no component is a view, without the bridge's unsplit copies of joint weights."""
    seen = {t.untyped_storage().data_ptr() for part in parts for t in part.tensors}
    return [
        WeightComponent(name=f"other:{name}", kind="other", tensors=(value,))
        for name, value in plain_parameters(model.original_model)
        if value.untyped_storage().data_ptr() not in seen and ".qkv." not in name
    ]


ROUNDING_MARGIN = 2.0
PRIOR_DEGREES = 4


def null_models(base: HookedModel, continuations: Sequence[HookedModel]) -> list[AbstractContextManager[HookedModel]]:
    """Return each null as a context manager that yields a model: the continuations, or the base while it is rounded.

    Raises `ConfigError` for one or two continuations, `MismatchError` for one of another architecture.
    """
    check_count(continuations)
    for model in continuations:
        check_comparable(base, model)
    return [contextlib.nullcontext(model) for model in continuations] or [rounded(base)]


def check_count(continuations: Sequence[HookedModel]) -> None:
    """Raise `ConfigError` for one or two continuations, whose variance cannot be estimated."""
    if 0 < len(continuations) < 3:
        raise ConfigError(
            f"the variance between continuations needs at least 3 of them, got {len(continuations)}; give more, or "
            "none (then the null is rounding to bfloat16)"
        )


def describe_null(n_continuations: int) -> str:
    """Return the null in words."""
    if n_continuations:
        return f"{n_continuations} continuations of the base"
    return f"{ROUNDING_MARGIN:g} times the change from rounding the base to bfloat16"


@contextlib.contextmanager
def rounded(model: HookedModel) -> Iterator[HookedModel]:
    """Yield the model with its weights rounded to bfloat16 for the duration of the block."""
    parts = components(model)
    with written(parts, [[t.to(torch.bfloat16).to(t.dtype) for t in part.tensors] for part in parts]):
        yield model


def upper_bound(values: np.ndarray, *, n_tests: int, log: bool = True) -> np.ndarray:
    """Return the upper prediction bound `[...]` for one more null, given `values [n_null, ...]`, at 5 % over `n_tests`.

    With `log` the values are sizes (0 or more), and the variance is that of their logarithms. The bound of a single
    null is twice its value.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 1:
        return ROUNDING_MARGIN * values[0]
    scaled = np.log(np.maximum(values, SMALLEST)) if log else values
    mean, variance = scaled.mean(0), scaled.var(0, ddof=1)
    degrees, prior = len(values) - 1, PRIOR_DEGREES if variance.size > 1 else 0
    moderated = (prior * variance.mean() + degrees * variance) / (prior + degrees)
    bound = prediction_bound(mean, np.sqrt(moderated), len(values), n_tests=max(n_tests, 1), df=prior + degrees)
    return np.exp(bound) if log else bound
