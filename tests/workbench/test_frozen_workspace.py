"""A workspace that the version before schema 2 wrote: listed, opened, verified, served, resumed and extended.

`tests/fixtures/frozen_workspace.tar.gz` is never made again: it is what users of that version have.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from dashboard.app import create_app
from dashboard.components.pages import (
    artefact_key,
    atlas_href,
    changes_href,
    circuit_href,
    dynamics_href,
    feature_href,
    geometry_href,
    heads_href,
    sae_href,
)
from dashboard.dynamics import data as dynamics
from dashboard.geometry import data as geometry
from interp.artifacts import KINDS, MANIFEST, Manifest, read_json
from interp.circuits.circuit import Circuit
from interp.circuits.head_kinds import KINDS as HEAD_KINDS
from interp.lenses.tuned_lens import TunedLens
from interp.models.loading import load_model
from interp.recording.live import open_recording
from interp.workspace import Workspace
from saes.evaluation.reconstruction import evaluate_on_recording
from saes.weights.folder import load_sae
from workbench.__main__ import main
from workbench.verbs.evaluate import summary_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
sys.path.append(str(FIXTURES))
from visit import ERROR, Visitor  # noqa: E402

FROZEN = FIXTURES / "frozen_workspace.tar.gz"
FORMER = ("evaluations", "circuits", "geometry", "dynamics")
"""folders of schema 1 that held several shapes"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace, to be read only."""
    folder = tmp_path_factory.mktemp("frozen")
    with tarfile.open(FROZEN) as archive:
        archive.extractall(folder, filter="data")
    (manifest, *_) = sorted(folder.rglob(MANIFEST))
    return manifest.parents[2]


@pytest.fixture
def there(frozen: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace, from within: its artefacts name their models and texts by relative paths."""
    monkeypatch.chdir(frozen)
    return Workspace(".")


@pytest.fixture
def own(frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy to write into, from within."""
    shutil.copytree(frozen, tmp_path / "workspace")
    monkeypatch.chdir(tmp_path / "workspace")
    return Workspace(".")


def run(*words: str) -> int:
    """Run a verb in a process of its own, as a user would: the tests before it leave nothing behind that it meets."""
    environment = {**os.environ, "PYTHONPATH": str(FIXTURES.parents[1])}
    line = [sys.executable, "-m", "workbench", *words, "--threads", "1", "--workspace", "."]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment, check=False)
    sys.stderr.write(done.stderr)
    return done.returncode


def on_disk(workspace: Workspace, file: str) -> set[str]:
    return {path.parent.relative_to(workspace.root).as_posix() for path in workspace.root.glob(f"*/*/{file}")}


def test_every_folder_is_listed_under_a_kind_of_today(there: Workspace) -> None:
    assert there.broken() == []
    listed = [there.key(manifest) for manifest in there.artifacts()]
    assert sorted(listed) == sorted(on_disk(there, MANIFEST))
    found = {folder: {m.kind for m in there.artifacts() if there.key(m).startswith(folder)} for folder in FORMER}
    assert found == {
        "evaluations": {"evaluation", "sae_comparison", "size_law", "latent_comparison", "model_comparison"},
        "circuits": {"induction_circuit", "edge_circuit", "feature_circuit"},
        "geometry": {"word_geometry", "direction"},
        "dynamics": {"grokking", "induction_onset", "language_scaling"},
    }
    assert {manifest.schema_version for manifest in there.artifacts()} == {1}


def test_all_of_it_is_still_what_was_written(there: Workspace, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", "--workspace", "."]) == 0
    assert f"{len(there.artifacts())} artefacts checked, 0 damaged" in capsys.readouterr().out


def test_parents_that_are_here_are_found_with_the_hash_that_was_recorded(there: Workspace) -> None:
    named = 0
    for child in there.artifacts():
        for key, recorded in child.parents.items():
            if key in on_disk(there, MANIFEST):
                parent = there.find(key, *KINDS)
                assert child in there.children(parent.kind, parent.name)
                assert parent.content_hash == recorded, f"{there.key(child)} names {key}"
                named += 1
    assert named > 20


def rows(workspace: Workspace, manifest: Manifest, table: str, what: str = "count(*)") -> Any:
    """One number out of a table of an artefact."""
    path = workspace.table_path(manifest.kind, manifest.name, table)
    return workspace.query(f"select {what} as found from t", t=path)["found"][0].as_py()


def opened(workspace: Workspace, manifest: Manifest) -> tuple[Any, Any]:
    """What the artefact's own loader finds in it, and the same as the earlier version summed it up."""
    summary, path = manifest.summary, workspace.path(manifest.kind, manifest.name)
    match manifest.kind:
        case "recording":
            recording = open_recording(path)
            real = sum(len(recording.real_rows(shard)) for shard in range(recording.n_shards))
            return (real, list(recording.shard_rows)), (summary.get("n_real"), summary["shard_rows"])
        case "sae":
            sae = load_sae(path)
            return (sae.d_in, sae.d_sae, sae.hook_point), tuple(summary[key] for key in ("d_in", "d_sae", "hook_point"))
        case "features":
            found = (rows(workspace, manifest, "features"), rows(workspace, manifest, "features", "sum(n_fired = 0)"))
            return found, (summary["n_features"], summary["n_dead"])
        case "atlas":
            return rows(workspace, manifest, "points"), summary["n_points"]
        case "heads":
            found = {kind: rows(workspace, manifest, "heads", f"sum({kind}_found::int)") for kind in HEAD_KINDS}
            return found, {kind: summary[kind]["found"] for kind in HEAD_KINDS}
        case "evaluation":
            return summary_of(read_json(path / "evaluation.json")), summary
        case "sae_comparison":
            found = {f"fvu_{row['name']}": row["matched"]["fvu"] for row in read_json(path / "comparison.json")["rows"]}
            return found, {key: value for key, value in summary.items() if key.startswith("fvu_")}
        case "size_law":
            found = {f"exponent_k{e['k']}": e["value"] for e in read_json(path / "scaling.json")["exponents"]}
            return found, {key: value for key, value in summary.items() if key.startswith("exponent_")}
        case "latent_comparison":
            found = read_json(path / "difference.json")
            return (rows(workspace, manifest, "latents"), found), (summary["n_latents"], summary)
        case "model_comparison":
            return read_json(path / "changes.json")["summary"], summary
        case "induction_circuit" | "edge_circuit" | "feature_circuit":
            circuit = Circuit.load(path)
            return (len(circuit.nodes), len(circuit.edges)), (summary["n_nodes"], summary["n_edges"])
        case "lens":
            lens = TunedLens.load(path, load_model(manifest.config["model"]))
            return sorted(lens.weights), sorted(manifest.config["hook_points"])
        case "labels":
            return rows(workspace, manifest, "labels", "count(label)"), summary["n_labelled"]
        case "word_geometry":
            found = geometry.lists(workspace, manifest)
            return {name: each.verdict for name, each in found.items()}, {k: v["verdict"] for k, v in summary.items()}
        case "direction":
            found = geometry.direction(workspace, manifest)
            return (found.hook_point, found.set_apart), (summary["hook_point"], summary["set_apart"])
        case "grokking" | "induction_onset" | "language_scaling":
            found = dynamics.runs(manifest)
            steps = [len(dynamics.curves(workspace, manifest, run).steps) for run in found]
            return (len(found), min(steps) > 1), (len({str(run) for run in found}), True)
    raise AssertionError(f"nobody opens {manifest.kind}")


def test_every_artefact_opens_and_holds_what_was_found_then(there: Workspace) -> None:
    for manifest in there.artifacts():
        found, then = opened(there, manifest)
        assert found == then, there.key(manifest)


def test_dictionaries_reconstruct_as_they_did_up_to_rounding(there: Workspace) -> None:
    """Processors round products otherwise: 1e-7 where a live recording runs the model again."""
    checked = 0
    for manifest in there.artifacts("sae"):
        if "heldout" not in manifest.summary:
            continue
        sae, config = load_sae(there.path("sae", manifest.name)), manifest.config
        names = list(dict.fromkeys(key.partition("/")[2] for key in manifest.parents if key.startswith("recordings/")))
        recordings = [open_recording(there.path("recording", name)) for name in names]
        scores = evaluate_on_recording(
            sae,
            recordings[0] if len(recordings) == 1 else recordings,
            heldout_fraction=config["heldout_fraction"],
            seed=manifest.seed or 0,
        )
        assert scores.fvu == pytest.approx(manifest.summary["heldout"]["fvu"], rel=1e-6), manifest.name
        checked += 1
    assert checked > 15


@pytest.mark.parametrize(
    ("name", "sums"),
    [
        ("relu", [16.71986, 18.50466, 18.65627]),
        ("two", [9.464493, 9.724846, 9.560418]),
        ("sweep-d48-k4", [13.09769, 11.39652, 13.48319]),
        ("peer-sparsify-transcoder", [41.42825, 50.66217, 32.50858]),
    ],
)
def test_dictionaries_encode_as_the_earlier_version_did(there: Workspace, name: str, sums: list[float]) -> None:
    sae = load_sae(there.path("sae", name))
    x = 3 * torch.sin(torch.arange(3.0 * sae.d_in)).reshape(3, sae.d_in)
    assert sae.encode(x).sum(1).tolist() == pytest.approx(sums, rel=1e-4)


def addresses(manifest: Manifest) -> list[str]:
    """The pages that show an artefact."""
    shown: dict[str, Any] = {
        "sae": sae_href,
        "features": lambda name: feature_href(name, 0),
        "atlas": atlas_href,
        "heads": heads_href,
        **dict.fromkeys(("induction_circuit", "edge_circuit", "feature_circuit"), circuit_href),
        **dict.fromkeys(("word_geometry", "direction"), geometry_href),
        **dict.fromkeys(("model_comparison", "latent_comparison"), changes_href),
        **dict.fromkeys(("grokking", "induction_onset", "language_scaling"), dynamics_href),
    }
    return [shown[manifest.kind](manifest.name)] if manifest.kind in shown else []


def test_every_page_answers_on_its_own_and_for_each_artefact(there: Workspace) -> None:
    visitor = Visitor(create_app(there))
    pages = {each["path"] for each in visitor.pages} - {"/404"}
    for address in sorted(pages | {each for manifest in there.artifacts() for each in addresses(manifest)}):
        assert ERROR not in visitor.open(address), address


def test_a_visit_notices_damage_in_the_page_and_in_what_it_loads_afterwards(own: Workspace) -> None:
    address = changes_href("changes-tiny-tuned")
    assert ERROR not in Visitor(create_app(own)).open(address)
    (own.path("edge_circuit", "edges") / "circuit.json").write_text("{ cut")
    (own.path("model_comparison", "changes-tiny-tuned") / "changes.json").write_text("{ cut")
    visitor = Visitor(create_app(own))
    assert ERROR in visitor.open(circuit_href("edges"))
    assert ERROR in visitor.open(address)


def test_the_overview_and_the_pages_lead_to_every_artefact_of_a_kind_that_has_a_page(there: Workspace) -> None:
    visitor = Visitor(create_app(there))
    overview = visitor.open("/")
    assert [m.name for m in there.artifacts() if addresses(m) and m.name not in overview] == []
    circuits = visitor.open("/circuit")
    keys = {artefact_key(m) for m in there.newest("induction_circuit", "edge_circuit", "feature_circuit")}
    assert {key for key in keys if circuit_href(key) in circuits} == keys


@pytest.mark.parametrize("name", ["edges", "circuits/edges", "induction", "of-features"])
def test_circuits_are_shown_by_name_and_by_the_key_of_before(
    there: Workspace, name: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["circuit", "show", name, "--workspace", "."]) == 0
    assert "edges" in capsys.readouterr().out.splitlines()[0]


def test_unfinished_recordings_and_dictionaries_resume(own: Workspace, capsys: pytest.CaptureFixture) -> None:
    left = {(each.kind, each.name) for each in own.partials()}
    assert {("recording", "stopped"), ("recording", "stopped-live"), ("sae", "stopped")} <= left
    text = ("--corpus", "inputs/text.jsonl", "--tokens", "40000", "--context-length", "32")
    shards = read_json(own.root / "recordings" / "stopped.partial" / "status.json")["progress"]["shards"]
    assert run("record", "inputs/narrow", "--name", "stopped", *text, "--hook-points", "hook_embed") == 0
    assert shards == 1
    assert len(own.manifest("recording", "stopped").summary["shard_rows"]) == 2
    train = ("train", "text", "--name", "stopped", "--kind", "batchtopk", "--d-sae", "24", "--k", "4", "--hook-point")
    rest = ("blocks.0.hook_resid_post", "--tokens", "40000", "--heldout-fraction", "0.4", "--log-every", "40")
    before = (own.root / "saes" / "stopped.partial" / "log.jsonl").read_text().splitlines()
    assert run(*train, *rest, "--checkpoint-every", "40") == 0
    after = (own.path("sae", "stopped") / "log.jsonl").read_text().splitlines()
    assert before[:1] == after[:1], "the run went on where it stopped"
    assert main(["verify", "stopped", "--workspace", "."]) == 0


@pytest.mark.slow
def test_a_dictionary_features_and_a_map_are_made_of_what_is_there(own: Workspace) -> None:
    recording = own.manifest("recording", "text")
    options = ("--heldout-fraction", "0.4", "--tokens", "10000", "--hook-point", "blocks.0.hook_resid_post")
    assert run("train", "text", "--name", "new", "--kind", "topk", "--d-sae", "16", "--k", "2", *options) == 0
    assert own.manifest("sae", "new").parents["recordings/text"] == recording.content_hash
    assert run("features", "late", "--window", "5") == 0
    assert run("atlas", "sae:late", "--name", "late-map", "--n-neighbors", "5") == 0
    late = own.manifest("sae", "late")
    for kind, name in (("features", "late"), ("atlas", "late-map")):
        made = own.manifest(kind, name)
        assert made.schema_version > late.schema_version == 1
        assert made.parents["saes/late"] == late.content_hash
    assert {m.name for m in own.children("sae", "late")} >= {"late", "late-map"}
