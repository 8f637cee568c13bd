"""`workbench trace` from the command line."""

from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

TRACE = ("trace", "small:mlp-2l")
PROMPT = (*TRACE, "--prompt", "one two one")


def test_a_graph_is_an_artefact_with_its_scores_beside_their_floor(cli, tmp_path):
    shown = cli(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", 200, "--effects", 6)
    assert "feature:0:" in shown
    assert "without any latent" in shown
    assert "200 of" in shown
    graph = Workspace(tmp_path).open(AttributionGraph, "mine")
    assert graph.about.parents == {"model:small:mlp-2l": graph.weight_hash}
    assert graph.run.residue < 1e-4
    assert [target.contrast is not None for target in graph.targets] == [True], "one contrast where none was asked for"
    assert sorted(path.name for path in (tmp_path / "graphs" / "mine").iterdir()) == [
        "edge_table.parquet", "effects.json", "groups.json", "manifest.json", "node_table.parquet",
    ]  # fmt: skip
    assert "--overwrite" in cli(tmp_path, *PROMPT, "--name", "mine", code=2)


def test_the_model_is_frozen_once_for_the_graph_its_nulls_and_its_groups(cli, tmp_path, monkeypatch):
    from interp.tracing.frozen import FrozenModel

    plain, frozen = FrozenModel.__post_init__, []
    monkeypatch.setattr(FrozenModel, "__post_init__", lambda self: (frozen.append(self), plain(self)))
    cli(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", 200, "--effects", 6)
    graph = Workspace(tmp_path).open(AttributionGraph, "mine")
    assert len(frozen) == 1
    assert None not in (graph.groups, graph.floor)


def test_an_interrupted_trace_goes_on_to_the_same_graph(cli, tmp_path, monkeypatch):
    import interp.tracing.edges as rows

    options = [*PROMPT, "--max-feature-nodes", "300", "--batch-size", "32", "--effects", "0"]
    cli(tmp_path, *options, "--name", "whole")
    plain, calls = rows.RowStore.add, []

    def stop(self, *found):
        plain(self, *found)
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(rows.RowStore, "add", stop)
    cli(tmp_path, *options, "--name", "twice", code=130)
    assert (tmp_path / "graphs" / "twice.partial" / rows.VALUES).exists()
    monkeypatch.setattr(rows.RowStore, "add", plain)
    cli(tmp_path, *options, "--name", "twice")
    whole, twice = (Workspace(tmp_path).manifest("attribution_graph", name) for name in ("whole", "twice"))
    assert whole.content_hash == twice.content_hash


def test_a_template_gives_intervals_over_its_words(cli, tmp_path):
    words = ["--template", "a=x", "b=y", "c=z"]
    few = ["--max-feature-nodes", "100", "--effects", "0", "--name", "words"]
    out = cli(tmp_path, *TRACE, "--prompt", "say {}", *words, *few)
    assert "flows between groups have an interval that excludes 0" in out
    workspace = Workspace(tmp_path)
    graph = workspace.open(AttributionGraph, "words")
    assert graph.settings.words == {"a": "x", "b": "y", "c": "z"}
    assert graph.prompt == "say a"
    assert {row.n for row in graph.flows.rows()} == {3}


def test_a_graph_is_printed_judged_written_and_read_back(cli, tmp_path):
    cli(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", 150, "--effects", 0)
    show = ("circuit", "show", "mine")
    assert "Attribution graph of 'one two one'" in cli(tmp_path, *show)
    assert "permuted" in cli(tmp_path, *show, "--groups")
    file = tmp_path / "mine.json"
    cli(tmp_path, *show, "--export", file)
    cli(tmp_path, "import", file, "--name", "back")
    workspace = Workspace(tmp_path)
    one, other = (workspace.open(AttributionGraph, name) for name in ("mine", "back"))
    assert {node.id for node in one.nodes if node.kept} == {node.id for node in other.nodes}
    assert int(one.edges.kept.sum()) == len(other.edges)
    assert ".json" in cli(tmp_path, *show, "--export", tmp_path / "mine.pt", code=2)
