"""Tasks and circuits that several test files share."""

import torch

from interp.circuits.circuit import Circuit, Edge, Node
from interp.models.toys import PLANTED_SPEC, _blank, _set, _set_output
from interp.patching.metrics import LogitDiff
from interp.patching.task import Task


def random_task(model, *, n=4, length=7, seed=0, metric=None) -> Task:
    """Random clean and corrupted prompts, read at the last token; the metric need not tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    d_vocab = model.cfg.d_vocab
    clean, corrupt = (torch.randint(1, d_vocab, (n, length), generator=generator) for _ in range(2))
    correct, wrong = (torch.randint(1, d_vocab, (n,), generator=generator) for _ in range(2))
    metric = metric or LogitDiff(correct=correct, wrong=wrong)
    return Task.of(model, clean, corrupt, metric, check_gap=False)


def planted_circuit(weight_hash: str = "") -> Circuit:
    """Exactly the edges of the planted induction transformer."""
    inputs = ("L0H0 q", "L0H0 k", "L0H0 v", "L1H0 q", "L1H0 v")
    edges = [Edge("embed", *each.split()) for each in inputs]
    edges += [Edge("L0H0", "L1H0", "k"), Edge("L1H0", "logits")]
    nodes = (Node("L0H0", role="previous_token"), Node("L1H0", role="induction"))
    return Circuit.of(PLANTED_SPEC, weight_hash, edges, nodes)


D_VOCAB, N_CTX, SHARP = 16, 32, 100.0


def several_inductions(heads: list[tuple[int, float]]):
    """Return an induction model with an induction head per (previous-token head that it reads, amount that it writes).

    Each previous-token head writes to a subspace of its own; all induction heads write to the same one.
    """
    n_previous = 1 + max(previous for previous, _ in heads)
    n_heads = max(n_previous, len(heads))
    d_model = -(-((2 + n_previous) * D_VOCAB + N_CTX) // n_heads) * n_heads
    while (d_head := d_model // n_heads) < N_CTX:
        d_model += n_heads
    model = _blank(d_model, n_heads, D_VOCAB, N_CTX, "cpu", torch.float32)
    tok, out, *prev = (slice(i * D_VOCAB, (i + 1) * D_VOCAB) for i in range(2 + n_previous))
    pos = slice((2 + n_previous) * D_VOCAB, (2 + n_previous) * D_VOCAB + N_CTX)
    eye, gain = torch.eye, SHARP * d_head**0.5
    with torch.no_grad():
        model.W_E[:, tok], model.W_pos[:, pos] = eye(D_VOCAB), eye(N_CTX)
        for head in range(n_previous):
            own = slice(head * d_head, head * d_head + N_CTX)
            _set(model, 0, "q", pos, own, gain * eye(N_CTX).roll(-1, 1).tril())
            _set(model, 0, "k", pos, own, eye(N_CTX))
            written = slice(head * d_head, head * d_head + D_VOCAB)
            _set(model, 0, "v", tok, written, eye(D_VOCAB))
            _set_output(model, 0, written, prev[head], eye(D_VOCAB))
        for head, (previous, amount) in enumerate(heads):
            own = slice(head * d_head, head * d_head + D_VOCAB)
            _set(model, 1, "q", tok, own, gain * eye(D_VOCAB))
            _set(model, 1, "k", prev[previous], own, eye(D_VOCAB))
            _set(model, 1, "v", tok, own, eye(D_VOCAB))
            _set_output(model, 1, own, out, amount * eye(D_VOCAB))
        model.unembed.original_component.weight[:, out] = SHARP * eye(D_VOCAB)
    return model
