"""Atlases of a decoder and of recorded activations: every point leads back to its feature or row."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from make_workspace import build
from planted import HOOK, ReluDictionary, random_recording

from interp.atlas.build import MapSettings, build_atlas
from interp.atlas.neighbours import nearest_neighbours
from interp.errors import MismatchError
from interp.lenses.logit_lens import logit_effects
from interp.models.adapter import token_strings, weight_hash
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from saes.features.build import Described, build_features
from saes.features.profiles import _matrix, _reduced, words_source
from saes.features.schema import Features
from saes.features.sources import PromotedReadout, dictionary_readout, sae_source


@pytest.fixture(scope="module")
def model():
    return load_model(SmallConfig(d_model=12, n_heads=4, d_mlp=20))


@pytest.fixture(scope="module")
def made(model, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sae-atlas")
    recording = random_recording(folder / "rec", weight_hash=weight_hash(model))
    dictionary = ReluDictionary(12, 40, bias=-2.9)
    build_features(Described(dictionary=dictionary, name="sae:toy", folder=folder / "feat"), recording, model)
    return folder, recording, dictionary


def test_a_decoder_atlas_shows_labels_and_densities_of_its_features(made):
    folder, _, dictionary = made
    source = sae_source(dictionary, "toy", features_folder=folder / "feat", parents={"saes/toy": "hash"})
    made = build_atlas(source, MapSettings(method="pca"))
    points = made.points.arrow().to_pydict()
    features = pq.read_table(folder / "feat" / "features.parquet").to_pydict()
    assert points["item"] == features["feature"]
    assert points["label"] == features["label"]
    density = np.array(features["density"])
    fired = density > 0
    assert not fired.all(), "the planted bias leaves some features dead"
    np.testing.assert_allclose(np.array(points["value"])[fired], np.log10(density[fired]), rtol=1e-5)
    assert np.array(points["value"])[~fired].max() < np.array(points["value"])[fired].min()
    assert made.value_name == "log10 firing density"
    assert made.features == "feat"
    assert set(source.parents) == {"saes/toy", "features/feat"}


def test_a_decoder_atlas_works_without_features(made):
    _, _, dictionary = made
    source = sae_source(dictionary, "toy")
    assert source.labels == [str(i) for i in range(40)]
    assert source.features is None


def test_cells_of_a_decoder_say_the_nearest_features_and_activations_the_active_ones(made):
    folder, recording, dictionary = made
    labels = pq.read_table(folder / "feat" / "features.parquet")["label"].to_pylist()
    names = [label or f"feature {i}" for i, label in enumerate(labels)]
    source = sae_source(dictionary, "toy", features_folder=folder / "feat")
    assert source.readout.name == "dictionary:toy"
    assert source.readout.read(source.vectors, 1).texts == [[name] for name in names]
    readout = dictionary_readout(dictionary, "toy", folder / "feat")
    rows = recording.read_rows(HOOK, torch.arange(50)).float()
    acts = dictionary.encode(rows)
    reading = readout.read(rows, 3)
    for row, texts, weights in zip(acts, reading.texts, reading.weights, strict=True):
        assert len(texts) == min(3, int((row > 0).sum()))
        assert weights == sorted(weights, reverse=True)
        assert all(weight in row.tolist() for weight in weights)


def test_cells_of_a_decoder_can_say_what_they_promote(model):
    directions = model.W_U.T[:6].detach().clone()
    reading = PromotedReadout(model).read(directions, 1)
    effects = logit_effects(model, directions, 1)
    assert reading.texts == [[token] for token in token_strings(model, effects.promoted_ids)]
    assert [w for (w,) in reading.weights] == pytest.approx(effects.promoted_logits.squeeze(1).tolist())


def test_features_of_another_dictionary_are_refused(made):
    folder, _, _ = made
    with pytest.raises(MismatchError, match="40 features, the SAE has 7"):
        sae_source(ReluDictionary(12, 7), "other", features_folder=folder / "feat")


def test_features_that_read_the_same_words_are_neighbours_and_shuffled_words_make_none():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 10)  # ten features each read five words of their own, and ten words of all
    own = rng.integers(0, 5, (300, 4)) + 5 * group[:, None] + 10
    words = np.hstack([own, rng.integers(0, 10, (300, 6))])

    def agreement(of: np.ndarray) -> float:
        texts = [f"word {word}" for word in of.ravel()]
        vectors = _reduced(_matrix(300, np.repeat(np.arange(300), 10), texts, rng.random(3000) + 0.1))
        assert vectors.norm(dim=1).numpy() == pytest.approx(1, abs=1e-4)
        near = nearest_neighbours(vectors, 9).indices.numpy()
        return float((group[near] == group[:, None]).mean())

    assert agreement(words) > 0.9
    assert agreement(rng.permutation(words)) < 0.1


def test_a_map_of_words_has_one_point_for_each_feature(tmp_path):
    workspace = build(tmp_path)
    source = words_source(workspace, "demo")
    made = workspace.open(Features, "demo")
    assert (len(source.vectors), source.features, source.item_kind) == (made.n_features, "demo", "feature")
    assert source.parents == {"features/demo": made.about.content_hash}
    assert "no lens" in source.notes[0]
    assert build_atlas(source).n_points == made.n_features
