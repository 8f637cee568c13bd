"""`show` in notebooks: the figures of the pages, without a server, and texts only as text."""

import html
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from make_workspace import HOSTILE, MODEL

from dashboard import show
from dashboard.components.evidence import number, percent
from dashboard.data.features import examples, one
from dashboard.feature.export import feature_html
from dashboard.figures.theme import theme, visible
from dashboard.notebook import Shown
from interp.errors import ConfigError, UnknownNameError, UsageError
from interp.lenses.logit_lens import LogitLens
from saes.acts.prompt import Pattern
from saes.features.proof import TextFirings


def text_in(shown: Shown) -> str:
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", shown.html, flags=re.DOTALL))


def test_a_feature_shows_what_its_page_does(workspace):
    (features, row), shown = one(workspace, "demo", 12), show("demo:12", workspace, theme="dark")
    assert "#12" in text_in(shown)
    assert f"{row.n_fired:,}" in text_in(shown)
    assert all(visible(token, 22) in text_in(shown) for token in row.promoted_tokens)
    assert shown.html.count('wb-peak"') == min(6, len(examples(features, 12)))
    [histogram] = shown.figures
    assert sum(histogram.data[0].y) == sum(row.histogram)
    assert histogram.layout.paper_bgcolor == theme("dark").surface
    assert shown.to_html() == feature_html(workspace, "demo", 12)
    strip = show((["a", "<b>"], [1.0, 2.0])).to_html()
    assert strip.startswith("<!doctype html>")
    assert "&lt;b&gt;" in strip


def test_hostile_tokens_are_text(workspace):
    shown = show((list(HOSTILE), [1.0] * len(HOSTILE)))
    assert not re.search(r"<(img|script|iframe|svg)", shown.html, re.IGNORECASE)
    assert "<script" in "".join(HOSTILE) or "<img" in "".join(HOSTILE)
    assert not re.search(r"<(img|iframe|svg)\b", show("demo:0", workspace).html, re.IGNORECASE)


def test_tokens_are_coloured_by_their_share_of_the_largest_activation():
    shown = show((["a", " b", " c"], [0.0, 2.0, 1.0]))
    assert re.findall(r"--a: ([\d.]+)", shown.html) == ["0.720", "0.420"]
    assert show(TextFirings(["a", " b"], [0.0, 2.0], [1])).html == show((["a", " b"], [0.0, 2.0])).html
    rules = re.search(r"<style>(.*?)</style>", shown.html, re.DOTALL).group(1)
    selectors = re.findall(r"^([^{}]+)\{", rules.replace(":is(ol, p, h2, h3)", ""), re.MULTILINE)
    assert all(part.strip().startswith(".wb-shown") for each in selectors for part in each.split(","))
    assert ".wb-mark" in rules


def test_attention_and_lens_are_the_figures_of_the_prompt_page():
    weights = np.array([[1.0, 0.0], [0.25, 0.75]])
    for given in ((["a", "b"], weights), (["a", "b"], torch.tensor(weights)), Pattern.of(["a", "b"], 0, 1, weights)):
        figure = show(given)
        assert np.asarray(figure.data[0].z)[1].tolist() == pytest.approx([0.25, 0.75], abs=1 / 65535)
    lens = LogitLens(
        layers=("embed", "0"), tokens=("a",), top_tokens=((("x",),), (("y",),)),
        token_ids=torch.zeros(2, 1, 1, dtype=torch.long), probabilities=torch.tensor([[[0.5]], [[0.9]]]),
        entropy=torch.zeros(2, 1), kl=torch.zeros(2, 1),
    )  # fmt: skip
    assert np.asarray(show(lens).data[0].z)[:, 0].tolist() == pytest.approx([0.5, 0.9])


def test_artefacts_are_drawn_by_name(workspace):
    assert show("atlases/demo-features", workspace).about["n"] > 0
    assert isinstance(show("ioi", workspace), go.Figure)
    assert isinstance(show(f"heads/{MODEL}", workspace, kind="previous_token"), go.Figure)


def test_what_cannot_be_shown_says_what_can(workspace):
    with pytest.raises(UnknownNameError, match="demo"):
        show("demp:3", workspace)
    with pytest.raises(UsageError, match="0 to 239"):
        show("demo:999", workspace)
    with pytest.raises(UsageError, match="NAME:NUMBER"):
        show("demo:many", workspace)
    with pytest.raises(ConfigError, match="in which workspace"):
        show("demo:3")
    with pytest.raises(ConfigError, match="one activation each"):
        show((["a", "b"], [1.0]))
    with pytest.raises(ConfigError, match="have one"):
        show(3)


def test_a_notebook_gets_the_piece_and_then_its_figures(workspace, monkeypatch):
    displayed: list = []
    monkeypatch.setattr("IPython.display.display", lambda *given: displayed.extend(given))
    shown = show("demo:12", workspace)
    shown._ipython_display_()
    assert displayed[0].data == shown.html
    assert displayed[1:] == list(shown.figures)


def test_numbers_have_one_form():
    assert [percent(each) for each in (0, 1, 0.5, 0.00117235, 1e-4, 1e-7)] == [
        "0%", "100%", "50%", "0.117%", "0.01%", "under 0.001%"
    ]  # fmt: skip
    assert [number(each) for each in (-0.12345, 61.686, 1234.5, 12, 0.00012)] == [
        "−0.123", "61.7", "1,234", "12", "1.20e-04"
    ]  # fmt: skip
