"""A recording as an artefact: its settings, the text that a model read, and the sizes of the shards.

`store` reads the shards. Torch-free.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict

from interp.artifacts import Artefact, DocumentField
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.options import BASIC, Seed
from interp.view import Facts, View

Bos = Literal["context", "document", "none"]
StoredType = Literal["float16", "bfloat16", "float32", "int8"]


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
    """Data type of the stored activations. int8 has scales and takes half of float16's bytes; the error is printed."""
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
        for name in ("tokens", "batch_size", "shard_contexts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.live and self.dtype == "int8":
            raise ConfigError("a live recording stores no activations, so int8 saves nothing; leave --dtype int8 out")


Attention = Literal["eager", "sdpa"]


@dataclass(frozen=True, kw_only=True)
class RecordedText:
    """Text, and how a model read it."""

    corpus: str
    corpus_hash: str
    tokenizer_hash: str
    engine: str
    """Program that ran the model: `bridge`, or another with its version and devices, as `vllm 0.32.0 on 2 x cpu`."""
    compute_dtype: str
    attention: Attention
    batch_size: int
    shard_rows: int
    """Rows of a full shard."""
    live: bool
    """True where the folder has text only, and activations are computed when they are read."""


@dataclass(frozen=True, kw_only=True)
class RecordingSettings:
    """Settings that determine a recording."""

    model: str
    weight_hash: str
    """Of planted features, the hash of their settings."""
    hook_points: tuple[str, ...]
    context_length: int
    """Tokens per context, BOS included."""
    bos: Bos
    dtype: StoredType
    n_tokens: int
    """Tokens asked for; BOS and padding do not count."""
    text: RecordedText | None
    """None for planted features, which have no text and no model."""

    def __post_init__(self) -> None:
        if self.context_length < 1:
            raise ValueError(f"contexts of {self.context_length} tokens")

    @property
    def text_read(self) -> RecordedText:
        """The text that a model read; planted features have none."""
        assert self.text is not None, "planted features have no text"
        return self.text

    @property
    def expected_rows(self) -> int:
        """Rows of the whole recording, BOS and padding included."""
        per_context = self.context_length - (self.bos == "context")
        return math.ceil(self.n_tokens / per_context) * self.context_length


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Cost of storing rows as int8, over the real rows of a hook point."""

    relative_error: float
    """Root mean squared error, as a fraction of the root mean squared norm."""
    fvu: float
    """Squared error as a fraction of the variance; added to the FVU of a dictionary, where rounding is noise to it."""


@dataclass(frozen=True, kw_only=True)
class Recorded(Artefact, kind="recording", made_by="record"):
    """A recording: the settings and the size of what was recorded."""

    settings: RecordingSettings
    n_real: int
    """Tokens recorded; BOS and padding do not count."""
    n_documents: int
    shard_rows: tuple[int, ...]
    """Rows of each shard, BOS and padding included."""
    widths: dict[str, int]
    """Hook point -> width of its activations."""
    tokens_per_second: float | None
    """Speed of all processes together; None where no model ran."""
    ranks: int
    """Processes that recorded."""
    rounding: Annotated[dict[str, Rounding] | None, DocumentField("rounding.json")] = field(
        default_factory=lambda: None
    )
    """Hook point -> cost of int8; None for other types."""

    @property
    def live(self) -> bool:
        """True where activations are computed when they are read."""
        return self.settings.text is not None and self.settings.text.live

    @property
    def n_rows(self) -> int:
        """Number of rows, BOS and padding included."""
        return sum(self.shard_rows)

    def view(self) -> View:
        yield self._sentence()
        speed = [] if self.tokens_per_second is None else [("tokens/s", f"{self.tokens_per_second:,.0f}")]
        stored = "text only" if self.live else self.settings.dtype
        yield Facts(
            ("documents", f"{self.n_documents:,}"),
            ("context", f"{self.settings.context_length:,}"),
            ("stored as", stored),
            *([] if self.settings.text is None else [("engine", self.settings.text.engine)]),
            *speed,
        )
        target = self.settings.n_tokens
        if self.n_real < target:
            yield f"the corpus ended before {target:,} tokens"
        for name, cost in (self.rounding or {}).items():
            exact = f"relative error {cost.relative_error:.2%}; rounding alone is an FVU of {cost.fvu:.2g}"
            yield f"int8 at {name}: {exact}"

    def _sentence(self) -> str:
        """Return the number of tokens, their text and model, and the hook points."""
        s, points = self.settings, self.settings.hook_points
        named = points[0] + (f" and {len(points) - 1} more" if len(points) > 1 else "")
        if s.text is None:
            return f"{self.n_real:,} rows of planted features at {named}"
        corpus = s.text.corpus.rstrip("/").rpartition("/")[2]
        return f"{self.n_real:,} tokens of {corpus} read by {short_name(s.model)}, at {named}"


class ShardFile(TypedDict):
    """Checksum and size of a file."""

    sha256: str
    bytes: int


class ShardEntry(TypedDict):
    """Line of the log for a shard whose files are all in place."""

    shard: int
    rows: int
    real: int
    """rows of text: without BOS and padding"""
    documents: int
    """documents that begin in it"""
    files: dict[str, ShardFile]
    """by path in the recording's folder"""
