"""The whole thing as a stranger meets it: the quick demo on the real model, twice, and the notebook on what it made."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from interp.artifacts import KINDS, verify
from interp.workspace import Workspace

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1800)]  # the first test makes the workspace


def workbench(*arguments: object, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        check=False,
    )


def test_the_demo_makes_every_artefact_and_all_verify(quick_workspace):
    workspace = Workspace(quick_workspace)
    made = {(m.kind, m.name) for m in workspace.artifacts()}
    assert made == {
        ("recording", "demo"),
        ("sae", "demo"),
        ("features", "demo"),
        ("features", "demo-neurons"),
        ("heads", "smollm2-135m"),
        ("circuit", "induction-smollm2-135m"),
        ("atlas", "demo-features"),
        ("atlas", "demo-tokens"),
    }
    assert not workspace.broken()
    assert not workspace.partials()
    for manifest in workspace.artifacts():
        assert verify(workspace.path(manifest.kind, manifest.name)) == []


def test_the_demo_proves_the_induction_circuit_of_the_real_model(quick_workspace):
    from interp.circuits.circuit import Circuit

    circuit = Circuit.load(Workspace(quick_workspace).path("circuit", "induction-smollm2-135m"))
    assert circuit.verdict["found"], circuit.verdict["reason"]
    edge = next(e for e in circuit.edges if (e.source, e.target, e.via) == ("L16H0", "L18H6", "k"))
    assert edge.score > 0.5, "one previous-token head carries most of the strongest induction head's score"


def test_every_artefact_can_be_traced_to_the_model(quick_workspace):
    workspace = Workspace(quick_workspace)
    kind_of = {folder: kind for kind, folder in KINDS.items()}
    weight_hash = workspace.manifest("recording", "demo").config["weight_hash"]
    for manifest in workspace.artifacts():
        assert manifest.parents, f"{manifest.kind} {manifest.name} names no parents"
        for key, value in manifest.parents.items():
            if key.startswith("model:"):
                assert value == weight_hash
            else:
                folder, name = key.split("/")
                assert value == workspace.manifest(kind_of[folder], name).content_hash


def test_the_demo_dictionary_explains_most_of_the_variance_of_unseen_documents(quick_workspace):
    heldout = Workspace(quick_workspace).manifest("sae", "demo").summary["heldout"]
    assert heldout["n_tokens"] > 2_000
    assert heldout["fvu"] < 0.35  # a quarter of a million tokens seen; the full demo reaches about half of this
    assert heldout["l0"] == pytest.approx(32, rel=0.25)


def test_smollm2_has_previous_token_and_induction_heads(quick_workspace):
    workspace = Workspace(quick_workspace)
    table = workspace.table_path("heads", "smollm2-135m", "heads")
    rows = workspace.query("select * from h order by layer, head", h=table).to_pylist()
    assert len(rows) == 30 * 9
    for kind in ("previous_token", "induction"):
        found = [row for row in rows if row[f"{kind}_found"]]
        assert found
        assert max(row[kind] for row in found) > 0.5


def test_a_second_run_finds_everything(quick_workspace):
    started = time.monotonic()
    again = workbench("demo", "--quick", "--no-serve", "--workspace", quick_workspace)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("found ") >= 7
    assert "tokens/s" not in again.stdout
    assert time.monotonic() - started < 60  # a second run must not compute; generous for a loaded machine


def test_evaluate_puts_the_dictionary_into_the_model(quick_workspace):
    result = workbench(
        "evaluate", "demo", "--workspace", quick_workspace, "--name", "check", "--contexts", "8", "--overwrite"
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((quick_workspace / "evaluations" / "check" / "evaluation.json").read_text())
    inside = found["model"]
    assert inside["ce_clean"] < inside["ce_spliced"] < inside["ce_mean"]
    assert 0.8 < inside["ce_recovered"] <= 1
    shutil.rmtree(quick_workspace / "evaluations")


def test_serve_answers_and_ends_on_ctrl_c(quick_workspace):
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", "serve", str(quick_workspace), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://" in line)
        address = re.search(r"http://\S+", line)
        assert address
        with urllib.request.urlopen(address[0], timeout=30) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in (0, 130)
    finally:
        process.kill()


@pytest.mark.parametrize("source", sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py")), ids=lambda path: path.stem)
def test_notebook_runs_and_its_findings_hold(source, quick_workspace):
    from notebooks.build import execute

    execute(source, quick_workspace)
