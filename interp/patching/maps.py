"""A map of activation patches with its null distribution, as a table and an artefact.

The null depends on the direction of patching.

- `denoise` tests sufficiency. An effect of 0.5 need not mean that half of the information was restored: a patch that
  merely destroys the corrupt answer brings a logit difference to 0, which may be halfway. So the null repeats every
  patch with values from unrelated prompts. These are random ordinary tokens that differ from both prompts at every
  position; BOS is retained.
- `noise` tests necessity, and a patch is meant to destroy. So the null changes every value by the same distance as the
  corrupt prompt does, in a random direction.

An effect is a discovery when it is larger in absolute value than every effect of every null map.

1. `measure_map` computes the map and `draws` null maps, each of which costs as much as the map itself.
2. `save_map` does the same into a folder, and saves each finished map, so that an interrupted run resumes there.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from interp.artifacts import Draft, Manifest, read_json, save_json, write_json, write_table
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.patching.activation import ActivationPatching, activation_patching
from interp.patching.config import PatchingConfig
from interp.progress import Progress
from interp.results import ROWS, Result
from interp.runtime import make_generator

if TYPE_CHECKING:
    from interp.patching.task import Task

NULLS = {
    "denoise": "values of random tokens",
    "noise": "changes of the same size in random directions",
}
"""The null of each direction, in words."""
RUNS = "runs"
"""subfolder of the unfinished artefact: the maps measured so far"""


@dataclass(frozen=True)
class PatchingMap(Result):
    """Effects of single patches, each with its null distribution."""

    found: ActivationPatching
    null: Float64[Tensor, " draws *patches"]
    """`[draws, *found.effect.shape]`: effects of the null's patches, in the same unit"""

    @property
    def threshold(self) -> float:
        """Largest absolute value of any null effect."""
        return float(self.null.abs().max())

    @property
    def level(self) -> float:
        """Upper bound on the probability that a map without true effects shows a discovery: `1 / (draws + 1)`."""
        return 1 / (len(self.null) + 1)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per patch: its axes, `effect`, `stderr`, `null`, `null_low`, `null_high`, `beyond`.

        The null columns are mean, smallest and largest null effect of the same patch. `beyond` is true where the effect
        exceeds every null effect of all patches in absolute value.
        """
        null, highest = self.null.flatten(1), self.threshold
        ends = zip(null.mean(0).tolist(), null.amin(0).tolist(), null.amax(0).tolist(), strict=True)
        return [
            record | {"null": mean, "null_low": low, "null_high": high, "beyond": abs(record["effect"]) > highest}
            for record, (mean, low, high) in zip(self.found.to_records(), ends, strict=True)
        ]

    def strongest(self, n: int = 8) -> list[dict[str, Any]]:
        """Return the rows of the largest effects by absolute value, largest first."""
        return sorted(self.to_records(), key=lambda record: -abs(record["effect"]))[:n]

    def headline(self) -> str:
        """Return one line: the patch, the metric's gap, and the null."""
        return f"{self.found.headline()}; null: {NULLS[self.found.settings['direction']]}, largest {self.threshold:.3g}"

    def shown(self) -> list[dict[str, Any]]:
        """Return the patches with the largest effects."""
        return self.strongest(ROWS)

    def summary(self) -> dict[str, Any]:
        """Return the summary of the manifest: settings, metrics, counts, and the five largest effects."""
        return {
            **self.found.settings,
            "null": NULLS[self.found.settings["direction"]],
            "clean_metric": self.found.clean_metric,
            "corrupt_metric": self.found.corrupt_metric,
            "n_patches": self.found.effect.numel(),
            "n_beyond": int((self.found.effect.abs() > self.threshold).sum()),
            "null_largest": self.threshold,
            "level": self.level,
            "strongest": self.strongest(5),
        }


def measure_map(
    model: HookedModel, task: "Task", config: PatchingConfig, *, seed: int = 0, progress: Progress | None = None
) -> PatchingMap:
    """Measure the map of a task and its null maps.

    Raises what `activation_patching` raises, and `ConfigError` when `by_position` is set and prompts differ in length.
    """
    return _measure(model, task, config, seed, progress, lambda number, make: make())


def save_map(
    model: HookedModel,
    task: "Task",
    config: PatchingConfig,
    folder: Path,
    *,
    model_name: str,
    weight_hash: str,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[PatchingMap, Manifest]:
    """Measure into `folder`: `effects.parquet` and `prompts.json`. The same call resumes after the last finished map.

    Raises what `measure_map` and `Draft.open` raise.
    """
    config = _resolved(task, config)
    settings = {"model": model_name, "weight_hash": weight_hash, **_plain(task), **vars(config)}
    draft = Draft.open(folder, kind="patching", config=settings, seed=seed, overwrite=overwrite)

    def remembered(number: int, make: Callable[[], ActivationPatching]) -> ActivationPatching:
        path = draft.path / RUNS / f"{number}.json"
        if not path.exists():
            save_json(make(), path)
            draft.update(done=number + 1, total=config.draws + 1)
        return _read_run(path)

    try:
        found = _measure(model, task, config, seed, progress, remembered)
    except Exception:
        if not (draft.path / RUNS).exists():
            draft.discard()  # nothing was measured, so there is nothing to resume
        raise
    write_table(draft.path / "effects.parquet", _table(found.to_records()))
    first = {"clean_tokens": list(found.found.clean_tokens), "corrupt_tokens": list(found.found.corrupt_tokens)}
    write_json(draft.path / "prompts.json", first)
    parents = {f"model:{model_name}": weight_hash}
    shutil.rmtree(draft.path / RUNS)  # last: until here a crash loses no map
    return found, draft.finish(summary=found.summary(), parents=parents, threads=threads)


def unrelated_prompts(
    model: HookedModel, clean: Int[Tensor, "batch pos"], corrupt: Int[Tensor, "batch pos"], generator: torch.Generator
) -> Int64[Tensor, "batch pos"]:
    """Return random ordinary tokens that differ from both prompts at every position.

    A first token that is BOS is retained.

    Raises `ConfigError` for a vocabulary of fewer than three ordinary tokens.
    """
    from interp.models.adapter import bos_token_id, ordinary_tokens

    ids, bos = ordinary_tokens(model), bos_token_id(model)
    if len(ids) < 3:
        raise ConfigError(f"the null draws other tokens than those of the prompts; the vocabulary has {len(ids)}")
    drawn = ids[torch.randint(len(ids), tuple(clean.shape), generator=generator)]
    while (same := (drawn == clean) | (drawn == corrupt)).any():
        drawn[same] = ids[torch.randint(len(ids), (int(same.sum()),), generator=generator)]
    if bos is not None:
        drawn[:, 0] = torch.where(clean[:, 0] == bos, bos, drawn[:, 0])
    return drawn


def _measure(
    model: HookedModel,
    task: "Task",
    config: PatchingConfig,
    seed: int,
    progress: Progress | None,
    remembered: Callable[[int, Callable[[], ActivationPatching]], ActivationPatching],
) -> PatchingMap:
    config = _resolved(task, config)
    total = config.draws + 1

    def one(number: int) -> ActivationPatching:
        donors, random_change = None, None
        if number and config.direction == "noise":
            random_change = make_generator(seed, f"random change {number}")
        elif number:
            generator = make_generator(seed, f"unrelated prompts {number}")
            donors = unrelated_prompts(model, task.clean, task.corrupt, generator)

        def layers(done: int, n_layers: int, facts: dict) -> None:
            if progress:
                progress(number * n_layers + done, total * n_layers, {"map": f"{number} of null" if number else "real"})

        return activation_patching(
            model,
            task,
            what=config.what,
            direction=config.direction,
            by_position=bool(config.by_position),
            donors=donors,
            random_change=random_change,
            batch_size=config.batch_size,
            progress=layers,
        )

    maps = [remembered(number, lambda number=number: one(number)) for number in range(total)]
    return PatchingMap(maps[0], torch.stack([each.effect for each in maps[1:]]))


def _resolved(task: "Task", config: PatchingConfig) -> PatchingConfig:
    """Return the settings with the default of `by_position` filled in."""
    lengths = set(task.lengths.tolist())
    wanted = task.n_prompts == 1 if config.by_position is None else config.by_position
    if wanted and len(lengths) > 1:
        raise ConfigError(
            f"prompts of {min(lengths)} to {max(lengths)} tokens have no positions in common; leave by_position off, "
            "or give prompts of one length"
        )
    return replace(config, by_position=wanted)


def _plain(task: "Task") -> dict[str, Any]:
    """Return the description of the prompts for a manifest, without measured values."""
    found = {key: value for key, value in task.describe().items() if key not in ("clean", "corrupt", "seed")}
    return found | {key: value for key, value in task.settings.items() if key in ("clean", "corrupt")}


def _read_run(path: Path) -> ActivationPatching:
    raw = read_json(path)
    tensors = {name: torch.tensor(_numbers(raw[name]), dtype=torch.float64) for name in ("effect", "stderr")}
    texts = {name: tuple(raw[name]) for name in ("axes", "clean_tokens", "corrupt_tokens")}
    return ActivationPatching(**{**raw, **tensors, **texts})


def _numbers(values: Any) -> Any:
    """Return nested lists with NaN for None, as JSON has no NaN."""
    if isinstance(values, list):
        return [_numbers(each) for each in values]
    return float("nan") if values is None else values


def _table(records: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(records)
