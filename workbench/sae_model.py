"""An SAE of the workspace inside its own model, as verbs need it that run prompts through both."""

from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.workspace import Workspace
    from saes.kinds.base import SAE


def open_saes(
    workspace: "Workspace", names: "Sequence[str]", *, model: str | None = None, allow_other_weights: bool = False
) -> "tuple[Any, list[SAE]]":
    """The model that some SAEs belong to, and the SAEs.

    Raises `UnknownNameError` (no such SAE), `ConfigError` (none named, or no model known), `MismatchError` (other
    weights).
    """
    from saes.weights.folder import check_model, load_sae

    if not names:
        raise ConfigError("name an SAE of the workspace")
    for name in names:
        workspace.manifest("sae", name)  # the clearer error when it is not there
    saes = [load_sae(workspace.path("sae", name)) for name in names]
    spec = model or next((sae.metadata.model for sae in saes if sae.metadata.model), "")
    if not spec:
        raise ConfigError(f"{names[0]} does not say which model it belongs to; add --model NAME")
    from interp.models.adapter import weight_hash
    from interp.models.loading import load_model

    loaded = load_model(spec)
    for sae in saes:
        check_model(sae, weight_hash(loaded), allow_other_weights=allow_other_weights)
    return loaded, saes


def feature_table(workspace: "Workspace", sae: str) -> dict[int, dict[str, Any]]:
    """`feature -> {label, max_activation}` from the features artefact of an SAE; empty when there is none."""
    found = [m.name for m in workspace.children("sae", sae) if m.kind == "features"]
    if not found:
        return {}
    path = workspace.table_path("features", sae if sae in found else found[0], "features")
    rows = workspace.query("select feature, label, max_activation from f", f=path).to_pylist()
    return {row["feature"]: row for row in rows}


def parents_of(workspace: "Workspace", names: "Sequence[str]") -> dict[str, str]:
    """Manifest entries of SAEs."""
    return {f"saes/{name}": workspace.manifest("sae", name).content_hash for name in names}


def unseen_positions(model: Any, *, include_bos: bool) -> int:
    """How many positions at the start to leave alone: SAEs do not see the BOS in training, whose residual is like no
    other."""
    from interp.models.adapter import bos_token_id

    return int(bos_token_id(model) is not None and not include_bos)
