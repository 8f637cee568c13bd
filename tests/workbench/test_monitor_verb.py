"""`workbench monitor` and `workbench ask run-monitor` from the command line."""

import json

from interp.directions.monitor import Monitor
from interp.workspace import Workspace


def test_a_monitor_is_trained_run_on_a_text_and_bad_examples_are_refused(cli, tmp_path):
    file, other = tmp_path / "case.jsonl", tmp_path / "other.txt"
    rows = [
        {"text": f"{letter}1{letter}{n}", "label": letter.isupper(), "group": letter.lower()}
        for letter in "abcdefghijklABCDEFGHIJKL"
        for n in range(2)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    other.write_text("some text\nanother text\n")
    words = ("monitor", "small:mlp-1l", "--examples", file, "--other", other)
    printed = cli(tmp_path, *words, "--name", "mine")
    assert "the monitor, by text (leaky): caught" in printed
    assert "of 2 texts fire" in printed
    found = Workspace(tmp_path).open(Monitor, "mine")
    assert found.about.parents == {"model:small:mlp-1l": found.settings.weight_hash}
    asked = json.loads(cli(tmp_path, "ask", "run-monitor", "--monitor", "mine", "--text", "A1A"))
    assert (asked["tokens"], asked["scores"][0]) == (["<bos>", "A", "1", "A"], None)
    other.write_text("long " * 400)
    assert "the text 'long long" in cli(tmp_path, *words, code=2)
    file.write_text(json.dumps(rows[0] | {"label": "maybe"}))
    assert "line 1 is no example" in cli(tmp_path, *words, code=2)
