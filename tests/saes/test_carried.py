"""Labels that travel: a dictionary gives itself its own labels, and what cannot be carried is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from make_features import write_features
from make_tiny import SPEC, save_tiny_sae

from interp.models.loading import load_model
from interp.workspace import Workspace
from saes.features.schema import Features
from saes.features.written_labels import Labels
from workbench.__main__ import main


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Features `tiny`, and `named`: the same dictionary with written labels."""
    save_tiny_sae(tmp_path / "w", load_model(SPEC))
    made = Workspace(tmp_path / "w")
    rows = [
        {"feature": i, "label": f"label {i}", "label_kind": "written", "label_source": "a reader"} for i in range(80)
    ]
    write_features(made, "named", rows, dictionary="sae:tiny", model=SPEC)
    words = np.random.default_rng(0).choice(["fox", "hen", "dog", "sleeps", "near", "jumps", "over", "quick"], (40, 60))
    lines = [json.dumps({"text": " ".join(line)}) for line in words]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    return made


def test_a_dictionary_gives_itself_its_own_labels(workspace, tmp_path, capsys):
    words = ["explain", "tiny", "--like", "named", "--text", str(tmp_path / "text.jsonl"), "--into", "tiny-named"]
    assert main([*words, "--workspace", str(workspace.root)]) == 0
    labels = workspace.open(Labels, "tiny-named")
    rows, scores = list(labels.labels.rows()), list(labels.scores.rows())
    assert len(rows) > 10
    assert all(row.label == f"label {row.feature}" for row in rows)
    assert {score.accuracy for score in scores} == {1.0}
    out = capsys.readouterr().out
    assert f"{len(rows)} of {len(rows)} labels carried from named hold; documents shuffled 0%" in out
    assert "null, an untrained dictionary" in out
    adopted = workspace.open(Features, "tiny-named").features.arrow()
    kinds = adopted["label_kind"].to_pylist()
    assert [kinds[row.feature] for row in rows] == ["written"] * len(rows)
    assert adopted["label_source"][rows[0].feature].as_py() == "a reader, carried from named"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--like", "tiny", "--text", "FILE"], "tiny has no written labels"),
        (["--like", "named", "--neuronpedia", "x"], "explain takes one of"),
        (["--like", "named"], "name one with --text"),
    ],
)
def test_what_cannot_be_carried_is_said(workspace, tmp_path, words, says, capsys):
    words = [str(tmp_path / "text.jsonl") if word == "FILE" else word for word in words]
    assert main(["explain", "tiny", *words, "--workspace", str(workspace.root)]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
