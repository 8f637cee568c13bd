"""How much faster does a TopK SAE train here than with SAELens, on the same rows, in the same order, to the same L0?

SmolLM2's residual after block 9 (docstring prose), one recording; both sides see the same tokens in the same batches,
in fresh processes one after the other: ours with its whole run (reading, shuffle, checkpoints, held-out evaluation),
SAELens with its training loop alone. Memory is the most that the process holds from then on, above what it held
after all imports; neither side maps its data. SAELens' learning rate is tried at its default and higher; its best
held-out FVU counts. CPU seconds are compared, which other work on the machine disturbs least.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import Result, at_least, at_most, main
from interp.errors import MissingError

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / os.environ.get("ORACLES", ".oracles") / "saelens" / "bin" / "python"
HOOK_POINT = "blocks.9.hook_resid_post"
RECORDED, TOKENS, BATCH, D_SAE, K = 120_000, 400_000, 2048, 4608, 32
RATES = (3e-4, 3e-3)


def run() -> list[Result]:
    """Training throughput and memory of ours over SAELens'; needs its environment (`make oracles`)."""
    if not PYTHON.exists():
        raise MissingError(f"SAELens' environment is not at {PYTHON}; `make oracles` makes it")
    with tempfile.TemporaryDirectory() as scratch:
        return _race(Path(scratch))


def _race(scratch: Path) -> list[Result]:
    recording = _record(scratch / "recordings" / "race")
    steps = TOKENS // BATCH
    settings = {"threads": 2, "seed": 0, "tokens": steps * BATCH, "batch_size": BATCH, "d_sae": D_SAE, "k": K}
    _save_rows(recording, scratch, steps)
    ours = _process(
        [sys.executable, "-m", "benchmarks.peers.our_training", str(recording), str(scratch / "saes" / "ours")],
        {**settings, "hook_point": HOOK_POINT},
    )
    schedule = {"warmup_steps": 20, "decay_steps": steps // 5, "dead_steps": max(steps // 10, 10)}
    paths = [str(scratch / "train.npy"), str(scratch / "heldout.npy")]
    theirs = {
        rate: _process(
            [str(PYTHON), "-m", "benchmarks.peers.saelens_training", *paths], {**settings, **schedule, "lr": rate}
        )
        for rate in RATES
    }
    best = min(theirs, key=lambda rate: theirs[rate]["fvu"])
    peer = theirs[best]
    tried = ", ".join(f"{rate:g}: FVU {scores['fvu']:.4f}" for rate, scores in theirs.items())
    detail = f"ours FVU {ours['fvu']:.4f} at L0 {ours['l0']:.1f}; SAELens {tried} (L0 {peer['l0']:.1f})"
    speed = (ours["tokens"] / ours["cpu"]) / (peer["tokens"] / peer["cpu"])
    against = "SAELens 6.54, TopK"
    return [
        at_least("tokens per CPU second", speed, 4.5, against, detail),
        at_most("held-out FVU", ours["fvu"] / peer["fvu"], 1.0, against),
        at_most(
            "peak memory above what was there before",
            ours["memory_mb"] / peer["memory_mb"],
            0.5,
            against,
            f"{ours['memory_mb']:.0f} MB and {peer['memory_mb']:.0f} MB",
        ),
    ]


def _record(folder: Path) -> Path:
    from interp.models.loading import load_model
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig
    from interp.text.corpora import open_corpus

    model = load_model("smollm2-135m", attention="sdpa")
    record(model, open_corpus("docstrings"), folder, RecordConfig(tokens=RECORDED), hook_points=[HOOK_POINT])
    return folder


def _save_rows(recording: Path, scratch: Path, steps: int) -> None:
    """The training rows in our order, and the held-out rows."""
    from interp.recording.store import Recording
    from saes.training.data import RowSource, training_batches

    source = RowSource(Recording(recording), HOOK_POINT)
    rows = np.lib.format.open_memmap(
        scratch / "train.npy", mode="w+", dtype=np.float32, shape=(steps * BATCH, source.d_in)
    )
    batches = training_batches([source], batch_size=BATCH, heldout_fraction=0.1, seed=0)
    for step, (batch,) in zip(range(steps), batches, strict=False):
        rows[step * BATCH : (step + 1) * BATCH] = batch.x.numpy()
    rows.flush()
    heldout = source.sequential(batch_size=4096, split="heldout", heldout_fraction=0.1)
    np.save(scratch / "heldout.npy", np.concatenate([batch.x.numpy() for batch in heldout]))


def _process(command: list[str], settings: dict) -> dict:
    done = subprocess.run([*command, json.dumps(settings)], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{command[2]} failed:\n{done.stderr[-2000:]}")
    scores = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{scores}", file=sys.stderr, flush=True)  # minutes of work: told at once
    return scores


if __name__ == "__main__":
    main(run)
