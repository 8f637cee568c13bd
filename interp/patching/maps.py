"""Measurement of a map of activation patches with its null distribution (`interp.patching.patching_map`).

The null depends on the direction of patching.

- `denoise` tests sufficiency. An effect of 0.5 need not mean that half of the information was restored: a patch that
  merely destroys the corrupt answer brings a logit difference to 0, which may be halfway. So the null repeats every
  patch with values from unrelated prompts. These are random ordinary tokens that differ from both prompts at every
  position; BOS is retained.
- `noise` tests necessity, and a patch is meant to destroy. So the null changes every value by the same distance as the
  corrupt prompt does, in a random direction.

An effect is a discovery when it is larger in absolute value than every effect of every null map.

`measure_map` computes the map and `draws` null maps, each of which costs as much as the map itself. With a draft it
saves each finished map, so that an interrupted run resumes there.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from interp.artifacts import Draft, Table, read_json, save_json
from interp.errors import ConfigError
from interp.forms import from_json
from interp.models.adapter import bos_token_id, ordinary_tokens, weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.patching.activation import ActivationPatching, activation_patching
from interp.patching.patching_map import JudgedPatch, PatchingConfig, PatchingMap, PatchingSettings
from interp.patching.task import Task
from interp.progress import Progress
from interp.seeds import make_generator

RUNS = "runs"
"""subfolder of the unfinished artefact: the maps measured so far"""


def measure_map(
    model: HookedModel, task: Task, config: PatchingConfig, *, seed: int = 0,
    draft: Callable[[PatchingSettings], Draft | None] | None = None, progress: Progress | None = None,
) -> PatchingMap:  # fmt: skip
    """Measure the map of a task and its null maps.

    Args:
        model: the model to patch.
        task: its prompts and the metric.
        config: the settings of the patches.
        seed: of the null.
        draft: returns the work in progress of some settings, with the maps of an earlier run if there are any.
        progress: called after every layer of every map.
    Returns: the effects, each beside those of the null maps.
    Raises:
        ConfigError: `by_position` is set and prompts differ in length.
        PromptError: as `activation_patching` does.

    >>> model = load_model("planted:induction")
    >>> measure_map(model, make_task("induction", model, n_prompts=4), PatchingConfig(what="z", draws=3)).headline()
    'Patching z in planted:induction between prompts of induction: 1 of 2 patches beyond the null'
    """
    config = resolved(task, config)
    settings = PatchingSettings(
        model=model_spec(model),
        weight_hash=weight_hash(model),
        task=task.settings,
        **vars(config),
    )
    work = None if draft is None else draft(settings)
    runs = None if work is None else work.path / RUNS
    maps = []
    try:
        for number in range(config.draws + 1):
            maps.append(_remembered(runs, number) or _one(model, task, config, seed, number, progress))
            if work is not None and runs is not None:
                save_json(maps[-1], runs / f"{number}.json")
                work.update(done=number + 1, total=config.draws + 1)
    except Exception:
        if work is not None and not maps:
            work.discard()  # nothing was measured, so there is nothing to resume
        raise
    if runs is not None:
        shutil.rmtree(runs)
    estimate, null = maps[0], np.stack([draw.effect for draw in maps[1:]]).reshape(config.draws, -1)
    highest = np.abs(null).max()
    bounds = zip(null.mean(0).tolist(), null.min(0).tolist(), null.max(0).tolist(), strict=True)
    rows = [
        JudgedPatch(
            **vars(row),
            null=mean,
            null_low=low,
            null_high=high,
            beyond=bool(abs(row.effect) > highest),
        )
        for row, (mean, low, high) in zip(estimate.rows, bounds, strict=True)
    ]
    return PatchingMap(
        settings=settings,
        heads=estimate.settings.heads,
        group_size=estimate.settings.group_size,
        clean_metric=estimate.clean_metric,
        corrupt_metric=estimate.corrupt_metric,
        prompts=estimate.prompts,
        patches=Table.of(JudgedPatch, rows),
    )


def _remembered(runs: Path | None, number: int) -> ActivationPatching | None:
    """Return a map that an interrupted run has measured."""
    path = None if runs is None else runs / f"{number}.json"
    return None if path is None or not path.exists() else from_json(ActivationPatching, read_json(path), path)


@dataclass(frozen=True)
class MapArm:
    """The source of the patches of one map: the task's own prompts where both are None."""

    donors: Tensor | None = None
    """`[n, pos]`: prompts of random tokens"""
    random_change: torch.Generator | None = None
    """draws the difference of two runs, of the same size"""


def arm_of(model: HookedModel, task: Task, config: PatchingConfig, seed: int, number: int) -> MapArm:
    """Return the arm of a number: 0 is the true map, the others are draws of the null."""
    if not number:
        return MapArm()
    if config.direction == "noise":
        return MapArm(random_change=make_generator(seed, f"random change {number}"))
    generator = make_generator(seed, f"unrelated prompts {number}")
    return MapArm(donors=unrelated_prompts(model, task.clean, task.corrupt, generator))


def _one(
    model: HookedModel, task: Task, config: PatchingConfig, seed: int, number: int, progress: Progress | None
) -> ActivationPatching:
    """Measure the map of one arm."""
    arm = arm_of(model, task, config, seed, number)

    def layers(done: int, n_layers: int, facts: dict[str, object]) -> None:
        if progress:
            total, name = (config.draws + 1) * n_layers, f"{number} of null" if number else "real"
            progress(number * n_layers + done, total, {"map": name})

    return activation_patching(
        model,
        task,
        what=config.what,
        direction=config.direction,
        by_position=bool(config.by_position),
        donors=arm.donors,
        random_change=arm.random_change,
        batch_size=config.batch_size,
        progress=layers,
    )


def unrelated_prompts(
    model: HookedModel, clean: Int[Tensor, "batch pos"], corrupt: Int[Tensor, "batch pos"], generator: torch.Generator
) -> Int64[Tensor, "batch pos"]:
    """Return random ordinary tokens that differ from both prompts at every position.

    A first token that is BOS is retained.

    Raises `ConfigError` for a vocabulary of fewer than three ordinary tokens.
    """
    ids, bos = ordinary_tokens(model), bos_token_id(model)
    if len(ids) < 3:
        raise ConfigError(f"the null draws other tokens than those of the prompts; the vocabulary has {len(ids)}")
    drawn = ids[torch.randint(len(ids), tuple(clean.shape), generator=generator)]
    while (same := (drawn == clean) | (drawn == corrupt)).any():
        drawn[same] = ids[torch.randint(len(ids), (int(same.sum()),), generator=generator)]
    if bos is not None:
        drawn[:, 0] = torch.where(clean[:, 0] == bos, bos, drawn[:, 0])
    return drawn


def resolved(task: Task, config: PatchingConfig) -> PatchingConfig:
    """Return the settings with the default of `by_position` filled in."""
    lengths = set(task.lengths.tolist())
    wanted = task.n_prompts == 1 if config.by_position is None else config.by_position
    if wanted and len(lengths) > 1:
        raise ConfigError(
            f"prompts of {min(lengths)} to {max(lengths)} tokens have no positions in common; leave by_position off, "
            "or give prompts of one length"
        )
    return replace(config, by_position=wanted)
