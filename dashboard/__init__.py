"""Pages over a workspace, served to this machine. The names below are public.

- `overview`, `atlas`, `feature`, `prompt`, `heads`, `head`, `circuit`, `graph`, `sae`, `geometry`, `directions`,
  `dynamics`, `changes`, `compare`, `doctor`, `notes`, `glossary`: one folder per page (`page` the page, `data` what it
  reads from the workspace); no page imports another
- `artefact`    the page of any artefact, from its class: of kinds that have no page of their own
- `search`      the box in the bar of every page, and the features that it finds
- `runs`        the page of the queue of analyses
- `data`        what several pages ask of a workspace
- `maps`        a map of an atlas as a component, for pages and notebooks
- `components`  pieces that several pages share
- `figures`     results and tables in, plotly figures out; notebooks use them too
- `sources`     the workspace, the models and the queue of a server, and the artefact that a page opens on
- `queue`       analyses that are started from the page, one at a time, and their files
- `requests`    routes as functions: their arguments are the body of a request, decoded
- `live`        the models of a server, which answer acts
- `turns`       the fair queue before the one model that answers prompts
- `answers`     values in the form that JSON allows
- `notebook`    what the pages show, in a notebook (`show`)
- `api`         the reads of the pages as JSON
- `palette`     what Ctrl K leads to: pages, artefacts, notes
- `app`         the Dash app, with the frame around every page
- `serve`       a port for it
- `_startup`    the libraries that it loads, without what a page does not need
- `security`    who may ask, and for what
"""

from typing import TYPE_CHECKING

from interp.packages import lazily

if TYPE_CHECKING:
    from dashboard.app import create_app
    from dashboard.maps.view import atlas_view
    from dashboard.notebook import show
    from dashboard.sae.data import read_log

__getattr__, __all__ = lazily(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
