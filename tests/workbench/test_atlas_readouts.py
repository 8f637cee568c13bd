"""`workbench atlas --cells`: which reader fits which vectors, and what is said when none does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.atlas.cells import DictionaryReadout, NearestReadout, UnembeddingReadout
from interp.atlas.sources import AtlasSource
from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.workspace import Workspace
from saes.acts.run import Run
from saes.evaluation.synthetic import HOOK_POINT, SyntheticConfig, SyntheticData, write_synthetic
from saes.kinds.config import TopKConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae
from workbench.atlas_sources import with_readout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), create=True)
    data = SyntheticData(SyntheticConfig(n_features=12, d=8))
    recording = write_synthetic(data, workspace.path("recording", "planted"), n_rows=3_000)
    settings = TrainConfig(tokens=3_000, batch_size=256, lr=1e-2, log_every=1000)
    train_sae(recording, HOOK_POINT, TopKConfig(d_sae=12, k=2), settings, workspace.path("sae", "one"))
    return workspace


def source(name: str, *, hook_point: str | None = None, readout=None) -> AtlasSource:
    vectors = torch.eye(8)
    return AtlasSource(
        vectors=vectors,
        source=name,
        labels=[str(i) for i in range(8)],
        items=np.arange(8),
        values=np.zeros(8),
        value_name="norm",
        item_kind="row",
        hook_point=hook_point,
        readout=readout,
    )


def test_activations_are_read_by_an_sae_of_theirs(workspace: Workspace):
    found = with_readout(Run(workspace), source("recording:planted", hook_point=HOOK_POINT))
    assert isinstance(found.readout, DictionaryReadout)
    assert found.readout.name == "dictionary:one"
    assert found.parents == {"saes/one": workspace.manifest("sae", "one").content_hash}
    reading = found.readout.read(found.vectors, 3)
    assert all(1 <= len(texts) <= 2 for texts in reading.texts), "an SAE with two active features"
    assert all(text.startswith("feature ") for texts in reading.texts for text in texts)
    named = with_readout(Run(workspace), source("recording:planted", hook_point=HOOK_POINT), "one")
    assert named.readout is not None
    assert named.readout.read(found.vectors, 3) == reading


def test_without_an_sae_a_source_keeps_its_own_reader(workspace: Workspace):
    own = NearestReadout("tokens", torch.eye(8), list("abcdefgh"))
    for given in (source("recording:planted", hook_point="blocks.3.hook_mlp_out", readout=own),
                  source("embeddings:m", readout=own)):  # fmt: skip
        assert with_readout(Run(workspace), given).readout is own
        assert with_readout(Run(workspace), given, "none").readout is None


def test_the_unembedding_reads_what_a_model_can_say(workspace: Workspace, tiny_model):
    lens = UnembeddingReadout(tiny_model)
    given = source("recording:planted", hook_point=HOOK_POINT, readout=lens)
    assert with_readout(Run(workspace), given, "unembedding").readout is lens
    embeddings = with_readout(Run(workspace), source("embeddings:small:attn-only-2l"), "unembedding")
    assert isinstance(embeddings.readout, UnembeddingReadout)


def test_a_reader_that_does_not_fit_is_refused(workspace: Workspace):
    recorded = source("recording:planted", hook_point=HOOK_POINT)
    with pytest.raises(ConfigError, match=r"not recording:planted at"):
        with_readout(Run(workspace), recorded, "unembedding")
    with pytest.raises(ConfigError, match="not file:x"):
        with_readout(Run(workspace), source("file:x"), "unembedding")
    with pytest.raises(ConfigError, match="an SAE reads activations"):
        with_readout(Run(workspace), source("embeddings:m"), "one")
    with pytest.raises(MismatchError, match="the map shows"):
        with_readout(Run(workspace), replace(recorded, hook_point="blocks.3.hook_mlp_out"), "one")
    with pytest.raises(UnknownNameError):
        with_readout(Run(workspace), recorded, "two")
