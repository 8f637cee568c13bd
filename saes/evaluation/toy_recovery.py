"""What a TopK SAE recovers from a toy of superposition, whose features and directions are known.

    toys = train_toys(densities=(0.05,))                              # interp.studies.superposition
    found = recover_toy(toys, toys.best(), folder)                    # trains a TopK SAE on the hidden layer
    found.trained.f1, found.untrained.f1, found.one_at_a_time

The rows are `x @ W`: what the toy's hidden layer holds. A feature that is on adds its strength times its direction, as
in `saes.evaluation.synthetic`, so the recordings, kinds and scores are the same. Three things differ: nothing is
noise; rows with nothing on, most of them where features are rare, are left out, since they have nothing to recover;
and features may lie exactly opposite each other (antipodal pairs), so that latents are matched by the sign of the
cosine too.

Synthetic rows written as a recording, so that every verb and the training loop read them as they read a model's.

A context is a document of 64 rows; there is no text (every token is 0) and no model: `weight_hash` is the hash of the
settings and the seed, from which the truth follows. `truth.safetensors` holds the directions, against which what
`read_synthetic` makes anew is checked.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import Draft, as_json, atomic_file, hash_json, save_json
from interp.errors import ConfigError, MismatchError
from interp.names import canonical_hook_point
from interp.recording.contexts import ShardText
from interp.recording.store import Recording, load_tensors
from interp.recording.writer import Shard, ShardLog, write_shard, write_stats
from interp.results import Record, Result
from interp.runtime import one_thread
from interp.studies.superposition import Toys, draw_features
from interp.studies.superposition_geometry import REPRESENTED
from saes.evaluation.baselines import untrained_sae
from saes.evaluation.recovery import Recovery, measure_recovery
from saes.evaluation.synthetic import Rows, SyntheticConfig, SyntheticData
from saes.training.config import TopKConfig, TrainConfig
from saes.training.train import train_sae

HOOK_POINT = "blocks.0.hook_resid_post"
CONTEXT, SHARD_CONTEXTS = 64, 256
MODEL, TRUTH = "synthetic", "truth.safetensors"


def write_synthetic(
    data: SyntheticData,
    folder: Path,
    *,
    n_rows: int,
    hook_point: str = HOOK_POINT,
    overwrite: bool = False,
) -> Recording:
    """At least `n_rows` rows (whole contexts) as a recording at `hook_point`; interrupted, the same call goes on.

    Rows are float32 and drawn with the data's own seed, shard by shard. Memory holds one shard of 16,384 rows.
    Raises `ConfigError` (no rows, or the folder is there), `MismatchError` (an unfinished run with other settings).
    """
    if n_rows < 1:
        raise ConfigError(f"n_rows must be at least 1, got {n_rows}")
    name, contexts = canonical_hook_point(hook_point), -(-n_rows // CONTEXT)
    config = {
        "model": MODEL,
        "weight_hash": _hash(data),
        "hook_points": [name],
        "context_length": CONTEXT,
        "bos": "none",
        "dtype": "float32",
        "n_tokens": n_rows,
        "seed": data.seed,
        "synthetic": asdict(data.config),
    }
    draft = Draft.open(Path(folder), kind="recording", config=config, seed=data.seed, overwrite=overwrite)
    log = ShardLog(draft)
    for number, first in enumerate(range(0, contexts, SHARD_CONTEXTS)):
        if number in log:
            continue
        text = _no_text(number, first, min(SHARD_CONTEXTS, contexts - first), last=first + SHARD_CONTEXTS >= contexts)
        rows = next(data.batches(text.n_rows, start=number))
        write_shard(draft, log, Shard(text, {name: rows.x}))
    write_stats(draft, log, [name])
    with atomic_file(draft.path / TRUTH) as temporary:
        save_file({"directions": data.directions}, temporary)
    total = contexts * CONTEXT
    draft.finish(
        summary={
            "n_rows": total,
            "n_real": total,
            "n_documents": contexts,
            "shard_rows": [entry["rows"] for entry in log.entries],
            "widths": {name: data.config.d},
            "l0": data.l0,
        },
        threads=torch.get_num_threads(),
    )
    return Recording(Path(folder))


def read_synthetic(recording: Recording) -> SyntheticData:
    """The data that a recording was drawn from. Raises `MismatchError` when it holds a model's activations."""
    settings = recording.manifest.config.get("synthetic")
    if settings is None:
        raise MismatchError(
            f"{recording.folder} holds activations of {recording.model}, whose true features nobody knows; "
            "recovery can be measured on recordings that `saes.evaluation.toy_recovery.write_synthetic` wrote"
        )
    data = _data_of(settings, recording.manifest.config["seed"])
    directions = load_tensors(recording.folder / TRUTH)["directions"]
    if directions.shape != data.directions.shape or not torch.allclose(directions, data.directions, atol=1e-4):
        raise MismatchError(
            f"{recording.folder} was drawn along other directions than its settings give with this version of torch; "
            "write it again with `write_synthetic`"
        )
    return data


def _data_of(settings: dict[str, Any], seed: int) -> SyntheticData:
    """Drawn by the settings of `SyntheticConfig`, or the hidden layer of a toy of superposition."""
    if "W" in settings:
        rows = tuple(tuple(row) for row in settings["W"])
        return ToyData(ToyDataConfig(W=rows, density=settings["density"]), seed=seed)
    return SyntheticData(SyntheticConfig(**settings), seed=seed)


def _no_text(number: int, first: int, n_contexts: int, *, last: bool) -> ShardText:
    shape = (n_contexts, CONTEXT)
    documents = np.arange(first, first + n_contexts, dtype=np.int32)
    return ShardText(
        number=number,
        tokens=np.zeros(shape, np.int32),
        document=np.repeat(documents[:, None], CONTEXT, axis=1),
        position=np.tile(np.arange(CONTEXT, dtype=np.int32), (n_contexts, 1)),
        begins=[(int(n), f"context {n}", "synthetic") for n in documents],
        last=last,
    )


def _hash(data: SyntheticData) -> str:
    return hash_json({"config": asdict(data.config), "seed": data.seed})


@dataclass(frozen=True, kw_only=True)
class ToyDataConfig:
    """A toy's represented features and how often they are on; plain numbers, so that a manifest can hold them."""

    W: tuple[tuple[float, ...], ...]
    """`[n_features, d]`"""
    density: float

    @property
    def n_features(self) -> int:
        return len(self.W)

    @property
    def d(self) -> int:
        return len(self.W[0])


class ToyData(SyntheticData):
    """The hidden layer of a toy as data from a known dictionary."""

    signed = True

    def __init__(self, config: ToyDataConfig, *, seed: int = 0):
        self.config, self.seed = config, seed  # pyright: ignore[reportAttributeAccessIssue] (its own settings)
        rows = torch.tensor(config.W)
        self.lengths = rows.norm(dim=1)
        """`[n_features]`: what one unit of a feature adds along its direction"""
        self.directions = torch.nn.functional.normalize(rows, dim=1)
        self.mean = torch.zeros(config.d)
        silent = (1 - config.density) ** config.n_features
        self.rates = torch.full((config.n_features,), config.density / (1 - silent), dtype=torch.float64)
        self.parents = torch.full((config.n_features,), -1)

    def sample(self, n: int, *, generator: torch.Generator) -> Rows:
        """`n` independent rows, each with a feature on."""
        density, parts, found = torch.tensor([self.config.density]), [], 0
        while found < n:
            drawn = draw_features(density, 2 * n, self.config.n_features, generator)[0].T
            parts.append(drawn[(drawn > 0).any(1)])
            found += len(parts[-1])
        strengths = torch.cat(parts)[:n] * self.lengths
        return Rows(strengths @ self.directions, strengths)


def toy_data(toys: Toys, toy: int, *, seed: int = 0) -> ToyData:
    """The hidden layer of one toy; features that it dropped are no part of the truth (`REPRESENTED`).

    Raises `ConfigError` when fewer than two features are represented: there is no dictionary to recover.
    """
    if not 0 <= toy < len(toys.W):
        raise ConfigError(f"toys are 0 to {len(toys.W) - 1}, got {toy}")
    W = toys.W[toy]
    kept = W[W.square().sum(1) >= REPRESENTED]
    if len(kept) < 2:
        raise ConfigError(
            f"toy {toy} represents {len(kept)} of {len(W)} features; recovery needs two, so train it on rarer features"
        )
    rows = tuple(tuple(float(value) for value in row) for row in kept)
    return ToyData(ToyDataConfig(W=rows, density=float(toys.density[toy])), seed=seed)


@dataclass(frozen=True, kw_only=True)
class ToyRecovery(Result):
    """A trained TopK SAE against a toy's features, beside its null."""

    trained: Recovery
    untrained: Recovery
    """of random directions, as many and as sparse: the null of every score"""
    one_at_a_time: float
    """share of rows that have only one feature on: each of them shows a direction by itself"""
    settings: dict[str, Any]

    def to_records(self) -> list[Record]:
        """Return two rows, `dictionary` `trained` and `random`, with a column per score of `Recovery`."""
        return [{"dictionary": "trained", **asdict(self.trained)}, {"dictionary": "random", **asdict(self.untrained)}]

    def headline(self) -> str:
        """Give the match and its null."""
        return self.trained.headline()

    def shown(self) -> list[Record]:
        """Return the scores downwards."""
        trained, random = self.to_records()
        return [
            {"score": n, "trained": value, "random": random[n]} for n, value in trained.items() if n != "dictionary"
        ]

    def to_json(self) -> dict[str, Any]:
        return as_json({**asdict(self)})

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def recover_toy(
    toys: Toys,
    toy: int,
    folder: Path,
    *,
    k: int | None = None,
    d_sae: int | None = None,
    n_rows: int = 40_000,
    tokens: int = 200_000,
    seed: int = 0,
    overwrite: bool = False,
) -> ToyRecovery:
    """Train a TopK SAE on the hidden layer of one toy, in `folder`, and score it on fresh rows.

    `d_sae` None: twice as many latents as the toy represents features (with as many, most seeds end with a latent
    that never fires and another that stands for two features); `k` None: features on in a row, in the mean, at least
    1. Raises as `toy_data`, `write_synthetic` and `train_sae` do.
    """
    data = toy_data(toys, toy, seed=seed)
    size = d_sae or 2 * data.config.n_features
    k = k or max(1, min(round(data.l0), size))
    folder = Path(folder)
    recording = write_synthetic(data, folder / "recording", n_rows=n_rows, overwrite=overwrite)
    how = TrainConfig(tokens=tokens, batch_size=256, lr=1e-2, seed=seed, log_every=10_000)
    with one_thread():
        sae = train_sae(
            recording, HOOK_POINT, TopKConfig(d_sae=size, k=k), how, folder / "sae", overwrite=overwrite, device="cpu"
        )
    null = untrained_sae(recording, HOOK_POINT, d_sae=size, k=k, seed=seed)
    return ToyRecovery(
        trained=measure_recovery(sae, data, seed=seed),
        untrained=measure_recovery(null, data, seed=seed),
        one_at_a_time=_one_at_a_time(data),
        settings={
            "toy": toy,
            "density": data.config.density,
            "n_features": data.config.n_features,
            "d": data.config.d,
            "d_sae": size,
            "k": k,
            "n_rows": n_rows,
            "tokens": tokens,
            "seed": seed,
        },
    )


def _one_at_a_time(data: ToyData, n: int = 20_000) -> float:
    rows: Iterator[Rows] = data.batches(n, seed=-2)
    on: Tensor = (next(rows).strengths > 0).sum(1)
    return float((on == 1).double().mean())
