"""`workbench trace` from the command line."""

import pytest

from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from workbench.__main__ import main

PROMPT = ["--prompt", "one two one"]


def traced(folder, *more: str, model: str = "small:mlp-2l") -> int:
    return main(["trace", model, *more, "--workspace", str(folder)])


def test_a_graph_is_an_artefact_with_its_scores_beside_their_floor(tmp_path, capsys):
    assert traced(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", "200", "--effects", "6") == 0
    shown = capsys.readouterr().out
    assert "feature:0:" in shown
    assert "without any latent" in shown
    assert "200 of" in shown
    graph = Workspace(tmp_path).open(AttributionGraph, "mine")
    assert graph.about.parents == {"model:small:mlp-2l": graph.weight_hash}
    assert graph.run.residue < 1e-4
    assert sorted(path.name for path in (tmp_path / "graphs" / "mine").iterdir()) == [
        "edge_table.parquet", "effects.json", "groups.json", "manifest.json", "node_table.parquet",
    ]  # fmt: skip
    assert traced(tmp_path, *PROMPT, "--name", "mine") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_an_interrupted_trace_goes_on_to_the_same_graph(tmp_path, monkeypatch):
    import interp.tracing.edges as rows

    options = [*PROMPT, "--max-feature-nodes", "300", "--batch-size", "32", "--effects", "0"]
    assert traced(tmp_path, *options, "--name", "whole") == 0
    plain, calls = rows.RowStore.add, []

    def stop(self, *found):
        plain(self, *found)
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(rows.RowStore, "add", stop)
    assert traced(tmp_path, *options, "--name", "twice") == 130
    assert (tmp_path / "graphs" / "twice.partial" / rows.VALUES).exists()
    monkeypatch.setattr(rows.RowStore, "add", plain)
    assert traced(tmp_path, *options, "--name", "twice") == 0
    whole, twice = (Workspace(tmp_path).manifest("attribution_graph", name) for name in ("whole", "twice"))
    assert whole.content_hash == twice.content_hash


def test_a_template_gives_intervals_over_its_words(tmp_path, capsys):
    words = ["--template", "a=x", "b=y", "c=z"]
    few = ["--max-feature-nodes", "100", "--effects", "0", "--name", "words"]
    assert traced(tmp_path, "--prompt", "say {}", *words, *few) == 0
    assert "flows between groups have an interval that excludes 0" in capsys.readouterr().out
    workspace = Workspace(tmp_path)
    graph = workspace.open(AttributionGraph, "words")
    assert graph.settings.words == {"a": "x", "b": "y", "c": "z"}
    assert graph.prompt == "say a"
    assert {row.n for row in graph.flows.rows()} == {3}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([*PROMPT, "--target", "two"], "is 3"),
        ([*PROMPT, "--contrast", "a"], "add --target"),
        (["--prompt", ""], "empty"),
        ([*PROMPT, "--set", "none"], "none"),
        ([*PROMPT, "--node-share", "0"], "node_share"),
        ([*PROMPT, "--target", "feature:0:1:99999"], "not active"),
        ([*PROMPT, "--template", "a=b"], "where the words go"),
        (["--prompt", "say {}", "--template", "a"], "WORD=TARGET"),
        (["--prompt", "say {}", "--template", "a=b"], "at least 3 words"),
    ],
)
def test_what_cannot_be_traced_is_one_line(tmp_path, capsys, options, says):
    assert traced(tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("graphs/*"))


def test_a_graph_is_printed_judged_written_and_read_back(tmp_path, capsys):
    assert traced(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", "150", "--effects", "0") == 0
    show = ["circuit", "show", "mine", "--workspace", str(tmp_path)]
    assert main(show) == 0
    assert "Attribution graph of 'one two one'" in capsys.readouterr().out
    assert main([*show, "--groups"]) == 0
    said = capsys.readouterr().out
    assert "permuted" in said
    file = tmp_path / "mine.json"
    assert main([*show, "--export", str(file)]) == 0
    assert main(["import", str(file), "--name", "back", "--workspace", str(tmp_path)]) == 0
    workspace = Workspace(tmp_path)
    one, other = (workspace.open(AttributionGraph, name) for name in ("mine", "back"))
    assert {node.id for node in one.nodes if node.kept} == {node.id for node in other.nodes}
    assert int(one.edges.kept.sum()) == len(other.edges)
    assert main([*show, "--export", str(tmp_path / "mine.pt")]) == 2
    assert ".json" in capsys.readouterr().err


def test_a_model_without_mlps_says_so(tmp_path, capsys):
    assert traced(tmp_path, *PROMPT, model="small:attn-only-1l") == 2
    assert "no MLPs" in capsys.readouterr().err
