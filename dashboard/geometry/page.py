"""*Geometry*: the shape that lists of words have in a model, and how representations fill space.

Every number has its null.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from dash import Dash, dcc, html

from dashboard.components.evidence import as_table, number, percent
from dashboard.components.frame import ListLine, Part, attempt, choice_list, graph, page, panel, previous_next, verdict
from dashboard.components.measures import eigenvalues, evidence, missing_panel, signed
from dashboard.components.pages import Page, artefact_menu, geometry_href, menu_choices, page_of, register_parts
from dashboard.figures.geometry import (
    joined_by,
    order_over_layers,
    plane_figure,
    probe_over_layers,
    rotation_figure,
    short_hook_point,
    similarity_map,
    spectrum_figure,
    steering_figure,
)
from dashboard.figures.theme import Theme, theme, visible
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import Artefact, kinds_of
from interp.errors import UnknownNameError
from interp.geometry.circles import CircleTest
from interp.geometry.shapes import ClusterTest, Shape, Verdict
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.geometry.word_geometry import ConceptGeometry, WordGeometry
from interp.nulls import null_range
from interp.results import Record
from interp.workspace import Workspace

_OUTCOMES = {"nothing": "no shape", "ordered": "an order"}


def layout(context: PageSources, name: str | None = None, **address: Any) -> html.Div:
    """`/geometry?name=<artefact>&list=<list of words>`; without them the newest artefact and its first list."""
    workspace = context.workspace
    value = workspace.value(open_artefact(workspace, kinds_of("geometry"), name))
    if isinstance(value, WordGeometry):
        chosen = _list(value, address.get("list"))
        choices = [_choice_of_list(value, concept) for concept in value.lists.values()]
        at = [*value.lists].index(chosen.shape.name)
        shown = verdict_panel(chosen.shape, previous_next(choices, at))
        return _page(workspace, value, _with_choices(choices, at, shown), chosen.shape.name)
    top = verdict(f"{value.headline()}.", html.Ul([html.Li(visible(line, 600)) for line in value.details()]))
    return _page(workspace, value, html.Div([top, html.Div(id="geometry-parts")]))


def _page(workspace: Workspace, value: Artefact, body: html.Div, word_list: str | None = None) -> html.Div:
    menu = artefact_menu(
        "Artefact", menu_choices(workspace, kinds_of("geometry")), page_of(value.href), width=200, key=value.key
    )
    state = {"name": value.key, "list": word_list}
    return page("Geometry", dcc.Store(id="geometry-state", data=state), body, controls=menu)


def _with_choices(choices: list[ListLine], at: int, shown: Part) -> html.Div:
    return html.Div(
        [
            choice_list("Lists", choices, at),
            html.Div([shown, html.Div(id="geometry-parts")], className="wb-detail"),
        ],
        className="wb-chosen-one",
    )


def register(app: Dash) -> None:
    """Add the callback that draws the chosen list."""
    register_parts(app, "geometry", show_geometry)


def _list(geometry: WordGeometry, name: str | None) -> ConceptGeometry:
    """Return the list called `name`, else the first. Raises `UnknownNameError` with the nearest names."""
    if name and name not in geometry.lists:
        raise UnknownNameError("list of words", name, geometry.lists)
    return geometry.lists[name or next(iter(geometry.lists))]


def _choice_of_list(geometry: WordGeometry, concept: ConceptGeometry) -> ListLine:
    shape = concept.shape
    detail = f"{len(shape.words)} words {_where(shape.hook_point)} · {_p(shape)}"
    return ListLine(
        shape.name, _OUTCOMES.get(shape.verdict, shape.verdict), detail, geometry_href(geometry.key, list=shape.name)
    )


def _where(hook_point: str) -> str:
    shown = short_hook_point(hook_point)
    return "at the embedding" if shown == "embed" else f"after block {shown}" if shown.isdigit() else f"at {shown}"


def show_geometry(state: dict[str, str], scheme: str | None) -> list[Part]:
    """Return the panels of a list of words, a space, or a comparison of two spaces."""
    workspace, colours = current().workspace, theme(scheme)
    value = workspace.value(open_artefact(workspace, kinds_of("geometry"), state["name"]))
    if isinstance(value, WordGeometry):
        concept = _list(value, state["list"])
        shape = concept.shape
        return [
            _row(partial(plane_panel, shape, colours), partial(spectrum_panel, shape, colours)),
            _row(partial(order_panel, shape, colours), partial(probe_panel, concept, colours)),
            _row(partial(steering_panel, concept, colours), partial(rotation_panel, concept, colours)),
        ]
    if isinstance(value, SpaceComparison):
        return [attempt(partial(draw, value, colours)) for draw in (similarity_panel, pairs_panel)]
    assert isinstance(value, SpaceReport)
    return [attempt(partial(draw, value, colours)) for draw in (measures_panel, spectra_panel, relations_panel)]


def _row(*panels: Callable[[], html.Section]) -> html.Div:
    return html.Div([attempt(draw) for draw in panels], className="wb-two wb-even")


VERDICTS: dict[Verdict, str] = {
    "circle": "A circle: list neighbours are neighbours in the model, and the last word is next to the first",
    "line": "A line: list neighbours are neighbours in the model, and its ends are far apart",
    "ordered": "An order: list neighbours are neighbours in the model. Circle or open arc? Undecided",
    "cluster": "A cluster without an order: its words lie together, apart from other lists",
    "nothing": "No shape: neither an order nor a cluster",
    "undecided": "Undecided: the list is too short for an order to be significant",
}
_JOINED = {
    "closed": "joined in order, last to first too",
    "open": "joined in order",
    "unsure": "joined in order, and dotted from the last to the first",
    "": "not joined, as no order was found",
}


def verdict_panel(shape: Shape, actions: Sequence[Part]) -> html.Section:
    """Return the verdict, its reason, and every number behind it."""
    order, plane = shape.order, shape.plane
    rows = [
        ("as a circle", f"RSA {number(order.circular)}, p {number(order.p_circular)}"),
        ("as a line", f"RSA {number(order.linear)}, p {number(order.p_linear)}"),
        ("significance", _counts(order)),
        ("circle or open arc", f"{percent(order.p_open)} of simulated arcs look as closed, "
                               f"{percent(order.p_closed)} of simulated circles as open"),
        ("first to last", f"{number(order.gap)} steps apart (1 on a circle, {order.n - 1} on a line)"),
        ("a cluster", _cluster(shape.cluster)),
        ("on the plane", f"{percent(plane.share)} of the variance; the best plane of isotropic points has "
                         f"{percent(plane.isotropic_share)}"),
        ("tokens", number(shape.note)),
    ]  # fmt: skip
    return panel(
        html.Span(visible(shape.name, 80), dir="auto"),
        verdict(f"{VERDICTS[shape.verdict]} ({_p(shape)}).", html.P(["Why: ", visible(shape.reason, 400), "."]),
                html.P(f"Tested at {visible(shape.hook_point, 60)}; half of the sentences chose the layer and fitted "
                       "the shape, the other half tests it."), evidence(rows)),
        html.Ul([html.Li(visible(word, 60), dir="auto") for word in shape.words], className="wb-words",
                title="the words, in the order of the list"),
        actions=actions,
        className="wb-findings",
    )  # fmt: skip


def _p(shape: Shape) -> str:
    """Return the p-value of the verdict with its null: of the cluster for a cluster, else of the order."""
    order = shape.order
    if shape.verdict == "cluster" and shape.cluster is not None:
        return f"words dealt to lists at random: p {number(shape.cluster.p)}"
    p = {"circle": order.p_circular, "line": order.p_linear}.get(shape.verdict, min(order.p_circular, order.p_linear))
    return f"shuffled words: p {number(p)}"


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
    spectrum, null = shape.spectrum, shape.spectrum.isotropic
    needed = [{"share of the variance": f"{share} %", "components": count, "isotropic points": null.dims[share]}
              for share, count in spectrum.dims.items()]  # fmt: skip
    label = f"Spectrum of the words of {shape.name} against isotropic points"
    return panel(
        "Number of dimensions",
        graph("geometry-spectrum", figure=spectrum_figure(spectrum, colours, height=384), label=label, height=384),
        as_table(needed, "Components needed, as a table"),
        as_table(eigenvalues(spectrum), "Eigenvalues as a table"),
        note=f"participation ratio {number(spectrum.participation_ratio)}, isotropic points "
        f"{number(null.participation_ratio)}",
        more="Participation ratio: the effective dimension. Null: equally many isotropic points in the same number of "
        f"dimensions. Mean cosine of two words {number(spectrum.cosine_raw)}, after centring "
        f"{number(spectrum.cosine_centred)}. {spectrum.note}",
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
        more="RSA: rank correlation of distances in the model with those on a circle, or a line. One half of the "
        "sentences selects the layer, the other half is drawn. p: permutation test over orderings of the list, each at "
        "its best layer.",
    )


def probe_panel(concept: ConceptGeometry, colours: Theme) -> html.Section:
    """Return a linear probe over layers, or why there is none."""
    title = "Linear probe for words of the list"
    if isinstance(concept.probes, str):
        return missing_panel(title, concept.probes)
    table = [{"at": probe.hook_point} | _without(probe.to_records()[0], _COUNTS) for probe in concept.probes]
    label = f"Accuracy of a probe for {concept.shape.name} over layers, with base rate and control labels"
    figure = probe_over_layers(concept.probes, concept.shape.hook_point, colours)
    return panel(
        title,
        graph("geometry-probe", figure=figure, label=label, height=300),
        as_table(table),
        note=f"accuracy on {concept.probes[0].n_test} held-out words of this list and of the others, with two nulls",
        more="Base rate: always the more frequent class. Control labels: drawn at random for each word.",
    )


_COUNTS = ("hook_point", "n_train", "n_test", "n_documents", "n_classes", "seed")


def _without(record: Record, names: tuple[str, ...]) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def steering_panel(concept: ConceptGeometry, colours: Theme) -> html.Section:
    """Return the effect of steering towards the list, or the reason why it was not measured."""
    title, sweep = "Steering towards the list", concept.steering
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    label = f"Effect of steering towards {concept.shape.name} and loss on unrelated text, over strength"
    return panel(
        title,
        *steering_body(sweep, colours, "geometry-steering", label, "distances between the means"),
        more="Whiskers: 95 % intervals over prompts and over documents. Random directions have the same length.",
    )


def steering_body(sweep: StrengthSweep, colours: Theme, id: str, label: str, unit: str) -> list[Part]:
    """Return the verdict on a steering sweep, its figure and its numbers; `unit` is the meaning of strength 1."""
    figure = steering_figure(sweep, colours, unit=unit)
    rows: list[Record] = []
    for at, record in enumerate(sweep.to_records()):
        row = _without(record, ("random", "random_high", "random_side_effect"))
        draws = {"random effect": sweep.random_effect, "random side effect": sweep.random_side_effect}
        spans = {name: f"{number(draw[:, at].min().item())} to {number(draw[:, at].max().item())}"
                 for name, draw in draws.items()}  # fmt: skip
        rows.append(_bounded(row) | spans)
    method = (
        f"Strength 1 is {number(sweep.unit)} long, along the difference in means. Half of the prompts choose the "
        "strength with the largest effect that costs at most 0.1 nats of loss; the others judge. Unsteered probability "
        f"of its words: {number(sweep.baseline)}, mean of {sweep.n_prompts} prompts."
    )
    judged = verdict(_judged(sweep), html.P(f"{visible(sweep.sentence(), 600)}."), html.P(method))
    return [judged, graph(id, figure=figure, label=label, height=380), as_table(rows)]


def _judged(sweep: StrengthSweep) -> str:
    """Return the effect of the chosen strength on the prompts that did not choose it, in a sentence."""
    if sweep.chosen is None:
        return "No strength above 0 was chosen: each costs more than 0.1 nats of loss, or too few prompts exist."
    most, strength = float(sweep.judged_random.max()), number(sweep.strengths[sweep.chosen])
    return (
        f"Strength {strength} moves its words by {signed(sweep.judged_effect.estimate)} nats on held-out prompts; "
        f"random directions by at most {signed(most)}."
    )


def rotation_panel(concept: ConceptGeometry, colours: Theme) -> html.Section:
    """Return the effect of rotating words on their plane, or the reason why it was not measured."""
    title, sweep = "Rotation on the plane", concept.rotation
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    verb = "moves" if sweep.moves_output else "does not move"
    overall, low, high = sweep.overall
    label = f"Change of the answer when words of {concept.shape.name} are rotated"
    return panel(
        title,
        verdict(
            f"Rotating a word {verb} the answer: {signed(overall)} nats; in random directions or the other sense at "
            f"most {signed(sweep.random_high)}.",
            html.P(
                f"At {visible(sweep.hook_point, 60)}, interval {signed(low)} to {signed(high)}. The answer follows at "
                f"{sweep.n_following} of {len(sweep.steps)} steps; unrotated, {percent(sweep.baseline)} of "
                f"{sweep.n_prompts} prompts are right, by chance {percent(1 / sweep.n_items)}."
            ),
        ),
        graph("geometry-rotation", figure=rotation_figure(sweep, colours), label=label, height=380),
        as_table(_rotation_rows(sweep)),
        id="rotation",
    )


def _rotation_rows(sweep: RotationSweep) -> list[Record]:
    names = {"step": "rotated by", "effect": "moved", "low": "low", "high": "high", "random_high": "nulls, most"}
    names |= {"swapped": "swapped", "followed": "followed"}
    return [_bounded({new: row[old] for old, new in names.items()}) for row in sweep.to_records()]


def _bounded(row: Record) -> Record:
    """Return the row with None for ends of intervals that have no bound."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()}  # fmt: skip


def _counts(order: CircleTest) -> str:
    method = "counted" if order.exact else "drawn"
    return (
        f"up to p {number(order.alpha)}; the smallest possible is {number(order.smallest_p)} "
        f"({number(order.n_orderings)} orderings {method})"
    )


def _cluster(test: ClusterTest | None) -> str:
    if test is None:
        return "not tested: no other list to separate it from"
    null = null_range("words dealt to lists at random", number(test.null), number(test.null_high))
    return f"silhouette {number(test.silhouette)}, p {number(test.p)}; null: {null}"


_MEASURES = (
    ("cosine", None, "mean cosine", "of two different points; 0: directions spread evenly, 1: all alike"),
    ("participation_ratio", "isotropic", "participation ratio", "directions in use; 1: one has all the variance"),
    ("components_90", "isotropic_90", "components for 90 %", "principal components with 90 % of the variance"),
    ("two_nn", "two_nn_gaussian", "TwoNN dimension", "from ratios of the two nearest distances (Facco et al. 2017)"),
    ("mle", "mle_gaussian", "ML dimension", "maximum likelihood over neighbours (Levina and Bickel 2004)"),
    ("local_pca", "local_pca_gaussian", "local PCA dimension", "components of a neighbourhood"),
)
_PAIR = (
    ("cka", "cka_null", "CKA", "1: the same up to rotation and scale, 0: unrelated; null: shuffled rows"),
    (
        "procrustes",
        "procrustes_null",
        "Procrustes residual",
        "0: a rotation maps one onto the other; null: shuffled rows",
    ),
    ("transport_between", "transport_floor", "W2², squared units", "optimal transport; null: halves of one cloud"),
)


def measures_panel(report: SpaceReport, _: Theme) -> html.Section:
    """Return the measures of every space."""
    cells = [
        [visible(row["space"]), number(row["n"]), number(row["d"]), *_values(row, _MEASURES)]
        for row in report.to_records()
    ]
    head = [("space", ""), ("points", ""), ("width", ""), *((m[2], m[3]) for m in _MEASURES)]
    return panel(
        "Spaces",
        _table(head, cells),
        note="in brackets: the null",
        more="Null of the spectrum: isotropic points; of the intrinsic dimensions: Gaussian points of the same "
        "covariance.",
    )


def spectra_panel(report: SpaceReport, colours: Theme) -> html.Section:
    """Return the spectrum of every space."""
    parts = [
        html.Div([html.H3(visible(name)), graph(f"geometry-space-{at}", figure=spectrum_figure(spectrum, colours),
                                                label=f"Spectrum of {name}")])
        for at, (name, spectrum) in enumerate(report.spectra.items())
    ]  # fmt: skip
    return panel(
        "Spectra",
        *parts,
        note="fraction of the variance per principal component; diamonds: isotropic points",
        more="The isotropic points are equally many, in the same number of dimensions.",
    )


def relations_panel(report: SpaceReport, _: Theme) -> html.Section:
    """Return the accuracy of analogies among the token embeddings."""
    rows = [
        [name, number(relation.accuracy), number(max(relation.c_alone, relation.shuffled_high)), number(relation.n)]
        for name, relation in report.relations.items()
        if not isinstance(relation, str)
    ]
    head = [
        ("relation", ""),
        ("accuracy", "fraction of analogies whose expected word comes first, variants left out"),
        ("null", "the larger of shuffled pairs and the neighbours of the third word alone"),
        ("analogies", ""),
    ]
    none = html.P("Not measured: the words are not single tokens of this model.", className="wb-none")
    return panel("Analogies among token embeddings", _table(head, rows) if rows else none,
                 note="a is to b as c is to the nearest word to b − a + c")  # fmt: skip


def similarity_panel(comparison: SpaceComparison, colours: Theme) -> html.Section:
    """Return the CKA of all spaces with all."""
    largest = np.abs(comparison.cka.shuffled[~np.eye(len(comparison.spaces), dtype=bool)]).max(initial=0)
    return panel(
        "Similarity of all spaces",
        graph("geometry-cka", figure=similarity_map(comparison.cka, colours), label="CKA of all spaces with all"),
        note=f"unbiased CKA on {number(comparison.cka.n_rows)} tokens; shuffled rows at most {number(float(largest))}",
        more="1: the same up to rotation and scale; 0: unrelated.",
    )


def pairs_panel(comparison: SpaceComparison, _: Theme) -> html.Section:
    """Return the pairs that were compared closely."""
    cells = [[visible(row["first"]), visible(row["second"]), *_values(row, _PAIR)] for row in comparison.to_records()]
    head = [("first", ""), ("second", ""), *((m[2], m[3]) for m in _PAIR)]
    return panel("Pairs compared closely", _table(head, cells), note="in brackets: the null")


def _values(row: Record, measures: tuple[tuple[str, str | None, str, str], ...]) -> list[str]:
    cells: list[str] = []
    for key, null, *_ in measures:
        text = "–" if row[key] is None else number(row[key])
        cells.append(f"{text} ({number(row[null])})" if null and row[key] is not None else text)
    return cells


def _table(head: list[tuple[str, str]], rows: list[list[str]]) -> html.Div:
    titles = html.Tr([html.Th(name, scope="col", title=hint or None) for name, hint in head])
    body = [html.Tr([html.Td(cell, dir="auto") for cell in row]) for row in rows]
    return html.Div(
        html.Table([html.Thead(titles), html.Tbody(body)], className="wb-evidence wb-records"), className="wb-scroll"
    )


PAGE = Page(
    title="Geometry",
    path="/geometry",
    group="models",
    order=80,
    about="Circles, lines and clusters of words",
    layout=layout,
    register=register,
    shows="The shape that lists of words have in the residual stream (the weekdays as a circle, numbers as a line, "
    "countries as a cluster), each with a null distribution.",
    command="workbench geometry shapes MODEL",
    fill=lambda _, model: ("geometry shapes", {"model": model}),
)
