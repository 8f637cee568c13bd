"""`workbench monitor` and `workbench ask run-monitor` from the command line."""

import json

import pytest

from interp.directions.monitor import Monitor
from interp.errors import MismatchError
from interp.workspace import Workspace
from saes.acts.monitors import RunMonitor
from saes.acts.session import Session


def test_a_monitor_is_trained_run_on_a_text_and_bad_examples_are_refused(cli, tmp_path):
    file, other = tmp_path / "case.jsonl", tmp_path / "other.txt"
    rows = [
        {"text": f"{letter}1{letter}{n}", "label": letter.isupper(), "group": letter.lower()}
        for letter in "abcdefghijklABCDEFGHIJKL"
        for n in range(2)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    other.write_text("some text\nanother text\n")
    words = ("monitor", "small:mlp-1l", "--examples", file, "--layers", 1)
    printed = cli(tmp_path, *words, "--other", other, "--name", "mine")
    assert "split by text instead of group (leaky): caught" in printed
    assert "of 2 texts fire" in printed
    found = Workspace(tmp_path).open(Monitor, "mine")
    assert found.about.parents == {"model:small:mlp-1l": found.settings.weight_hash}
    session = Session(Workspace(tmp_path))
    watched = RunMonitor(monitor="mine", text="A1A").measure(session)
    assert watched.tokens == ("<bos>", "A", "1", "A")
    assert len([score for score in watched.scores if score is not None]) == 3
    asked = cli(tmp_path, "ask", "run-monitor", "--monitor", "mine", "--text", "A1A")
    assert "fire" in asked
    assert "latents need --sae" in cli(tmp_path, *words, "--basis", "latents", code=2)
    assert "longer than" in cli(tmp_path, *words, "--other", _long(other), code=2)
    file.write_text(json.dumps(rows[0] | {"label": "maybe"}))
    assert "line 1 is no example" in cli(tmp_path, *words, code=2)
    session._models["small:mlp-1l"] = session.model("small:mlp-1l")
    import torch

    with torch.no_grad():
        session.model("small:mlp-1l").W_E.mul_(2)
    with pytest.raises(MismatchError, match="make the monitor again"):
        RunMonitor(monitor="mine", text="A1A").measure(session)


def _long(file):
    file.write_text("long " * 400)
    return file
