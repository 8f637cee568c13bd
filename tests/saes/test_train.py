"""Training: what its folder holds, what another seed changes; it outlives a kill, and fails with a name."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted import assert_same_weights
from safetensors.torch import load_file, save_file
from test_train_kinds import HOOK, planted

from interp.artifacts import open_artefact, partial_path, read_manifest, verify
from interp.errors import ConfigError, MismatchError, NonFiniteError, UnknownNameError
from interp.recording.store import Recording
from saes.kinds.config import TopKConfig
from saes.training.config import TrainConfig
from saes.training.data import Position, RowSource, training_batches
from saes.training.stored import StoredSAE, TrainedSettings
from saes.training.train import train, train_sae
from saes.weights.folder import load_sae

CONFIG = TopKConfig(d_sae=64, k=3)
SHORT = TrainConfig(tokens=20_000, batch_size=256, checkpoint_every=20, log_every=5)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("recordings") / "planted")


def finish(recording, folder, **changes):
    return train_sae(recording, HOOK, CONFIG, SHORT, folder, **changes)


@pytest.fixture(scope="module")
def whole(recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "sae"
    finish(recording, folder)
    return folder


def test_the_folder_is_whole_and_says_what_was_found(recording, whole):
    found = open_artefact(StoredSAE, whole)
    assert found.about.parents[recording.key] == recording.manifest.content_hash
    assert found.about.parents["model:tiny"] == recording.weight_hash
    assert isinstance(found.settings, TrainedSettings)
    assert (found.settings.sae, found.settings.train) == (CONFIG, SHORT)
    assert (found.settings.recording, found.settings.sites) == (
        recording.folder.name,
        (f"{recording.folder.name}:{HOOK}",),
    )
    assert (found.architecture, found.about.seed) == ("topk", SHORT.seed)
    assert set(found.about.files) == {"cfg.json", "log.jsonl", "sae_weights.safetensors"}
    assert verify(whole) == []
    heldout = found.heldout
    n_heldout = sum(len(recording.real_rows(s, "heldout")) for s in range(recording.n_shards))
    assert heldout.n_tokens == n_heldout
    assert 0 < heldout.fvu < 1
    assert load_sae(whole).metadata.hook_point == HOOK


def test_the_same_run_twice_has_one_content_hash_though_its_log_tells_other_speeds(recording, whole, tmp_path):
    finish(recording, tmp_path / "sae")
    one, two = read_manifest(whole), read_manifest(tmp_path / "sae")
    assert one.content_hash == two.content_hash
    assert one.files["log.jsonl"] != two.files["log.jsonl"]


def test_the_log_holds_the_documented_fields_at_every_tenth_step(whole):
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(5, 78, 5), 78]
    keys = {"step", "tokens", "loss", "fvu", "l0", "dead", "dense", "aux", "lr", "tokens_per_second"}
    keys |= {"penalty", "threshold", "rows"}
    assert all(line.keys() == keys for line in lines)
    assert lines[-1]["tokens"] == 78 * 256
    assert lines[-1]["fvu"] < lines[0]["fvu"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(recording, whole, tmp_path):
    assert_same_weights(finish(recording, tmp_path / "again") and tmp_path / "again", whole)
    other = TrainConfig(tokens=20_000, batch_size=256, seed=1)
    sae = train_sae(recording, HOOK, CONFIG, other, tmp_path / "other")
    assert not torch.equal(sae.W_dec, load_sae(whole).W_dec)


CHILD = """
import time
from test_train import *
torch.set_num_threads(1)
for metrics in train(Recording({recording!r}), HOOK, CONFIG, SHORT, Path({folder!r})):
    print(metrics.step, flush=True)
    time.sleep(0.02)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_was_killed_resumes_bit_for_bit(recording, whole, tmp_path, how):
    folder = tmp_path / "sae"
    code = CHILD.format(recording=str(recording.folder), folder=str(folder))
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    for line in child.stdout:
        if int(line) >= 45:
            os.kill(child.pid, how)
            break
    child.communicate(timeout=60)
    assert child.returncode != 0
    assert not folder.exists()
    assert partial_path(folder).exists()
    finish(recording, folder)
    assert_same_weights(folder, whole)


def test_an_unfinished_run_with_other_settings_is_not_mixed_in(recording, tmp_path):
    run = train(recording, HOOK, CONFIG, SHORT, tmp_path / "sae")
    next(run)
    run.close()
    with pytest.raises(MismatchError, match="unfinished run with other settings"):
        train_sae(recording, HOOK, TopKConfig(d_sae=64, k=4), SHORT, tmp_path / "sae")
    finish(recording, tmp_path / "sae")
    with pytest.raises(ConfigError, match="already there"):
        finish(recording, tmp_path / "sae")


def damaged(recording: Recording, folder: Path, row: int, value: float, *, stats_too: bool) -> Recording:
    """A copy of the recording with one bad number."""
    import shutil

    shutil.copytree(recording.folder, folder)
    shard, local = divmod(row, recording.shard_rows[0])
    path = folder / HOOK / f"{shard:05d}.safetensors"
    tensors = load_file(path)
    tensors["activations"][local, 3] = value
    save_file(tensors, path)
    if stats_too:
        stats = load_file(folder / HOOK / "stats.safetensors")
        stats["mean"][3] = value
        save_file(stats, folder / HOOK / "stats.safetensors")
    return Recording(folder)


def training_row(recording: Recording) -> int:
    return int(recording.real_rows(1, "train")[50]) + recording.shard_rows[0]


@pytest.mark.parametrize("stats_too", [True, False], ids=["seen while recording", "edited later"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_named_and_the_run_is_kept(recording, tmp_path, value, stats_too):
    row = training_row(recording)
    bad = damaged(recording, tmp_path / "bad", row, value, stats_too=stats_too)
    with pytest.raises(NonFiniteError, match=rf"row {row} at {HOOK}"):
        train_sae(bad, HOOK, CONFIG, SHORT, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()
    if not stats_too:
        assert (partial_path(tmp_path / "sae") / "checkpoint" / "state.safetensors").exists()


def test_a_run_that_diverges_says_so_and_keeps_the_last_good_checkpoint(recording, tmp_path, monkeypatch):
    from saes.kernels.step import Stepper

    healthy = Stepper.step

    def sick(self, state, x, lr, target=None):
        result = healthy(self, state, x, lr, target)
        if state.step == 25:
            state.W_dec.fill_(float("nan"))
            return result._replace(loss=float("nan"))
        return result

    monkeypatch.setattr(Stepper, "step", sick)
    with pytest.raises(NonFiniteError, match="lower lr"):
        finish(recording, tmp_path / "sae")
    saved = load_file(partial_path(tmp_path / "sae") / "checkpoint" / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


def test_a_hook_point_that_was_not_recorded_lists_those_that_were(recording, tmp_path):
    with pytest.raises(UnknownNameError, match=HOOK):
        train_sae(recording, "blocks.2.hook_resid_post", CONFIG, SHORT, tmp_path / "sae")
    assert not list(tmp_path.iterdir())


def test_a_recording_smaller_than_a_batch_is_refused(recording, tmp_path):
    with pytest.raises(ConfigError, match="fewer than 65,536 training tokens"):
        train_sae(recording, HOOK, CONFIG, TrainConfig(tokens=70_000, batch_size=65_536), tmp_path / "sae")


def test_batches_from_a_position_are_the_batches_after_it(recording):
    read = {"batch_size": 512, "heldout_fraction": 0.1, "seed": 3}
    stream = training_batches([RowSource(recording, HOOK)], **read)
    seen = [next(stream)[0] for _ in range(100)]
    epochs = {batch.next.epoch for batch in seen}
    assert len(epochs) > 1
    for at in (0, 17, 60):
        (again,) = next(training_batches([RowSource(recording, HOOK)], start=seen[at].next, **read))
        assert torch.equal(again.x, seen[at + 1].x)
    assert seen[0].next == Position(0, 1)


def test_training_never_sees_a_heldout_document(recording):
    heldout = torch.cat([b.activations[HOOK] for b in recording.sequential(split="heldout")])
    stream = training_batches([RowSource(recording, HOOK)], batch_size=1024, heldout_fraction=0.1, seed=0)
    trained = torch.cat([next(stream)[0].x for _ in range(21)])
    marks = {tuple(row) for row in heldout[:, :3].tolist()}
    assert not any(tuple(row) in marks for row in trained[:, :3].tolist())
