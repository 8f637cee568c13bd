"""Pages over a workspace, served to this machine. The names below are public.

- `overview`, `atlas`, `feature`, `prompt`, `heads`, `circuit`, `graph`, `sae`, `geometry`, `dynamics`, `changes`,
  `compare`, `notes`: one folder per page (`page` the page, `data` what it reads from the workspace)
- `search`      the box in the bar of every page, and the features that it finds
- `runs`        a queue of analyses that are started from the page, and the page of it
- `components`  pieces that several pages share
- `figures`     results and tables in, plotly figures out; notebooks use them too
- `notebook`    what the pages show, in a notebook (`show`)
- `api`         the reads of the pages as JSON
- `app`         the Dash app, with the frame around every page
- `serve`       a port for it
- `security`    who may ask, and for what
"""

from typing import TYPE_CHECKING

from interp.runtime import lazily

if TYPE_CHECKING:
    from dashboard.app import create_app
    from dashboard.atlas.view import atlas_view
    from dashboard.notebook import show
    from dashboard.sae.data import read_log

_HOMES = {
    "dashboard.app": "create_app",
    "dashboard.atlas.view": "atlas_view",
    "dashboard.notebook": "show",
    "dashboard.sae.data": "read_log",
}

__getattr__, __all__ = lazily(__name__, _HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
