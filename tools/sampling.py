"""Text sampled from a language model, many documents at once: a corpus of the model's own distribution.

    plain, tokenizer = load_plain(dtype="bfloat16")
    openings = (Opening(tokenizer(start)["input_ids"]) for start in starts)
    for document in sample_documents(plain, openings, SampleConfig(), ends={tokenizer.eos_token_id}):
        print(tokenizer.decode(document.tokens))

All rows of a batch begin at position 0 of a key-value cache. A row first reads its opening, one token a step, then
samples. Where a document ends, the next opening begins in the same row, and the keys before it are hidden from it, so
no row waits for another. When the cache is full, all rows begin anew.

Three changes make a step faster than `generate` of transformers: keys are written in place instead of being
concatenated, query heads that share a key are multiplied with it together instead of copying it, and the nucleus is
found among the `top_k` largest logits instead of by sorting all.
"""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp.devices import parse_dtype, pick_device
from interp.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

GROUPED = "workbench_grouped"
"""Name under which transformers finds `grouped_attention`."""
BLOCK = 32
"""Positions by which the cache grows."""


def load_plain(*, dtype: str = "float32", device: str | None = None) -> tuple[Any, Any]:
    """Return SmolLM2-135M without hooks, in evaluation mode, and its tokenizer.

    Raises `MissingError` where the packaged weights are not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from interp.models.loading import packaged_folder, quiet_transformers

    folder = packaged_folder("smollm2-135m")
    with quiet_transformers():
        plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="eager")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return plain.to(device=pick_device(device), dtype=parse_dtype(dtype)).eval(), tokenizer


@dataclass(frozen=True)
class SampleConfig:
    """Settings of sampling."""

    batch_size: int = 64
    """Documents that are written at the same time."""
    length: int = 256
    """Positions of the cache; a document that reaches the last one is cut there."""
    top_k: int = 256
    """Tokens among which the nucleus is found."""
    top_p: float = 0.95
    """Share of the probability from which is sampled, largest first (nucleus sampling, Holtzman et al. 2020)."""
    least: int = 24
    """Shorter documents are dropped, and none begins where fewer positions are left."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.batch_size, self.top_k) < 1 or not 0 < self.top_p <= 1 or not 1 <= self.least < self.length:
            raise ConfigError(f"sampling needs batch_size, top_k >= 1, 0 < top_p <= 1, 1 <= least < length: {self}")


@dataclass(frozen=True)
class Opening:
    """The tokens that a document begins with."""

    tokens: list[int]
    temperature: float = 0.8
    kept: int = 0
    """From this token of the opening on, it is part of the document; an instruction before it is not."""
    about: Any = None
    """Anything that the caller wants back with the document."""


@dataclass(frozen=True)
class Sampled:
    """One document: the kept tokens of its opening and the sampled ones, without the token that ended it."""

    opening: Opening
    tokens: list[int]


def sample_documents(
    plain: Any, openings: Iterator[Opening], config: SampleConfig, *, ends: Collection[int] = ()
) -> Iterator[Sampled]:
    """Yield documents in the order in which they end, until there are no openings left.

    A document ends with one of the tokens `ends`, or where the cache does. `plain` is a causal language model of
    transformers with rotary positions; positions count from a document's own first token. Equal seeds give equal
    documents on one machine. Raises `ConfigError` for an opening that leaves no room.
    """
    import torch

    with torch.inference_mode(), _grouped(plain):
        generator = torch.Generator(plain.device).manual_seed(config.seed)
        waiting = _Waiting(openings)
        while waiting:
            yield from _Batch(plain, config, waiting, generator, ends).run()


class _Waiting:
    """Openings that no document begins with yet; true while there is one."""

    def __init__(self, openings: Iterator[Opening]):
        self._openings, self._back = iter(openings), list[Opening]()

    def take(self) -> Opening | None:
        return self._back.pop() if self._back else next(self._openings, None)

    def put_back(self, opening: Opening) -> None:
        self._back.append(opening)

    def __bool__(self) -> bool:
        if (opening := self.take()) is not None:
            self.put_back(opening)
        return bool(self._back)


@dataclass
class _Row:
    """The document that a row of the batch writes."""

    opening: Opening
    first: int
    sampled: list[int] = field(default_factory=list)

    def next_token(self, position: int) -> int:
        at = position - self.first
        return self.opening.tokens[at] if at < len(self.opening.tokens) else self.sampled[-1]

    def reads(self, position: int) -> bool:
        """Return whether what the model says at a position is not sampled: the opening goes on."""
        return position - self.first < len(self.opening.tokens) - 1


class _Batch:
    """One filling of the cache."""

    def __init__(
        self,
        plain: Any,
        config: SampleConfig,
        openings: "_Waiting",
        generator: Any,
        ends: Collection[int],
    ):
        import torch

        self.plain, self.config, self.openings, self.generator, self.ends = plain, config, openings, generator, ends
        self.rows: list[_Row | None] = [self._begin(0) for _ in range(config.batch_size)]
        shape = (config.batch_size, 1, 1, _blocks(config.length))
        self.hidden = torch.full(shape, float("-inf"), dtype=plain.dtype, device=plain.device)

    def run(self) -> Iterator[Sampled]:
        """Yield the documents that end in this filling."""
        cache = _block_cache()
        for position in range(self.config.length):
            if not any(self.rows):
                return
            self.hidden[..., position] = 0.0
            chosen = self._sample(self._logits(cache, position))
            for index, row in enumerate(self.rows):
                if row is not None and not row.reads(position):
                    row.sampled.append(chosen[index])
                    if chosen[index] in self.ends or position == self.config.length - 1:
                        yield from self._ended(row)
                        self.rows[index] = self._begin(position + 1)
                        self.hidden[index, ..., : position + 1] = float("-inf")

    def _begin(self, position: int) -> _Row | None:
        """Return the next document of a row, or None where no room or no opening is left."""
        if self.config.length - position < self.config.least or (opening := self.openings.take()) is None:
            return None
        if not 0 < len(opening.tokens) <= self.config.length - self.config.least:
            raise ConfigError(
                f"an opening has {len(opening.tokens)} tokens; 1 to {self.config.length - self.config.least} leave "
                "room to write"
            )
        if len(opening.tokens) > self.config.length - position - self.config.least:
            self.openings.put_back(opening)  # for the next filling
            return None
        return _Row(opening, position)

    def _logits(self, cache: Any, position: int) -> "Tensor":
        import torch

        tokens = [row.next_token(position) if row else 0 for row in self.rows]
        positions = [position - row.first if row else 0 for row in self.rows]
        device = self.plain.device
        out = self.plain(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=torch.tensor(positions, device=device)[:, None],
            attention_mask=self.hidden[..., : _blocks(position + 1)],
            past_key_values=cache,
            use_cache=True,
        )
        return out.logits[:, -1].float()

    def _sample(self, logits: "Tensor") -> list[int]:
        import torch

        temperature = torch.tensor([row.opening.temperature if row else 1.0 for row in self.rows], device=logits.device)
        values, ids = logits.topk(min(self.config.top_k, logits.shape[1]))
        p = (values / temperature[:, None]).softmax(-1)
        p = p * (p.cumsum(-1) - p < self.config.top_p)
        return ids.gather(1, torch.multinomial(p, 1, generator=self.generator))[:, 0].tolist()

    def _ended(self, row: _Row) -> Iterator[Sampled]:
        written = row.sampled[:-1] if row.sampled[-1] in self.ends else row.sampled
        if len(written) >= self.config.least:
            yield Sampled(row.opening, row.opening.tokens[row.opening.kept :] + written)


def grouped_attention(
    module: Any, query: "Tensor", key: "Tensor", value: "Tensor", mask: "Tensor", scaling: float, **_: Any
) -> tuple["Tensor", None]:
    """Return attention's output `[batch, 1, heads, d]` at one query position; heads that share keys are multiplied
    together. Softmax in float32."""
    import torch

    batch, heads, _q, d = query.shape
    shared = key.shape[1]
    query = query.reshape(batch * shared, heads // shared, d)
    key, value = (t.reshape(batch * shared, -1, d) for t in (key, value))
    scores = (query @ key.transpose(1, 2)).view(batch, shared, heads // shared, -1).float() * scaling + mask
    pattern = scores.softmax(-1).to(value.dtype).view(batch * shared, heads // shared, -1)
    return torch.bmm(pattern, value).view(batch, 1, heads, d), None


def _grouped(plain: Any) -> Any:
    """Use `grouped_attention` within the block."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, _own_mask)

    @contextlib.contextmanager
    def used() -> Iterator[None]:
        before = plain.config._attn_implementation
        plain.set_attn_implementation(GROUPED)
        try:
            yield
        finally:
            plain.set_attn_implementation(before)

    return used()


def _own_mask(*_: Any, attention_mask: "Tensor | None" = None, **__: Any) -> "Tensor | None":
    return attention_mask


def _blocks(positions: int) -> int:
    """Return the number of positions in the blocks that hold so many."""
    return -(-positions // BLOCK) * BLOCK


def _block_cache() -> Any:
    """Return a cache that grows by blocks; keys are written in place, and positions not filled yet must be masked.

    Whole buffers are contiguous, and torch copies any other operand of a batched product in bfloat16.
    """
    import torch
    from transformers.cache_utils import Cache, DynamicLayer

    class BlockLayer(DynamicLayer):
        filled = 0

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Any:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            keys: Any = self.keys
            values: Any = self.values
            now = self.filled + key_states.shape[2]
            if more := _blocks(now) - keys.shape[2]:
                shape = (*key_states.shape[:2], more, key_states.shape[3])
                keys = torch.cat([keys, key_states.new_zeros(shape)], 2)
                values = torch.cat([values, value_states.new_zeros(shape)], 2)
            keys[:, :, self.filled : now] = key_states
            values[:, :, self.filled : now] = value_states
            self.keys, self.values, self.filled = keys, values, now
            return keys, values

        def get_seq_length(self) -> int:
            return self.filled

    return Cache(layer_class_to_replicate=BlockLayer)
