"""Cost of EAP-IG relative to the passes that it needs.

EAP-IG with m = 5 steps needs two forward passes, for the outputs of sources on clean and corrupted prompts, and five
passes forward and back. The bare cost is exactly those, by plain calls of the same model on the same batch. They
compute the metric at the last token and gradients with respect to the input embedding only, so neither side computes a
gradient of a weight. Ours adds hooks, the map from every reader's gradient to the residual stream, and the product with
every source (70,651 edges in SmolLM2). Rounds alternate; the ratio is the median over rounds, in CPU time.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import Result, interleaved, main, median_ratio
from interp.models.hooked import HookedModel

STEPS = 5


def run() -> list[Result]:
    """Measure the CPU time of EAP-IG, relative to the bare passes."""
    return [_measure("small:mlp-2l", 64, 64, repeats=9), _measure("smollm2-135m", 8, 16, repeats=5)]


def _measure(spec: str, n_prompts: int, length: int, repeats: int) -> Result:
    import torch

    from interp.circuits.attribution import attribute
    from interp.circuits.graph import Graph
    from interp.models.loading import load_model
    from interp.patching.metrics import LogitDiff
    from interp.patching.task import Task

    model = load_model(spec)
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = (torch.randint(3, 250, (n_prompts, length), generator=generator) for _ in range(2))
    metric = LogitDiff(correct=[3] * n_prompts, wrong=[4] * n_prompts)
    task = Task.of(model, clean, corrupt, metric, check_gap=False)
    graph = Graph.from_model(model)
    ours, bare = interleaved(
        lambda: attribute(model, task, graph, steps=STEPS, batch_size=n_prompts),
        _bare(model, task),
        repeats=repeats,
        clock=time.process_time,
    )
    return Result(
        question=f"EAP-IG, {STEPS} steps, {spec}",
        ratio=median_ratio(ours, bare),
        target=1.25,
        against=f"2 forward and {STEPS} forward and back",
        lower_is_better=True,
        detail=f"{min(ours):.2f} CPU s, bare {min(bare):.2f}; {graph.n_edges:,} edges, {n_prompts} x {length} tokens",
    )


def _bare(model: HookedModel, task: Any) -> Callable[[], None]:
    import torch

    def once() -> None:
        with torch.no_grad():
            model(task.clean)
            model(task.corrupt)
        for _ in range(STEPS):
            leaf: list[torch.Tensor] = []

            def start(value: torch.Tensor, hook: Any, leaf: list[torch.Tensor] = leaf) -> torch.Tensor:
                leaf.append(value.detach().requires_grad_())
                return leaf[0]

            with torch.enable_grad():
                logits = model.run_with_hooks(task.clean, fwd_hooks=[("blocks.0.hook_in", start)])
                torch.autograd.grad(task.metric(logits[:, -1:]).sum(), leaf)

    return once


if __name__ == "__main__":
    main(run)
