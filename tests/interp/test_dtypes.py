"""Models in bfloat16 and float16: hooks, logits and analyses see float32, and agree with the float32 model."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from architectures import ALL_NAMES, new_tiny

from interp import devices
from interp.artifacts import Draft, read_manifest
from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_kinds import score_heads
from interp.devices import model_dtype, parse_dtype, set_model_dtype
from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.models import _memory
from interp.models._memory import check_memory, estimate
from interp.models.adapter import run_with_cache, run_with_hooks, show_float32, to_tokens, untrained_model
from interp.models.loading import load_model
from interp.models.passes import run_from
from interp.models.residual import ResidualStream

NARROW = ("bfloat16", "float16")
ROUNDING = {"bfloat16": 0.02, "float16": 0.003}
"""Relative error of logits of two layers: some roundings of 2^-8, or of 2^-11."""


@pytest.fixture(scope="module", params=NARROW)
def narrow(request):
    return load_model("small:mlp-2l", dtype=request.param)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).norm() / expected.norm()).detach())


def test_a_narrow_model_stores_its_dtype_and_shows_float32(narrow, tiny_model) -> None:
    name = str(narrow.cfg.dtype).removeprefix("torch.")
    assert {each.dtype for each in narrow.original_model.parameters()} == {narrow.cfg.dtype}
    tokens = to_tokens(narrow, "one two one")
    logits, values = run_with_cache(narrow, tokens, ["blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern"])
    expected, same = run_with_cache(tiny_model, tokens, list(values))
    assert logits.dtype == torch.float32
    assert 0 < relative(logits, expected) < ROUNDING[name]
    for point, value in values.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, value.to(narrow.cfg.dtype).float()), "the model computes in its own dtype"
        assert relative(value, same[point]) < ROUNDING[name]


def test_hooks_of_a_narrow_model_see_and_return_float32(narrow) -> None:
    tokens, seen = to_tokens(narrow, "one two one"), []
    plain = narrow(tokens)

    def look(value: torch.Tensor, hook: object) -> None:
        seen.append(value)

    def nudge(value: torch.Tensor, hook: object) -> torch.Tensor:
        seen.append(value)
        return value + 1

    at = "blocks.0.hook_resid_post"
    assert torch.equal(run_with_hooks(narrow, tokens, [(at, look)]), plain)
    assert not torch.equal(run_with_hooks(narrow, tokens, [(at, nudge)]), plain)
    assert [each.dtype for each in seen] == [torch.float32] * 2
    resumed = run_from(narrow, seen[0], layer=1)
    assert torch.equal(resumed, plain), "a residual that a hook saw is the residual itself"
    copied = deepcopy(narrow)
    with torch.no_grad():
        for parameter in copied.original_model.parameters():
            parameter.zero_()
    assert not torch.equal(copied(tokens), plain), "a copy runs its own weights"
    assert torch.equal(narrow(tokens), plain)


def test_gradients_reach_the_value_that_a_hook_saw(narrow, tiny_model) -> None:
    tokens, found = to_tokens(narrow, "one two one"), []
    for model in (narrow, tiny_model):
        seen = []
        run = [("blocks.0.hook_resid_post", lambda value, hook, seen=seen: seen.append(value))]
        logits = run_with_hooks(model, tokens, run)
        found.append(torch.autograd.grad(logits[0, -1, 5] - logits[0, -1, 7], seen[0])[0])
    assert found[0].dtype == torch.float32
    assert relative(*found) < 10 * ROUNDING[str(narrow.cfg.dtype).removeprefix("torch.")]


def test_the_untrained_null_of_a_narrow_model_is_narrow(narrow) -> None:
    null = untrained_model(narrow, 0)
    assert null.cfg.dtype == narrow.cfg.dtype
    assert null(to_tokens(narrow, "one")).dtype == torch.float32


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_architecture_is_taken_apart_in_bfloat16(name) -> None:
    whole, model = new_tiny(name), new_tiny(name).to(torch.bfloat16)
    model.cfg.dtype = torch.bfloat16
    residual, tokens = ResidualStream(show_float32(model)), torch.arange(12)[None]  # checks that the parts add up
    point = "blocks.1.hook_resid_pre"
    (_, wide), (_, half) = (run_with_cache(each, tokens, [point]) for each in (whole, model))
    reference = ResidualStream(whole)
    for of in ("norm1", "norm2"):
        assert relative(getattr(residual, of)(1, half[point]), getattr(reference, of)(1, wide[point])) < 0.05
    assert relative(residual.mlp(1, half[point]), reference.mlp(1, wide[point])) < 0.05
    assert relative(residual.project(1, "q", half[point]), reference.project(1, "q", wide[point])) < 0.05
    assert residual.W_write(1).dtype == torch.float32


def test_head_scores_agree(narrow, tiny_model) -> None:
    config = HeadScoresConfig(n_prompts=4, context_length=41, seeds=(0,), min_lag=10, max_lag=20)
    found, expected = (score_heads(model, config).per_prompt for model in (narrow, tiny_model))
    assert abs(found - expected).max() < ROUNDING[str(narrow.cfg.dtype).removeprefix("torch.")]


def test_the_dtype_of_a_command_reaches_every_model_and_the_manifest(tmp_path: Path) -> None:
    try:
        set_model_dtype("bf16")
        assert model_dtype() == "bfloat16"
        assert load_model("small:attn-only-1l").cfg.dtype == torch.bfloat16
        assert load_model("small:attn-only-1l", dtype="float16").cfg.dtype == torch.float16
        Draft.open(tmp_path / "made", kind="heads", config={"a": 1}).finish()
        Draft.open(tmp_path / "begun", kind="heads", config={"a": 1})
        with pytest.raises(UnknownNameError, match="float32"):
            set_model_dtype("int8")
    finally:
        set_model_dtype()
    made = read_manifest(tmp_path / "made")
    assert (made.config, made.model_dtype) == ({"a": 1}, "bfloat16")
    assert load_model("small:attn-only-1l").cfg.dtype == torch.float32
    with pytest.raises(MismatchError, match="model_dtype"):
        Draft.open(tmp_path / "begun", kind="heads", config={"a": 1})  # would mix numbers of two dtypes


@dataclass(frozen=True)
class Sized:
    """A Llama by its sizes."""

    d_model: int = 32
    d_mlp: int = 64
    n_layers: int = 2
    d_vocab: int = 100

    def write(self, folder: Path) -> Path:
        """Write a folder with a config and no weights at all."""
        from transformers import LlamaConfig

        LlamaConfig(
            hidden_size=self.d_model, intermediate_size=self.d_mlp, num_hidden_layers=self.n_layers,
            num_attention_heads=4, num_key_value_heads=2, vocab_size=self.d_vocab, tie_word_embeddings=False,
        ).save_pretrained(folder)  # fmt: skip
        return folder

    @property
    def n_params(self) -> int:
        """Written out by hand: embedding, unembedding, norms, q and o, k and v of half the heads, three matrices."""
        block = 2 * self.d_model**2 + self.d_model**2 + 3 * self.d_model * self.d_mlp + 2 * self.d_model
        return 2 * self.d_vocab * self.d_model + self.n_layers * block + self.d_model


def test_the_estimate_counts_the_weights_exactly(tmp_path: Path) -> None:
    small, large = Sized(), Sized(d_model=4096, d_mlp=11008, n_layers=32, d_vocab=32_000)
    for each, name in ((small, "small"), (large, "large")):
        folder = str(each.write(tmp_path / name))
        wide, half = estimate(folder, "float32"), estimate(folder, "bfloat16")
        assert wide.n_params == half.n_params == each.n_params
        assert wide.weights == 4 * each.n_params == 2 * half.weights
        logits = _memory.PASS_TOKENS * each.d_vocab * 8
        assert (
            logits < wide.values < logits + _memory.PASS_TOKENS * 4 * (8 * each.d_model + 3 * each.d_mlp + 8 * 128 + 1)
        )
    assert 6e9 < large.n_params < 7e9


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch) -> None:
    folder = str(Sized().write(tmp_path / "model"))  # without weights: reading it would be another error
    needed = estimate(folder, "float32")
    monkeypatch.setattr(_memory, "free_memory", lambda device: needed.on_device - 1)
    with pytest.raises(ConfigError, match=r"about .* on cpu in float32, and .* are free; halve it with --dtype b"):
        load_model(folder, device="cpu")
    check_memory("it", folder, "bfloat16", "cpu")
    free = {"cuda": estimate(folder, "bfloat16").on_device - 1, "cpu": 10**12}
    monkeypatch.setattr(_memory, "free_memory", lambda device: free[device])
    with pytest.raises(ConfigError, match=r"on cuda in bfloat16.*choose a smaller model or another --device"):
        check_memory("it", folder, "bfloat16", "cuda")
    free.update(cuda=10**12, cpu=needed.reading - 1)
    with pytest.raises(ConfigError, match="reading it takes about"):
        check_memory("it", folder, "bfloat16", "cuda")
    monkeypatch.setattr(_memory, "free_memory", lambda device: None)  # the system does not tell
    check_memory("it", folder, "float32", "cpu")


def test_free_memory_is_that_of_this_machine() -> None:
    free = devices.free_memory("cpu")
    if not Path("/proc/meminfo").exists():
        assert free is None
        return
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 10**8 < free <= total


def test_free_memory_respects_the_limit_of_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("9:name=systemd:/\n4:memory:/job\n0::/job/step")
    for at, names in (("job", ("max", "current")), ("memory/job", ("limit_in_bytes", "usage_in_bytes"))):
        (folder := tmp_path / at).mkdir(parents=True)
        for name, text in zip(
            (*names, "stat"), ("1000", "700", "inactive_file 150\ntotal_inactive_file 60"), strict=True
        ):
            (folder / f"memory.{name}").write_text(text)
    assert list(devices._free_in_groups(tmp_path, tmp_path / "own")) == [360, 450]


def test_float32_stays_float32_and_narrow_sums_are_wide(monkeypatch) -> None:
    cuda = torch.backends.cuda.matmul
    for asked, expected in (("1", True), ("", False)):
        monkeypatch.setenv("INTERP_TF32", asked)
        devices.pick_device("cpu")
        assert cuda.allow_tf32 is torch.backends.cudnn.allow_tf32 is expected
        assert not cuda.allow_bf16_reduced_precision_reduction
        assert not cuda.allow_fp16_reduced_precision_reduction
    a = torch.full((1, 4096), 1.0, dtype=parse_dtype("bf16"))
    assert float(a @ a.T) == 4096  # bfloat16 sums would stop at 256
