"""Features to show first: those whose label and promoted words tell a reader most."""

from pathlib import Path

from interp.workspace import Workspace
from saes.features.meaning import Meaning
from saes.features.schema import MOST_TELLING, NOT_DENSEST

_JUDGED = "n_fired > 0 and label_score > label_null_high"
_NARROW = "coalesce(label_names[1], '') not in ('noun', 'verb', 'adjective')"


def telling(workspace: Workspace, name: str, meaning: Meaning | None, n: int = 3) -> list[tuple[int, str]]:
    """Return up to `n` features, (number, label), whose labels exceed their null; none that other features have too.

    With a `meaning`, those with the clearest promoted words: of eight at least six are whole, begin after a space, and
    begin in different ways; no two features share one. Without it, and where none is so clear, by `MOST_TELLING`. A
    class as wide as all nouns tells a reader nothing, so features with such a label come last.
    """
    table = workspace.table_path("features", name, "features")
    if meaning is not None and (clear := _clearest(workspace, table, meaning, n)):
        return clear
    sql = f"""select feature, label from f where {_JUDGED}
              qualify row_number() over (partition by regexp_replace(label, ' \\(.*', '') order by {MOST_TELLING}) = 1
              order by {_NARROW} desc, {MOST_TELLING} limit {n}"""
    return [(row["feature"], row["label"]) for row in workspace.query(sql, f=table).to_pylist()]


def _clearest(workspace: Workspace, table: Path, meaning: Meaning, n: int) -> list[tuple[int, str]]:
    sql = f"""select feature, label from f where {_JUDGED} and {_NARROW} and {NOT_DENSEST}
              and label_kind in ('written', 'said', 'class', 'word', 'token') order by feature"""
    rows = workspace.query(sql, f=table).to_pylist()
    strength = meaning.raised_strength[:, :8].mean(1)
    seen: set[str] = set()
    chosen: list[tuple[int, str]] = []
    for row in sorted(rows, key=lambda row: -strength[row["feature"]]):
        words = [token for token, _ in meaning.says(row["feature"], 8).raised]
        stems = {word.strip().lower()[:4] for word in words}
        whole = sum(word.startswith(" ") and word[1:].isalpha() and len(word) > 3 for word in words)
        if whole >= 6 and len(stems) >= 6 and not stems & seen:
            chosen.append((row["feature"], row["label"]))
            seen |= stems
        if len(chosen) == n:
            break
    return chosen
