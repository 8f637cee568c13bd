"""Time and quality of an atlas from a cold start, against umap-learn with a seed, in fresh processes.

`python -m benchmarks.atlas [--json]`. Ours writes the whole atlas folder: exact neighbours, layout, quality, regions
and tables. umap-learn runs `UMAP(random_state=seed).fit_transform(x)` alone. Both start a new Python and import what
they need; disk caches are warm, since each ran once before. The vectors are SmolLM2's token embeddings where its
weights are installed, otherwise clusters of the same shape. The quality of both maps is measured on the same 2,000
points.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.report import Result, at_least, at_most, main

SEEDS = (0, 1, 2)
TIMES_FASTER, SMALL_TIMES_FASTER, QUALITY_LOSS, MEMORY_GB = 4.0, 8.0, 0.003, 1.5
REGION_GROWTH = 6.0

OURS = """
import json, sys, time, resource
start = time.perf_counter()
import numpy as np, torch
from pathlib import Path
from interp.artifacts import save_artefact
from interp.atlas.build import build_atlas
from interp.atlas.sources import AtlasSource
x = torch.from_numpy(np.load(sys.argv[1]))
n = len(x)
told = {"labels": [str(i) for i in range(n)], "items": np.arange(n), "values": np.ones(n), "value_name": "one"}
given = AtlasSource(vectors=x, source="file:x", item_kind="index", **told)
save_artefact(build_atlas(given, seed=int(sys.argv[3])), Path(sys.argv[2]), overwrite=True)
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20]))
"""
THEIRS = """
import json, sys, time, resource
start = time.perf_counter()
import numpy as np
from umap import UMAP
x = np.load(sys.argv[1])
found = UMAP(metric="cosine", random_state=int(sys.argv[3]), n_jobs=1).fit_transform(x)
wall = time.perf_counter() - start
np.save(sys.argv[2], found)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20]))
"""


def run() -> list[Result]:
    """Compare whole maps with umap-learn: seconds from a cold start, quality, memory."""
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        np.save(folder / "small.npy", clusters(5000, 64))
        np.save(folder / "tokens.npy", token_embeddings())
        return [
            *race(folder, "small", SMALL_TIMES_FASTER),
            *race(folder, "tokens", TIMES_FASTER),
            large(folder),
            regions(),
        ]


def race(folder: Path, name: str, target: float) -> list[Result]:
    """Run three seeds of both in turns, after one round that fills the caches."""
    x = np.load(folder / f"{name}.npy")
    what = f"{len(x):,} x {x.shape[1]}"
    ours, theirs, kept = [], [], []
    for turn, seed in enumerate((SEEDS[0], *SEEDS)):
        mine = cold(OURS, folder / f"{name}.npy", folder / "ours", seed)
        peer = cold(THEIRS, folder / f"{name}.npy", folder / "theirs.npy", seed)
        if turn:
            ours.append(mine)
            theirs.append(peer)
            kept.append([quality(x, places(folder / "ours")), quality(x, np.load(folder / "theirs.npy"))])
    faster = [peer[0] / mine[0] for mine, peer in zip(ours, theirs, strict=True)]
    wall, cpu = ([spread([run[at] for run in runs]) for runs in (ours, theirs)] for at in (0, 1))
    detail = f"wall {wall[0]} s against {wall[1]} s; CPU {cpu[0]} against {cpu[1]}; ratios {spread(faster)}"
    rival = "umap-learn, cold"
    results = [at_least(f"whole map of {what}, cold", mean(faster), target, rival, detail)]
    for at, score in enumerate(("recall@15", "trustworthiness")):
        mine, peer = ([pair[side][at] for pair in kept] for side in (0, 1))
        results.append(
            at_least(
                f"{score} of {what}, less umap-learn's",
                mean(mine) - mean(peer),
                -QUALITY_LOSS,
                "umap-learn",
                f"{spread(mine, 4)} against {spread(peer, 4)}, three seeds",
            )
        )
    return results


def large(folder: Path) -> Result:
    """Measure the peak memory above the data for a map of 200,000 x 256."""
    np.save(folder / "large.npy", clusters(200_000, 256))
    wall, cpu, peak = cold(OURS, folder / "large.npy", folder / "large", 0)
    above = peak - 200_000 * 256 * 4 / 2**30
    return at_most(
        "memory of 200,000 x 256 above its data, GB",
        above,
        MEMORY_GB,
        "1.5 GB allowed",
        f"wall {wall:.0f} s, CPU {cpu:.0f} s, peak {peak:.2f} GB",
    )


def regions() -> Result:
    """Measure the seconds for the regions of a million points, against those of a quarter of them."""
    from interp.atlas.regions import find_regions

    rng = np.random.default_rng(0)
    blob = rng.integers(0, 300, 1_000_000)
    positions = (rng.normal(0, 30, (300, 2))[blob] + rng.normal(0, 0.4, (len(blob), 2))).astype(np.float32)
    labels = [f"word{number} {number % 5}" for number in blob.tolist()]
    seconds = []
    for n in (1_000, 250_000, len(blob)):  # the first imports what is needed
        start = time.perf_counter()
        find_regions(positions[:n], labels[:n])
        seconds.append(time.perf_counter() - start)
    return at_most(
        "regions of 1,000,000 points, times those of 250,000",
        seconds[2] / seconds[1],
        REGION_GROWTH,
        "a quarter of the points",
        f"{seconds[2]:.0f} s against {seconds[1]:.0f} s",
    )


def cold(program: str, data: Path, out: Path, seed: int) -> list[float]:
    """Return wall seconds, CPU seconds and peak GB of a fresh process."""
    import json

    command = [sys.executable, "-W", "ignore", "-c", program, str(data), str(out), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TQDM_DISABLE": "1"})
    return json.loads(done.stdout.splitlines()[-1])


def quality(x: np.ndarray, positions: np.ndarray) -> tuple[float, float]:
    """Return recall@15 and trustworthiness of a map, both 0 to 1."""
    import torch

    from interp.atlas.neighbours import measure_quality

    generator = torch.Generator().manual_seed(0)
    scores = measure_quality(torch.from_numpy(x), positions.astype(np.float32), metric="cosine", generator=generator)
    assert scores is not None
    return scores.recall, scores.trustworthiness


def places(folder: Path) -> np.ndarray:
    from interp.artifacts import open_artefact
    from interp.atlas.vector_map import VectorMap

    return open_artefact(VectorMap, folder).positions


def clusters(n: int, d: int) -> np.ndarray:
    """Return vectors in four hundred clusters of unequal size."""
    rng = np.random.default_rng(0)
    size = 1 / np.arange(1, 401)
    which = rng.choice(400, n, p=size / size.sum())
    return rng.normal(size=(400, d)).astype(np.float32)[which] + rng.normal(size=(n, d)).astype(np.float32)


def token_embeddings() -> np.ndarray:
    """Return the token embeddings of SmolLM2, 49,152 x 576, or clusters of that shape without its weights."""
    from interp.errors import WorkbenchError
    from interp.models.loading import load_model

    try:
        return load_model("smollm2-135m").W_E.detach().float().numpy()
    except WorkbenchError:
        return clusters(49_152, 576)


def spread(values: list[float], digits: int = 1) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


if __name__ == "__main__":
    main(run)
