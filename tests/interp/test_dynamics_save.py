"""The dynamics folder, and the command that writes it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from interp.artifacts import read_manifest, verify
from interp.studies.grokking import ModularConfig, describe_grokking, train_modular
from interp.studies.induction_emerges import CURVES, InductionRun, find_transition
from interp.studies.save import embedding_series, save_grokking, save_induction_runs

CONFIG = ModularConfig(p=13, d_model=16, n_heads=2, d_mlp=24, epochs=20, log_every=4, seeds=(3, 4))


def test_grokking_is_written_with_its_phases_and_maps(tmp_path: Path):
    snapshots = list(train_modular(CONFIG))
    found = describe_grokking(snapshots, CONFIG)
    manifest = save_grokking(found, tmp_path / "d")
    assert verify(tmp_path / "d") == []
    curves = pq.read_table(tmp_path / "d" / "curves.parquet").to_pandas()
    one = curves[(curves.curve == "test_loss") & (curves.seed == 4)]
    assert one.step.to_list() == found.epochs.tolist()
    np.testing.assert_allclose(one.value, found.curves["test_loss"][:, 1])
    shares = pq.read_table(tmp_path / "d" / "shares.parquet").to_pandas()
    last = shares[(shares.step == 20) & (shares.seed == 3)]
    np.testing.assert_allclose(last.logits, found.logit_share[-1, 0], rtol=1e-6)
    assert [run["seed"] for run in manifest.summary["runs"]] == [3, 4]
    assert manifest.summary["runs"][0]["grokked"] is False
    series = embedding_series(snapshots, found, tmp_path / "a")
    assert [frame["name"] for frame in series.summary["frames"]] == [f"epoch {epoch}" for epoch in found.epochs]
    assert len(pq.read_table(tmp_path / "a" / "points.parquet")) == 13


def test_induction_runs_are_written_with_what_changed(tmp_path: Path):
    steps = np.arange(0, 500, 25)
    curve = 1 / (1 + np.exp(-(steps - 250) / 12))
    curves: dict[str, np.ndarray] = dict.fromkeys(CURVES, curve)
    run = InductionRun("toy:x", 2, steps, curves, {name: find_transition(steps, curves[name]) for name in CURVES})
    save_induction_runs([run], tmp_path / "d")
    summary = read_manifest(tmp_path / "d").summary
    assert abs(summary["runs"][0]["onset"] - 224) < 20
    assert summary["runs"][0]["together"] < 1
    table = pq.read_table(tmp_path / "d" / "curves.parquet").to_pandas()
    assert set(table.spec) == {"toy:x"}
    assert len(table) == len(CURVES) * len(steps)
