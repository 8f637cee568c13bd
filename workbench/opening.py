"""Open models, recordings, dictionaries, tasks and the vectors of an atlas by name, for every verb.

- `open_recording`, and `open_recording_model`, the model that it came from;
- `open_sae`, an SAE alone; `open_saes`, SAEs together with their model; `open_dictionary`, an SAE or the neurons of a
  layer together with a recording;
- `open_task`, prompts by the name of a task or from a file;
- `open_atlas_source`, the vectors that `workbench atlas` maps, and `with_readout`, the labels of its cells.

An unknown name raises `UnknownNameError` with the nearest ones, other weights raise `MismatchError`. The model, and
SAEs applied inside it or to a recording, run on `device`; None takes the fastest available one for a model, and the CPU
for an SAE alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.workspace import Workspace
from saes.features.schema import NEURONS
from saes.training.stored import StoredSAE

if TYPE_CHECKING:
    from interp.atlas.cells import Readout
    from interp.atlas.sources import AtlasSource
    from interp.atlas.vector_map import VectorMap
    from interp.claims import OwnText
    from interp.dictionary import Dictionary
    from interp.patching.task import Task
    from interp.recording.store import Recording
    from saes.kinds.base import SAE


@dataclass(frozen=True, kw_only=True)
class ChosenDictionary:
    """An SAE of the workspace or the neurons of a layer, with the recording whose activations it encodes."""

    workspace: Workspace
    source: str
    recording: "Recording"
    device: str | None = None
    """Device of an SAE; neurons are on that of their model."""

    @property
    def is_neurons(self) -> bool:
        """True for the neurons of a layer, False for an SAE."""
        return self.source.startswith(NEURONS)

    @property
    def name(self) -> str:
        """Name of the SAE, or the hook point of the neurons."""
        return self.source.removeprefix(NEURONS)

    @property
    def full_name(self) -> str:
        """Name with its kind, `sae:NAME` or `neurons:HOOK_POINT`, as manifests store it."""
        return self.source if self.is_neurons else f"sae:{self.source}"

    @property
    def parents(self) -> dict[str, str]:
        """Parents for a manifest: the SAE with its content hash; none for neurons, which belong to the model."""
        if self.is_neurons:
            return {}
        return {f"saes/{self.name}": self.workspace.manifest("sae", self.name).content_hash}

    def load(self, model: HookedModel, *, allow_other_weights: bool = False) -> "Dictionary":
        """Return the dictionary. Raises `MismatchError` when an SAE belongs to other weights."""
        if self.is_neurons:
            from saes.features.sources import neurons_of

            return neurons_of(model, self.recording.check_hook_point(self.name))
        return self.load_sae(allow_other_weights=allow_other_weights)

    def load_sae(self, *, allow_other_weights: bool = False) -> "SAE":
        """Return the SAE. Raises `MismatchError` when the recording comes from other weights."""
        from saes.weights.folder import check_model

        sae = open_sae(self.workspace, self.name, device=self.device)
        check_model(sae, self.recording.weight_hash, allow_other_weights=allow_other_weights)
        return sae


def open_dictionary(
    workspace: Workspace, source: str, recording: str | None, *, device: str | None = None
) -> ChosenDictionary:
    """Return an SAE of the workspace, or `neurons:HOOK_POINT`, with a recording: by default the SAE's own.

    Raises `ConfigError` where no recording is named and none belongs to the dictionary.
    """
    if source.startswith(NEURONS):
        if recording is None:
            raise ConfigError(f"{source} needs a recording to read activations from; add --recording NAME")
    else:
        recording = recording or workspace.open(StoredSAE, source).recording
        if recording is None:
            raise ConfigError(f"{source} was imported and has no recording of its own; add --recording NAME")
    return ChosenDictionary(
        workspace=workspace,
        source=source,
        recording=open_recording(workspace, recording, device=device),
        device=device,
    )


def open_recording(workspace: Workspace, name: str, *, device: str | None = None) -> "Recording":
    """Return a recording, stored or live; a live one runs its model on `device`."""
    from interp.recording import live

    workspace.manifest("recording", name)  # lists the nearest names when it is not there
    return live.open_recording(workspace.path("recording", name), device=device)


def open_recording_model(recording: "Recording", *, device: str | None = None) -> HookedModel:
    """Return the model that a recording came from.

    Raises `MismatchError` when the model of that name has other weights now.
    """
    from interp.models.adapter import weight_hash
    from interp.models.loading import load_model

    model = load_model(recording.model, device=device)
    if weight_hash(model) != recording.weight_hash:
        raise MismatchError(
            f"{recording.model!r} now has other weights than when {recording.key} was recorded; record it again"
        )
    return model


def open_sae(workspace: Workspace, name: str, *, device: str | None = None) -> "SAE":
    """Return an SAE of the workspace, by default on the CPU.

    On mps it stays on the CPU too, since operations of the sparse step are missing there.
    """
    from saes.weights.folder import load_sae

    workspace.manifest("sae", name)  # lists the nearest names when it is not there
    sae = load_sae(workspace.path("sae", name))
    return sae if device in (None, "cpu", "mps") else sae.to(device)


def open_task(
    model: HookedModel, task: "str | OwnText", n_prompts: int | None, *, seed: int, template: int | None = None
) -> "Task":
    """Return prompts of a task by its name, or from a `.jsonl` or `.csv` file; None takes the whole file.

    With seed 0 those of a file have its order, with another a random one.

    Raises `ConfigError` for a `template` (a wording by its number) that the task lacks; a file has none.
    """
    from interp.circuits.tasks import make_task, task_from_file

    if not isinstance(task, str) or Path(task).suffix:
        if template is not None:
            raise ConfigError(f"{task} is a file, whose prompts have one wording; name a task to choose a wording")
        return task_from_file(model, task, n_prompts=n_prompts, seed=seed)
    if n_prompts is None:
        return make_task(task, model, seed=seed, template=template)
    return make_task(task, model, n_prompts=n_prompts, seed=seed, template=template)


def task_name(task: str) -> str:
    """Return the name of a task, of a file the name without its suffix."""
    return Path(task).stem if Path(task).suffix else task


ATLAS_SOURCES = {
    **dict.fromkeys(("embeddings", "unembeddings", "heads-ov", "heads-qk"), "model"),
    **dict.fromkeys(("sae", "encoder"), "sae"),
    "recording": "recording",
    "features": "features",
    "heads": "heads",
    "file": "file",
}
"""What the name of an atlas source names, by its kind."""


def open_atlas_source(
    workspace: Workspace,
    source: str,
    hook_point: str | None,
    max_points: int | None,
    seed: int,
    *,
    device: str | None = None,
) -> "AtlasSource":
    """Return the vectors that `KIND:NAME` names (`workbench atlas --help` lists the kinds)."""
    kind, _, name = source.partition(":")
    if kind not in ATLAS_SOURCES or not name:
        raise UnknownNameError("atlas source", source, [f"{prefix}:NAME" for prefix in ATLAS_SOURCES])
    from interp.atlas import sources

    if kind == "file":
        return sources.file_source(name)
    if kind == "heads":
        workspace.manifest("heads", name)  # lists the nearest names when it is not there
        return sources.head_score_source(workspace.path("heads", name))
    if kind == "recording":
        recording = open_recording(workspace, name, device=device)
        model, most = open_recording_model(recording, device=device), max_points or 20_000
        return sources.recording_source(recording, model, hook_point=hook_point, max_points=most, seed=seed)
    if kind == "features":
        from saes.features.profiles import words_source

        return words_source(workspace, name)
    if kind in ("sae", "encoder"):
        from saes.features.sources import sae_source

        return sae_source(
            open_sae(workspace, name),
            name,
            side="decoder" if kind == "sae" else "encoder",
            features_folder=features_folder(workspace, name),
            parents={f"saes/{name}": workspace.manifest("sae", name).content_hash},
        )
    from interp.models.adapter import weight_hash
    from interp.models.loading import load_model

    model = load_model(name, device=device)
    openers = {
        "embeddings": sources.embedding_source,
        "unembeddings": sources.unembedding_source,
        "heads-ov": partial(sources.head_circuit_source, circuit="ov"),
        "heads-qk": partial(sources.head_circuit_source, circuit="qk"),
    }
    return openers[kind](model, name, weight_hash=weight_hash(model))


def open_mapped_source(workspace: Workspace, atlas: "VectorMap", *, device: str | None = None) -> "AtlasSource":
    """Return the vectors that an atlas of this workspace was made from."""
    of = atlas.settings
    if of.onto or of.frames:
        raise ConfigError(f"{atlas.name} was itself made from other maps; add points to a map of one source")
    seed = atlas.about.seed or 0
    return open_atlas_source(workspace, of.source, of.hook_point, of.max_points, seed, device=device)


AUTO, NONE, UNEMBEDDING = "auto", "none", "unembedding"


def with_readout(
    workspace: Workspace, source: "AtlasSource", cells: str = AUTO, *, device: str | None = None
) -> "AtlasSource":
    """Return the source with its cells labelled by `auto`, `none`, `unembedding` or an SAE of the workspace.

    Raises `ConfigError` where that cannot read the vectors, `MismatchError` for an SAE of another hook point,
    `UnknownNameError` for an unknown SAE.
    """
    kind, _, name = source.source.partition(":")
    if cells == NONE:
        return replace(source, readout=None)
    if cells == UNEMBEDDING:
        return replace(source, readout=_unembedding(workspace, source, kind, name, device))
    if cells == AUTO:
        return _by_own_sae(workspace, source, name) if kind == "recording" else source
    sae = workspace.open(StoredSAE, cells)
    if kind != "recording":
        raise ConfigError(
            f"an SAE reads activations, and {source.source} has none; map a recording, or leave --cells out"
        )
    if sae.hook_point != source.hook_point:
        raise MismatchError(
            f"the SAE {cells} reads {sae.hook_point}, the map shows {source.hook_point}; "
            "give --hook-point or another SAE"
        )
    return _by_sae(workspace, source, sae)


def _by_own_sae(workspace: Workspace, source: "AtlasSource", recording: str) -> "AtlasSource":
    """Label cells by an SAE of this recording and hook point, if possible one with a features artefact."""
    made = [workspace.open(StoredSAE, m.name) for m in workspace.children("recording", recording) if m.kind == "sae"]
    fitting = [sae for sae in made if sae.hook_point == source.hook_point]
    if not fitting:
        return source
    described = min(fitting, key=lambda sae: (features_folder(workspace, sae.name) is None, sae.name))
    return _by_sae(workspace, source, described)


def _by_sae(workspace: Workspace, source: "AtlasSource", sae: StoredSAE) -> "AtlasSource":
    from saes.features.sources import dictionary_readout

    readout = dictionary_readout(open_sae(workspace, sae.name), sae.name, features_folder(workspace, sae.name))
    return replace(source, readout=readout, parents={**source.parents, sae.key: sae.about.content_hash})


def features_folder(workspace: Workspace, sae: str) -> Path | None:
    """Return the features artefact of an SAE, the one of the same name first; None when there is none."""
    names = [m.name for m in workspace.children("sae", sae) if m.kind == "features"]
    return workspace.path("features", sae if sae in names else names[0]) if names else None


def _unembedding(workspace: Workspace, source: "AtlasSource", kind: str, name: str, device: str | None) -> "Readout":
    """Return final norm and unembedding of the model that the vectors belong to."""
    from interp.atlas.cells import UnembeddingReadout

    if kind == "recording" and isinstance(source.readout, UnembeddingReadout):
        return source.readout
    if kind == "embeddings":
        from interp.models.loading import load_model

        return UnembeddingReadout(load_model(name, device=device))
    if kind == "sae":
        from saes.features.sources import PromotedReadout, writes_to_residual

        model, (sae,) = open_saes(workspace, [name], device=device)
        if writes_to_residual(sae):
            return PromotedReadout(model)
    raise ConfigError(
        f"the unembedding reads the residual stream, what is added to it, and embeddings; not {source.source}"
        + (f" at {source.hook_point}" if source.hook_point else "")
    )


def open_saes(
    workspace: Workspace,
    names: Sequence[str],
    *,
    model: str | None = None,
    allow_other_weights: bool = False,
    device: str | None = None,
) -> "tuple[HookedModel, list[SAE]]":
    """Return the model that some SAEs belong to, and the SAEs on the model's device.

    Raises `UnknownNameError` (no such SAE), `ConfigError` (none named, or no model known), `MismatchError` (other
    weights).
    """
    from saes.weights.folder import check_model

    if not names:
        raise ConfigError("no SAE was named; give the name of one or more SAEs of the workspace")
    saes = [open_sae(workspace, name) for name in names]
    spec = model or next((sae.metadata.model for sae in saes if sae.metadata.model), "")
    if not spec:
        raise ConfigError(f"{names[0]} does not say which model it belongs to; add --model NAME")
    from interp.models.adapter import weight_hash
    from interp.models.loading import load_model

    loaded = load_model(spec, device=device)
    for sae in saes:
        check_model(sae, weight_hash(loaded), allow_other_weights=allow_other_weights)
    return loaded, [sae.to(loaded.cfg.device) for sae in saes]


def feature_table(workspace: Workspace, sae: str) -> dict[int, dict[str, Any]]:
    """Return `feature -> {feature, label, max_activation}` from the features artefact of an SAE; empty without one."""
    folder = features_folder(workspace, sae)
    if folder is None:
        return {}
    path = workspace.table_path("features", folder.name, "features")
    rows = workspace.query("select feature, label, max_activation from f", f=path).to_pylist()
    return {row["feature"]: row for row in rows}


def unseen_positions(model: HookedModel) -> int:
    """Return the number of positions at the start to leave out: 1 where the model has a BOS token, which SAEs do not
    see in training, since its residual differs from all others."""
    from interp.models.adapter import bos_token_id

    return int(bos_token_id(model) is not None)
