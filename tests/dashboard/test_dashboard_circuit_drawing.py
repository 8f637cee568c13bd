"""A circuit as the browser draws it: rows and columns of nodes, what is shown for a number of edges, colours."""

from dataclasses import replace

import pytest
from make_circuits import induction_circuit

from dashboard.circuit._drawing import VIAS, CircuitView, colours, content, part
from dashboard.figures.theme import DARK, LIGHT
from interp.circuits.circuit import Circuit, Edge, Node
from interp.circuits.found_circuit import FoundCircuit


def circuit_of(edges: list[Edge], nodes: tuple[Node, ...] = (), tokens: tuple[str, ...] = ("a", "b")) -> FoundCircuit:
    """Return a circuit of these edges alone, without a scored graph."""
    return replace(induction_circuit("m", 6, 4, [*tokens]), circuit=Circuit.of("m", "h", edges, nodes))


def spots(found: FoundCircuit) -> dict[str, tuple[int, int]]:
    """Return the row and the column of each node."""
    nodes = content(found)["nodes"]
    return dict(zip(nodes["id"], zip(nodes["layer"], nodes["position"], strict=True), strict=True))


@pytest.mark.parametrize("n", [1, 30, 400])
@pytest.mark.parametrize("paths", [False, True])
def test_a_part_holds_the_strongest_edges_and_exactly_their_nodes(ioi, n, paths):
    found, scored = ioi
    whole, shown = content(found), part(found, CircuitView(n, paths))
    edges, nodes = whole["edges"], whole["nodes"]["id"]
    assert len(set(edges["id"])) == len(edges["id"])
    assert len(set(nodes)) == len(nodes)
    assert {edges["id"][e] for e in shown["edges"]} == {row.id for row in scored.strongest(n, paths=paths)}
    assert set(shown["nodes"]) == {edges[end][e] for e in shown["edges"] for end in ("source", "target")}
    assert shown["said"].startswith(f"{len(shown['edges'])} of 1,108" if shown["edges"] else "No edge")


def test_layers_are_rows_from_below_and_heads_are_columns(ioi):
    at = spots(ioi[0])
    rows = [at[name][0] for name in ("embed", "L0H1", "L3H1", "L5MLP", "logits")]
    assert rows == sorted(set(rows))
    assert len({at[f"L2H{h}"][0] for h in range(4)}) == 1
    assert len({at[f"L{i}H1"][1] for i in range(6)}) == 1
    assert at["L2H0"][1] < at["L2H1"][1] < at["L2H3"][1] < at["L2MLP"][1]
    assert content(ioi[0])["tokens"] == ["head 0", "head 1", "head 2", "head 3", "MLP"]
    assert content(ioi[0])["rows"] == ["embed", "L0", "L1", "L2", "L3", "L4", "L5"]


def test_no_two_heads_share_a_cell(ioi):
    at = [spot for name, spot in spots(ioi[0]).items() if name not in ("embed", "logits")]
    assert len(set(at)) == len(at)


def test_only_rows_and_columns_in_use_take_room():
    found = circuit_of([Edge("L2H5", "L9H7", "k", score=1.0)])
    assert spots(found) == {"L2H5": (0, 0), "L9H7": (1, 1)}
    assert content(found)["rows"] == ["embed", "L2", "L9"]


def test_positions_become_columns_named_by_their_tokens():
    edges = [
        Edge("embed", "L0H0", "k", position=1),
        Edge("L0H0", "L1H0", "k", position=2),
        Edge("L0H0", "logits", position=2),
    ]
    found = circuit_of(edges, tokens=("a", "b", "<script>"))
    at = spots(found)
    assert at["L0H0@1"][1] < at["L0H0@2"][1] == at["logits@2"][1]
    assert content(found)["tokens"] == ["1 b", "2 <script>"]


def test_heads_at_several_positions_are_joined():
    edges = [Edge("embed", "L0H0", "k", position=1), Edge("L0H0", "logits", position=4)]
    found = circuit_of(edges)
    nodes = content(found)["nodes"]["id"]
    joined = part(found, CircuitView())["joined"]
    assert [[nodes[i] for i in pair] for pair in joined] == [["L0H0@1", "L0H0@4"]]


def test_a_circuit_as_found_shows_nodes_that_no_edge_touches():
    found = circuit_of([Edge("L0H0", "L1H0", "k", score=1.0)], (Node("L0H0"), Node("L1H0"), Node("L3H3")))
    assert len(part(found, CircuitView())["nodes"]) == 3
    assert len(part(found, CircuitView(1))["nodes"]) == 2


def test_an_edge_carries_its_score_and_its_input():
    edges = [Edge("L0H0", "L1H0", "q", score=2.0), Edge("L0H1", "L1H0", "v", score=-1.0), Edge("L0H2", "logits")]
    whole = content(circuit_of(edges))
    drawn = zip(*(whole["edges"][name] for name in ("id", "weight", "via")), strict=True)
    assert set(drawn) == {("L0H0-q-L1H0", 2.0, 0), ("L0H1-v-L1H0", -1.0, 2), ("L0H2--logits", 0.0, 3)}
    assert VIAS[3] == "other"
    assert set(whole["nodes"]["input"]) == {2.0}, "a width is a share of the largest score"


def test_roles_are_numbered_as_their_colours():
    found = induction_circuit("m", 6, 4, ["a", "b"])
    whole = content(found)
    roles = dict(zip(whole["nodes"]["id"], whole["nodes"]["role"], strict=True))
    assert whole["roles"] == ["induction", "previous token"]
    assert (roles["L4H1"], roles["L5H3"], roles["L1H2"], roles["L3H0"]) == (0, 0, 1, -1)
    assert len(colours(LIGHT, ["previous_token", "induction", "induction"])["roles"]) == 2


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_inputs_and_roles_never_share_a_colour(theme):
    look = colours(theme, ["induction", "previous_token", "something", "else"])
    lines = [colour for colour, dash in look["lines"] if not dash]
    assert len(lines) == len(VIAS)
    assert len({*lines, *look["roles"]}) == len(lines) + len(look["roles"])
    assert len(look["lines"]) == 2 * len(VIAS) + 1, "dashed for a negative score, and the dots between positions"
