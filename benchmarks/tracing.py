"""Attribution graph of a 32-token prompt against a hand-written frozen backward of the same batches; its memory; and of
14 tokens, at the usual size of the page, the first picture and the whole trace with its tests.

The rival does the linear algebra alone: for every batch of readers, from their highest layer down, the gradient goes
through the output weights, the attention pattern and the value weights. It measures no edge, chooses no reader, and has
no norms, dictionary or biases.
"""

import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.report import Result, at_most, main

PROMPT = (
    "In 1889 the Eiffel Tower was opened in Paris, the capital of France. Visitors climbed it, and "
    "the newspapers of the day called it a"
)
ROWS = int(os.environ.get("TRACING_ROWS", "8192"))
BATCH = 256


def run() -> list[Result]:
    """Trace SmolLM2 with its neurons, and run the rival on the same batches."""
    ours, rival, n_rows = _measure()
    peak = float(subprocess.check_output([sys.executable, "-m", "benchmarks.tracing", "memory"], text=True).split()[-1])
    first, whole = _tested()
    detail = f"{n_rows} rows, {ours:.1f} s, {ours / max(n_rows, 1) * 1e3:.2f} ms a row; rival {rival:.1f} s"
    return [
        at_most(
            "attribution graph: time over a frozen backward", ours / rival, 1.5, "hand-written frozen backward", detail
        ),
        at_most("attribution graph: peak memory in GB", peak, 4.0, "4 GB", "whole process, model included"),
        at_most(
            "attribution graph of 14 tokens: first picture, as a fraction of the tested graph",
            first / whole,
            0.5,
            "the whole trace with its tests, model loaded",
            f"first picture {first:.1f} s, whole {whole:.1f} s",
        ),
    ]


def _tested() -> tuple[float, float]:
    """Return the seconds to the first picture, and to the graph with its scores and ablations."""
    from interp.models.adapter import to_tokens
    from interp.models.loading import load_model
    from interp.tracing.graph import TraceConfig
    from interp.tracing.replacement import Neurons
    from interp.tracing.trace import open_traced, trace_settings, trace_system

    model, drawn = load_model("smollm2-135m"), list[float]()
    start = time.perf_counter()
    config = TraceConfig(max_feature_nodes=3072, effects=32)
    settings = trace_settings(model, to_tokens(model, PROMPT)[:, :14], Neurons(), config)
    system = open_traced(model, settings, Neurons())
    trace_system(system, settings, show=lambda _: drawn.append(time.perf_counter() - start))
    return drawn[0], time.perf_counter() - start


def _traced() -> tuple[Any, list[Any], float]:
    from interp.models.adapter import to_tokens
    from interp.models.loading import load_model
    from interp.tracing.edges import System
    from interp.tracing.graph import TraceConfig
    from interp.tracing.replacement import Neurons
    from interp.tracing.trace import open_system, trace

    model = load_model("smollm2-135m")
    tokens = to_tokens(model, PROMPT)[:, :32]
    system = open_system(model, tokens, Neurons())
    batches: list[Any] = []
    plain = System.rows

    def noting(self: System, starts: Any) -> Any:
        batches.append(starts)
        return plain(self, starts)

    System.rows = noting
    config = TraceConfig(max_feature_nodes=ROWS, batch_size=BATCH, nulls=False, effects=0)
    start = time.perf_counter()
    trace(model, tokens, Neurons(), config)
    seconds = time.perf_counter() - start
    System.rows = plain
    return system, batches, seconds


def _measure() -> tuple[float, float, int]:
    import torch

    system, batches, ours = _traced()
    frozen = system.frozen
    n_heads, n_kv = frozen.shape.n_heads, frozen.shape.n_kv_heads
    patterns = [block.pattern.transpose(1, 2).contiguous() for block in frozen.blocks]
    start = time.perf_counter()
    with torch.no_grad():
        for starts in batches:
            gradient = torch.randn(len(starts.layer), frozen.n_pos, frozen.shape.d_model)
            for layer in reversed(range(min(int(starts.layer.max()) + 1, len(frozen.blocks)))):
                block = frozen.blocks[layer]
                z = (gradient @ block.W_O.T).unflatten(-1, (n_heads, -1)).transpose(1, 2)
                v = (patterns[layer] @ z).unflatten(1, (n_kv, -1)).sum(2)
                gradient = gradient + v.transpose(1, 2).flatten(2) @ block.W_V.T
    return ours, time.perf_counter() - start, sum(len(starts.layer) for starts in batches)


def _memory() -> None:
    import resource

    _traced()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


if __name__ == "__main__":
    _memory() if sys.argv[1:] == ["memory"] else main(run)
