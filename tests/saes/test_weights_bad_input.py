"""Malformed dictionaries are refused with the reason; nothing in them is ever run. Fuzzed over every format."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from interp.errors import CorruptError, MismatchError, NonFiniteError, UnknownNameError, WorkbenchError
from saes.weights.circuit_tracer import load_cross_layer_transcoder
from saes.weights.layout import read_npz, read_pt
from saes.weights.read import load_dictionary

FIXTURES = Path(__file__).parent.parent / "fixtures"
PROBE = "probe.safetensors"
ARRAYS = (".safetensors", ".npz", ".pt")
FOLDERS = sorted({path.parent for path in FIXTURES.rglob(PROBE)})
NAMES = [str(folder.relative_to(FIXTURES)) for folder in FOLDERS]


def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy below a folder of the same name, since some formats go by it."""
    root = tmp_path / folder.relative_to(FIXTURES)
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(folder, root, ignore=shutil.ignore_patterns(PROBE, "README.md"))
    return root


def load(folder: Path):
    clt = any(folder.glob("W_enc_*")) or any(folder.glob("W_dec_*"))
    return load_cross_layer_transcoder(folder) if clt else load_dictionary(folder)


def zipped(path: Path, *, method: int = 0, flags: int = 0) -> Path:
    """An archive whose entry claims another compression, or that it is encrypted."""
    np.savez(path, a=np.ones(3))
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = raw.find(mark)
        raw[start + at : start + at + 4] = bytes([flags, 0, method, 0])
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("how", [{"method": 97}, {"flags": 1}])
def test_an_archive_that_python_cannot_unpack_is_refused(how, tmp_path):
    with pytest.raises(CorruptError, match="plain arrays"):
        read_npz(zipped(tmp_path / "params.npz", **how))


def weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in ARRAYS)


def read_arrays(path: Path) -> dict:
    readers = {".safetensors": load_file, ".npz": read_npz, ".pt": read_pt}
    return dict(readers[path.suffix](path))


def write_arrays(path: Path, arrays: dict) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: t.numpy() for name, t in arrays.items()})
    elif path.suffix == ".pt":
        torch.save(arrays, path)
    else:
        save_file({name: t.contiguous() for name, t in arrays.items()}, path)


def floats(arrays: dict) -> list[str]:
    return sorted(name for name, t in arrays.items() if isinstance(t, torch.Tensor) and t.is_floating_point())


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_damage_to_any_array_is_refused_by_name(folder, tmp_path):
    for number in range(len(weight_files(copy(folder, tmp_path)))):
        for name in floats(read_arrays(weight_files(copy(folder, tmp_path))[number])):
            if name.startswith("latents_"):
                continue
            for damage, error in (
                (not_a_number, NonFiniteError),
                (whole_numbers, CorruptError),
                (longer, CorruptError),
            ):
                root = copy(folder, tmp_path)
                path = weight_files(root)[number]
                arrays = read_arrays(path)
                arrays[name] = damage(arrays[name])
                write_arrays(path, arrays)
                with pytest.raises((error, CorruptError, MismatchError)) as caught:
                    load(root)
                assert name.split(".")[0].split("_")[0] in str(caught.value), (name, damage.__name__, str(caught.value))


def not_a_number(tensor):
    damaged = tensor.contiguous().clone()
    damaged.view(-1)[-1] = float("nan")
    return damaged


def whole_numbers(tensor):
    return torch.ones_like(tensor, dtype=torch.int32)


def longer(tensor):
    return torch.ones(*tensor.shape, 2)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_missing_or_an_unknown_array_is_refused(folder, tmp_path):
    path = weight_files(copy(folder, tmp_path))[0]
    names = [name for name in floats(read_arrays(path)) if name not in ("threshold", "activation_function.threshold")]
    for name in names:
        root = copy(folder, tmp_path)
        arrays = read_arrays(path)
        del arrays[name]
        write_arrays(path, arrays)
        if name.startswith("W_skip") or name == "affine_skip_connection":
            continue  # optional in some formats
        with pytest.raises(WorkbenchError, match=name.split(".")[0].split("_")[0]):
            load(root)
    root = copy(folder, tmp_path)
    write_arrays(path, {**read_arrays(path), "W_mystery": torch.zeros(2)})
    with pytest.raises(CorruptError, match="holds W_mystery as well"):
        load(root)


class Payload:
    """What a malicious checkpoint does: unpickled with code allowed, it runs a command."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["dictionary_learning_topk", "openai_topk", "qwen_scope/SAE-Res-tiny-W24K-L0_4"])
def test_code_in_a_pickle_is_refused_and_not_run(name, tmp_path):
    root, marker = copy(FIXTURES / name, tmp_path), tmp_path / "ran"
    (path,) = weight_files(root)
    torch.save({**read_arrays(path), "extra": Payload(marker)}, path)
    with pytest.raises(CorruptError, match="can carry code, which is never run"):
        load(root)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the payload is real: it does run where code is allowed
    assert marker.exists()


def test_objects_in_a_numpy_archive_are_refused_and_not_run(tmp_path):
    root, marker = copy(FIXTURES / "gemma_scope/layer_20/width_24/average_l0_4", tmp_path), tmp_path / "ran"
    arrays = {name: t.numpy() for name, t in read_npz(root / "params.npz").items()}
    np.savez(root / "params.npz", **{**arrays, "W_enc": np.array([Payload(marker)], dtype=object)})
    with pytest.raises(CorruptError, match="not an archive of plain arrays"):
        load(root)
    assert not marker.exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_an_error_of_ours_or_a_dictionary(data, tmp_path):
    """Any file of any format, cut short or with bytes changed: read, or refused as ours; never another exception."""
    root = copy(data.draw(st.sampled_from(FOLDERS)), tmp_path)
    path = data.draw(st.sampled_from(sorted(each for each in root.rglob("*") if each.is_file())))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(WorkbenchError):
        load(root)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_a_config_gives_an_error_of_ours_or_a_dictionary(data, tmp_path):
    with_config = [folder for folder in FOLDERS if any(folder.glob("*.json"))]
    root = copy(data.draw(st.sampled_from(with_config)), tmp_path)
    path = data.draw(st.sampled_from(sorted(root.glob("*.json"))))
    config = json.loads(path.read_text())
    where = data.draw(st.sampled_from([config, *(value for value in config.values() if isinstance(value, dict))]))
    key = data.draw(st.sampled_from(sorted(where) or ["k"]))
    if data.draw(st.booleans()):
        where[key] = data.draw(JSON)
    else:
        where.pop(key, None)
    path.write_text(json.dumps(config))
    with contextlib.suppress(WorkbenchError):
        load(root)


OVERFLOWING = {"jump_relu_threshold": 3e38, "dataset_average_activation_norm": {"in": 1e-3, "out": 5.0}}


def edited(name: str, tmp_path: Path, **changes) -> Path:
    root = copy(FIXTURES / name, tmp_path)
    (path,) = root.glob("*.json")
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config.get("trainer", config)[key] = value
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return root


@pytest.mark.parametrize(
    ("name", "changes", "error", "words"),
    [
        ("saelens_topk", {"k": 25}, CorruptError, "k = 25 active features do not fit 24"),
        ("saelens_topk", {"k": True}, CorruptError, "k must be a whole number"),
        ("saelens_gated", {"architecture": "temporal"}, MismatchError, "not from one vector"),
        ("saelens_gated", {"architecture": "matching_pursuit"}, MismatchError, "one latent after another"),
        ("saelens_gated", {"architecture": "batchtopk"}, MismatchError, "save_inference_model"),
        ("saelens_gated", {"architecture": "gate"}, UnknownNameError, "did you mean 'gated'"),
        ("saelens_gated", {"normalize_activations": "layer_norm"}, MismatchError, "'layer_norm' is not supp"),
        ("saelens_transcoder", {"apply_b_dec_to_input": True}, MismatchError, "apply_b_dec_to_input = True"),
        ("saelens_transcoder", {"d_out": 7}, CorruptError, r"W_dec should be \[24, 7\]"),
        ("saelens_flat_relu", {"activation_fn_str": "tanh-relu"}, MismatchError, "'tanh-relu' is not supp"),
        ("saelens_flat_relu", {"normalize_activations": True}, MismatchError, "expected_average_only_in"),
        ("dictionary_learning_topk", {"k": 5}, CorruptError, "says k = 5, ae.pt holds another"),
        ("dictionary_learning_topk", {"dict_class": "AutoEncoderTopk"}, UnknownNameError, "did you mean"),
        ("dictionary_learning_topk", {"dict_size": 25}, CorruptError, r"should be \[25, 8\]"),
        ("sparsify_sae/layers.5", {"activation": "groupmax"}, MismatchError, "'groupmax' is not supported"),
        ("sparsify_sae/layers.5", {"skip_connection": True}, CorruptError, "lacks W_skip"),
        ("sparsify_skip_sae/layers.5", {"skip_connection": False}, CorruptError, "holds W_skip as well"),
        ("llama_scope", {"norm_activation": "token-wise"}, MismatchError, "'token-wise' is not supported"),
        ("llama_scope", {"act_fn": "batchtopk"}, MismatchError, "convert it to jumprelu"),
        ("llama_scope", {"hook_point_in": "elsewhere"}, CorruptError, "the scale is not known"),
        ("llama_scope", {"expansion_factor": 2}, CorruptError, r"W_E should be \[8, 16\]"),
        ("llama_scope", {"expansion_factor": 10**400}, CorruptError, "expansion_factor must be a number"),
        ("llama_scope", {"expansion_factor": 1e30}, CorruptError, "must be a whole number above 0"),
        ("llama_scope", {"d_model": 10**400}, CorruptError, "d_model must be a whole number above 0"),
        ("llama_scope", {"hook_point_out": 5}, CorruptError, "hook_point_out must be text, found 5"),
        (
            "llama_scope",
            {"sparsity_include_decoder_norm": "false"},
            CorruptError,
            "must be true or false, found 'false'",
        ),
        ("llama_scope_older", {"jump_relu_threshold": 10**400}, CorruptError, "must be a number"),
        ("llama_scope_older", OVERFLOWING, NonFiniteError, "must be finite"),
        ("sparsify_sae/layers.5", {"transcode": "false"}, CorruptError, "transcode must be true or false"),
        ("sparsify_sae/layers.5", {"transcode": 0.0}, CorruptError, "transcode must be true or false"),
        (
            "gemma_scope_2/resid_post/layer_9_width_24_l0_small",
            {"affine_connection": True},
            CorruptError,
            "lacks affine_skip_connection",
        ),
        (
            "gemma_scope_2/resid_post/layer_9_width_24_l0_small",
            {"hf_hook_point_out": ["model.layers.9.mlp"]},
            CorruptError,
            "hf_hook_point_out must be text",
        ),
        ("saelens_topk", {"apply_b_dec_to_input": 0}, MismatchError, "apply_b_dec_to_input = 0 is not"),
        ("saelens_topk", {"metadata": {"hook_name": 9}}, CorruptError, "hook_name must be text, found 9"),
        ("saelens_topk", {"d_sae": 10**400}, CorruptError, "d_sae must be a whole number"),
        (
            "saelens_flat_topk",
            {"apply_b_dec_to_input": "no"},
            CorruptError,
            "apply_b_dec_to_input must be true or false",
        ),
        ("saelens_flat_relu", {"architecture": []}, CorruptError, "architecture must be text"),
        ("saelens_flat_relu", {"activation_fn_str": 0}, CorruptError, "activation_fn_str must be text"),
        ("saelens_topk", {"k": ...}, CorruptError, "k must be a whole number"),
        ("saelens_topk", {"d_sae": ...}, CorruptError, "lacks d_sae"),
        ("saelens_topk", {"architecture": ...}, CorruptError, "lacks architecture"),
        ("saelens_jumprelu", {"d_in": 17}, CorruptError, r"W_enc should be \[17, 24\]"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(name, changes, error, words, tmp_path):
    with pytest.raises(error, match=words):
        load(edited(name, tmp_path, **changes))


@pytest.mark.parametrize("k", [1.5, -7.0, float("nan"), float("inf"), 1e11, 10**12, 0, True])
def test_a_k_that_is_no_number_of_features_is_refused_at_once(k, tmp_path):
    """A float was once looked for among all whole numbers one after the other, which took hours."""
    root = copy(FIXTURES / "dictionary_learning_topk", tmp_path)
    (path,) = weight_files(root)
    torch.save({**read_arrays(path), "k": torch.tensor(k)}, path)
    with pytest.raises(CorruptError, match=r"k must be a whole number|active features do not fit"):
        load(root)


@pytest.mark.parametrize("name", ["dictionary_learning_topk", "openai_topk", "qwen_scope/SAE-Res-tiny-W24K-L0_4"])
def test_arrays_without_numbers_are_refused(name, tmp_path):
    root = copy(FIXTURES / name, tmp_path)
    (path,) = weight_files(root)
    arrays = {n: t.to("meta") if isinstance(t, torch.Tensor) else t for n, t in read_arrays(path).items()}
    torch.save(arrays, path)
    with pytest.raises(CorruptError, match="without numbers"):
        load(root)


def test_a_threshold_of_minus_zero_lets_nothing_negative_through(tmp_path):
    root = copy(FIXTURES / "saelens_jumprelu", tmp_path)
    (path,) = weight_files(root)
    arrays = read_arrays(path)
    write_arrays(path, {**arrays, "threshold": -torch.zeros_like(arrays["threshold"])})
    sae = load(root)
    x = 3 * torch.randn(20, sae.d_in)
    sparse = sae.encode_sparse(x)
    assert (sparse.values >= 0).all()
    dense = torch.zeros(20, sae.d_sae).scatter_add_(1, sparse.indices.long(), sparse.values)
    torch.testing.assert_close(dense, sae.encode(x))


def test_openais_other_activations_are_refused(tmp_path):
    root = copy(FIXTURES / "openai_topk", tmp_path)
    (path,) = weight_files(root)
    state = read_arrays(path)
    torch.save({**state, "activation_state_dict": {"k": 4, "postact_fn": "Identity"}}, path)
    with pytest.raises(MismatchError, match="'Identity' is not supported"):
        load(root)
    torch.save({**state, "activation": "Softmax"}, path)
    with pytest.raises(MismatchError, match="'Softmax' is not supported"):
        load(root)


def test_thresholds_below_zero_are_refused_where_they_let_negative_values_through(tmp_path):
    root = copy(FIXTURES / "circuit_tracer_skip", tmp_path)
    (path,) = weight_files(root)
    arrays = read_arrays(path)
    arrays["activation_function.threshold"] -= 5
    write_arrays(path, arrays)
    with pytest.raises(MismatchError, match="thresholds below 0"):
        load(root)


def test_a_finetuned_scale_goes_into_the_decoder_or_is_refused(tmp_path):
    root = copy(FIXTURES / "saelens_flat_relu", tmp_path)
    plain, path = load(root), root / "sae_weights.safetensors"
    scale = torch.rand(24) + 0.5
    save_file({**load_file(path), "scaling_factor": scale}, path)
    with pytest.raises(MismatchError, match="finetuning_scaling_factor is not set"):
        load(root)
    config = json.loads((root / "cfg.json").read_text())
    (root / "cfg.json").write_text(json.dumps({**config, "finetuning_scaling_factor": True}))
    torch.testing.assert_close(load(root).W_dec, plain.W_dec * scale[:, None])
    x = torch.randn(5, 8)
    torch.testing.assert_close(load(root).encode(x), plain.encode(x))
