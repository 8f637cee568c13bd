"""`workbench demo`: the whole pipeline on a real model, step by step.

By default the dictionary that ships is unpacked with its tables and maps, and only the quick steps are computed;
`--train` computes all of them, `--sae` takes another dictionary. Each step is a verb that could be typed by hand: the
demo prints it, runs it unless its artefact exists, and prints what was found.

`unpack` copies the shipped dictionary, whose folders are artefacts with manifests, into the workspace. The recording
that they were made from (ten million tokens) does not ship; the manifests have its hashes, `card.json` its description.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.artifacts import FOLDERS, MANIFEST, copy_artefact
from interp.errors import ConfigError, CorruptError, MissingError, program
from interp.options import HookPoint, ModelName
from interp.workspace import Workspace
from saes.features import schema as described
from saes.features.meaning import Meaning, meaning_of
from saes.features.schema import MOST_TELLING, NEURONS
from saes.training.stored import StoredSAE
from saes.weights.imported import ImportedSettings
from workbench.serve import OpensDashboard
from workbench.steps import Step, run_step
from workbench.terminal import OnDevice, Seeded, say, slug
from workbench.verbs.atlas import Atlas
from workbench.verbs.circuit import Induction
from workbench.verbs.features import Features
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record
from workbench.verbs.trace import Trace
from workbench.verbs.train import Import, Train

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
    found = shipped_artifacts(data)
    if not found:
        raise MissingError(f"this installation has no dictionary at {data}; `workbench demo --train` makes one")
    lacking = [(kind, name) for kind, name in found if name not in workspace.names(kind)]
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
TRAINED = "trained"


@dataclass(frozen=True, kw_only=True)
class Demo(OpensDashboard, Seeded, OnDevice):
    """Show features, heads, a circuit and maps of SmolLM2-135M, then open the dashboard.

    The dictionary ships with the package, so this takes two minutes on two cores. --train trains one instead (eight
    minutes, three with --quick), --sae takes another. A second run finds what is there and opens the dashboard at once.
    """

    quick: bool = False
    """Fewer tokens, features and prompts."""
    train: bool = False
    """Record, train, describe and map a new dictionary, named `trained`, instead of the one that ships."""
    sae: str | None = None
    """Another dictionary instead: a folder or file of any known format, hub:OWNER/NAME[/FOLDER], or a name of SAELens,
    RELEASE/ID."""
    model: ModelName = "smollm2-135m"
    """The model that --sae belongs to."""
    hook_point: HookPoint | None = None
    """Hook point that --sae reads. Default: as stated in its files."""

    def run(self) -> None:
        if self.sae is not None and self.train:
            raise ConfigError("--train trains a dictionary and --sae takes another; choose one of the two")
        if self.sae is None and (self.model != MODEL or self.hook_point):
            raise ConfigError(
                "--model and --hook-point describe the SAE of --sae, which was not given; for another model use "
                "`workbench record`"
            )
        run_demo(self)
        self.open_dashboard()


@dataclass(frozen=True)
class Size:
    """Size of every step."""

    tokens: int
    d_sae: int
    k: int
    tokens_seen: int
    prompts: int
    n_seeds: int
    embedding_points: int | None
    look_tokens: int
    """Tokens recorded when no dictionary is trained."""


FULL = Size(200_000, 4_608, 32, 1_000_000, 8, 3, None, 60_000)
QUICK = Size(60_000, 2_048, 32, 250_000, 6, 1, 8_000, 20_000)


def steps(options: Demo) -> list[Step]:
    """Return the steps of the chosen pipeline; for a dictionary from elsewhere, those after its import."""
    if options.sae is not None:
        return imported_steps(options)
    return trained_steps(options) if options.train else shipped_steps(options)


def shipped_steps(options: Demo) -> list[Step]:
    """Return the steps that are computed around the dictionary that ships."""
    size, shared = _size(options), _shared(options)
    return [_record(MODEL, SHIPPED, (RESID, MLP), size.look_tokens, shared), _induction(shared)]


def trained_steps(options: Demo) -> list[Step]:
    """Return all steps, from recording to maps."""
    size, shared = _size(options), _shared(options)
    return [
        _record(MODEL, TRAINED, (RESID, MLP), size.tokens, shared),
        Step(
            "sae",
            "Train a sparse autoencoder",
            f"It writes each of those activations as a sum of about {size.k} out of {size.d_sae:,} learned directions: "
            "the features.",
            Train(
                recording=TRAINED,
                name=TRAINED,
                hook_point=(RESID,),
                kind="batchtopk",
                d_sae=(size.d_sae,),
                k=(size.k,),
                tokens=size.tokens_seen,
                **shared,
            ),
        ),
        _features(TRAINED, shared),
        Step(
            "features",
            "Describe every neuron, for comparison",
            "The MLP's own 1,536 neurons get the same tables, as the baseline for features.",
            Features(dictionary=f"{NEURONS}{MLP}", recording=TRAINED, name=f"{TRAINED}-neurons", **shared),
        ),
        Step(
            "heads",
            "Score every attention head",
            "On repeated random tokens: which heads attend to the previous token, to a duplicate, or to the token "
            "after an earlier copy of the current one?",
            Heads(
                model=MODEL,
                name=MODEL,
                n_prompts=size.prompts,
                seeds=tuple(range(options.seed, options.seed + size.n_seeds)),
                **{name: value for name, value in shared.items() if name != "seed"},
            ),
        ),
        _induction(shared),
        _capital(shared),
        _map_features(TRAINED, shared),
        Step(
            "atlas",
            "Map the vocabulary",
            "The same for token embeddings.",
            Atlas(source=f"embeddings:{MODEL}", name=f"{TRAINED}-tokens", max_points=size.embedding_points, **shared),
        ),
    ]


def imported_steps(options: Demo) -> list[Step]:
    """Return the steps that are computed for a dictionary after `import_step`."""
    shared, name = _shared(options), imported_name(options)
    where = Workspace(options.workspace).open(StoredSAE, name).settings
    assert isinstance(where, ImportedSettings)
    hook_points = tuple(each for each in (where.hook_point, where.hook_point_out) if each)
    return [
        _record(options.model, name, hook_points, _size(options).look_tokens, shared),
        _features(name, {**shared, "recording": name}),
        _map_features(name, shared),
    ]


def import_step(options: Demo) -> Step:
    """Return the step that imports the dictionary of `--sae`."""
    assert options.sae is not None
    return Step(
        "sae",
        "Import the dictionary",
        "Read in the format of the tool that wrote it, and compared with that tool's forward pass.",
        Import(
            path=options.sae,
            model=options.model,
            hook_point=options.hook_point,
            name=imported_name(options),
            workspace=options.workspace,
            threads=options.threads,
            device=options.device,
        ),
    )


def imported_name(options: Demo) -> str:
    """Return `imported-` and the last two parts of the path, since `layers.9` alone would be ambiguous."""
    return slug("imported-" + "-".join(Path(str(options.sae).removeprefix("hub:")).parts[-2:]))


def _record(model: str, name: str, hook_points: tuple[str, ...], tokens: int, shared: dict[str, Any]) -> Step:
    return Step(
        "recording",
        "Record",
        f"{model} reads {tokens:,} tokens of text; its activations at {' and '.join(hook_points)} are stored.",
        Record(model=model, name=name, hook_points=hook_points, tokens=tokens, **shared),
    )


def _features(name: str, shared: dict[str, Any]) -> Step:
    why = "How often does it fire, on which text, and which next tokens does it promote?"
    return Step("features", "Describe every feature", why, Features(dictionary=name, name=name, **shared))


def _map_features(name: str, shared: dict[str, Any]) -> Step:
    why = "Features with similar directions lie close together."
    return Step("atlas", "Map the features", why, Atlas(source=f"sae:{name}", name=f"{name}-features", **shared))


def _induction(shared: dict[str, Any]) -> Step:
    return Step(
        "induction_circuit",
        "Test the induction circuit",
        "An induction head needs to know the token before each position, from an earlier head. Which one? Patching "
        "that one edge must remove its attention.",
        Induction(
            model=MODEL,
            name=f"induction-{MODEL}",
            prompts_per_seed=6,
            seeds=(shared["seed"], shared["seed"] + 1),
            context_length=41,
            max_candidates=8,
            **{name: value for name, value in shared.items() if name != "seed"},
        ),
    )


def _capital(shared: dict[str, Any]) -> Step:
    return Step(
        "attribution_graph",
        "Trace a prompt",
        "Why does the model say Paris? The direct effects between its neurons that lead to the answer.",
        Trace(
            model=MODEL,
            name="capital-of-France",
            prompt="The capital of France is",
            target=" Paris",
            contrast=" Rome",
            max_feature_nodes=1_000,
            edge_share=0.8,
            **shared,
        ),
    )


def _size(options: Demo) -> Size:
    return QUICK if options.quick else FULL


def _shared(options: Demo) -> dict[str, Any]:
    return {
        "workspace": options.workspace,
        "seed": options.seed,
        "threads": options.threads,
        "device": options.device,
    }


def run_demo(options: Demo) -> None:
    """Run the missing steps, and print what was found."""
    started = time.time()
    workspace = Workspace(options.workspace, create=True)
    if options.sae is not None:
        run_step(workspace, import_step(options), "0")
    elif not options.train:
        unpack(workspace)
    plan = steps(options)
    for number, step in enumerate(plan, 1):
        run_step(workspace, step, f"{number}/{len(plan)}")
    say(f"\nDone after {time.time() - started:.0f} s.")
    name = imported_name(options) if options.sae else TRAINED if options.train else SHIPPED
    for line in highlights(workspace, name):
        say(line)


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


def labelled(workspace: Workspace, name: str) -> list[str]:
    """Return lines on the features to open first, each with another label that exceeds its null."""
    table = workspace.table_path("features", name, "features")
    rows = workspace.query(
        f"""select feature, label, density from f where n_fired > 0 and label_score > label_null_high
            qualify row_number() over (partition by regexp_replace(label, ' \\(.*', '') order by {MOST_TELLING}) = 1
            order by {MOST_TELLING} limit 6""",
        f=table,
    ).to_pylist()
    lines = ["Some features to start from:"] if rows else []
    return lines + [f"  feature {r['feature']:>5}  fires on {r['density']:.2%} of tokens: {r['label']}" for r in rows]
