"""Maps of a model's weights: its unembedding, and its heads by what they read and write or by what they were scored.

Two heads are alike as their circuits are: the cosine of `W_V W_O` (or `W_Q W_K^T`) as matrices `[d_model, d_model]`,

    <A, B> = tr(A^T B)        from the d_head wide factors, the products are never formed

Vectors with exactly these inner products are the rows of a square root of the Gram matrix, one dimension per head, so
neighbours and map are those of the matrices themselves.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import read_manifest
from interp.atlas.sources import AtlasSource, token_source
from interp.circuits.head_weights import Factored, HeadWeights
from interp.circuits.patterns import KINDS


def unembedding_source(model: Any, name: str, *, weight_hash: str) -> AtlasSource:
    """What raises each token's logit: the columns of `W_U`, the gain of the final norm folded in, centred over tokens.

    Centring changes no probability. A tied model's embeddings and unembeddings differ by the gain and the centring.
    """
    notes = ("columns of the unembedding, the final norm's gain folded in, centred over the vocabulary",)
    W_U = HeadWeights(model).unembedding()
    return token_source(model, W_U.T, f"unembeddings:{name}", {f"model:{name}": weight_hash}, notes)


def head_circuit_source(model: Any, name: str, circuit: Literal["ov", "qk"], *, weight_hash: str) -> AtlasSource:
    """One point per head, alike as their `ov` or `qk` circuits are; the value is the layer.

    QK circuits of rotary models are those of a query at its own position (offset 0), and say so.
    """
    weights = HeadWeights(model)
    heads = weights.residual.all_heads()
    circuits = [weights.ov(head) if circuit == "ov" else weights.qk(head) for head in heads]
    notes = [f"heads alike as {'W_V W_O' if circuit == 'ov' else 'W_Q W_K^T'} are, norms folded in, biases left out"]
    if circuit == "qk" and weights.is_rotary:
        notes.append("rotary: the key at the query's own position")
    return AtlasSource(
        vectors=square_root_of(inner_products(circuits)),
        source=f"heads-{circuit}:{name}",
        labels=[str(head) for head in heads],
        items=np.array([head.layer * weights.shape.n_heads + head.head for head in heads], np.int32),
        values=np.array([head.layer for head in heads], np.float32),
        value_name="layer",
        item_kind="head",
        parents={f"model:{name}": weight_hash},
        groups=[f"layer {head.layer}" for head in heads],
        notes=tuple(notes),
    )


def head_score_source(folder: Path) -> AtlasSource:
    """One point per head of a heads artefact: its scores, each over its spread; the value is the induction score.

    Labels name what the head was found to be. Raises `MissingError` when there is no such folder.
    """
    import pyarrow.parquet as pq

    manifest = read_manifest(folder)
    table = pq.read_table(folder / "heads.parquet")
    scores = np.column_stack([table[kind].to_numpy() for kind in KINDS])
    found = np.column_stack([table[f"{kind}_found"].to_numpy(zero_copy_only=False) for kind in KINDS])
    layer, head = (table[side].to_numpy() for side in ("layer", "head"))
    verdicts = [[kind.replace("_", " ") for kind, hit in zip(KINDS, row, strict=True) if hit] for row in found]
    names = zip(layer.tolist(), head.tolist(), verdicts, strict=True)
    spread = np.maximum(scores.std(0), 1e-6)
    return AtlasSource(
        vectors=torch.from_numpy(((scores - scores.mean(0)) / spread).astype(np.float32)),
        source=f"heads:{folder.name}",
        labels=[f"L{one}H{two} {', '.join(kinds)}".strip() for one, two, kinds in names],
        items=(layer * (head.max() + 1) + head).astype(np.int32),
        values=table["induction"].to_numpy().astype(np.float32),
        value_name="induction score",
        item_kind="head",
        parents={f"heads/{folder.name}": manifest.content_hash},
        groups=[kinds[0] if kinds else "none found" for kinds in verdicts],
        notes=(f"heads by {len(KINDS)} scores ({', '.join(KINDS)}), each centred and over its spread",),
    )


def inner_products(circuits: list[Factored]) -> Tensor:
    """`[n, n]` float64: `tr(A^T B)` of all pairs of factored matrices, as `sum((L_A^T L_B) * (R_A R_B^T))`."""
    left = torch.stack([circuit.left for circuit in circuits])
    right = torch.stack([circuit.right for circuit in circuits])
    rows = [
        (torch.einsum("di,ndj->nij", one, left) * torch.einsum("ib,njb->nij", two, right)).sum((1, 2))
        for one, two in zip(left, right, strict=True)
    ]
    gram = torch.stack(rows)
    return (gram + gram.T) / 2


def square_root_of(gram: Tensor) -> Tensor:
    """`[n, n]` float32 rows whose inner products are `gram [n, n]` (positive semidefinite)."""
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp(min=0).sqrt()).float()
