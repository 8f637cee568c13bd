"""Several dictionaries on one stream of batches: each as if it had been alone, resumed from anywhere."""

import json
import shutil
from pathlib import Path

import pytest
from planted import assert_same_weights
from test_train_kinds import HOOK, OUT, planted

from interp.artifacts import partial_path, read_manifest
from interp.errors import ConfigError
from interp.recording.store import Recording
from saes.kinds.config import (
    CONFIGS,
    BatchTopKConfig,
    CrosscoderConfig,
    GatedConfig,
    JumpReLUConfig,
    TopKConfig,
    TranscoderConfig,
)
from saes.training.config import TrainConfig
from saes.training.run import Job
from saes.training.train import train_many, train_sae
from saes.weights.folder import load_sae
from workbench.verbs.train import Train

SHORT = TrainConfig(tokens=8_000, batch_size=256, checkpoint_every=7, log_every=5)
SAES = {
    "topk": TopKConfig(d_sae=48, k=3),
    "wide": BatchTopKConfig(d_sae=96, k=2),
    "jumprelu": JumpReLUConfig(d_sae=48, k=3),
    "gated": GatedConfig(d_sae=32),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("recordings") / "planted", n=6_000)


@pytest.fixture(scope="module")
def alone(recording, tmp_path_factory):
    root = tmp_path_factory.mktemp("alone")
    for name, config in SAES.items():
        train_sae(recording, HOOK, config, SHORT, root / name)
    return root


def jobs(root: Path) -> list[Job]:
    return [Job(sae=config, train=SHORT, folder=root / name) for name, config in SAES.items()]


def test_each_of_many_gets_the_weights_that_it_has_alone_from_one_reading(recording, alone, tmp_path, monkeypatch):
    reads = []
    read = Recording.shuffled
    monkeypatch.setattr(Recording, "shuffled", lambda self, *a, **k: reads.append(k["epoch"]) or read(self, *a, **k))
    seen = {(job.folder.name, metrics.step) for job, metrics in train_many(recording, HOOK, jobs(tmp_path))}
    epochs = len({*reads})
    assert len(reads) <= epochs + 3  # the stream once; a first batch for two kinds, a sample for one threshold
    assert {name for name, _ in seen} == set(SAES)
    for name in SAES:
        assert_same_weights(tmp_path / name, alone / name)


def test_runs_that_stand_at_different_steps_catch_up(recording, alone, tmp_path):
    """As after a kill between two checkpoints: one run is further, one never began, one is whole."""
    some = jobs(tmp_path)
    train_sae(recording, HOOK, some[0].sae, SHORT, some[0].folder)
    for job, stop in ((some[1], 14), (some[2], 7)):
        run = train_many(recording, HOOK, [job])
        while next(run)[1].step < stop:
            pass
        run.close()
        assert partial_path(job.folder).exists()
    before = read_manifest(some[0].folder).created
    for _ in train_many(recording, HOOK, some):
        pass
    for name in SAES:
        assert_same_weights(tmp_path / name, alone / name)
    assert read_manifest(some[0].folder).created == before
    steps = [json.loads(line)["step"] for line in (tmp_path / "wide" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_closed_sweep_resumes_bit_for_bit(recording, alone, tmp_path):
    run = train_many(recording, HOOK, jobs(tmp_path))
    for _ in range(9):
        next(run)
    run.close()
    for _ in train_many(recording, HOOK, jobs(tmp_path)):
        pass
    for name in SAES:
        assert_same_weights(tmp_path / name, alone / name)


def test_jobs_that_would_read_other_batches_are_refused(recording, tmp_path):
    one = jobs(tmp_path)[0]
    other = Job(sae=one.sae, train=TrainConfig(tokens=8_000, batch_size=128), folder=tmp_path / "b")
    with pytest.raises(ConfigError, match=r"batch_size \(256 and 128\)"):
        next(train_many(recording, HOOK, [one, other]))
    across = Job(sae=TranscoderConfig(d_sae=48, k=3, target=OUT), train=SHORT, folder=tmp_path / "c")
    with pytest.raises(ConfigError, match="target"):
        next(train_many(recording, HOOK, [one, across]))
    with pytest.raises(ConfigError, match="same folder"):
        next(train_many(recording, HOOK, [one, one]))
    with pytest.raises(ConfigError, match="at least one"):
        next(train_many(recording, HOOK, []))
    assert not list(tmp_path.iterdir())


def test_a_kind_reads_as_many_places_as_it_can(recording, tmp_path):
    with pytest.raises(ConfigError, match="reads one hook point"):
        train_sae(recording, (HOOK, OUT), SAES["topk"], SHORT, tmp_path / "a")
    with pytest.raises(ConfigError, match="at least two sites"):
        train_sae(recording, HOOK, CrosscoderConfig(d_sae=48, k=3), SHORT, tmp_path / "b")


def test_the_command_line_knows_every_kind_and_sweeps(recording, tmp_path, capsys):
    assert set(Train.__annotations__["kind"].__args__) == set(CONFIGS)
    shutil.copytree(recording.folder, tmp_path / "recordings" / recording.folder.name)
    given = {"workspace": tmp_path, "recording": "planted", "tokens": 4_000, "batch_size": 256, "threads": 1}
    Train(**given, d_sae=(32, 48), k=(2, 3)).run()
    names = {folder.name for folder in (tmp_path / "saes").iterdir()}
    assert names == {f"planted-d{d}-k{k}" for d in (32, 48) for k in (2, 3)}
    assert capsys.readouterr().out.count("of the variance") == 4
    Train(**given, name="across", kind="transcoder", target=OUT, skip=True, d_sae=(32,), k=(2,)).run()
    assert load_sae(tmp_path / "saes" / "across").hook_point_out == OUT
    with pytest.raises(ConfigError, match="a relu SAE has no k"):
        Train(**given, name="no", kind="relu", k=(3,)).run()
