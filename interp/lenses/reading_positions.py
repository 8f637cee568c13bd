"""Positions of texts whose activations are read: drawn from a corpus, or named by a file of explanations."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.artifacts import json_lines
from interp.errors import ConfigError, CorruptError, PromptError
from interp.forms import from_json
from interp.lenses.judged_readings import ReadingsConfig
from interp.models.adapter import bos_token_id, to_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.models.passes import capture
from interp.text.corpora import open_corpus
from interp.text.tokens import Tokenizer

FIRST = 4
"""Positions at the start of a text that are not drawn: they are attention sinks, and their prompts say little."""


@dataclass(frozen=True)
class ReadPositions:
    """Texts, and the positions in them whose activations are read; each text is a document."""

    source: str
    """Origin of the texts: `corpus:SPEC` or `file:NAME`."""
    texts: list[list[int]]
    """Tokens, BOS included."""
    text: Int64[Tensor, " n"]
    """Text of each position."""
    at: Int64[Tensor, " n"]
    """Index of its token."""
    explanations: list[str] | None = None
    """Of a file: one for each position."""

    @property
    def prompts(self) -> list[list[int]]:
        """Tokens of each text up to and including the position."""
        return [self.texts[text][: at + 1] for text, at in zip(self.text.tolist(), self.at.tolist(), strict=True)]

    @property
    def hash(self) -> str:
        """SHA-256 of all of it."""
        content = [self.source, self.texts, self.text.tolist(), self.at.tolist(), self.explanations]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def activations(self, model: HookedModel, hook_points: Sequence[str]) -> Mapping[str, Float[Tensor, "n d"]]:
        """Return the activations of all positions by hook point, float32.

        Raises `ConfigError` for a hook point whose value is not one vector for each token.
        """
        rows: dict[str, Tensor] = {}
        for number, tokens in enumerate(self.texts):
            mine = self.text == number
            values = capture(model, torch.tensor([tokens], device=model.cfg.device), hook_points)
            for name, value in values.items():
                if value.ndim != 3:
                    raise ConfigError(f"{name} is not one vector for each token; read blocks.0.hook_resid_post or such")
                if name not in rows:
                    rows[name] = torch.empty(len(self.text), value.shape[-1])
                rows[name][mine] = value[0, self.at[mine]].float().cpu()
        return rows


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A line of a file of explanations."""

    text: str
    explanation: str
    position: int | None = None


def positions_of_corpus(model: HookedModel, spec: str, config: ReadingsConfig) -> ReadPositions:
    """Return positions drawn from the documents of a corpus, at most `per_document` of each.

    Raises `ConfigError` for a corpus with too few documents of 12 tokens.
    """
    tokenizer: Tokenizer = tokenizer_of(model)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    length = min(config.context_length, model.cfg.n_ctx)
    generator = torch.Generator().manual_seed(config.seed)
    texts: list[list[int]] = []
    positions: list[tuple[int, int]] = []
    for document in open_corpus(spec, seed=config.seed):
        ids = [*bos, *tokenizer.encode_batch([document.text[: 20 * length]])[0]][:length]
        if len(ids) < 12:
            continue
        drawn = FIRST + torch.randperm(len(ids) - FIRST, generator=generator)[: config.per_document]
        positions += [(len(texts), int(at)) for at in drawn.sort().values]
        texts.append(ids)
        if len(positions) >= config.positions:
            break
    positions = positions[: config.positions]
    _check_size(len(texts), len(positions), spec)
    text, at = torch.tensor(positions).unbind(1)
    return ReadPositions(f"corpus:{spec}", texts, text, at)


def positions_of_file(model: HookedModel, path: Path) -> ReadPositions:
    """Return the positions of a file of explanations.

    JSON lines with `text`, `explanation` and `position`, the index of a token, BOS counted as 0 where the model has
    one; without it the last token. Raises `MissingError`, and `CorruptError` or `PromptError` that name the line.
    """
    texts: dict[str, list[int]] = {}
    positions: list[tuple[int, int]] = []
    explanations: list[str] = []
    first = int(bos_token_id(model) is not None)
    for where, raw in json_lines(path, "write JSON lines with text, position and explanation"):
        row = from_json(Explanation, raw, where, "foreign")
        if row.text not in texts:
            try:
                texts[row.text] = to_tokens(model, row.text)[0].tolist()
            except PromptError as error:  # longer than the context
                raise PromptError(f"{where}: {error}") from None
        length = len(texts[row.text])
        at = length - 1 if row.position is None else row.position
        if not first <= at < length:
            raise CorruptError(f"{where}: position is a token of the text, {first} to {length - 1}, got {at!r}")
        positions.append(([*texts].index(row.text), at))
        explanations.append(row.explanation)
    _check_size(len(texts), len(positions), str(path))
    text, at = torch.tensor(positions).unbind(1)
    return ReadPositions(f"file:{path.name}", [*texts.values()], text, at, explanations)


def shown_end(model: HookedModel, tokens: list[int], n: int = 24) -> str:
    """Return the text of the last tokens of a prompt."""
    return "..." * (len(tokens) > n) + "".join(token_strings(model, tokens[-n:]))


def _check_size(n_texts: int, n_positions: int, where: str) -> None:
    if n_texts < 10 or n_positions < 32:
        raise ConfigError(
            f"{where} has {n_positions} positions in {n_texts} texts long enough; a score needs 32 in 10 texts, so "
            "give more text"
        )
    if n_positions > 4_000:
        raise ConfigError(f"{where} has {n_positions:,} positions; at most 4,000 are compared with each other")
