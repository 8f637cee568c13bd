"""Pictures of docs/findings, as SVG from the figures of the results: `python -m tools.findings --workspace DIR`.

The workspace holds what the commands of these pages write. `--only NAME` draws one of them.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import plotly.graph_objects as go

from dashboard.figures import circuit_tests, studies
from dashboard.figures.results import plot
from dashboard.figures.theme import theme
from interp.workspace import Workspace
from tools.chromium import FLAGS, chromium

IMAGES = Path(__file__).parent.parent / "docs" / "findings" / "images"
WIDTH = 760
Find = Callable[[str], Any]


def _formation(find: Find) -> go.Figure:
    study = find("grokking/grok10")
    curves = {name: study.curves[f"{name}_loss"][:, 0] for name in ("train", "test", "restricted", "excluded")}
    labels: dict[str, Any] = {"x_title": "epoch", "y_title": "loss (nats)", "log": True, "height": 320}
    return studies.training_curves(study.epochs, curves, theme("light"), marks=vars(study.runs[0].phases), **labels)


DRAWN: Mapping[str, Callable[[Find], go.Figure]] = {
    "induction": lambda find: plot(find("induction-circuits/induction-smollm2-135m")),
    "greater-than": lambda find: circuit_tests.attack_strength(
        find("worst-cases/greater-than-smollm2-135m"), theme("light")
    ),
    "months-on-a-circle": lambda find: plot(find("word-geometry/smollm2-135m").lists["months"].shape).update_layout(
        width=480
    ),
    "attention-sinks": lambda find: plot(find("heads/smollm2-135m"), kind="first_token", height=420),
    "grokking": _formation,
}


def svg(figure: go.Figure, page: Any) -> str:
    """Return a figure as SVG, drawn by plotly in a page of Chromium."""
    page.set_content(figure.to_html(include_plotlyjs=True))
    page.wait_for_selector(".js-plotly-plot .main-svg")
    size = {"format": "svg", "width": figure.layout.width or WIDTH, "height": figure.layout.height or 420}
    made = page.evaluate("size => Plotly.toImage(document.querySelector('.js-plotly-plot'), size)", size)
    return unquote(made.partition(",")[2])


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--only", choices=list(DRAWN))
    asked = parser.parse_args()
    workspace = Workspace(asked.workspace)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        for name in [asked.only] if asked.only else DRAWN:
            (IMAGES / f"{name}.svg").write_text(svg(DRAWN[name](workspace.open_key), page), encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main()
