"""A checkpoint becomes an artefact that the other verbs read, only at the place it belongs to."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.artifacts import verify
from interp.errors import ConfigError, MismatchError
from saes.evaluation.in_model import splice
from saes.kinds.base import TokenNormSAE, TopK, Weights
from saes.kinds.transcoder import Transcoder
from saes.training.stored import import_dictionary
from saes.weights.folder import WEIGHTS, load_sae
from saes.weights.imported import ImportedSettings
from saes.weights.importing import Origin, agree_on_origin, same_model
from saes.weights.read import FILE, load_dictionary
from workbench.__main__ import main

FIXTURES = Path(__file__).parent.parent / "fixtures"
SPARSIFY = FIXTURES / "sparsify_sae" / "layers.5"
HERE = Origin(model="tiny", weight_hash="ab" * 32)


def test_an_imported_dictionary_is_a_whole_artefact_with_its_proof(tmp_path):
    folder = tmp_path / "mine"
    found = import_dictionary(SPARSIFY, folder, HERE)
    assert verify(folder) == []
    assert found.about.parents == {"model:tiny": HERE.weight_hash}
    assert isinstance(found.settings, ImportedSettings)
    assert (found.settings.format, found.hook_point) == ("sparsify", "blocks.5.hook_resid_post")
    assert set(found.settings.source_files) == {"cfg.json", "probe.safetensors", "sae.safetensors"}
    assert found.self_check.active >= 1
    assert found.self_check.recons_error < 1e-5
    sae, x = load_sae(folder), load_file(SPARSIFY / "probe.safetensors")["x"]
    assert torch.equal(sae(x), load_dictionary(SPARSIFY)(x))
    assert (sae.metadata.weight_hash, sae.hook_point) == (HERE.weight_hash, "blocks.5.hook_resid_post")


def test_verify_finds_weights_that_no_longer_give_the_stored_numbers(tmp_path, capsys):
    folder = tmp_path / "saes" / "mine"
    import_dictionary(SPARSIFY, folder, HERE)
    assert main(["verify", "--workspace", str(tmp_path)]) == 0
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "W_dec": tensors["W_dec"].roll(1, 0).contiguous()}, folder / WEIGHTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    from interp.artifacts import file_entry, hash_files

    manifest["files"][WEIGHTS] = file_entry(folder / WEIGHTS)  # whoever edits the weights may edit the checksums too
    manifest["content_hash"] = hash_files(manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["verify", "--workspace", str(tmp_path)]) == 1
    assert f"reconstructions stored in {FILE}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "place", "error", "words"),
    [
        ("sparsify_sae/layers.5", {"hook_point": "blocks.4.hook_resid_post"}, MismatchError, "say hook point blocks.5"),
        ("dictionary_learning_topk", {}, MismatchError, "belongs to EleutherAI/pythia-70m-deduped"),
        ("openai_topk", {}, ConfigError, "do not say which hook point it reads"),
        ("sparsify_transcoder/layers.5.mlp", {}, ConfigError, "do not say which hook point it reads"),
        (
            "llama_scope",
            {"hook_point_out": "blocks.4.hook_mlp_out"},
            MismatchError,
            "say target hook point blocks.3.hook_mlp_out",
        ),
    ],
)
def test_another_origin_than_the_files_name_is_refused(name, place, error, words, tmp_path):
    here = Origin(model=HERE.model, weight_hash=HERE.weight_hash, **place)
    with pytest.raises(error, match=words):
        import_dictionary(FIXTURES / name, tmp_path / "mine", here)
    assert not (tmp_path / "mine").exists()


def test_another_place_can_be_allowed_on_purpose(tmp_path):
    here = Origin(model="tiny", weight_hash="ab" * 32, hook_point="blocks.1.hook_out")
    import_dictionary(FIXTURES / "dictionary_learning_topk", tmp_path / "mine", here, allow_mismatch=True)
    assert load_sae(tmp_path / "mine").hook_point == "blocks.1.hook_resid_post"


def test_other_weights_of_the_same_model_are_refused(tmp_path):
    import_dictionary(SPARSIFY, tmp_path / "mine", HERE)
    with pytest.raises(MismatchError, match="say model weights abab"):
        agree_on_origin(load_sae(tmp_path / "mine"), Origin(model="tiny", weight_hash="cd" * 32))


def test_widths_that_differ_from_the_models_are_refused(tmp_path):
    with pytest.raises(MismatchError, match=r"takes vectors of 8, blocks.5.hook_resid_post of tiny has 9"):
        import_dictionary(SPARSIFY, tmp_path / "mine", HERE, measure_widths=lambda names: dict.fromkeys(names, 9))
    import_dictionary(SPARSIFY, tmp_path / "mine", HERE, measure_widths=lambda names: dict.fromkeys(names, 8))


def test_names_of_one_model_are_the_same():
    assert same_model("EleutherAI/pythia-70m", "pythia-70m")
    assert same_model("gpt2-small", "openai-community/gpt2")
    assert not same_model("google/gemma-2-2b", "google/gemma-2-2b-it")


@pytest.mark.parametrize("name", ["sparsify_sae/layers.5", "openai_topk", "saelens_gated"])
def test_import_writes_what_load_sae_reads_whatever_the_kind(name, tmp_path):
    here = Origin(model="tiny", weight_hash="ab" * 32, hook_point="blocks.5.hook_resid_post")
    import_dictionary(FIXTURES / name, tmp_path / "mine", here)
    x = torch.randn(6, 8)
    assert torch.equal(load_sae(tmp_path / "mine")(x), load_dictionary(FIXTURES / name)(x))


def test_the_command_line_imports_onto_a_model_and_refuses_another_width(tmp_path, capsys):
    source = tmp_path / "layers.1"
    shutil.copytree(SPARSIFY, source)
    arguments = ["import", str(source), "--model", "planted:induction", "--workspace", str(tmp_path / "ws")]
    assert main(arguments) == 2
    assert "takes vectors of 8, blocks.1.hook_resid_post of planted:induction has" in capsys.readouterr().err
    assert main([*arguments[:2], "--model", "planted:induction", "--hook-point", "blocks.9.hook_resid_post"]) == 2
    assert main(["import", str(tmp_path / "nowhere"), "--model", "planted:induction"]) == 2
    assert "nothing at" in capsys.readouterr().err


def random_weights(d_out=8):
    g = torch.Generator().manual_seed(1)
    return Weights(*(torch.randn(*shape, generator=g) for shape in ((8, 24), (24,), (24, d_out), (d_out,))))


def test_splicing_scales_the_reconstruction_of_normalised_tokens_back():
    sae = TokenNormSAE(random_weights(), activation=TopK(4), norm="layer_norm")
    value = torch.randn(2, 3, 8) * 7 + 2
    torch.testing.assert_close(splice(sae)(value), sae(value))


def test_a_transcoder_cannot_take_the_place_of_what_it_reads():
    sae = Transcoder(random_weights())
    object.__setattr__(sae, "metadata", type(sae.metadata)(hook_point="a", hook_point_out="b"))
    with pytest.raises(ConfigError, match="take `splice_hooks`"):
        splice(sae)
