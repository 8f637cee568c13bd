"""`record --hook-points mlps`, `train --set`, `features --set`: from text to a table for every layer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sealing import seal

from dashboard.sae.data import entries, log_path, read_log
from interp.artifacts import verify
from interp.models.loading import load_model
from interp.workspace import Workspace
from saes.acts.run import Run
from saes.features.proof import Proof
from saes.features.schema import Features
from saes.sets import open_set
from saes.sets.stored import StoredSet
from workbench.__main__ import main

SIZES = ["--d-sae", "40", "--k", "5", "--tokens", "4096", "--batch-size", "256", "--heldout-fraction", "0.3"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("sets")
    pages = [f"page {i}: a quick fox and {i * 7 % 13} lazy dogs sleep near {i * 5 % 11} hens" for i in range(200)]
    (root / "text.jsonl").write_text("\n".join(json.dumps({"text": page}) for page in pages))
    text = ["--corpus", str(root / "text.jsonl"), "--tokens", "6000", "--context-length", "32"]
    place = ["--workspace", str(root / "ws")]
    assert main(["record", "small:mlp-2l", "--name", "mlps", "--live", "--hook-points", "mlps", *text, *place]) == 0
    assert main(["train", "mlps", "--set", "mine", "--skip", *SIZES, *place]) == 0
    return Workspace(root / "ws")


def test_a_set_and_its_tables_are_made_and_name_each_other(cli, workspace: Workspace):
    found, stored = open_set(workspace, "mine"), workspace.open(StoredSet, "mine")
    assert stored.scores is not None
    assert found.layers == (0, 1)
    assert found.skip(1) is not None
    assert stored.scores.fvu < 1
    assert set(stored.about.parents) == {"recordings/mlps", "model:small:mlp-2l"}
    assert "of 40 latents in layer 1 of the set mine" in " ".join(cli(workspace, "features", "--set", "mine").split())
    for layer in found.layers:
        table = workspace.open(Features, f"mine-{layer}")
        assert verify(workspace.path("features", table.name)) == []
        assert table.about.parents["transcoders/mine"] == stored.about.content_hash
        assert table.dictionary == f"transcoders:mine:{layer}"
        assert table.settings.hook_point == f"blocks.{layer}.mlp.hook_in"
        path = workspace.table_path("features", table.name, "features")
        rows = workspace.query("select * from f order by feature", f=path).to_pylist()
        assert len(rows) == 40
        assert all(len(row["promoted_tokens"]) for row in rows)  # what a transcoder writes lies in the stream
        density = stored.scores.layers[layer].l0 / 40
        assert sum(row["density"] for row in rows) / 40 == pytest.approx(density, rel=0.25)  # of all text


def test_a_latent_of_a_set_is_proved_and_an_untrained_model_proves_nothing(cli, workspace: Workspace):
    path = workspace.table_path("features", "mine-1", "features")
    latent = workspace.query("select feature from f where n_fired > 50 order by feature", f=path)["feature"][0].as_py()
    quick = ["--draws", "9", "--examples", "2", "--others", "4", "--new-tokens", "2"]
    assert f"Feature {latent}: " in cli(workspace, "prove", "mine-1", "--feature", latent, *quick)
    made = workspace.open(Proof, f"mine-1-{latent}")
    assert made.about.parents["transcoders/mine"] == workspace.manifest("transcoders", "mine").content_hash
    assert made.verdict().startswith(("Undecided", "Nothing is proved")), made.verdict()
    assert min(made.p_holm().values()) > 0.05
    on_the_page, _ = Run(workspace).feature("mine-1", latent, load_model("small:mlp-2l"))
    assert (on_the_page.reads, on_the_page.writes) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert on_the_page.directions.equal(open_set(workspace, "mine").directions(1, 1))


def test_verify_reads_the_log_of_every_layer(cli, workspace: Workspace):
    assert "ok       transcoders/mine\n" in cli(workspace, "verify", "transcoders/mine")  # rows compared, too
    folder = workspace.path("transcoders", "mine")
    log, manifest = folder / "runs" / "layer_1" / "log.jsonl", folder / "manifest.json"
    kept = log.read_text(), manifest.read_text()
    lines = [json.loads(line) for line in kept[0].splitlines()]
    try:
        for name, more, problem in (("tokens", 256, "the manifest says"), ("rows", 1, "not those that one process")):
            changed = [*lines[:-1], lines[-1] | {name: lines[-1][name] + more}]
            log.write_text("".join(json.dumps(each) + "\n" for each in changed))
            seal(folder)
            said = cli(workspace, "verify", "transcoders/mine", code=1)
            assert "DAMAGED  transcoders/mine" in said
            assert f"runs/layer_1/{log.name}" in said
            assert problem in said
    finally:
        log.write_text(kept[0])
        manifest.write_text(kept[1])


@pytest.mark.slow  # that ranks share the work of one dictionary is quick to test: tests/saes/test_ranks.py
def test_two_ranks_train_the_set_of_one_process(workspace: Workspace):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    train = ["train", "mlps", "--set", "two", "--skip", *SIZES, "--workspace", str(workspace.root)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    done = subprocess.run(
        [*torchrun, "-m", "workbench", *train], env=quiet, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (open_set(workspace, name) for name in ("mine", "two"))
    alone, together = (workspace.open(StoredSet, name) for name in ("mine", "two"))
    assert together.training is not None
    assert together.training.ranks == {"tokens": 2, "latents": 1}
    assert alone.scores is not None
    assert together.scores is not None
    assert together.scores.fvu == pytest.approx(alone.scores.fvu, abs=2e-3)
    for layer in one.layers:
        a, b = (each.directions(layer, layer) for each in (one, two))
        assert torch.nn.functional.cosine_similarity(a, b).min() > 0.999


def test_the_page_of_dictionaries_shows_every_layer(workspace: Workspace):
    found = {entry.name: entry for entry in entries(workspace)}
    assert {"mine.layer-0", "mine.layer-1"} <= found.keys()
    stored = workspace.open(StoredSet, "mine")
    assert stored.scores is not None
    assert found["mine.layer-1"].scores == stored.scores.layers[1]
    assert found["mine.layer-1"].hook_point == "blocks.1.mlp.hook_in"
    lines = read_log(log_path(workspace, found["mine.layer-1"])).rows
    assert lines[-1]["tokens"] == 4096
    again = ["train", "mlps", "--set", "cut", "--log-every", "1", *SIZES]
    code = "import sys; from workbench.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *again, "--workspace", str(workspace.root)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = workspace.root / "transcoders" / "cut.partial" / "runs" / "layer_1.partial" / "log.jsonl"
    while process.poll() is None and not log.exists():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    running = next(entry for entry in entries(workspace) if entry.name == "cut.layer-1")
    assert running.unfinished
    assert read_log(log_path(workspace, running)).rows


def test_a_cross_layer_set_has_tables_too(cli, workspace: Workspace):
    cli(workspace, "train", "mlps", "--set", "across", "--cross-layer", "--kind", "batchtopk", *SIZES)
    assert open_set(workspace, "across").targets(0) == (0, 1)
    cli(workspace, "features", "--set", "across")
    assert workspace.open(Features, "across-1").n_features == 40


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", "mlps", "--set", "x", "--d-sae", "8", "16"], "a set has one value"),
        (["train", "mlps", "--set", "x", "--kind", "crosscoder"], "kind of a set's latents"),
        (["train", "mlps", "--set", "x", "--cross-layer", "--kind", "topk"], "kind of a cross-layer set's latents"),
        (["train", "mlps", "--set", "x", "--name", "y"], "--set as its name"),
        (["train", "mlps", "--set", "mine", *SIZES], "already there"),
        (["train", "mlps", "--set", "x", "--d-sae", "8", "--k", "2", "--heldout-fraction", "0.0001"], "is held out"),
        (["features", "--set", "mina"], "mine"),
        (["features"], "features need a dictionary"),
        (["features", "--set", "mine", "--recording", "mlps", "mine"], "features need a dictionary"),
    ],
)
def test_mistakes_are_one_line(cli, workspace: Workspace, words: list[str], reason: str):
    assert reason in cli(workspace, *words, code=2)
    assert not Path(workspace.root / "transcoders" / "x.partial").exists()
