"""Tiny attention-only models with hand-set heads among noisy ones, and tasks, for cases on heads, edges and circuits.

The residual stream is a sum of subspaces in random directions: `tok` and `pos` (written by the embeddings), others that
heads write, and `out`, which the unembedding reads. There are no norms. A planted head has an attention score of
`sharpness` at a match and 0 elsewhere; a noisy one has random weights.

A **copying path** answers the prompt `.. t a .. t` with a: a head of layer 0 writes each position's previous token, and
a head of layer 1 attends to the key whose previous token is the current one and copies it (an induction head). The
other variant, as `planted:copying`, attends one position later, to the key whose token two before matches, and copies
the previous token from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.referee.cases import Control
from benchmarks.referee.small_models import shuffle_weights, shuffled
from interp.artifacts import read_json, write_json
from interp.circuits.circuit import Edge
from interp.models.hooked import HookedModel
from interp.models.small import SmallConfig, build_small, load_small, save_small
from interp.names import HeadName
from interp.patching.metrics import METRICS
from interp.patching.task import Task

TASK_FILE, N_PROMPTS = "task.json", 32
LOGIT_SCALE = 10.0
"""Logit of a token that a planted reader of weight 1 writes."""
SHARPNESS = 12.0
NOISE_SCORE, NOISE_OUTPUT = 1.0, 0.3
"""Standard deviation of a noisy head's attention scores, and the norm of what it writes; the embeddings have norm 1."""


class PlantedModel:
    """A model under construction: noisy heads, of which some are replaced by planted ones."""

    def __init__(
        self, spaces: Sequence[str], *, n_layers: int, n_heads: int, n_tokens: int, d_head: int,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        """`spaces` are written by heads; each has a dimension per token, as has `pos` per position."""
        d_head = max(d_head, -(-(len(spaces) + 3) * n_tokens // n_heads))
        self.config = SmallConfig(
            n_layers=n_layers, n_heads=n_heads, d_model=n_heads * d_head, d_vocab=n_tokens, n_ctx=n_tokens,
            normalization=None,
        )  # fmt: skip
        self.generator, self.model = generator, build_small(self.config, seed=0, device="cpu", dtype=torch.float16)
        basis = torch.linalg.qr(torch.randn(n_heads * d_head, n_heads * d_head, generator=generator)).Q
        names = ("tok", "pos", "out", *spaces)
        self.spaces = {name: basis[i * n_tokens : (i + 1) * n_tokens] for i, name in enumerate(names)}
        free = [HeadName(layer, head) for layer in range(n_layers) for head in range(n_heads)]
        self.free = [free[i] for i in torch.randperm(len(free), generator=generator)]
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()
            self.model.embed.original_component.weight.copy_(self.spaces["tok"])
            self.model.W_pos.copy_(self.spaces["pos"])
            self.model.unembed.original_component.weight.copy_(LOGIT_SCALE * self.spaces["out"])
        for at in free:
            self._noise(at)

    def _noise(self, at: HeadName) -> None:
        d_model, d_head = self.config.d_model, self.config.d_head
        score, written = (NOISE_SCORE / 2) ** 0.5, (NOISE_OUTPUT / (2 * d_model * d_head) ** 0.5) ** 0.5
        for side, size in (("q", score), ("k", score), ("v", written)):
            self._set(at, side, size * torch.randn(d_model, d_head, generator=self.generator))
        self._set(at, "o", written * torch.randn(d_head, d_model, generator=self.generator))

    def _set(self, at: HeadName, side: str, value: Tensor) -> None:
        """Set one weight of a head, `[d_model, d_head]` (`o`: `[d_head, d_model]`); torch stores it as [out, in]."""
        with torch.no_grad():
            weight = self._part(at, side)
            weight.copy_(value.to(weight))

    def _part(self, at: HeadName, side: str) -> Tensor:
        """Return one weight of a head, in the same form: a view."""
        rows = slice(at.head * self.config.d_head, (at.head + 1) * self.config.d_head)
        weight = getattr(self.model.blocks[at.layer].attn, side).original_component.weight
        return weight[:, rows].T if side == "o" else weight[rows].T

    def take(self, layer: int) -> HeadName:
        """Return a random head of a layer that is not planted yet."""
        found = next(at for at in self.free if at.layer == layer)
        self.free.remove(found)
        return found

    def plant(
        self, at: HeadName, mechanism: str | Tensor, *, reads: str | Tensor = "tok",
        writes: str | Tensor = "out", sharpness: float, weight: float = 1.0,
    ) -> None:  # fmt: skip
        """Plant a head that attends by a mechanism, and copies subspace `reads` of that key to subspace `writes`.

        `mechanism` is one of `query_key`, or a subspace: then the query is the current token and the key what is there.
        Subspaces are names, or `[n_tokens, d_model]`.
        """
        query, key = self.query_key(mechanism)
        reads, writes = (self.spaces[each] if isinstance(each, str) else each for each in (reads, writes))
        d_model, d_head = self.config.d_model, self.config.d_head

        def wide(value: Tensor) -> Tensor:
            return torch.nn.functional.pad(value, (0, d_head - value.shape[1]))

        self._set(at, "q", sharpness * d_head**0.5 * wide(query))
        self._set(at, "k", wide(key))
        self._set(at, "v", wide(reads.T))
        self._set(at, "o", weight * wide(writes.T).T)
        assert d_model >= d_head >= query.shape[1]

    def query_key(self, mechanism: str | Tensor) -> tuple[Float[Tensor, "d_model n"], Float[Tensor, "d_model n"]]:
        """Return maps of the residual to queries and keys, whose product is 1 at a match."""
        tok, pos = self.spaces["tok"], self.spaces["pos"]
        if isinstance(mechanism, Tensor):
            return tok.T, mechanism.T
        n, half = len(pos), (len(pos) - 1) // 2
        back = {"current_token": 0, "previous_token": 1, "two_back": 2, "half_back": half, "after_half": half - 1}
        if mechanism in back:  # row i of `pos`, the query, becomes e_(i - back)
            return pos.T @ torch.eye(n).roll(-back[mechanism], 1).tril(-back[mechanism]), pos.T
        if mechanism in ("first_token", "second_token"):
            at = int(mechanism == "second_token")
            return pos.sum(0)[:, None], pos[at : at + 1].T
        if mechanism == "duplicate_token":  # of equal tokens the query's own position does not count
            return torch.cat([tok.T, pos.T], 1), torch.cat([tok.T, -2 * pos.T], 1)
        return tok.T, self.spaces[mechanism].T

    def mixed(self, name: str, other: str, share: float) -> Float[Tensor, "n_tokens d_model"]:
        """Return a subspace with a share of another added, in which each token stands for a wrong one."""
        wrong = self.spaces[other].roll(
            1 + int(torch.randint(self.config.d_vocab - 1, (), generator=self.generator)), 0
        )
        return self.spaces[name] + share * wrong

    def path(self, name: str, *, later: bool, weight: float, spill: float = 0.0) -> "CopyingPath":
        """Plant a copying path in free heads; its subspaces are `prev_NAME` and, of the `later` variant, `two_NAME`.

        `spill`: share by which what the sender writes also enters the other input of the reader, as wrong tokens.
        """
        heads = [self.take(0), *([self.take(0)] if later else []), self.take(1)]
        made = [str(head) for head in heads]
        sender, reader = made[0], made[-1]
        self.plant(heads[0], "previous_token", writes=f"prev_{name}", sharpness=SHARPNESS)
        if later:
            self.plant(heads[1], "two_back", writes=f"two_{name}", sharpness=SHARPNESS)
        key, value = (f"two_{name}", f"prev_{name}") if later else (f"prev_{name}", "tok")
        into: dict[str, Any] = {"mechanism": key, "reads": value}
        if spill:
            side = "mechanism" if later else "reads"
            into[side] = self.mixed(into[side], f"prev_{name}", spill)
        self.plant(heads[-1], **into, sharpness=SHARPNESS, weight=weight)
        needed = [Edge("embed", sender, "v"), Edge("embed", reader, "q"), Edge(reader, "logits")]
        needed += (
            [Edge("embed", made[1], "v"), Edge(made[1], reader, "k"), Edge(sender, reader, "v")]
            if later
            else [Edge(sender, reader, "k"), Edge("embed", reader, "v")]
        )
        positions = [Edge("embed", head, side) for head in made[:-1] for side in ("q", "k")]
        return CopyingPath(tuple(heads), "v" if later else "k", key, value, tuple(needed), tuple(positions))

    def spoil(self, heads: Sequence[HeadName], control: Control) -> None:
        """Give heads random weights (`untrained`), or shuffle the entries of each of their matrices (`shuffled`)."""
        for at in heads if control in ("untrained", "shuffled") else ():
            if control == "untrained":
                self._noise(at)
                continue
            for side in "qkvo":
                self._set(at, side, shuffled(self._part(at, side), self.generator))

    def write(self, folder: Path, control: Control = "planted", seed: int = 0) -> None:
        """Write the model; untrained or with the entries of each weight in random order for these controls."""
        model = self.model
        if control == "untrained":
            model = build_small(self.config, seed=seed, device="cpu", dtype=torch.float16)
        if control == "shuffled":
            shuffle_weights(model, self.generator)
        save_small(model, self.config, folder)


@dataclass(frozen=True)
class CopyingPath:
    """Heads and edges of a copying path."""

    heads: tuple[HeadName, ...]
    """From the sender, which writes previous tokens, to the reader."""
    via: str
    """Input of the reader that the sender's previous tokens reach."""
    key: str
    value: str
    """Subspaces that the reader attends by, and copies."""
    needed: tuple[Edge, ...]
    """Edges without any of which it does not copy."""
    positions: tuple[Edge, ...]
    """Edges that carry positions alone, which are the same in every prompt."""

    @property
    def sender(self) -> str:
        """The head that writes previous tokens."""
        return str(self.heads[0])

    @property
    def reader(self) -> str:
        """The head that answers."""
        return str(self.heads[-1])


def write_copying_rows(
    folder: Path, length: int, n_tokens: int, metric: Literal["logit-diff", "prob-diff"], generator: torch.Generator
) -> None:
    """Write prompts `.. t a .. t` of otherwise different tokens, where `t` comes once before, and `a` is correct.

    In the corrupted prompts the last token has no earlier copy.
    """
    clean, corrupt, correct, wrong = [], [], [], []
    for _ in range(N_PROMPTS):
        row = torch.randperm(n_tokens, generator=generator)[:length].tolist()
        at = 1 + int(torch.randint(length - 5, (), generator=generator))
        row[-1] = row[at]
        other = torch.randperm(n_tokens, generator=generator).tolist()
        clean.append(row)
        corrupt.append(other[:length])
        correct.append(row[at + 1])
        wrong.append(next(token for token in reversed(other) if token not in (row[at], row[at + 1])))
    rows = {"clean": clean, "corrupt": corrupt, "correct": correct, "wrong": wrong, "metric": metric}
    write_json(folder / TASK_FILE, rows)


def read_task(folder: Path) -> tuple[HookedModel, Task]:
    """Read the model of a case and its task. Raises `NoGapError` where the model does not do it."""
    model, rows = load_small(folder), read_json(folder / TASK_FILE)
    metric = METRICS[rows["metric"]](correct=rows["correct"], wrong=rows["wrong"])
    return model, Task.of(model, rows["clean"], rows["corrupt"], metric, name="the case")


def parse_edge(text: str) -> Edge:
    """Return the edge of a text such as `L0H1 -k-> L1H0` or `L1H0 -> logits`."""
    source, arrow, target = text.split(" ")
    return Edge(source, target, None if arrow == "->" else arrow[1])
