"""Who reads: receivers of path patching, by layer and side, checked against the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import ConfigError, UnknownNameError
from interp.models.residual import SIDES, ResidualStream, Side
from interp.names import HeadName, NodeName, parse_head, parse_node


@dataclass(frozen=True)
class Readers:
    """Receivers as hooks meet them."""

    heads: dict[tuple[int, Side], tuple[int, ...]]
    """per layer and side the heads whose slice is replaced: key-value heads for k and v"""
    mlps: tuple[int, ...]
    logits: bool

    def layers_and_logits(self, n_layers: int) -> list[int]:
        """The layers at which something reads; the logits count as one past the last."""
        return [layer for layer, _ in self.heads] + list(self.mlps) + ([n_layers] if self.logits else [])

    def check_after(self, residual: ResidualStream, senders: Sequence[NodeName]) -> None:
        """Raises `ConfigError` when a receiver reads the stream before any sender has written to it."""
        places = [(layer, False) for layer, _ in self.heads] + [(layer, True) for layer in self.mlps]
        for layer, mlp in places:
            if not any(writes_before(node, layer, mlp=mlp, parallel=residual.parallel) for node in senders):
                names = ", ".join(map(str, senders))
                raise ConfigError(
                    f"{'the MLP' if mlp else 'heads'} of layer {layer} cannot read what {names} writes, which comes "
                    "later; choose receivers after the sender"
                )

    def names(self, residual: ResidualStream) -> list[str]:
        """`L5H1.k`, `L5MLP`, `logits`: every receiver that is reached, whole groups for keys and values."""
        names = []
        for (layer, side), heads in self.heads.items():
            reached = heads if side == "q" else [h for group in heads for h in residual.heads_of_group(group)]
            names += [f"{HeadName(layer, head)}.{side}" for head in reached]
        return names + [f"L{layer}MLP" for layer in self.mlps] + (["logits"] if self.logits else [])


def read_receivers(residual: ResidualStream, receivers: Sequence[Any]) -> Readers:
    """Raises `UnknownNameError` for receivers that the model does not have, or that are not written as one."""
    heads: dict[tuple[int, Side], set[int]] = {}
    mlps, logits = set(), False
    for receiver in receivers:
        if isinstance(receiver, str):
            node = parse_node(receiver)
            if node.kind == "mlp" and residual.has_mlp and (node.layer or 0) < residual.shape.n_layers:
                mlps.add(node.layer)
            elif node.kind == "logits":
                logits = True
            else:
                raise UnknownNameError(
                    "receiver", receiver, [], 'Write ("L5H1", "k") for a head, "L5MLP" or "logits"; all counted from 0.'
                )
            continue
        layer, head, side = _head_receiver(receiver)
        if side not in SIDES:
            raise UnknownNameError("side", str(side), SIDES)
        residual.check_head(HeadName(layer, head or 0))
        chosen = range(residual.n_side_heads(side))
        if head is not None:
            chosen = [head if side == "q" else residual.kv_head(head)]
        heads.setdefault((layer, side), set()).update(chosen)
    return Readers(
        {key: tuple(sorted(of_layer)) for key, of_layer in sorted(heads.items())}, tuple(sorted(mlps)), logits
    )


def writes_before(node: NodeName, layer: int, *, mlp: bool, parallel: bool) -> bool:
    """Whether a node's output is in the stream that the heads of a layer (or its MLP) read."""
    if node.layer is None:
        return node.kind == "embed"
    if node.layer == layer:
        return mlp and node.kind == "head" and not parallel
    return node.layer < layer


def _head_receiver(receiver: Any) -> tuple[int, int | None, Side]:
    match receiver:
        case (str(name), side):
            head = parse_head(name)
            return head.layer, head.head, side
        case (int(layer), None | int() as head, side):
            return layer, head, side
    raise UnknownNameError("receiver", str(receiver), [], 'Write ("L5H1", "k"), (5, None, "k"), "L5MLP" or "logits".')
