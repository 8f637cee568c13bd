"""One click asks the endpoint of this dashboard for labels: of one feature, or of the most used without one."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from dash import html

from dashboard.components.pages import feature_href, run_button
from dashboard.data import features as view
from interp.workspace import Workspace
from saes.explain.providers import chosen_endpoint
from saes.features.schema import Features

AT_ONCE = 25
"""Features of a list that one click asks about."""


def ask_for(workspace: Workspace, name: str, indices: Sequence[int], id: str) -> html.Div | None:
    """Return the button that asks for labels of some features; None where no endpoint is chosen.

    Without the recording in the workspace, as after `workbench demo`, it says what is missing instead.
    """
    chosen = chosen_endpoint()
    if chosen is None or not indices:
        return None
    where, model = chosen
    recording = workspace.open(Features, name).settings.recording
    if recording not in workspace.names("recording"):
        why = f"labels are scored on held-out text of the recording {recording}, which this workspace lacks"
        return html.Div(html.Span("No labels can be asked for", className="wb-quiet", title=why))
    said = model or urlsplit(where).hostname or where
    what = "a label" if len(indices) == 1 else f"labels of {len(indices)} features without one"
    options = {"source": name, "features": list(indices), "overwrite": True}
    button = run_button("label", options, id=id, text=f"Ask {said} for {what}", then=feature_href(name, indices[0]))
    return html.Div(button, title=f"sends excerpts of the recorded text to {where}")


def ask_for_list(workspace: Workspace, name: str) -> html.Div | None:
    """Return the button for the most used features that have no label."""
    if chosen_endpoint() is None:
        return None
    return ask_for(workspace, name, view.unlabelled(workspace, name, AT_ONCE), f"{name} list")
