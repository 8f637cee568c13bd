"""Pages that are drawn fast: HTML as one component, and histograms of HTML with known heights."""

import numpy as np
import pytest
from dash import dcc, html

from dashboard.components.evidence import activation_bars, logit_bars
from dashboard.components.frame import Still, still


def elements(node, found=None):
    found = [] if found is None else found
    for each in node if isinstance(node, list | tuple) else [node]:
        if hasattr(each, "to_plotly_json"):
            found.append(each)
            elements(getattr(each, "children", None), found)
    return found


def bars_of(made):
    bins = [each for each in elements(made) if str(getattr(each, "className", "")).startswith("wb-bin ") or
            getattr(each, "className", "") == "wb-bin"]  # fmt: skip
    return [float(each.style["--h"].rstrip("%")) for each in bins], bins


def test_html_without_an_id_becomes_one_component():
    made = still(html.Div([html.P(["a ", html.B("b")], className="x"), None, dcc.Link("c", href="/feature/demo/1")]))
    assert isinstance(made, Still)
    assert made.tree == [["div", {}, ["p", {"className": "x"}, "a ", ["b", {}, "b"]],
                          ["Link", {"href": "/feature/demo/1"}, "c"]]]  # fmt: skip


def test_what_a_callback_may_address_stays_a_component_in_its_place():
    store = dcc.Store(id="kept")
    made = still(html.Div([html.P("1"), html.P("2"), html.Div(html.I("3"), id="kept-too"), store, "4"]))
    first, own, same, last = made.children
    assert first.tree == [["p", {}, "1"], ["p", {}, "2"]]  # a run of siblings is one
    assert own.id == "kept-too"
    assert own.children[0].tree == [["i", {}, "3"]]
    assert same is store
    assert last.tree == ["4"]


def test_a_component_inside_keeps_all_that_encloses_it():
    made = still(html.Section([html.H2("t"), html.Div([html.P("a"), html.Button("go", id="go")])]))
    assert made._type == "Section"
    assert made.children[0].tree == [["h2", {}, "t"]]
    assert [each._type for each in made.children[1].children] == ["Still", "Button"]
    assert still(html.Div(dcc.Loading(html.P("a")))).children[0].children[0].tree == [["p", {}, "a"]]


def test_bars_have_the_heights_of_their_counts_and_lines_their_values():
    edges = np.geomspace(0.1, 10, 5).tolist()
    made = activation_bars([0, 3, 12, 6], edges, mean=1.0, chosen=range(1, 3))
    heights, bins = bars_of(made)
    assert heights == [0, 25, 100, 50]
    assert [each.className for each in bins] == ["wb-bin wb-unchosen", "wb-bin", "wb-bin", "wb-bin wb-unchosen"]
    dotted = [each for each in elements(made) if getattr(each, "className", "") == "wb-dotted"]
    assert [each.style["left"] for each in dotted] == ["50.0%"]  # 1 is the middle of .1 to 10 on a log axis
    ticks = [
        (each.children, each.style["left"]) for each in elements(made) if getattr(each, "className", "") == "wb-tick"
    ]
    assert ticks[0] == ("0.1", "0.0%")
    assert ("1", "50.0%") in ticks
    wide = activation_bars([1] * 8, np.geomspace(1e-7, 1e3, 9).tolist())
    placed = [float(at.style["left"][:-1]) for at in elements(wide) if getattr(at, "className", "") == "wb-tick"]
    assert len(placed) > 3
    assert np.diff(placed).min() >= 9.9, "numbers do not collide"


def test_logits_are_on_a_log_axis_with_the_null_as_a_line_over_the_bars():
    counts, null = [0, 1, 100, 10, 0, 0], [0.0, 0.2, 100.0, 10.0, 0.0, 0.0]
    made = logit_bars(counts, [-3.0, 3.0, 6], null, [0.1, 0.5, 1.5])
    heights, bins = bars_of(made)
    assert len(bins) == 5  # up to the bin of the last dotted line
    at = dict(zip(counts[:5], heights, strict=True))
    assert at[0] == 0
    assert at[100] - at[10] == pytest.approx(at[10] - at[1], abs=0.15)  # equal steps for equal factors
    assert "random 0.2" in vars(bins[1])["data-tip"]
    [line] = [each for each in elements(made) if isinstance(each, Still)]
    points = [float(pair.split(",")[1]) for pair in line.tree[0][2][1]["points"].split()]
    assert 100 - points[4] == pytest.approx(at[100], abs=0.1)
    assert points[8] == 100  # no line where random directions have nothing
    assert sum(getattr(each, "className", "") == "wb-dotted" for each in elements(made)) == 2
