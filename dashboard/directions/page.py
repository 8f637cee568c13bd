"""*Directions*: one direction of a model, its steering and its meaning, every number with its null."""

from functools import partial
from typing import Any

from dash import Dash, dcc, html

from dashboard.components.frame import attempt, page
from dashboard.components.pages import (
    Context,
    Page,
    artefact_menu,
    current,
    menu_choices,
    open_artefact,
    register_parts,
)
from dashboard.directions.meaning import along_panel, meaning_panel, planes_panel, side_panel, variance_panel
from dashboard.directions.panels import (
    apply_panel,
    curve_panel,
    grid_panel,
    methods_panel,
    samples_panel,
    verdict_panel,
)
from dashboard.directions.say import chat_panel
from dashboard.directions.say import register as register_chat
from dashboard.figures.theme import theme
from interp.artifacts import address_of
from interp.directions.study import DirectionGeometry

KIND = "direction"


def layout(context: Context, name: str | None = None, chat: str = "", **_: Any) -> html.Div:
    """`/directions/<name>`; without a name the newest direction. `chat` names a conversation that was kept."""
    workspace = context.workspace
    found = workspace.open(DirectionGeometry, open_artefact(workspace, (KIND,), name).name)
    choices = menu_choices(workspace, (KIND,), lambda key: address_of(KIND, key.rpartition("/")[2]))
    return page(
        "Directions",
        dcc.Store(id="directions-state", data=found.name),
        attempt(partial(verdict_panel, found)),
        attempt(partial(chat_panel, found, chat)),
        html.Div(id="directions-parts"),
        controls=artefact_menu("Direction", choices, found.href, width=260, key=found.key),
        lead=f"A direction in {found.settings.model}: the effect and the cost of steering along it, and its meaning.",
    )


def register(app: Dash) -> None:
    """Add the callback that draws the figures, and the chats."""
    register_chat(app)
    register_parts(app, "directions", show_direction)


def show_direction(name: str, scheme: str | None) -> list[Any]:
    """Return the panels of a direction, two in a row."""
    found, colours = current().workspace.open(DirectionGeometry, name), theme(scheme)
    rows = [
        (partial(curve_panel, found, colours), partial(samples_panel, found)),
        (partial(grid_panel, found, colours), partial(methods_panel, found)),
        (partial(meaning_panel, found), partial(along_panel, found, colours)),
        (partial(side_panel, found, colours), partial(planes_panel, found, colours)),
        (partial(variance_panel, found, colours), partial(apply_panel, found)),
    ]
    drawn = [[part for each in row if (part := attempt(each)) is not None] for row in rows]
    return [
        html.Div(parts, className="wb-two wb-even" if len(parts) > 1 else "wb-two wb-one") for parts in drawn if parts
    ]


PAGE = Page(
    title="Directions",
    path="/directions",
    templates=("/directions/<name>",),
    order=82,
    layout=layout,
    register=register,
    shows="Directions that steer a model: made from pairs of texts, two lists of words, a trait or a feature, at a "
    "layer and strength that were chosen on one half of the examples and judged on the other.",
    command="workbench direction MODEL --towards WORDS --away WORDS",
    fill=lambda _, model: ("direction", {"model": model}),
)
