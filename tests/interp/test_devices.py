"""Threads are set in one place, and may be set again; a device is used unasked once it agrees with the CPU."""

import json
import os
import platform
import subprocess
import sys
import warnings

import pytest
import torch
from other_device import DEVICE, other_device

from interp import devices
from interp.devices import DEVICE_TOLERANCE, agrees_with_cpu, pick_device, small_passes
from interp.errors import ConfigError, UnknownNameError
from interp.threads import one_thread


def test_threads_can_change_after_compiled_loops_have_run() -> None:
    code = (
        "import torch; from interp.threads import set_threads; set_threads(1)\n"
        "from saes.kernels.compiled import CompiledOps\n"
        "CompiledOps().select_topk(torch.randn(8, 16), 2)\n"
        "set_threads(2)\n"
        "CompiledOps().select_batch(torch.randn(8, 16), 4)  # compiled now, after the change\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.strip() == "2", done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the limits that are set")
@pytest.mark.parametrize(("limits", "reused"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_memory_of_freed_tensors_serves_the_next_ones_unless_the_environment_says_otherwise(limits, reused) -> None:
    code = (
        "import resource, torch; from interp.devices import pick_device; pick_device('cpu')\n"
        "def layer(): [torch.ones(3 << 20) for _ in range(5)]  # 60 MB\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "layer(); before = faults(); layer(); print(faults() - before)"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | limits
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env, check=True
    )
    pages = 60 * 2**20 // os.sysconf("SC_PAGESIZE")
    assert (int(done.stdout) < pages // 2) == reused  # a tensor or two may lie on the border of what is kept


def test_one_thread_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, on a machine with an mps device that the `meta` device of `other_device` plays."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path / "cache" / "devices.json"


def test_the_passes_of_the_check_agree_on_a_device_that_computes_right(cache) -> None:
    with other_device():
        assert small_passes(str(DEVICE))[0].device == DEVICE
        assert agrees_with_cpu(str(DEVICE))
    (difference,) = json.loads(cache.read_text()).values()
    assert difference < 1e-5


def wrong(error: float):
    """Passes of a device whose last output is off by some standard deviations in one place."""

    def passes(device: str) -> list[torch.Tensor]:
        outputs = [each.clone() for each in small_passes("cpu")]
        if device != "cpu":
            outputs[-1].view(-1)[17] += error * outputs[-1].std()
        return outputs

    return passes


@pytest.mark.parametrize("error", [1e-5, DEVICE_TOLERANCE * 2, 1.0, float("nan")])
def test_a_device_that_differs_is_not_used_unasked(error, cache, monkeypatch) -> None:
    monkeypatch.setattr(devices, "small_passes", wrong(error))
    if error < DEVICE_TOLERANCE:
        assert pick_device() == "mps"
        return
    for _ in range(2):  # computed, then read from the cache
        with pytest.warns(UserWarning, match=r"mps.* differs from the CPU by .* --device mps uses it all the same"):
            assert pick_device() == "cpu"
    assert pick_device("mps") == "mps", "asked for, it is used"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_device(mps=False) == "cpu"  # unneeded, it is not judged


def test_the_check_runs_once_per_version_and_device(cache, monkeypatch) -> None:
    calls = []

    def passes(device: str) -> list[torch.Tensor]:
        calls.append(device)
        return [torch.arange(4.0)]

    monkeypatch.setattr(devices, "small_passes", passes)
    assert [pick_device(), pick_device()] == ["mps", "mps"]
    assert calls == ["cpu", "mps"]
    monkeypatch.setattr(torch, "__version__", "another")
    assert pick_device() == "mps"
    assert len(calls) == 4
    assert len(json.loads(cache.read_text())) == 2
    cache.write_text("damaged")
    assert pick_device() == "mps"
    assert len(calls) == 6


def test_a_device_that_fails_is_not_used_and_is_tried_again(cache, monkeypatch) -> None:
    def fails(device: str) -> list[torch.Tensor]:
        if device != "cpu":
            raise NotImplementedError("no topk here\nlong advice")
        return [torch.arange(4.0)]

    monkeypatch.setattr(devices, "small_passes", fails)
    with pytest.warns(UserWarning, match=r"fails at a small network \(no topk here\); the CPU is used"):
        assert pick_device() == "cpu"
    assert not cache.exists(), "it may have been out of memory"


def test_devices_are_checked_by_name(monkeypatch) -> None:
    for name in ("tpu", "cpu:0", "cuda:x", "mps:1", "cuda:-1"):
        with pytest.raises(UnknownNameError, match="device"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match="torch sees 2 CUDA devices"):
        pick_device("cuda:2")
