"""The panels of one list of words: a figure, its null, and the same numbers as a table."""

import math
from typing import Any

from dash import html

from dashboard.components.evidence import as_table, number, percent
from dashboard.components.frame import graph, panel
from dashboard.components.measures import eigenvalues, evidence, missing_panel, signed
from dashboard.figures.geometry import (
    joined_by,
    order_over_layers,
    plane_figure,
    probe_over_layers,
    rotation_figure,
    spectrum_figure,
    steering_figure,
)
from dashboard.figures.theme import Theme, visible
from interp.geometry.circles import CircleTest
from interp.geometry.shapes import ClusterTest, Shape, Verdict
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.geometry.word_geometry import ConceptGeometry
from interp.results import Record

VERDICTS: dict[Verdict, str] = {
    "circle": "A circle: neighbours in the list are neighbours in the model, and the last word is next to the first.",
    "line": "A line, straight or bent: neighbours in the list are neighbours in the model, and its ends are far apart.",
    "ordered": "An order: neighbours in the list are neighbours in the model; the test cannot tell circle from line.",
    "cluster": "A cluster: its words lie together, separate from those of other lists, without an order.",
    "nothing": "No shape: neither an order nor a cluster beyond the null distribution.",
    "undecided": "Undecided: the list is too short for an order to be significant.",
}
_JOINED = {
    "closed": "joined in order, last to first too",
    "open": "joined in order",
    "unsure": "joined in order, and dotted from the last to the first",
    "": "not joined, as no order was found",
}


def verdict_panel(shape: Shape, actions: list[Any]) -> html.Section:
    """Return the verdict, its reason, and every number behind it."""
    order, plane = shape.order, shape.plane
    rows = [
        ("as a circle", f"RSA {number(order.circular)}, p {number(order.p_circular)}"),
        ("as a line", f"RSA {number(order.linear)}, p {number(order.p_linear)}"),
        ("significance", _counts(order)),
        ("closed or open", f"{percent(order.p_open)} of simulated horseshoes look at least as closed, "
                           f"{percent(order.p_closed)} of simulated circles as open"),
        ("first to last", f"{number(order.gap)} steps apart (1 on a circle, {order.n - 1} on a line)"),
        ("a cluster", _cluster(shape.cluster)),
        ("on the plane", f"{percent(plane.share)} of the variance; the best plane of isotropic points has "
                         f"{percent(plane.isotropic_share)}"),
        ("tokens", number(shape.note)),
    ]  # fmt: skip
    return panel(
        html.Span(visible(shape.name, 80), dir="auto"),
        html.P(VERDICTS[shape.verdict], className="wb-verdict"),
        html.P(["Why: ", visible(shape.reason, 400), "."], className="wb-why"),
        html.Ul([html.Li(visible(word, 60), dir="auto") for word in shape.words], className="wb-words",
                title="the words, in the order of the list"),
        evidence(rows),
        note=f"tested at {visible(shape.hook_point, 60)}, the layer selected on the other half of the sentences",
        actions=actions,
        className="wb-findings",
    )  # fmt: skip


def plane_panel(shape: Shape, colours: Theme) -> html.Section:
    """Return the words on their plane."""
    halves = zip(("fit", "judge"), shape.coordinates.tolist(), strict=True)
    rows = [
        {"place": place, "word": word, "half": half, "x": x, "y": y}
        for half, points in halves
        for place, (word, (x, y)) in enumerate(zip(shape.words, points, strict=True))
    ]
    label = f"The words of {shape.name} on their plane, by both halves of the sentences"
    joined = _JOINED[joined_by(shape)]
    return panel(
        "On its plane",
        graph("geometry-plane", figure=plane_figure(shape, colours), label=label, height=420),
        as_table(rows),
        note=f"the words are {joined}",
        more="The first two principal components, found without the order of the list.",
    )


def spectrum_panel(shape: Shape, colours: Theme) -> html.Section:
    """Return the spectrum of the words: the number of dimensions that they span."""
    found, null = shape.spectrum, shape.spectrum.isotropic
    needed = [{"share of the variance": f"{share} %", "components": count, "isotropic points": null.dims[share]}
              for share, count in found.dims.items()]  # fmt: skip
    label = f"Spectrum of the words of {shape.name} against isotropic points"
    return panel(
        "Number of dimensions",
        graph("geometry-spectrum", figure=spectrum_figure(found, colours, height=384), label=label, height=384),
        as_table(needed, "Components needed, as a table"),
        as_table(eigenvalues(found), "Eigenvalues as a table"),
        note=f"participation ratio {number(found.participation_ratio)}, isotropic points "
        f"{number(null.participation_ratio)}; mean cosine of two words {number(found.cosine_raw)}, after centring "
        f"{number(found.cosine_centred)}. {found.note}",
        more="Participation ratio: the effective dimension. Null: equally many isotropic points in the same number of "
        "dimensions.",
    )


def order_panel(shape: Shape, colours: Theme) -> html.Section:
    """Return circular against linear RSA over layers."""
    table = [
        {"at": row["hook_point"], **{column: row[column] for column in ("circular", "linear", "silhouette")},
         "chosen": "chosen" if row["chosen"] else ""} for row in shape.to_records()
    ]  # fmt: skip
    label = f"Circular and linear RSA of {shape.name} over layers"
    return panel(
        "Circle or line?",
        graph("geometry-order", figure=order_over_layers(shape, colours), label=label, height=300),
        as_table(table),
        note=f"circle p {number(shape.order.p_circular)}, line p {number(shape.order.p_linear)}, smallest possible "
        f"{number(shape.order.smallest_p)}",
        more="RSA: rank correlation of distances in the model with those on a circle, or a line. One half of the "
        "sentences selects the layer, the other half is drawn. p: permutation test over orderings of the list, each at "
        "its best layer.",
    )


def probe_panel(found: ConceptGeometry, colours: Theme) -> html.Section:
    """Return a linear probe over layers, or why there is none."""
    title = "Linear probe for words of the list"
    if isinstance(found.probes, str):
        return missing_panel(title, found.probes)
    table = [{"at": each.hook_point} | _without(each.to_records()[0], _COUNTS) for each in found.probes]
    label = f"Accuracy of a probe for {found.shape.name} over layers, with base rate and control labels"
    figure = probe_over_layers(found.probes, found.shape.hook_point, colours)
    return panel(
        title,
        graph("geometry-probe", figure=figure, label=label, height=300),
        as_table(table),
        note=f"accuracy on {found.probes[0].n_test} held-out words of this list and of the others, with two nulls",
        more="Base rate: always the more frequent class. Control labels: drawn at random for each word.",
    )


_COUNTS = ("hook_point", "n_train", "n_test", "n_documents", "n_classes", "seed")


def _without(record: Record, names: tuple[str, ...]) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def steering_panel(found: ConceptGeometry, colours: Theme) -> html.Section:
    """Return the effect of steering towards the list, or the reason why it was not measured."""
    title, sweep = "Steering towards the list", found.steering
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    label = f"Effect of steering towards {found.shape.name} and loss on unrelated text, over strength"
    return panel(
        title,
        *steering_body(sweep, colours, "geometry-steering", label, "distances between the means"),
        note=f"at {visible(sweep.hook_point, 60)}, along the difference in means; strength 1 is its length, "
        f"{number(sweep.unit)}. Unsteered probability of its words: {number(sweep.baseline)}, mean of "
        f"{sweep.n_prompts} prompts",
        more="Whiskers: 95 % intervals over prompts and over documents. Random directions have the same length.",
    )


def steering_body(sweep: StrengthSweep, colours: Theme, id: str, label: str, unit: str) -> list[Any]:
    """Return the verdict on a steering sweep, its figure and its numbers; `unit` is the meaning of strength 1."""
    figure = steering_figure(sweep, colours, unit=unit)
    rows: list[Record] = []
    for at, record in enumerate(sweep.to_records()):
        row = _without(record, ("random", "random_high", "random_side_effect"))
        draws = {"random effect": sweep.random_effect, "random side effect": sweep.random_side_effect}
        spans = {name: f"{number(each[:, at].min().item())} to {number(each[:, at].max().item())}"
                 for name, each in draws.items()}  # fmt: skip
        rows.append(_bounded(row) | spans)
    return [html.P(_judged(sweep)), graph(id, figure=figure, label=label, height=380), as_table(rows)]


def _judged(sweep: StrengthSweep) -> str:
    """Return the effect of the chosen strength on the prompts that did not choose it, in a sentence."""
    if sweep.chosen is None:
        return "No strength above 0 was chosen: each costs more than 0.1 nats of loss, or too few prompts exist."
    effect, harm = sweep.judged_effect, sweep.judged_side_effect
    return (
        f"Half of the prompts and documents chose strength {number(sweep.strengths[sweep.chosen])}: the largest effect "
        f"that costs at most 0.1 nats of loss. On the other half ({sweep.n_judging} prompts) it moves "
        f"the targets by {signed(effect.estimate)} nats ({signed(effect.low)} to {signed(effect.high)}) and costs "
        f"{signed(harm.estimate)} ({signed(harm.low)} to {signed(harm.high)}); random directions move them by at most "
        f"{signed(float(sweep.judged_random.max()))}."
    )


def rotation_panel(found: ConceptGeometry, colours: Theme) -> html.Section:
    """Return the effect of rotating words on their plane, or the reason why it was not measured."""
    title, sweep = "Rotation on the plane", found.rotation
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    verb = "moves" if sweep.moves_output else "does not move"
    overall, low, high = sweep.overall
    label = f"Change of the answer when words of {found.shape.name} are rotated"
    return panel(
        title,
        graph("geometry-rotation", figure=rotation_figure(sweep, colours), label=label, height=380),
        as_table(_rotation_rows(sweep)),
        note=f"at {visible(sweep.hook_point, 60)}, rotation {verb} the answer: {signed(overall)} nats ({signed(low)} "
        f"to {signed(high)}), random directions at most {signed(sweep.random_high)}. The answer follows at "
        f"{sweep.n_following} of {len(sweep.steps)} steps; unrotated, {percent(sweep.baseline)} of {sweep.n_prompts} "
        f"prompts are right, by chance {percent(1 / sweep.n_items)}",
    )


def _rotation_rows(sweep: RotationSweep) -> list[Record]:
    names = {"step": "rotated by", "effect": "moved", "low": "low", "high": "high", "random_high": "random, most"}
    names |= {"swapped": "swapped", "followed": "followed"}
    return [_bounded({new: row[old] for old, new in names.items()}) for row in sweep.to_records()]


def _bounded(row: Record) -> Record:
    """Return the row with None for ends of intervals that have no bound."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()}  # fmt: skip


def _counts(order: CircleTest) -> str:
    how = "counted" if order.exact else "drawn"
    return (
        f"up to p {number(order.alpha)}; the smallest possible is {number(order.smallest_p)} "
        f"({number(order.n_orderings)} orderings {how})"
    )


def _cluster(found: ClusterTest | None) -> str:
    if found is None:
        return "not tested: no other list to separate it from"
    return (
        f"silhouette {number(found.silhouette)}, p {number(found.p)}; null (words shuffled among lists) "
        f"{number(found.null)}, at most {number(found.null_high)}"
    )
