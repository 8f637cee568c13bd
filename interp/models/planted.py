"""Transformers with analytic weights and a known circuit: exact known answers for analyses.

The planted induction transformer (two layers of one head, no norms, no biases). Its residual stream is four subspaces:

    tok    the token, one-hot                       d_vocab
    prev   the token before, one-hot                d_vocab   written by L0H0
    out    what to predict, one-hot                 d_vocab   written by L1H0, read by the unembedding
    pos    the position, one-hot                    n_ctx

`L0H0` attends one position back (query pos i, key pos i - 1) and copies tok to prev; `L1H0` attends to a prev that
equals its own tok and copies that key's tok to out. So the edges are the following, and all others are exactly zero:

    embed -q,k,v-> L0H0,  L0H0 -k-> L1H0,  embed -q-> L1H0,  embed -v-> L1H0,  L1H0 -> logits

Position 0 has nothing before it and attends to itself: its prev is its own token. So without a BOS the first repeated
token has two keys that match, and its attention is split evenly between them: the mean over the second half of 32
tokens that repeat 16 is 31/32. Start the prompt with a token used nowhere else and it is 1.

The planted control, `planted_copying`, behaves the same and has no induction head: `L1H0` attends one position
*later*, to a key whose token *two* before matches, and reads there the token before (V-composition). A detector that
infers induction heads from behaviour is wrong about it.
"""

from typing import TYPE_CHECKING, Any

from interp.circuits.circuit import Circuit, Edge, Node
from interp.errors import ConfigError, UnknownNameError
from interp.models.small import SmallConfig, build_small

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PLANTED_PREFIX = "planted:"
PLANTED_SPEC = PLANTED_PREFIX + "induction"
PLANTED_NAMES = (PLANTED_SPEC, PLANTED_PREFIX + "copying")
_EDGES = (
    Edge("embed", "L0H0", "q"),
    Edge("embed", "L0H0", "k"),
    Edge("embed", "L0H0", "v"),
    Edge("L0H0", "L1H0", "k"),
    Edge("embed", "L1H0", "q"),
    Edge("embed", "L1H0", "v"),
    Edge("L1H0", "logits"),
)


def planted_induction(
    *, d_vocab: int = 16, n_ctx: int = 32, sharpness: float = 100.0, device: str = "cpu", dtype: Any = None
) -> "TransformerBridge":
    """Build the planted induction transformer, `d_model = 3 * d_vocab + n_ctx`.

    `sharpness` is the attention score of a match (of no match: 0), and the logit of the predicted token: at 100 the
    softmax is exact in float32. Raises `ConfigError` when there is nothing to repeat.
    """
    import torch

    _check_sizes(d_vocab, n_ctx)
    d_model = 3 * d_vocab + n_ctx
    model = _blank(d_model, 1, d_vocab, n_ctx, device, dtype)
    tok, prev, out = (slice(i * d_vocab, (i + 1) * d_vocab) for i in range(3))
    pos = slice(3 * d_vocab, d_model)
    eye, gain = torch.eye, sharpness * d_model**0.5  # attention scores are divided by sqrt(d_head) = sqrt(d_model)
    with torch.no_grad():
        model.W_E[:, tok], model.W_pos[:, pos] = eye(d_vocab), eye(n_ctx)
        _set(model, 0, "q", pos, slice(0, n_ctx), gain * eye(n_ctx).roll(-1, 1).tril())
        _set(model, 0, "k", pos, slice(0, n_ctx), eye(n_ctx))
        _set(model, 0, "v", tok, slice(0, d_vocab), eye(d_vocab))
        _set_output(model, 0, slice(0, d_vocab), prev, eye(d_vocab))
        _set(model, 1, "q", tok, slice(0, d_vocab), gain * eye(d_vocab))
        _set(model, 1, "k", prev, slice(0, d_vocab), eye(d_vocab))
        _set(model, 1, "v", tok, slice(0, d_vocab), eye(d_vocab))
        _set_output(model, 1, slice(0, d_vocab), out, eye(d_vocab))
        model.unembed.original_component.weight[:, out] = sharpness * eye(d_vocab)
    return model


def planted_copying(
    *, d_vocab: int = 16, n_ctx: int = 32, sharpness: float = 100.0, device: str = "cpu", dtype: Any = None
) -> "TransformerBridge":
    """Build the negative control: it copies the token that followed before, without attending to it. Two heads a layer.

    Subspaces tok, prev, prev2 (the token two before), out, pos; `L0H0` writes prev, `L0H1` prev2; `L1H0` has query tok,
    key prev2, value prev; `L1H1` is zero. Its induction scores are 0 up to the uniform attention of queries without
    match.
    """
    import torch

    _check_sizes(d_vocab, n_ctx)
    d_model = 4 * d_vocab + n_ctx + (n_ctx % 2)
    model = _blank(d_model, 2, d_vocab, n_ctx, device, dtype)
    tok, prev, prev2, out = (slice(i * d_vocab, (i + 1) * d_vocab) for i in range(4))
    pos = slice(4 * d_vocab, 4 * d_vocab + n_ctx)
    eye, gain, second = torch.eye, sharpness * (d_model // 2) ** 0.5, d_model // 2
    with torch.no_grad():
        model.W_E[:, tok], model.W_pos[:, pos] = eye(d_vocab), eye(n_ctx)
        for head, (offset, write) in enumerate([(1, prev), (2, prev2)]):
            at = head * second
            positions, tokens = slice(at, at + n_ctx), slice(at, at + d_vocab)
            _set(model, 0, "q", pos, positions, gain * eye(n_ctx).roll(-offset, 1).tril())
            _set(model, 0, "k", pos, positions, eye(n_ctx))
            _set(model, 0, "v", tok, tokens, eye(d_vocab))
            _set_output(model, 0, tokens, write, eye(d_vocab))
        first = slice(0, d_vocab)
        _set(model, 1, "q", tok, first, gain * eye(d_vocab))
        _set(model, 1, "k", prev2, first, eye(d_vocab))
        _set(model, 1, "v", prev, first, eye(d_vocab))
        _set_output(model, 1, first, out, eye(d_vocab))
        model.unembed.original_component.weight[:, out] = sharpness * eye(d_vocab)
    return model


def planted_circuit(weight_hash: str = "") -> Circuit:
    """Return exactly the edges of the planted model."""
    nodes = (Node("L0H0", role="previous_token"), Node("L1H0", role="induction"))
    return Circuit.of(PLANTED_SPEC, weight_hash, _EDGES, nodes, settings={"kind": "planted"})


def _set(model: Any, layer: int, side: str, read: slice, head: slice, value: Any) -> None:
    """Set a weight so that head dimensions `head` get `x[read] @ value`; torch stores linear weights as [out, in]."""
    getattr(model.blocks[layer].attn, side).original_component.weight[head, read] = value.T.to(model.W_E)


def _set_output(model: Any, layer: int, head: slice, write: slice, value: Any) -> None:
    model.blocks[layer].attn.o.original_component.weight[write, head] = value.T.to(model.W_E)


def build_planted(spec: str, *, device: str, dtype: Any) -> "TransformerBridge":
    """Build `"planted:induction"` or `"planted:copying"`. Raises `UnknownNameError`."""
    build = {"induction": planted_induction, "copying": planted_copying}.get(spec.removeprefix(PLANTED_PREFIX))
    if build is None:
        raise UnknownNameError("planted model", spec, PLANTED_NAMES)
    return build(device=device, dtype=dtype)


def _check_sizes(d_vocab: int, n_ctx: int) -> None:
    if d_vocab < 2 or n_ctx < 4:
        raise ConfigError(f"a planted circuit needs 2 tokens and 4 positions, got {d_vocab} and {n_ctx}")


def _blank(d_model: int, n_heads: int, d_vocab: int, n_ctx: int, device: str, dtype: Any) -> "TransformerBridge":
    """Return two layers of zeros, without norms."""
    import torch

    config = SmallConfig(n_layers=2, d_model=d_model, n_heads=n_heads, d_vocab=d_vocab, n_ctx=n_ctx, normalization=None)
    model = build_small(config, seed=0, device=device, dtype=dtype or torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model
