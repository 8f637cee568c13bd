"""What is recorded is what the model computed, every token can be traced, and bad values and bad disks are told."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.artifacts import partial_path
from interp.errors import ConfigError, NonFiniteError, ResourceError, UnknownNameError
from interp.models.adapter import run_with_cache
from interp.models.identity import tokenizer_of
from interp.models.loading import load_model
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording
from interp.recording.writer import Moments, as_float64, merge_moments, moments
from interp.text.corpora import Document

POINTS = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post", "blocks.0.attn.hook_z", "hook_embed"]
SMALL = RecordConfig(tokens=3000, context_length=32, batch_size=4, shard_contexts=16)


@pytest.fixture(scope="module")
def recording(tiny_model, text_documents, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("recordings") / "tiny"
    record(tiny_model, text_documents, folder, replace(SMALL, dtype="float32"), hook_points=POINTS)
    return Recording(folder)


def test_recorded_values_equal_run_with_cache_exactly(recording: Recording, tiny_model) -> None:
    for shard in range(recording.n_shards):
        tokens = recording.token_shard(shard).tokens.long().view(-1, 32)
        parts = [run_with_cache(tiny_model, batch, POINTS)[1] for batch in tokens.split(4)]
        for name in POINTS:
            cached = torch.cat([part[name].reshape(-1, recording.d(name)) for part in parts])
            assert torch.equal(recording.activation_shard(name, shard), cached)


def test_every_token_is_traced_to_its_document_and_position(recording: Recording, tiny_model, text_documents) -> None:
    encode = tokenizer_of(tiny_model).encode_batch
    seen = 0
    for shard in range(recording.n_shards):
        columns = zip(*(column.tolist() for column in recording.token_shard(shard)), strict=True)
        for row, (token, document, position) in enumerate(columns):
            if row % 32 == 0:
                assert (token, document, position) == (256, -1, -1)
            elif document >= 0:
                assert token == encode([text_documents[document].text])[0][position]
                seen += 1
    assert seen == recording.n_real >= 3000


def test_document_names_are_kept(recording: Recording, text_documents) -> None:
    found = recording.documents()
    assert [d.document for d in found] == list(range(recording.artefact.n_documents))
    assert all((d.id, d.label) == (text_documents[d.document].id, text_documents[d.document].label) for d in found)


def test_stats_equal_the_moments_of_the_real_rows(recording: Recording) -> None:
    for name in POINTS:
        shards = range(recording.n_shards)
        rows = torch.cat([recording.activation_shard(name, s)[recording.real_rows(s)] for s in shards]).double()
        stats = recording.stats(name)
        assert stats.n == len(rows)
        torch.testing.assert_close(stats.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(stats.variance, rows.var(0, correction=0), rtol=1e-10, atol=1e-12)
        assert stats.mean_norm == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-12)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_moments_do_not_depend_on_how_rows_are_cut(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    blocks = [3 + torch.randn(size, 5, generator=generator) for size in sizes]
    total = Moments(0, np.zeros(5), np.zeros(5), 0.0)
    for block in blocks:
        total = merge_moments(total, moments(block, np.ones(len(block), dtype=bool)))
    rows = torch.cat(blocks).double()
    assert total.n == len(rows)
    if len(rows):
        torch.testing.assert_close(torch.from_numpy(total.mean), rows.mean(0))
        torch.testing.assert_close(
            torch.from_numpy(total.m2) / len(rows), rows.var(0, correction=0), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numpy_sees_the_numbers_that_torch_stores(dtype: torch.dtype) -> None:
    rows = torch.tensor([0.0, -0.0, 1e-7, -3.14159, 65504.0, 6e-8], dtype=dtype)
    assert np.array_equal(as_float64(rows), rows.double().numpy())


@pytest.mark.parametrize("bos", ["document", "none"])
def test_bos_policies_are_recorded_as_stated(bos: str, tiny_model, text_documents, tmp_path: Path) -> None:
    record(tiny_model, text_documents, tmp_path / "r", replace(SMALL, bos=bos), hook_points=POINTS[:1])
    shard = Recording(tmp_path / "r").token_shard(0)
    is_bos = shard.tokens == 256
    assert bool((shard.document[is_bos] == -1).all())
    starts = shard.position == 0
    expected = int(starts.sum()) if bos == "document" else 0
    assert abs(int(is_bos.sum()) - expected) <= (
        bos == "document"
    )  # the last BOS may open a document in the next shard
    if bos == "document":
        before = torch.cat([torch.tensor([False]), is_bos[:-1]])
        assert bool(before[starts].all())


def test_values_beyond_float16_are_refused_with_the_way_out(text_documents, tmp_path: Path) -> None:
    model = load_model("small:attn-only-1l", seed=1)
    with torch.no_grad():
        model.embed.weight[ord("q")] = 1e5
    with pytest.raises(NonFiniteError, match=r"hook_embed, shard 0, document \d+: 1e\+05 .*--dtype bfloat16"):
        record(model, text_documents, tmp_path / "r", SMALL, hook_points=["hook_embed"])
    kept = record(model, text_documents, tmp_path / "b", replace(SMALL, dtype="bfloat16"), hook_points=["hook_embed"])
    assert kept.settings.dtype == "bfloat16"


def test_nan_is_refused_and_earlier_shards_are_kept(text_documents, tmp_path: Path) -> None:
    model = load_model("small:attn-only-1l", seed=1)
    documents = [d._replace(text=d.text.replace("~", "")) for d in text_documents]
    documents[30] = documents[30]._replace(text="~" + documents[30].text)
    with torch.no_grad():
        model.embed.weight[ord("~")] = float("nan")
    with pytest.raises(NonFiniteError, match=r"hook_embed, shard \d+, document 30: the model gave NaN"):
        record(model, documents, tmp_path / "r", replace(SMALL, tokens=10**6), hook_points=["hook_embed"])
    assert (partial_path(tmp_path / "r") / "tokens" / "00001.safetensors").exists()


def test_full_disk_is_one_line_and_the_run_resumes(
    tiny_model, text_documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = record(tiny_model, text_documents, tmp_path / "whole", SMALL, hook_points=POINTS)
    write_bytes, written = Path.write_bytes, []

    def full_after_20_files(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_after_20_files)
    with pytest.raises(ResourceError, match=r"disk full while writing .*free space and run again"):
        record(tiny_model, text_documents, tmp_path / "r", SMALL, hook_points=POINTS)
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    again = record(tiny_model, text_documents, tmp_path / "r", SMALL, hook_points=POINTS)
    assert again.about.content_hash == whole.about.content_hash


def test_too_big_for_the_disk_is_refused_before_the_model_runs(tiny_model, text_documents, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="are free"):
        record(tiny_model, text_documents, tmp_path / "r", replace(SMALL, tokens=10**13), hook_points=POINTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hook_points": ["blocks.0.hook_resid_pots"]}, UnknownNameError, "blocks.0.hook_resid_post"),
        ({"hook_points": ["blocks.7.hook_resid_post"]}, UnknownNameError, "2 layers"),
        ({"hook_points": []}, ConfigError, "no hook point"),
        ({"hook_points": ["blocks.0.attn.hook_pattern"]}, ConfigError, "pair of tokens"),
        ({"hook_points": ["embed.hook_in"]}, ConfigError, "one vector per token"),
        ({"context_length": 1000}, ConfigError, "longer than the 256 tokens"),
        ({"bos": "always"}, UnknownNameError, "context"),
        ({"dtype": "int4"}, UnknownNameError, "did you mean .int8"),
        ({"tokens": 0}, ConfigError, "at least 1"),
    ],
)
def test_what_cannot_be_recorded_is_said_at_once(
    changes: dict, error: type, message: str, tiny_model, text_documents, tmp_path: Path
) -> None:
    hook_points = changes.pop("hook_points", POINTS)
    with pytest.raises(error, match=message):
        record(tiny_model, text_documents, tmp_path / "r", replace(SMALL, **changes), hook_points=hook_points)
    assert not list(tmp_path.iterdir())


def test_text_that_ends_early_is_recorded_whole_and_said(tiny_model, text_documents, tmp_path: Path) -> None:
    few = text_documents[:3]
    found = record(tiny_model, few, tmp_path / "r", replace(SMALL, tokens=10**6), hook_points=POINTS)
    assert found.details() == ["the corpus ended before 1,000,000 tokens"]
    assert found.n_real == sum(len(document.text) for document in few)
    assert found.n_documents == 3
    assert found == Recording(tmp_path / "r").artefact


def test_documents_without_tokens_are_skipped_but_counted_in_the_numbering(tiny_model, tmp_path: Path) -> None:
    documents = [Document("first text", "a", ""), Document("", "b", ""), Document("third text", "c", "")]
    record(tiny_model, documents, tmp_path / "r", SMALL, hook_points=POINTS)
    assert [(d.document, d.id) for d in Recording(tmp_path / "r").documents()] == [(0, "a"), (2, "c")]


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_tokens(tmp_path: Path) -> None:
    few, many = (_peak_megabytes(tmp_path / str(n), n) for n in (60_000, 240_000))
    # 240k tokens are 61 MB of activations a hook point; holding them would show
    assert many - few < 20


def _peak_megabytes(folder: Path, n_tokens: int) -> float:
    """Peak resident memory of a process of its own that records `n_tokens`."""
    import subprocess
    import sys

    script = f"""
import resource, torch
torch.set_num_threads(1)
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from itertools import count
from interp.text.corpora import Corpus
from interp.text.corpora import Document
model = load_model(SmallConfig(n_layers=1, d_model=64, n_heads=1))
text = "some words for a document of moderate length. " * 20
endless = Corpus("endless", lambda: (Document(text, str(n), "") for n in count()), lambda: "endless")
record(model, endless, {str(folder)!r}, RecordConfig(tokens={n_tokens}, dtype="float32", shard_contexts=64),
       hook_points=["blocks.0.hook_resid_post", "hook_embed"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    return float(done.stdout.strip().splitlines()[-1])


@pytest.mark.real
def test_smollm2_recording_equals_its_cache(smollm2, text_documents, tmp_path: Path) -> None:
    names = ["blocks.1.hook_resid_post", "blocks.2.attn.hook_z", "blocks.2.mlp.hook_post", "blocks.2.hook_resid_mid"]
    config = RecordConfig(tokens=500, context_length=64, batch_size=4, dtype="float32")
    record(smollm2, text_documents, tmp_path / "r", config, hook_points=names)
    recording = Recording(tmp_path / "r")
    tokens = recording.token_shard(0).tokens.long().view(-1, 64)
    parts = [run_with_cache(smollm2, batch, names, stop_at_layer=3)[1] for batch in tokens.split(4)]
    for name in names:
        cached = torch.cat([part[name].reshape(-1, recording.d(name)) for part in parts])
        assert torch.equal(recording.activation_shard(name, 0), cached)
