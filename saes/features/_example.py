"""The example of a feature that a hit of a search shows. Torch-free."""

from collections.abc import Sequence

from interp.workspace import Workspace
from saes.features._token_index import word_positions
from saes.features.found import Example
from saes.features.schema import Features


def shown_examples(
    workspace: Workspace, made: Features, features: Sequence[int], wanted: dict[str, int], related: dict[str, int]
) -> dict[int, Example]:
    """Return the example that each feature shows.

    It is the one in which the feature fires most on a word of `wanted`, a folded text with its number of tokens; else
    one that contains such a word; else the one in which it fires most on a `related` word; else its strongest.
    """
    sql = """select feature, tokens, activations, peak, document_label from e
             where feature in (select unnest(?::int[])) order by feature, group_order, rank"""
    table = workspace.query(sql, list(features), e=workspace.table_path("features", made.name, "examples"))
    best: dict[int, tuple[int, float]] = {}
    shown: dict[int, Example] = {}
    for row in table.to_pylist():
        tokens, activations = row["tokens"], row["activations"]
        positions, near = word_positions(tokens, wanted), word_positions(tokens, related)
        on, beside = ([i for i in at if activations[i] > 0] for at in (positions, near))
        rank = 3 if on else 2 if positions else 1 if beside else 0
        marked = on or ([] if positions else beside) or [row["peak"]]
        worth = rank, max(activations[i] for i in marked) if rank in (1, 3) else 0.0
        if worth > best.get(row["feature"], (-1, 0.0)):
            best[row["feature"]] = worth
            shown[row["feature"]] = Example(
                tuple(tokens), tuple(activations), tuple(marked), source=row["document_label"] or ""
            )
    return shown
