"""What several verbs need: the dictionary that a name stands for, and the model that a recording came from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from interp.errors import ConfigError, MismatchError, UnknownNameError

if TYPE_CHECKING:
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
            from saes.neurons import neurons_of

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
    from interp.atlas.sources import embedding_source
    from interp.atlas.weight_sources import head_circuit_source, unembedding_source
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
    from interp.atlas.weight_sources import head_score_source

    workspace.manifest("heads", name)  # the clearer error when it is not there
    return head_score_source(workspace.path("heads", name))


def _sae_directions(workspace: "Workspace", name: str, side: Literal["decoder", "encoder"]) -> "AtlasSource":
    from saes.atlas import sae_source
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
