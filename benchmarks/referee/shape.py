"""Cases of shapes: the embeddings of some tokens lie on a circle, along a line, or in a cluster.

The model has two random layers and a planted embedding: each token has isotropic noise of length 1, and those of the
list stand apart from one another, by `effect` times `RADIUS`. Three lists are read in random contexts, at the embedding
and after each layer, and judged as the page *Geometry* judges lists of words (`find_shapes`). A circle or a line is
supported where it is the verdict; a cluster by its own test, whatever the verdict on the order.
"""

from pathlib import Path

import numpy as np
import torch

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.small_models import shuffle_weights, shuffled
from interp.geometry.shapes import find_shapes
from interp.geometry.words import WordActivations, WordList, residual_hook_points
from interp.models.passes import Capture
from interp.models.small import SmallConfig, build_small, load_small, save_small
from interp.seeds import make_generator

CONFIG = SmallConfig(n_layers=2, d_model=32, n_heads=2, d_mlp=64, d_vocab=64, n_ctx=16)
N_WORDS, N_LISTS, N_CONTEXTS, CONTEXT = 12, 3, 8, 6
RADIUS = {"circle": 1.5, "line": 1.5, "cluster": 1.0}
"""Radius of a circle, half of a line, distance of a cluster's centre, in lengths of the noise of one token."""


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a model with a planted embedding, and say which tokens have which shape."""
    generator = make_generator(seed, "shape")
    shape = list(RADIUS)[seed % len(RADIUS)]
    model = build_small(CONFIG, seed=seed, device="cpu", dtype=torch.float32)
    lists = torch.randperm(CONFIG.d_vocab, generator=generator)[: N_LISTS * N_WORDS].reshape(N_LISTS, N_WORDS)
    if control != "untrained":
        _plant(model.W_E, lists[0], shape, effect if control == "planted" else 1.0, generator)
    if control == "shuffled":
        shuffle_weights(model, generator)
    if control == "near miss":
        lists = _another_order(lists, shape, generator)
    save_small(model, CONFIG, folder)
    contexts = torch.randint(CONFIG.d_vocab, (N_CONTEXTS, CONTEXT), generator=generator)
    tokens, *others = lists.tolist()
    return {"shape": shape, "tokens": tokens, "others": others, "contexts": contexts.tolist()}


@torch.no_grad()
def _plant(
    embedding: torch.Tensor, tokens: torch.Tensor, shape: str, effect: float, generator: torch.Generator
) -> None:
    """Write noise of length 1 into `embedding [d_vocab, d]`, and the shape into the rows of `tokens [n]`."""
    d = embedding.shape[1]
    embedding.copy_(torch.randn(embedding.shape, generator=generator) / d**0.5)
    plane = torch.linalg.qr(torch.randn(d, 2, generator=generator)).Q.T
    n = len(tokens)
    if shape == "circle":
        angles = 2 * np.pi * torch.arange(n) / n
        at = torch.stack([angles.cos(), angles.sin()], 1)
    elif shape == "line":
        at = torch.stack([torch.linspace(-1, 1, n), torch.zeros(n)], 1)
    else:
        at = torch.tensor([[1.0, 0.0]]).expand(n, 2)
    embedding[tokens] += effect * RADIUS[shape] * at @ plane


def _another_order(lists: torch.Tensor, shape: str, generator: torch.Generator) -> torch.Tensor:
    """Return the same tokens in another order: within the first list, or over all lists where they are a cluster."""
    if shape == "cluster":
        return shuffled(lists, generator)
    return torch.cat([lists[:1, torch.randperm(lists.shape[1], generator=generator)], lists[1:]])


def answer(folder: Path, details: Details) -> Answer:
    """Judge the shape of the three lists: the verdict on the order of the first, or whether it is a cluster.

    An order that may be closed or open is undecided.
    """
    lists = {"claimed": details["tokens"]} | {f"other {at}": row for at, row in enumerate(details["others"], 1)}
    model, contexts = load_small(folder), torch.tensor(details["contexts"])
    points = residual_hook_points(model)
    read: dict[str, WordActivations] = {}
    for name, tokens in lists.items():
        rows = torch.cat([torch.cat([contexts, torch.full((len(contexts), 1), token)], 1) for token in tokens])
        with Capture(model, points) as capture:
            values = {at: value[:, -1].float().numpy() for at, value in capture(rows).items()}
        read[name] = WordActivations(
            concept=WordList(name=name, words=tuple(map(str, tokens)), cyclic=details["shape"] == "circle"),
            sentences=tuple(map(str, range(len(contexts)))),
            hook_points=tuple(points),
            values={at: x.reshape(len(tokens), len(contexts), -1).swapaxes(0, 1) for at, x in values.items()},
            n_tokens=(1,) * len(tokens),
            last_tokens=tuple(tokens),
            prefix=None,
        )
    shape, claimed = find_shapes(read)["claimed"], details["shape"]
    if claimed == "cluster":
        assert shape.cluster is not None
        close = shape.cluster.p <= shape.order.alpha
        return Answer(outcome="supported" if close else "not supported", why=shape.cluster.sentence())
    unclear = shape.verdict in ("ordered", "undecided")
    outcome = "supported" if shape.verdict == claimed else "undecided" if unclear else "not supported"
    return Answer(outcome=outcome, why=f"{shape.verdict}: {shape.reason}")
