"""Draw the map before the dashboard is up: on /atlas the head of the page names what the browser should fetch at once.

A page of Dash starts in a second or so; the map needs a few modules and one array. They are fetched and drawn meanwhile
(assets/atlas/early.mjs), and the component takes the drawn map over.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import flask
from dash import Dash

from dashboard.context import current
from dashboard.views import atlas as view
from interp.errors import WorkbenchError

_PATH = re.compile(r"^/atlas(?:/([^/]+))?/?$")
MODULES = sorted(path.name for path in (Path(__file__).parent / "assets" / "atlas").glob("*.mjs"))


class EarlyDash(Dash):
    """Dash whose page of the atlas begins with the map."""

    def interpolate_index(self, metas: str = "", *parts: Any, **named: Any) -> str:
        """The page as Dash builds it, with our lines in its head."""
        return super().interpolate_index(metas + head(self.get_asset_url), *parts, **named)


def head(asset_url: Any) -> str:
    """Lines for the head of the page being answered; none but on `/atlas`, and none for a map that is not there."""
    match = _PATH.match(unquote(flask.request.path))
    if match is None:
        return ""
    try:
        manifest = view.choose(current().workspace, match[1])
    except WorkbenchError:
        return ""  # the page says what is wrong
    data = f"/atlas-data/{quote(manifest.name)}"
    arrays = ["xy.bin"]
    if manifest.summary.get("n_levels"):
        level = manifest.summary.get("whole_map_level") or 0
        arrays += ["regions.json"] + ([] if flask.request.args.get("colour") else [f"level_{level}.bin"])
    modules = [f'<link rel="modulepreload" href="{asset_url(f"atlas/{module}")}">' for module in MODULES]
    return "\n".join(
        [
            f'<link rel="preload" as="fetch" crossorigin href="{data}/about.json" data-atlas="{data}">',
            *(f'<link rel="preload" as="fetch" crossorigin href="{data}/{array}">' for array in arrays),
            *modules,
            f'<script type="module" async src="{asset_url("atlas/early.mjs")}"></script>',
        ]
    )
