"""The whole thing as a stranger meets it: the real model with the dictionary that ships, with one that `workbench own`
trains here, and with one from elsewhere."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from own_words import OWN

from interp import changes_of, graph_effects, intervene, load_model
from interp.artifacts import FOLDERS, open_artefact, verify
from interp.circuits.head_scores import HeadScores
from interp.recording.recorded import Recorded
from interp.recording.store import Recording
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes import graph_system
from saes.evaluation.evaluation import SAEEvaluation
from saes.training.stored import StoredSAE
from workbench.demo import DATA, shipped_artifacts

ROOT = Path(__file__).parent.parent
SHOWN = sorted(path.name for path in (DATA / "graphs").iterdir())
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


SHIPPED = set(shipped_artifacts())
TRAINED = {
    ("recording", "trained"),
    ("sae", "trained"),
    ("features", "trained"),
    ("evaluation", "trained"),
    ("heads", "trained"),
    ("atlas", "trained-features"),
}


def check_whole(folder: Path, expected: set[tuple[str, str]]) -> None:
    workspace = Workspace(folder)
    assert {(m.kind, m.name) for m in workspace.artifacts()} == expected
    assert not workspace.broken()
    assert not workspace.partials()
    for manifest in workspace.artifacts():
        assert verify(workspace.path(manifest.kind, manifest.name)) == []


def test_the_demo_unpacks_what_ships_and_adds_a_recording_and_a_proof(demo_workspace):
    made = {("recording", "demo"), ("heads_in_text", "smollm2-135m")}
    made |= {("induction_circuit", "induction-smollm2-135m")}
    check_whole(demo_workspace, SHIPPED | made)


def test_training_makes_every_artefact_from_nothing(trained_workspace):
    check_whole(trained_workspace, TRAINED)


def test_the_demo_proves_the_induction_circuit_of_the_real_model(demo_workspace):
    from interp.circuits.induction_circuit import InductionCircuit

    found = Workspace(demo_workspace).open(InductionCircuit, "induction-smollm2-135m")
    assert found.verdict.holds, found.verdict.reason
    edge = next(e for e in found.circuit.edges if (e.source, e.target, e.via) == ("L16H0", "L18H6", "k"))
    assert edge.score > 0.5, "one previous-token head carries most of the strongest induction head's score"


def test_a_prompt_is_traced_and_its_graph_predicts_the_model(tmp_path):
    words = ("--prompt", "The capital of France is", "--target", " Paris", "--contrast", " Rome", "--name", "capital")
    size = ("--max-feature-nodes", 1_000, "--edge-share", 0.8)
    result = workbench("trace", "smollm2-135m", *words, *size, "--workspace", tmp_path)
    assert result.returncode == 0, result.stderr
    graph = Workspace(tmp_path).open(AttributionGraph, "capital")
    assert graph.targets[0].label == " Paris -  Rome"
    assert graph.run.residue < 1e-4
    assert graph.scores.replacement > graph.floor.replacement + 0.1
    assert graph.effects.spearman.low > 0.3


@pytest.mark.parametrize("name", SHOWN)
def test_neurons_of_a_graph_that_ships_are_active_as_it_says(demo_workspace, name):
    workspace = Workspace(demo_workspace)
    graph = workspace.open(AttributionGraph, name)
    assert graph.effects.spearman.low > 0
    system = graph_system(graph, load_model("smollm2-135m", device="cpu"), workspace)
    columns = (system.layer, system.position, system.latent, system.activation)
    here = {(int(a), int(b), int(c)): float(value) for a, b, c, value in zip(*columns, strict=True)}
    for node in graph.nodes:
        if node.kind == "feature":
            assert here[node.layer, node.position, node.index] == pytest.approx(node.activation, rel=1e-3, abs=1e-4)


def test_latents_at_france_carry_the_answer_and_random_ones_do_not(demo_workspace):
    workspace = Workspace(demo_workspace)
    graph = workspace.open(AttributionGraph, "capital-of-France")
    system, effects = graph_system(graph, load_model("smollm2-135m", device="cpu"), workspace), graph_effects(graph)
    france = [
        i
        for i, node in enumerate(graph.nodes)
        if node.kind == "feature" and graph.token_texts[node.position] == " France" and effects[i] > 0
    ]
    group = [graph.nodes[i].id for i in sorted(france, key=lambda i: -effects[i])[:12]]
    ablated = intervene(system, changes_of(graph, group), graph)
    assert ablated.measured < 0
    assert ablated.predicted is not None
    assert ablated.predicted < 0
    assert ablated.p <= 0.05, ablated.headline()


def test_every_artefact_can_be_traced_to_the_model(trained_workspace):
    workspace = Workspace(trained_workspace)
    kind_of = {folder: kind for kind, folder in FOLDERS.items()}
    weight_hash = workspace.open(Recorded, "trained").settings.weight_hash
    for manifest in workspace.artifacts():
        assert manifest.parents, f"{manifest.kind} {manifest.name} names no parents"
        for key, value in manifest.parents.items():
            if key.startswith("model:"):
                assert value == weight_hash
            else:
                folder, name = key.split("/")
                assert value == workspace.manifest(kind_of[folder], name).content_hash


def test_what_ships_belongs_to_the_weights_that_are_here(demo_workspace):
    workspace = Workspace(demo_workspace)
    weight_hash = workspace.open(Recorded, "demo").settings.weight_hash
    for kind, name in sorted(SHIPPED):
        manifest = workspace.manifest(kind, name)
        assert all(value == weight_hash for key, value in manifest.parents.items() if key.startswith("model:"))
    for child in ("features", "evaluation"):
        parents = workspace.manifest(child, "demo").parents
        assert parents["saes/demo"] == workspace.manifest("sae", "demo").content_hash


def test_the_shipped_heads_are_those_that_are_measured_here(demo_workspace, trained_workspace):
    kinds = ("previous_token", "induction", "duplicate_token")
    found = []
    for folder, name in ((demo_workspace, "smollm2-135m"), (trained_workspace, "trained")):
        score = Workspace(folder).open(HeadScores, name).score
        found.append([score[kind] for kind in kinds])
    difference = abs(np.array(found[0]) - np.array(found[1]))
    assert difference.max() < 0.15, "fewer prompts, other numbers, the same heads"
    assert difference.mean() < 0.01


def test_a_dictionary_trained_here_explains_most_of_the_variance_of_unseen_documents(trained_workspace):
    heldout = Workspace(trained_workspace).open(StoredSAE, "trained").heldout
    assert heldout is not None
    assert heldout.n_tokens > 2_000
    assert heldout.fvu < 0.35  # a quarter of a million tokens seen; more tokens reach less than half of this
    assert heldout.l0 == pytest.approx(32, rel=0.25)


def test_smollm2_has_previous_token_and_induction_heads(trained_workspace):
    scores = Workspace(trained_workspace).open(HeadScores, "trained")
    assert scores.shape == (30, 9)
    for kind in ("previous_token", "induction"):
        found = [row for row in scores.of_kind(kind) if row.above_null]
        assert found
        assert max(row.score for row in found) > 0.5


@pytest.mark.parametrize(("words", "name", "n_found"), [(("demo",), "demo", 3), (OWN, "trained", len(TRAINED))])
def test_a_second_run_finds_everything(words, name, n_found, request):
    folder = request.getfixturevalue(f"{name}_workspace")
    again = workbench(*words, "--no-serve", "--workspace", folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("found ") == n_found
    assert "unpacked" not in again.stdout
    assert "tokens/s" not in again.stdout


@pytest.mark.parametrize("name", ["demo", "trained"])
def test_evaluate_puts_the_dictionary_into_the_model(name, request):
    folder = request.getfixturevalue(f"{name}_workspace")
    options = ("--recording", name, "--name", "check", "--contexts", "8", "--overwrite")
    result = workbench("evaluate", name, "--workspace", folder, *options)
    assert result.returncode == 0, result.stderr
    inside = open_artefact(SAEEvaluation, folder / "evaluations" / "check").in_model
    recording, sae = Recording(folder / "recordings" / name), open_artefact(StoredSAE, folder / "saes" / name)
    if not len(recording.contexts(split="heldout", heldout_fraction=sae.heldout_fraction)):
        assert name == "demo", "a dictionary trained on this text holds some of its contexts out"
        assert inside is None, "the text is that of the installed packages: it may hold no whole held-out context"
        shutil.rmtree(folder / "evaluations" / "check")
        return
    assert inside is not None
    assert inside.ce_recovered is not None
    assert inside.ce_spliced < inside.ce_mean
    assert 0.8 < inside.ce_recovered < 1.05, "on a thousand tokens a good dictionary may seem to help"
    assert inside.kl_spliced > 0.01
    shutil.rmtree(folder / "evaluations" / "check")


def test_another_dictionary_is_described_and_mapped_as_the_one_that_ships(demo_workspace, tmp_path):
    point = "blocks.9.hook_resid_post"
    for words in (
        ("import", demo_workspace / "saes" / "demo", "--model", "smollm2-135m", "--name", "theirs"),
        ("record", "smollm2-135m", "--name", "here", "--hook-points", point, "--tokens", 20_000),
        ("features", "theirs", "--recording", "here"),
        ("atlas", "sae:theirs", "--name", "map"),
    ):
        result = workbench(*words, "--workspace", tmp_path)
        assert result.returncode == 0, result.stderr
    check_whole(tmp_path, {("sae", "theirs"), ("recording", "here"), ("features", "theirs"), ("atlas", "map")})


def test_serve_answers_and_ends_on_ctrl_c(demo_workspace):
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", "serve", str(demo_workspace), "--no-browser"],
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
