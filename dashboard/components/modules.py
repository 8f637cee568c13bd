"""Scripts of assets/ in a page that needs no server: an import map whose addresses hold the modules themselves.

imports = import_map([ASSETS / "dom.mjs", ASSETS / "http.mjs"])     # of page/dom and page/http
"""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
_IMPORT = re.compile(r"""from "\.{1,2}/(\w+)\.mjs";""")


def import_map(paths: Iterable[Path]) -> str:
    """Return the JSON of an import map that holds modules, each as `page/<its file's name without ending>`."""
    scripts = {f"page/{path.stem}": base64.b64encode(_bare(path)).decode() for path in paths}
    return inert(
        json.dumps({"imports": {name: f"data:text/javascript;base64,{text}" for name, text in scripts.items()}})
    )


def _bare(path: Path) -> bytes:
    """Return a module whose imports are names that the import map knows, as a data address cannot be built upon."""
    return _IMPORT.sub(r'from "page/\1";', path.read_text(encoding="utf-8")).encode()


def inert(text: str) -> str:
    """Escape JSON so that it cannot end the script element around it."""
    return text.replace("<", "\\u003c")
