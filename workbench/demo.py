"""The whole pipeline on a real model, told in order.

The dictionary that ships is unpacked with its tables and maps, and only what is quick is computed; `--train` computes
all of it from nothing, `--sae` takes another dictionary. Each step is a verb that could be typed by hand; the demo
prints it, runs it when its artefact is not there yet, and says what came out. So the demo is also the shortest tour of
the command line.
"""

import shlex
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import program
from interp.workspace import Workspace
from saes.features.schema import has_plain_label
from workbench.shipped.unpack import SHIPPED, unpack
from workbench.terminal import Verb, Writes, say, slug
from workbench.verbs.atlas import Atlas
from workbench.verbs.circuit import Induction
from workbench.verbs.features import Features
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record
from workbench.verbs.serve import Serve
from workbench.verbs.train import Import, Train

if TYPE_CHECKING:
    from workbench.verbs.demo import Demo

MODEL = "smollm2-135m"
LAYER = 9
RESID, MLP = f"blocks.{LAYER}.hook_resid_post", f"blocks.{LAYER}.mlp.hook_post"
TRAINED = "trained"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    tokens: int
    d_sae: int
    k: int
    tokens_seen: int
    prompts: int
    n_seeds: int
    embedding_points: int | None
    looked_at: int
    """tokens recorded when nothing is trained"""


FULL = Size(200_000, 4_608, 32, 1_000_000, 8, 3, None, 60_000)
QUICK = Size(60_000, 2_048, 32, 250_000, 6, 1, 8_000, 20_000)


@dataclass(frozen=True)
class Step:
    """One artefact: why a person would want it, and the verb that makes it."""

    kind: str
    title: str
    why: str
    verb: Writes


def steps(options: "Demo") -> list[Step]:
    """The pipeline for the chosen size; of a dictionary from elsewhere what comes after its import."""
    if options.sae is not None:
        return imported_steps(options)
    return trained_steps(options) if options.train else shipped_steps(options)


def shipped_steps(options: "Demo") -> list[Step]:
    """What is computed here beside the dictionary that ships."""
    size, shared = _size(options), _shared(options)
    return [_record(MODEL, SHIPPED, (RESID, MLP), size.looked_at, shared), _induction(shared)]


def trained_steps(options: "Demo") -> list[Step]:
    """Everything from nothing."""
    size, shared = _size(options), _shared(options)
    return [
        _record(MODEL, TRAINED, (RESID, MLP), size.tokens, shared),
        Step(
            "sae",
            "Train a sparse autoencoder",
            f"It rewrites each of those activations as a sum of about {size.k} out of {size.d_sae:,} learned "
            "directions: the features.",
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
            "The MLP's own 1,536 neurons go through the same tables: the baseline that features must beat.",
            Features(dictionary=f"neurons:{MLP}", recording=TRAINED, name=f"{TRAINED}-neurons", **shared),
        ),
        Step(
            "heads",
            "Score every attention head",
            "On random tokens that repeat: which heads look at the previous token, at a duplicate, at what came "
            "after the same token before?",
            Heads(model=MODEL, name=MODEL, prompts=size.prompts, n_seeds=size.n_seeds, **shared),
        ),
        _induction(shared),
        _map_features(TRAINED, shared),
        Step(
            "atlas",
            "Map the vocabulary",
            "The same for the token embeddings.",
            Atlas(source=f"embeddings:{MODEL}", name=f"{TRAINED}-tokens", max_points=size.embedding_points, **shared),
        ),
    ]


def imported_steps(options: "Demo") -> list[Step]:
    """What is computed of a dictionary that `import_step` brought in."""
    shared, name = _shared(options), imported_name(options)
    where = Workspace(options.workspace).manifest("sae", name).config
    places = tuple(place for place in (where["hook_point"], where["hook_point_out"]) if place)
    return [
        _record(options.model, name, places, _size(options).looked_at, shared),
        _features(name, {**shared, "recording": name}),
        _map_features(name, shared),
    ]


def import_step(options: "Demo") -> Step:
    """Bring in the dictionary that was asked for."""
    assert options.sae is not None
    return Step(
        "sae",
        "Import the dictionary",
        "Read as the tool that wrote it reads it, and compared with that tool's arithmetic.",
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


def imported_name(options: "Demo") -> str:
    """`imported-` and the last two parts of where it comes from: `layers.9` alone names nothing."""
    return slug("imported-" + "-".join(Path(str(options.sae).removeprefix("hub:")).parts[-2:]))


def _record(model: str, name: str, hook_points: tuple[str, ...], tokens: int, shared: dict[str, Any]) -> Step:
    return Step(
        "recording",
        "Record",
        f"{model} reads {tokens:,} tokens of prose; we keep what it computes at {' and '.join(hook_points)}.",
        Record(model=model, name=name, hook_points=hook_points, tokens=tokens, **shared),
    )


def _features(name: str, shared: dict[str, Any]) -> Step:
    why = "When does it fire, on what text, which next tokens does it argue for?"
    return Step("features", "Describe every feature", why, Features(dictionary=name, name=name, **shared))


def _map_features(name: str, shared: dict[str, Any]) -> Step:
    why = "Features whose directions are alike lie close together."
    return Step("atlas", "Map the features", why, Atlas(source=f"sae:{name}", name=f"{name}-features", **shared))


def _induction(shared: dict[str, Any]) -> Step:
    return Step(
        "induction_circuit",
        "Prove the induction circuit",
        "A head that looks at what came after the same token before must have been told what came before each "
        "token. By whom? We cut that one edge and see the attention collapse.",
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


def _size(options: "Demo") -> Size:
    return QUICK if options.quick else FULL


def _shared(options: "Demo") -> dict[str, Any]:
    return {
        "workspace": options.workspace,
        "seed": options.seed,
        "threads": options.threads,
        "device": options.device,
    }


def run_demo(options: "Demo") -> None:
    """Run what is missing, say what was found, serve."""
    started = time.time()
    workspace = Workspace(options.workspace, create=True)
    if options.sae is not None:
        run_step(workspace, import_step(options), "0")
    elif not options.train:
        unpack(workspace)
    plan = steps(options)
    for number, step in enumerate(plan, 1):
        run_step(workspace, step, f"{number}/{len(plan)}")
    say(f"\nAll there after {time.time() - started:.0f} s.")
    name = imported_name(options) if options.sae else TRAINED if options.train else SHIPPED
    for line in highlights(workspace, name):
        say(line)
    serve = Serve(workspace=options.workspace, port=options.port, browser=options.browser, threads=options.threads)
    if options.serve:
        say("\nOpening the dashboard; Ctrl-C ends it.")
        serve.run()
    else:
        say(f"\nOpen it with: {command_line(serve)}")


def run_step(workspace: Workspace, step: Step, number: str) -> None:
    """Run one verb unless its artefact is there."""
    assert step.verb.name is not None
    say(f"\n{number}  {step.title}")
    if step.verb.name in workspace.names(step.kind):
        say(f"     found {workspace.path(step.kind, step.verb.name)}")
        return
    say(f"     {step.why}")
    say(f"     $ {command_line(step.verb)}")
    started = time.time()
    step.verb.run()
    say(f"      {time.time() - started:.0f} s")


def command_line(verb: Verb) -> str:
    """The command that a verb instance stands for; options at their defaults are left out.

    >>> command_line(Atlas(source="sae:demo", name="map"))
    'workbench atlas sae:demo --name map'
    """
    words = [program(), *verb.typed_words()]
    named = ("model", "recording", "dictionary", "source", "path")
    positional = next((f for f in fields(verb) if f.name in named), None)  # type: ignore[arg-type]
    if positional is not None:
        words.append(str(getattr(verb, positional.name)))
    for field in fields(verb):  # type: ignore[arg-type]
        value = getattr(verb, field.name)
        if field is positional or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)


def highlights(workspace: Workspace, name: str) -> list[str]:
    """Features with a plain reading, the strongest first."""
    table = workspace.table_path("features", name, "features")
    rows = workspace.query(
        f"""select feature, label, density from f where n_fired between 50 and 2000 and {has_plain_label(table)}
           order by max_activation desc limit 6""",
        f=table,
    ).to_pylist()
    lines = ["Some features to start from:"]
    return lines + [f"  feature {r['feature']:>5}  fires on {r['density']:.2%} of tokens: {r['label']}" for r in rows]
