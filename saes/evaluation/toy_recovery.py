"""Recordings of synthetic data, and the recovery of a toy model of superposition by a TopK SAE.

    toys = train_toys(densities=(0.05,))                              # interp.studies.superposition
    found = recover_toy(toys, toys.best(), folder)                    # trains a TopK SAE on the hidden layer
    found.trained.f1, found.untrained.f1, found.one_at_a_time

**Recording.** Synthetic rows are written as a recording, so that the training loop and every verb read them like those
of a model. A context is a document of 64 rows. It has no text (every token is 0) and no model: `weight_hash` is the
hash of the settings and the seed, which determine the true dictionary. `truth.json` holds the settings,
`truth.safetensors` the true directions; `read_synthetic` recomputes them and checks them against the file.

**Toy model.** The rows are the hidden layer `x @ W` of the toy. An active feature adds its strength times its
direction, as in `saes.evaluation.synthetic`, so recordings, kinds of SAE and scores are the same. Three things differ:

- there is no noise;
- rows without an active feature are left out, since they contain nothing to recover (rare features give many);
- features may have exactly opposite directions (antipodal pairs), so latents are matched by signed cosine.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import (
    Draft,
    as_json,
    atomic_file,
    from_json,
    hash_json,
    read_json,
    save_artefact,
    write_json,
)
from interp.errors import ConfigError, MismatchError
from interp.recording.record import recorded
from interp.recording.recorded import RecordingSettings
from interp.recording.store import Recording, load_tensors
from interp.recording.writer import Shard, ShardLog, write_shard, write_stats
from interp.remote import as_path
from interp.results import Record, Result
from interp.studies.superposition import Toys, draw_features
from interp.studies.superposition_geometry import REPRESENTED
from interp.text.tokens import ShardText
from interp.threads import one_thread
from saes.evaluation.baselines import untrained_sae
from saes.evaluation.synthetic import Recovery, Rows, SyntheticConfig, SyntheticData, measure_recovery
from saes.kinds.config import TopKConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae

HOOK_POINT = "blocks.0.hook_resid_post"
CONTEXT, SHARD_CONTEXTS = 64, 256
MODEL, TRUTH, TRUE_SETTINGS = "synthetic", "truth.safetensors", "truth.json"


def write_synthetic(
    data: SyntheticData,
    folder: Path,
    *,
    n_rows: int,
    overwrite: bool = False,
) -> Recording:
    """Write at least `n_rows` rows (whole contexts) as a recording at `HOOK_POINT`.

    Rows are float32 and drawn with the seed of the data, shard by shard. Memory holds one shard of 16,384 rows. After
    an interruption the same call continues. Raises `ConfigError` (no rows, or the folder exists), `MismatchError` (an
    unfinished run with other settings).
    """
    if n_rows < 1:
        raise ConfigError(f"n_rows must be at least 1, got {n_rows}")
    folder, name, contexts = as_path(folder), HOOK_POINT, -(-n_rows // CONTEXT)
    settings = RecordingSettings(
        model=MODEL,
        weight_hash=_hash(data),
        hook_points=(name,),
        context_length=CONTEXT,
        bos="none",
        dtype="float32",
        n_tokens=n_rows,
        text=None,
    )
    draft = Draft.open(folder, kind="recording", config=as_json(settings), seed=data.seed, overwrite=overwrite)
    log = ShardLog(draft)
    for number, first in enumerate(range(0, contexts, SHARD_CONTEXTS)):
        if number in log:
            continue
        text = _no_text(number, first, min(SHARD_CONTEXTS, contexts - first), last=first + SHARD_CONTEXTS >= contexts)
        rows = next(data.batches(text.n_rows, start=number))
        write_shard(draft, log, Shard(text, {name: rows.x}))
    write_stats(draft, log, [name])
    write_json(draft.path / TRUE_SETTINGS, as_json(data.config))
    with atomic_file(draft.path / TRUTH) as temporary:
        save_file({"directions": data.directions}, temporary)
    found = recorded(settings, log.entries, {name: data.config.d}, None, 1)
    save_artefact(found, folder, threads=torch.get_num_threads(), draft=draft)
    return Recording(folder)


def read_synthetic(recording: Recording) -> SyntheticData:
    """Return the synthetic data that a recording was drawn from.

    Raises `MismatchError` for a recording of a model, and where the recomputed directions differ from the stored ones.
    """
    if not recording.planted:
        raise MismatchError(
            f"{recording.folder} holds activations of {recording.model}, whose true features are unknown; "
            "recovery can be measured on recordings that `saes.evaluation.toy_recovery.write_synthetic` wrote"
        )
    path, seed = recording.folder / TRUE_SETTINGS, recording.manifest.seed or 0
    form: Any = SyntheticConfig | ToyDataConfig
    config = from_json(form, read_json(path), path)
    data = ToyData(config, seed=seed) if isinstance(config, ToyDataConfig) else SyntheticData(config, seed=seed)
    directions = load_tensors(recording.folder / TRUTH)["directions"]
    if directions.shape != data.directions.shape or not torch.allclose(directions, data.directions, atol=1e-4):
        raise MismatchError(
            f"{recording.folder} was drawn along other directions than its settings give with this version of torch; "
            "write it again with `write_synthetic`"
        )
    return data


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
    """Represented features of a toy and their density, as plain numbers for the manifest."""

    W: tuple[tuple[float, ...], ...]
    """`[n_features, d]`: direction of each feature in the hidden layer, not normalised"""
    density: float
    """probability that a feature is on"""

    @property
    def n_features(self) -> int:
        """Number of represented features."""
        return len(self.W)

    @property
    def d(self) -> int:
        """Width of the hidden layer."""
        return len(self.W[0])


class ToyData(SyntheticData):
    """Hidden layer of a toy model of superposition, as data from a known dictionary."""

    signed = True

    def __init__(self, config: ToyDataConfig, *, seed: int = 0):
        self.config, self.seed = config, seed  # pyright: ignore[reportAttributeAccessIssue] (its own settings)
        rows = torch.tensor(config.W)
        self.lengths = rows.norm(dim=1)
        """norm of each feature's direction before normalisation, `[n_features]`"""
        self.directions = torch.nn.functional.normalize(rows, dim=1)
        self.mean = torch.zeros(config.d)
        empty = (1 - config.density) ** config.n_features
        self.rates = torch.full((config.n_features,), config.density / (1 - empty), dtype=torch.float64)
        self.parents = torch.full((config.n_features,), -1)

    def sample(self, n: int, *, generator: torch.Generator) -> Rows:
        """Draw `n` independent rows, each with at least one active feature."""
        density, parts, found = torch.tensor([self.config.density]), [], 0
        while found < n:
            drawn = draw_features(density, 2 * n, self.config.n_features, generator)[0].T
            parts.append(drawn[(drawn > 0).any(1)])
            found += len(parts[-1])
        strengths = torch.cat(parts)[:n] * self.lengths
        return Rows(strengths @ self.directions, strengths)


def toy_data(toys: Toys, toy: int, *, seed: int = 0) -> ToyData:
    """Return the hidden layer of one toy as data; features below `REPRESENTED` are not in the true dictionary.

    Raises `ConfigError` for a toy that does not exist, and for one that represents fewer than two features.
    """
    if not 0 <= toy < len(toys.W):
        raise ConfigError(f"toys are 0 to {len(toys.W) - 1}, got {toy}")
    W = toys.W[toy]
    represented = W[W.square().sum(1) >= REPRESENTED]
    if len(represented) < 2:
        raise ConfigError(
            f"toy {toy} represents {len(represented)} of {len(W)} features; recovery needs two, so train it on rarer "
            "features"
        )
    rows = tuple(tuple(float(value) for value in row) for row in represented)
    return ToyData(ToyDataConfig(W=rows, density=float(toys.density[toy])), seed=seed)


@dataclass(frozen=True, kw_only=True)
class ToyRecovery(Result):
    """Recovery of a toy's features by a trained TopK SAE, with the null of an untrained one."""

    trained: Recovery
    untrained: Recovery
    """null: the same number of random directions with the same `k`"""
    one_at_a_time: float
    """share of rows with a single active feature, each of which reveals one direction: 0 none, 1 all"""
    settings: dict[str, Any]

    def to_records(self) -> list[Record]:
        """Return two rows, `dictionary` `trained` and `random`, with a column per score of `Recovery`."""
        return [{"dictionary": "trained", **asdict(self.trained)}, {"dictionary": "random", **asdict(self.untrained)}]

    def headline(self) -> str:
        """Report the match and its null."""
        return self.trained.headline()

    def shown(self) -> list[Record]:
        """Return one row per score, with the trained and the random dictionary as columns."""
        trained, random = self.to_records()
        return [
            {"score": n, "trained": value, "random": random[n]} for n, value in trained.items() if n != "dictionary"
        ]


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

    `d_sae` None takes twice the number of represented features. (With as many latents as features, most seeds end with
    a dead latent and another that represents two features.) `k` None takes the mean number of active features per row,
    at least 1. Raises as `toy_data`, `write_synthetic` and `train_sae` do.
    """
    data = toy_data(toys, toy, seed=seed)
    size = d_sae or 2 * data.config.n_features
    k = k or max(1, min(round(data.l0), size))
    folder = as_path(folder)
    recording = write_synthetic(data, folder / "recording", n_rows=n_rows, overwrite=overwrite)
    config = TrainConfig(tokens=tokens, batch_size=256, lr=1e-2, seed=seed, log_every=10_000)
    sizes = TopKConfig(d_sae=size, k=k)
    with one_thread():
        sae = train_sae(recording, HOOK_POINT, sizes, config, folder / "sae", overwrite=overwrite, device="cpu")
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
