"""*Changes*: two models compared: words for a fine-tune, changes of weights and heads, or a crosscoder's latents.

A comparison of checkpoints (fine-tuning effects) shows every number with its null, and the causal evidence: parts of
one model transplanted into the other. A crosscoder reads both models at once; its latents are shared or of one model.
"""

from typing import Any

from dash import Dash, dcc, html

from dashboard.changes.word_panels import word_panels
from dashboard.components.evidence import as_table, number, records_table
from dashboard.components.frame import attempt, graph, guarded, page, stat
from dashboard.components.pages import (
    Context,
    Page,
    artefact_menu,
    changes_href,
    current,
    menu_choices,
    open_artefact,
    register_parts,
)
from dashboard.figures.changes import latents_histogram, stream_figure, transplant_figure, weights_figure
from dashboard.figures.theme import Theme, theme, visible
from interp.artifacts import MODEL_COMPARISONS, Artefact, as_json
from interp.changes.comparison import ModelComparison
from saes.evaluation.latent_comparison import LatentComparison

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
    workspace = context.workspace
    found = workspace.value(open_artefact(workspace, MODEL_COMPARISONS, name))
    choices = menu_choices(workspace, MODEL_COMPARISONS, changes_href)
    return page(
        "Changes",
        dcc.Store(id="changes-state", data={"name": found.key}),
        html.Div(id="changes-parts"),
        controls=artefact_menu("Comparison", choices, changes_href(found.key), width=260, key=found.key),
        lead=_lead(found),
    )


def register(app: Dash) -> None:
    """Add the callback that draws the comparison."""
    register_parts(app, "changes", show_comparison)


def _lead(found: Artefact) -> Any:
    if isinstance(found, ModelComparison):
        base, tuned = visible(found.base, 60), visible(found.tuned, 60)
        return attempt(
            lambda: (
                f"Effects of fine-tuning {base} into {tuned}, each number with its null: "
                f"{visible(found.weights.null, 200)}."
            )
        )
    assert isinstance(found, LatentComparison)
    return (
        f"Latents of a crosscoder of {visible(found.first, 60)} and {visible(found.second, 60)}. A latent that decodes "
        "into one model only is specific to it, if latent scaling confirms it."
    )


def show_comparison(state: dict[str, Any], scheme: str | None) -> list[Any]:
    """Return the panels of the comparison or the crosscoder that `state` names."""
    found, colours = current().workspace.open_key(state["name"]), theme(scheme)
    if isinstance(found, LatentComparison):
        return _latents_of_models(found, colours)
    assert isinstance(found, ModelComparison)
    return [
        guarded("What was found", lambda: _findings(found)),
        *word_panels(found),
        html.Div(
            [
                guarded("Weights", lambda: _weights(found, colours),
                        note="norm of the change over the norm of the matrix; grey: within the null"),
                guarded("Residual stream", lambda: _stream(found, colours),
                        note="relative change; filled: beyond the null, corrected for all layers; whiskers: 95 % over "
                        "contexts"),
            ],
            className="wb-two wb-even",
        ),
        html.Div(
            [
                guarded("Transplanted parts", lambda: _transplants(found, colours)),
                guarded("Heads", lambda: _heads(found), note="changes beyond the null, corrected for all heads"),
            ],
            className="wb-two wb-even",
        ),
    ]  # fmt: skip


def _findings(found: ModelComparison) -> list[Any]:
    said = [visible(each, 600) for each in found.sentences()]
    return [html.Ul([html.Li(f"{each[:1].upper()}{each[1:]}.") for each in said], className="wb-said")]


def _weights(found: ModelComparison, colours: Theme) -> list[Any]:
    rows = found.weights.changes
    n_layers = len({row.layer for row in rows})
    figure = weights_figure(rows, colours, height=max(HEIGHT, 120 + 22 * (2 + n_layers)))
    keys = ("name", "change", "null_high", "rank", "random_rank", "found")
    return [
        graph("changes-weights", figure=figure, label="Relative change of every matrix, by layer"),
        as_table(as_json([{key: getattr(row, key) for key in keys} for row in rows])),
    ]


def _stream(found: ModelComparison, colours: Theme) -> list[Any]:
    rows = [
        {"text": text, "name": row.name, **row.change.columns("change", "low", "high"), "null_high": row.null_high,
         "cka": row.cka.estimate, "found": row.found}
        for text, each in found.representations.items() for row in each.layers
    ]  # fmt: skip
    figure = stream_figure(found.representations, colours, height=HEIGHT)
    label = "Relative change of the residual stream by layer"
    return [graph("changes-stream", figure=figure, label=label, height=HEIGHT), as_table(as_json(rows))]


def _transplants(found: ModelComparison, colours: Theme) -> list[Any]:
    proof = found.transplants
    rows = [
        {"name": row.name} | row.carried.columns("carried") | {"carried_bound": row.carried_bound}
        | row.removed.columns("removed") | {"removed_bound": row.removed_bound}
        for row in proof.transplants if row.changed
    ]  # fmt: skip
    note = f"{visible(proof.behaviour, 80)}: {number(proof.base)} before, {number(proof.tuned)} after; marks: random "
    note += "changes of equal norm in the same part; whiskers: 95 % over prompts"
    figure = transplant_figure(proof.transplants, colours)
    return [html.P(note, className="wb-note"),
            graph("changes-transplants", figure=figure, label="Fraction of the behaviour carried by each part"),
            as_table(as_json(rows))]  # fmt: skip


def _heads(found: ModelComparison) -> list[Any]:
    rows = sorted(found.heads.shown(), key=lambda row: [*_MEASURES].index(row["measure"]))
    if not rows:
        return [html.P("No head changed beyond its null.", className="wb-none")]
    shown = [
        {"head": row["head"], "measure": _MEASURES[row["measure"]]}
        | {key: row[key] for key in ("value", "low", "high", "null_high")}
        for row in rows
    ]
    return [records_table(as_json(shown), limit=40)]


def _latents_of_models(found: LatentComparison, colours: Theme) -> list[Any]:
    first, second = visible(found.first, 40), visible(found.second, 40)
    named = {"second_only_confirmed": f"{second} only", "first_only_confirmed": f"{first} only"} | _OTHERS

    def histogram() -> list[Any]:
        stats = [stat(words, number(found.counts[key])) for key, words in named.items()]
        figure = latents_histogram(found, colours, height=360)
        label = f"Latents by how much of each lies in {found.second}"
        return [html.Div(stats, className="wb-stats"), graph("changes-latents", figure=figure, label=label, height=360)]

    def own() -> list[Any]:
        whose = {"first only": f"{first} only", "second only": f"{second} only"}
        rows = found.own(60)
        if not rows:
            return [html.P("Every latent decodes into both models.", className="wb-none")]
        keys = ("confirmed", "n_fired", "relative_norm", "error_ratio", "recons_ratio")
        shown = [
            {"latent": row.latent, "kind": whose[row.kind]} | {key: getattr(row, key) for key in keys} for row in rows
        ]
        return [records_table(as_json(shown), limit=40)]

    ratios = "confirmed: it explains neither the error nor the reconstruction of the other model (ratios near 0)"
    return [
        guarded("Latents by model", histogram, note=f"measured on {number(found.n_tokens)} held-out tokens"),
        guarded("Latents of one model", own, note=ratios),
    ]


PAGE = Page(
    title="Changes",
    path="/changes",
    order=100,
    layout=layout,
    register=register,
    shows="Fine-tuning effects: words for the change and texts of both models; how far weights, residual stream and "
    "heads moved from those of the base, each with its null, the same distance for models without the change in "
    "question; and the parts that carry a behaviour when transplanted.",
    command="workbench compare models BASE TUNED",
    fill=lambda _, model: ("compare models", {"base": model}),
)
