"""An interrupted recording loses at most the shard in hand and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import recorder

from interp.artifacts import partial_path
from interp.errors import ConfigError, MismatchError
from interp.recording.recorded import Recorded
from interp.recording.store import Recording
from interp.recording.writer import LOG
from interp.text.corpora import Corpus


@pytest.fixture(scope="module")
def whole(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The recording as it comes out without any interruption, on one thread like the killed ones."""
    return recorder.record_all(tmp_path_factory.mktemp("whole") / "recording")


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, recorder.__file__, str(folder), "0.03"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_after_shards(folder: Path, n_shards: int, delay: float) -> None:
    """Start recording, and kill -9 it `delay` seconds after shard `n_shards` is in the log."""
    log = partial_path(folder) / LOG
    process = start(folder)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= n_shards:
                break
            time.sleep(0.005)
        time.sleep(delay)
        assert process.poll() is None, f"it ended before it could be killed: {process.stdout.read()[-800:]!r}"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_killed_at_random_moments_ends_with_the_same_bytes(whole: Recorded, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    moments = random.Random(20)
    for n_shards in (1, 6, 12):
        kill_after_shards(folder, n_shards, moments.uniform(0, 0.15))
        assert not folder.exists()
    kept = (partial_path(folder) / LOG).read_bytes().count(b"\n")
    assert kept >= 12
    again = recorder.record_all(folder)
    assert again.about.files == whole.about.files
    assert again.about.content_hash == whole.about.content_hash


def test_resume_does_not_run_the_model_on_finished_shards(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    computed: list[int] = []

    def stop_in_shard_5(done: int, total: int, info: dict) -> None:
        computed.append(info["shard"])
        if info["shard"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _record(folder, stop_in_shard_5)
    before = len(computed)
    _record(folder, lambda done, total, info: computed.append(info["shard"]))
    assert set(computed[:before]) == {0, 1, 2, 3, 4, 5}
    assert min(computed[before:]) == 5  # Ctrl-C lost the shard in hand and nothing else


def _record(folder: Path, progress, documents: Corpus | None = None, *, overwrite: bool = False, **changes) -> Recorded:
    from interp.models.loading import load_model
    from interp.recording.record import record

    return record(
        load_model("small:attn-only-2l", seed=0),
        documents or recorder.documents(),
        folder,
        replace(recorder.SETTINGS, **changes),
        hook_points=recorder.HOOK_POINTS,
        overwrite=overwrite,
        progress=progress,
    )


def interrupt(folder: Path, shard: int, **changes) -> None:
    def stop(done: int, total: int, info: dict) -> None:
        if info["shard"] == shard:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _record(folder, stop, **changes)


def test_a_half_written_log_line_costs_one_shard(whole: Recorded, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    interrupt(folder, 7)
    log = partial_path(folder) / LOG
    log.write_bytes(log.read_bytes()[:-40])
    assert _record(folder, None).about.content_hash == whole.about.content_hash


def test_a_shortened_shard_file_is_recorded_again(whole: Recorded, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    interrupt(folder, 7)
    file = partial_path(folder) / recorder.HOOK_POINTS[0] / "00003.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert _record(folder, None).about.content_hash == whole.about.content_hash


def test_other_settings_do_not_resume_a_partial_run(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    interrupt(folder, 2)
    with pytest.raises(MismatchError, match="other settings"):
        _record(folder, None, dtype="bfloat16")
    assert _record(folder, None, dtype="bfloat16", overwrite=True).settings.dtype == "bfloat16"


def test_changed_text_under_the_same_name_is_noticed_on_resume(tmp_path: Path) -> None:
    folder, documents = tmp_path / "recording", recorder.documents()
    stream = Corpus("stream", lambda: iter(documents), lambda: "unhashable")
    interrupt(folder, 3, documents=stream)
    documents = [document._replace(text=document.text.upper()) for document in documents]
    with pytest.raises(MismatchError, match="corpus has changed"):
        _record(folder, None, documents=stream)


def test_a_finished_recording_is_not_overwritten_unasked(whole: Recorded, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    _record(folder, None, tokens=300)
    with pytest.raises(ConfigError, match="already there"):
        _record(folder, None, tokens=300)
    assert Recording(folder).verify() == []
    assert _record(folder, None, tokens=600, overwrite=True).n_real >= 600
    assert Recording(folder).artefact.settings.n_tokens == 600
