"""The figure of a result: `plot(result)` finds it by the result's class.

    plot(score_heads(model), kind="previous_token")
    plot([ablations_of_one_task, ablations_of_another], theme="dark")

Imports run from the dashboard to the analyses, so results do not draw themselves: `FIGURES` says here how each class is
drawn. Classes are written as text, so that the analyses are not imported before there is a result of theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import plotly.graph_objects as go

from dashboard.figures import attribution, changes, circuit_tests, circuits, geometry, heads, saes, scaling, studies
from dashboard.figures._claims import claim_variations
from dashboard.figures.theme import Theme
from dashboard.figures.theme import theme as theme_called
from interp.circuits.head_scores import HeadScores
from interp.errors import ConfigError
from interp.studies.grokking_phases import Grokking
from interp.studies.induction_onset import InductionRun

Draw = Callable[..., go.Figure]


def plot(result: object, theme: Literal["light", "dark"] | Theme = "light", **options: Any) -> go.Figure:
    """Draw a result of an analysis, or several of one class (a list, or by name) where these are drawn together.

    Args:
        result: what an analysis returned.
        theme: "light" or "dark".
        options: of the figure: `height`, `kind` of head scores, `via` of composition.
    Returns: a plotly figure.
    Raises:
        ConfigError: a value that has no figure; the message names what has one.

    >>> figure = plot(logit_lens(model, tokens), theme="dark")
    >>> figure.layout.xaxis.title.text
    """
    colours = theme if isinstance(theme, Theme) else theme_called(theme)
    several = _several(result)
    first, table = (next(iter(several.values())), TOGETHER) if several else (result, FIGURES)
    if draw := _drawn_by(first, table):
        return draw(several or result, colours, **options)
    have = sorted(name.rpartition(".")[2] for name in FIGURES)
    raise ConfigError(
        f"{type(first).__name__} has no figure; these results have one: {', '.join(have)}; "
        f"several together: {', '.join(sorted(name.rpartition('.')[2] for name in TOGETHER))}"
    )


def has_figure(result: object) -> bool:
    """Return True for a single result whose class `plot` draws."""
    return _drawn_by(result, FIGURES) is not None


def _drawn_by(result: object, table: Mapping[str, Draw]) -> Draw | None:
    """Return what draws the class of a result, or the nearest of its bases."""
    names = (f"{cls.__module__}.{cls.__name__}" for cls in type(result).__mro__)
    return next((table[name] for name in names if name in table), None)


def _several(result: object) -> Mapping[Any, Any] | None:
    """Several results by name or by number; None for a single result."""
    if isinstance(result, list | tuple):
        return dict(enumerate(cast(Sequence[Any], result)))
    return result if isinstance(result, Mapping) else None


def _part(read: Callable[[Any], Any], draw: Draw) -> Draw:
    """Return what draws a part of a result."""
    return lambda result, colours, **options: draw(read(result), colours, **options)


def _heads(result: HeadScores, colours: Theme, *, kind: str = "induction", **options: Any) -> go.Figure:
    if kind not in result.kinds:
        raise ConfigError(f"no head was scored for {kind!r}; there are {', '.join(result.kinds)}")
    return heads.head_scores(result.of_kind(kind), colours, **options)


def _curve(result: Any, colours: Theme, *, total: int | None = None, **options: Any) -> go.Figure:
    total = total or round(max(n / share for n, share in zip(result.n_edges, result.fractions, strict=True)))
    return circuits.faithfulness_curve(result.points(), total, colours, **options)


def _composition(result: Any, colours: Theme, **options: Any) -> go.Figure:
    return circuits.composition_map(result.rows(), result.via, colours, **options)


def _ablations(results: Mapping[str, Any], colours: Theme, **options: Any) -> go.Figure:
    rows = [row for result in results.values() for row in result.rows()]
    return circuits.ablation_bars(rows, colours, **options)


def _compositions(results: Mapping[str, Any], colours: Theme, *, via: str = "k", **options: Any) -> go.Figure:
    rows = [row for result in results.values() for row in result.rows()]
    return circuits.composition_map(rows, via, colours, **options)


def _graph(result: Any, colours: Theme, *, kind: str = "graph", **options: Any) -> go.Figure:
    draw = {"graph": circuits.graph_figure, "agreement": circuits.agreement_figure}
    if kind not in draw:
        raise ConfigError(f"a graph is drawn as {' or '.join(draw)}, got {kind!r}")
    return draw[kind](result, colours, **options)


def _lens(result: Any, colours: Theme, **options: Any) -> go.Figure:
    cells: list[list[list[tuple[str, float]]]] = [[[] for _ in result.tokens] for _ in result.layers]
    for row in result.to_records():
        cells[row["layer"]][row["position"]] = [(top["token"], top["probability"]) for top in row["top"]]
    return heads.logit_lens(cells, list(result.layers), list(result.tokens), colours, **options)


def _distances(result: Any, colours: Theme, **options: Any) -> go.Figure:
    names = {"jacobian": "Jacobian lens", "mean": "mean residual alone", "logit": "logit lens", "tuned": "tuned lens",
             "shuffled": "other positions", "uncentred": "Jacobian without means"}  # fmt: skip
    rows = result.to_records()
    curves = {name: np.array([row[f"kl_{reading}"] for row in rows]) for reading, name in names.items()}
    labels: dict[str, Any] = {"x_title": "layer", "y_title": "nats from the model's output", "log": True}
    return studies.training_curves(range(len(rows)), curves, colours, **labels | options)


def _shares(result: Any, colours: Theme, **options: Any) -> go.Figure:
    mlps: list[float] = result.mlps.mean(-1).tolist() if any(part.endswith("MLP") for part in result.parts) else []
    return attribution.share_map(result.heads.mean(-1).tolist(), mlps, colours, **options)


def _pairs(result: Any, colours: Theme, **options: Any) -> go.Figure:
    parts = list(result.query_parts), list(result.key_parts)
    return attribution.pair_map(result.relative.numpy(), *parts, colours, **options)


def _patching(result: Any, colours: Theme, **options: Any) -> go.Figure:
    options.setdefault("tokens", result.prompts.clean)
    return attribution.patching_map(result.rows, colours, **options)


def _features(result: Any, colours: Theme, *, n: int = 20, **options: Any) -> go.Figure:
    parts = [(f"feature {feature}", effect) for feature, effect in result.top(n)]
    options.setdefault("unit", "metric")
    return attribution.share_bars([*parts, ("error", result.error_effect)], colours, **options)


def _grokking(result: Grokking, colours: Theme, *, seed: int = 0, **options: Any) -> go.Figure:
    pairs = {"training pairs": "train_accuracy", "other pairs": "test_accuracy"}
    curves = {name: result.curves[curve][:, seed] for name, curve in pairs.items()}
    labels: dict[str, Any] = {"x_title": "epoch", "y_title": "accuracy", "marks": vars(result.runs[seed].phases)}
    return studies.training_curves(result.epochs, curves, colours, **labels | options)


def _induction_run(result: InductionRun, colours: Theme, **options: Any) -> go.Figure:
    curves = {"first copy": result.curves["loss_first"], "second copy": result.curves["loss_repeat"]}
    labels: dict[str, Any] = {"y_title": "loss (nats per token)", "marks": {"onset": result.onset}}
    return studies.training_curves(result.steps, curves, colours, **labels | options)


FIGURES: dict[str, Draw] = {
    "interp.circuits.head_scores.HeadScores": _heads,
    "interp.circuits.heads_in_text.HeadsInText": heads.head_multiples,
    "interp.circuits.circuit.Circuit": circuits.circuit_plot,
    "interp.circuits.found_circuit.FoundCircuit": _part(lambda found: found.circuit, circuits.circuit_plot),
    "interp.tracing.graph.AttributionGraph": _graph,
    "interp.tracing.effects.EdgeSplit": circuits.split_figure,
    "interp.circuits.worst_case.WorstCase": circuit_tests.worst_case_curve,
    "interp.claims.Claim": claim_variations,
    "interp.circuits.find.Curve": _curve,
    "interp.circuits.head_weights.Composition": _composition,
    "interp.circuits.score_explanation.ScoreExplanation": _pairs,
    "interp.directions.monitor.Monitor": _part(lambda monitor: monitor.rows, geometry.monitor_rates),
    "interp.patching.ablation.Ablations": _part(lambda ablations: ablations.rows(), circuits.ablation_bars),
    "interp.patching.activation.ActivationPatching": _patching,
    "interp.patching.patching_map.PatchingMap": _patching,
    "interp.lenses.logit_lens.LogitLens": _lens,
    "interp.lenses.jacobian_lens.JacobianLens": _distances,
    "interp.lenses.direct_attribution.LogitAttribution": _shares,
    "saes.attribution.attribution.FeatureAttribution": _features,
    "interp.geometry.shapes.Shape": geometry.plane_figure,
    "interp.geometry.dimension.Spectrum": geometry.spectrum_figure,
    "interp.geometry.similarity.LayerSimilarity": geometry.similarity_map,
    "interp.geometry.sweeps.StrengthSweep": geometry.steering_figure,
    "interp.geometry.sweeps.RotationSweep": geometry.rotation_figure,
    "interp.directions.study.DirectionGeometry": _part(lambda study: study.along, geometry.along_figure),
    "interp.geometry.separation.WordsAlong": geometry.along_figure,
    "interp.changes.comparison.ModelComparison": _part(
        lambda compared: compared.changes.rows(), changes.changes_figure
    ),
    "saes.features.proof.Proof": saes.proof_nulls,
    "saes.evaluation.latent_comparison.LatentComparison": changes.latents_histogram,
    "saes.evaluation.scaling.SizeLaw": scaling.scaling_curves,
    "interp.studies.grokking_phases.Grokking": _grokking,
    "interp.studies.induction_onset.InductionRun": _induction_run,
}
"""Class of a result -> the function that draws it with the colours of a theme."""

TOGETHER: dict[str, Draw] = {
    "interp.patching.ablation.Ablations": _ablations,
    "interp.circuits.head_weights.Composition": _compositions,
}
"""The same for several results, by name."""
