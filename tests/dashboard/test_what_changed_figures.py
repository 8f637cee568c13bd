"""Figures of what fine-tuning changed: pure functions of the tables."""

import numpy as np
import pytest

from dashboard.figures.changes import stream_figure, transplant_figure, weights_figure
from dashboard.figures.theme import theme
from interp.changes.measured import LayerChange, RepresentationChanges, Transplant, WeightChange
from interp.statistics import Interval

LIGHT = theme("light")


def weight(name, kind, layer, change, found, rank=3.0) -> WeightChange:
    return WeightChange(
        name=name, kind=kind, layer=layer, heads=(), change=change, null=0.01, null_high=0.02, above_null=found,
        rank=rank,
        random_rank=20.0, null_rank=9.0, rank_90=1, spectrum=np.ones(1),
    )  # fmt: skip


def stream(*layers: tuple[str, float, bool], null_high: float = 0.01) -> RepresentationChanges:
    same = Interval(0.9, 0.8, 1.0)
    rows = [
        LayerChange(
            name=name, change=Interval(change, change * 0.9, change * 1.1), null=0.0, null_high=null_high,
            above_null=found,
            cka=same, cka_null=1.0, cka_above_null=found, main_share=0.5, main_share_null=0.1, main_share_base=0.1,
            direction=np.zeros(2),
        )
        for name, change, found in layers
    ]  # fmt: skip
    return RepresentationChanges(layers=tuple(rows), n_contexts=8, n_tokens=80, null="rounding")


def part(name, carried, *, changed=True, found=False) -> Transplant:
    share = Interval(carried, carried, carried)
    return Transplant(
        name=name, level="part", changed=changed, carried=share, carried_random=0.0, carried_bound=0.1,
        carried_found=found, removed=share, removed_random=0.0, removed_bound=0.1, removed_found=found,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_of_weights_shows_the_head_that_changed_most_beside_its_null(scheme):
    rows = [
        weight("embed", "embed", None, 0.01, False),
        weight("L0H0.W_Q", "W_Q", 0, 0.01, False),
        weight("L0H1.W_Q", "W_Q", 0, 0.2, True),
        weight("L1H0.W_Q", "W_Q", 1, 0.0, False, rank=np.nan),
    ]
    [heat] = weights_figure(rows, theme(scheme)).data
    assert list(heat.x) == ["embed", "W_Q"]
    assert list(heat.y) == ["outside", "L0", "L1"]
    assert heat.z[1][1] == pytest.approx(1)  # ten times the null
    assert heat.text[1][1] == "0.2"
    assert "L0H1.W_Q" in heat.customdata[1][1]
    assert heat.z[2][1] == 0
    assert np.isnan(heat.z[0][1])


def test_streams_are_lines_with_intervals_and_nulls():
    figure = stream_figure({"facts <b>": stream(("embed", 0.0, False), ("L0", 0.5, True))}, LIGHT)
    line, null = figure.data
    assert line.y[1] == 0.5
    assert 0 < line.y[0] < 0.01  # nothing at all still lies on a logarithmic axis
    assert list(line.marker.symbol) == ["circle-open", "circle"]
    assert list(null.y) == [0.01, 0.01]
    assert "<b>" not in line.name


def test_transplants_are_bars_beside_random_changes():
    figure = transplant_figure([part("embed", 0.0, changed=False), part("L0.mlp", 0.9, found=True)], LIGHT)
    assert all(list(trace.y) == ["L0.mlp"] for trace in figure.data)
    assert [trace.x[0] for trace in figure.data] == [0.9, 0.9, 0.1, 0.1]


def test_models_that_are_the_same_get_a_sentence():
    assert not weights_figure([weight("embed", "embed", None, 0.0, False)], LIGHT).data
    assert not transplant_figure([part("embed", np.nan)], LIGHT).data
    assert not transplant_figure([], LIGHT).data
    assert not stream_figure({"text": stream(("embed", 0.0, False), null_high=0.0)}, LIGHT).data
