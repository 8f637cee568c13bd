"""The folder on disk: SAELens' numbers, our round trip, and everything that is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_kinds import make_saes

from interp.errors import CorruptError, MismatchError, MissingError, NonFiniteError
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.crosscoder import CrosscoderSAE
from saes.kinds.jumprelu import JumpReLUSAE
from saes.weights.folder import CONFIG, WEIGHTS, check_model, load_direction, load_sae, save_sae


@pytest.fixture(params=[0, 1], ids=["topk", "jumprelu"])
def saved(request, tmp_path):
    sae = make_saes()[request.param]
    save_sae(sae, tmp_path)
    return sae, tmp_path


@pytest.mark.parametrize("number", range(len(make_saes())))
def test_one_direction_is_the_row_of_the_loaded_sae(number, tmp_path, monkeypatch):
    sae = make_saes()[number]
    save_sae(sae, tmp_path)
    expected = load_sae(tmp_path)
    monkeypatch.setattr("saes.weights._saelens.read", lambda path: pytest.fail("the whole file was read"))
    for latent in (0, sae.d_sae - 1):
        about, direction = load_direction(tmp_path, latent)
        assert torch.equal(direction, expected.decoder_directions[latent].detach())
        assert about == expected.metadata
    with pytest.raises(CorruptError, match="no row"):
        load_direction(tmp_path, sae.d_sae)


def test_a_direction_that_is_not_stored_as_used_is_that_of_the_loaded_sae(tmp_path):
    sae = make_saes()[0]
    save_sae(sae, tmp_path)
    edit_config(tmp_path, rescale_acts_by_decoder_norm=True)
    edit_weights(tmp_path, W_dec=sae.W_dec.detach() * 3)
    torch.testing.assert_close(load_direction(tmp_path, 5)[1].norm(), torch.tensor(1.0))
    with pytest.raises(MissingError, match="workbench train"):
        load_direction(tmp_path / "none", 0)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:100])
    edit_config(tmp_path, rescale_acts_by_decoder_norm=False)
    with pytest.raises(CorruptError, match="cut short"):
        load_direction(tmp_path, 5)


def edit_config(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    config.update(changes)
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def edit_weights(folder, **changes):
    tensors = load_file(folder / WEIGHTS)
    tensors.update(changes)
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / WEIGHTS)


def test_a_truncated_weight_file_is_named(saved):
    _, folder = saved
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptError, match=WEIGHTS):
        load_sae(folder)
    path.unlink()
    with pytest.raises(CorruptError, match="missing"):
        load_sae(folder)
    with pytest.raises(MissingError, match="no SAE at"):
        load_sae(folder / "nowhere")


def test_a_config_that_is_not_json_is_named(saved):
    _, folder = saved
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text('{"d_in": 16,')
    with pytest.raises(CorruptError, match=CONFIG):
        load_sae(folder)
    (folder / CONFIG).write_text(config)
    edit_config(folder, metadata=...)
    with pytest.raises(CorruptError, match="lacks metadata"):
        load_sae(folder)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    sae = make_saes()[0]
    sae.W_dec[3, 2] = float("inf")
    with pytest.raises(NonFiniteError, match="W_dec"):
        save_sae(sae, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_models_weights_are_refused_unless_allowed(saved):
    sae, folder = saved
    check_model(sae, sae.metadata.weight_hash)
    with pytest.raises(MismatchError, match="trained on tiny"):
        check_model(sae, "1" * 64)
    check_model(sae, "1" * 64, allow_other_weights=True)
    edit_config(folder, metadata={"hook_name": "blocks.1.hook_resid_post"})
    with pytest.raises(MismatchError, match="not recorded"):
        check_model(load_sae(folder), "1" * 64)


def test_heads_side_by_side_are_read_as_recordings_keep_them(saved):
    sae, folder = saved
    place = {"hook_name": "blocks.1.attn.hook_z"}
    edit_config(folder, reshape_activations="hook_z", metadata=place)
    loaded, x = load_sae(folder), torch.randn(4, sae.d_in)
    assert torch.equal(loaded(x), sae(x))
    save_sae(loaded, folder)
    assert json.loads((folder / CONFIG).read_text())["reshape_activations"] == "hook_z"


def crosscoder():
    g = torch.Generator().manual_seed(5)
    weights = Weights(*(torch.randn(*shape, generator=g) for shape in ((10, 24), (24,), (24, 10), (10,))))
    places = [{"hook_point": f"blocks.{n}.hook_resid_post", "d": d} for n, d in ((1, 6), (2, 4))]
    scales = torch.tensor([0.5, 2.0])
    return CrosscoderSAE(weights, threshold=torch.rand(24, generator=g), scales=scales, sites=places)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (..., "places must be a list"),
        ([{"hook_point": "a", "d": 10}], r"scales should be \[1\]"),
        ([{"hook_point": "a", "d": 6}, {"hook_point": "b", "d": 5}], "do not add up to d_in = 10"),
        ([{"hook_point": "a", "d": 6}, {"d": 4}], "every site needs a hook_point"),
        ([{"hook_point": "a", "d": 6}, {"hook_point": "b"}], "d must be a whole number"),
    ],
)
def test_sites_that_do_not_fit_a_crosscoder_are_refused(places, words, tmp_path):
    save_sae(crosscoder(), tmp_path)
    edit_config(tmp_path, places=places)
    with pytest.raises(CorruptError, match=words):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["threshold", "scales"])
def test_a_crosscoder_with_values_below_zero_is_refused(name, tmp_path):
    """A threshold below 0 would let negative values through, in `encode_sparse` alone."""
    sae = crosscoder()
    getattr(sae, name)[0] = -0.5
    save_sae(sae, tmp_path)
    with pytest.raises(CorruptError, match="thresholds must be at least 0 and scales above 0"):
        load_sae(tmp_path)


def test_a_dictionary_stored_in_bfloat16_is_half_the_size_and_reads_back_rounded(tmp_path):
    drawn = torch.Generator().manual_seed(0)
    weights = Weights(*(torch.randn(shape, generator=drawn) for shape in ((32, 256), (256,), (256, 32), (32,))))
    sae = JumpReLUSAE(weights, threshold=torch.full((256,), 0.3), metadata=SAEMetadata(model="m", hook_point="h"))
    for dtype in ("float32", "bfloat16"):
        save_sae(sae, tmp_path / dtype, dtype=dtype)
    sizes = [(tmp_path / dtype / "sae_weights.safetensors").stat().st_size for dtype in ("float32", "bfloat16")]
    assert sizes[1] < 0.6 * sizes[0]
    found = load_sae(tmp_path / "bfloat16")
    assert found.W_dec.dtype == torch.float32
    torch.testing.assert_close(found.W_dec, sae.W_dec, rtol=2**-8, atol=0)
    assert torch.equal(found.b_enc, sae.b_enc)
    assert torch.equal(found.threshold, sae.threshold)
