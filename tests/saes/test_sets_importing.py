"""Sets of other tools: found by their folders, the same numbers as the peer's, refused where they do not belong."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.artifacts import open_artefact, verify
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.models.small import SmallConfig, build_small
from saes.sets import CrossLayerSet, PerLayerSet, read_set
from saes.sets.importing import SetOrigin, check_across, find_layers, import_set
from saes.sets.stored import ImportedSetSettings, StoredSet
from saes.weights.circuit_tracer import load_cross_layer_transcoder
from saes.weights.read import load_dictionary

FIXTURES = Path(__file__).parent.parent / "fixtures"
D = 8
ORIGIN = SetOrigin(model="tiny")


@pytest.fixture(scope="module")
def models():
    """Models whose width is that of the fixtures, by number of layers."""
    sizes: dict[str, Any] = {"d_model": D, "n_heads": 2, "d_mlp": 16, "d_vocab": 20, "n_ctx": 8, "normalization": "RMS"}
    return {n: build_small(SmallConfig(n_layers=n, **sizes), seed=0, device="cpu", dtype=torch.float32) for n in (2, 3)}


def gemma_2_across(folder: Path, *, n_layers: int = 2, d_sae: int = 12) -> Path:
    """As Gemma Scope 2 lays out a cross-layer transcoder: one file a layer, decoders to all layers, 0 before it."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True)
    for layer in range(n_layers):
        draw = {"w_enc": (D, d_sae), "b_enc": (d_sae,), "w_dec": (d_sae, n_layers, D), "b_dec": (D,)}
        tensors = {name: torch.randn(*shape, generator=generator) for name, shape in draw.items()}
        tensors["w_dec"][:, :layer] = 0
        tensors |= {"threshold": torch.rand(d_sae, generator=generator)}
        tensors |= {"affine_skip_connection": torch.randn(D, D, generator=generator)}
        save_file(tensors, folder / f"params_layer_{layer}.safetensors")
    return folder


def source(kind: str, folder: Path) -> Path:
    """Two layers of one release: the same fixture under the names of both."""
    names = {
        "circuit_tracer": ("circuit_tracer/layer_2.safetensors", "layer_{}.safetensors"),
        "circuit_tracer_skip": ("circuit_tracer_skip/layer_1.safetensors", "layer_{}.safetensors"),
        "gemma_scope": ("gemma_scope_transcoder/layer_20/width_24k/average_l0_4/params.npz",
                        "gemma-scope-tiny-transcoders/layer_{}/width_24k/average_l0_4/params.npz"),
        "gemma_scope_2": ("gemma_scope_2_transcoder/transcoder/layer_9_width_24_l0_small_affine",
                          "transcoder_all/layer_{}_width_24_l0_small_affine"),
        "sparsify": ("sparsify_transcoder/layers.5.mlp", "layers.{}.mlp"),
        "llama_scope": ("llama_scope", "Tiny-L{}TC-8x"),
    }  # fmt: skip
    if kind == "circuit_tracer_clt":
        return FIXTURES / kind
    if kind == "gemma_scope_2_across":
        return gemma_2_across(folder / "clt")
    old, new = names[kind]
    for layer in (0, 1):
        target = folder / new.format(layer)
        target.parent.mkdir(parents=True, exist_ok=True)
        if (FIXTURES / old).is_file():
            shutil.copy(FIXTURES / old, target)
        else:
            shutil.copytree(FIXTURES / old, target)
        config = target / "config.json"
        if config.is_file():  # it names its layer inside
            known = config.read_text().replace("blocks.3.", f"blocks.{layer}.").replace("layers.9.", f"layers.{layer}.")
            known = known.replace("google/gemma-3-270m", "tiny")
            config.write_text(known)
            rename_norms(target, layer)
    if kind == "circuit_tracer":
        shutil.copy(FIXTURES / "circuit_tracer" / "config.yaml", folder)
    return folder


def rename_norms(folder: Path, layer: int) -> None:
    """Llama Scope's norms are named by hook point."""
    path = folder / "sae_weights.safetensors"
    if path.is_file():
        save_file({name.replace("blocks.3.", f"blocks.{layer}."): t for name, t in load_file(path).items()}, path)


KINDS = {
    "circuit_tracer": ("mlp.hook_in", "hook_mlp_out"),
    "circuit_tracer_skip": None,
    "gemma_scope": ("ln2.hook_normalized", "hook_mlp_out"),
    "gemma_scope_2": ("mlp.hook_in", "hook_mlp_out"),
    "sparsify": ("mlp.hook_in", "hook_mlp_out"),
    "llama_scope": ("hook_resid_mid", "hook_mlp_out"),
    "circuit_tracer_clt": ("hook_resid_mid", "hook_mlp_out"),
    "gemma_scope_2_across": ("mlp.hook_in", "hook_mlp_out"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_set_has_the_numbers_of_its_source(kind, models, tmp_path):
    place = source(kind, tmp_path / "source")
    model, hooks = models[3 if kind == "circuit_tracer_clt" else 2], KINDS[kind]
    origin = ORIGIN if hooks else SetOrigin(model="tiny", reads="mlp.hook_in", writes="hook_mlp_out")
    stored = import_set(place, tmp_path / "set", model, origin)
    assert verify(tmp_path / "set") == []
    found = read_set(tmp_path / "set")
    assert (found.reads, found.writes) == (hooks or ("mlp.hook_in", "hook_mlp_out"))
    assert max(each.recons_error for each in stored.checks) < 1e-5
    found.check_model(model)
    x = torch.randn(len(found.layers), 6, D, generator=torch.Generator().manual_seed(1))
    if kind == "circuit_tracer_clt":
        whole = load_cross_layer_transcoder(place)(x)
    elif kind == "gemma_scope_2_across":
        assert isinstance(found, CrossLayerSet)
        whole = found.clt(x)
    else:
        assert isinstance(found, PerLayerSet)
        layers = find_layers(place).layers
        whole = torch.stack([load_dictionary(layers[n])(x[n]) for n in found.layers])
    for layer in found.layers:
        torch.testing.assert_close(found.reconstruct(layer, x), whole[layer], atol=1e-4, rtol=1e-4)


def test_a_config_may_name_files_elsewhere(models, tmp_path):
    place = source("circuit_tracer", tmp_path / "source")
    (place / "weights").mkdir()
    for layer in (0, 1):
        (place / f"layer_{layer}.safetensors").rename(place / "weights" / f"layer_{layer}.safetensors")
    hooks = "model_name: tiny\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n"
    (place / "config.yaml").write_text(
        hooks + "transcoders:\n- weights/layer_0.safetensors\n- weights/layer_1.safetensors"
    )
    shutil.copy(place / "config.yaml", place / "weights")
    import_set(place, tmp_path / "set", models[2], ORIGIN)
    assert read_set(tmp_path / "set").writes == "hook_mlp_out"  # a model without a norm after its MLPs
    (place / "weights" / "layer_1.safetensors").unlink()
    with pytest.raises(MissingError, match=r"names weights/layer_1\.safetensors, which is not there"):
        find_layers(place)


def test_of_several_sparsities_the_nearest_is_taken(models, tmp_path):
    place = source("gemma_scope", tmp_path / "source")
    for layer in (0, 1):
        width = place / f"gemma-scope-tiny-transcoders/layer_{layer}/width_24k"
        shutil.copytree(width / "average_l0_4", width / f"average_l0_{90 + layer}")
    with pytest.raises(ConfigError, match=r"layer 0 has 2 dictionaries .*--l0 N"):
        find_layers(place)
    taken = find_layers(place, l0=70).layers
    assert [path.name for path in taken.values()] == ["average_l0_90", "average_l0_91"]
    assert {path.name for path in find_layers(place, l0=10).layers.values()} == {"average_l0_4"}


def test_what_does_not_belong_is_refused(models, tmp_path):
    place = source("circuit_tracer_skip", tmp_path / "source")
    target = tmp_path / "set"
    with pytest.raises(ConfigError, match=r"add --hook-point, mlp\.hook_in"):
        import_set(place, target, models[2], ORIGIN)
    assert not target.exists()
    hooks = SetOrigin(model="tiny", reads="mlp.hook_in", writes="hook_mlp_out")
    assert not (tmp_path / "set.partial").exists()
    sizes: dict[str, Any] = {"n_heads": 2, "d_mlp": 16, "d_vocab": 20}
    shallow, wide = (
        build_small(SmallConfig(n_layers=n, d_model=d, **sizes), seed=0, device="cpu", dtype=torch.float32)
        for n, d in ((1, D), (2, 2 * D))
    )
    with pytest.raises(MismatchError, match="the set has a layer 1, the model has 1"):
        import_set(place, target, shallow, hooks)
    with pytest.raises(MismatchError, match=r"layer 0 reads vectors of 8, .* has 16"):
        import_set(place, target, wide, hooks)
    named = source("circuit_tracer", tmp_path / "named")
    with pytest.raises(MismatchError, match="says that it belongs to tiny"):
        import_set(named, target, models[2], SetOrigin(model="gpt2"))
    with pytest.raises(MismatchError, match=r"the files say mlp\.hook_in, but --hook-point is hook_resid_mid"):
        import_set(named, target, models[2], SetOrigin(model="tiny", reads="hook_resid_mid"))
    with pytest.raises(MissingError, match="no transcoder of a numbered layer"):
        find_layers(
            tmp_path / "set.partial" / ".." / "nothing" if (tmp_path / "nothing").mkdir() else place.parent / "nothing"
        )
    spoilt = source("gemma_scope_2_across", tmp_path / "across")
    (spoilt / "params_layer_1.safetensors").unlink()
    with pytest.raises(MissingError, match="holds 1 layers of a cross-layer transcoder of 2"):
        import_set(spoilt, target, models[2], ORIGIN)


def test_the_check_across_layers_sees_a_transposed_skip(models, tmp_path):
    folder = gemma_2_across(tmp_path / "clt")
    import_set(folder, tmp_path / "set", models[2], ORIGIN)
    found = read_set(tmp_path / "set")
    assert isinstance(found, CrossLayerSet)
    names = {"w_enc": "enc", "w_dec": "dec", "affine_skip_connection": "skip"}
    raw = [
        {names.get(name, name): value for name, value in load_file(folder / f"params_layer_{n}.safetensors").items()}
        for n in (0, 1)
    ]
    assert max(check_across(found.clt, raw).values()) < 1e-6
    found.clt.W_skip[1].data = found.clt.W_skip[1].data.T.contiguous()
    with pytest.raises(CorruptError, match="layer 1 differs from its source's arithmetic"):
        check_across(found.clt, raw)


def test_the_manifest_names_the_source(models, tmp_path):
    place = source("sparsify", tmp_path / "source")
    import_set(place, tmp_path / "set", models[2], ORIGIN)
    stored = open_artefact(StoredSet, tmp_path / "set")
    assert set(stored.about.parents) == {"model:tiny"}
    assert isinstance(stored.settings, ImportedSetSettings)
    assert "sae.safetensors" in stored.settings.source_files[1]
    assert (stored.layers, stored.recording, stored.scores) == ((0, 1), None, None)
