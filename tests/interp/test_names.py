"""Names of heads and hook points, and what an error tells a person."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.devices import parse_dtype, pick_device
from interp.errors import ConfigError, UnknownNameError, WorkbenchError, nearest
from interp.models.adapter import hook_points_by_name
from interp.names import (
    HeadName,
    HookPoint,
    canonical_hook_point,
    check_hook_points,
    parse_head,
    parse_hook_point,
)
from interp.seeds import derive_seed, make_generator


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_head_reads_back_as_it_prints(layer: int, head: int) -> None:
    assert parse_head(str(HeadName(layer, head))) == HeadName(layer, head)


@pytest.mark.parametrize("text", ["L5", "5H1", "L-1H0", "l5h1", "L5H1x", ""])
def test_what_is_no_head_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(UnknownNameError, match="L5H1"):
        parse_head(text)


@pytest.mark.parametrize(
    ("alias", "canonical"),
    [
        ("blocks.3.hook_in", "blocks.3.hook_resid_pre"),
        ("blocks.3.hook_out", "blocks.3.hook_resid_post"),
        ("blocks.3.ln2.hook_in", "blocks.3.hook_resid_mid"),
        ("blocks.3.attn.hook_out", "blocks.3.hook_attn_out"),
        ("blocks.3.mlp.hook_out", "blocks.3.hook_mlp_out"),
        ("blocks.3.attn.o.hook_in", "blocks.3.attn.hook_z"),
        ("embed.hook_out", "hook_embed"),
        ("blocks.12.attn.hook_pattern", "blocks.12.attn.hook_pattern"),
        ("anything.else", "anything.else"),
    ],
)
def test_aliases_become_the_fields_names(alias: str, canonical: str) -> None:
    assert canonical_hook_point(alias) == canonical
    assert canonical_hook_point(canonical) == canonical
    assert str(parse_hook_point(alias)) == canonical


@pytest.mark.real
def test_every_alias_names_the_same_place_in_the_real_bridge(smollm2) -> None:
    points = hook_points_by_name(smollm2)
    for name, point in smollm2.hook_dict.items():
        if canonical_hook_point(name) in points:
            assert points[canonical_hook_point(name)] is point, name


def test_layers_are_parsed() -> None:
    assert parse_hook_point("blocks.11.mlp.hook_post") == HookPoint(11, "mlp.hook_post")
    assert parse_hook_point("hook_embed") == HookPoint(None, "hook_embed")


def test_hook_points_are_checked_without_duplicates_in_order() -> None:
    available = {"blocks.0.hook_resid_post", "blocks.0.hook_resid_pre"}
    given_names = ["blocks.0.hook_out", "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
    assert check_hook_points(given_names, available, 1) == ["blocks.0.hook_resid_post", "blocks.0.hook_resid_pre"]
    with pytest.raises(UnknownNameError, match=r"did you mean 'blocks\.0\.hook_resid_p.*1 layers"):
        check_hook_points(["blocks.0.resid_post"], available, 1)


def test_the_nearest_names_are_suggested() -> None:
    assert nearest("smolm2", ["smollm2-135m", "gpt2"]) == "did you mean 'smollm2-135m'?"
    assert nearest("zzz", [f"m{n}" for n in range(20)]).endswith("and 12 more.")
    assert nearest("x", []) == "none exist yet."


def test_one_exception_catches_all_of_ours() -> None:
    assert issubclass(UnknownNameError, WorkbenchError)
    assert UnknownNameError("model", "x", ["y"]).exit_code == 2


def test_streams_of_one_seed_are_independent_and_repeatable() -> None:
    assert derive_seed(0, "a") == 4950127121108668649  # the same on every machine and Python
    draws = {torch.randint(10**9, (1,), generator=make_generator(0, stream)).item() for stream in ("a", "b", "c")}
    assert len(draws) == 3
    assert torch.equal(
        torch.rand(3, generator=make_generator(5, "x", 1)), torch.rand(3, generator=make_generator(5, "x", 1))
    )


def test_dtypes_and_devices_are_checked() -> None:
    assert parse_dtype("bf16") is torch.bfloat16
    with pytest.raises(UnknownNameError, match="float16"):
        parse_dtype("float8")
    assert pick_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device cpu"):
            pick_device("cuda")
