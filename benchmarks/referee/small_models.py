"""Small models that read printable characters, and their texts: what cases of features and directions are made of.

A model reads bytes, and a text is of some two dozen characters, which are its words. Every text has a topic: a group of
words that is more frequent in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.artifacts import read_json, write_json
from interp.models.adapter import run_with_cache, to_tokens
from interp.models.hooked import HookedModel
from interp.models.identity import plain_parameters
from interp.models.small import SmallConfig, build_small

TEXTS = "texts.json"
CHARACTERS = [chr(code) for code in range(33, 127)]
N_DOCUMENTS, LENGTH, N_PROMPTS = 80, 40, 12
TOPICAL = 0.4
"""Share of a text that is of its topic."""


class Texts(NamedTuple):
    """The texts of a case."""

    documents: Sequence[str]
    """All of the same number of bytes."""
    prompts: Sequence[str]
    """Beginnings of other texts."""


@dataclass(frozen=True)
class Setting:
    """All that a seed determines before anything is planted."""

    config: SmallConfig
    layer: int
    """Block after which a case looks; another one follows."""
    groups: tuple[tuple[str, ...], ...]
    """Groups of words; each is the topic of some texts."""
    texts: Texts
    rng: np.random.Generator

    @property
    def hook_point(self) -> str:
        """The hook point of the case."""
        return f"blocks.{self.layer}.hook_resid_post"

    def unit(self, n: int = 1) -> Float[Tensor, "n d_model"]:
        """Draw directions of unit length."""
        drawn = torch.from_numpy(self.rng.standard_normal((n, self.config.d_model))).float()
        return drawn / drawn.norm(dim=1, keepdim=True)


def setting_of(seed: int) -> Setting:
    """Draw the sizes of a model, the hook point, the words and the texts."""
    rng = np.random.default_rng(seed)
    n_layers = int(rng.integers(2, 4))
    config = SmallConfig(
        n_layers=n_layers, d_model=int(rng.choice([48, 56, 64])), n_heads=2, d_mlp=int(rng.choice([32, 64])),
        n_ctx=LENGTH + 1, normalization=None, act_fn="relu",
    )  # fmt: skip
    alphabet = rng.permutation(CHARACTERS)[: rng.integers(24, 33)].tolist()
    size = int(rng.integers(3, 5))
    groups = tuple(tuple(alphabet[at : at + size]) for at in range(0, 4 * size, size))

    def write(topic: tuple[str, ...], length: int) -> str:
        topical = rng.random(length) < TOPICAL
        return "".join(np.where(topical, rng.choice(topic, length), rng.choice(alphabet, length)))

    documents = tuple(write(groups[at % len(groups)], LENGTH) for at in range(N_DOCUMENTS))
    prompts = tuple(write(tuple(alphabet), int(rng.integers(6, 14))) for _ in range(N_PROMPTS))
    return Setting(config, int(rng.integers(n_layers - 1)), groups, Texts(documents=documents, prompts=prompts), rng)


def random_model(setting: Setting) -> HookedModel:
    """Return a model of random weights, whose logits and positions have sizes as in a trained one."""
    seed = int(setting.rng.integers(2**31))
    model = build_small(setting.config, seed=seed, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        model.unembed.original_component.weight *= 4
        model.W_pos.mul_(0.3)
    return model


def shuffled(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return a weight with its entries in random order: its mean, variance and norm stay."""
    return weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view_as(weight)


@torch.no_grad()
def shuffle_weights(model: HookedModel, generator: torch.Generator) -> None:
    """Shuffle the entries of every parameter in place."""
    for _, parameter in plain_parameters(model.original_model):
        parameter.copy_(shuffled(parameter, generator))


def residuals(
    model: HookedModel, hook_point: str, texts: Texts
) -> tuple[Float[Tensor, "documents pos d_model"], Tensor]:
    """Return the values of a hook point on the documents, and their tokens `[documents, pos]`, without BOS."""
    tokens = torch.cat([to_tokens(model, text) for text in texts.documents])
    _, values = run_with_cache(model, tokens, [hook_point])
    return values[hook_point][:, 1:], tokens[:, 1:]


def write_texts(folder: Path, texts: Texts) -> None:
    """Write the texts of a case."""
    write_json(folder / TEXTS, texts._asdict())


def read_texts(folder: Path) -> Texts:
    """Read the texts of a case."""
    return Texts(**read_json(folder / TEXTS))


def tokens_of(words: tuple[str, ...]) -> list[int]:
    """Return the token of each word."""
    return [ord(word) for word in words]
