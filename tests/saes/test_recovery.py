"""What is found of a known dictionary: exact on dictionaries made by hand, and what training finds against the null."""

import itertools
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from planted import ReluDictionary

from interp.errors import ConfigError, MismatchError
from interp.statistics import t_interval
from saes.evaluation.baselines import coordinates_of, untrained_sae
from saes.evaluation.compare import TruncatedSAE, compare, truncate
from saes.evaluation.matching import best_match, match_features, nearest_cosines, random_like
from saes.evaluation.sae_comparison import SAEComparison
from saes.evaluation.synthetic import HOOK_POINT, SyntheticConfig, SyntheticData, measure_recovery, write_synthetic
from saes.kinds.base import ReLU, SAEMetadata, TokenNormSAE, Weights
from saes.kinds.config import BatchTopKConfig, MatryoshkaConfig, TopKConfig
from saes.kinds.l1 import ReLUSAE
from saes.kinds.topk import TopKSAE
from saes.training.config import TrainConfig
from saes.training.reconstruction import evaluate_on_recording
from saes.training.run import Job
from saes.training.train import train_many
from saes.weights.folder import load_sae

ORTHOGONAL = SyntheticConfig(n_features=16, d=16, noise=0.0, magnitude="constant")
HARD = SyntheticConfig(n_features=96, d=32, correlation=0.3)
SEEDS = (0, 1, 2)
KINDS = ("topk", "batchtopk", "matryoshka")

pytestmark = pytest.mark.usefixtures("one_thread")


def orthogonal() -> SyntheticData:
    data = SyntheticData(ORTHOGONAL)
    data.directions = torch.linalg.qr(data.directions).Q.contiguous()
    return data


def truth_as_sae(data: SyntheticData, rows: torch.Tensor, gain: float = 1.0) -> ReLUSAE:
    """`rows` of directions as a ReLU SAE, whose decoder gives `gain` times what it read."""
    weights = Weights(rows.T.contiguous(), torch.full((len(rows),), -1e-3), gain * rows, data.mean)
    return ReLUSAE(weights, metadata=SAEMetadata(hook_point=HOOK_POINT))


def test_the_true_dictionary_scores_one_in_any_order():
    data = orthogonal()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    found = measure_recovery(truth_as_sae(data, data.directions[order]), data)
    for score in ("mcc", "mmcs", "uniqueness", "precision", "recall", "f1", "recovered"):
        assert getattr(found, score) == pytest.approx(1, abs=1e-5), score
    assert found.fvu < 1e-4
    assert found.shrinkage == pytest.approx(1, abs=5e-3)
    assert found.l0 == pytest.approx(found.true_l0)
    assert found.true_l0 == pytest.approx(data.l0, rel=0.05)
    assert found.mcc_random < 0.7


def test_the_error_is_that_of_what_a_kind_adds_past_its_features_too():
    """A normalised token gets its own scale back after decoding."""
    data = SyntheticData(SyntheticConfig(n_features=12, d=8))
    rows = data.directions
    weights = Weights(rows.T.contiguous(), torch.zeros(12), rows, torch.zeros(8))
    sae = TokenNormSAE(weights, activation=ReLU(), norm="layer_norm")
    found = measure_recovery(sae, data, n_rows=500, batch_size=500, seed=2)
    x = next(iter(data.batches(500, seed=-3))).x
    error = (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert found.fvu == pytest.approx(float(error), rel=1e-4)


def test_half_of_the_dictionary_is_half_found_and_weak_latents_are_shrunk():
    data = orthogonal()
    found = measure_recovery(truth_as_sae(data, data.directions[:8], gain=0.5), data)
    assert found.mcc == pytest.approx(1, abs=1e-5)  # of matched pairs only, as the field has it
    assert found.f1 == pytest.approx(0.5, abs=1e-5)
    assert found.recovered == 0.5
    assert found.mmcs == pytest.approx(0.5, abs=1e-5)
    assert found.shrinkage == pytest.approx(0.5, abs=5e-3)


def test_two_features_on_one_latent_are_counted_once():
    data = orthogonal()
    rows = data.directions.clone()
    rows[1] = rows[0]
    found = measure_recovery(truth_as_sae(data, rows), data)
    assert found.uniqueness == pytest.approx(15 / 16)
    assert found.recovered == pytest.approx(15 / 16)


def test_scores_are_those_written_out_in_float64():
    data = SyntheticData(SyntheticConfig(n_features=12, d=8))
    sae = ReluDictionary(8, 20, seed=1, bias=-0.5, hook_point=HOOK_POINT)
    found = measure_recovery(sae, data, n_rows=700, batch_size=300, seed=2)
    parts = list(itertools.islice(data.batches(300, seed=-3), 3))
    x, true = (torch.cat([getattr(p, name) for p in parts])[:700].double() for name in ("x", "strengths"))
    W, T = sae.W.double(), data.directions.double()
    acts = torch.relu(x @ W.T - 0.5)
    cosines = (W @ T.T).abs()
    pairs = best_match(W, T, absolute=True)
    f1, precision, recall, made, strength = [], [], [], 0.0, 0.0
    for latent, feature in zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True):
        on, active = true[:, feature] > 0, acts[:, latent] > 0
        hits = (on & active).sum().item()
        precision.append(hits / max(active.sum().item(), 1))
        recall.append(hits / max(on.sum().item(), 1))
        f1.append(2 * hits / max(on.sum().item() + active.sum().item(), 1))
        made += (acts[:, latent] * (on & active)).sum().item() * (W[latent] @ T[feature]).item()
        strength += (true[:, feature] * (on & active)).sum().item()
    errors = (x - acts @ W).square().sum() / (x - x.mean(0)).square().sum()
    expected = {
        "mcc": cosines[pairs.rows, pairs.columns].mean().item(),
        "mmcs": cosines.amax(0).mean().item(),
        "uniqueness": len(set(cosines.argmax(1).tolist())) / 12,
        "precision": sum(precision) / 12,
        "recall": sum(recall) / 12,
        "f1": sum(f1) / 12,
        "recovered": sum(score >= 0.5 for score in f1) / 12,
        "l0": (acts > 0).sum(1).double().mean().item(),
        "true_l0": (true > 0).sum(1).double().mean().item(),
        "shrinkage": made / strength,
        "dead": (~(acts > 0).any(0)).double().mean().item(),
        "fvu": errors.item(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-4, abs=1e-9), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, SAEComparison]:
    """Seed -> a comparison of three kinds at the true L0 and of a TopK at four times that."""
    root, found = tmp_path_factory.mktemp("trained"), {}
    for seed in SEEDS:
        data = SyntheticData(HARD, seed=seed)
        recording = write_synthetic(data, root / f"recording-{seed}", n_rows=30_000)
        size, k = HARD.n_features, round(data.l0)
        configs = {
            "topk": TopKConfig(d_sae=size, k=k),
            "batchtopk": BatchTopKConfig(d_sae=size, k=k),
            "matryoshka": MatryoshkaConfig(d_sae=size, k=k, prefixes=(0.5,)),
            "dense": TopKConfig(d_sae=size, k=4 * k),
        }
        settings = TrainConfig(tokens=160_000, batch_size=256, lr=1e-2, seed=seed, log_every=10_000)
        jobs = [Job(sae=c, train=settings, folder=root / f"{name}-{seed}") for name, c in configs.items()]
        for _ in train_many(recording, HOOK_POINT, jobs):
            pass
        saes = {name: load_sae(root / f"{name}-{seed}") for name in configs}
        found[seed] = compare(saes, recording, truth=data, seed=seed)
    return found


def scores(trained: dict[int, SAEComparison], name: str):
    rows = [next(row for row in trained[seed].rows if row.name == name) for seed in SEEDS]
    found = [asdict(row.recovery) for row in rows]
    return {score: t_interval(np.array([each[score] for each in found], float)) for score in found[0]}


@pytest.mark.parametrize("name", KINDS)
def test_training_finds_the_dictionary_and_an_untrained_sae_does_not(trained, name):
    found, null = scores(trained, name), scores(trained, "untrained")
    assert found["mcc"].low > 0.7
    assert null["mcc"].high < 0.5
    assert found["f1"].low > null["f1"].high + 0.3
    assert found["recovered"].low > 0.6
    assert null["recovered"].high < 0.1
    assert found["fvu"].high < 0.25 < 0.5 < null["fvu"].low
    assert found["uniqueness"].low > null["uniqueness"].high
    assert (
        0.75 < found["shrinkage"].low < found["shrinkage"].high < 1
    )  # strengths come back too weak, the error hides it


def test_an_untrained_sae_matches_no_better_than_random_rows(trained):
    null = scores(trained, "untrained")
    assert abs(null["mcc"].estimate - null["mcc_random"].estimate) < 0.05


def test_a_better_reconstruction_with_fewer_true_features_is_reported(trained):
    for comparison in trained.values():
        pairs = {(r.lower_error.name, r.more_found.name) for r in comparison.reversals}
        assert {("dense", name) for name in KINDS} <= pairs
        assert all(found != "dense" for _, found in pairs)
        assert "dense reconstructs better than topk" in comparison.table()
        rows = {row.name: row for row in comparison.rows}
        assert rows["dense"].own.fvu < 0.5 * rows["topk"].own.fvu
        assert rows["dense"].matched.fvu > 1.2 * rows["topk"].matched.fvu  # at the same L0 the order is the right one


def test_worse_in_both_is_no_reversal(trained):
    rows = {row.name: row for row in trained[0].rows}
    untrained = replace(rows["untrained"], baseline=False)
    assert untrained.recovery.f1 < rows["topk"].recovery.f1 - 0.3
    assert replace(trained[0], rows=(rows["topk"], untrained)).reversals == []


def test_the_table_has_every_dictionary_at_the_same_l0(trained):
    for comparison in trained.values():
        assert {row.name for row in comparison.rows} == {*KINDS, "dense", "pca", "coordinates", "untrained"}
        for row in comparison.rows:
            aim = round(comparison.l0) if row.baseline else comparison.l0  # a baseline's k is a whole number
            assert row.matched.l0 == pytest.approx(aim, abs=0.01), row.name
        lines = comparison.table().splitlines()
        assert all(any(line.startswith(row.name) for line in lines) for row in comparison.rows)
        assert all(title in lines[0] for title in ("MCC", "F1", "unique", "strength"))
        best = min(comparison.rows, key=lambda row: row.matched.fvu)
        assert lines[1].startswith(best.name)


def test_without_truth_nothing_is_said_about_it(tmp_path):
    data = orthogonal()
    recording = write_synthetic(data, tmp_path / "recording", n_rows=3000)
    found = compare({"mine": truth_as_sae(data, data.directions)}, recording)
    assert found.reversals == []
    assert "MCC" not in found.table()
    assert [row.name for row in found.rows if not row.baseline] == ["mine"]
    assert found.rows[0].matched is found.rows[0].own


def test_a_cut_keeps_the_largest_contributions_of_any_decoder_length(tmp_path):
    data = SyntheticData(SyntheticConfig(n_features=16, d=16))
    recording = write_synthetic(data, tmp_path / "recording", n_rows=4000)
    lengths = torch.linspace(0.5, 2, 16)
    weights = truth_as_sae(data, data.directions).weights
    weights = weights._replace(W_enc=weights.W_enc / lengths, W_dec=weights.W_dec * lengths[:, None])
    sae = ReLUSAE(weights, metadata=SAEMetadata(hook_point=HOOK_POINT))
    x = next(data.batches(500, seed=9)).x
    cut = truncate(sae, iter([x]), 1.0)
    assert isinstance(cut, TruncatedSAE)
    acts, kept = sae.encode(x), cut.encode(x)
    assert (kept > 0).sum() == pytest.approx(500, abs=2)
    added, dropped = acts * lengths, acts * lengths * (kept == 0)
    assert added[kept > 0].min() >= dropped.max() - 1e-5
    assert torch.equal(kept, acts * (kept > 0))
    sparse = cut.encode_sparse(x)
    torch.testing.assert_close(cut.decode_sparse(sparse), cut(x))
    assert evaluate_on_recording(cut, recording).fvu > evaluate_on_recording(sae, recording).fvu
    assert truncate(sae, iter([x]), 16.0) is sae
    with pytest.raises(ConfigError, match="above 0"):
        truncate(sae, iter([x]), 0.0)
    with pytest.raises(ConfigError, match="rows"):
        truncate(sae, iter([]), 1.0)


def test_baselines_are_what_they_are_named(tmp_path):
    recording = write_synthetic(SyntheticData(HARD), tmp_path / "recording", n_rows=2000)
    x = next(SyntheticData(HARD).batches(50, seed=7)).x
    whole = coordinates_of(recording, HOOK_POINT, k=32)
    torch.testing.assert_close(whole(x), x, atol=1e-5, rtol=1e-5)
    largest = (coordinates_of(recording, HOOK_POINT, k=1)(x) - whole.b_dec).abs()
    assert ((largest > 1e-6).sum(1) <= 1).all()
    a, b = (untrained_sae(recording, HOOK_POINT, d_sae=40, k=3, seed=seed) for seed in (0, 1))
    assert not torch.equal(a.W_dec, b.W_dec)
    assert torch.equal(a.W_enc.T, a.W_dec)
    for make, most in ((coordinates_of, 33), (lambda *args, k: untrained_sae(*args, d_sae=8, k=k), 9)):
        with pytest.raises(ConfigError, match="k must lie"):
            make(recording, HOOK_POINT, k=most)


def test_features_of_one_dictionary_match_themselves_and_not_the_null():
    generator = torch.Generator().manual_seed(0)
    one = random_like(torch.randn(60, 32, generator=generator) + 0.5, generator=generator)
    order = torch.randperm(60, generator=generator)
    first, same = (with_directions(rows) for rows in (one, 5 * one[order]))
    found = match_features(first, same)
    assert found.shared == 1
    assert found.mean_cosine == pytest.approx(1)
    assert torch.equal(order[found.match.columns], found.match.rows)
    assert found.shared_random < 0.3
    other = with_directions(random_like(one, generator=generator))
    assert match_features(first, other).mean_cosine == pytest.approx(found.mean_cosine_random, abs=0.05)


def with_directions(rows: torch.Tensor) -> TopKSAE:
    return TopKSAE(Weights(rows.T.contiguous(), torch.zeros(len(rows)), rows, torch.zeros(rows.shape[1])), k=1)


def test_the_null_has_the_second_moments_of_the_dictionary():
    directions = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9, 1, 1, 1, 1, 0.01])
    unit = torch.nn.functional.normalize(directions, dim=1)
    null = random_like(directions, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(null.T @ null / 4000, unit.T @ unit / 4000, atol=0.03, rtol=0)


def test_nearest_cosines_leave_a_row_itself_out():
    rows = torch.tensor([[1.0, 0], [2, 0], [0, 1], [-1, 0]])
    torch.testing.assert_close(nearest_cosines(rows), torch.tensor([1.0, 1, 0, 0]))


def test_what_does_not_fit_is_refused(tmp_path):
    data = orthogonal()
    recording = write_synthetic(data, tmp_path / "recording", n_rows=500)
    mine = truth_as_sae(data, data.directions)
    with pytest.raises(MismatchError, match="width 16"):
        measure_recovery(ReluDictionary(8, 4, hook_point=HOOK_POINT), data)
    with pytest.raises(MismatchError, match="width"):
        best_match(torch.eye(3), torch.eye(4))
    with pytest.raises(ConfigError, match="at least one"):
        compare({}, recording)
    elsewhere = ReLUSAE(mine.weights, metadata=SAEMetadata(hook_point="blocks.1.hook_resid_post"))
    with pytest.raises(MismatchError, match="one hook point"):
        compare({"mine": mine, "elsewhere": elsewhere}, recording)
