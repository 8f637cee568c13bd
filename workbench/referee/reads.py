"""Reads with which an agent investigates the files of a case. They know no truth, and give no verdict."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Interval as Within
from annotated_types import MaxLen, MinLen
from jaxtyping import Int64
from torch import Tensor

from interp.artifacts import read_json
from interp.circuits.attribution import attribute
from interp.circuits.circuit import edge_text
from interp.circuits.head_kinds import head_patterns
from interp.directions.files import read_vector
from interp.errors import MissingError, UnknownNameError
from interp.interventions.edits import adding
from interp.models.adapter import Hook, check_token_ids, run_with_hooks
from interp.models.small import CONFIG_FILE, load_small
from interp.names import parse_head
from interp.patching.ablation import ablated
from saes.weights.folder import load_sae
from workbench.referee._small_models import read_texts, residuals
from workbench.referee.direction import VECTOR
from workbench.referee.head import ALIKE, scores_of
from workbench.referee.planted_models import TASK_FILE, read_rows

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel

Tokens = Annotated[list[Annotated[int, Within(ge=0, lt=2**31)]], MinLen(1), MaxLen(64)]
"""Token ids of a prompt. Models with texts read bytes, after a BOS of 256."""
Head = Annotated[str, MaxLen(10)]
Heads = Annotated[tuple[Head, ...], MaxLen(16)]
LISTED = 6
"""Next tokens of a position, and tokens of a latent, that are listed."""
MOST_EDGES = 100


@lru_cache(maxsize=4)
def _model(where: Path) -> "HookedModel":
    _needs(where, CONFIG_FILE)
    return load_small(where)


def _needs(where: Path, name: str) -> None:
    if not (where / name).exists():
        raise MissingError(f"this question has no {name}; `files` lists what it has")


def _prompt(model: "HookedModel", tokens: list[int]) -> Int64[Tensor, "1 pos"]:
    ids = torch.tensor([tokens])
    check_token_ids(model, ids)
    return ids


def heads_of(where: Path) -> list[str]:
    """Return the names of the heads of the model of a case."""
    _needs(where, CONFIG_FILE)
    sizes = read_json(where / CONFIG_FILE)
    return [f"L{layer}H{head}" for layer in range(sizes["n_layers"]) for head in range(sizes["n_heads"])]


def n_latents(where: Path) -> int:
    """Return the number of latents of the dictionary of a case."""
    _needs(where, "cfg.json")
    return read_json(where / "cfg.json")["d_sae"]


def files(where: Path) -> dict[str, object]:
    """Return what a question is about: names of files, and those of JSON whole, such as texts, or prompts of a task."""
    shown = sorted(path for path in where.rglob("*.*") if path.name != "case.json")
    texts = {str(path.relative_to(where)): read_json(path) for path in shown if path.suffix == ".json"}
    return {"names": [str(path.relative_to(where)) for path in shown], **texts}


def next_tokens(
    where: Path, tokens: Tokens, ablate: Heads = (), of: Literal["", "base", "tuned"] = "", add: float = 0.0
) -> list[dict[str, object]]:
    """Return the likeliest next tokens after each position of a prompt, with the outputs of some heads set to zero.

    `of` names one of two models, where a question has two. `add` adds its direction at its hook point, this many times.
    """
    model = _model(where / of)
    ids = _prompt(model, tokens)
    hooks: list[tuple[str, Hook]] = []
    if add:
        _needs(where, VECTOR)
        vector, hook_point = read_vector(where / VECTOR, read_json(where / "case.json")["details"]["hook_point"])
        hooks = [(hook_point, adding(add * torch.from_numpy(vector)))]
    with torch.inference_mode(), ablated(model, ablate, kind="zero"):
        top = run_with_hooks(model, ids, hooks)[0].float().softmax(-1).topk(LISTED)
    rows = zip(tokens, top.indices.tolist(), top.values.tolist(), strict=True)
    return [{"token": token, "next": likely, "probability": p} for token, likely, p in rows]


def attention(where: Path, tokens: Tokens, head: Head) -> list[list[float]]:
    """Return the attention of one head on a prompt: each row is a destination, and sums to 1 over its sources."""
    if head not in heads_of(where):
        raise UnknownNameError("head", head, heads_of(where))
    _, patterns = head_patterns(_model(where), _prompt(_model(where), tokens), [parse_head(head)])
    return [] if patterns is None else patterns[0].round(4).tolist()


def head_scores(where: Path) -> list[dict[str, object]]:
    """Return the share of attention on the targets of each kind of head, for every head, on repeated random tokens.

    `null` is the highest share that is expected of a head that is not of the kind.
    """
    scores = scores_of(_model(where))
    rows = [row for kind in ALIKE for row in scores.of_kind(kind)]
    return [{"head": str(row.name), "kind": row.kind, "score": row.score, "null": row.null_high} for row in rows]


def embedding_distances(where: Path, tokens: Tokens) -> list[list[float]]:
    """Return the distance between the embeddings of each two of some tokens."""
    embedding, ids = _model(where).W_E, torch.tensor(tokens)
    check_token_ids(_model(where), ids)
    return torch.cdist(embedding[ids], embedding[ids]).round(decimals=3).tolist()


def edge_scores(where: Path) -> list[dict[str, object]]:
    """Return the largest effects of edges on the task, estimated by EAP-IG, in units of its metric."""
    _needs(where, TASK_FILE)
    scores = attribute(_model(where), read_rows(where).task(_model(where), check_gap=False))
    order = scores.values.abs().argsort(descending=True)[:MOST_EDGES].tolist()
    edges = scores.graph.edges()
    return [{"edge": edge_text(edges[at]), "score": float(scores.values[at])} for at in order]


def latents(where: Path) -> list[dict[str, object]]:
    """Return for each latent the tokens on which it fires most, and those that its direction raises.

    `fires` has its mean activation on a token over the documents, `raises` the logits that a step along its decoder
    direction adds without the layers above.
    """
    _needs(where, "cfg.json")
    model, sae = _model(where), load_sae(where)
    with torch.inference_mode():
        x, tokens = residuals(model, sae.hook_point, read_texts(where))
        acts, ids = sae.encode(x.flatten(0, 1)), tokens.flatten()
        fires = torch.stack([acts[ids == token].mean(0) for token in ids.unique()]).topk(LISTED, 0)
        raises = (sae.W_dec @ model.W_U).topk(LISTED)
    columns = (ids.unique()[fires.indices.T], fires.values.T, raises.indices, raises.values)
    return [
        {"latent": at, "fires": list(zip(tokens, means, strict=True)), "raises": list(zip(raised, by, strict=True))}
        for at, (tokens, means, raised, by) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]


READS: dict[str, Callable[..., Any]] = {
    read.__name__: read
    for read in (files, next_tokens, attention, head_scores, embedding_distances, edge_scores, latents)
}
"""Name -> read, `read(folder of the case, **parameters)`."""
