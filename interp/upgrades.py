"""Conversion of artefacts of earlier versions: one function per kind that has changed since. Torch-free.

`upgrade` takes a manifest, or the status of unfinished work, as read from disk, and returns it in the current schema.
No file is changed. Everything that reads either calls it (`interp.artifacts.read_manifest`, `Draft.open`).

Schema 2 (November 2026) gave every format a kind of its own. Until then `evaluation` was the kind of five formats,
`circuit` and `dynamics` of three each, `geometry` of two. Folders of schema 1 remain where they are (`FORMER_FOLDERS`).
Their content hash covers the training log, as their children recorded it (`interp.artifacts.hash_files`).
"""

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]

FORMER_FOLDERS = {
    **dict.fromkeys(("sae_comparison", "size_law", "latent_comparison", "model_comparison"), "evaluations"),
    **dict.fromkeys(("induction_circuit", "edge_circuit", "feature_circuit"), "circuits"),
    **dict.fromkeys(("word_geometry", "direction"), "geometry"),
    **dict.fromkeys(("grokking", "induction_onset", "language_scaling"), "dynamics"),
}
"""Folder of a workspace in which schema 1 put the artefacts of each present kind."""


def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest or a status in the current schema; one that has it already is returned unchanged."""
    kind_of = _CHANGED.get(str(raw.get("kind")))
    if kind_of is None or raw.get("schema_version", 1) != 1:
        return raw
    config = raw.get("config")
    return raw | {"kind": kind_of(config if isinstance(config, dict) else {})}


def _evaluation(config: Config) -> str:
    """Return which of the five former evaluations has these settings."""
    if "base" in config:
        return "model_comparison"
    if "recordings" in config:
        return "latent_comparison"
    if "saes" in config:
        return "size_law" if "n_bootstrap" in config else "sae_comparison"
    return "evaluation"


def _circuit(config: Config) -> str:
    """Return which of the three former circuits has these settings."""
    return {"induction": "induction_circuit", "features": "feature_circuit"}.get(config.get("kind", ""), "edge_circuit")


def _geometry(config: Config) -> str:
    """Return which of the two former geometries has these settings."""
    return "direction" if "direction" in config else "word_geometry"


def _dynamics(config: Config) -> str:
    """Return which of the three former studies of training has these settings."""
    return {"induction": "induction_onset", "scaling": "language_scaling"}.get(config.get("kind", ""), "grokking")


_CHANGED: dict[str, Callable[[Config], str]] = {
    "evaluation": _evaluation,
    "circuit": _circuit,
    "geometry": _geometry,
    "dynamics": _dynamics,
}
