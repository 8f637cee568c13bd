"""A workspace with planted features: feature `i` fires on three characters, some of which try to break a prompt."""

from pathlib import Path

import torch
from make_saes import saved
from planted import HOOK, write_recording

from interp.models.adapter import weight_hash
from interp.models.loading import load_model
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.features.build import Described, build_features
from saes.features.schema import FeaturesConfig
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

MODEL = "small:mlp-2l"
D, BOS = 64, 256
ALPHABET = [10, *range(33, 93), *map(ord, "|{}")]
TRIGGERS = ['<>"', "\n|[", "]\\{", "ABC", "DEF", "GHI", "JKL", "MNO"]
CONTEXT, WINDOW = 40, 8


def planted_workspace(root: Path, *, n_contexts: int = 150) -> Workspace:
    """`recordings/planted`, `saes/planted` and `features/planted`; features beyond the triggers are dead."""
    workspace = Workspace(root, create=True)
    model = load_model(MODEL)
    generator = torch.Generator().manual_seed(0)
    n = n_contexts * CONTEXT
    tokens = torch.tensor(ALPHABET)[torch.randint(len(ALPHABET), (n,), generator=generator)]
    document = torch.arange(n) // CONTEXT
    tokens[::CONTEXT], document[::CONTEXT] = BOS, -1
    strength = 2 + 2 * torch.rand(n, generator=generator)
    acts = torch.zeros(n, D)
    for feature, characters in enumerate(TRIGGERS):
        fires = torch.isin(tokens, torch.tensor([ord(c) for c in characters])) & (document >= 0)
        acts[fires, feature] = strength[fires]
    folder = workspace.path("recording", "planted")
    hashed = weight_hash(model)
    write_recording(
        folder, acts, tokens, document, context_length=CONTEXT, shard_contexts=60, weight_hash=hashed, model=MODEL
    )
    sae = ReLUSAE(
        Weights(torch.eye(D), torch.zeros(D), torch.eye(D), torch.zeros(D)),
        metadata=SAEMetadata(model=MODEL, weight_hash=hashed, hook_point=HOOK, context_size=CONTEXT),
    )
    saved(workspace, "planted", sae, recording="planted")
    recording = Recording(folder)
    build_features(
        Described(dictionary=sae, name="sae:planted", folder=workspace.path("features", "planted")),
        recording,
        model,
        FeaturesConfig(window=WINDOW),
    )
    return workspace
