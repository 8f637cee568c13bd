"""*Geometry*: the shape that lists of words have in a model, the meaning of directions, how representations fill space.

Every number has its null.
"""

from typing import Any

from dash import Dash, dcc, html

from dashboard.components.evidence import number
from dashboard.components.frame import Choice, choice_list, graph, guarded, page, panel, previous_next
from dashboard.components.pages import (
    Context,
    Page,
    artefact_key,
    artefact_menu,
    current,
    geometry_href,
    menu_choices,
    open_artefact,
    register_parts,
)
from dashboard.figures.geometry import short_hook_point, similarity_map, spectrum_figure
from dashboard.figures.theme import Theme, theme, visible
from dashboard.geometry import data as view
from dashboard.geometry.data import direction
from dashboard.geometry.panels import (
    direction_panels,
    direction_verdict,
    order_panel,
    plane_panel,
    probe_panel,
    rotation_panel,
    spectrum_panel,
    steering_panel,
    verdict_panel,
)
from interp.artifacts import GEOMETRY, Manifest, read_json
from interp.errors import CorruptError
from interp.workspace import Workspace

SPACES = ("space", "space_comparison")
_OUTCOMES = {"nothing": "no shape", "ordered": "an order"}
_MEASURES = (
    ("cosine", None, "mean cosine", "of two different points; 0: directions spread evenly, 1: all the same"),
    ("participation_ratio", "isotropic", "participation ratio", "directions in use: 1 one has all the variance"),
    ("components_90", "isotropic_90", "components for 90 %", "principal components that hold 90 % of the variance"),
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


def layout(context: Context, name: str | None = None, **address: Any) -> html.Div:
    """`/geometry?name=<artefact>&list=<list of words>`; without them the newest artefact and its first list."""
    workspace = context.workspace
    manifest = open_artefact(workspace, GEOMETRY, name)
    if manifest.kind == "direction":
        return _page_of_direction(workspace, manifest)
    if manifest.kind in SPACES:
        return page(
            "Geometry",
            dcc.Store(id="geometry-state", data={"name": artefact_key(manifest), "list": None}),
            html.Div(id="geometry-parts"),
            controls=_menu(workspace, manifest),
            lead=_space_lead(manifest),
        )
    lists = view.lists(workspace, manifest)
    chosen = view.find(lists, address.get("list"))
    choices = [_choice(manifest, each) for each in lists.values()]
    at = [*lists].index(chosen.name)
    choices += [_choice_of_direction(each) for each in view.directions_of(workspace, manifest)]
    return _page(
        workspace,
        manifest,
        {"name": artefact_key(manifest), "list": chosen.name},
        choices,
        at,
        verdict_panel(chosen, previous_next(choices, at)),
        _lead(manifest, lists),
    )


def _page_of_direction(workspace: Workspace, manifest: Manifest) -> html.Div:
    """Return the page of a direction, with the lists of the newest artefact of its model and the other directions."""
    found = direction(workspace, manifest)
    lists = view.lists_of_model(workspace, manifest)
    choices = [_choice(lists, each) for each in view.lists(workspace, lists).values()] if lists else []
    others = view.directions_of(workspace, manifest)
    at = len(choices) + [each.name for each in others].index(manifest.name)
    choices += [_choice_of_direction(each) for each in others]
    lead = f"The meaning of a direction in {manifest.config.get('model', 'a model')}: words along it, logits, steering."
    panel = direction_verdict(found, previous_next(choices, at))
    return _page(workspace, manifest, {"name": artefact_key(manifest), "list": None}, choices, at, panel, lead)


def _page(
    workspace: Workspace,
    manifest: Manifest,
    state: dict[str, Any],
    choices: list[Choice],
    at: int,
    verdict: html.Section,
    lead: str,
) -> html.Div:
    return page(
        "Geometry",
        dcc.Store(id="geometry-state", data=state),
        html.Div(
            [
                choice_list("Lists and directions", choices, at),
                html.Div([verdict, html.Div(id="geometry-parts")], className="wb-detail"),
            ],
            className="wb-chosen-one",
        ),
        controls=_menu(workspace, manifest),
        lead=lead,
    )


def _menu(workspace: Workspace, manifest: Manifest) -> html.Div:
    choices = menu_choices(workspace, GEOMETRY, geometry_href)
    key = artefact_key(manifest)
    return artefact_menu("Artefact", choices, geometry_href(key), width=200, key=key)


def register(app: Dash) -> None:
    """Add the callback that draws the chosen list or direction."""
    register_parts(app, "geometry", _show)


def _choice(artefact: Manifest, found: view.WordList) -> Choice:
    order = found.order
    p = [value for value in (order.get("p_circular"), order.get("p_linear")) if isinstance(value, int | float)]
    about = f"{len(found.words)} words {_where(found.hook_point)}"
    about += f" · p {number(min(p))}" if p else ""
    outcome = _OUTCOMES.get(found.verdict, found.verdict)
    return Choice(found.name, outcome, about, geometry_href(artefact_key(artefact), list=found.name))


def _where(hook_point: str) -> str:
    shown = short_hook_point(hook_point)
    return "at the embedding" if shown == "embed" else f"after block {shown}" if shown.isdigit() else f"at {shown}"


def _choice_of_direction(manifest: Manifest) -> Choice:
    summary = manifest.summary
    outcomes = {True: "steers the output", False: "no effect beyond random", None: "not steered"}
    moves = outcomes.get(summary.get("moves_output"), "not steered")
    apart = summary.get("set_apart") or []
    about = f"a direction {_where(str(summary.get('hook_point')))}"
    about += f" · separates {', '.join(map(str, apart[:3]))}" if apart else " · separates no list"
    return Choice(str(summary.get("direction") or manifest.name), moves, about, geometry_href(artefact_key(manifest)))


def _lead(manifest: Manifest, lists: dict[str, view.WordList]) -> str:
    sentences = manifest.config.get("sentences")
    read = (
        f"each word in {len(sentences)} sentences; half of the sentences choose the layer and fit the shape, the other "
        "half test it"
        if sentences
        else ""
    )
    count = "1 list of words" if len(lists) == 1 else f"{len(lists)} lists of words"
    return (
        f"The shape of lists of words in {manifest.config.get('model', 'a model')}: {count}, {read}".rstrip(", ") + "."
    )


def _show(state: dict[str, Any], scheme: str | None) -> list[Any]:
    workspace = current().workspace
    manifest = open_artefact(workspace, GEOMETRY, state["name"])
    if manifest.kind == "direction":
        return direction_panels(workspace, manifest.name, direction(workspace, manifest), theme(scheme))
    if manifest.kind in SPACES:
        return _space_panels(workspace, manifest, theme(scheme))
    chosen = view.find(view.lists(workspace, manifest), state["list"])
    colours = theme(scheme)
    return [
        html.Div([plane_panel(workspace, manifest.name, chosen, colours), spectrum_panel(chosen, colours)],
                 className="wb-two wb-even"),
        html.Div([order_panel(workspace, manifest.name, chosen, colours),
                  probe_panel(workspace, manifest.name, chosen, colours)], className="wb-two wb-even"),
        html.Div([steering_panel(chosen, colours), rotation_panel(chosen, colours)], className="wb-two wb-even"),
    ]  # fmt: skip


def _space_lead(manifest: Manifest) -> str:
    """Return one sentence about the artefact."""
    if manifest.kind == "space":
        return f"How the representations of {manifest.config.get('model', 'a model')} fill their space."
    models = [str(each) for each in manifest.config.get("models", [])]
    return f"How alike the representations of {' and '.join(models) or 'a model'} are, on the same tokens."


def _space_panels(workspace: Workspace, manifest: Manifest, colours: Theme) -> list[Any]:
    """Return the panels of a `space` or a `space_comparison`."""
    if manifest.kind == "space_comparison":
        return [_similarity(workspace, manifest, colours), _pairs(workspace, manifest)]
    return [_measures(workspace, manifest), _spectra(workspace, manifest, colours), _relations(manifest)]


def _measures(workspace: Workspace, manifest: Manifest) -> html.Section:
    def body() -> list[Any]:
        path = workspace.table_path("space", manifest.name, "spaces")
        rows = workspace.query("select * from s limit 500", s=path).to_pylist()
        cells = [[visible(row["space"]), number(row["n"]), number(row["d"]), *_values(row, _MEASURES)] for row in rows]
        return [_table([("space", ""), ("points", ""), ("width", ""), *((m[2], m[3]) for m in _MEASURES)], cells)]

    return guarded("Spaces", body, note="each number with its null in brackets: isotropic points for the spectrum, "
                   "Gaussian points of the same covariance for the intrinsic dimensions")  # fmt: skip


def _spectra(workspace: Workspace, manifest: Manifest, colours: Theme) -> html.Section:
    def body() -> list[Any]:
        path = workspace.path("space", manifest.name) / "space.json"
        spectra = read_json(path).get("spectra")
        if not isinstance(spectra, dict):
            raise CorruptError(f"{path} has no readable 'spectra'; it was edited or cut short")
        return [
            html.Div(
                [html.H3(visible(name)), graph(f"geometry-space-{at}", figure=spectrum_figure(found, colours),
                                               label=f"Spectrum of {name}")]
            )
            for at, (name, found) in enumerate(spectra.items())
        ]  # fmt: skip

    return guarded("Spectra", body, note="fraction of the variance per principal component; the diamonds are isotropic "
                   "points, as many in as many dimensions")  # fmt: skip


def _relations(manifest: Manifest) -> html.Section:
    found = manifest.summary.get("relations") or {}
    rows = [[name, *(number(each[key]) for key in ("accuracy", "null", "n"))] for name, each in found.items()]
    head = [
        ("relation", ""),
        ("accuracy", "fraction of analogies whose expected word comes first, variants left out"),
        ("null", "the larger of shuffled pairs and the neighbours of the third word alone"),
        ("analogies", ""),
    ]
    none = html.P("None: the words of the relations are not single tokens of this model.", className="wb-none")
    return panel("Analogies among token embeddings", _table(head, rows) if rows else none,
                 note="a is to b as c is to what? the nearest word to b − a + c")  # fmt: skip


def _similarity(workspace: Workspace, manifest: Manifest, colours: Theme) -> html.Section:
    def body() -> list[Any]:
        path = workspace.table_path("space_comparison", manifest.name, "cka")
        rows = workspace.query("select * from c limit 40000", c=path).to_pylist()
        return [graph("geometry-cka", figure=similarity_map(rows, colours), label="CKA of all spaces with all")]

    s = manifest.summary
    note = (
        f"unbiased CKA on {number(s.get('n_rows'))} tokens: 1 the same up to rotation and scale, 0 unrelated; shuffled "
        f"rows at most {number(s.get('null_largest'))}"
    )
    return guarded("Similarity of all spaces", body, note=note)


def _pairs(workspace: Workspace, manifest: Manifest) -> html.Section:
    def body() -> list[Any]:
        path = workspace.table_path("space_comparison", manifest.name, "pairs")
        rows = workspace.query("select * from p limit 500", p=path).to_pylist()
        cells = [[visible(row["first"]), visible(row["second"]), *_values(row, _PAIR)] for row in rows]
        return [_table([("first", ""), ("second", ""), *((m[2], m[3]) for m in _PAIR)], cells)]

    return guarded("Pairs compared closely", body, note="each number with its null in brackets")


def _values(row: dict[str, Any], measures: tuple[tuple[str, str | None, str, str], ...]) -> list[str]:
    cells = []
    for key, null, *_ in measures:
        value = row.get(key)
        text = "–" if value is None else number(value)
        cells.append(
            f"{text} ({number(row[null])})" if null and value is not None and row.get(null) is not None else text
        )
    return cells


def _table(head: list[tuple[str, str]], rows: list[list[str]]) -> html.Div:
    titles = html.Tr([html.Th(name, scope="col", title=about or None) for name, about in head])
    body = [html.Tr([html.Td(cell, dir="auto") for cell in row]) for row in rows]
    return html.Div(
        html.Table([html.Thead(titles), html.Tbody(body)], className="wb-evidence wb-records"), className="wb-scroll"
    )


PAGE = Page(
    title="Geometry",
    path="/geometry",
    order=80,
    layout=layout,
    register=register,
    shows="The shape that lists of words have in the residual stream (the weekdays as a circle, numbers as a line, "
    "countries as a cluster) and the meaning of single directions, each with a null distribution.",
    command="workbench geometry shapes MODEL",
    fill=lambda _, model: ("geometry shapes", {"model": model}),
)
