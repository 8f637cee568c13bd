"""Sources of vectors for an atlas: token embeddings, unembeddings, attention heads, a recording, a file.

`saes.features.sources` adds the directions of SAEs.

Heads are compared by their OV or QK circuits: by the cosine of `W_V W_O` (or `W_Q W_K^T`) as matrices
`[d_model, d_model]`,

    <A, B> = tr(A^T B)        computed from the factors of width d_head; the products are never formed

The rows of a square root of the Gram matrix have exactly these inner products, with one dimension per head. So
neighbours and map are those of the matrices themselves.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor

from interp.artifacts import open_artefact, read_npy, sha256_file, table_errors
from interp.atlas.cells import NearestReadout, Readout, UnembeddingReadout
from interp.atlas.vector_map import ItemKind
from interp.circuits.head_scores import HeadScores
from interp.circuits.head_weights import Factored, HeadWeights
from interp.errors import ConfigError, CorruptError, MissingError
from interp.models.hooked import HookedModel
from interp.names import RESIDUAL_SUFFIXES, parse_hook_point
from interp.recording.store import NO_TOKEN, Recording, document_names, read_passages
from interp.seeds import make_generator

if TYPE_CHECKING:
    import pyarrow as pa

BEFORE, AFTER = 12, 4
"""tokens of context shown before and after an activation's own"""


@dataclass(frozen=True, kw_only=True)
class AtlasSource:
    """Vectors with a label and further properties of each, as `build_atlas` takes them."""

    vectors: Float[Tensor, "n d"]
    """`[n, d]`"""
    source: str
    """`embeddings:MODEL`, `recording:NAME`, `sae:NAME`, `file:PATH` ..."""
    labels: list[str]
    """plain text, one per vector"""
    subjects: list[str] | None = None
    """Part of each label from which regions are labelled, such as the token of `before " of" (70 %)`; None: the whole
    label."""
    items: Int[np.ndarray, " n"]
    """`[n]` int32: token id, feature number, recording row, head number or index"""
    values: Float[np.ndarray, " n"]
    """`[n]` float32: a quantity to colour by"""
    value_name: str
    item_kind: ItemKind
    parents: dict[str, str] = field(default_factory=dict)
    features: str | None = None
    """features artefact that a click on a point opens"""
    hook_point: str | None = None
    """hook point at which the vectors were recorded"""
    contexts: list[str] | None = None
    """text around each vector's token, if there is one"""
    groups: list[str] | None = None
    """group of each vector, such as the label of its document"""
    notes: tuple[str, ...] = ()
    """remarks on the vectors for readers of the map"""
    readout: Readout | None = None
    """readout that turns means of such vectors into texts; without one a map has no cells"""

    def chosen(self, points: Int[Tensor, " n_chosen"]) -> "AtlasSource":
        """Return the same source with some `points` only."""
        which = points.tolist()

        def pick(texts: list[str] | None) -> list[str] | None:
            return None if texts is None else [texts[i] for i in which]

        return replace(
            self,
            vectors=self.vectors[points],
            labels=[self.labels[i] for i in which],
            subjects=pick(self.subjects),
            items=np.asarray(self.items)[points.numpy()],
            values=np.asarray(self.values)[points.numpy()],
            contexts=pick(self.contexts),
            groups=pick(self.groups),
        )


def joined(first: AtlasSource, second: AtlasSource, *, groups: tuple[str, str]) -> AtlasSource:
    """Join two sources; `groups` names the two. Fields that only one of them has are dropped."""
    contexts = None if first.contexts is None or second.contexts is None else first.contexts + second.contexts
    return replace(
        first,
        vectors=torch.cat([first.vectors.float(), second.vectors.float()]),
        source=second.source,
        labels=first.labels + second.labels,
        subjects=None if first.subjects is None or second.subjects is None else first.subjects + second.subjects,
        items=np.concatenate([first.items, second.items]),
        values=np.concatenate([first.values, second.values]),
        parents=first.parents | second.parents,
        contexts=contexts,
        groups=[groups[0]] * len(first.labels) + [groups[1]] * len(second.labels),
        notes=first.notes + second.notes,
    )


def embedding_source(model: HookedModel, name: str, *, weight_hash: str) -> AtlasSource:
    """Return the token embeddings of a loaded model; the value is the norm of each.

    `name` is the short name of the model; `weight_hash`, the hash of its weights, is stored with the map.
    """
    return token_source(model, model.W_E, f"embeddings:{name}", {f"model:{name}": weight_hash}, ())


def token_source(
    model: HookedModel,
    vectors: Float[Tensor, "d_vocab d"],
    source: str,
    parents: dict[str, str],
    notes: tuple[str, ...],
) -> AtlasSource:
    """Return a source with one vector per token of the vocabulary; the value is the norm."""
    from interp.models.adapter import token_strings

    vectors = vectors.detach().float().cpu()
    labels = token_strings(model, torch.arange(len(vectors)))
    return AtlasSource(
        vectors=vectors,
        source=source,
        labels=labels,
        items=np.arange(len(vectors), dtype=np.int32),
        values=vectors.norm(dim=1).numpy(),
        value_name="norm",
        item_kind="token",
        parents=parents,
        notes=notes,
        readout=NearestReadout("tokens", vectors, labels),
    )


def recording_source(
    recording: Recording, model: HookedModel, *, hook_point: str | None = None, max_points: int = 20_000, seed: int = 0
) -> AtlasSource:
    """Return recorded activations of at most `max_points` rows, drawn uniformly without replacement.

    Rows are in recording order. Labels are the tokens, contexts the text around them, groups the labels of their
    documents; the value is the norm. The model gives the text of tokens. At hook points of the residual stream, and of
    what is added to it, the model's unembedding is also the readout of cells.
    """
    from interp.models.adapter import token_strings

    hook_point = recording.check_hook_point(hook_point or recording.hook_points[0])
    shards = range(recording.n_shards)
    rows = torch.cat([recording.real_rows(shard) + int(recording.shard_starts[shard]) for shard in shards])
    drawn = torch.randperm(len(rows), generator=make_generator(seed, "atlas rows"))[:max_points]
    total, rows = len(rows), rows[drawn.sort().values]
    vectors = recording.read_rows(hook_point, rows)
    passages = read_passages(recording, rows.numpy(), before=BEFORE, after=AFTER)
    ids = np.unique(passages.token_ids[passages.token_ids != NO_TOKEN])
    spelled = {NO_TOKEN: "", **dict(zip(ids.tolist(), token_strings(model, torch.from_numpy(ids)), strict=True))}
    _, document_labels = document_names(recording)
    return AtlasSource(
        vectors=vectors,
        source=f"recording:{recording.folder.name}",
        labels=[spelled[token] for token in passages.token_ids[:, BEFORE].tolist()],
        items=rows.numpy().astype(np.int32),
        values=vectors.norm(dim=1).numpy(),
        value_name="norm",
        item_kind="row",
        parents={recording.key: recording.manifest.content_hash},
        hook_point=hook_point,
        contexts=["".join(spelled[token] for token in passage) for passage in passages.token_ids.tolist()],
        groups=[document_labels[document] for document in passages.document.tolist()],
        notes=(f"activations at {hook_point} of {len(rows):,} of {total:,} recorded tokens, drawn uniformly",),
        readout=UnembeddingReadout(model) if parse_hook_point(hook_point).suffix in RESIDUAL_SUFFIXES else None,
    )


def file_source(path: str | Path) -> AtlasSource:
    """Read vectors from a `.npy` file `[n, d]` or a `.parquet` file: its column of lists, else its numeric columns.

    The parquet file's column `label`, if there is one, gives the labels. Raises `MissingError`, `CorruptError`
    (unreadable, or not a table of numbers), `ConfigError` (another file type).
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingError(f"no file at {path}; an atlas reads .npy and .parquet files")
    readers = {".npy": _read_npy, ".parquet": _read_parquet}
    kind = path.suffix.lower()
    if kind not in readers:
        raise ConfigError(f"an atlas reads .npy and .parquet files, not {path.suffix or 'a file without a suffix'}")
    array, labels = readers[kind](path)
    if array.ndim != 2 or 0 in array.shape:
        raise CorruptError(f"{path} should hold vectors as [n, d], found shape {list(array.shape)}")
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    if (np.isinf(narrow) & np.isfinite(array)).any():
        raise CorruptError(f"{path} holds numbers beyond 3.4e38, the largest of a float32; divide all by one number")
    vectors = torch.from_numpy(narrow)
    return AtlasSource(
        vectors=vectors,
        source=f"file:{path.name}",
        labels=labels or [str(i) for i in range(len(vectors))],
        items=np.arange(len(vectors), dtype=np.int32),
        values=vectors.double().norm(dim=1).clamp(max=torch.finfo(torch.float32).max).float().numpy(),
        value_name="norm",
        item_kind="index",
        parents={f"file:{path.name}": sha256_file(path)},
    )


def _read_npy(path: Path) -> tuple[np.ndarray, list[str] | None]:
    return read_npy(path), None


def _read_parquet(path: Path) -> tuple[np.ndarray, list[str] | None]:
    import pyarrow.parquet as pq

    with table_errors(path, "write or copy the file again"):
        table = pq.read_table(path)
        labels = [str(text) for text in table["label"].to_pylist()] if "label" in table.column_names else None
    fields = [field for field in table.schema if field.name != "label"]
    numeric = [f.name for f in fields if _is_number(f.type)]
    lists = [f.name for f in fields if _is_list(f.type) and _is_number(f.type.value_type)]
    if len(lists) > 1:
        raise CorruptError(f"{path} has several columns of lists ({', '.join(lists)}); leave only the one to be mapped")
    if lists:
        return _rows_of(table[lists[0]], f"{path}, column {lists[0]}"), labels
    if not numeric:
        raise CorruptError(f"{path} has no numeric column; found {', '.join(table.column_names) or 'none'}")
    return np.column_stack([table[name].to_numpy() for name in numeric]), labels


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return types.is_floating(kind) or types.is_integer(kind)


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _rows_of(column: "pa.ChunkedArray", where: str) -> np.ndarray:
    """Return a column of lists of numbers as `[n, d]`, with NaN for missing numbers."""
    import pyarrow.compute as compute

    lengths = np.unique(compute.call_function("list_value_length", [column]).to_numpy())
    if len(lengths) > 1 or column.null_count:
        raise CorruptError(f"{where}: the lists should be equally long and none missing, found lengths {lengths[:5]}")
    return compute.call_function("list_flatten", [column]).to_numpy().reshape(len(column), -1).copy()


def unembedding_source(model: HookedModel, name: str, *, weight_hash: str) -> AtlasSource:
    """Return the columns of `W_U`, with the gain of the final norm folded in, centred over tokens.

    Centring changes no probability. A tied model's embeddings and unembeddings differ by the gain and the centring.
    """
    notes = ("columns of the unembedding, the final norm's gain folded in, centred over the vocabulary",)
    W_U = HeadWeights(model).unembedding()
    return token_source(model, W_U.T, f"unembeddings:{name}", {f"model:{name}": weight_hash}, notes)


def head_circuit_source(
    model: HookedModel, name: str, circuit: Literal["ov", "qk"], *, weight_hash: str
) -> AtlasSource:
    """Return one vector per head, with the inner products of their `ov` or `qk` circuits; the value is the layer.

    In rotary models the QK circuit is that of a key at the query's own position (offset 0); a note says so.
    """
    weights = HeadWeights(model)
    heads = weights.residual.all_heads()
    circuits = [weights.ov(head) if circuit == "ov" else weights.qk(head) for head in heads]
    product = "W_V W_O" if circuit == "ov" else "W_Q W_K^T"
    notes = [f"heads by the similarity of {product}, norms folded in, biases left out"]
    if circuit == "qk" and weights.is_rotary:
        notes.append("rotary embeddings: the QK circuit of a key at the query's own position")
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
    """Return one vector per head of a heads artefact: its standardised scores; the value is the induction score.

    Labels name the kinds of head found. Raises `MissingError` when there is no such folder, `CorruptError`.
    """
    heads = open_artefact(HeadScores, folder)
    scores = np.stack([heads.score[kind].ravel() for kind in heads.kinds], 1)
    of_kind = {kind: heads.of_kind(kind) for kind in heads.kinds}
    verdicts = [
        [row.kind.replace("_", " ") for row in rows if row.above_null] for rows in zip(*of_kind.values(), strict=True)
    ]
    names = [row.name for row in of_kind[heads.kinds[0]]]
    spread = np.maximum(scores.std(0), 1e-6)
    return AtlasSource(
        vectors=torch.from_numpy(((scores - scores.mean(0)) / spread).astype(np.float32)),
        source=f"heads:{folder.name}",
        labels=[f"{name} {', '.join(kinds)}".strip() for name, kinds in zip(names, verdicts, strict=True)],
        items=np.arange(len(names), dtype=np.int32),
        values=heads.score["induction"].ravel().astype(np.float32),
        value_name="induction score",
        item_kind="head",
        parents={heads.key: heads.about.content_hash},
        groups=[kinds[0] if kinds else "none found" for kinds in verdicts],
        notes=(f"heads by {len(of_kind)} scores ({', '.join(of_kind)}), each with mean 0 and standard deviation 1",),
    )


def inner_products(circuits: list[Factored]) -> Float64[Tensor, "n n"]:
    """Return `tr(A^T B)` of all pairs of factored matrices, `[n, n]` float64.

    It is computed as `sum((L_A^T L_B) * (R_A R_B^T))`.
    """
    left = torch.stack([circuit.left for circuit in circuits])
    right = torch.stack([circuit.right for circuit in circuits])
    rows = [
        (torch.einsum("di,ndj->nij", left_factor, left) * torch.einsum("ib,njb->nij", right_factor, right)).sum((1, 2))
        for left_factor, right_factor in zip(left, right, strict=True)
    ]
    gram = torch.stack(rows)
    return (gram + gram.T) / 2


def square_root_of(gram: Float[Tensor, "n n"]) -> Float32[Tensor, "n n"]:
    """Return `[n, n]` float32 rows whose inner products are `gram [n, n]` (positive semidefinite)."""
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp(min=0).sqrt()).float()
