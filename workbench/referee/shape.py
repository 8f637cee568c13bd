"""Cases of shapes: the embeddings of some tokens lie on a circle, along a line, or in a cluster.

The model has two random layers and a planted embedding: each token has isotropic noise of length 1, and those of the
list stand apart from one another, by `effect` times `RADIUS`. Three lists are read in random contexts, at the embedding
and after each layer, and judged as the page *Geometry* judges lists of words (`find_shapes`). A circle or a line is
supported where it is the verdict; a cluster by its own test, whatever the verdict on the order.
"""

from pathlib import Path

import numpy as np
import torch

from interp.errors import ConfigError
from interp.geometry.shapes import Shape, find_shapes
from interp.geometry.words import WordActivations, WordList, residual_hook_points
from interp.models.adapter import check_token_ids
from interp.models.passes import Capture
from interp.models.small import SmallConfig, build_small, load_small, save_small
from interp.seeds import make_generator
from workbench.referee._small_models import shuffle_weights
from workbench.referee.cases import Answer, CaseWords, Control, KindOfCase, RefereeCase

CONFIG = SmallConfig(n_layers=2, d_model=32, n_heads=2, d_mlp=64, d_vocab=64, n_ctx=16)
N_WORDS, N_LISTS, N_CONTEXTS, CONTEXT = 12, 3, 8, 6
RADIUS = {"circle": 1.5, "line": 1.5, "cluster": 1.0}
"""Radius of a circle, half of a line, distance of a cluster's centre, in lengths of the noise of one token."""
WORDS = {
    "circle": "The embeddings of tokens {tokens} lie on a circle, in this order",
    "line": "The embeddings of tokens {tokens} lie along a line, in this order",
    "cluster": "The embeddings of tokens {tokens} lie together, apart from those of the other two lists",
}


def write(folder: Path, control: Control, effect: float, seed: int) -> CaseWords:
    """Write a model with a planted embedding, and say which tokens have which shape."""
    generator = make_generator(seed, "shape")
    shape = list(WORDS)[seed % len(WORDS)]
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
    said = WORDS[shape].format(tokens=", ".join(map(str, tokens)))
    return CaseWords(
        claim=said, details={"shape": shape, "tokens": tokens, "others": others, "contexts": contexts.tolist()}
    )


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
        return lists.flatten()[torch.randperm(lists.numel(), generator=generator)].view_as(lists)
    return torch.cat([lists[:1, torch.randperm(lists.shape[1], generator=generator)], lists[1:]])


def answer(folder: Path, case: RefereeCase) -> Answer:
    """Judge the shape of the three lists: the verdict on the order of the first, or whether it is a cluster."""
    lists, contexts = _lists(case)
    model = load_small(folder)
    points = residual_hook_points(model)
    read: dict[str, WordActivations] = {}
    for name, tokens in lists.items():
        rows = torch.cat([torch.cat([contexts, torch.full((len(contexts), 1), token)], 1) for token in tokens])
        check_token_ids(model, rows)
        with Capture(model, points) as capture:
            values = {at: value[:, -1].float().numpy() for at, value in capture(rows).items()}
        read[name] = WordActivations(
            concept=WordList(name=name, words=tuple(map(str, tokens)), cyclic=case.details["shape"] == "circle"),
            sentences=tuple(map(str, range(len(contexts)))),
            hook_points=tuple(points),
            values={at: x.reshape(len(tokens), len(contexts), -1).swapaxes(0, 1) for at, x in values.items()},
            n_tokens=(1,) * len(tokens),
            last_tokens=tuple(tokens),
            prefix=None,
        )
    return judged(find_shapes(read)["claimed"], str(case.details["shape"]))


def judged(shape: Shape, claimed: str) -> Answer:
    """Return the verdict on a claimed shape from that on the list; an order that is not closed or open is undecided."""
    if claimed == "cluster":
        assert shape.cluster is not None
        close = shape.cluster.p <= shape.order.alpha
        return Answer(
            outcome="supported" if close else "not supported", value=shape.cluster.silhouette,
            null=shape.cluster.null_high, why=shape.cluster.sentence()[:400],
        )  # fmt: skip
    p = shape.order.p_circular if claimed == "circle" else shape.order.p_linear
    unclear = shape.verdict in ("ordered", "undecided")
    outcome = "supported" if shape.verdict == claimed else "undecided" if unclear else "not supported"
    return Answer(outcome=outcome, value=p, null=shape.order.alpha, why=f"{shape.verdict}: {shape.reason}"[:400])


def _lists(case: RefereeCase) -> tuple[dict[str, list[int]], torch.Tensor]:
    """Return the lists of tokens by name, and the contexts. Raises `ConfigError` for other details."""
    found = {name: case.details.get(name) for name in ("shape", "tokens", "others", "contexts")}
    if not isinstance(found["shape"], str) or found["shape"] not in WORDS:
        raise ConfigError(f"shape of {case.name} is one of {', '.join(WORDS)}, got {found['shape']!r}")
    try:
        claimed, contexts = torch.tensor(found["tokens"]), torch.tensor(found["contexts"])
        others = torch.tensor(found["others"])
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"tokens, others and contexts of {case.name} are lists of whole numbers") from None
    whole = all(each.dtype == torch.int64 for each in (claimed, others, contexts))
    if not whole or (claimed.ndim, others.ndim, contexts.ndim) != (1, 2, 2) or len(contexts) < 4:
        raise ConfigError(f"{case.name} needs a list of tokens, other lists, and four contexts or more of one length")
    lists = {"claimed": claimed.tolist()} | {f"other {at}": row.tolist() for at, row in enumerate(others, 1)}
    return lists, contexts


KIND = KindOfCase(write=write, answer=answer)
