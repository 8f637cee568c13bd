"""`workbench trace` from the command line."""

from interp.artifacts import verify
from interp.tracing.edges import BATCHES, VALUES, RowStore
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

TRACE = ("trace", "small:mlp-2l")
PROMPT = (*TRACE, "--prompt", "one two one")


def test_a_graph_is_an_artefact_with_its_scores_beside_their_floor(cli, tmp_path):
    shown = cli(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", 200, "--effects", 6)
    assert "No node has a label that holds." in shown
    assert "without any latent" in shown
    assert "The pruned graph alone keeps" in shown
    assert "200 of" in shown
    graph = Workspace(tmp_path).open(AttributionGraph, "mine")
    assert graph.about.parents == {"model:small:mlp-2l": graph.weight_hash}
    assert graph.run.residue < 1e-4
    assert [target.contrast is not None for target in graph.targets] == [True], "one contrast where none was asked for"
    assert sorted(path.name for path in (tmp_path / "graphs" / "mine").iterdir()) == [
        "edge_table.parquet", "effects.json", "manifest.json", "node_table.parquet",
        "sufficiency.json",
    ]  # fmt: skip
    assert "--overwrite" in cli(tmp_path, *PROMPT, "--name", "mine", code=2)


def test_the_model_is_frozen_once_for_the_graph_and_its_nulls(cli, tmp_path, monkeypatch):
    from interp.tracing.frozen import FrozenModel

    plain, frozen = FrozenModel.__post_init__, []
    monkeypatch.setattr(FrozenModel, "__post_init__", lambda self: (frozen.append(self), plain(self)))
    cli(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", 200, "--effects", 6)
    graph = Workspace(tmp_path).open(AttributionGraph, "mine")
    assert len(frozen) == 1
    assert graph.floor is not None


def interrupted_at(monkeypatch, add):
    """Let the process end, as by Ctrl-C, when rows are added to a store for the `add`-th time."""
    plain, calls = RowStore.add, []

    def stop(self, *rows):
        plain(self, *rows)
        calls.append(1)
        if len(calls) == add:
            raise KeyboardInterrupt

    monkeypatch.setattr(RowStore, "add", stop)


def test_an_interrupted_trace_leaves_its_first_picture_and_goes_on_to_the_same_graph(cli, tmp_path, monkeypatch):
    options = [*PROMPT, "--max-feature-nodes", "300", "--batch-size", "32", "--effects", "4"]
    assert "its tests follow" in cli(tmp_path, *options, "--name", "whole")
    workspace = Workspace(tmp_path)
    whole = workspace.open(AttributionGraph, "whole")
    assert not whole.first_picture
    with monkeypatch.context() as until:
        interrupted_at(until, 7)
        cli(tmp_path, *options, "--name", "twice", code=130)
    assert (tmp_path / "graphs" / "twice.partial" / VALUES).exists()
    picture = workspace.open(AttributionGraph, "twice")
    assert picture.first_picture
    assert "not tested yet" in picture.headline()
    assert picture.run.rows == BATCHES * 32 < whole.run.rows == 300
    assert (picture.targets, picture.scores, picture.effects) == (whole.targets, None, None)
    nodes = {node.id: node for node in whole.nodes}
    shared = [node for node in picture.nodes if node.id in nodes]
    assert len(shared) > 100
    assert [node.effects for node in shared] == [nodes[node.id].effects for node in shared]
    assert verify(picture.folder) == []
    assert "--overwrite" in cli(tmp_path, *options, "--seed", "1", "--name", "twice", code=2), "another trace"
    assert "its tests follow" not in cli(tmp_path, *options, "--name", "twice")
    one, other = (workspace.manifest("attribution_graph", name) for name in ("whole", "twice"))
    assert one.content_hash == other.content_hash
    assert sorted(path.name for path in (tmp_path / "graphs").iterdir()) == ["twice", "whole"]


def test_a_graph_that_is_replaced_stays_until_the_new_one_is_whole(cli, tmp_path, monkeypatch):
    options = [*PROMPT, "--max-feature-nodes", "200", "--batch-size", "32", "--effects", "4", "--name", "mine"]
    cli(tmp_path, *options)
    interrupted_at(monkeypatch, 7)
    cli(tmp_path, *options, "--overwrite", code=130)
    assert not Workspace(tmp_path).open(AttributionGraph, "mine").first_picture


def test_paraphrases_are_traced_for_the_same_answer_and_say_which_latents_return(cli, tmp_path, monkeypatch):
    few = ["--max-feature-nodes", 100, "--batch-size", 32, "--effects", 0, "--no-nulls", "--name", "mine"]
    options = [*PROMPT, *few, "--contrast", "o", "--paraphrase", "two one one", "one one two one"]
    with monkeypatch.context() as until:
        interrupted_at(until, 6)  # in the second graph
        assert "3 graphs, one after another" in cli(tmp_path, *options, code=130)
    workspace = Workspace(tmp_path)
    first = workspace.open(AttributionGraph, "mine")
    assert not first.first_picture
    said = cli(tmp_path, *options)
    assert "has this graph already" in said
    assert "Of 2 other graphs of the same answer a latent returns in" in said
    graphs = [workspace.open(AttributionGraph, name) for name in ("mine", "mine-2", "mine-3")]
    assert graphs[0].about.content_hash == first.about.content_hash
    assert [graph.prompt for graph in graphs] == ["one two one", "two one one", "one one two one"]
    assert {graph.targets[0] for graph in graphs} == {first.targets[0]}, "the answer that the first prompt chose"
    assert "--overwrite" in cli(tmp_path, *options, "--seed", 1, code=2), "other graphs have these names"
    assert "two of the wordings" in cli(tmp_path, *PROMPT, "--paraphrase", "one two one", code=2)
    assert "one token to explain" in cli(tmp_path, *options, "--max-logits", 3, code=2)


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


def test_a_graph_is_printed_written_and_read_back(cli, tmp_path):
    cli(tmp_path, *PROMPT, "--name", "mine", "--max-feature-nodes", 150, "--effects", 0)
    show = ("circuit", "show", "mine")
    assert "Attribution graph of 'one two one'" in cli(tmp_path, *show)
    assert "workbench why` says" in cli(tmp_path, *show, "--groups", code=2)
    file = tmp_path / "mine.json"
    cli(tmp_path, *show, "--export", file)
    cli(tmp_path, "import", file, "--name", "back")
    workspace = Workspace(tmp_path)
    one, other = (workspace.open(AttributionGraph, name) for name in ("mine", "back"))
    assert {node.id for node in one.nodes if node.kept} == {node.id for node in other.nodes}
    assert int(one.edges.kept.sum()) == len(other.edges)
    assert ".json" in cli(tmp_path, *show, "--export", tmp_path / "mine.pt", code=2)
