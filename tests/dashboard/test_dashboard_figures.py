"""Figures are pure: the numbers that go in come out, and no token text becomes markup."""

import json
import math

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_workspace import HOSTILE

from dashboard.figures.attribution import SHOWN, pair_map, share_map, side_bars, strongest
from dashboard.figures.circuits import (
    MAX_SENDERS,
    ablation_bars,
    agreement,
    composition_map,
    faithfulness_at,
    faithfulness_curve,
    senders,
)
from dashboard.figures.heads import LENS_LABELLED, attention_pattern, head_scores, logit_lens
from dashboard.figures.saes import activation_histogram
from dashboard.figures.theme import DARK, LIGHT, escape, theme, visible
from interp.circuits.found_circuit import FaithfulnessPoint, ScoredEdge
from interp.circuits.head_scores import HeadScore
from interp.circuits.induction_circuit import ComposedPair
from interp.patching.patching_map import AblationEffect, Patch


def trace(figure: go.Figure, index: int = 0) -> dict:
    """One trace as the browser gets it, with arrays as lists."""
    return json.loads(json.dumps(figure.to_dict()["data"][index], default=lambda a: a.tolist()))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_reads_on_the_surface_in_both_schemes(colours):
    for name in ("text", "muted", "accent"):
        assert contrast(getattr(colours, name), colours.surface) >= 4.5, name


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_points_stand_out_from_the_surface(colours):
    assert min(contrast(c, colours.surface) for c in colours.categories) >= 2.5


@given(st.text(max_size=200))
def test_escaped_text_holds_no_markup_and_no_field(text):
    shown = escape(text)
    assert "<" not in shown
    assert ">" not in shown
    assert "%{" not in shown
    assert "\n" not in shown


def test_whitespace_tokens_are_visible():
    assert visible("\n") == "↵"
    assert visible("  ") == "␣␣"
    assert visible("\t") == "⇥"
    assert len(visible("L" * 300)) == 48


def test_histogram_bars_hold_the_counts():
    counts, edges = [0, 3, 10, 2, 0], np.geomspace(0.1, 10, 6).tolist()
    figure = activation_histogram(counts, edges, LIGHT, marker=1.0)
    assert sum(figure.data[0].y) == 15
    assert figure.layout.shapes[0].x0 == pytest.approx(0.0)  # log10 of the mean


def test_histogram_of_a_dead_feature_says_so():
    figure = activation_histogram([0, 0], [0.1, 1.0, 10.0], DARK)
    assert len(figure.data) == 0
    assert "never fired" in figure.layout.annotations[0].text


def pattern_of(n: int) -> np.ndarray:
    raw = np.tril(np.random.default_rng(0).random((n, n)))
    return raw / raw.sum(1, keepdims=True)


def test_pattern_keeps_weights_and_blanks_the_future():
    weights = pattern_of(4)
    figure = attention_pattern(weights, ["a", "b", "c", "d"], LIGHT)
    z = np.asarray(figure.data[0].z, float)
    assert np.allclose(np.tril(weights), np.nan_to_num(z), atol=1e-6)
    assert np.isnan(z[np.triu_indices(4, 1)]).all()
    assert figure.data[0].zmin == 0
    assert figure.data[0].zmax == 1


def test_pattern_text_is_inert():
    figure = attention_pattern(pattern_of(len(HOSTILE)), HOSTILE, DARK)
    texts = [cell for row in figure.data[0].hovertext for cell in row] + list(figure.layout.xaxis.ticktext)
    assert not any("<script" in t or "<img" in t or "<a " in t for t in texts)


def lens_of(n: int, token: str = "x") -> list:
    return [[[(token, 0.5), ("y", 0.1)] for _ in range(n)] for _ in range(3)]


def test_lens_shows_the_top_token_of_each_cell():
    cells = lens_of(2)
    cells[2][1] = [("Paris", 0.9), ("Rome", 0.05)]
    figure = logit_lens(cells, ["embedding", "layer 0", "layer 1"], ["a", "b"], LIGHT)
    written = trace(figure, 1)
    where = list(zip(written["x"], written["y"], strict=True)).index((1, 2))
    assert written["text"][where] == "Paris"
    assert np.asarray(figure.data[0].z)[2, 1] == pytest.approx(0.9)
    assert "Rome" in figure.data[0].hovertext[2][1]


def test_lens_of_a_long_prompt_carries_no_cell_text():
    n = LENS_LABELLED + 1
    assert len(logit_lens(lens_of(n), ["a", "b", "c"], ["t"] * n, LIGHT).data) == 1


def test_lens_text_is_inert():
    figure = logit_lens(lens_of(2, "<img src=x onerror=1>"), ["a", "b", "c"], ["<script>", "b"], LIGHT)
    assert "<img" not in json.dumps(figure.to_plotly_json(), default=str)


def head_row(layer: int, head: int, score: float, found: bool) -> HeadScore:
    ends = {"low": score - 0.01, "high": score + 0.01, "null": 0.02, "null_high": 0.03}
    return HeadScore(layer=layer, head=head, kind="induction", score=score, **ends, above_null=found)


def test_head_map_puts_scores_where_the_heads_are_and_marks_what_was_found():
    rows = [
        head_row(layer, head, 0.1 * layer + 0.01 * head, found=layer == 2) for layer in range(3) for head in range(2)
    ]
    figure = head_scores(rows, LIGHT)
    assert np.asarray(figure.data[0].z)[2, 1] == pytest.approx(0.21)
    assert list(figure.data[1].y) == [2, 2]
    assert "0.200 to 0.220" in figure.data[0].hovertext[2][1]


CURVE = [
    FaithfulnessPoint(
        fraction=f, n_edges=round(900 * f), faithfulness=y, signed=math.nan, random=0.1 * y, random_low=0.0,
        random_high=0.2,
    )
    for f, y in ((0.01, 0.2), (0.1, 0.8), (1.0, 1.0))
]  # fmt: skip


def test_curve_marks_the_current_size_between_the_measured_ones():
    figure = faithfulness_curve(CURVE, 1000, LIGHT, current=100)
    mark = trace(figure, len(figure.data) - 1)
    assert (mark["x"], mark["y"]) == ([100], [pytest.approx(0.8)])
    assert faithfulness_at(CURVE, 10**-1.5) == pytest.approx(0.5)
    assert faithfulness_at(CURVE, 0.001) is None


def test_curve_without_measurements_says_so():
    assert "no curve" in faithfulness_curve([], 10, DARK).layout.annotations[0].text


def test_agreement_puts_exact_over_estimated():
    ends = {"position": None, "low": None, "high": None}
    rows = [ScoredEdge(source="L0H0", target="logits", via=None, score=1.0, exact=0.9, **ends)]
    shown = trace(agreement(rows, LIGHT), 1)
    assert (shown["x"], shown["y"]) == ([1.0], [0.9])


def composed(source: str, score: float, argmax: bool = False) -> ComposedPair:
    null = {"null_mean": 0.1, "null_high": 0.15}
    return ComposedPair(source=source, target="L9H0", via="k", score=score, **null, is_argmax=argmax)


def test_composition_rings_the_strongest_sender_and_dots_what_beats_the_null():
    rows = [composed("L0H0", 0.12), composed("L0H1", 0.2), composed("L1H0", 0.31, argmax=True)]
    figure = composition_map(rows, "k", LIGHT)
    assert list(figure.data[1].y) == [1, 2]
    assert list(figure.data[2].y) == [2]
    assert np.asarray(figure.data[0].z)[:, 0].tolist() == pytest.approx([0.12, 0.2, 0.31])
    assert "no query" in composition_map(rows, "q", LIGHT).layout.annotations[0].text


def test_of_many_senders_the_strongest_and_the_ringed_stay():
    rows = [composed(f"L{i // 9}H{i % 9}", 0.5 - i / 1000) for i in range(80)] + [composed("L8H8", 0.01, argmax=True)]
    kept, total = senders(rows, "k")
    assert (len(kept), total) == (MAX_SENDERS, 81)
    assert {"L0H0", "L8H8"} <= set(kept)


def test_ablation_bars_hold_both_halves_and_the_interval_of_the_second():
    losses = {"loss_first_half": 0.1, "loss_second_half": 2.0, "low": 1.5, "high": 2.2}
    rows = [AblationEffect(group="<b>all</b>", kind="mean", **losses, n_heads=3)]
    first, second = (trace(ablation_bars(rows, LIGHT), i) for i in (0, 1))
    assert (first["x"], second["x"]) == ([0.1], [2.0])
    assert second["error_x"]["array"] == pytest.approx([0.2])
    assert second["error_x"]["arrayminus"] == pytest.approx([0.5])
    assert "<b>all" not in second["y"][0]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_shares_shown_sum_to_the_whole_and_lead_with_the_largest(values):
    parts = [(f"L0H{i}", value) for i, value in enumerate(values)]
    shown = strongest(parts)
    assert sum(v for _, v in shown) == pytest.approx(sum(values), abs=1e-9)
    sizes = [abs(v) for _, v in shown[: min(len(values), SHOWN)]]
    assert sizes == sorted(sizes, reverse=True)


def test_share_map_has_heads_then_mlp_centred_on_zero():
    figure = share_map([[1.0, -2.0], [0.5, 0.0]], [3.0, -0.1], LIGHT)
    z = np.asarray(figure.data[0].z)
    assert z[0, 1] == -2
    assert z[0, -1] == 3
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-3, 3)


def test_pair_map_keeps_the_largest_parts_in_their_order():
    matrix = np.zeros((30, 30))
    matrix[20, 7] = 5.0
    figure = pair_map(matrix, [f"q{i}" for i in range(30)], [f"k{i}" for i in range(30)], DARK)
    row, column = list(figure.data[0].y).index("q20"), list(figure.data[0].x).index("k7")
    assert np.asarray(figure.data[0].z)[row, column] == 5
    assert len(figure.data[0].y) == SHOWN


def test_bars_by_layer_leave_nothing_of_a_score_over():
    matrix = np.random.default_rng(0).normal(size=(5, 6))
    query = ["embed", "L0H0", "L0H1", "L0MLP", "bias"]
    figure = side_bars(matrix, query, [*query, "L1bias"], DARK)
    sides = {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in figure.data}
    assert list(sides["at the key"]) == ["embed", "L0", "bias", "L1"]
    assert sides["at the key"]["L0"] == pytest.approx(matrix[:, 1:4].sum())
    assert sides["at the query"]["L0"] == pytest.approx(matrix[1:4].sum())
    assert [sum(side.values()) for side in sides.values()] == pytest.approx([matrix.sum()] * 2)


def test_unknown_scheme_is_light():
    assert theme(None) is LIGHT
    assert theme("dark") is DARK


def test_patching_map_centres_colour_on_zero_and_keeps_the_strongest_position_of_a_head():
    from dashboard.figures.attribution import patching_map

    def record(layer, head, position, effect):
        return Patch(layer=layer, head=head, position=position, token="<b>", effect=effect, stderr=math.nan)

    records = [record(0, 0, 0, 0.1), record(1, 1, 0, -0.8), record(1, 1, 1, 0.3)]
    heat = patching_map(records, theme("light")).data[0]
    assert (heat.zmin, heat.zmax) == (pytest.approx(-0.8), pytest.approx(0.8))
    assert heat.z[1][1] == pytest.approx(-0.8)
    assert "<b>layer 1" in heat.hovertext[1][1]
    assert "&lt;b&gt;" in heat.hovertext[1][1], "token text must not become markup"


def test_circuit_plot_draws_every_node_and_the_strongest_edges():
    from dashboard.figures.circuits import circuit_plot
    from tests.interp.circuit_tasks import planted_circuit

    circuit = planted_circuit()
    figure = circuit_plot(circuit, theme("dark"))
    assert set(figure.data[0].text) == {"embed", "L0H0", "L1H0", "logits"}
    assert len(figure.layout.annotations) == len(circuit.edges)
    heights = dict(zip(figure.data[0].text, figure.data[0].y, strict=True))
    assert heights["embed"] < heights["L0H0"] < heights["L1H0"] < heights["logits"]
    few = circuit_plot(circuit, theme("dark"), max_edges=2)
    assert len(few.layout.annotations) == 2
    assert "2 strongest of 7" in few.layout.title.text
    assert "no edges" in str(circuit_plot(circuit - circuit, theme("light")).layout)
