"""The self-check catches every way to misread a layout, lets rounding pass, and is repeated when a folder is loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_kinds import make_saes

from interp.errors import CorruptError
from saes.kinds.base import Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from saes.weights import _saelens
from saes.weights import read as selfcheck
from saes.weights.folder import WEIGHTS, load_sae, save_sae
from saes.weights.layout import Conversion
from saes.weights.read import FORMATS, load_checked

FIXTURES = Path(__file__).parent.parent / "fixtures"


def square_conversion():
    """`d_in = d_sae`, so that a transposed matrix still has the right shape."""
    g = torch.Generator().manual_seed(3)
    weights = Weights(*(torch.randn(*shape, generator=g) for shape in ((12, 12), (12,), (12, 12), (12,))))
    config = {"architecture": "topk", "d_in": 12, "d_sae": 12, "k": 3, "apply_b_dec_to_input": True, "metadata": {}}
    return _saelens.convert(config, weights._asdict(), Path("cfg.json"), Path("weights"))


def mistakes():
    right = square_conversion().sae.weights
    W_enc, b_enc, W_dec, b_dec = right
    return {
        "encoder transposed": right._replace(W_enc=W_enc.T.contiguous()),
        "decoder transposed": right._replace(W_dec=W_dec.T.contiguous()),
        "b_dec subtracted twice": right._replace(b_enc=b_enc - b_dec @ W_enc),
        "b_enc forgotten": right._replace(b_enc=torch.zeros(12)),
        "b_dec scaled": right._replace(b_dec=b_dec * 1.01),
        "rows scaled": right._replace(W_dec=W_dec * 1.001),
        "one latent's rows swapped": right._replace(W_dec=W_dec.flip(0)),
    }


@pytest.mark.parametrize("name", mistakes())
def test_a_misread_layout_fails_the_check(name):
    conversion = square_conversion()
    selfcheck.self_check(conversion)
    with pytest.raises(CorruptError, match="differ from its own format's"):
        selfcheck.self_check(Conversion(sae=TopKSAE(mistakes()[name], k=3), forward=conversion.forward))


def test_other_kinds_of_mistake_fail_the_check():
    conversion = square_conversion()
    weights = conversion.sae.weights
    for wrong in (TopKSAE(weights, k=4), TopKSAE(weights, k=2), Transcoder(weights)):
        with pytest.raises(CorruptError, match="differ"):
            selfcheck.self_check(Conversion(sae=wrong, forward=conversion.forward))


def test_the_check_leaves_the_weights_as_they_were():
    conversion = square_conversion()
    before = {name: t.clone() for name, t in conversion.sae.state_dict().items()}
    selfcheck.self_check(conversion)
    for name, tensor in conversion.sae.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])


def test_one_flipped_row_passes_and_three_do_not():
    errors = torch.full((8,), 1e-7)
    errors[0] = 0.3
    assert selfcheck.agree(errors)
    errors[:3] = 0.3
    assert not selfcheck.agree(errors)
    errors[:] = float("nan")
    assert not selfcheck.agree(errors)


def test_a_dictionary_that_never_fires_cannot_be_checked():
    conversion = square_conversion()

    def silent(x):
        acts, recons = conversion.forward(x)
        return torch.zeros_like(acts), recons

    with pytest.raises(CorruptError, match="no probe input activates"):
        selfcheck.self_check(Conversion(sae=conversion.sae, forward=silent))


@pytest.fixture
def stored(tmp_path):
    """A folder with its probe, as `workbench import` writes it."""
    loaded = load_checked(FIXTURES / "sparsify_sae" / "layers.5")
    save_sae(loaded.sae, tmp_path)
    selfcheck.write_probe(tmp_path, loaded.probe)
    return tmp_path


def test_the_stored_probe_is_compared_again_on_loading(stored):
    error = selfcheck.recheck(load_sae(stored), stored)
    assert error < 1e-5
    tensors = load_file(stored / WEIGHTS)
    tensors["W_dec"][:, 0] += 0.1
    save_file(tensors, stored / WEIGHTS)
    with pytest.raises(CorruptError, match="no longer give the reconstructions stored"):
        load_sae(stored)


def test_a_probe_of_another_dictionary_is_refused(stored):
    save_sae(make_saes()[0], stored)
    with pytest.raises(CorruptError, match=r"selfcheck.safetensors: x should be \[8, 16\]"):
        load_sae(stored)


def test_a_folder_without_a_probe_is_not_checked(tmp_path):
    save_sae(make_saes()[0], tmp_path)
    assert selfcheck.recheck(load_sae(tmp_path), tmp_path) is None


def test_formats_have_names_of_their_own():
    assert len({each.name for each in FORMATS}) == len(FORMATS)
