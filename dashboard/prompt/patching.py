"""The panel *Activation patching*: the effect of every patch between two prompts, measured live or read from disk."""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update

from dashboard.components.frame import attempt, attrs, graph, loading, panel, select, stat
from dashboard.components.live import PatchEffects
from dashboard.components.pages import current
from dashboard.figures.attribution import patching_map
from dashboard.figures.theme import Theme, theme, visible
from interp.artifacts import Manifest, read_json
from interp.errors import CorruptError
from interp.workspace import Workspace

WHATS = {
    "resid_pre": "residual stream before each block, by position",
    "attn_out": "attention outputs, by position",
    "mlp_out": "MLP outputs, by position",
    "z": "outputs of single heads",
}
"""What the panel can patch, in words."""
DIRECTIONS = {"denoise": "denoise: clean into corrupt", "noise": "noise: corrupt into clean"}
EXAMPLE = {
    "clean": "The capital of France is",
    "corrupt": "The capital of Italy is",
    "answer": "Paris",
    "wrong": "Rome",
}
METRIC = (
    "after the last token: a logit difference is logit(clean answer) − logit(corrupt answer), as in the attributions; "
    "without a corrupt answer it is the log-probability of the clean one, in nats"
)
_NEEDED = (
    *("what", "direction", "n_prompts", "null", "clean_metric", "corrupt_metric"),
    *("n_patches", "n_beyond", "null_largest", "level"),
)
_SHOWN = 5000
"""Patches read of a stored map, largest effects first."""


def patching_panel(workspace: Workspace, name: str) -> html.Section:
    """Return the panel: a pair of prompts with a button, and the stored maps; `name` is the one that is opened."""
    stored = [{"value": "", "label": "stored maps"}, *workspace.names("patching")]
    return panel(
        "Activation patching",
        html.Div(
            [
                *(_field(key, label, width) for key, label, width in _FIELDS),
                select("prompt-patch-what", "Value that is patched", _options(WHATS), "resid_pre", width=330),
                select("prompt-patch-direction", "Direction", _options(DIRECTIONS), "denoise", width=210),
                dmc.Button("Patch", id="prompt-patch-go", size="xs", variant="default"),
                select("prompt-patch-stored", "Stored map", stored, name, width=200,
                       className="" if stored[1:] else "wb-hidden"),
            ],
            className="wb-controls",
        ),
        loading(html.Div(id="prompt-patch-result", **attrs({"aria-live": "polite"}))),
        note="one value of one run is replaced by that of the other run; the effect is the fraction of the gap between "
        "their metrics that follows: 0 nothing, 1 all of it. Three maps of null patches come with it: about four "
        "passes of the model per layer and position.",
    )  # fmt: skip


_FIELDS = (
    ("clean", "Clean prompt", 260),
    ("corrupt", "Corrupt prompt, as many tokens", 260),
    ("answer", "Clean answer", 130),
    ("wrong", "Corrupt answer", 130),
)


def _field(key: str, label: str, width: int) -> dmc.TextInput:
    return dmc.TextInput(
        id=f"prompt-patch-{key}",
        label=label,
        value=EXAMPLE[key],
        size="xs",
        w=width,
        className="wb-mono",
        persistence=True,
        persistence_type="session",
    )


def _options(words: dict[str, str]) -> list[dict[str, str]]:
    return [{"value": value, "label": label} for value, label in words.items()]


def register_patching(app: Dash) -> None:
    """Add the callbacks of the button and of the menu of stored maps."""
    fields = [State(f"prompt-patch-{key}", "value") for key in (*EXAMPLE, "what", "direction")]
    app.callback(
        Output("prompt-patch-result", "children"),
        Input("prompt-patch-go", "n_clicks"),
        State("prompt-model", "value"),
        *fields,
        State("scheme", "data"),
        running=[(Output("prompt-patch-go", "disabled"), True, False)],
        prevent_initial_call=True,
    )(_measure)
    app.callback(
        Output("prompt-patch-result", "children", allow_duplicate=True),
        Input("prompt-patch-stored", "value"),
        State("scheme", "data"),
        prevent_initial_call="initial_duplicate",
    )(_open)


def _measure(clicks: int | None, model: str, *given: str) -> Any:
    if not clicks:
        return no_update
    *texts, what, direction, scheme = given
    clean, corrupt, answer, wrong = ((text or "").rstrip("\n") for text in texts)

    def body() -> html.Div:
        found = current().live.patch(
            clean, corrupt, model=model, answer=answer, wrong=wrong, what=what, direction=direction
        )
        return effects(found, theme(scheme))

    return attempt(body)


def _open(name: str | None, scheme: str | None) -> Any:
    if not name:
        return no_update
    return attempt(lambda: effects(stored_map(current().workspace, name), theme(scheme)))


def stored_map(workspace: Workspace, name: str) -> PatchEffects:
    """Return the map of a patching artefact. Raises `UnknownNameError` with the nearest names, `CorruptError`."""
    manifest: Manifest = workspace.manifest("patching", name)
    path = workspace.table_path("patching", name, "effects")
    rows = workspace.query(f"select * from e order by abs(effect) desc limit {_SHOWN}", e=path).to_pylist()
    if lacking := [key for key in _NEEDED if key not in manifest.summary]:
        raise CorruptError(f"{path.parent} has no {lacking[0]!r} in its summary; it was edited or cut short")
    prompts = read_json(workspace.path("patching", name) / "prompts.json")
    return PatchEffects(
        model=str(manifest.config.get("model")),
        metric=str(manifest.config.get("metric")),
        records=rows,
        clean_tokens=[str(token) for token in prompts.get("clean_tokens", [])],
        corrupt_tokens=[str(token) for token in prompts.get("corrupt_tokens", [])],
        summary=manifest.summary,
    )


def effects(found: PatchEffects, colours: Theme) -> html.Div:
    """Return the numbers, the heat map, and the sentence that says what counts as found."""
    s, by_position = found.summary, bool(found.records and "position" in found.records[0])
    stats = [
        stat(f"metric: {found.metric}, clean prompt", f"{s['clean_metric']:+.2f}", METRIC),
        stat("corrupt prompt", f"{s['corrupt_metric']:+.2f}", METRIC),
        stat(
            "beyond the null", f"{s['n_beyond']:,} of {s['n_patches']:,}", "patches with a larger effect than any null"
        ),
        stat("largest null effect", f"{s['null_largest']:.3g}", str(s["null"])),
    ]
    tokens = [
        visible(clean, 12) if clean == corrupt else f"{visible(clean, 12)} / {visible(corrupt, 12)}"
        for clean, corrupt in zip(found.clean_tokens, found.corrupt_tokens, strict=False)
    ]
    figure = patching_map(found.records, colours, tokens=tokens if by_position else None, height=_height(found))
    note = (
        f"{found.model}, {s['what']}, {s['direction']}, {s['n_prompts']:,} pair{'s' * (s['n_prompts'] != 1)} of "
        f"prompts. A dot marks an effect larger than every effect of the null ({s['null']}); the chance of a false one "
        f"anywhere in the map is at most {s['level']:.2g}."
    )
    return html.Div(
        [
            html.Div(stats, className="wb-stats", dir="auto"),
            html.Div(graph("prompt-patch-map", figure=figure, label="Effects of patches"), className="wb-scroll"),
            html.P(note, className="wb-note"),
        ]
    )


def _height(found: PatchEffects) -> int:
    return min(640, 120 + 16 * (1 + max((record["layer"] for record in found.records), default=0)))
