"""The studies of training as artefacts, and training that goes on where it was interrupted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.artifacts import ARRAYS, open_artefact, save_artefact
from interp.errors import CorruptError
from interp.models.toys import TOYS
from interp.studies import grokking
from interp.studies._transitions import find_transition
from interp.studies.grokking import ModularConfig, describe_grokking, embedding_series, train_modular
from interp.studies.grokking_phases import Grokking
from interp.studies.induction_emerges import follow_induction
from interp.studies.induction_onset import CURVES, InductionOnset, InductionRun, OnsetSettings

CONFIG = ModularConfig(p=13, d_model=16, n_heads=2, d_mlp=24, epochs=20, log_every=4, seeds=(3, 4))


def test_grokking_is_read_back_with_its_phases_and_maps(tmp_path: Path):
    snapshots = list(train_modular(CONFIG))
    found = describe_grokking(snapshots, CONFIG)
    stored = open_artefact(Grokking, save_artefact(found, tmp_path / "d", seed=3).folder)
    assert [run.seed for run in stored.runs] == [3, 4]
    assert not stored.runs[0].phases.grokked
    assert stored.epochs.tolist() == [snapshot.epoch for snapshot in snapshots]
    np.testing.assert_allclose(stored.curves["test_loss"][-1], snapshots[-1].test_loss)
    np.testing.assert_array_equal(stored.shares_of(1)["embedding"], found.embedding_share[:, 1])
    series = embedding_series(snapshots, CONFIG)
    assert series.settings.frames == tuple(f"epoch {epoch}" for epoch in found.epochs)
    assert series.n_points == 13


def test_arrays_of_other_runs_than_the_manifest_are_refused(tmp_path: Path):
    found = describe_grokking(list(train_modular(CONFIG)), CONFIG)
    stored = save_artefact(replace(found, runs=found.runs[:1]), tmp_path / "d")
    for read in (lambda: stored.curves, lambda: stored.shares_of(0)):
        with pytest.raises(CorruptError, match=rf"{ARRAYS} holds .*by the manifest"):
            read()


def test_induction_runs_are_read_back_with_what_changed(tmp_path: Path):
    steps = np.arange(0, 500, 25)
    curve = 1 / (1 + np.exp(-(steps - 250) / 12))
    curves: dict[str, np.ndarray] = dict.fromkeys(CURVES, curve)
    run = InductionRun("toy:x", 2, steps, curves, {name: find_transition(steps, curves[name]) for name in CURVES})
    settings = OnsetSettings(specs=("toy:x",), seeds=(2,), steps=None, every=25)
    save_artefact(InductionOnset(settings=settings, runs=(run,)), tmp_path / "d")
    stored = open_artefact(InductionOnset, tmp_path / "d")
    (found,) = stored.runs
    assert found.onset is not None
    assert abs(found.onset - 224) < 20
    assert found.together is not None
    assert found.together < 1
    assert found.transitions == run.transitions
    np.testing.assert_array_equal(found.curves["accuracy"], curve)
    assert (stored.settings, stored.control(found)) == (settings, None)
    raw = json.loads((tmp_path / "d" / "runs.json").read_text())
    del raw["value"][0]["curves"]["accuracy"]
    (tmp_path / "d" / "runs.json").write_text(json.dumps(raw))
    with pytest.raises(CorruptError, match=r"runs\.json.*accuracy"):
        _ = open_artefact(InductionOnset, tmp_path / "d").runs


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
    real, passes = grokking.all_logits, []
    monkeypatch.setattr(grokking, "all_logits", lambda *given: passes.append(len(given)) or real(*given))
    again = list(train_modular(config, state=state))
    assert passes.count(2) == len([whole[0], *whole[3:]]), "what was measured is not measured again"
    assert passes.count(3) == (whole[-1].epoch - whole[2].epoch) * config.batches, "nor trained"
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
    whole = follow_induction(toy, steps=16, every=2)

    def stop(done: int, total: int, info: dict) -> None:
        if done == 6:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        follow_induction(toy, steps=16, every=2, progress=stop, state=state)
    told: list[int] = []
    again = follow_induction(toy, steps=16, every=2, state=state, progress=lambda done, total, info: told.append(done))
    assert told == [2, 4, 6, 8, 10, 12, 14, 16]
    assert all(np.array_equal(again.curves[name], whole.curves[name]) for name in CURVES)
