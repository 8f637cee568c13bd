"""Checkpoints in a folder: found by their steps, measured beside random weights, continued where they stopped."""

from pathlib import Path

import pytest
import torch

from interp.errors import ConfigError, MissingError
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.models.small import SmallConfig, checkpoints_in, save_small
from interp.studies import induction_emerges
from interp.studies.induction_emerges import follow_checkpoints
from interp.studies.induction_onset import UNTRAINED, InductionOnset
from interp.workspace import Workspace
from workbench.__main__ import main

CONFIG = SmallConfig(n_layers=2, d_model=80, n_heads=1, d_vocab=16, n_ctx=32, normalization=None)
"""Config of the planted model."""
LEARNED = 500
"""Step from which the checkpoints are the planted model."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ten checkpoints: noise, and from step 500 on a model with induction heads by construction."""
    root = tmp_path_factory.mktemp("training")
    for step in range(0, 1000, 100):
        model = load_model("planted:induction")
        if step < LEARNED:
            _randomise(model, step)
        save_small(model, CONFIG, root / f"checkpoint-{step}")
    (root / "logs-7").mkdir()
    return root


def _randomise(model: HookedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.original_model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_checkpoints_are_found_by_the_number_at_the_end_of_their_names(folder: Path) -> None:
    found = checkpoints_in(folder)
    assert list(found) == list(range(0, 1000, 100))
    assert found[100].name == "checkpoint-100"


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "found 0"), (("step-1",), "found 1"), (("a-1", "b-1"), "a-1 and b-1 in .* are both of step 1")],
)
def test_a_folder_without_a_series_is_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=message):
        checkpoints_in(tmp_path)
    with pytest.raises(MissingError, match="no folder of checkpoints"):
        checkpoints_in(tmp_path / "nowhere")


def test_the_step_at_which_the_circuit_is_there_is_found_and_random_weights_have_none(folder: Path) -> None:
    run, control = follow_checkpoints(folder, half=8)
    assert run.steps.tolist() == list(range(0, 1000, 100))
    before, after = run.curves["induction"][:5], run.curves["induction"][5:]
    assert before.max() < 0.3
    assert after.min() > 0.9
    assert LEARNED - 100 <= run.onset <= LEARNED
    assert control.spec == UNTRAINED
    assert control.onset is None
    assert control.curves["induction"].max() < 0.3


def test_too_few_checkpoints_for_an_onset_still_have_their_scores(folder: Path, tmp_path: Path) -> None:
    for step in (400, 500, 600):
        (tmp_path / f"checkpoint-{step}").symlink_to(folder / f"checkpoint-{step}")
    run, _ = follow_checkpoints(tmp_path, half=8)
    assert run.onset is None
    assert "there are 3" in run.transitions["accuracy"].reason
    assert run.curves["induction"][1] > 0.9 > 0.3 > run.curves["induction"][0]


def test_an_interrupted_series_goes_on_with_the_same_numbers(folder: Path, tmp_path: Path, monkeypatch) -> None:
    whole = follow_checkpoints(folder, half=8)[0]

    def stop(done: int, total: int, info: dict) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_checkpoints(folder, half=8, finished=tmp_path, progress=stop)
    loaded = []
    monkeypatch.setattr(
        induction_emerges, "load_model", lambda spec, **options: loaded.append(spec) or load_model(spec, **options)
    )
    again = follow_checkpoints(folder, half=8, finished=tmp_path)[0]
    assert len(loaded) == 4
    assert all((again.curves[name] == whole.curves[name]).all() for name in whole.curves)


def test_the_verb_stores_the_series_and_says_when(folder: Path, tmp_path: Path, capsys) -> None:
    workspace = tmp_path / "ws"
    assert main(["dynamics", "induction", "--checkpoints", str(folder), "--workspace", str(workspace)]) == 0
    found = Workspace(workspace).open(InductionOnset, folder.name)
    assert found.headline().startswith(f"10 checkpoints of {folder.name}: copying sets in at step 4")
    assert "random weights" in found.findings()[0].about
    assert main(["dynamics", "induction", "--checkpoints", str(tmp_path), "--workspace", str(workspace)]) == 2
    assert "expected two checkpoints or more" in capsys.readouterr().err
