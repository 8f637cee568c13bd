"""Columns of the feature tables, constants of readers and writers, and the check of their dictionary. Torch-free.

The meaning of every column is in `docs/formats.md`; a test compares the two.
"""

from typing import TYPE_CHECKING, Any

from interp.errors import MismatchError

if TYPE_CHECKING:
    import pyarrow as pa

    from interp.artifacts import Manifest
    from interp.workspace import Workspace

NEURONS = "neurons:"
"""Start of the name of a dictionary that is the neurons of an MLP; their hook point follows."""

# Example groups in the order in which they are stored and shown; `group_order` is the index in this tuple.
TOP = "top"
QUARTILES = ("q4", "q3", "q2", "q1")
"""`q4` holds firings from the strongest quarter of a feature's active values, `q1` from the weakest."""
GROUPS = (TOP, *QUARTILES)

N_EFFECTS = 10
"""Number of promoted and of suppressed tokens stored per feature."""
N_NEIGHBOURS = 10
"""Number of nearest neighbours by cosine similarity stored per feature."""
STATISTICS, CLASSES, CONTEXT = "token statistics", "word classes", "context"
SOURCES = (STATISTICS, CLASSES, CONTEXT)
"""Sources of labels that are made by rule, without a language model."""
MIN_HELDOUT = 5
"""Fewest held-out firings on which such a label is judged."""
LABEL_FIELDS = ("label_kind", "label_names", "label_share")
"""Columns with the fields of a label (`saes.features.labels.Label`)."""
LABEL_SCORES = ("label_score", "label_null", "label_null_high", "label_heldout")
"""Columns with the score of a label on held-out firings, its null, and their number; null where nothing was scored."""
OTHER_LABELS = ("other_labels", "other_sources", "other_scores")
"""Columns with the other readings that exceed their null."""
MOST_TELLING = """density between 2e-4 and 2e-2 desc,
    coalesce(label_kind = 'class' and label_heldout >= 10 and label_score > label_null_high, false) desc,
    coalesce(label_score - label_null_high, 0) desc, max_activation / greatest(mean_activation, 1e-9) desc, feature"""
"""SQL order of `features.parquet`, those that say most to a reader first: neither rare nor dense, and with a label
farthest above those of other features. Classes of words (months, pronouns) come before single tokens; without scored
labels, features whose maximum is farthest above their mean activation come first."""


def set_of(features: "Manifest") -> str:
    """Return the set of transcoders of which a feature table describes one layer; empty for other artefacts."""
    kind, _, name = str(features.config.get("dictionary", "")).partition(":")
    return name.rpartition(":")[0] if features.kind == "features" and kind == "transcoders" else ""


def described_another(workspace: "Workspace", features: "Manifest") -> str:
    """Return the sentence that the SAE in the workspace is not the one whose features were described, or nothing.

    It is another where it was made again under its name since: labels and examples are those of other directions. A
    deleted SAE, or one without a record, is not judged.
    """
    source, _, name = str(features.config.get("dictionary", "")).partition(":")
    recorded = features.parents.get(f"saes/{name}")
    if source != "sae" or recorded is None or name not in workspace.names("sae"):
        return ""
    if workspace.manifest("sae", name).content_hash == recorded:
        return ""
    named = "" if features.name == name else f" --name {features.name}"
    return (
        f"the SAE {name} was made again since its features {features.name} were described; "
        f"run `workbench features {name}{named} --overwrite`"
    )


def check_described(workspace: "Workspace", features: "Manifest") -> None:
    """Raise `MismatchError` where the SAE is not the one whose features were described (`described_another`)."""
    if found := described_another(workspace, features):
        raise MismatchError(found)


def score_in_words(row: dict[str, Any]) -> str:
    """Return the score of a label beside its null, or why there is none; empty where a label was written."""
    score, n = row["label_score"], row["label_heldout"]
    if n is None:
        return ""
    if score is None and n < MIN_HELDOUT:
        return f"too few firings to judge a reading: {n} held-out, {MIN_HELDOUT} needed"
    if score is None:
        return f"no reading scored above other features' labels on {n} held-out firings"
    return (
        f"balanced accuracy {score:.2f} on {n} held-out firings; other features' labels "
        f"{row['label_null']:.2f} on average, 95 % of them up to {row['label_null_high']:.2f}; 0.5 is chance"
    )


def other_readings(row: dict[str, Any]) -> list[str]:
    """Return the other readings that exceed their null, each with source and score."""
    columns = (row[name] or [] for name in OTHER_LABELS)
    return [f"{label}: {score:.2f}, {source}" for label, source, score in zip(*columns, strict=True)]


def features_schema() -> "pa.Schema":
    """Return the schema of `features.parquet`: one row per feature, sorted by `feature`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("feature", pa.int32()),
            ("density", pa.float64()),
            ("n_fired", pa.int64()),
            ("mean_activation", pa.float32()),
            ("max_activation", pa.float32()),
            ("decoder_norm", pa.float32()),
            ("label", pa.string()),
            ("label_source", pa.string()),
            *zip(LABEL_FIELDS, (pa.string(), pa.list_(pa.string()), pa.float32()), strict=True),
            *zip(LABEL_SCORES, (pa.float32(), pa.float32(), pa.float32(), pa.int32()), strict=True),
            *zip(OTHER_LABELS, map(pa.list_, (pa.string(), pa.string(), pa.float32())), strict=True),
            ("promoted_tokens", pa.list_(pa.string())),
            ("promoted_logits", pa.list_(pa.float32())),
            ("suppressed_tokens", pa.list_(pa.string())),
            ("suppressed_logits", pa.list_(pa.float32())),
            ("neighbours", pa.list_(pa.int32())),
            ("neighbour_cosines", pa.list_(pa.float32())),
            ("histogram", pa.list_(pa.int64())),
        ]
    )


def examples_schema() -> "pa.Schema":
    """Return the schema of `examples.parquet`: one row per example, sorted by `feature, group_order, rank`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("feature", pa.int32()),
            ("group", pa.string()),
            ("group_order", pa.int8()),
            ("rank", pa.int16()),
            ("activation", pa.float32()),
            ("row", pa.int64()),
            ("document", pa.int32()),
            ("position", pa.int32()),
            ("document_id", pa.string()),
            ("document_label", pa.string()),
            ("tokens", pa.list_(pa.string())),
            ("token_ids", pa.list_(pa.int32())),
            ("activations", pa.list_(pa.float32())),
            ("peak", pa.int16()),
        ]
    )


def relations_schema() -> "pa.Schema":
    """Return the schema of `relations.parquet`: one row per feature, sorted by `feature`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("feature", pa.int32()),
            ("logit_histogram", pa.list_(pa.int32())),
            ("promoted_p", pa.float32()),
            ("suppressed_p", pa.float32()),
            ("neuron_layers", pa.list_(pa.int16())),
            ("neurons", pa.list_(pa.int32())),
            ("neuron_cosines", pa.list_(pa.float32())),
            ("coactive", pa.list_(pa.int32())),
            ("coactive_jaccard", pa.list_(pa.float32())),
            ("coactive_tokens", pa.list_(pa.int32())),
            ("coactive_expected", pa.list_(pa.float32())),
        ]
    )
