"""What several verbs need: the dictionary that a name stands for, and the model that a recording came from.

What reads the cells of an atlas: `workbench atlas --cells`.

An SAE of the workspace inside its own model, as verbs need it that run prompts through both.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.errors import ConfigError, MismatchError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.artifacts import Manifest
    from interp.atlas.cells import Readout
    from interp.atlas.sources import AtlasSource
    from interp.dictionary import Dictionary
    from interp.recording.store import Recording
    from interp.workspace import Workspace
    from saes.kinds.base import SAE


NEURONS = "neurons:"


@dataclass(frozen=True, kw_only=True)
class ChosenDictionary:
    """An SAE of the workspace or the neurons of a layer, with the recording to look at it through."""

    workspace: "Workspace"
    source: str
    recording: "Recording"

    @property
    def is_neurons(self) -> bool:
        return self.source.startswith(NEURONS)

    @property
    def name(self) -> str:
        return self.source.removeprefix(NEURONS)

    @property
    def full_name(self) -> str:
        return self.source if self.is_neurons else f"sae:{self.source}"

    @property
    def parents(self) -> dict[str, str]:
        """The SAE's manifest entry; neurons have the model alone."""
        if self.is_neurons:
            return {}
        return {f"saes/{self.name}": self.workspace.manifest("sae", self.name).content_hash}

    def load(self, model: Any, *, allow_other_weights: bool = False) -> "Dictionary":
        """The dictionary itself. Raises `MismatchError` when an SAE belongs to other weights."""
        if self.is_neurons:
            from saes.features.sources import neurons_of

            return neurons_of(model, self.recording.check_hook_point(self.name))
        return self.load_sae(allow_other_weights=allow_other_weights)

    def load_sae(self, *, allow_other_weights: bool = False) -> "SAE":
        """The SAE. Raises `MismatchError` when the recording comes from other weights."""
        from saes.weights.folder import check_model, load_sae

        sae = load_sae(self.workspace.path("sae", self.name))
        check_model(sae, self.recording.weight_hash, allow_other_weights=allow_other_weights)
        return sae


def open_dictionary(workspace: "Workspace", source: str, recording: str | None) -> ChosenDictionary:
    """What `source` (an SAE's name, or `neurons:HOOK_POINT`) and an optional recording name stand for."""
    from interp.recording.live import open_recording

    if source.startswith(NEURONS):
        if recording is None:
            raise ConfigError(f"{source} needs a recording to pass over; add --recording NAME")
    else:
        recording = recording or workspace.manifest("sae", source).config.get("recording")
        if recording is None:
            raise ConfigError(f"{source} was imported, so no recording is its own; add --recording NAME")
    workspace.manifest("recording", recording)  # the clearer error when it is not there
    return ChosenDictionary(
        workspace=workspace, source=source, recording=open_recording(workspace.path("recording", recording))
    )


def open_recording_model(recording: "Recording", *, device: str | None = None) -> Any:
    """The model that a recording came from, with the same weights.

    Raises `MismatchError` when the name now stands for other weights.
    """
    from interp.models.adapter import weight_hash
    from interp.models.loading import load_model

    model = load_model(recording.model, device=device)
    if weight_hash(model) != recording.weight_hash:
        raise MismatchError(
            f"{recording.model!r} now has other weights than when {recording.key} was recorded; record it again"
        )
    return model


def open_atlas_source(
    workspace: "Workspace", source: str, hook_point: str | None, max_points: int | None, seed: int
) -> "AtlasSource":
    """The vectors that `KIND:NAME` stands for (`workbench atlas --help` lists the kinds)."""
    kind, _, name = source.partition(":")
    openers = {
        "embeddings": lambda: _of_model(name, kind),
        "unembeddings": lambda: _of_model(name, kind),
        "recording": lambda: _recorded(workspace, name, hook_point, max_points, seed),
        "sae": lambda: _sae_directions(workspace, name, "decoder"),
        "encoder": lambda: _sae_directions(workspace, name, "encoder"),
        "heads": lambda: _heads(workspace, name),
        "heads-ov": lambda: _of_model(name, kind),
        "heads-qk": lambda: _of_model(name, kind),
        "file": lambda: _file(name),
    }
    if kind not in openers or not name:
        raise UnknownNameError("atlas source", source, [f"{each}:NAME" for each in openers])
    return openers[kind]()


def open_mapped_source(workspace: "Workspace", atlas: str) -> "AtlasSource":
    """The vectors that an atlas of this workspace was made of, opened again."""
    config = workspace.manifest("atlas", atlas).config
    if config.get("onto") or config.get("frames"):
        raise ConfigError(f"{atlas} was itself made from other maps; place points on a map of one source")
    seed = workspace.manifest("atlas", atlas).seed or 0
    return open_atlas_source(workspace, config["source"], config.get("hook_point"), config["max_points"], seed)


def _of_model(name: str, kind: str) -> "AtlasSource":
    from interp.atlas.sources import embedding_source, head_circuit_source, unembedding_source
    from interp.models.adapter import weight_hash
    from interp.models.loading import load_model

    model = load_model(name)
    digest = weight_hash(model)
    if kind == "embeddings":
        return embedding_source(model, name, weight_hash=digest)
    if kind == "unembeddings":
        return unembedding_source(model, name, weight_hash=digest)
    return head_circuit_source(model, name, "ov" if kind == "heads-ov" else "qk", weight_hash=digest)


def _heads(workspace: "Workspace", name: str) -> "AtlasSource":
    from interp.atlas.sources import head_score_source

    workspace.manifest("heads", name)  # the clearer error when it is not there
    return head_score_source(workspace.path("heads", name))


def _sae_directions(workspace: "Workspace", name: str, side: Literal["decoder", "encoder"]) -> "AtlasSource":
    from saes.features.sources import sae_source
    from saes.weights.folder import load_sae

    parents = {f"saes/{name}": workspace.manifest("sae", name).content_hash}
    sae = load_sae(workspace.path("sae", name))
    described = [m.name for m in workspace.children("sae", name) if m.kind == "features"]
    folder = workspace.path("features", name if name in described else described[0]) if described else None
    return sae_source(sae, name, side=side, features_folder=folder, parents=parents)


def _recorded(
    workspace: "Workspace", name: str, hook_point: str | None, max_points: int | None, seed: int
) -> "AtlasSource":
    from interp.atlas.sources import recording_source
    from interp.recording.live import open_recording

    workspace.manifest("recording", name)
    recording = open_recording(workspace.path("recording", name))
    model = open_recording_model(recording)
    return recording_source(recording, model, hook_point=hook_point, max_points=max_points or 20_000, seed=seed)


def _file(path: str) -> "AtlasSource":
    from interp.atlas.sources import file_source

    return file_source(path)


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
    from saes.features.sources import dictionary_readout
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
    from interp.atlas.cells import UnembeddingReadout

    if kind == "recording" and isinstance(source.readout, UnembeddingReadout):
        return source.readout
    if kind == "embeddings":
        from interp.models.loading import load_model

        return UnembeddingReadout(load_model(name))
    if kind == "sae":
        from saes.features.build import writes_to_residual
        from saes.features.sources import PromotedReadout

        model, (sae,) = open_saes(workspace, [name])
        if writes_to_residual(sae):
            return PromotedReadout(model)
    raise ConfigError(
        f"the unembedding reads the residual stream, what is added to it, and embeddings; not {source.source}"
        + (f" at {source.hook_point}" if source.hook_point else "")
    )


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
