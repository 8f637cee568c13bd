"""Threads are set in one place, and may be set again."""

import subprocess
import sys

import torch

from interp.runtime import one_thread


def test_threads_can_change_after_compiled_loops_have_run() -> None:
    code = (
        "import torch; from interp.runtime import set_threads; set_threads(1)\n"
        "from saes.kernels.compiled import CompiledOps\n"
        "CompiledOps().select_topk(torch.randn(8, 16), 2)\n"
        "set_threads(2)\n"
        "CompiledOps().select_batch(torch.randn(8, 16), 4)  # compiled now, after the change\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.strip() == "2", done.stderr


def test_one_thread_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
