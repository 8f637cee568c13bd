"""What reads the cells of an atlas: `workbench atlas --cells`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import ConfigError, MismatchError

if TYPE_CHECKING:
    from interp.artifacts import Manifest
    from interp.atlas.readouts import Readout
    from interp.atlas.sources import AtlasSource
    from interp.workspace import Workspace

AUTO, NONE, UNEMBEDDING = "auto", "none", "unembedding"


def with_readout(workspace: "Workspace", source: "AtlasSource", wanted: str = AUTO) -> "AtlasSource":
    """The source, its cells read by `auto`, `none`, `unembedding` or an SAE of the workspace.

    Raises `ConfigError` where the vectors are not what that reads, `MismatchError` for an SAE of another hook point,
    `UnknownNameError` for one that is not there.
    """
    kind, _, name = source.source.partition(":")
    if wanted == NONE:
        return replace(source, readout=None)
    if wanted == UNEMBEDDING:
        return replace(source, readout=_unembedding(workspace, source, kind, name))
    if wanted == AUTO:
        return _by_own_sae(workspace, source, name) if kind == "recording" else source
    manifest = workspace.manifest("sae", wanted)
    if kind != "recording":
        raise ConfigError(f"an SAE reads activations; {source.source} has none. Map a recording, or leave --cells out")
    if manifest.summary.get("hook_point") != source.hook_point:
        raise MismatchError(
            f"the SAE {wanted} reads {manifest.summary.get('hook_point')}, the map shows {source.hook_point}; "
            "give --hook-point or another SAE"
        )
    return _by_sae(workspace, source, manifest)


def _by_own_sae(workspace: "Workspace", source: "AtlasSource", recording: str) -> "AtlasSource":
    """Read by an SAE of this recording at this hook point, one whose features are described when there is one."""
    made = [m for m in workspace.children("recording", recording) if m.kind == "sae"]
    fitting = [m for m in made if m.summary.get("hook_point") == source.hook_point]
    if not fitting:
        return source
    return _by_sae(workspace, source, min(fitting, key=lambda m: (_features(workspace, m.name) is None, m.name)))


def _by_sae(workspace: "Workspace", source: "AtlasSource", manifest: "Manifest") -> "AtlasSource":
    from saes.atlas import dictionary_readout
    from saes.weights.folder import load_sae

    name = manifest.name
    readout = dictionary_readout(load_sae(workspace.path("sae", name)), name, _features(workspace, name))
    return replace(source, readout=readout, parents={**source.parents, f"saes/{name}": manifest.content_hash})


def _features(workspace: "Workspace", sae: str) -> Path | None:
    """The features folder of an SAE, the one of its name first."""
    found = [m.name for m in workspace.children("sae", sae) if m.kind == "features"]
    return workspace.path("features", sae if sae in found else found[0]) if found else None


def _unembedding(workspace: "Workspace", source: "AtlasSource", kind: str, name: str) -> "Readout":
    """Final norm and unembedding, of the model that the vectors belong to."""
    from interp.atlas.readouts import UnembeddingReadout

    if kind == "recording" and isinstance(source.readout, UnembeddingReadout):
        return source.readout
    if kind == "embeddings":
        from interp.models.loading import load_model

        return UnembeddingReadout(load_model(name))
    if kind == "sae":
        from saes.atlas import PromotedReadout
        from saes.effects import writes_to_residual
        from workbench.sae_model import open_saes

        model, (sae,) = open_saes(workspace, [name])
        if writes_to_residual(sae):
            return PromotedReadout(model)
    raise ConfigError(
        f"the unembedding reads the residual stream, what is added to it, and embeddings; not {source.source}"
        + (f" at {source.hook_point}" if source.hook_point else "")
    )
