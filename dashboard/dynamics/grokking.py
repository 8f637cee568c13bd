"""The panels of grokking: addition modulo a prime, memorised first, then generalised, with the circuit that forms."""

from math import log
from typing import Any

from dash import html

from dashboard.components.evidence import as_table, number, percent
from dashboard.components.frame import graph, guarded, panel, quiet_link, stat
from dashboard.components.pages import atlas_href
from dashboard.dynamics import data as view
from dashboard.dynamics.data import curve_rows
from dashboard.figures.studies import frequency_shares, training_curves
from dashboard.figures.theme import Theme
from dashboard.maps.view import atlas_view
from interp.artifacts import Manifest
from interp.workspace import Workspace

HEIGHT = 280
_MAPS = (
    "the embedding of every number at checkpoints, as aligned maps: move the slider. A map preserves neighbourhoods, "
    "not distances"
)


def lead(manifest: Manifest) -> str:
    """Return a sentence on what was trained."""
    c = manifest.config
    return (
        f"A small transformer learns to add modulo {c.get('p')} from {_percent(c.get('train_fraction'))} of all pairs, "
        f"with weight decay {c.get('weight_decay')}. It is measured every {c.get('log_every')} epochs, so epochs are "
        "known to that precision."
    )


def outcome(run: view.Run) -> tuple[str, str]:
    """Return the outcome of a seed, in two words and in a line."""
    found = run.found
    outcome = "grokked" if found.get("grokked") else "did not grok"
    epochs = [("memorised", found.get("memorised")), ("generalised", found.get("generalised"))]
    return outcome, ", ".join(
        f"{word} at {_epoch(value)}" if value is not None else f"never {word}" for word, value in epochs
    )


def summary_panel(manifest: Manifest, runs: list[view.Run], run: view.Run, actions: list[Any]) -> html.Section:
    """Return the phases of a seed, and those of all seeds as a table."""
    found = run.found
    learned, unknown = (_percent(manifest.summary.get(key)) for key in ("learned", "unknown"))
    stats = [
        stat("memorised", _epoch(found.get("memorised")), f"first epoch with training accuracy of {learned} or more"),
        stat("begins to generalise", _epoch(found.get("generalising")), f"with test accuracy of {unknown} or more"),
        stat("generalised", _epoch(found.get("generalised")), f"with test accuracy of {learned} or more"),
        stat("epochs in between", _epoch(found.get("gap")), "from memorised to the beginning of generalisation"),
    ]
    table = [
        {"seed": str(each.seed), "memorised": each.found.get("memorised"),
         **{phase: each.found.get(phase) for phase in ("generalising", "generalised")},
         "grokked": bool(each.found.get("grokked")),
         "frequencies of the logits": each.found.get("keys"),
         "of the embedding": each.found.get("embedding_keys")} for each in runs
    ]  # fmt: skip
    return panel(
        f"Seed {run.seed}",
        html.P(_verdict(found), className="wb-verdict"),
        html.P(_unseen(found), className="wb-why"),
        html.Div(stats, className="wb-stats"),
        as_table(table, "All seeds as a table"),
        note=f"grokked: accuracy reaches {learned} on training pairs while below {unknown} on all other pairs, and "
        f"{learned} on those later",
        actions=actions,
        className="wb-findings",
    )  # fmt: skip


def panels(workspace: Workspace, manifest: Manifest, runs: list[view.Run], run: view.Run, colours: Theme) -> list[Any]:
    """Return the panels: accuracy and loss, structure of the weights, frequencies, maps."""
    p = _modulus(manifest)
    marks = {"memorised": run.found.get("memorised"), "generalising": run.found.get("generalising"),
             "generalised": run.found.get("generalised")}  # fmt: skip
    return [
        html.Div(
            [
                guarded("Accuracy", lambda: _outside(workspace, manifest, run, marks, p, colours),
                        note="on the training pairs, and on all other pairs"),
                guarded("Loss, restricted and excluded", lambda: _inside(workspace, manifest, run, marks, p, colours),
                        note="restricted: loss on all pairs with the key frequencies of the logits alone; excluded: "
                        "loss on training pairs without them, the part that memorisation explains"),
            ],
            className="wb-two wb-even",
        ),
        html.Div(
            [
                guarded("Concentration of frequencies", lambda: _one(workspace, manifest, run, marks, "gini",
                                                        "Gini coefficient", colours),
                        note="Gini coefficient of the Fourier norms of the embedding: 0 if all are equal, near 1 if "
                        "few dominate"),
                guarded("Size of the weights", lambda: _one(workspace, manifest, run, marks, "weight_norm",
                                                        "sum of squares", colours),
                        note="sum of squares of all weights, which weight decay reduces"),
            ],
            className="wb-two wb-even",
        ),
        html.Div([_shares_panel(workspace, manifest, run, which, colours) for which in ("logits", "embedding")],
                 className="wb-two wb-even"),
        guarded("The numbers, over training", lambda: _maps(workspace, manifest.name), note=_MAPS),
    ]  # fmt: skip


def _outside(
    workspace: Workspace, manifest: Manifest, run: view.Run, marks: dict[str, Any], p: int | None, colours: Theme
) -> list[Any]:
    found = view.curves(workspace, manifest, run)
    shown = {"training pairs": found.get("train_accuracy"), "other pairs": found.get("test_accuracy")}
    figure = training_curves(found.steps, shown, colours, x_title="epoch", y_title="accuracy", marks=marks,
                             levels={f"chance, 1/{p}": 1 / p} if p else None, height=HEIGHT)  # fmt: skip
    figure.update_yaxes(range=[-0.03, 1.06], tickformat=".0%")
    return [graph("dynamics-outside", figure=figure, label="Accuracy over training", height=HEIGHT),
            as_table(curve_rows(found.steps, shown, "epoch"))]  # fmt: skip


def _inside(
    workspace: Workspace, manifest: Manifest, run: view.Run, marks: dict[str, Any], p: int | None, colours: Theme
) -> list[Any]:
    found = view.curves(workspace, manifest, run)
    shown = {each: found.get(f"{each}_loss") for each in ("train", "test", "restricted", "excluded")}
    figure = training_curves(found.steps, shown, colours, x_title="epoch", y_title="loss (nats)", log=True, marks=marks,
                             levels={"uniform guess": log(p)} if p else None, height=HEIGHT)  # fmt: skip
    figure.update_yaxes(dtick=1, exponentformat="power")
    return [graph("dynamics-inside", figure=figure, label="Losses over training", height=HEIGHT),
            as_table(curve_rows(found.steps, shown, "epoch"))]  # fmt: skip


def _one(
    workspace: Workspace,
    manifest: Manifest,
    run: view.Run,
    marks: dict[str, Any],
    curve: str,
    title: str,
    colours: Theme,
) -> list[Any]:
    found = view.curves(workspace, manifest, run)
    shown = {title: found.get(curve)}
    figure = training_curves(found.steps, shown, colours, x_title="epoch", y_title=title, marks=marks, height=220)
    figure.update_layout(showlegend=False)
    return [graph(f"dynamics-{curve.replace('_', '-')}", figure=figure, label=f"{title} over training", height=220),
            as_table(curve_rows(found.steps, shown, "epoch"))]  # fmt: skip


def _shares_panel(workspace: Workspace, manifest: Manifest, run: view.Run, which: str, colours: Theme) -> html.Section:
    keys = run.found.get("keys" if which == "logits" else "embedding_keys") or []
    p = _modulus(manifest)
    null = {"logits": f"in random logits each has about {percent(1 / p**2)}" if p else "",
            "embedding": f"an even share is {percent(2 / (p - 1))}" if p else ""}[which]  # fmt: skip
    found = f"key frequencies {', '.join(map(str, keys))}" if keys else "no frequency dominates at the end"

    def body() -> list[Any]:
        shares = view.shares(workspace, manifest.name, run.seed)
        values = getattr(shares, which)
        figure = frequency_shares(values, shares.steps, colours, keys=keys, height=320)
        last = [{"frequency": at, "share at the end": float(value), "key": at in keys}
                for at, value in enumerate(values[-1], 1)]  # fmt: skip
        label = f"Share of the power of every frequency in the {which}, over training"
        return [graph(f"dynamics-{which}", figure=figure, label=label, height=320), as_table(last)]

    return guarded(f"Frequencies in the {which}", body, note="; ".join(part for part in (found, null) if part))


def _maps(workspace: Workspace, name: str) -> list[Any]:
    manifest = view.series(workspace, name)
    if manifest is None:
        return [
            html.P("There is no atlas of the same name that maps the embedding at checkpoints.", className="wb-none")
        ]
    shown = atlas_view(workspace, name, colour="value", overlays=["labels", "minimap"]).component("dynamics-map")
    frames = [
        {"map": str(frame.get("name")), **{part: frame.get(part) for part in ("trustworthiness", "moved")},
         "true neighbours that stayed": frame.get("stayed")} for frame in manifest.summary["frames"]
    ]  # fmt: skip
    null = manifest.summary.get("moved_null") or {}
    still = f" Null: between maps of the same vectors points move by {number(null.get('median'))} (median), at most "
    still += f"{number(null.get('high'))}."
    of = view.seed_of(manifest)
    return [
        html.Div(shown, className="wb-map wb-map-inside"),
        html.P(
            [f"These are maps of seed {of}, whichever run is chosen." if of else "", still if null else "", " ",
             quiet_link("Open the map by itself", atlas_href(name)), "."],
            className="wb-note wb-flush",
        ),
        as_table(frames),
    ]  # fmt: skip


def _verdict(found: dict[str, Any]) -> str:
    if found.get("grokked"):
        known, understood = _epoch(found.get("memorised")), _epoch(found.get("generalised"))
        return f"It grokked: memorised at epoch {known}, generalised at epoch {understood}."
    if found.get("memorised") is None:
        return "It did not grok: it never memorised its training pairs."
    if found.get("generalising") is None:
        return "It did not grok: it memorised its training pairs, and never generalised."
    if found.get("generalised") is None:
        return "It had not grokked by the end of training: it had only begun to generalise."
    return "It did not grok: it generalised without memorising its training pairs first."


def _unseen(found: dict[str, Any]) -> str:
    """Return a sentence on the hidden progress between memorisation and generalisation, with the expected signs."""
    formed = found.get("formed_unseen")
    if not (isinstance(formed, list) and len(formed) == 2):
        return "There is no interval between memorisation and generalisation in which a circuit could form."
    restricted, excluded = formed
    as_expected = restricted < 0 < excluded
    return (
        f"Between memorisation and generalisation the restricted loss changed by {number(restricted, signed=True)} "
        f"nats and the excluded loss by {number(excluded, signed=True)}. A circuit that forms here lowers the first "
        f"and raises the second: {'both happened' if as_expected else 'not both happened'}."
    )


def _modulus(manifest: Manifest) -> int | None:
    p = manifest.config.get("p")
    return p if isinstance(p, int) and p > 2 else None


def _epoch(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else "never"


def _percent(value: Any) -> str:
    return percent(value) if isinstance(value, int | float) else "a part"
