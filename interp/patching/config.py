"""Settings of activation patching, and of the task that it uses. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from interp.errors import ConfigError
from interp.nulls import PER_PART
from interp.options import BASIC

What = Literal["resid_pre", "resid_post", "attn_out", "mlp_out", "heads", "z", "q", "k", "v", "pattern"]
Direction = Literal["denoise", "noise"]
HeadKind = Literal["query", "key-value"]
"""Heads that a patch counts: under grouped-query attention, k and v belong to a group of query heads."""
MetricName = Literal["logit-diff", "prob-diff", "log-prob", "kl", "l2"]
"""Names of `metrics.METRICS`."""
Origin = dict[str, str | int | bool | None]
"""Origin of the prompts of a task: a seed, a file, the texts of a pair."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings that determine the numbers of a task."""

    name: str
    metric: str
    n_prompts: int
    origin: Origin

    @property
    def chat(self) -> bool:
        """True where the prompts are messages in the chat template of the model."""
        return self.origin.get("chat") is True


@dataclass(frozen=True, kw_only=True)
class PatchingConfig:
    """Settings of a map of activation patches."""

    what: Annotated[What, BASIC] = "resid_pre"
    """The value that is replaced: the residual stream before or after a block, the output of attention or the MLP, or
    per head its output z (also called heads), its inputs q, k, v, or its attention pattern."""
    direction: Annotated[Direction, BASIC] = "denoise"
    """denoise: restore clean values in the corrupt run, which tests sufficiency; noise: put corrupt values into the
    clean run, which tests necessity."""
    by_position: bool | None = None
    """Patch each position by itself. Default: yes for one pair of prompts, no for a task."""
    draws: int = PER_PART
    """Number of null maps. A map without true effects shows a discovery with probability at most 1 / (draws + 1). Each
    null map costs as much as the map itself."""
    batch_size: int = 32
    """Sequences per forward pass."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ConfigError("every effect is compared with a null distribution; draws must be at least 1")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
