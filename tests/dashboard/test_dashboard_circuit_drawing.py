"""The drawing of a circuit: where nodes and lines lie, how wide and of which colour they are."""

import pytest
from make_circuits import edge
from make_workspace import HOSTILE

from dashboard.circuit.figure import draw, role_colours, stylesheet, via_colours
from dashboard.circuit.page import table_row
from dashboard.data import circuits as grouping
from dashboard.figures.theme import DARK, LIGHT


def nodes_of(drawing) -> dict[str, dict]:
    return {e["data"]["id"]: e for e in drawing.elements if "position" in e and e["classes"] != "axis"}


def edges_of(drawing) -> dict[str, dict]:
    return {e["data"]["id"]: e for e in drawing.elements if "source" in e["data"]}


@pytest.mark.parametrize("n", [1, 30, 400])
@pytest.mark.parametrize("groups", ["", "a:L0H0,L0H1;-b:L3H0,L4H1,L5H2"])
def test_a_drawing_is_whole_and_no_two_nodes_lie_on_each_other(ioi, n, groups):
    drawing = draw(ioi[1].strongest(n), LIGHT, groups=grouping.parse_groups(groups))
    nodes, edges = nodes_of(drawing), edges_of(drawing)
    ids = [e["data"]["id"] for e in drawing.elements]
    assert len(ids) == len(set(ids))
    assert {e["data"][end] for e in edges.values() for end in ("source", "target")} <= set(nodes)
    places = [(e["position"]["x"], e["position"]["y"]) for e in nodes.values()]
    assert len(set(places)) == len(places)
    inside = sum(all(end in "L3H0 L4H1 L5H2" for end in row.ends) for row in ioi[1].strongest(n))
    assert sum(len(rows) for rows in drawing.edges.values()) == n - (inside if groups else 0)


def test_layers_are_rows_from_below_and_heads_are_columns(ioi):
    nodes = nodes_of(draw(ioi[1].strongest(300), LIGHT))
    y = {name: e["position"]["y"] for name, e in nodes.items()}
    x = {name: e["position"]["x"] for name, e in nodes.items()}
    assert y["embed"] > y["L0H1"] > y["L3H1"] > y["L5MLP"] > y["logits"]
    assert len({y[f"L2H{h}"] for h in range(4)}) == 1
    assert len({x[f"L{i}H1"] for i in range(6)}) == 1
    assert x["L2H0"] < x["L2H1"] < x["L2H3"] < x["L2MLP"]


def test_positions_become_columns_named_by_their_tokens():
    rows = [
        edge("embed", "L0H0", "k", position=1),
        edge("L0H0", "L1H0", "k", position=2),
        edge("L0H0", "logits", position=2),
    ]
    drawing = draw(rows, LIGHT, tokens=["a", "b", "<script>"])
    nodes = nodes_of(drawing)
    assert nodes["L0H0@1"]["position"]["x"] < nodes["L0H0@2"]["position"]["x"] == nodes["logits@2"]["position"]["x"]
    assert "2 <script>" in [e["data"]["label"] for e in drawing.elements if e["classes"] == "axis"]


def test_a_folded_group_takes_over_the_edges_of_its_members():
    rows = [
        edge("L0H0", "L2H0", "k", 0.5),
        edge("L0H1", "L2H0", "k", -0.9),
        edge("L0H0", "L0MLP"),
        edge("L0H1", "L2H0", "q", 0.1),
    ]
    drawing = draw(rows, LIGHT, groups=grouping.parse_groups("-early:L0H0,L0H1"))
    assert set(nodes_of(drawing)) == {"group:early", "L2H0", "L0MLP"}
    merged = edges_of(drawing)["group:early|k|L2H0"]
    assert merged["classes"] == "negative"  # as its strongest
    assert not {row.id for row in rows} & set(edges_of(drawing))  # the browser cannot move the ends of a line
    assert len(drawing.edges["group:early|k|L2H0"]) == 2


def test_a_line_bends_round_a_node_in_its_way_and_only_then():
    straight = edges_of(draw([edge("L0H0", "L1H0", "q")], LIGHT))["L0H0-q-L1H0"]
    assert straight["data"]["bend"] == 0
    rows = [edge("L0H0", "L2H0", "q"), edge("L1H0", "L2H0", "k", 0.1)]
    assert abs(edges_of(draw(rows, LIGHT))["L0H0-q-L2H0"]["data"]["bend"]) > 30


def test_width_follows_the_size_of_the_score():
    rows = [edge("L0H0", "L1H0", "q", 2.0), edge("L0H1", "L1H0", "q", -1.0), edge("L0H2", "L1H0", "q", 0.0)]
    edges = edges_of(draw(rows, DARK))
    widths = [edges[row.id]["data"]["width"] for row in rows]
    assert widths == sorted(widths, reverse=True)
    assert [edges[row.id]["classes"] for row in rows] == ["", "negative", ""]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_inputs_and_roles_never_share_a_colour(colours):
    vias = via_colours(colours)
    roles = role_colours(colours, ["induction", "previous_token", "something", "else"])
    assert len({*vias.values(), *roles.values()}) == len(vias) + len(roles)


def test_names_cannot_leave_their_selector():
    for name in HOSTILE:
        for rule in stylesheet(LIGHT, [name], f"group:{name}"):
            assert rule["selector"].count('"') % 2 == 0
            assert "\n" not in rule["selector"]


def test_an_edge_without_a_score_is_drawn_and_left_blank(server):
    row = edge("L1H2", "logits", score=None)
    assert table_row(row)["score"] is None
    assert edges_of(draw([row, edge("L1H2", "L2H0", "k")], LIGHT))["L1H2--logits"]["data"]["width"] < 2
