"""*Changes*: two models compared, by the changes of weights, residual stream and heads, or by a crosscoder's latents.

A comparison of checkpoints (fine-tuning effects) shows every number with its null, and the causal evidence: parts of
one model transplanted into the other. A crosscoder reads both models at once; its latents are shared or of one model.
"""

from typing import Any

from dash import Dash, dcc, html

from dashboard.components.evidence import as_table, known, records_table
from dashboard.components.frame import graph, guarded, page, panel, stat
from dashboard.components.pages import (
    Context,
    Page,
    artefact_key,
    artefact_menu,
    changes_href,
    current,
    menu_choices,
    open_artefact,
    register_parts,
)
from dashboard.figures.changes import difference_histogram, stream_figure, transplant_figure, weights_figure
from dashboard.figures.theme import Theme, theme, visible
from interp.artifacts import MODEL_COMPARISONS, Manifest, read_json
from interp.errors import CorruptError, MissingError
from interp.workspace import Workspace

CHANGES = "changes.json"
_PARTS = {"findings": list, "weights": list, "representations": dict, "heads": list, "transplants": list}
MAX_LATENTS = 200_000


def changes(workspace: Workspace, manifest: Manifest) -> dict[str, Any]:
    """`changes.json`. Raises `CorruptError` where it is missing or lacks a part."""
    path = workspace.path(manifest.kind, manifest.name) / CHANGES
    try:
        raw = read_json(path)
    except MissingError:
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is") from None
    wrong = [key for key, kind in _PARTS.items() if not isinstance(raw.get(key), kind)]
    if wrong:
        raise CorruptError(f"{path} has no readable {wrong[0]!r}; it was edited or cut short")
    return raw


def latents(workspace: Workspace, manifest: Manifest) -> dict[str, list[Any]]:
    """Columns `latent, kind, relative_norm, cosine, n_fired, error_ratio, recons_ratio, confirmed` of a crosscoder."""
    path = workspace.table_path(manifest.kind, manifest.name, "latents")
    return workspace.query(f"select * from l limit {MAX_LATENTS}", l=path).to_pydict()


def own_latents(workspace: Workspace, manifest: Manifest, limit: int = 60) -> list[dict[str, Any]]:
    """Latents of one model only, confirmed ones first, then the most used."""
    path = workspace.table_path(manifest.kind, manifest.name, "latents")
    sql = (
        "select latent, kind, confirmed, n_fired, relative_norm, error_ratio, recons_ratio from l "
        "where kind in ('first only', 'second only') order by confirmed desc, n_fired desc limit ?"
    )
    return workspace.query(sql, limit, l=path).to_pylist()


HEIGHT = 380
_MEASURES = {
    "own_pattern": "attention pattern, by its own weights on the same input",
    "own_output": "output, by its own weights on the same input",
    "pattern": "attention pattern",
    "previous_token": "previous-token score",
    "induction": "induction score",
}
_OTHERS = {"shared": "in both", "between": "between", "rare": "rarely active"}


def layout(context: Context, name: str | None = None, **_: Any) -> html.Div:
    """`/changes?name=<comparison>`; without a name the newest."""
    manifest = open_artefact(context.workspace, MODEL_COMPARISONS, name)
    key = artefact_key(manifest)
    choices = menu_choices(context.workspace, MODEL_COMPARISONS, changes_href)
    return page(
        "Changes",
        dcc.Store(id="changes-state", data={"name": key}),
        html.Div(id="changes-parts"),
        controls=artefact_menu("Comparison", choices, changes_href(key), width=260, key=key),
        lead=_lead(manifest),
    )


def register(app: Dash) -> None:
    """Add the callback that draws the comparison."""
    register_parts(app, "changes", _show)


def _lead(manifest: Manifest) -> str:
    s = manifest.summary
    if manifest.kind == "model_comparison":
        return (
            f"Effects of fine-tuning {visible(str(s.get('base')), 60)} into {visible(str(s.get('tuned')), 60)}, each "
            f"number with its null: {visible(str(s.get('null')), 200)}."
        )
    first, second = visible(str(s.get("first")), 60), visible(str(s.get("second")), 60)
    return (
        f"Latents of a crosscoder of {first} and {second}. A latent that decodes into one model only is specific to "
        "that model, if latent scaling confirms it."
    )


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
    workspace = current().workspace
    manifest, colours = open_artefact(workspace, MODEL_COMPARISONS, state["name"]), theme(scheme)
    if manifest.kind == "latent_comparison":
        return _difference(workspace, manifest, colours)
    found = changes(workspace, manifest)
    return [
        _findings(found),
        html.Div(
            [
                guarded("Weights", lambda: _weights(found, colours),
                        note="norm of the change of a matrix over its norm; grey up to the bound of the null"),
                guarded("Residual stream", lambda: _stream(found, colours),
                        note="relative change after each layer; filled: beyond the null, corrected for all layers; "
                        "whiskers: 95 % over contexts"),
            ],
            className="wb-two wb-even",
        ),
        html.Div(
            [
                guarded("Transplanted parts", lambda: _transplants(found, colours), note=_behaviour(found)),
                guarded("Heads", lambda: _heads(found), note="changes beyond the null, corrected for all heads"),
            ],
            className="wb-two wb-even",
        ),
    ]  # fmt: skip


def _findings(found: dict[str, Any]) -> html.Section:
    said = [visible(str(each), 600) for each in found["findings"]]
    items = [html.Li(f"{each[:1].upper()}{each[1:]}.") for each in said]
    return panel("What was found", html.Ul(items, className="wb-said"), className="wb-findings")


def _behaviour(found: dict[str, Any]) -> str:
    asked = (found.get("summary") or {}).get("behaviour") or {}
    if not asked:
        return ""
    gap = f"{visible(str(asked.get('name')), 80)}: {known(asked.get('base'))} before, {known(asked.get('tuned'))} after"
    return f"{gap}; marks: random changes of the same norm in the same part; whiskers: 95 % over prompts"


def _weights(found: dict[str, Any], colours: Theme) -> list[Any]:
    rows = found["weights"]
    figure = weights_figure(rows, colours, height=max(HEIGHT, 120 + 22 * (2 + _n_layers(rows))))
    keys = ("name", "change", "null_high", "rank", "random_rank", "found")
    return [
        graph("changes-weights", figure=figure, label="Relative change of every matrix, by layer"),
        _table(rows, keys),
    ]


def _stream(found: dict[str, Any], colours: Theme) -> list[Any]:
    texts = found["representations"]
    rows = [{"text": text} | row for text, each in texts.items() for row in each]
    keys = ("text", "name", "change", "low", "high", "null_high", "cka", "found")
    figure = stream_figure(texts, colours, height=HEIGHT)
    return [graph("changes-stream", figure=figure, label="Relative change of the stream by layer", height=HEIGHT),
            _table(rows, keys)]  # fmt: skip


def _n_layers(rows: list[dict[str, Any]]) -> int:
    return len({row.get("layer") for row in rows})


def _transplants(found: dict[str, Any], colours: Theme) -> list[Any]:
    rows = found["transplants"]
    keys = ("name", *(f"{way}{end}" for way in ("carried", "removed") for end in ("", "_low", "_high", "_bound")))
    figure = transplant_figure(rows, colours)
    return [graph("changes-transplants", figure=figure, label="Fraction of the behaviour carried by each part"),
            _table([row for row in rows if row.get("changed")], keys)]  # fmt: skip


def _heads(found: dict[str, Any]) -> list[Any]:
    rows = sorted((row for row in found["heads"] if row.get("found")), key=_by_measure)
    if not rows:
        return [html.P("No head changed beyond its null.", className="wb-none")]
    shown = [
        {"head": row["head"], "measure": _MEASURES.get(row["measure"], row["measure"])}
        | {key: row.get(key) for key in ("value", "low", "high", "null_high")}
        for row in rows
    ]
    return [records_table(shown, limit=40)]


def _by_measure(row: dict[str, Any]) -> tuple[int, float]:
    known = [*_MEASURES]
    at = known.index(row["measure"]) if row["measure"] in known else len(known)
    return at, -abs(row.get("value") or 0.0)


def _difference(workspace: Workspace, manifest: Manifest, colours: Theme) -> list[Any]:
    s = manifest.summary
    first, second = str(s.get("first")), str(s.get("second"))
    counts = {
        f"{key}_only_confirmed": f"{visible(name, 40)} only" for key, name in (("second", second), ("first", first))
    }
    stats = [stat(words, known(s.get(key))) for key, words in (counts | _OTHERS).items()]

    def histogram() -> list[Any]:
        table = latents(workspace, manifest)
        figure = difference_histogram(
            table["relative_norm"], table["kind"], table["confirmed"], colours, first=first, second=second, height=360
        )
        label = f"Latents by how much of each lies in {second}"
        return [html.Div(stats, className="wb-stats"), graph("changes-latents", figure=figure, label=label, height=360)]

    def own() -> list[Any]:
        rows = own_latents(workspace, manifest)
        whose = {"first only": visible(first, 40), "second only": visible(second, 40)}
        if not rows:
            return [html.P("Every latent decodes into both models.", className="wb-none")]
        return [records_table([row | {"kind": f"{whose[row['kind']]} only"} for row in rows], limit=40)]

    ratios = "confirmed: it explains neither the error nor the reconstruction of the other model (ratios near 0)"
    return [
        guarded("Latents by model", histogram, note=f"measured on {known(s.get('n_tokens'))} held-out tokens"),
        guarded("Latents of one model", own, note=ratios),
    ]


def _table(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> html.Details | None:
    return as_table([{key: row.get(key) for key in keys} for row in rows])


PAGE = Page(
    title="Changes",
    path="/changes",
    order=100,
    layout=layout,
    register=register,
    shows="Fine-tuning effects: how far weights, residual stream and heads of a model moved from those of its base, "
    "each with its null, the same distance for models without the change in question; and the parts that carry a "
    "behaviour when transplanted.",
    command="workbench compare models BASE TUNED",
    fill=lambda _, model: ("compare models", {"base": model}),
)
