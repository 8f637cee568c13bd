"""The documents that features were described on: their recording, and the text around one row of it."""

from typing import TYPE_CHECKING, Any

from dashboard.answers import lists
from dashboard.components.live import DocumentText
from interp.errors import MismatchError, MissingError
from interp.models.hooked import HookedModel
from interp.workspace import Workspace
from saes.features.schema import Features

if TYPE_CHECKING:
    from interp.recording.store import Recording


def described_recording(workspace: Workspace, features: str) -> "tuple[Recording, str]":
    """Return the recording that features were described on, and the name of its model.

    Raises `MissingError` if the workspace lacks it, `MismatchError` if it was made again since.
    """
    from interp.recording.live import open_recording

    found = workspace.open(Features, features)
    name = found.settings.recording
    if name not in workspace.names("recording"):
        raise MissingError(
            f"the text is in the recording {name!r}, which is not in this workspace; run `workbench features` on a "
            "recording that is (--recording NAME)"
        )
    if workspace.manifest("recording", name).content_hash != found.about.parents.get(f"recordings/{name}"):
        raise MismatchError(
            f"the recording {name!r} differs from the one that {features!r} was made of; run `workbench features` "
            f"with --name {features} --overwrite"
        )
    return open_recording(workspace.path("recording", name)), found.settings.model


def document_text(
    model: HookedModel, dictionary: Any, recording: "Recording", row: int, feature: int, limit: int
) -> DocumentText:
    """Return the document that contains a row of the recording, at most `limit` tokens of it around that row.

    Activations are those of the recorded vectors, encoded again. `dictionary` is an SAE or `NeuronBasis`.
    """
    import numpy as np
    import torch

    from interp.models.adapter import token_strings

    context, at = recording.context_tokens(row)
    rows = recording.document_rows(int(context.document[at]))
    peak = int((rows == row).nonzero()[0])
    start = max(0, min(peak - limit // 2, len(rows) - limit))
    part = rows[start : start + limit]
    shard_of = np.searchsorted(recording.shard_starts, part.numpy(), side="right") - 1
    ids = torch.empty(len(part), dtype=torch.long)
    for shard in np.unique(shard_of):
        mine = torch.as_tensor(shard_of == shard)
        ids[mine] = recording.token_shard(int(shard)).tokens[part[mine] - int(recording.shard_starts[shard])].long()
    device = getattr(dictionary, "sae", dictionary).decoder_directions.device
    with torch.no_grad():
        found = dictionary.encode_sparse(recording.read_rows(dictionary.hook_point, part).to(device))
    values = torch.where(found.indices == feature, found.values.float(), 0.0).sum(1).clamp_min(0)
    return DocumentText(
        tokens=token_strings(model, ids),
        token_ids=lists(ids),
        activations=lists(values),
        first=start,
        peak=peak - start,
        cut=len(part) < len(rows),
    )
