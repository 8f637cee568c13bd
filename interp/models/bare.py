"""A pass without the hook points that nobody uses, for text that is written one token at a time.

TransformerLens wraps every block, norm and linear map in a module of its own. Over a single token these wrappers take
about a third of the time. `without_idle` runs the modules of transformers themselves, but where a hook looks.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point

if TYPE_CHECKING:
    from torch import nn


class Wrapper(NamedTuple):
    """A wrapped module of a model."""

    parent: "nn.Module"
    name: str
    """name among the children of `parent`"""
    inner: "nn.Module"
    """the module of transformers"""
    wrapper: "nn.Module"
    points: list[Any]
    """hook points of the wrapper itself"""


def wrappers_of(model: HookedModel) -> list[Wrapper]:
    """Return the wrappers that a pass may do without: none in a model of TransformerLens' own.

    Attention stays wrapped where the wrapper has weights of its own, as that of GPT-2, which splits them.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge.generalized_components import AttentionBridge, PositionEmbeddingsAttentionBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    found: list[Wrapper] = []

    def search(parent: "nn.Module") -> None:
        for name, child in parent.named_children():
            inner: nn.Module | None = child
            if isinstance(child, GeneralizedComponent):
                if isinstance(child, AttentionBridge) and type(child) is not PositionEmbeddingsAttentionBridge:
                    continue
                inner = child.original_component
                points = [each for each in child.children() if isinstance(each, HookPoint)]
                if inner is not None:
                    found.append(Wrapper(parent, name, inner, child, points))
            if inner is not None:
                search(inner)

    if hasattr(model.original_model, "config"):
        search(model.original_model)
    return found


@contextmanager
def without_idle(model: HookedModel, wrappers: Sequence[Wrapper], hook_points: Iterable[str]) -> Iterator[None]:
    """Run the modules of transformers within the block, but for wrappers that have hooks, or will at `hook_points`.

    No other pass of the model may run meanwhile.
    """
    from interp.models.adapter import hook_points_by_name

    known = hook_points_by_name(model) if wrappers else {}
    hooked = {id(known.get(canonical_hook_point(name))) for name in hook_points}
    idle = [
        each
        for each in wrappers
        if not any(id(point) in hooked or point.fwd_hooks or point.bwd_hooks for point in each.points)
    ]
    for each in idle:
        each.parent._modules[each.name] = each.inner
    try:
        yield
    finally:
        for each in idle:
            each.parent._modules[each.name] = each.wrapper
