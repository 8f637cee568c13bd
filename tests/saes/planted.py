"""Small hand-written recordings and dictionaries with known answers, for the feature tests."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from make_recording import recorded_of, settings_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.artifacts import Draft, as_json, save_artefact
from interp.dictionary import SparseActs
from interp.recording.store import Recording
from saes.weights.folder import WEIGHTS

HOOK = "blocks.1.hook_resid_post"


class ReluDictionary:
    """Dense ReLU dictionary with random unit directions; `encode_sparse` keeps every active feature."""

    def __init__(self, d_in: int, d_sae: int, *, seed: int = 0, bias: float = -1.0, hook_point: str = HOOK):
        generator = torch.Generator().manual_seed(seed)
        self.d_in, self.d_sae, self.hook_point = d_in, d_sae, hook_point
        self.W = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.bias = bias

    @property
    def decoder_directions(self) -> Tensor:
        return self.W

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.W.T + self.bias)

    def encode_sparse(self, x: Tensor) -> SparseActs:
        acts = self.encode(x)
        values, indices = acts.topk(int((acts > 0).sum(1).max().clamp(min=1)), dim=1)
        return SparseActs(values, indices)

    def decode(self, feature_acts: Tensor) -> Tensor:
        return feature_acts @ self.W


class TableDictionary:
    """Reads its activations straight from the input: `d_in == d_sae`, feature `i` is coordinate `i` where positive."""

    def __init__(self, d: int, hook_point: str = HOOK):
        self.d_in = self.d_sae = d
        self.hook_point = hook_point
        self.decoder_directions = torch.eye(d)

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def encode_sparse(self, x: Tensor) -> SparseActs:
        return SparseActs(torch.relu(x), torch.arange(self.d_sae).expand(len(x), -1))

    def decode(self, feature_acts: Tensor) -> Tensor:
        return feature_acts


def write_recording(
    folder: Path,
    activations: Tensor,
    tokens: Tensor,
    document: Tensor,
    *,
    context_length: int,
    shard_contexts: int,
    labels: list[str] | None = None,
    hook_point: str = HOOK,
    dtype: torch.dtype = torch.float32,
    weight_hash: str = "0" * 64,
    model: str = "tiny",
) -> Recording:
    """A recording folder written by hand in the documented layout; `document` is -1 for BOS and padding."""
    n, d = activations.shape
    n_documents = int(document.max()) + 1
    position = torch.zeros(n, dtype=torch.int64)
    for number in range(n_documents):
        mine = (document == number).nonzero().squeeze(1)
        position[mine] = torch.arange(len(mine))
    position[document < 0] = -1
    how = {"model": model, "weight_hash": weight_hash, "hook_points": (hook_point,), "context_length": context_length}
    settings = settings_of(**how, dtype=str(dtype).removeprefix("torch."), n_tokens=n)
    draft = Draft.open(folder, kind="recording", config=as_json(settings), overwrite=True)
    target, folder = folder, draft.path
    step = shard_contexts * context_length
    shard_rows = [len(part) for part in tokens.split(step)]
    for shard, start in enumerate(range(0, n, step)):
        rows = slice(start, start + step)
        (folder / "tokens").mkdir(parents=True, exist_ok=True)
        (folder / hook_point).mkdir(parents=True, exist_ok=True)
        columns = {"tokens": tokens, "document": document, "position": position}
        save_file(
            {name: value[rows].int().contiguous() for name, value in columns.items()},
            folder / "tokens" / f"{shard:05d}.safetensors",
        )
        save_file(
            {"activations": activations[rows].to(dtype).contiguous()}, folder / hook_point / f"{shard:05d}.safetensors"
        )
    real = activations[document >= 0].double()
    stats = {
        "mean": real.mean(0),
        "variance": real.var(0, unbiased=False),
        "mean_norm": real.norm(dim=1).mean(),
        "n": torch.tensor(len(real)),
    }
    save_file({name: value.contiguous() for name, value in stats.items()}, folder / hook_point / "stats.safetensors")
    (folder / "documents").mkdir(exist_ok=True)
    labels = labels or [f"label{i % 3}" for i in range(n_documents)]
    pq.write_table(
        pa.table({"document": np.arange(n_documents), "id": [f"doc{i}" for i in range(n_documents)], "label": labels}),
        folder / "documents" / "00000.parquet",
    )
    made = recorded_of(settings, tuple(shard_rows), d, n_real=len(real), n_documents=n_documents)
    save_artefact(made, target, draft=draft)
    return Recording(target)


def random_recording(
    folder: Path, *, n_contexts: int = 24, context_length: int = 16, d: int = 12, d_vocab: int = 50, seed: int = 0, **kw
) -> Recording:
    """Gaussian activations; every context begins with BOS, documents are a context and a half long."""
    generator = torch.Generator().manual_seed(seed)
    n = n_contexts * context_length
    activations = torch.randn(n, d, generator=generator)
    tokens = torch.randint(2, d_vocab, (n,), generator=generator)
    document = torch.arange(n) * 2 // (3 * context_length)
    bos = torch.arange(n) % context_length == 0
    tokens[bos], document[bos] = 1, -1
    return write_recording(folder, activations, tokens, document, context_length=context_length, shard_contexts=7, **kw)


def assert_same_weights(folder: Path, other: Path) -> None:
    """Assert that two dictionaries on disk have the same bits."""
    mine, theirs = load_file(folder / WEIGHTS), load_file(other / WEIGHTS)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), f"{name} of {folder.name}"
