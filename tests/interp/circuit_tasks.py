"""Tasks and circuits that several test files share."""

import torch

from interp.circuits.circuit import Circuit, Edge, Node
from interp.models.toys import PLANTED_SPEC
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
