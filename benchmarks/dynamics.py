"""Cost of the curves of a training run beyond the training itself, and the time until its phase change.

The cost is in CPU seconds, relative to a bare torch loop in the same run: a plain module with the same sizes, data,
optimiser and number of steps, and nothing measured. The time to the phase change is relative to the minute (induction)
or the half minute (grokking at p = 37, three seeds) that is allowed.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.report import Result, main
from interp.models.toys import find_toy
from interp.seeds import make_generator
from interp.studies.grokking import ModularConfig, describe_grokking, train_modular, training_pairs
from interp.studies.induction_emerges import follow_induction
from interp.threads import one_thread

INDUCTION, STEPS = "toy:induction-2l", 1000
MODULAR = ModularConfig()


class PlainBlock(nn.Module):
    """A block of causal attention, followed by an MLP where there is one."""

    def __init__(self, d: int, heads: int, d_mlp: int | None, *, norm: bool):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, d_mlp), nn.ReLU(), nn.Linear(d_mlp, d)) if d_mlp else None

    def forward(self, x: Tensor) -> Tensor:
        n, pos, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, pos, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / (d // self.heads) ** 0.5
        scores = scores.masked_fill(torch.ones(pos, pos, dtype=torch.bool).triu(1), float("-inf"))
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, pos, d))
        return x + self.mlp(x) if self.mlp is not None else x


class Plain(nn.Module):
    """A plain transformer, as the baseline."""

    def __init__(self, d_vocab: int, pos: int, d: int, heads: int, layers: int, d_mlp: int | None, *, norm: bool):
        super().__init__()
        self.embed, self.pos = nn.Embedding(d_vocab, d), nn.Parameter(torch.randn(pos, d) * 0.02)
        self.blocks = nn.Sequential(*(PlainBlock(d, heads, d_mlp, norm=norm) for _ in range(layers)))
        self.norm, self.out = nn.LayerNorm(d) if norm else nn.Identity(), nn.Linear(d, d_vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.norm(self.blocks(self.embed(tokens) + self.pos)))


def run() -> list[Result]:
    """Compare both recipes with a bare loop, and measure the time to their phase change."""
    induction, middle, wall = _induction()
    grokking, generalised, grok_wall, epochs = _grokking()
    bare = cpu_seconds(bare_induction)
    bare_grok = cpu_seconds(lambda: bare_grokking(epochs))
    detail = f"{STEPS} steps, measured every 50: {induction:.1f} CPU s, bare {bare:.1f}"
    seeds = f"three seeds, {epochs} epochs, phases and frequencies told: {grokking:.1f} CPU s, bare {bare_grok:.1f}"
    return [
        _result("induction toy with its curves", induction / bare, 1.3, "a bare loop", detail),
        _result("induction toy, phase change", wall / 60, 1, "a minute", f"at step {middle:.0f}, after {wall:.0f} s"),
        _result("grokking with its curves", grokking / bare_grok, 1.3, "a bare loop, seed after seed", seeds),
        _result(
            "grokking p = 37, all seeds generalised",
            grok_wall / 30,
            1,
            "half a minute",
            f"by epoch {generalised:.0f}, after {grok_wall:.0f} s",
        ),
    ]


def _result(question: str, ratio: float, target: float, against: str, detail: str) -> Result:
    return Result(question=question, ratio=ratio, target=target, against=against, detail=detail, lower_is_better=True)


def _induction() -> tuple[float, float, float]:
    """Return the CPU seconds of the run, the step half-way through its phase change, and the wall seconds until it."""
    walls: dict[int, float] = {}
    start = time.perf_counter()
    outcome: list[Any] = []
    cpu = cpu_seconds(
        lambda: outcome.append(
            follow_induction(
                INDUCTION, steps=STEPS, progress=lambda step, *_: walls.update({step: time.perf_counter() - start})
            )
        )
    )
    middle = outcome[0].transitions["accuracy"].middle
    if middle is None:
        raise RuntimeError(f"no induction heads within {STEPS} steps; the recipe has changed")
    return cpu, middle, walls[min(step for step in walls if step >= middle)]


def _grokking() -> tuple[float, float, float, int]:
    """Return the CPU seconds of training and measuring, and the epoch by which every seed generalised.

    The wall seconds until that epoch and the number of all epochs follow.
    """
    walls: dict[int, float] = {}
    start = time.perf_counter()
    outcome: list[Any] = []

    def work() -> None:
        snapshots = []
        for snapshot in train_modular(MODULAR):
            snapshots.append(snapshot)
            walls[snapshot.epoch] = time.perf_counter() - start
        outcome.append(describe_grokking(snapshots, MODULAR))

    cpu = cpu_seconds(work)
    epochs = [run.phases.generalised for run in outcome[0].runs]
    if any(epoch is None for epoch in epochs):
        raise RuntimeError("a seed did not generalise; the recipe has changed")
    last = max(epochs)
    return cpu, last, walls[min(epoch for epoch in walls if epoch >= last)], max(walls)


def bare_induction() -> None:
    """Train the toy, and measure nothing."""
    toy = find_toy(INDUCTION)
    config, training = toy.model, toy.training
    model = Plain(config.d_vocab, config.n_ctx, config.d_model, config.n_heads, config.n_layers, None, norm=True)
    generator = make_generator(0, "training data")
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, betas=training.betas, foreach=True)
    with one_thread():
        for _ in range(STEPS):
            tokens = toy.batches(training.batch_size, generator)
            _step(optimizer, model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def bare_grokking(epochs: int) -> None:
    """Train on the training pairs, one seed after the other, and measure nothing."""
    c = MODULAR
    for pairs in training_pairs(c):
        model = Plain(c.p + 1, 3, c.d_model, c.n_heads, 1, c.d_mlp, norm=False)
        a, b = pairs // c.p, pairs % c.p
        tokens, answer = torch.stack([a, b, torch.full_like(a, c.p)], 1), (a + b) % c.p
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=c.lr, betas=c.betas, eps=c.eps, weight_decay=c.weight_decay, foreach=True
        )
        with one_thread():
            for _ in range(epochs):
                for part in torch.randperm(len(pairs)).tensor_split(c.batches):
                    _step(optimizer, model(tokens[part])[:, -1, : c.p], answer[part])


def _step(optimizer: torch.optim.Optimizer, logits: Tensor, answer: Tensor) -> None:
    loss = cross_entropy(logits, answer)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of this process, over all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main(run)
