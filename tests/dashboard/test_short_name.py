"""Models are called by one short name, whatever their spec."""

from dashboard.components.forms import model_choices
from interp.models.short_name import short_name

NAMES = {
    "gemma-3-270m": (
        *("gemma3-270m", "google/gemma-3-270m", "/data/gemma-3-270m-Q4_K_M.gguf", "gemma-3-270m.IQ3_XXS.gguf"),
        *("gemma-3-270m-bf16-00001-of-00003.gguf", "hub/models--google--gemma-3-270m/snapshots/9b0cfec892e2bc2a/"),
    ),
    "my-lora on smollm2-135m": ("smollm2-135m+./my-lora", "owner/smollm2-135m+someone/my-lora/"),
    "q4": ("./runs/q4/",),
    "toy:induction-2l": ("toy:induction-2l",),
    "": ("",),
}


def test_a_short_name_has_no_owner_folder_format_or_bits() -> None:
    assert {name: {short_name(spec) for spec in specs} for name, specs in NAMES.items()} == {n: {n} for n in NAMES}


def test_a_menu_tells_models_of_one_name_apart() -> None:
    menu = model_choices(["google/gemma-3-270m", "gemma3-270m", "runs/mine"])
    assert [entry["label"] for entry in menu] == ["google/gemma-3-270m", "gemma3-270m", "mine"]
    assert [entry["value"] for entry in menu] == ["google/gemma-3-270m", "gemma3-270m", "runs/mine"]
