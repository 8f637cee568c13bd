"""`workbench demo`: what ships, with the steps that are quick to compute, on a real model.

The dictionary that ships is unpacked with its tables and maps. Each further step is a verb that could be typed by hand:
the demo prints it, runs it unless its artefact exists, and prints what was found.

`unpack` copies the shipped dictionary, whose folders are artefacts with manifests, into the workspace. The recording
that they were made from (ten million tokens) does not ship; the manifests have its hashes, `card.json` its description.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.artifacts import FOLDERS, MANIFEST, copy_artefact
from interp.errors import CorruptError, MissingError, program
from interp.workspace import Workspace
from saes.features import schema as described
from saes.features.meaning import Meaning, meaning_of
from saes.features.schema import MOST_TELLING
from workbench.serve import OpensDashboard
from workbench.steps import WorkspaceStep, run_step, sharing
from workbench.terminal import OnDevice, Seeded, say
from workbench.verbs.circuit import Induction
from workbench.verbs.record import Record

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

    def run(self) -> None:
        """Unpack what ships, run the missing steps, and print what was found."""
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
    meaning = meaning_of(workspace, workspace.open(described.Features, name))
    if meaning is None:
        return labelled(workspace, name)
    chosen = telling(workspace, name, meaning)
    lines = ["Three features to start from:"] if chosen else []
    for feature, label in chosen:
        words = ", ".join(token.strip() for token, _ in meaning.says(feature, 5).raised)
        lines.append(f"  feature {feature:>5}  fires on {label}; makes the model say {words}")
        lines.append(f"                 /feature/{name}/{feature}")
    return [*lines, f"Find others by what they mean: {program()} search cooking"]


def telling(workspace: Workspace, name: str, meaning: Meaning) -> list[tuple[int, str]]:
    """Return three features, (number, label): labelled beyond the null, with the clearest promoted words.

    A class as wide as all nouns tells a reader nothing, so features with such a label are left out.
    Of eight words at least six are whole, begin after a space, and begin in different ways; no two features share one.
    """
    sql = """select feature, label from f where label_score > label_null_high and density between 2e-4 and 2e-2
             and label_kind in ('said', 'class', 'word', 'token')
             and label_names[1] not in ('noun', 'verb', 'adjective') order by feature"""
    rows = workspace.query(sql, f=workspace.table_path("features", name, "features")).to_pylist()
    strength = meaning.raised_strength[:, :8].mean(1)
    seen: set[str] = set()
    chosen: list[tuple[int, str]] = []
    for row in sorted(rows, key=lambda row: -strength[row["feature"]]):
        words = [token for token, _ in meaning.says(row["feature"], 8).raised]
        stems = {word.strip().lower()[:4] for word in words}
        whole = sum(word.startswith(" ") and word[1:].isalpha() and len(word) > 3 for word in words)
        if whole >= 6 and len(stems) >= 6 and not stems & seen:
            chosen.append((row["feature"], row["label"]))
            seen |= stems
        if len(chosen) == 3:
            break
    return chosen


def suggested(workspace: Workspace, name: str, n: int) -> list[int]:
    """Return `n` features to begin with: the most telling ones, then those with the best labels."""
    meaning = meaning_of(workspace, workspace.open(described.Features, name))
    chosen = [] if meaning is None else [feature for feature, _ in telling(workspace, name, meaning)]
    return list(dict.fromkeys([*chosen, *(row["feature"] for row in _best_labelled(workspace, name))]))[:n]


def labelled(workspace: Workspace, name: str) -> list[str]:
    """Return lines on the features to open first, each with another label that exceeds its null."""
    rows = _best_labelled(workspace, name)
    lines = ["Some features to start from:"] if rows else []
    return lines + [f"  feature {r['feature']:>5}  fires on {r['density']:.2%} of tokens: {r['label']}" for r in rows]


def _best_labelled(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    table = workspace.table_path("features", name, "features")
    return workspace.query(
        f"""select feature, label, density from f where n_fired > 0 and label_score > label_null_high
            qualify row_number() over (partition by regexp_replace(label, ' \\(.*', '') order by {MOST_TELLING}) = 1
            order by {MOST_TELLING} limit 6""",
        f=table,
    ).to_pylist()
