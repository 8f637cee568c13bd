"""The atlas view as a Dash component. Its other half is assets/atlas_component.js, plain JavaScript without a build.

Properties flow both ways: what a visitor changes arrives in callbacks, what a callback sets is shown.
"""

from typing import Any

from dash.development.base_component import Component, _explicitize_args

STATE = ("colour", "size", "search", "filter", "selection", "point", "at", "overlays")
"""what an address can hold; dashboard/assets/atlas/view.mjs says what each means"""
_PROPERTIES = ["id", "source", *STATE, "neighbours", "opened"]


class AtlasMap(Component):
    """A map to pan, zoom, search, colour and select on.

    `source`: where its data is served, `/atlas-data/<name>`. `neighbours`: numbers of points to join to the chosen one.
    `opened`: the point on which Enter was pressed, or that was double-clicked.
    """

    _children_props: list[str] = []  # noqa: RUF012 - as Dash declares it
    _base_nodes = ["children"]  # noqa: RUF012
    _namespace = "workbench_atlas"
    _type = "AtlasMap"
    _prop_names = _PROPERTIES
    _valid_wildcard_attributes: list[str] = []  # noqa: RUF012
    available_properties = _PROPERTIES
    available_wildcard_properties: list[str] = []  # noqa: RUF012

    @_explicitize_args
    def __init__(
        self,
        id: Any = None,
        source: str = "",
        colour: str = "",
        size: str = "",
        search: str = "",
        filter: str = "",
        selection: str = "",
        point: int | None = None,
        at: str = "",
        overlays: list[str] | None = None,
        neighbours: list[int] | None = None,
        opened: int | None = None,
        **extra: Any,
    ):
        given = extra.pop("_explicit_args")
        values = locals()
        super().__init__(**{name: values[name] for name in given if name in _PROPERTIES}, **extra)
