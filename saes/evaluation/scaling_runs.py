"""The runs of a workspace that belong to one scaling fit: finished, and trained alike but for size, sparsity and seed.

A law through runs that also differ in tokens, learning rate or data would fit those differences; so they are refused,
and the message names what differs.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from interp.artifacts import Manifest, hash_json
from interp.errors import ConfigError
from interp.workspace import Workspace
from saes.evaluation.scaling import ScalingRun

VARIED = ("d_sae", "k", "seed")
"""settings in which the runs of a fit may differ"""
LEAVE_OUT = ("checkpoint_every", "log_every")
"""settings that change no weight"""


def runs_of(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    recording: str | None = None,
    hook_point: str | None = None,
    kind: str = "topk",
    tokens: int | None = None,
) -> list[ScalingRun]:
    """The runs called `names`, or else every finished dictionary of a kind (and recording, hook point, token budget).

    The loss is the FVU on held-out documents. Raises `ConfigError` when there are none, when they were not trained
    alike, or when a kind has no `k`.
    """
    manifests = [workspace.manifest("sae", name) for name in names]
    if not names:
        manifests = [m for m in workspace.artifacts("sae") if m.config.get("kind") == kind]
        asked = {"recording": recording, "hook_point": hook_point, "tokens": tokens}
        for key, value in asked.items():
            manifests = [m for m in manifests if value is None or m.config.get(key) == value]
    unfit = [m.name for m in manifests if not _usable(m)]
    if names and unfit:
        raise ConfigError(
            f"{', '.join(unfit)} cannot be part of a scaling fit: it needs a size, a k and a held-out FVU; imported "
            "dictionaries and kinds with an L1 penalty have none"
        )
    manifests = [m for m in manifests if m.name not in unfit]
    if not manifests:
        raise ConfigError(
            f"no finished {kind} dictionaries to fit; train a sweep: `workbench train RECORDING --kind {kind} "
            "--d-sae 512 1024 2048 --k 16 32`"
        )
    _check_alike(manifests)
    return [_run(m) for m in sorted(manifests, key=lambda m: (m.config["d_sae"], m.config["k"], m.name))]


def _usable(manifest: Manifest) -> bool:
    heldout, config = manifest.summary.get("heldout"), manifest.config
    sized = isinstance(config.get("d_sae"), int) and isinstance(config.get("k"), int)
    return sized and isinstance(heldout, dict) and isinstance(heldout.get("fvu"), int | float)


def _run(manifest: Manifest) -> ScalingRun:
    config = manifest.config
    loss = float(manifest.summary["heldout"]["fvu"])
    return ScalingRun(n=config["d_sae"], k=config["k"], loss=loss, seed=manifest.seed or 0, name=manifest.name)


def _check_alike(manifests: Sequence[Manifest]) -> None:
    groups: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in manifests:
        groups[hash_json(_recipe(manifest))].append(manifest)
    if len(groups) < 2:
        return
    largest, other = sorted(groups.values(), key=len, reverse=True)[:2]
    one, two = _recipe(largest[0]), _recipe(other[0])
    what = ", ".join(f"{key} ({one.get(key)} and {two.get(key)})" for key in one | two if one.get(key) != two.get(key))
    raise ConfigError(
        f"{len(largest)} runs like {largest[0].name} and {len(other)} like {other[0].name} were not trained alike: "
        f"they differ in {what}; choose one group by name, --recording, --hook-point or --tokens"
    )


def _recipe(manifest: Manifest) -> dict[str, Any]:
    return {key: value for key, value in manifest.config.items() if key not in (*VARIED, *LEAVE_OUT)}
