"""The form that traces another prompt: three fields in sight, the rest folded, and the run's progress below them."""

import re
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.components.pages import Context, current, run_button, runs_href
from interp.tracing.graph import KIND
from interp.workspace import Workspace

SIZES: dict[str, dict[str, Any]] = {
    "quick": {"max_feature_nodes": 1024, "effects": 24},
    "usual": {"max_feature_nodes": 3072, "effects": 32},
    "full": {},
}
"""Size of a graph -> settings of the verb. The background is measured with `full`."""
ASK = {"type": "run-ask", "of": "trace"}
FIELDS: tuple[str, ...] = ("prompt", "target", "size", "contrast", "model", "set", "chat")


def form(context: Context, given: dict[str, Any], *, opened: bool) -> list[Any]:
    """Return the folded form, filled with options of the verb; nothing where the server runs no analyses."""
    if context.runs is None or "trace" not in context.runs.catalogue.forms:
        return []
    offered = {name: context.runs.catalogue.suggestions(name) for name in ("model", "transcoders")}
    values = {"size": "usual", **{name: value for name, value in given.items() if value}}
    values.setdefault("model", next(iter(offered["model"]), ""))
    known = [*dict.fromkeys([values["model"], *offered["model"]])]

    def text(name: str, label: str, hint: str, **extra: Any) -> dmc.TextInput:
        return dmc.TextInput(
            id=f"graph-trace-{name}", label=label, value=values.get(name, ""), placeholder=hint, size="xs", **extra
        )

    def menu(name: str, label: str, data: list[Any], value: Any) -> dmc.Select:
        return dmc.Select(id=f"graph-trace-{name}", label=label, data=data, value=value, size="xs", allowDeselect=False)

    sets = [{"value": "", "label": "MLP neurons"}, *({"value": each, "label": each} for each in offered["transcoders"])]
    more = html.Details(
        [
            html.Summary("more"),
            html.Div(
                [
                    text("contrast", "against", "a second word"),
                    menu("model", "model", known, values["model"]),
                    menu("set", "latents", sets, values.get("set", "")),
                    dmc.Checkbox(
                        id="graph-trace-chat", label="in the chat template", checked=bool(given.get("chat")), size="xs"
                    ),
                    dcc.Link("all settings", id="graph-trace-all", href=_all(values), className="wb-link"),
                ],
                className="wb-graph-trace",
            ),
        ],
        className="wb-folded",
    )
    parts = [
        html.Summary("Trace another prompt"),
        html.Div(
            [
                text("prompt", "prompt", "text whose next token is explained", className="wb-graph-trace-prompt"),
                text("target", "target", "the most likely word"),
                menu("size", "size", [*SIZES], values["size"]),
            ],
            className="wb-graph-trace",
        ),
        more,
        run_button("trace", asked(context.workspace, values), id="trace", text="Trace"),
    ]
    return [html.Details(parts, className="wb-panel wb-graph-new", open=opened)]


def _all(values: dict[str, Any]) -> str:
    given = {name: value for name, value in values.items() if name != "size"}
    return runs_href("trace", **given)


def asked(workspace: Workspace, values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the verb for the fields of the form; words get the space before them that tokens have."""
    prompt = str(values.get("prompt") or "").strip()
    found: dict[str, Any] = {"model": values.get("model"), "prompt": prompt, **SIZES[values.get("size") or "usual"]}
    for name in ("target", "contrast"):
        if word := str(values.get(name) or "").strip():
            found[name] = f" {word}" if word[0].isalnum() and not values.get("chat") else word
    found |= {name: values[name] for name in ("set", "chat") if values.get(name)}
    found["name"] = _free_name(workspace, prompt)
    return found


def _free_name(workspace: Workspace, prompt: str) -> str:
    """Return an unused name made of the prompt."""
    plain = "-".join(re.findall(r"[A-Za-z0-9]+", prompt))[:48].strip("-") or "prompt"
    taken = {each.name for each in workspace.newest(KIND)}
    return next(name for n in range(1, len(taken) + 2) if (name := plain if n == 1 else f"{plain}-{n}") not in taken)


def register(app: Dash) -> None:
    """Let the button of the form run the fields' options."""

    @app.callback(
        Output(ASK, "data", allow_duplicate=True),
        Output({"type": "run-go", "of": "trace"}, "disabled", allow_duplicate=True),
        Output("graph-trace-all", "href"),
        *(Input(f"graph-trace-{name}", "checked" if name == "chat" else "value") for name in FIELDS),
        State(ASK, "data"),
        prevent_initial_call=True,
    )
    def follow(*given: Any) -> tuple[dict[str, Any], bool, str]:
        *fields, now = given
        context = current()
        values: dict[str, Any] = dict(zip(FIELDS, fields, strict=True))
        if context.runs is None:
            raise PreventUpdate
        active = bool(now["run"]) and any(run.id == now["run"] for run in context.runs.active())
        if active:
            raise PreventUpdate
        options = asked(context.workspace, values)
        return {**now, "options": options, "run": None}, not options["prompt"], _all(values)
