"""What several verbs need: the dictionary that a name stands for, and the model that a recording came from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError, MismatchError

if TYPE_CHECKING:
    from interp.dictionary import Dictionary
    from interp.recording.store import Recording
    from interp.workspace import Workspace

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

    def load(self, model: Any, *, allow_other_weights: bool = False) -> "Dictionary":
        """The dictionary itself. Raises `MismatchError` when an SAE belongs to other weights."""
        if self.is_neurons:
            from interp.models.adapter import mlp_output_weights
            from saes.neurons import NeuronBasis

            hook_point = self.recording.check_hook_point(self.name)
            return NeuronBasis(mlp_output_weights(model, hook_point), hook_point)
        from saes.weights import check_model, load_sae

        sae = load_sae(self.workspace.path("sae", self.name))
        check_model(sae, self.recording.weight_hash, allow_other_weights=allow_other_weights)
        return sae


def open_dictionary(workspace: "Workspace", source: str, recording: str | None) -> ChosenDictionary:
    """What `source` (an SAE's name, or `neurons:HOOK_POINT`) and an optional recording name stand for."""
    from interp.recording.store import Recording

    if source.startswith(NEURONS):
        if recording is None:
            raise ConfigError(f"{source} needs a recording to pass over; add --recording NAME")
    else:
        trained_on = workspace.manifest("sae", source).config["recording"]
        recording = recording or trained_on
    workspace.manifest("recording", recording)
    return ChosenDictionary(
        workspace=workspace, source=source, recording=Recording(workspace.path("recording", recording))
    )


def open_recording_model(recording: "Recording", *, device: str | None = None) -> Any:
    """The model that a recording came from, with the same weights.

    Raises `MismatchError` when the name now stands for other weights.
    """
    from interp.models.loading import load_model, weight_hash

    model = load_model(recording.model, device=device)
    if weight_hash(model) != recording.weight_hash:
        raise MismatchError(
            f"{recording.model!r} now has other weights than when {recording.key} was recorded; record it again"
        )
    return model
