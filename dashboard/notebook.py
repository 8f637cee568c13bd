"""`show(...)`: what the pages show, in a notebook and without a server: the same pieces, the same figures.

show("demo:540", workspace)                 a feature: numbers, histogram, promoted tokens, examples, proof
show("edge-circuits/ioi", workspace)        an artefact: a map, a circuit, scores of heads, a proof as their figure,
                                            one of any other kind as the panels of its page
show((tokens, activations))                 tokens coloured by activation, `activations [n]`
show((tokens, attention))                   the attention of one head, `attention [dest, src]`
show(logit_lens(model, tokens))             the result of an analysis, as `dashboard.figures.plot` draws it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import plotly.graph_objects as go
from dash import html

from dashboard.answers import is_sequence
from dashboard.artefact.sections import panels, summary
from dashboard.components.markup import markup
from dashboard.components.tokens import token_strip
from dashboard.data.features import examples, one
from dashboard.feature import sections
from dashboard.feature.export import feature_html
from dashboard.figures.heads import attention_pattern
from dashboard.figures.results import has_figure, plot
from dashboard.figures.saes import activation_histogram, proof_nulls
from dashboard.figures.theme import Theme
from dashboard.figures.theme import theme as theme_called
from dashboard.maps.view import atlas_view
from interp.artifacts import KINDS, Manifest, kinds_of
from interp.errors import ConfigError, UsageError
from interp.workspace import Workspace
from saes.acts.prompt import Pattern
from saes.features.proof import Proof, TextFirings, newest_proof, why_outdated

N_EXAMPLES = 6


@dataclass(frozen=True)
class Shown:
    """Pieces of a page as HTML, and the figures below them."""

    html: str
    figures: tuple[go.Figure, ...] = ()
    page: Callable[[], str] | None = None
    """Makes the page that the dashboard offers as its download, if there is one."""

    def to_html(self) -> str:
        """Return one self-contained page without scripts or requests."""
        return self.page() if self.page else f'<!doctype html><meta charset="utf-8">{self.html}'

    def _repr_html_(self) -> str:
        return self.html

    def _ipython_display_(self) -> None:
        shows: Any = import_module("IPython.display")  # of the notebook, which calls this
        shows.display(shows.HTML(self.html), *self.figures)


def show(
    what: Any,
    workspace: Workspace | Path | str | None = None,
    *,
    theme: Literal["light", "dark"] = "light",
    **options: Any,
) -> Any:
    """Return the content of the pages about `what`, for a notebook.

    Args:
        what: the name of something in a workspace (`demo:540`, `atlases/demo-features`), `(tokens, values)`, an
            answer of a live model, or the result of an analysis.
        workspace: where names are looked up.
        theme: of colours and figures.
        options: of the figure.
    Returns: a `Shown`, a plotly figure or a map, which a notebook displays.
    Raises:
        UnknownNameError: a name that is not there.
        ConfigError: values that have no figure.

    >>> shown = show(([" moved", " to", " July"], [0.0, 0.4, 61.7]), theme="dark")
    >>> "July" in shown.html
    True
    """
    colours = theme_called(theme)
    drawing = _drawn(what, workspace, colours, options)
    for figure in (drawing,) if isinstance(drawing, go.Figure) else getattr(drawing, "figures", ()):
        figure.update_layout(paper_bgcolor=colours.surface)  # a notebook's own background may be of the other scheme
    return drawing


def _drawn(what: Any, workspace: Workspace | Path | str | None, colours: Theme, options: dict[str, Any]) -> Any:
    if isinstance(what, str):
        if workspace is None:
            raise ConfigError(f"{what!r} is a name; say in which workspace: show({what!r}, workspace)")
        return _named(workspace if isinstance(workspace, Workspace) else Workspace(workspace), what, colours, options)
    if isinstance(what, TextFirings):
        what = what.tokens, what.activations
    if isinstance(what, Pattern):
        what = what.tokens, what.weights
    if _of_tokens(what):
        return _tokens([*what[0]], np.asarray(what[1], dtype=np.float64), colours, options)
    return plot(what, colours, **options)


def _of_tokens(what: Any) -> TypeGuard[tuple[Sequence[str], Any]]:
    """Return True for a pair of tokens and their numbers."""
    if not isinstance(what, tuple) or not is_sequence(what) or len(what) != 2:
        return False
    return is_sequence(what[0]) and bool(what[0]) and all(isinstance(token, str) for token in what[0])


def _tokens(tokens: list[str], values: np.ndarray, colours: Theme, options: dict[str, Any]) -> Any:
    if values.shape == (len(tokens), len(tokens)):
        return attention_pattern(values, tokens, colours, **options)
    if values.shape != (len(tokens),):
        raise ConfigError(
            f"{len(tokens)} tokens take one activation each or an attention pattern [dest, src], got values of shape "
            f"{list(values.shape)}"
        )
    strip = token_strip(tokens, values.tolist(), **dict[str, Any](maximum=float(values.max())) | options)
    return Shown(markup(strip, colours.name))


def _named(workspace: Workspace, name: str, colours: Theme, options: dict[str, Any]) -> Any:
    features, colon, index = name.rpartition(":")
    if colon:
        if not index.isdecimal():
            raise UsageError(f"a feature is named NAME:NUMBER, such as demo:12; got {name!r}")
        return _feature(workspace, features, int(index), colours)
    manifest = workspace.find(name, *KINDS)
    return _ARTEFACTS.get(manifest.kind, _panels)(workspace, manifest, colours, options)


def _feature(workspace: Workspace, name: str, index: int, colours: Theme) -> Shown:
    feature = one(workspace, name, index)
    row = feature.row
    strips = [
        html.Li(token_strip(example.tokens, example.activations, maximum=row.max_activation, peak=example.peak))
        for example in examples(feature.features, index)[:N_EXAMPLES]
    ]
    parts: list[Any] = [sections.summary(workspace, feature), html.Ol(strips, className="wb-stack")]
    edges = feature.features.histogram_edges
    figures = [activation_histogram(row.histogram, edges, colours, marker=row.mean_activation)]
    if (proof := newest_proof(workspace, name, index)) is not None:
        parts.append(html.P(why_outdated(workspace, proof) or proof.verdict(), className="wb-note"))
        figures.append(proof_nulls(proof, colours))
    whole = partial(feature_html, workspace, name, index)
    return Shown(markup(html.Div(parts, className="wb-stack"), colours.name), tuple(figures), whole)


def _map(workspace: Workspace, manifest: Manifest, colours: Theme, options: dict[str, Any]) -> Any:
    return atlas_view(workspace, manifest.name, **options)


def _figure(workspace: Workspace, manifest: Manifest, colours: Theme, options: dict[str, Any]) -> go.Figure:
    return plot(workspace.value(manifest), colours, **options)


def _panels(workspace: Workspace, manifest: Manifest, colours: Theme, options: dict[str, Any]) -> Shown:
    value = workspace.value(manifest)
    parts = html.Div([summary(value), *panels(workspace, value)], className="wb-stack")
    figures = (plot(value, colours, **options),) if has_figure(value) else ()
    return Shown(markup(parts, colours.name), figures)


def _proof(workspace: Workspace, manifest: Manifest, colours: Theme, options: dict[str, Any]) -> Shown:
    settings = workspace.open(Proof, manifest.name).settings
    return _feature(workspace, settings.features, settings.feature, colours)


_ARTEFACTS: dict[str, Callable[[Workspace, Manifest, Theme, dict[str, Any]], Any]] = {
    "atlas": _map, **dict.fromkeys((*kinds_of("circuit"), "heads"), _figure), "proof": _proof
}  # fmt: skip
"""Kind of artefact -> what draws it; any other kind is drawn by `_panels`."""
