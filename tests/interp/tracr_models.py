"""Programs compiled to transformers by tracr (Lindner et al. 2023), from stored arrays: models with a known circuit.

    model, program = load_tracr("tracr_reverse.npz")
    program.circuit()                   # the edges that the compiled weights use

A compiled model has no norms, bidirectional attention, ReLU MLPs, and a residual stream whose axes are the program's
variables, one-hot. The weights therefore show what a component reads and writes: an edge exists where the axes written
by a source and those read by a reader overlap. tracr itself is not needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import CorruptError, MissingError
from interp.models.hooked import HookedModel, wrap_native


@dataclass(frozen=True)
class TracrProgram:
    """The arrays of one compiled program."""

    arrays: dict[str, np.ndarray]

    @property
    def labels(self) -> list[str]:
        """Meaning of each axis of the residual stream, `variable:value`."""
        return [str(label) for label in self.arrays["labels"]]

    @property
    def tokens(self) -> np.ndarray:
        """`[n, pos]` int64 inputs, BOS first."""
        return self.arrays["tokens"]

    @property
    def expected(self) -> np.ndarray:
        """`[n, pos]` outputs of the program: the index of the output value, or the number; nan at BOS."""
        return self.arrays["expected"]

    @property
    def n_layers(self) -> int:
        return sum(name.endswith(".W_Q") for name in self.arrays)

    def layer(self, layer: int, name: str) -> np.ndarray:
        return self.arrays[f"L{layer}.{name}"]


def load_tracr(path: Path | str, *, device: str = "cpu") -> tuple[HookedModel, TracrProgram]:
    """Load the compiled model and its program. Logits beyond the program's outputs are zero.

    Raises `MissingError`, or `CorruptError` when the arrays are not such a program.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"there is no compiled program at {path}")
    with np.load(path, allow_pickle=False) as stored:
        program = TracrProgram(dict(stored))
    try:
        return _build(program, device), program
    except (KeyError, ValueError, RuntimeError) as error:
        raise CorruptError(f"{path} is not a compiled tracr program: {error}") from error


def _build(program: TracrProgram, device: str) -> HookedModel:
    import torch
    from transformer_lens import TransformerBridgeConfig

    n_heads, d_head = (int(n) for n in program.arrays["attention_heads"])
    d_vocab, d_model = program.arrays["embed.W_E"].shape
    config = TransformerBridgeConfig(
        d_model=d_model,
        d_head=d_head,
        n_heads=n_heads,
        n_layers=program.n_layers,
        n_ctx=len(program.arrays["embed.W_pos"]),
        d_vocab=d_vocab,
        d_mlp=program.layer(0, "W_in").shape[1],
        act_fn="relu",
        normalization_type=None,
        attention_dir="bidirectional",
        positional_embedding_type="standard",
    )
    model = wrap_native(config, device=device, dtype=torch.float32)

    def put(parameter: Any, value: np.ndarray) -> None:
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    with torch.no_grad():
        put(model.W_E, program.arrays["embed.W_E"])
        put(model.W_pos, program.arrays["embed.W_pos"])
        for layer in range(program.n_layers):
            block = model.blocks[layer]
            linears = {side: getattr(block.attn, side.lower()).original_component for side in "QKVO"}
            linears |= {"in": getattr(block.mlp, "in").original_component, "out": block.mlp.out.original_component}
            for name, linear in linears.items():
                put(linear.weight, program.layer(layer, f"W_{name}").T)
                put(linear.bias, program.layer(layer, f"b_{name}"))
        unembed = np.zeros((d_vocab, d_model), np.float32)
        unembed[: program.arrays["W_U"].shape[1]] = program.arrays["W_U"].T
        put(model.unembed.original_component.weight, unembed)
    return model


def written_edges(program: TracrProgram) -> list[tuple[str, str, str | None]]:
    """Return (source, reader, via) of every edge that the compiled weights use.

    An edge is used where the axes that its source writes and those that its reader reads overlap; query and key
    edges only in heads whose scores can differ between keys (a "select all" head, as in counting the length, scores
    every key alike, which softmax ignores).
    """
    writes = {"embed": _columns(program.arrays["embed.W_E"]) | _columns(program.arrays["embed.W_pos"])}
    edges: list[tuple[str, str, str | None]] = []

    def read(node: str, via: str | None, weight: np.ndarray) -> None:
        axes = _columns(weight.T)
        edges.extend((source, node, via) for source, written in writes.items() if written & axes)

    for layer in range(program.n_layers):
        for via in ("q", "k", "v") if _selects(program, layer) else ("v",):
            read(f"L{layer}H0", via, program.layer(layer, f"W_{via.upper()}"))
        writes[f"L{layer}H0"] = _columns(program.layer(layer, "W_O"))
        read(f"L{layer}MLP", None, program.layer(layer, "W_in"))
        writes[f"L{layer}MLP"] = _columns(program.layer(layer, "W_out")) | _columns(program.layer(layer, "b_out")[None])
    read("logits", None, program.arrays["W_U"])
    return edges


def _selects(program: TracrProgram, layer: int) -> bool:
    """Return whether the head's scores can differ between keys, for any query except BOS."""
    W_Q, W_K = program.layer(layer, "W_Q"), program.layer(layer, "W_K")
    read = _columns(W_Q.T) | _columns(W_K.T)
    W_E, W_pos = program.arrays["embed.W_E"], program.arrays["embed.W_pos"]
    if not read <= _columns(W_E) | _columns(W_pos):
        return True  # it reads what the program computed
    token_of = {label: int(W_E[:, axis].argmax()) for axis, label in enumerate(program.labels) if "tokens:" in label}
    bos, padding = token_of.pop("tokens:BOS"), token_of.pop("tokens:compiler_pad", None)
    assert padding is None or padding != bos
    words = (W_E[list(token_of.values())][:, None] + W_pos[None, 1:]).reshape(-1, W_E.shape[1])
    keys = np.concatenate([W_E[[bos]] + W_pos[:1], words])
    return bool(np.ptp(words @ W_Q @ W_K.T @ keys.T, axis=1).max() > 1e-4)


def _columns(weight: np.ndarray) -> set[int]:
    """Return the columns that are not all zero."""
    return set(np.flatnonzero(np.abs(weight).max(0) > 1e-8).tolist())
