"""Small transformers from a config: attention-only or with an MLP, 1..n layers. Torch-free until built.

On disk a small model is `small.json` (its sizes) and `model.safetensors` (its weights, by plain names). `load_model`
opens such a folder by its path, like any other model folder.

`checkpoints_in` lists the checkpoints that a training run left in a folder, in the order of their steps.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from interp.artifacts import atomic_file, read_json, write_json
from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.forms import from_json
from interp.models.hooked import HookedModel, wrap_native
from interp.models.identity import plain_parameters
from interp.models.lora import is_adapter
from interp.options import check_positive
from interp.text.tokens import ByteTokenizer

SMALL_PREFIX = "small:"


@dataclass(frozen=True, kw_only=True)
class SmallConfig:
    """Sizes of a small transformer. The default vocabulary is bytes plus BOS, so that it reads text directly."""

    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int | None = None
    """None: no MLPs (attention-only)."""
    d_vocab: int = ByteTokenizer.d_vocab
    n_ctx: int = 256
    normalization: Literal["LN", "RMS"] | None = "LN"
    """None for a model without norms, whose circuits compose exactly."""
    positions: Literal["standard", "rotary"] = "standard"
    """learned absolute positions, or rotary"""
    act_fn: Literal["gelu", "relu", "silu"] = "gelu"

    def __post_init__(self) -> None:
        check_positive(self, "n_layers", "d_model", "n_heads", "d_vocab", "n_ctx")
        if self.d_model % self.n_heads:
            raise ConfigError(f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}")
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(f"rotary positions need an even d_head, got {self.d_head}")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def n_params(self) -> int:
        """Number of parameters, biases and norms included."""
        d, norm = self.d_model, {"LN": 2, "RMS": 1, None: 0}[self.normalization]
        block = 4 * d * d + 4 * d + norm * d
        if self.d_mlp is not None:
            block += 2 * d * self.d_mlp + self.d_mlp + d + norm * d
        positions = self.n_ctx * d if self.positions == "standard" else 0
        return self.n_layers * block + 2 * d * self.d_vocab + positions + norm * d


PRESETS = {
    "attn-only-1l": SmallConfig(n_layers=1),
    "attn-only-2l": SmallConfig(n_layers=2),
    "mlp-1l": SmallConfig(n_layers=1, d_mlp=256),
    "mlp-2l": SmallConfig(n_layers=2, d_mlp=256),
}


def small_config(spec: str) -> SmallConfig:
    """Return the config of a spec such as `"small:attn-only-2l"`. Raises `UnknownNameError`."""
    name = spec.removeprefix(SMALL_PREFIX)
    if name not in PRESETS:
        raise UnknownNameError("small model", spec, [SMALL_PREFIX + preset for preset in PRESETS])
    return PRESETS[name]


def build_small(config: SmallConfig, *, seed: int, device: str, dtype: torch.dtype) -> HookedModel:
    """Build a randomly initialised model; the same seed gives the same weights on every device."""
    from transformer_lens import TransformerBridgeConfig

    native = TransformerBridgeConfig(
        d_model=config.d_model,
        d_head=config.d_head,
        n_heads=config.n_heads,
        n_layers=config.n_layers,
        n_ctx=config.n_ctx,
        d_vocab=config.d_vocab,
        d_mlp=config.d_mlp,
        attn_only=config.d_mlp is None,
        normalization_type=config.normalization,
        positional_embedding_type=config.positions,
        act_fn=config.act_fn,
        init_mode="gpt2",
        seed=seed,
    )
    return wrap_native(native, device=device, dtype=dtype)


CONFIG_FILE, WEIGHTS_FILE = "small.json", "model.safetensors"


def save_small(model: HookedModel, config: SmallConfig, folder: Path) -> None:
    """Write a small model's weights and sizes; a crash leaves the old files or the new ones."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in plain_parameters(model.original_model)}
    with atomic_file(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(weights))
    write_json(folder / CONFIG_FILE, asdict(config))


def is_small_folder(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def load_small(folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> HookedModel:
    """Load a model written by `save_small`. Raises `CorruptError` when the files do not fit each other."""
    from safetensors.torch import load_file

    config = from_json(SmallConfig, read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # safetensors raises its own type, which it does not export for this purpose
        raise CorruptError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); write it again") from error
    model = build_small(config, seed=0, device=device, dtype=dtype or torch.float32)
    _copy_weights(model, weights, folder)
    return model


def _copy_weights(model: HookedModel, weights: dict[str, Tensor], folder: Path) -> None:
    parameters = dict(plain_parameters(model.original_model))
    wrong = sorted(set(parameters) ^ set(weights)) + [
        n for n in parameters if n in weights and parameters[n].shape != weights[n].shape
    ]
    if wrong:
        raise CorruptError(f"the weights in {folder} do not fit its {CONFIG_FILE}: {', '.join(wrong[:3])}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


_STEP = re.compile(r"(\d+)\D*$")


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return step -> folder of every model in a folder, by the last number of its name: `checkpoint-500` is step 500.

    Whole models and adapters of peft count; other folders are skipped. Raises `MissingError` for a missing folder,
    `ConfigError` for fewer than two checkpoints, or two of one step.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise MissingError(f"no folder of checkpoints at {folder}")
    folders: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        holds_model = path.is_dir() and ((path / "config.json").is_file() or is_adapter(path) or is_small_folder(path))
        if not holds_model or (step := _STEP.search(path.name)) is None:
            continue
        if (number := int(step[1])) in folders:
            raise ConfigError(
                f"{folders[number].name} and {path.name} in {folder} are both of step {number}; move one away"
            )
        folders[number] = path
    if len(folders) < 2:
        raise ConfigError(
            f"expected two checkpoints or more in {folder}, found {len(folders)}; each is a folder with a model, "
            "whose name ends in its step, such as checkpoint-500"
        )
    return dict(sorted(folders.items()))
