"""Null dictionaries: what stays frozen, and what scores say where features are planted and where there are none."""

from math import nan

import pytest
import torch
from planted import write_recording
from test_train_kinds import planted

from interp.errors import ConfigError
from interp.statistics import Interval
from saes.evaluation.nulls import (
    WHOLE,
    AgainstNulls,
    DictionaryAgainstNulls,
    NullScore,
    label_scores,
    null_config,
    reconstruction_scores,
    train_nulls,
)
from saes.features.label_shares import LabelShare
from saes.kinds.config import BatchTopKConfig
from saes.kinds.own import own_config
from saes.training.config import NULLS, TrainConfig
from saes.training.reconstruction import evaluate_on_recording
from saes.training.run import shuffled
from saes.training.train import train_sae

CONFIG = BatchTopKConfig(d_sae=64, k=3)
TRAIN = TrainConfig(tokens=24_000, batch_size=256, lr=3e-3, heldout_fraction=0.3, log_every=1000)

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(recording, folder, seed):
    hook_point = recording.hook_points[0]
    sae = train_sae(recording, hook_point, CONFIG, TrainConfig(tokens=512, batch_size=256), folder / "own")
    settings = TrainConfig(**{**vars(TRAIN), "seed": seed})
    return train_nulls(sae, recording, folder / "nulls", CONFIG, settings)


def noise_recording(folder, seed):
    """Return independent normal coordinates of as many rows, in documents of 200."""
    x = torch.randn(16_000, 16, generator=torch.Generator().manual_seed(seed))
    document = torch.arange(len(x)) // 200
    return write_recording(folder, x, torch.ones(len(x)), document, context_length=40, shard_contexts=100)


def fvu(dictionaries, recording):
    held = {name: evaluate_on_recording(sae, recording, heldout_fraction=0.3) for name, sae in dictionaries.items()}
    (score,) = reconstruction_scores({name: NullScore(heldout=h, in_model=None) for name, h in held.items()})
    return score


@pytest.mark.parametrize("seed", range(3))
def test_a_dictionary_beats_its_nulls_where_features_are_planted_and_only_there(tmp_path, seed):
    features = planted(tmp_path / "planted", seed=seed)
    score = fvu(trained(features, tmp_path / "a", seed), features)
    assert score.above, score
    noise = noise_recording(tmp_path / "noise", seed)
    score = fvu(trained(noise, tmp_path / "b", seed), noise)
    assert not score.above, score
    assert score.best == "shuffled"  # coordinates of noise share nothing anyway


def test_the_frozen_half_stays_as_drawn_and_a_repeated_call_trains_nothing(tmp_path):
    recording = planted(tmp_path / "planted")
    found = trained(recording, tmp_path, 0)
    assert found.keys() == {WHOLE, *NULLS}
    rows = {name: (sae.W_dec, sae.W_enc.T) for name, sae in found.items()}
    drawn = rows["frozen-decoder"][0]  # the encoder begins as the decoder's copy, up to the scale of the rows
    kept = {name: [float(torch.cosine_similarity(half, drawn).min()) for half in pair] for name, pair in rows.items()}
    assert kept["frozen-encoder"][1] == pytest.approx(1, abs=1e-4)
    assert kept["frozen-encoder"][0] < 0.999
    assert kept["frozen-decoder"][1] < 0.999
    assert max(kept[WHOLE] + kept["shuffled"]) < 0.999
    weights = tmp_path / "nulls" / "whole" / "sae_weights.safetensors"
    before = weights.stat().st_mtime_ns
    train_nulls(found[WHOLE], recording, tmp_path / "nulls", CONFIG, TRAIN)
    assert weights.stat().st_mtime_ns == before


def test_shuffled_rows_keep_each_coordinate_and_lose_what_they_share():
    x = torch.randn(2048, 1).repeat(1, 6) + torch.arange(6)
    y = shuffled(x, seed=0, step=3)
    assert torch.equal(y.sort(0).values, x.sort(0).values)
    assert torch.corrcoef(y.T).fill_diagonal_(0).abs().max() < 0.1
    assert torch.equal(y, shuffled(x, seed=0, step=3))
    assert not torch.equal(y, shuffled(x, seed=0, step=4))


def test_a_score_counts_only_where_its_interval_lies_beyond_every_null():
    nulls = {"pca": 0.6, "shuffled": 0.7}
    cases = {(0.9, 0.8, 1.0): "better than all", (0.9, 0.65, 1.0): "says nothing: shuffled",
             (0.9, nan, nan): "better, no interval", (0.5, nan, nan): "says nothing"}  # fmt: skip
    scores = [AgainstNulls(score="F1", whole=Interval(*ends), nulls=nulls) for ends in cases]
    assert all(score.verdict.startswith(words) for score, words in zip(scores, cases.values(), strict=True))
    assert AgainstNulls(score="F1", whole=Interval(0.6, 0.5, 0.8), nulls={"pca": 0.6}).verdict == "no better than pca"
    assert not AgainstNulls(score="F1", whole=Interval(0.6, 0.5, 0.8), nulls={}).above
    less = AgainstNulls(score="FVU", whole=Interval(0.5, 0.4, 0.55), nulls=nulls, more_is_better=False)
    assert (less.best, less.above) == ("pca", True)
    assert DictionaryAgainstNulls(scores=(*scores, less)).headline().startswith("2 of 5 scores")


BY_ITS_LOSS = """
from saes import AutogradKind


class Plain(AutogradKind):
    def encode(self, x):
        return (x @ self.W_dec.T).relu()

    def loss(self, batch, acts, recons):
        return (recons - batch.target).square().mean()
"""


def test_a_kind_that_is_given_by_its_loss_has_no_half_to_freeze(tmp_path, monkeypatch):
    recording = planted(tmp_path / "planted", n=4000)
    sae = train_sae(
        recording, recording.hook_points[0], CONFIG, TrainConfig(tokens=512, batch_size=256), tmp_path / "o"
    )
    assert null_config(sae, None, 2.6) == BatchTopKConfig(d_sae=64, k=3)
    (tmp_path / "plain.py").write_text(BY_ITS_LOSS)
    monkeypatch.setenv("WORKBENCH_KINDS", str(tmp_path / "plain.py"))
    with pytest.raises(ConfigError, match="names its own parameters"):
        train_nulls(sae, recording, tmp_path / "nulls", own_config("plain", d_sae=64), TRAIN)


def labels(n_fired, n_labelled, score, *ends):
    """Return the score of a dictionary with these labels; its share of them has an interval of no width."""
    share = n_labelled / n_fired if n_fired else nan
    of_labels = LabelShare(n_fired=n_fired, n_labelled=n_labelled, labelled=Interval(share, share, share),
                           score=Interval(score, *(ends or (nan, nan))))  # fmt: skip
    return NullScore(heldout=None, in_model=None, labels=of_labels)  # pyright: ignore[reportArgumentType]


def test_labels_are_compared_with_nulls_that_have_some():
    scores = {WHOLE: labels(100, 50, 0.8, 0.75, 0.85), "shuffled": labels(0, 0, nan)}
    scores |= {"frozen-decoder": labels(90, 19, 0.9), "untrained": labels(90, 27, 0.6)}
    share, score = label_scores(scores)
    assert share.nulls == {"frozen-decoder": 19 / 90, "untrained": 0.3}
    assert score.nulls == {"untrained": 0.6}, "nineteen labels say little"
    assert (share.verdict, score.verdict) == ("better than all", "better than all")
    assert list(label_scores({WHOLE: labels(0, 0, nan), "untrained": labels(90, 27, 0.6)})) == []
    (alone,) = (
        s for s in label_scores({WHOLE: scores[WHOLE], "shuffled": scores["shuffled"]}) if s.score.startswith("f")
    )
    assert alone.verdict == "no null was measured"
