"""The dynamics artefact: curves over training, their transitions, and maps of the embedding at checkpoints.

`curves.parquet` is in long format: `step` (int64), `seed` (int32), `curve`, `value`. For grokking, `shares.parquet` has
`step, seed, frequency, logits, embedding`: fractions of the power. Phases and transitions are in the manifest's
summary.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, as_json, save_json, write_table
from interp.errors import ConfigError
from interp.studies.config import ModularConfig
from interp.studies.grokking import Grokking, Snapshot
from interp.studies.induction_emerges import InductionRun
from interp.studies.language_scaling import LanguageScaling, ScalingRecipe

if TYPE_CHECKING:
    import pyarrow as pa

CHECKPOINTS = 6
"""number of maps in the series of an embedding"""


TRAINING = "training"
"""Folder in a partial folder with what an interrupted study resumes from; it is removed when the study is finished."""


def open_study(folder: Path, kind: str, config: dict[str, Any], *, seed: int, overwrite: bool) -> Draft:
    """Open the draft of a study before its models train, or resume it; `TRAINING` is a folder in it then."""
    draft = Draft.open(folder, kind=kind, config=config, seed=seed, overwrite=overwrite)
    (draft.path / TRAINING).mkdir(exist_ok=True)
    return draft


def _finish(draft: Draft, summary: dict[str, Any]) -> Manifest:
    shutil.rmtree(draft.path / TRAINING, ignore_errors=True)  # last: until here a crash loses nothing
    return draft.finish(summary=summary, parents={})


def grokking_config(config: ModularConfig) -> dict[str, Any]:
    """Return the settings in the manifest of a grokking run."""
    return {"kind": "grokking", **as_json(config)}


def save_grokking(found: Grokking, folder: Path, *, seed: int = 0, overwrite: bool = False) -> Manifest:
    """Write curves and shares of all seeds; the summary has phases, key frequencies and loss changes in the gap."""
    config = grokking_config(found.config)
    draft = Draft.open(folder, kind="grokking", config=config, seed=seed, overwrite=overwrite)
    seeds = found.config.seeds
    write_table(draft.path / "curves.parquet", curves_table(found.epochs, found.curves, seeds))
    write_table(draft.path / "shares.parquet", shares_table(found))
    runs = []
    for at, each in enumerate(seeds):
        phases = found.phases[at]
        runs.append(
            {
                "seed": each,
                **as_json(phases),
                "gap": phases.gap,
                "grokked": phases.grokked,
                "keys": found.keys[at],
                "embedding_keys": found.embedding_keys[at],
                "formed_unseen": as_json(found.circuit_forms_unseen(at)),
            }
        )
    return _finish(draft, {"runs": runs, **found.settings})


def save_induction_runs(
    runs: list[InductionRun], folder: Path, *, config: dict[str, Any] | None = None, overwrite: bool = False
) -> Manifest:
    """Write the curves of several seeds of one toy, and of its control if it is among them (another `spec`).

    `config` is that of the draft in which they were trained; by default the specs and seeds of the runs.
    """
    if not runs:
        raise ConfigError("at least one run was expected, got none; give those of follow_induction")
    if config is None:
        config = {"kind": "induction", "specs": sorted({run.spec for run in runs}), "seeds": [run.seed for run in runs]}
    draft = Draft.open(folder, kind="induction_onset", config=config, seed=runs[0].seed, overwrite=overwrite)
    import pyarrow as pa

    tables = []
    for run in runs:
        columns = {name: values[:, None] for name, values in run.curves.items()}
        table = curves_table(run.steps, columns, (run.seed,))
        tables.append(table.append_column("spec", pa.array([run.spec] * len(table), pa.string())))
    write_table(draft.path / "curves.parquet", pa.concat_tables(tables))
    found = [
        {"spec": run.spec, "seed": run.seed, "onset": run.onset, "together": run.together}
        | {"transitions": {name: as_json(t._asdict()) for name, t in run.transitions.items()}}
        for run in runs
    ]
    return _finish(draft, {"runs": found})


def save_language_scaling(
    found: LanguageScaling, recipe: ScalingRecipe, corpus_hash: str, folder: Path, *, seed: int, overwrite: bool = False
) -> Manifest:
    """Write the losses (`step` is tokens, `curve` the size) and, as `scaling.json`, the law with its intervals."""
    import pyarrow as pa

    config = scaling_config(recipe, corpus_hash)
    draft = Draft.open(folder, kind="language_scaling", config=config, seed=seed, overwrite=overwrite)
    tables = [
        curves_table(np.array(run.tokens), {run.name: np.array(run.losses)[:, None]}, (run.seed,)) for run in found.runs
    ]
    write_table(draft.path / "curves.parquet", pa.concat_tables(tables))
    save_json(found.to_json(), draft.path / "scaling.json")
    runs = [{"seed": run.seed, "n_params": run.n_params, "loss": run.losses[-1]} for run in found.runs]
    summary = {"runs": runs, "findings": found.findings, "predicts": found.predicts}
    return _finish(draft, summary | {"intervals": found.to_json()["intervals"]})


def scaling_config(recipe: ScalingRecipe, corpus_hash: str) -> dict[str, Any]:
    """Return the settings in the manifest of a scaling law."""
    return {"kind": "scaling", **as_json(recipe), "corpus_hash": corpus_hash}


def curves_table(steps: np.ndarray, curves: dict[str, np.ndarray], seeds: tuple[int, ...]) -> "pa.Table":
    """Return curves `[n_steps, n_seeds]` by name as one long table."""
    import pyarrow as pa

    n = len(steps) * len(seeds)
    return pa.table(
        {
            "step": pa.array(np.tile(np.repeat(steps, len(seeds)), len(curves)), pa.int64()),
            "seed": pa.array(np.tile(np.array(seeds), len(steps) * len(curves)), pa.int32()),
            "curve": pa.array(np.repeat(list(curves), n), pa.string()),
            "value": pa.array(np.concatenate([values.ravel() for values in curves.values()]), pa.float64()),
        }
    )


def shares_table(found: Grokking) -> "pa.Table":
    """Return the power of every frequency in logits and embedding, over training."""
    import pyarrow as pa

    n_steps, n_seeds, n_frequencies = found.logit_share.shape
    return pa.table(
        {
            "step": pa.array(np.repeat(found.epochs, n_seeds * n_frequencies), pa.int64()),
            "seed": pa.array(np.tile(np.repeat(found.config.seeds, n_frequencies), n_steps), pa.int32()),
            "frequency": pa.array(np.tile(np.arange(1, n_frequencies + 1), n_steps * n_seeds), pa.int32()),
            "logits": pa.array(found.logit_share.ravel(), pa.float32()),
            "embedding": pa.array(found.embedding_share.ravel(), pa.float32()),
        }
    )


def embedding_series(
    snapshots: list[Snapshot], found: Grokking, folder: Path, *, seed: int = 0, **options: Any
) -> Manifest:
    """Map the number tokens of run `seed` at checkpoints spread over training, in one frame (an atlas folder).

    `options` go to `build_series`.
    """
    from interp.atlas.build import MapSettings
    from interp.atlas.series import build_series
    from interp.atlas.sources import AtlasSource

    p = found.config.p
    chosen = [snapshots[i] for i in np.unique(np.linspace(0, len(snapshots) - 1, CHECKPOINTS).round().astype(int))]
    sources = [
        AtlasSource(
            vectors=snapshot.parameters["W_E"][seed, :-1].float(),
            source=f"checkpoint:modular-{p}-seed{found.config.seeds[seed]}-epoch{snapshot.epoch}",
            labels=[str(number) for number in range(p)],
            items=np.arange(p, dtype=np.int32),
            values=np.arange(p, dtype=np.float32),
            value_name="number",
            item_kind="index",
        )
        for snapshot in chosen
    ]
    names = [f"epoch {snapshot.epoch}" for snapshot in chosen]
    return build_series(sources, names, folder, MapSettings(n_neighbors=4), seed=seed, **options)
