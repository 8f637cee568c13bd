"""The dynamics folder, and the command that writes it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from interp.artifacts import read_manifest, verify
from interp.errors import CorruptError
from interp.models.toys import TOYS
from interp.studies import grokking
from interp.studies.grokking import ModularConfig, describe_grokking, train_modular
from interp.studies.induction_emerges import CURVES, InductionRun, find_transition, follow_induction
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


def test_grokking_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(CONFIG, settle=8)
    monkeypatch.setattr(grokking, "LEARNED", 0.1)  # so that both seeds are soon done, and training ends before its time
    whole = list(train_modular(config))
    assert 12 < whole[-1].epoch < config.epochs or whole[-1].epoch == 20
    state = tmp_path / "state.safetensors"
    begun = train_modular(config, state=state)
    for _ in range(3):
        next(begun)
    begun.close()
    real, measured = grokking._snapshot, []
    monkeypatch.setattr(grokking, "_snapshot", lambda epoch, *rest: measured.append(epoch) or real(epoch, *rest))
    again = list(train_modular(config, state=state))
    assert measured == [0, *(each.epoch for each in whole[3:])], "what was done is not done again"
    assert [each.epoch for each in again] == [each.epoch for each in whole]
    for one, other in zip(again, whole, strict=True):
        assert torch.equal(one.test_loss, other.test_loss)
        assert list(one.parameters) == list(other.parameters), "sums over them are rounded in their order"
        assert all(torch.equal(value, other.parameters[name]) for name, value in one.parameters.items())
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(CorruptError, match=r"remove .* to start again"):
        list(train_modular(config, state=state))


def test_an_induction_run_goes_on_where_it_was_interrupted(tmp_path: Path):
    toy = replace(TOYS["induction-1l"], training=replace(TOYS["induction-1l"].training, batch_size=8))
    whole = follow_induction(toy, steps=16, every=2, n_rows=4)

    def stop(done: int, total: int, info: dict) -> None:
        if done == 6:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        follow_induction(toy, steps=16, every=2, n_rows=4, progress=stop, state=state)
    told: list[int] = []
    again = follow_induction(
        toy, steps=16, every=2, n_rows=4, state=state, progress=lambda done, total, info: told.append(done)
    )
    assert told == [2, 4, 6, 8, 10, 12, 14, 16]
    assert all(np.array_equal(again.curves[name], whole.curves[name]) for name in CURVES)
