"""Tasks and graphs that several test files share."""

import torch

from interp.circuits.metrics import LogitDiff
from interp.circuits.task import Task


def random_task(model, *, n=4, length=7, seed=0, metric=None) -> Task:
    """Random clean and corrupted prompts, read at the last token; the metric need not tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    d_vocab = model.cfg.d_vocab
    clean, corrupt = (torch.randint(1, d_vocab, (n, length), generator=generator) for _ in range(2))
    correct, wrong = (torch.randint(1, d_vocab, (n,), generator=generator) for _ in range(2))
    metric = metric or LogitDiff(correct=correct, wrong=wrong)
    return Task.of(model, clean, corrupt, metric, check_gap=False)
