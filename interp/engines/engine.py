"""A program that runs a model, as a recording sees it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from interp.errors import ConfigError
from interp.names import check_hook_points

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.loading import Attention
    from interp.text.tokens import Tokenizer

EngineName = Literal["bridge", "sharded", "vllm"]
_EDITABLE = ("hook_attn_out", "hook_mlp_out", "hook_resid_post")


class ReadsRows(Protocol):
    """Gives the values at the hook points `names` for tokens."""

    names: list[str]

    def __call__(self, tokens: "Tensor") -> "dict[str, Tensor]":
        """Return values `[batch, pos, ...]` by hook point for `tokens [batch, pos]`, in the engine's precision."""
        ...


class Engine(ABC):
    """A program with one model in it."""

    name: EngineName
    spec: str
    """The model, as `load_model` takes it."""
    precision: str
    """Data type of its computation, such as `float32`."""
    attention: "Attention"
    n_layers: int
    d_model: int
    n_ctx: int
    """Tokens of the longest context."""
    whole_shards: bool
    """True for an engine that forms its batches itself: it is given all contexts of a shard at once."""
    together: bool = False
    """True where all ranks run every pass together, each with a part of the model."""

    @property
    @abstractmethod
    def about(self) -> str:
        """Name, version and devices, as manifests state them: `vllm 0.32.0 on 2 x cpu`."""

    @property
    @abstractmethod
    def weight_hash(self) -> str:
        """Hash of the weights as `interp.models.identity` takes it: one model has one, in every engine."""

    @property
    @abstractmethod
    def tokenizer(self) -> "Tokenizer": ...

    @property
    @abstractmethod
    def tokenizer_hash(self) -> str: ...

    @property
    @abstractmethod
    def hook_points(self) -> set[str]:
        """The hook points that it offers, by our names."""

    def check(self, hook_points: Sequence[str]) -> tuple[str, ...]:
        """Return the canonical names. Raises `UnknownNameError`, and `ConfigError` for one that cannot be read here."""
        return tuple(check_hook_points(hook_points, self.hook_points, self.n_layers))

    @property
    def editable(self) -> set[str]:
        """The hook points where it adds vectors: what attention, MLP and block give."""
        return {name for name in self.hook_points if name.endswith(_EDITABLE)}

    @abstractmethod
    def reading(
        self, hook_points: Sequence[str], *, adding: "Mapping[str, Tensor] | None" = None
    ) -> AbstractContextManager[ReadsRows]:
        """Return what reads these hook points within a `with` block.

        `adding` gives a vector `[d_model]` for hook points of `editable`: it is added there at every position, before
        rows are read. Raises `UnknownNameError` for other hook points, `ConfigError` for another width.
        """

    def checked(self, adding: "Mapping[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return the vectors by canonical hook point, once they fit. Raises as `reading`."""
        edits = {check_hook_points([name], self.editable, self.n_layers)[0]: v for name, v in (adding or {}).items()}
        for name, vector in edits.items():
            if vector.shape != (self.d_model,):
                raise ConfigError(
                    f"{self.spec} has a residual stream of {self.d_model} values, the vector for {name} has the shape "
                    f"{tuple(vector.shape)}"
                )
        return edits
