"""Every peer's checkpoints give the peer's numbers, and say where they belong.

The checkpoints in `tests/fixtures/<peer>_*` come from `tests/oracles/run.sh --freeze`: SAELens, sparsify and
dictionary_learning wrote theirs and their numbers; SAELens' loaders gave those of Gemma Scope, Qwen Scope, the older
Llama Scope and circuit-tracer's ReLU transcoders; the rest are built from documented layouts, as their README.md says.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, UnknownNameError
from saes.kinds.transcoder import Transcoder
from saes.weights.circuit_tracer import load_cross_layer_transcoder
from saes.weights.folder import load_sae, save_sae
from saes.weights.read import FORMATS, find_format, load_checked, load_dictionary

FIXTURES = Path(__file__).parent.parent / "fixtures"
CLT = FIXTURES / "circuit_tracer_clt"
FOLDERS = sorted(path.parent for path in FIXTURES.rglob("probe.safetensors") if path.parent != CLT)
NAMES = [str(folder.relative_to(FIXTURES)) for folder in FOLDERS]


def dense(acts, d_sae):
    return torch.zeros(len(acts.values), d_sae).scatter_add_(1, acts.indices.long(), acts.values)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_peers_checkpoint_gives_the_peers_numbers(folder):
    sae, probe = load_dictionary(folder), load_file(folder / "probe.safetensors")
    x = probe["x"]
    close = {"atol": 2e-5 * float(probe["recons"].abs().max()), "rtol": 1e-5}
    torch.testing.assert_close(sae.encode(x), probe["feature_acts"], **close)
    torch.testing.assert_close(dense(sae.encode_sparse(x), sae.d_sae), probe["feature_acts"], **close)
    torch.testing.assert_close(sae(x), probe["recons"], **close)
    torch.testing.assert_close(sae.complete(sae.decode_sparse(sae.encode_sparse(x)), x), probe["recons"], **close)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_format_is_recognised_by_its_files(folder):
    family = folder.relative_to(FIXTURES).parts[0]
    found = find_format(folder).name
    assert family.startswith(found), (family, found)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_what_was_read_comes_back_from_our_own_folder(folder, tmp_path):
    """Written in SAELens' format (or ours, for kinds that it has no name for), then read as such."""
    sae, x = load_dictionary(folder), load_file(folder / "probe.safetensors")["x"]
    save_sae(sae, tmp_path)
    again = load_sae(tmp_path)
    assert type(again) is type(sae)
    assert again.metadata == sae.metadata
    assert torch.equal(again.encode(x), sae.encode(x))
    assert torch.equal(again(x), sae(x))


def test_every_format_has_a_checkpoint_in_the_tests():
    assert {each.name for each in FORMATS} == {find_format(folder).name for folder in [*FOLDERS, CLT]}


@pytest.mark.parametrize(
    ("folder", "hook_point", "target", "model"),
    [
        ("sparsify_sae/layers.5", "blocks.5.hook_resid_post", "", ""),
        ("sparsify_transcoder/layers.5.mlp", "", "blocks.5.hook_mlp_out", ""),
        ("dictionary_learning_topk", "blocks.5.hook_resid_post", "", "EleutherAI/pythia-70m-deduped"),
        ("gemma_scope_embedding/embedding/width_24/average_l0_4", "hook_embed", "", ""),
        ("gemma_scope_2/resid_post/layer_9_width_24_l0_small", "blocks.9.hook_resid_post", "", "google/gemma-3-270m"),
        ("qwen_scope/SAE-Res-tiny-W24K-L0_4", "blocks.3.hook_resid_post", "", "Qwen/tiny"),
        ("circuit_tracer", "blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out", "tiny"),
        ("llama_scope", "blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out", ""),
        ("saelens_flat_topk", "blocks.2.hook_resid_pre", "", "gpt2-small"),
    ],
)
def test_the_place_is_read_where_the_source_names_it(folder, hook_point, target, model):
    about = load_dictionary(FIXTURES / folder).metadata
    assert (about.hook_point, about.hook_point_out, about.model) == (hook_point, target, model)


def test_gemma_scope_1_is_placed_by_the_names_of_its_release(tmp_path):
    source = FIXTURES / "gemma_scope" / "layer_20" / "width_24" / "average_l0_4" / "params.npz"
    folder = tmp_path / "models--google--gemma-scope-2b-pt-mlp" / "layer_20" / "width_16k"
    folder.mkdir(parents=True)
    shutil.copy(source, folder)
    about = load_dictionary(folder).metadata
    assert (about.model, about.hook_point) == ("google/gemma-2-2b", "blocks.20.hook_mlp_out")


def test_the_hubs_cache_of_links_is_read_by_the_names_of_its_links(tmp_path):
    blob = tmp_path / "models--google--gemma-scope-2b-pt-res" / "blobs" / "0123"
    link = blob.parent.parent / "snapshots" / "rev" / "embedding" / "width_24" / "params.npz"
    for folder in (blob.parent, link.parent):
        folder.mkdir(parents=True)
    shutil.copy(FIXTURES / "gemma_scope_embedding/embedding/width_24/average_l0_4/params.npz", blob)
    link.symlink_to(blob)
    assert find_format(link).name == "gemma_scope_embedding"
    assert load_dictionary(link).hook_point == "hook_embed"


def test_a_folder_is_read_from_inside(monkeypatch):
    monkeypatch.chdir(FIXTURES / "sparsify_sae" / "layers.5")
    assert load_dictionary(".").hook_point == "blocks.5.hook_resid_post"


def test_a_file_is_as_good_as_its_folder():
    for file in (
        "dictionary_learning_topk/ae.pt",
        "sparsify_sae/layers.5/sae.safetensors",
        "openai_topk/autoencoder.pt",
    ):
        x = torch.randn(4, 8)
        assert torch.equal(load_dictionary(FIXTURES / file)(x), load_dictionary((FIXTURES / file).parent)(x))


def test_the_wrong_reading_of_sparsify_is_what_saelens_does_and_would_be_caught():
    """SAELens 6.54 transposes W_dec and ties the subtraction of b_dec to normalize_decoder; we do neither."""
    folder = FIXTURES / "sparsify_sae_unnormalised" / "layers.5.mlp"
    sae, probe = load_dictionary(folder), load_file(folder / "probe.safetensors")
    wrong = Transcoder(sae.weights, activation=None)
    assert (wrong.encode(probe["x"]) - probe["feature_acts"]).abs().max() > 0.5


def test_a_cross_layer_transcoder_gives_the_documented_numbers():
    clt, probe = load_cross_layer_transcoder(CLT), load_file(CLT / "probe.safetensors")
    torch.testing.assert_close(clt.encode(probe["x"]), probe["feature_acts"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clt(probe["x"]), probe["recons"], atol=1e-4, rtol=1e-5)
    assert clt.directions(2, 2).shape == (clt.d_sae, clt.d_out)
    assert clt.directions(0, 2).shape == (clt.d_sae, clt.d_out)
    assert (clt.n_layers, clt.metadata.hook_point) == (3, "hook_resid_mid")


def test_a_cross_layer_transcoder_lacks_no_layer_and_is_not_one_dictionary(tmp_path):
    with pytest.raises(MismatchError, match="load_cross_layer_transcoder"):
        load_dictionary(CLT)
    folder = tmp_path / "clt"
    shutil.copytree(CLT, folder)
    (folder / "W_enc_1.safetensors").unlink()
    with pytest.raises(CorruptError, match=r"W_dec_0.*should be \[24, 2, 8\]"):
        load_cross_layer_transcoder(folder)
    (folder / "W_dec_2.safetensors").unlink()
    with pytest.raises(CorruptError, match="W_dec_0"):
        load_cross_layer_transcoder(folder)
    with pytest.raises(MissingError, match="counted from 0"):
        load_cross_layer_transcoder(tmp_path)


def test_what_is_not_there_or_not_known_is_named(tmp_path):
    with pytest.raises(MissingError, match="nothing at"):
        load_dictionary(tmp_path / "nowhere")
    with pytest.raises(MissingError, match=r"format of .* is not known"):
        load_dictionary(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'sparsify'"):
        load_dictionary(tmp_path, "sparsefy")
    with pytest.raises(CorruptError, match=r"holds 1 hook points \(layers.5\)"):
        load_dictionary(FIXTURES / "sparsify_sae")
    for name in ("layer_1.safetensors", "layer_2.safetensors"):
        shutil.copy(FIXTURES / "circuit_tracer" / "layer_2.safetensors", tmp_path / name)
    with pytest.raises(ConfigError, match="holds 2 dictionaries"):
        load_dictionary(tmp_path)
    assert load_dictionary(tmp_path / "layer_1.safetensors").d_sae == 24


def test_a_format_can_be_given_where_the_path_says_nothing(tmp_path):
    shutil.copy(FIXTURES / "gemma_scope_transcoder/layer_20/width_24k/average_l0_4/params.npz", tmp_path)
    assert not isinstance(load_dictionary(tmp_path), Transcoder)
    assert isinstance(load_dictionary(tmp_path, "gemma_scope_transcoder"), Transcoder)


def test_the_self_check_says_what_it_compared():
    check = load_checked(FIXTURES / "dictionary_learning_jumprelu").check
    assert check.rows == 8
    assert check.active >= 1
    assert max(check.encode_error, check.encode_sparse_error, check.recons_error) < 1e-6
    assert check.rows_differing == 0


def test_openais_tied_decoder_is_its_encoder(tmp_path):
    state = torch.load(FIXTURES / "openai_relu" / "autoencoder.pt", weights_only=True)
    state["decoder.linear.weight"] = state["encoder.weight"]
    del state["decoder.weight"]
    torch.save(state, tmp_path / "tied.pt")
    sae = load_dictionary(tmp_path)
    assert torch.equal(sae.W_dec, sae.W_enc.T)


def test_a_threshold_that_was_never_set_lets_every_positive_activation_through(tmp_path):
    shutil.copytree(FIXTURES / "dictionary_learning_batchtopk", tmp_path / "sae")
    state = torch.load(tmp_path / "sae" / "ae.pt", weights_only=True)
    torch.save({**state, "threshold": torch.tensor(-1.0)}, tmp_path / "sae" / "ae.pt")
    sae, x = load_dictionary(tmp_path / "sae"), torch.randn(6, 8)
    assert torch.equal(sae.encode(x), sae.pre_activations(x).relu())
