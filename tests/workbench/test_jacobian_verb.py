"""`workbench lens MODEL --kind jacobian`, and what features then make the model say, on the verbs' own artefacts."""

import shutil

import numpy as np
import pytest

from dashboard.data.meaning import said_by
from dashboard.feature import sections
from interp.artifacts import verify
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import lens_point
from interp.lenses.logit_lens import logit_effects
from interp.models.loading import load_model
from interp.workspace import Workspace
from saes.features.meaning import N_DIRECTIONS, meaning_of
from saes.features.schema import Features
from saes.features.sources import neurons_of
from workbench.__main__ import main

MODEL = "small:mlp-2l"
LENS = ["lens", MODEL, "--kind", "jacobian", "--context-length", "24", "--rounds", "2", "--heldout-positions", "32",
        "--skip", "2", "--n-contexts", "60", "--threads", "1", "--products", "float32"]  # fmt: skip


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A workspace with the neurons of both layers of a small model, and the text."""
    folder = tmp_path_factory.mktemp("lens")
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"{n}: the quick brown fox jumps over the lazy dog number {n * n}." for n in range(99)))
    options = ["--workspace", str(folder / "ws"), "--threads", "1"]
    points = ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"]
    assert main(["record", MODEL, "--name", "text", "--corpus", str(text), "--tokens", "1500", "--context-length", "24",
                 "--hook-points", *points, *options]) == 0  # fmt: skip
    for layer, point in enumerate(points):
        words = [f"neurons:{point}", "--recording", "text", "--name", f"layer-{layer}", "--no-index"]
        assert main(["features", *words, *options]) == 0
    return folder


def test_without_a_lens_the_page_shows_the_direct_effect_and_offers_to_fit_one(described):
    workspace = Workspace(described / "ws")
    if "small-mlp-2l" in workspace.names("jacobian_lens"):
        pytest.fail("this test comes before the lens is fitted")
    features = workspace.open(Features, "layer-0")
    assert meaning_of(workspace, features) is None
    assert said_by(workspace, features, 3).state == "no lens"
    row = features.features.rows("feature = 3")[0]
    shown = str(sections.effects(row, None, said_by(workspace, features, 3)))
    assert "needs a Jacobian lens of this model" in shown
    assert "kind=jacobian" in shown


@pytest.fixture(scope="module")
def fitted(described):
    own = ["--corpus", str(described / "text.txt"), "--workspace", str(described / "ws")]
    assert main([*LENS, *own, "--export", str(described / "lens.pt")]) == 0
    return Workspace(described / "ws")


def test_the_verb_fits_stores_and_says_what_it_measured(cli, fitted, described):
    lens = fitted.open(JacobianLens, "small-mlp-2l")
    assert verify(lens.folder) == []
    assert lens.settings.products == "float32"
    assert [x.hook_point for x in lens.layers] == ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
    words = (*LENS, "--corpus", described / "text.txt")
    assert "already there" in cli(fitted, *words, code=2)
    out = cli(fitted, *words, "--name", "again", "--from-file", described / "lens.pt")
    assert ", 1 layer" in out
    assert " nan" not in out
    assert np.array_equal(fitted.open(JacobianLens, "again").jacobians[0], lens.jacobians[1])
    shutil.rmtree(fitted.path("jacobian_lens", "again"))


def test_after_the_last_block_a_direction_says_its_direct_effect(fitted):
    features = fitted.open(Features, "layer-1")
    meaning = meaning_of(fitted, features)
    assert meaning is not None
    model = load_model(MODEL)
    direct = logit_effects(model, neurons_of(model, "blocks.1.mlp.hook_post").decoder_directions, 5)
    assert (meaning.raised[:, 0] == direct.promoted_ids[:, 0].numpy()).mean() > 0.95  # float16 may swap near ones
    said = meaning.says(7, 5)
    assert said.raised[0][1] >= said.raised[1][1] > 0 > said.lowered[1][1] >= said.lowered[0][1]
    assert said.raised_p == (1 + (meaning.null_high >= said.raised[0][1]).sum()) / (N_DIRECTIONS + 1)


def test_before_it_the_lens_carries_it(fitted):
    meaning = meaning_of(fitted, fitted.open(Features, "layer-0"))
    assert meaning is not None
    lens, model = fitted.open(JacobianLens, "small-mlp-2l"), load_model(MODEL)
    rows = neurons_of(model, "blocks.0.mlp.hook_post").decoder_directions
    through = logit_effects(model, lens.carry("blocks.0.hook_resid_post", rows), 1)
    assert (meaning.raised[:, 0] == through.promoted_ids[:, 0].numpy()).mean() > 0.95
    best = meaning.raised[5, 0]
    assert meaning.strengths([int(best)])[5, 0] == pytest.approx(float(meaning.raised_strength[5, 0]), rel=1e-2)


def test_of_an_untrained_model_features_say_no_more_than_random_directions(fitted):
    """The neurons of a model that learned nothing are random directions: p is uniform."""
    meaning = meaning_of(fitted, fitted.open(Features, "layer-0"))
    assert meaning is not None
    p = np.array([meaning.says(i).raised_p for i in range(len(meaning.raised))])
    assert (p <= 0.05).mean() < 0.12


def test_the_page_reads_it_and_folds_the_direct_effect_away(fitted):
    said = said_by(fitted, fitted.open(Features, "layer-0"), 3)
    assert said.state == "read"
    row = fitted.open(Features, "layer-0").features.rows("feature = 3")[0]
    promotes, suppresses = sections.effects(row, None, said)
    assert said.saying is not None
    assert "by the Jacobian lens" in str(promotes)
    assert "Direct effect" in str(promotes)
    assert repr(said.saying.raised[0][0].strip())[1:-1] in str(promotes)
    assert "direction" in str(suppresses)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("blocks.2.hook_resid_pre", "blocks.1.hook_resid_post"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("blocks.2.mlp.hook_post", "blocks.2.hook_resid_post"),
        ("blocks.2.hook_attn_out", "blocks.2.hook_resid_post"),
    ],
)
def test_a_direction_is_read_where_it_has_been_written(written, read):
    assert lens_point(written, 4) == read


def test_a_cache_that_was_cut_short_is_made_again(fitted, monkeypatch, tmp_path):
    features = fitted.open(Features, "layer-0")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "whole"))
    whole = meaning_of(fitted, features)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for file in (tmp_path / "cut").rglob("directions.npy"):
        file.write_bytes(file.read_bytes()[:100])
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cut"))
    again = meaning_of(fitted, features)
    assert whole is not None
    assert again is not None
    assert np.array_equal(again.raised, whole.raised)
