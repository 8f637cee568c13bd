"""The whole pipeline on a real model, told in order.

Each step is a verb that could be typed by hand; the demo prints it, runs it when its artefact is not there yet, and
says what came out. So the demo is also the shortest tour of the command line.
"""

import shlex
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from interp.workspace import Workspace
from workbench.options import Options
from workbench.terminal import say
from workbench.verbs.atlas import Atlas
from workbench.verbs.circuit_induction import Induction
from workbench.verbs.features import Features
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record
from workbench.verbs.serve import Serve
from workbench.verbs.train import Train

if TYPE_CHECKING:
    from workbench.verbs.demo import Demo

MODEL = "smollm2-135m"
LAYER = 9


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


FULL = Size(200_000, 4_608, 32, 1_000_000, 8, 3, None)
QUICK = Size(60_000, 2_048, 32, 250_000, 6, 1, 8_000)


@dataclass(frozen=True)
class Step:
    """One artefact: why a person would want it, and the verb that makes it."""

    kind: str
    title: str
    why: str
    verb: Options


def steps(options: "Demo") -> list[Step]:
    """The pipeline for the chosen size."""
    size = QUICK if options.quick else FULL
    shared = {"workspace": options.workspace, "seed": options.seed, "threads": options.threads}
    resid, mlp = f"blocks.{LAYER}.hook_resid_post", f"blocks.{LAYER}.mlp.hook_post"
    return [
        Step(
            "recording",
            "Record",
            f"SmolLM2-135M reads {size.tokens:,} tokens of prose; we keep its residual stream after block {LAYER} "
            "and the neurons of that block's MLP.",
            Record(model=MODEL, name="demo", hook_points=(resid, mlp), tokens=size.tokens, **shared),
        ),
        Step(
            "sae",
            "Train a sparse autoencoder",
            f"It rewrites each of those activations as a sum of about {size.k} out of {size.d_sae:,} learned "
            "directions: the features.",
            Train(
                recording="demo",
                name="demo",
                hook_point=(resid,),
                kind="batchtopk",
                d_sae=(size.d_sae,),
                k=(size.k,),
                tokens=size.tokens_seen,
                **shared,
            ),
        ),
        Step(
            "features",
            "Describe every feature",
            "When does it fire, on what text, which next tokens does it argue for?",
            Features(dictionary="demo", name="demo", **shared),
        ),
        Step(
            "features",
            "Describe every neuron, for comparison",
            "The MLP's own 1,536 neurons go through the same tables: the baseline that features must beat.",
            Features(dictionary=f"neurons:{mlp}", recording="demo", name="demo-neurons", **shared),
        ),
        Step(
            "heads",
            "Score every attention head",
            "On random tokens that repeat: which heads look at the previous token, at a duplicate, at what came "
            "after the same token before?",
            Heads(model=MODEL, name=MODEL, prompts=size.prompts, n_seeds=size.n_seeds, **shared),
        ),
        Step(
            "circuit",
            "Prove the induction circuit",
            "A head that looks at what came after the same token before must have been told what came before each "
            "token. By whom? We cut that one edge and see the attention collapse.",
            Induction(
                model=MODEL,
                name=f"induction-{MODEL}",
                prompts=6,
                n_seeds=2,
                context_length=41,
                candidates=8,
                **shared,
            ),
        ),
        Step(
            "atlas",
            "Map the features",
            "Features whose directions are alike lie close together.",
            Atlas(source="sae:demo", name="demo-features", **shared),
        ),
        Step(
            "atlas",
            "Map the vocabulary",
            "The same for the token embeddings.",
            Atlas(source=f"embeddings:{MODEL}", name="demo-tokens", max_points=size.embedding_points, **shared),
        ),
    ]


def run_demo(options: "Demo") -> None:
    """Run what is missing, say what was found, serve."""
    started = time.time()
    workspace = Workspace(options.workspace, create=True)
    plan = steps(options)
    for number, step in enumerate(plan, 1):
        run_step(workspace, step, f"{number}/{len(plan)}")
    say(f"\nAll there after {time.time() - started:.0f} s.")
    for line in highlights(workspace):
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


def command_line(verb: object) -> str:
    """The command that a verb instance stands for; options at their defaults are left out.

    >>> command_line(Atlas(source="sae:demo", name="map"))
    'workbench atlas sae:demo --name map'
    """
    words = ["workbench", *(getattr(verb, "words", ()) or (type(verb).__name__.lower(),))]
    positional = next((f for f in fields(verb) if f.name in ("model", "recording", "dictionary", "source")), None)  # type: ignore[arg-type]
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


def highlights(workspace: Workspace) -> list[str]:
    """Features with a plain reading, the strongest first."""
    table = workspace.table_path("features", "demo", "features")
    rows = workspace.query(
        """select feature, label, density from f
           where n_fired between 50 and 2000 and not regexp_matches(label, '^(mixed|often|dense|rare)')
           order by max_activation desc limit 6""",
        f=table,
    ).to_pylist()
    lines = ["Some features to start from:"]
    return lines + [f"  feature {r['feature']:>5}  fires on {r['density']:.2%} of tokens: {r['label']}" for r in rows]
