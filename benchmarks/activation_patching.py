"""Cost of a map of activation patches, in plain forward passes and in passes from the tokens.

Every head of SmolLM2 is patched in one pair of prompts, over the whole prompt, and the residual stream before every
block at every position. The first ratio is to patches of the same values in passes that all begin at the tokens, in
batches of the same size. The second is to plain passes over as many sequences, again in batches of the same size. A
patch skips the blocks before its layer, so half of a pass is expected. CPU seconds of one process, all three in turn.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from benchmarks.report import Result, at_least, at_most, main
from interp.models.hooked import HookedModel

LENGTH, BATCH = 16, 32


def run() -> list[Result]:
    """Measure patching from the tokens / from the layer, and from the layer / plain passes."""
    import torch

    from interp.models.loading import load_model

    model = load_model("smollm2-135m", attention="eager")
    generator = torch.Generator().manual_seed(0)
    pair = torch.randint(1000, 40000, (2, 1, LENGTH), generator=generator)
    return [result for what in ("z", "resid_pre") for result in _results(model, pair[0], pair[1], what)]


def _results(model: HookedModel, clean: Any, corrupt: Any, what: Literal["z", "resid_pre"]) -> Iterator[Result]:
    import torch

    from interp.models.adapter import run_with_hooks
    from interp.models.passes import read_hook
    from interp.patching.activation import activation_patching
    from interp.patching.metrics import LogitDiff
    from interp.patching.task import Task

    layers, everything = range(model.cfg.n_layers), slice(None)
    if what == "z":
        slots = [(everything, everything, head) for head in range(model.cfg.n_heads)]
    else:
        slots = [(everything, position) for position in range(LENGTH)]
    task = Task.of(model, clean, corrupt, LogitDiff([11], [12]))
    read = read_hook(task.at.expand(BATCH, -1))
    point = "attn.hook_z" if what == "z" else "hook_resid_pre"

    @torch.no_grad()
    def from_tokens() -> None:
        for layer in layers:
            for first in range(0, len(slots), BATCH):
                chunk = slots[first : first + BATCH]

                def insert(value: Any, hook: Any, chunk: list[Any] = chunk) -> Any:
                    value = value.clone()
                    for row, slot in enumerate(chunk):
                        value[row : row + 1][slot] = 0
                    return value

                hooks = [(f"blocks.{layer}.{point}", insert), read_hook(task.at.expand(len(chunk), -1))]
                run_with_hooks(model, corrupt.expand(len(chunk), -1), hooks)

    @torch.no_grad()
    def plain() -> None:
        for _ in range(0, len(layers) * len(slots), BATCH):
            run_with_hooks(model, clean.expand(BATCH, -1), [read])

    def patching() -> None:
        activation_patching(model, task, what=what, by_position=what == "resid_pre", batch_size=BATCH)

    run_with_hooks(model, clean, [])  # the first pass allocates
    whole, mine, baseline = _seconds(from_tokens), _seconds(patching), _seconds(plain)
    n = len(layers) * len(slots)
    detail = f"{n} patches: {mine:.1f} s of CPU; from the tokens {whole:.1f} s, plain passes {baseline:.1f} s"
    question = f"patches of {what}"
    yield at_least(question, whole / mine, 1.6, "from the tokens", detail)
    yield at_most(question, mine / baseline, 0.7, "plain passes", detail)


def _seconds(f: Callable[[], object]) -> float:
    started = time.process_time()
    f()
    return time.process_time() - started


if __name__ == "__main__":
    main(run)
