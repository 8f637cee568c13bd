"""The default engine: a model with TransformerLens' hooks, in this process, on one device or spread over several."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from torch import Tensor

from interp.engines.engine import Engine, ReadsRows
from interp.errors import ConfigError
from interp.models.adapter import available_hook_points, tokenizer_hash
from interp.models.hooked import Hook, HookedModel
from interp.models.identity import attention_kernel, model_spec, tokenizer_of, weight_hash
from interp.models.passes import Capture
from interp.models.tensor_parallel import is_part, split_over
from interp.text.tokens import Tokenizer

if TYPE_CHECKING:
    from interp.models.loading import Attention


class Bridge(Engine):
    """`load_model`'s model as an engine."""

    whole_shards = False

    def __init__(self, model: HookedModel):
        self.model = model
        self.spec = model_spec(model)
        self.precision = str(next(model.original_model.parameters()).dtype).removeprefix("torch.")
        self.attention = cast("Attention", attention_kernel(model))
        self.ranks = split_over(model.original_model)
        self.together = self.ranks > 1
        self.name = "sharded" if self.together or hasattr(model.original_model, "hf_device_map") else "bridge"
        self.n_layers, self.d_model, self.n_ctx = model.cfg.n_layers, model.cfg.d_model, model.cfg.n_ctx

    @property
    def about(self) -> str:
        return f"{self.name} over {self.ranks} processes" if self.together else self.name

    @property
    def weight_hash(self) -> str:
        return weight_hash(self.model)

    @property
    def tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.model)

    @property
    def tokenizer_hash(self) -> str:
        return tokenizer_hash(self.model)

    @property
    def hook_points(self) -> set[str]:
        return available_hook_points(self.model)

    def check(self, hook_points: Sequence[str]) -> tuple[str, ...]:
        names = super().check(hook_points)
        if parts := [name for name in names if self.together and is_part(name)]:
            raise ConfigError(
                f"{parts[0]} holds the heads or neurons of one of the {self.ranks} processes that share the model; "
                "record it without torchrun, or record the residual stream and outputs of attention and MLPs"
            )
        return names

    @contextmanager
    def reading(self, hook_points: Sequence[str], *, adding: Mapping[str, Tensor] | None = None) -> Iterator[ReadsRows]:
        hooks = [(name, _adds(vector)) for name, vector in self.checked(adding).items()]
        with self.model.hooks(fwd_hooks=hooks), Capture(self.model, hook_points) as capture:
            yield capture


def _adds(vector: Tensor) -> Hook:
    return lambda value, hook: value + vector.to(value)


def engine_of(model: HookedModel | Engine) -> Engine:
    """Return the engine that a function was given, or that of a model."""
    return model if isinstance(model, Engine) else Bridge(model)
