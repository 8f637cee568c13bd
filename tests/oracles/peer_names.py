"""Names of other libraries on docs/howto/coming-from.md: `peer_names.py LIBRARY ...`, where they are installed.

Each must lead to something. `--freeze` keeps those of the libraries in `peer_names.txt`, against which the fast tests
check the page. Needs the standard library alone.
"""

import importlib
import re
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
KNOWN = Path(__file__).with_name("peer_names.txt")
LIBRARIES = {"TransformerLens": "transformer_lens", "SAELens": "sae_lens", "circuit-tracer": "circuit_tracer",
             "nnsight": "nnsight"}  # fmt: skip


def rows() -> list[tuple[str, str, str]]:
    """Return library, its name and ours, of every row of the page."""
    text = (ROOT / "docs" / "howto" / "coming-from.md").read_text(encoding="utf-8")
    found = []
    for part in text.split("\n## ")[1:]:
        library = LIBRARIES[part.partition("\n")[0]]
        found += [(library, *row) for row in re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|", part, flags=re.MULTILINE)]
    return found


def reached(path: str) -> object:
    """Return the object of a dotted path; a class may have the name of its module.

    Raises `AttributeError`, `ImportError`.
    """
    value: object = importlib.import_module(path.partition(".")[0])
    for part in path.split(".")[1:]:
        if hasattr(value, "__path__") and not hasattr(value, part):
            with suppress(ModuleNotFoundError):
                importlib.import_module(f"{getattr(value, '__name__', '')}.{part}")
        if getattr(value, "__file__", None) and not hasattr(value, part):
            value = getattr(value, str(getattr(value, "__name__", "")).rpartition(".")[2], value)
        value = getattr(value, part)
    return value


def main(libraries: list[str], freeze: bool) -> None:
    names = sorted({f"{library}.{name}" for library, name, _ in rows() if library in libraries})
    for name in names:
        print(f"{name}: {reached(name)!r:.60}")
    if freeze:
        others = [name for name in KNOWN.read_text().splitlines() if name.partition(".")[0] not in libraries]
        KNOWN.write_text("\n".join(sorted({*others, *names})) + "\n")


if __name__ == "__main__":
    main([each for each in sys.argv[1:] if each != "--freeze"], "--freeze" in sys.argv)
