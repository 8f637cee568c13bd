"""How long does an attribution graph take here and in circuit-tracer, with the same model, transcoders and prompt?

    python -m benchmarks.peers.against_circuit_tracer SET_FOLDER

SmolLM2 and a set of JumpReLU transcoders of its MLPs (`workbench train --set`, without `--skip`), 32 tokens, 8,192
latents, batches of 256, two threads; in fresh processes one after the other. Baselines of our scores and effects in the
free model are left out, since circuit-tracer has neither.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import Result, at_most, main
from benchmarks.tracing import PROMPT
from interp.errors import MissingError

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / os.environ.get("ORACLES", ".oracles") / "circuit_tracer" / "bin" / "python"
SET = Path(os.environ.get("TRANSCODERS", "workspace/transcoders/smol"))
ROWS, BATCH, THREADS = 8_192, 256, 2


def run() -> list[Result]:
    """Time of ours over circuit-tracer's; needs its environment (`make oracles`) and a set."""
    if not PYTHON.exists():
        raise MissingError(f"circuit-tracer's environment is not at {PYTHON}; `make oracles` makes it")
    if not SET.exists():
        raise MissingError(f"no set at {SET}; train one (docs/howto/transcoder-sets.md), or set TRANSCODERS")
    from interp.models.adapter import to_tokens
    from interp.models.loading import load_model, packaged_folder
    from interp.tracing.graph import TraceConfig
    from interp.tracing.trace import trace
    from saes import SetReplacement
    from saes.sets import read_set

    model = load_model("smollm2-135m", device="cpu")
    tokens = to_tokens(model, PROMPT)[:, :32]
    settings = {"tokens": tokens[0].tolist(), "rows": ROWS, "batch": BATCH, "threads": THREADS}
    command = [PYTHON, "-m", "benchmarks.peers.circuit_tracer_graph", packaged_folder("smollm2-135m"), SET]
    done = subprocess.run(
        [*map(str, command), json.dumps(settings)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingError(f"circuit-tracer stopped: {done.stderr[-2000:]}")
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    config = TraceConfig(max_feature_nodes=ROWS, batch_size=BATCH, nulls=False, effects=0)
    start, cpu = time.perf_counter(), time.process_time()
    graph = trace(model, tokens, SetReplacement(read_set(SET), "set"), config)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    rows = graph.run.rows
    return [
        at_most(
            "attribution graph: CPU time over circuit-tracer",
            (cpu / rows) / (theirs["cpu"] / theirs["rows"]),
            1.0,
            "circuit-tracer 0.5.0",
            f"{rows} rows in {seconds:.1f} s ({cpu:.1f} CPU s), of {graph.run.active} active; "
            f"theirs {theirs['rows']} in {theirs['seconds']:.1f} s ({theirs['cpu']:.1f}), of {theirs['active']}",
        )
    ]


if __name__ == "__main__":
    SET = Path(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else SET
    main(run)
