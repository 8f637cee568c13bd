"""Circuits of features are drawn as any other; the difference of two models says whose latents they are."""

import numpy as np

from dashboard.figures.circuit import draw
from dashboard.figures.circuit_plot import circuit_plot
from dashboard.figures.model_difference import difference_histogram
from dashboard.figures.theme import DARK, LIGHT
from interp.circuits.circuit import Circuit, Edge

EDGES = (
    Edge("L9resid.12", "L15resid.3", score=0.8),
    Edge("L9resid.700", "L15resid.3", score=-0.2),
    Edge("L9resid.error", "L15resid.3", score=0.1),
    Edge("L15mlp.4", "L15resid.3", score=0.3),
    Edge("L15resid.3", "logits", score=0.9),
    Edge("L15resid.error", "logits", score=0.4),
)


def rows():
    return [
        {
            **{"id": f"{e.source}--{e.target}", "source": e.source, "target": e.target, "via": None, "position": None},
            **{"score": e.score, "exact": None, "low": None, "high": None, "member": True, "evidence": {}},
        }
        for e in EDGES
    ]


def test_features_stand_in_the_row_of_their_place_with_room_of_their_own():
    elements = draw(rows(), LIGHT).elements
    at = {e["data"]["id"]: e["position"] for e in elements if "position" in e}
    assert at["L9resid.12"]["y"] == at["L9resid.700"]["y"] == at["L9resid.error"]["y"]
    heights = [at[name]["y"] for name in ("L9resid.12", "L15mlp.4", "L15resid.3", "logits")]
    assert heights == sorted(heights, reverse=True), "the input is below"
    names = {name for edge in EDGES for name in (edge.source, edge.target)}
    places = {(at[name]["x"], at[name]["y"]) for name in names}
    assert len(places) == len(names)
    labels = {e["data"]["label"] for e in elements if e.get("classes") == "axis"}
    assert {"features", "errors", "layer 9", "layer 15"} <= labels
    assert not any("None" in label for label in labels)


def test_a_still_of_features_puts_none_on_top_of_another():
    figure = circuit_plot(Circuit.of("m", "0" * 64, EDGES), DARK)
    [nodes] = figure.data
    assert len(set(zip(nodes.x, nodes.y, strict=True))) == len(nodes.x) == 7
    y = dict(zip(nodes.text, nodes.y, strict=True))
    assert y["L9resid.12"] < y["L15mlp.4"] < y["L15resid.3"] < y["logits"]


def test_unconfirmed_latents_of_one_model_are_drawn_apart():
    norm = np.array([0.02, 0.97, 0.99, 0.5, 0.45, 0.3])
    kinds = ["first only", "second only", "second only", "shared", "shared", "rare"]
    sure = [True, False, True, False, False, False]
    figure = difference_histogram(norm, kinds, sure, LIGHT, first="base<b>", second="tuned")
    counts = {trace.name.partition(" (")[0]: int(sum(trace.y)) for trace in figure.data}
    assert counts == {"in both, or between": 2, "of one model, not confirmed": 1, "of one model, confirmed": 2}
    assert "<b>" not in figure.layout.xaxis.ticktext[0].replace("<br>", "")
    empty = difference_histogram([0.5], ["rare"], [False], LIGHT, first="a", second="b")
    assert "fired often enough" in empty.layout.annotations[0].text
