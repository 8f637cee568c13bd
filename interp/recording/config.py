"""Settings of a recording. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from interp.errors import ConfigError
from interp.options import BASIC, Seed

Bos = Literal["context", "document", "none"]
StoredType = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Settings of a recording of activations."""

    tokens: Annotated[int, BASIC] = 300_000
    """Tokens to record; BOS and padding do not count."""
    context_length: int = 128
    """Tokens per context, BOS included."""
    bos: Bos = "context"
    """Put a BOS token before each context, before each document, or nowhere."""
    dtype: StoredType = "float16"
    """Data type of the stored activations."""
    batch_size: int = 16
    """Contexts per forward pass."""
    shard_contexts: int | None = None
    """Contexts per file, rounded up to whole batches, so that a resumed run meets the same batches. Default: 32,768
    tokens."""
    live: bool = False
    """Store the text only, a hundredth of the bytes; activations are computed whenever they are read."""
    seed: Seed = 0
    """Seed of the corpus."""

    def __post_init__(self) -> None:
        if min(self.tokens, self.batch_size) < 1 or (self.shard_contexts is not None and self.shard_contexts < 1):
            raise ConfigError(
                f"tokens, batch_size and shard_contexts must be at least 1, got {self.tokens}, {self.batch_size} and "
                f"{self.shard_contexts}"
            )
