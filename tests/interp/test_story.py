"""Stories of graphs: planted concepts become boxes and shuffled labels do not; shares are those of paths."""

from dataclasses import replace

import numpy as np
import pytest

from interp.tracing.graph import AttributionGraph, GraphEdges, GraphNode, GraphTarget
from interp.tracing.story import NodeWords, tell, words_of
from tests.interp.tracing_graphs import small_graph

CITY, FRENCH = ("city", "town", "cities"), ("French", "Gallic", "Bois")
MEMBERS = 4


def vectors(words):
    """Two concepts, each along an axis of its own, and other words along random axes."""
    rng, rows = np.random.default_rng(3), np.zeros((len(words), 40))
    known = [{"city", "town", "cities", "capital"}, {"French", "Gallic", "Bois", "Paris", "France"}]
    for row, word in zip(rows, words, strict=True):
        axis = next((i for i, concept in enumerate(known) if word in concept), None)
        row[axis if axis is not None else 2 + rng.integers(38)] = 1
    return rows


def planted(seed: int = 0) -> tuple[AttributionGraph, dict[int, NodeWords]]:
    """Return "The capital of France is" with latents of two concepts at their words and on the last token.

    Each word feeds `MEMBERS` latents of its concept at its position (layers 2 to 5), these feed as many of the same
    concept on the last token (layers 6 to 9), and they the target. As many latents without a meaning, and
    errors, lie beside.
    """
    rng = np.random.default_rng(seed)
    texts = ("<s>", "The", " capital", " of", " France", " is")
    nodes = [GraphNode("token", -1, position, 10 + position) for position in range(6)]
    words, links = {}, []
    last: list[int] = []
    for place, said in ((2, CITY), (4, FRENCH)):
        first = []
        for layer in range(2, 2 + MEMBERS):
            first.append(len(nodes))
            nodes.append(GraphNode("feature", layer, place, len(nodes), 1.0, effects=(0.5,)))
            links.append((place, first[-1], 1.0))
        for layer in range(6, 6 + MEMBERS):
            links += [(one, len(nodes), 1.0) for one in first]
            last.append(len(nodes))
            nodes.append(GraphNode("feature", layer, 5, len(nodes), 1.0, effects=(1.0,)))
        for i in (*first, *last[-MEMBERS:]):
            words[i] = NodeWords((said[i % 3],), tuple(said[(i + 1) % 3 :][:1]))
    for other in range(4 * MEMBERS):
        place, layer = int(rng.choice([2, 4, 5])), int(2 + other % 8)
        words[len(nodes)] = NodeWords((f"thing{other}",))
        links.append((place, len(nodes), 1.0))
        if place == 5:
            last.append(len(nodes))
        nodes.append(GraphNode("feature", layer, place, len(nodes), 1.0, effects=(0.1,)))
    errors = [len(nodes), len(nodes) + 1]
    nodes += [GraphNode("error", 3, 5, -1, effects=(0.0,)), GraphNode("error", 7, 5, -1, effects=(0.0,))]
    aim = len(nodes)
    nodes.append(GraphNode("logit", 10, 5, 0, probability=1.0))
    links += [(one, aim, 1.0) for one in (*last, *errors)]
    source, target, weight = zip(*links, strict=True)
    ones = np.ones(len(links))
    edges = GraphEdges(np.array(source), np.array(target), np.array(weight, np.float32), ones, ones.astype(bool))
    graph = small_graph().with_parts(nodes=nodes, edges=edges)
    aims = (GraphTarget(" Paris -  Rome", 5, 6),)
    settings = replace(graph.settings, tokens=tuple(range(10, 16)))
    return replace(graph, n_layers=10, token_texts=texts, targets=aims, settings=settings, groups=None), words


def shuffled(graph: AttributionGraph, words: dict[int, NodeWords], seed: int) -> dict[int, NodeWords]:
    """Return words permuted among the latents of each layer."""
    rng, mixed = np.random.default_rng(seed), {}
    for layer in {graph.nodes[i].layer for i in words}:
        at = [i for i in words if graph.nodes[i].layer == layer]
        mixed |= {i: words[at[j]] for i, j in zip(at, rng.permutation(len(at)), strict=True)}
    return mixed


def planted_boxes(graph: AttributionGraph, words: dict[int, NodeWords], truth: dict[int, NodeWords]) -> int:
    """Return the number of boxes that are exactly the members of a planted concept at a position."""
    groups = [
        {i for i in truth if graph.nodes[i].position == place and set(truth[i].all) & set(said)}
        for place, said in ((2, CITY), (4, FRENCH), (5, CITY), (5, FRENCH))
    ]
    story = tell(graph, words, vectors=vectors)
    return sum(set(box.nodes) in groups for box in story.boxes)


def test_planted_concepts_are_boxes_and_shuffled_labels_are_not():
    graph, words = planted()
    story = tell(graph, words, vectors=vectors)
    told = [box for box in story.boxes if box.kind in ("concept", "output")]
    assert [(box.position, len(box.nodes)) for box in told] == [(2, 4), (4, 4), (5, 4), (5, 4)]
    assert [set(box.name.removeprefix("say ").split(", ")) <= {*CITY, *FRENCH} for box in told] == [True] * 4
    assert [box.name for box in story.boxes if box.kind == "token"] == ["capital", "France"]
    assert story.boxes[-1].name == "Paris rather than Rome"
    assert any(f"*France* calls up “{word}”" in story.sentence for word in FRENCH)
    assert len(story.sentence.split()) <= 25
    arrows = {(story.boxes[one.source].position, story.boxes[one.target].position) for one in story.arrows}
    assert {(2, 5), (4, 5), (5, 5)} <= arrows
    assert planted_boxes(graph, words, words) == 4
    assert np.mean([planted_boxes(graph, shuffled(graph, words, seed), words) for seed in range(20)]) < 0.2


def test_shares_are_those_of_paths_through_boxes():
    """A third of the walks goes through each planted concept of the last token but for what lies beside."""
    graph, words = planted()
    story = tell(graph, words, vectors=vectors)
    into = np.flatnonzero(graph.edges.target == len(graph.nodes) - 1)
    for box in (box for box in story.boxes if box.position == 5 and box.kind in ("concept", "output")):
        assert box.share == pytest.approx(MEMBERS / len(into))
        assert box.effect == pytest.approx(MEMBERS)
    errors = sum(node.kind == "error" for node in graph.nodes)
    beside = [i for i in words if words[i].reads[0].startswith("thing") and graph.nodes[i].position == 5]
    [other] = [box for box in story.boxes if box.kind == "other"]
    assert set(other.nodes) == set(beside)
    assert other.share == pytest.approx(len(beside) / len(into))
    assert story.left_out == pytest.approx(errors / len(into))
    assert story.boxes[-1].share == 1


def test_a_path_leads_from_every_box_to_the_answer():
    """Latents of the last token take almost all from a word itself, so that the arrows of its concepts are small."""
    graph, words = planted()
    edges, late = graph.edges, [i for i in words if graph.nodes[i].position == 5]
    from_concepts = np.isin(edges.source, [i for i in words if graph.nodes[i].position in (2, 4)])
    n, france = len(late), 4
    edges = GraphEdges(
        np.append(edges.source, [france] * n),
        np.append(edges.target, late),
        np.append(np.where(from_concepts, 1e-3, 1) * edges.weight, np.ones(n)).astype(np.float32),
        np.append(edges.share, np.ones(n)),
        np.append(edges.kept, np.ones(n, bool)),
    )
    story = tell(graph.with_parts(edges=edges), words, vectors=vectors)
    reach = {len(story.boxes) - 1}
    for _ in story.boxes:
        reach |= {arrow.source for arrow in story.arrows if arrow.target in reach}
    assert reach == set(range(len(story.boxes)))
    assert {box.position for box in story.boxes if box.kind == "concept"} >= {2, 4}


def test_a_concept_of_several_words_is_one_box():
    graph, words = planted()
    same = {
        i: CITY if graph.nodes[i].position in (2, 4) else () for i in words if words[i].reads[0] in (*CITY, *FRENCH)
    }
    story = tell(
        graph, words | {i: NodeWords(said[:1], said[1:2]) for i, said in same.items() if said}, vectors=vectors
    )
    [box] = [box for box in story.boxes if box.kind == "concept" and box.position < 5]
    assert {graph.nodes[i].position for i in box.nodes} == {2, 4}


def test_latents_of_the_last_token_that_lead_other_prompts_are_one_box():
    graph, words = planted()
    beside = [i for i in words if words[i].reads[0].startswith("thing") and graph.nodes[i].position == 5]
    story = tell(graph, words, usual=dict.fromkeys(beside, 0.2), vectors=vectors)
    [general] = [box for box in story.boxes if box.kind == "general"]
    assert (general.name, general.nodes) == ("at *is*: general", tuple(beside))
    # what leads other prompts as much as this one is never a concept
    lead = {i: 1.0 for i in words if graph.nodes[i].position == 5}
    kinds = [box.kind for box in tell(graph, words, usual=lead, vectors=vectors).boxes if box.position == 5]
    assert kinds == ["general", "answer"]


def test_without_vectors_only_forms_of_a_word_are_alike():
    graph, words = planted()
    said = {i: replace(each, reads=("city",), says=("cities",)) for i, each in words.items() if "city" in each.all}
    boxes = tell(graph, said).boxes
    assert {box.name for box in boxes if box.kind in ("concept", "output")} == {"city", "say cities"}
    assert not [box for box in tell(graph, {}).boxes if box.kind in ("concept", "output")]


def test_members_that_act_against_each_other_on_the_last_token_are_two_boxes():
    graph, words = planted()
    late = [i for i in words if graph.nodes[i].position == 5 and set(words[i].all) & set(FRENCH)]
    nodes = [replace(node, effects=(-2.0,)) if i == late[-1] else node for i, node in enumerate(graph.nodes)]
    boxes = [
        box for box in tell(graph.with_parts(nodes=nodes), words, vectors=vectors).boxes if set(box.nodes) & set(late)
    ]
    assert sorted(np.sign(box.effect) for box in boxes) == [-1, 1]
    assert [box.name.endswith(", against") for box in boxes] == [box.effect < 0 for box in boxes]
    story = tell(graph.with_parts(nodes=nodes), words, vectors=vectors)
    into = {
        story.boxes[one.source].name: one.weight for one in story.arrows if story.boxes[one.target].kind == "answer"
    }
    assert {name.endswith(", against") for name, weight in into.items() if weight < 0} == {True}


def test_a_graph_without_targets_has_no_story_and_one_without_latents_has_its_words():
    graph, words = planted()
    assert tell(replace(graph, targets=()), words) is None
    assert tell(graph.with_parts(nodes=[node for node in graph.nodes if node.kind != "logit"]), words) is None
    bare = tell(small_graph(), {})
    assert bare is not None
    assert 0 <= bare.left_out <= 1
    assert "through no concept" in bare.sentence


@pytest.mark.parametrize(
    ("label", "reads", "says"),
    [
        ('" Paris" in any form (98 %)', ("Paris",), ()),
        ('often before " city" (27 %)', (), ("city",)),
        ('raises " gold", "Gold", " Coin"', (), ("gold", "Coin")),
        ('near words like "city", "center" (85 %)', ("city", "center"), ()),
        ("in sampled French docs (98 %)", ("French",), ()),
        ("in King James Bible docs (70 %)", (), ()),
        ("adjective of country (57 %)", ("country",), ()),
        ("past form (98 %)", (), ()),
        ("first piece of a longer word (60 %)", (), ()),
        ('"to" in any form (90 %)', (), ()),
        ('no label; fires on " Paris"', (), ()),
        ("recipes and dishes", ("recipes and dishes",), ()),
    ],
)
def test_words_of_labels_are_meanings_and_not_grammar(label, reads, says):
    assert words_of(label) == NodeWords(reads, says)
    assert words_of(label, (" wood", ".", "<0x0A>", " of")).says == (*says, "wood")
