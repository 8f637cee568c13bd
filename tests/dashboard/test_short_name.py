"""Models are called by one short name, whatever their spec."""

import pytest

from dashboard.components.forms import model_choices
from interp.models.short_name import short_name


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("gemma3-270m", "gemma-3-270m"),
        ("google/gemma-3-270m", "gemma-3-270m"),
        ("/data/models/gemma-3-270m-Q4_K_M.gguf", "gemma-3-270m"),
        ("gemma-3-270m.IQ3_XXS.gguf", "gemma-3-270m"),
        ("llama-7b-fp16.gguf", "llama-7b"),
        ("big-bf16-00001-of-00003.gguf", "big"),
        ("hub/models--google--gemma-3-270m/snapshots/9b0cfec892e2bc2afd938c98eabe4e4a7b1e0ca1", "gemma-3-270m"),
        ("./runs/q4/", "q4"),
        ("smollm2-135m+./my-lora", "my-lora on smollm2-135m"),
        ("owner/base+someone/adapter", "adapter on base"),
        ("toy:induction-2l", "toy:induction-2l"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_a_short_name_has_no_owner_folder_format_or_bits(spec: str, name: str) -> None:
    assert short_name(spec) == name


def test_a_menu_tells_models_of_one_name_apart() -> None:
    menu = model_choices(["google/gemma-3-270m", "gemma3-270m", "runs/mine"])
    assert [entry["label"] for entry in menu] == ["google/gemma-3-270m", "gemma3-270m", "mine"]
    assert [entry["value"] for entry in menu] == ["google/gemma-3-270m", "gemma3-270m", "runs/mine"]
