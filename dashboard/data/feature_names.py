"""Names of features as visitors type them, and the menu of a field for one: by number, or by a word of its label."""

from collections.abc import Mapping

from interp.workspace import Workspace
from saes.features.schema import MOST_TELLING, Features

N_PROPOSED = 40
"""Features of a table that the fields propose."""
_FIRST = f"select feature, label from f where n_fired > 0 order by {MOST_TELLING} limit ?"
N_MATCHING = 20
_MATCHING = f"""select feature, label from f where starts_with(feature::varchar, ?) or contains(lower(label), lower(?))
                order by feature::varchar != ?, {MOST_TELLING} limit ?"""


def is_name(text: str) -> bool:
    """Return True for a text of the form `NAME:NUMBER`."""
    head, _, number = text.strip().rpartition(":")
    return bool(head) and number.isdecimal() and len(number) < 10


def bare_name(text: str, default: str = "") -> str:
    """Return the name in a proposal, which its label follows; a number as one of `default`; another text as it is."""
    name, _, _ = text.strip().partition(" ")
    if default and text.strip().isdecimal():
        return f"{default}:{text.strip()}"
    return name if is_name(name) else text


def of_saes(workspace: Workspace) -> dict[str, str]:
    """Return the SAE that each features artefact describes, for `proposals`; neurons and sets are left out."""
    return {made.name: f"{made.sae}:" for made in workspace.values(Features) if made.sae}


def proposals(workspace: Workspace, text: str, starts: Mapping[str, str] | None = None) -> list[str]:
    """Return described features of a number, or with a text in their label, each as its name and label.

    Those that say most come first; without a text, the first of every table. `starts` has the features artefacts that
    are offered, each with what is written before the number; by default all, with their name.
    """
    text = bare_name(text).strip()
    if starts is None:
        starts = {made.name: f"{made.name}:" for made in workspace.newest("features")}
    proposed: list[str] = []
    for name, start in starts.items():
        number, _, _ = text.removeprefix(start).partition(" ")  # a label follows it, once it was chosen
        asked, values = (_MATCHING, (number, text, number, N_MATCHING)) if text else (_FIRST, (N_PROPOSED,))
        rows = workspace.query(asked, *values, f=workspace.table_path("features", name, "features"))
        proposed += [f"{start}{row['feature']} {row['label'] or ''}".strip() for row in rows.to_pylist()]
    return proposed
