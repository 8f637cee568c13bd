"""Rows stored as int8: an error of at most half a step, printed; every reader gets floating numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.artifacts import open_artefact, verify
from interp.errors import ConfigError, NonFiniteError
from interp.recording.record import record
from interp.recording.recorded import RecordConfig, Recorded
from interp.recording.rows import encode
from interp.recording.store import Recording

POINTS = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]
SMALL = RecordConfig(tokens=3000, context_length=32, batch_size=4, shard_contexts=16)


@pytest.fixture(scope="module")
def both(tiny_model, text_documents, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Recording]:
    """The same text in float32 and in int8."""
    folder = tmp_path_factory.mktemp("recordings")
    for dtype in ("float32", "int8"):
        record(tiny_model, text_documents, folder / dtype, replace(SMALL, dtype=dtype), hook_points=POINTS)
    return Recording(folder / "float32"), Recording(folder / "int8")


def fvu(x: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Error as a fraction of the variance, by column."""
    x, stored = x.double(), stored.double()
    return (x - stored).square().sum(0) / (x - x.mean(0)).square().sum(0)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(-20, 20), st.sampled_from([0.0, 1.0, 2.0]), st.booleans())
def test_the_error_is_at_most_half_a_step_and_no_value_leaves_the_codes(seed, power, spread, none_real):
    """Rows and columns of very unequal size, rows of zeros, and shards without text."""
    generator = torch.Generator().manual_seed(seed)
    n, d = (int(torch.randint(1, high, (), generator=generator)) for high in (600, 40))
    size = [10 ** (spread * torch.randn(*shape, generator=generator)) for shape in ((n, 1), (1, d))]
    x = torch.randn(n, d, generator=generator) * size[0] * size[1] * 10**power
    x[torch.rand(n, generator=generator) < 0.1] = 0
    real = np.zeros(n, bool) if none_real else (torch.rand(n, generator=generator) < 0.9).numpy()
    coded = encode(x, real)
    step = coded.row_scale.double()[:, None] * coded.column_scale.double()
    assert ((x.double() - coded.decode().double()).abs() <= step * 0.50002).all()
    assert coded.activations.abs().max() <= 127
    assert not coded.decode()[(x == 0).all(1)].any()
    largest = (x.double() / coded.column_scale.double()).abs().amax(1)
    torch.testing.assert_close(127 * coded.row_scale.double(), largest, rtol=1e-6, atol=1e-35)  # no step is too long


def test_massive_activations_cost_the_others_little():
    """One column a thousand times the others, and BOS rows of norm a hundred: what one scale per row would lose."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 64, generator=generator)
    x[:, 7] = 1000 + 100 * torch.randn(1024, generator=generator)
    real = np.arange(1024) % 128 != 0
    x[~torch.from_numpy(real)] *= 100
    rows, others = torch.from_numpy(real), torch.arange(64) != 7
    ours = fvu(x[rows], encode(x, real).decode()[rows])
    scale = x.abs().amax(1, keepdim=True) / 127
    plain = fvu(x[rows], ((x / scale).round() * scale)[rows])
    assert ours[others].max() < 1e-3
    assert ours[7] < 0.01  # its mean is ten times its spread
    assert plain[others].min() > 0.5, "the null: with a scale per row alone the others are gone"


def test_every_reader_gets_the_same_floating_rows(both):
    exact, coded = both
    assert verify(coded.folder) == []
    assert exact.shard_rows == coded.shard_rows
    for name in POINTS:
        shards = [coded.activation_shard(name, shard) for shard in range(coded.n_shards)]
        whole = torch.cat(shards)
        assert whole.dtype == torch.float32
        real = torch.cat([coded.real_rows(s) + int(coded.shard_starts[s]) for s in range(coded.n_shards)])
        assert fvu(torch.cat([exact.activation_shard(name, s) for s in range(4)]), torch.cat(shards[:4])).max() > 0
        assert torch.equal(coded.activation_shard(name, 1, slice(5, 70)), shards[1][5:70])
        assert torch.equal(coded.read_rows(name, torch.tensor([3, 700, 30])), whole[[3, 700, 30]])
        assert torch.equal(torch.cat([b.activations[name] for b in coded.sequential([name])]), whole[real])
        for batch in coded.shuffled([name], batch_size=50, dtype=torch.float64):
            assert torch.equal(batch.activations[name], whole[batch.rows].double())
        stats = coded.stats(name)
        torch.testing.assert_close(stats.mean, whole[real].double().mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(stats.variance, whole[real].double().var(0, correction=0), rtol=1e-8, atol=1e-12)


def test_the_cost_that_is_printed_is_that_of_the_rows(both):
    exact, coded = both
    artefact = open_artefact(Recorded, coded.folder)
    assert artefact.rounding is not None
    for name, line in zip(POINTS, artefact.details(), strict=True):
        x, y = (
            torch.cat([r.activation_shard(name, s)[r.real_rows(s)] for s in range(r.n_shards)]).double() for r in both
        )
        error = (x - y).square().sum()
        cost = artefact.rounding[name]
        assert cost.relative_error == pytest.approx(float((error / x.square().sum()).sqrt()), rel=1e-3)
        assert cost.fvu == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-3)
        assert 0 < cost.fvu < 0.01
        assert name in line
        assert f"{cost.relative_error:.2%}" in line
    assert exact.artefact.rounding is None


def test_it_takes_half_of_the_bytes_of_float16(both, tiny_model, text_documents, tmp_path: Path):
    record(tiny_model, text_documents, tmp_path / "half", SMALL, hook_points=POINTS)
    half, coded = (
        sum(f.stat().st_size for f in folder.rglob("blocks*/0*.safetensors"))
        for folder in (tmp_path / "half", both[1].folder)
    )
    assert coded < 0.75 * half  # of rows of 64 numbers, with scales and moments in float64


def test_training_on_it_learns_what_training_on_floats_does(both, tmp_path: Path):
    from saes.kinds.config import BatchTopKConfig
    from saes.training.config import TrainConfig
    from saes.training.train import train_sae

    train = TrainConfig(tokens=8192, batch_size=128)
    ends = [
        train_sae(recording, POINTS[0], BatchTopKConfig(d_sae=64, k=4), train, tmp_path / recording.dtype)
        for recording in both
    ]
    from saes.training.reconstruction import evaluate_on_recording

    scores = [evaluate_on_recording(sae, both[0]).fvu for sae in ends]  # both on what the model computed
    assert scores[1] == pytest.approx(scores[0], abs=0.01)
    assert scores[0] < 0.9


def test_bad_numbers_and_live_recordings_are_refused(tiny_model, text_documents, tmp_path: Path):
    with pytest.raises(ConfigError, match="a live recording stores no activations"):
        replace(SMALL, dtype="int8", live=True)
    weight = tiny_model.state_dict()[next(iter(tiny_model.state_dict()))]
    kept = weight.clone()
    try:
        weight[65:] = float("nan")
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            record(tiny_model, text_documents, tmp_path / "bad", replace(SMALL, dtype="int8"), hook_points=POINTS)
    finally:
        weight.copy_(kept)
