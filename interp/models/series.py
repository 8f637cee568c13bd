"""The checkpoints that a training run left in a folder, in the order of their steps."""

import re
from pathlib import Path

from interp.errors import ConfigError, MissingError
from interp.models.lora import is_adapter
from interp.models.small import is_small_folder

_STEP = re.compile(r"(\d+)\D*$")


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return step -> folder of every model in a folder, by the last number of its name: `checkpoint-500` is step 500.

    Whole models and adapters of peft count; other folders are skipped. Raises `MissingError` for a missing folder,
    `ConfigError` for fewer than two checkpoints, or two of one step.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise MissingError(f"no folder of checkpoints at {folder}")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        holds_model = path.is_dir() and ((path / "config.json").is_file() or is_adapter(path) or is_small_folder(path))
        if not holds_model or (step := _STEP.search(path.name)) is None:
            continue
        if (number := int(step[1])) in found:
            raise ConfigError(
                f"{found[number].name} and {path.name} in {folder} are both of step {number}; move one away"
            )
        found[number] = path
    if len(found) < 2:
        raise ConfigError(
            f"expected two checkpoints or more in {folder}, found {len(found)}; each is a folder with a model, "
            "whose name ends in its step, such as checkpoint-500"
        )
    return dict(sorted(found.items()))
