"""A live recording reads as the stored one does, and keeps only the text."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.artifacts import verify
from interp.errors import MismatchError
from interp.models.loading import load_model
from interp.recording.live import LiveRecording, open_recording
from interp.recording.record import folder_bytes, record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording

POINTS = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]
SMALL = RecordConfig(tokens=3000, context_length=32, batch_size=4, shard_contexts=16)


@pytest.fixture(scope="module")
def both(tiny_model, text_documents, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, LiveRecording]:
    folder = tmp_path_factory.mktemp("recordings")
    record(tiny_model, text_documents, folder / "stored", SMALL, hook_points=POINTS)
    record(tiny_model, text_documents, folder / "live", replace(SMALL, live=True), hook_points=POINTS)
    return Recording(folder / "stored"), LiveRecording(folder / "live", model=tiny_model)


def test_only_the_text_is_kept_and_verifies(both):
    stored, live = both
    assert verify(live.folder) == []
    assert not list(live.folder.glob("blocks*/0*.safetensors"))
    assert folder_bytes(live.folder) < folder_bytes(stored.folder) / 4
    for shard in range(stored.n_shards):
        assert all(map(torch.equal, stored.token_shard(shard), live.token_shard(shard)))


def test_whole_shards_are_what_would_have_been_stored_to_the_bit(both):
    stored, live = both
    for name in POINTS:
        for shard in range(stored.n_shards):
            assert torch.equal(live.activation_shard(name, shard), stored.activation_shard(name, shard))


def test_parts_and_shuffles_hold_the_same_rows(both):
    stored, live = both
    part = slice(37, 99)
    torch.testing.assert_close(
        live.activation_shard(POINTS[0], 1, part), stored.activation_shard(POINTS[0], 1, part), atol=2e-3, rtol=1e-2
    )
    for split in ("train", "heldout"):
        ways = [r.shuffled(batch_size=64, seed=1, split=split, heldout_fraction=0.3) for r in both]
        for one, other in zip(*ways, strict=True):
            assert torch.equal(one.rows, other.rows)
            for name in POINTS:  # other batches of contexts round differently in the last place
                torch.testing.assert_close(one.activations[name], other.activations[name], atol=2e-3, rtol=1e-2)


def test_a_heldout_split_runs_only_the_contexts_that_it_needs(both, monkeypatch: pytest.MonkeyPatch):
    from interp.recording import record as compute

    _, live = both
    ran = []
    honest = compute.compute_activations
    monkeypatch.setattr(
        compute,
        "compute_activations",
        lambda capture, text, **k: ran.append(len(text.tokens)) or honest(capture, text, **k),
    )
    wanted = sum(len(batch.rows) for batch in live.sequential([POINTS[0]], split="heldout", heldout_fraction=0.1))
    assert wanted > 0
    assert sum(ran) < live.n_rows / 32 / 2


def test_stats_are_those_of_the_first_tokens(both):
    stored, live = both
    for name in POINTS:  # a short recording: its first tokens are all of them
        one, other = stored.stats(name), live.stats(name)
        assert one.n == other.n
        torch.testing.assert_close(one.mean, other.mean)
        torch.testing.assert_close(one.variance, other.variance)


def test_training_live_ends_at_the_weights_of_training_from_disk(both, tmp_path: Path):
    from saes.kinds.config import BatchTopKConfig
    from saes.training.config import TrainConfig
    from saes.training.train import train_sae

    train = TrainConfig(tokens=2048, batch_size=128, heldout_fraction=0.1)
    ends = [
        train_sae(recording, POINTS[0], BatchTopKConfig(d_sae=64, k=4), train, tmp_path / name)
        for recording, name in zip(both, ("stored", "live"), strict=True)
    ]
    cosines = torch.nn.functional.cosine_similarity(ends[0].W_dec, ends[1].W_dec)
    assert cosines.min() > 0.999, "contexts left out of a batch change the last place of the others, no more"


def test_opening_a_live_folder_loads_the_model_when_it_is_read(text_documents, tmp_path: Path):
    model = load_model("small:mlp-2l", seed=0)
    record(model, text_documents[:20], tmp_path / "live", replace(SMALL, tokens=400, live=True), hook_points=POINTS)
    opened = open_recording(tmp_path / "live")
    assert isinstance(opened, LiveRecording)
    assert opened.activation_shard(POINTS[0], 0).shape == (opened.shard_rows[0], opened.d(POINTS[0]))
    with pytest.raises(MismatchError, match="other weights"):
        LiveRecording(tmp_path / "live", model=load_model("small:mlp-2l", seed=1))
