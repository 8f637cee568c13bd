"""Names of hook points and heads. Torch-free.

A *hook point* is a value in the forward pass that can be read or replaced. Names are those of TransformerLens:
`blocks.9.hook_resid_post`, `blocks.9.attn.hook_z`, `blocks.9.mlp.hook_post`. A *head* is `L5H1`: layer 5, head 1, both
counted from 0. The axis names of every shape in this project are
`batch pos d_model d_head d_mlp d_vocab d_sae n_layers n_heads dest src`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import UnknownNameError

# TransformerBridge gives a block's residual input and output generic names; on disk only the canonical names appear.
_CANONICAL_SUFFIX = {
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
    "attn.hook_out": "hook_attn_out",
    "attn.q.hook_out": "attn.hook_q",
    "attn.k.hook_out": "attn.hook_k",
    "attn.v.hook_out": "attn.hook_v",
    "attn.o.hook_in": "attn.hook_z",
    "ln2.hook_in": "hook_resid_mid",
    "mlp.hook_out": "hook_mlp_out",
}
_CANONICAL_OUTSIDE = {
    "embed.hook_out": "hook_embed",
    "pos_embed.hook_out": "hook_pos_embed",
    "unembed.hook_out": "hook_unembed",
}
_KNOWN_SUFFIXES = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_z",
    "attn.hook_pattern",
    "attn.hook_attn_scores",
    "mlp.hook_pre",
    "mlp.hook_post",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "ln2.hook_scale",
    "ln2.hook_normalized",
)
RESIDUAL_SUFFIXES = frozenset(
    {"hook_embed", "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"}
)
"""Hook points whose vectors are, or are added to, the residual stream, so that the unembedding can read them."""
HEAD_KINDS = {
    "induction": "attends to the token after an earlier copy of the current one: the key step of copying a repeat",
    "previous_token": "attends to the token just before",
    "duplicate_token": "attends to an earlier copy of the current token",
    "first_token": "attends to the first token of the context, often because it has nothing else to attend to",
    "current_token": "attends to the current token itself",
    "predecessor": "attends, where the next word of an order is due, to the one before it: before Tuesday to Monday",
}
"""Kind of head -> its behaviour, a sentence without its subject; `interp.circuits.head_kinds` measures each."""
TEXT_HEAD_KINDS = {
    "sink": "attend to the first position, which is usually BOS",
    "current_token": "attend to the current token",
    "previous_token": "attend to the token just before",
    "same_token": "attend to an earlier copy of the current token",
    "induction": "attend to the token after an earlier copy of the current one",
    "delimiter": "attend to punctuation and line ends",
    "duplicate_name": "attend, at a name, to its earlier mentions",
    "name_mover": "copy names: attend to earlier names and write them",
    "s_inhibition": "attend to repeated names, and neither write nor suppress them",
    "last_number": "read the last number before",
    "copy_suppression": "suppress the tokens they attend to",
    "successor": "write the next word of an order: Tuesday for Monday",
    "verb_subject": "attend from verbs to their subject, a pronoun two tokens before",
}
"""Kind of head on text -> what such heads do; `interp.circuits.text_kinds` has the targets of each."""
_BLOCK = re.compile(r"^blocks\.(\d+)\.(.+)$")
_HEAD = re.compile(r"^L(\d+)H(\d+)$")
_MLP = re.compile(r"^L(\d+)MLP$")


@dataclass(frozen=True, order=True)
class HeadName:
    """One attention head; prints as `L5H1`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class HookPoint:
    """One hook point; `layer` is None for one outside the blocks (`hook_embed`, `ln_final.hook_normalized`)."""

    layer: int | None
    suffix: str

    def __str__(self) -> str:
        return self.suffix if self.layer is None else f"blocks.{self.layer}.{self.suffix}"


def parse_head(text: str) -> HeadName:
    """Return `HeadName(5, 1)` for `"L5H1"`. Raises `UnknownNameError` when the text is not a head."""
    match = _HEAD.match(text.strip())
    if not match:
        raise UnknownNameError("head", text, ["L5H1"], "A head is written L<layer>H<head>, both from 0.")
    return HeadName(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class NodeName:
    """One node of a circuit: `embed`, a head `L5H1`, an MLP `L5MLP`, or `logits`."""

    kind: str
    """One of `embed`, `head`, `mlp` and `logits`."""
    layer: int | None = None
    head: int | None = None

    def __str__(self) -> str:
        if self.kind == "head":
            return f"L{self.layer}H{self.head}"
        return f"L{self.layer}MLP" if self.kind == "mlp" else self.kind

    @property
    def order(self) -> tuple[float, int, int]:
        """Sort key in the order of computation: embed, then the heads and the MLP of each layer, then logits."""
        if self.layer is None:
            return (-1.0 if self.kind == "embed" else float("inf"), 0, 0)
        return (float(self.layer), int(self.kind == "mlp"), self.head or 0)


def parse_node(text: str) -> NodeName:
    """Return `NodeName("mlp", 5)` for `"L5MLP"`. Raises `UnknownNameError` when the text is not a node."""
    if text in ("embed", "logits"):
        return NodeName(text)
    if match := _HEAD.match(text):
        return NodeName("head", int(match[1]), int(match[2]))
    if match := _MLP.match(text):
        return NodeName("mlp", int(match[1]))
    raise UnknownNameError("node", text, ["embed", "L5H1", "L5MLP", "logits"])


def parse_hook_point(text: str) -> HookPoint:
    """Return the hook point of a name, `blocks.3.hook_resid_post` for `"blocks.3.hook_out"`; others are unchanged."""
    match = _BLOCK.match(text)
    if not match:
        return HookPoint(None, _CANONICAL_OUTSIDE.get(text, text))
    return HookPoint(int(match[1]), _CANONICAL_SUFFIX.get(match[2], match[2]))


def canonical_hook_point(text: str) -> str:
    """Return the canonical name, which is the one written to disk.

    >>> canonical_hook_point("blocks.3.hook_out")
    'blocks.3.hook_resid_post'
    """
    return str(parse_hook_point(text))


def common_hook_points(n_layers: int) -> list[str]:
    """Return the names to suggest for a model of `n_layers` blocks."""
    return ["hook_embed", *(f"blocks.{i}.{suffix}" for i in range(n_layers) for suffix in _KNOWN_SUFFIXES)]


def check_hook_points(names: Sequence[str], available: set[str], n_layers: int) -> list[str]:
    """Return the canonical names without duplicates, in the order given, when the model has them all.

    Raises `UnknownNameError` with the nearest names that the model has.
    """
    canonical = list(dict.fromkeys(canonical_hook_point(name) for name in names))
    for name in canonical:
        if name not in available:
            suggestions = [n for n in common_hook_points(n_layers) if n in available]
            raise UnknownNameError("hook point", name, suggestions or available, f"(the model has {n_layers} layers)")
    return canonical


def lens_hook_points(n_layers: int) -> tuple[str, ...]:
    """Return the hook points that a lens reads: the embedding, then the residual stream after every block."""
    return ("blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers)))
