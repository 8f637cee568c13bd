"""The heads folder: one row per head, and the strongest of each kind in the manifest."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_table
from interp.circuits.heads import HeadScores
from interp.circuits.patterns import KINDS

if TYPE_CHECKING:
    import pyarrow as pa


def save_heads(
    scores: HeadScores,
    folder: Path,
    *,
    model_name: str,
    weight_hash: str,
    seed: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write `heads.parquet`; returns the manifest, whose summary names the heads found."""
    config = {"model": model_name, "weight_hash": weight_hash, **scores.settings}
    draft = Draft.open(folder, kind="heads", config=config, seed=seed, overwrite=overwrite)
    write_table(draft.path / "heads.parquet", heads_table(scores))
    return draft.finish(summary=summarise(scores), parents={f"model:{model_name}": weight_hash})


def summarise(scores: HeadScores) -> dict[str, Any]:
    """Per kind: how many heads were found, and the five strongest as `{"head", "score"}`."""
    return {
        kind: {
            "found": int(scores.found[kind].sum()),
            "strongest": [{"head": str(head), "score": round(score, 4)} for head, score in scores.strongest(kind)],
        }
        for kind in KINDS
    } | {"n_heads": int(next(iter(scores.score.values())).size)}


def heads_table(scores: HeadScores) -> "pa.Table":
    """`layer, head`, and for each kind its score, interval, null, the null's upper bound, and the verdict."""
    import pyarrow as pa

    n_layers, n_heads = next(iter(scores.score.values())).shape
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    columns = {"layer": pa.array(layer, pa.int32()), "head": pa.array(head, pa.int32())}
    for kind in KINDS:
        columns[kind] = pa.array(scores.score[kind].ravel(), pa.float32())
        for name in ("low", "high", "null", "null_high"):
            columns[f"{kind}_{name}"] = pa.array(getattr(scores, name)[kind].ravel(), pa.float32())
        columns[f"{kind}_found"] = pa.array(scores.found[kind].ravel(), pa.bool_())
    return pa.table(columns)
