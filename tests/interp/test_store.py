"""Reading a recording: in order, by document, shuffled; and damage is found and named."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.artifacts import MANIFEST
from interp.errors import CorruptError, UnknownNameError
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording, context_of, heldout_mask

POINT = "blocks.1.hook_resid_post"
SMALL = RecordConfig(tokens=2500, context_length=32, shard_contexts=16, dtype="float32")


@pytest.fixture(scope="module")
def folder(tiny_model, text_documents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings") / "tiny"
    record(tiny_model, text_documents, folder, SMALL, hook_points=[POINT, "hook_embed"])
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def all_rows(recording: Recording) -> torch.Tensor:
    """Every row, BOS and padding included, `[n_rows, d]`."""
    return torch.cat([recording.activation_shard(POINT, shard) for shard in range(recording.n_shards)])


def real_rows(recording: Recording) -> torch.Tensor:
    """Global numbers of the real rows."""
    starts = recording.shard_starts
    return torch.cat([recording.real_rows(shard) + int(starts[shard]) for shard in range(recording.n_shards)])


def test_sequential_reading_gives_every_real_row_in_order(folder: Path) -> None:
    recording = Recording(folder)
    batches = list(recording.sequential([POINT], batch_size=100))
    rows = torch.cat([batch.rows for batch in batches])
    assert torch.equal(rows, real_rows(recording))
    assert torch.equal(torch.cat([batch.activations[POINT] for batch in batches]), all_rows(recording)[rows])


def test_random_access_by_document_gives_that_document_in_order(folder: Path, text_documents) -> None:
    recording, everything = Recording(folder), all_rows(Recording(folder))
    for document in (0, 7, recording.artefact.n_documents - 1):
        rows = recording.document_rows(document)
        contexts = [context_of(recording, int(row)) for row in rows]
        tokens = [int(context.tokens[place]) for context, place in contexts]
        text = bytes(tokens).decode()
        assert text_documents[document].text.startswith(text)
        assert [int(context.position[place]) for context, place in contexts] == list(range(len(rows)))
        assert torch.equal(recording.read_rows(POINT, rows), everything[rows])


def test_rows_can_be_read_in_any_order(folder: Path) -> None:
    recording = Recording(folder)
    rows = torch.randperm(recording.n_rows, generator=torch.Generator().manual_seed(0))[:200]
    assert torch.equal(recording.read_rows(POINT, rows), all_rows(recording)[rows])


@given(seed=st.integers(0, 99), skip=st.integers(0, 60), batch=st.integers(1, 300), group=st.integers(1, 900))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_skipping_k_batches_equals_dropping_k(folder: Path, seed: int, skip: int, batch: int, group: int) -> None:
    recording = Recording(folder)
    options = {"batch_size": batch, "seed": seed, "group_rows": group}
    whole = list(recording.shuffled([POINT], **options))
    skipped = list(recording.shuffled([POINT], skip=skip, **options))
    assert len(skipped) == max(0, len(whole) - skip)
    for one, other in zip(whole[skip:], skipped, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.activations[POINT], other.activations[POINT])


@given(seed=st.integers(0, 99), batch=st.integers(1, 700), group=st.integers(1, 900))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_shuffled_epoch_gives_every_real_row_once(folder: Path, seed: int, batch: int, group: int) -> None:
    recording = Recording(folder)
    batches = list(recording.shuffled([POINT], batch_size=batch, seed=seed, group_rows=group))
    assert {len(b.rows) for b in batches[:-1]} <= {batch}
    rows = torch.cat([b.rows for b in batches])
    assert torch.equal(rows.sort().values, real_rows(recording))
    assert torch.equal(torch.cat([b.activations[POINT] for b in batches]), all_rows(recording)[rows])


def test_the_shuffle_follows_seed_and_epoch(folder: Path) -> None:
    recording = Recording(folder)

    def order(seed: int, epoch: int) -> torch.Tensor:
        return torch.cat([b.rows for b in recording.shuffled([POINT], batch_size=64, seed=seed, epoch=epoch)])

    assert torch.equal(order(3, 0), order(3, 0))
    assert not torch.equal(order(3, 0), order(4, 0))
    assert not torch.equal(order(3, 0), order(3, 1))


def test_a_shuffled_batch_mixes_shards(folder: Path) -> None:
    recording = Recording(folder)
    first = next(recording.shuffled([POINT], batch_size=256))
    shards = torch.bucketize(first.rows, torch.tensor(recording.shard_starts[1:]), right=True)
    assert len(shards.unique()) >= min(4, recording.n_shards)


def test_train_and_heldout_share_no_document(folder: Path) -> None:
    recording = Recording(folder)
    document = torch.cat([recording.token_shard(shard).document for shard in range(recording.n_shards)])
    sides = {}
    for split in ("train", "heldout"):
        batches = recording.shuffled([POINT], split=split, heldout_fraction=0.3)
        rows = torch.cat([batch.rows for batch in batches])
        sides[split] = (set(document[rows].tolist()), len(rows))
    assert not sides["train"][0] & sides["heldout"][0]
    assert sides["train"][1] + sides["heldout"][1] == recording.n_real
    assert sides["heldout"][1] > 0


def test_the_heldout_share_is_what_was_asked_for() -> None:
    share = heldout_mask(torch.arange(20_000), 0.1).double().mean()
    assert float(share) == pytest.approx(0.1, abs=0.01)


def test_wrong_names_are_answered_with_the_recorded_ones(folder: Path) -> None:
    recording = Recording(folder)
    with pytest.raises(UnknownNameError, match=POINT):
        recording.stats("blocks.1.hook_resid_mid")
    with pytest.raises(UnknownNameError, match="heldout"):
        next(recording.sequential(split="held-out"))
    with pytest.raises(UnknownNameError, match="document"):
        recording.document_rows(10**6)


def test_a_missing_and_a_truncated_shard_are_named(copy: Path) -> None:
    (copy / "tokens" / "00000.safetensors").unlink()
    file = copy / POINT / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    problems = Recording(copy).verify()
    assert any(line.startswith("tokens/00000.safetensors: missing") for line in problems)
    assert any(line.startswith(f"{POINT}/00001.safetensors: ") and "the manifest says" in line for line in problems)
    assert len(problems) == 2
    with pytest.raises(CorruptError, match=r"00001\.safetensors cannot be read"):
        Recording(copy).activation_shard(POINT, 1)
    with pytest.raises(CorruptError, match=r"tokens/00000\.safetensors is missing"):
        Recording(copy).token_shard(0)


def test_a_damaged_table_of_documents_is_named(copy: Path, damage_file) -> None:
    damage_file(copy / "documents" / "00001.parquet")
    with pytest.raises(CorruptError, match=r"cannot read .*documents.00001\.parquet"):
        Recording(copy).documents()


def test_another_kind_of_artefact_is_no_recording(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text()) | {"kind": "sae"}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CorruptError, match="holds a sae, not a recording"):
        Recording(copy)


def test_contexts_of_a_split_hold_only_its_documents(folder: Path) -> None:
    recording = Recording(folder)
    train, heldout = (recording.contexts(split=s, heldout_fraction=0.5) for s in ("train", "heldout"))
    every = recording.contexts()
    assert len(train) > 0
    assert len(heldout) > 0
    known = {tuple(row) for row in every.tolist()}
    train_rows, heldout_rows = ({tuple(row) for row in part.tolist()} for part in (train, heldout))
    assert train_rows <= known
    assert heldout_rows <= known
    assert not train_rows & heldout_rows
    assert torch.equal(recording.contexts(limit=3), every[:3])
