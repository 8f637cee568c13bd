"""`workbench circuit ...`: circuits found, tested and printed.

- `find MODEL --task ioi`: the circuit of a task in heads and MLPs, with its faithfulness.
- `attack CIRCUIT`: what is left of it when an adversary chooses the ablation.
- `induction MODEL`: the induction circuit, with the evidence for and against every head.
- `show CIRCUIT`: a circuit or a graph that was found, in text; a graph as JSON for other programs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from interp.artifacts import kinds_of
from interp.circuits.circuit import Circuit, edge_text
from interp.circuits.config import EvaluationConfig, FindConfig, InductionConfig
from interp.circuits.found_circuit import EdgeCircuit, FoundCircuit, UnderAttack
from interp.circuits.worst_case import AttackConfig, WorstCase, attacks_of, mean_and_worst
from interp.claims import OwnText
from interp.errors import ConfigError, NoGapError
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.nulls import DRAWS
from interp.options import Argument, Derived, Means, TaskName
from interp.patching.patching_map import METRIC_OF, MetricName
from interp.progress import Progress, reported
from interp.tracing.graph import KIND, AttributionGraph
from interp.workspace import Workspace
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import (
    Heading,
    InWorkspace,
    ModelArgument,
    RunsModel,
    Threaded,
    say,
    settings_of,
    slug,
)

if TYPE_CHECKING:
    from interp.circuits.induction_circuit import InductionCircuit
    from interp.patching.task import Task

HEADING = Heading.CIRCUITS


def say_task(task: "Task") -> None:
    """Print the metric on both sides of a task."""
    clean, corrupt = float(task.clean_value.mean()), float(task.corrupt_value.mean())
    say(f"{task.name}: {task.metric.name} {clean:.3g} on clean prompts, {corrupt:.3g} on corrupted ones")


@dataclass(frozen=True, kw_only=True)
class Find(FindConfig, EvaluationConfig, Threaded, RunsModel, Analysis["EdgeCircuit"]):
    """Find a task's circuit of heads and MLPs.

    Example: workbench circuit find smollm2-135m --task ioi

    Every edge is scored, the best are retained, and the faithfulness of the circuit is compared with random circuits of
    the same size. Tasks: `induction`, `ioi` (indirect object identification), `greater-than`, or a .jsonl or .csv file
    with the columns clean, corrupt, correct and wrong; another --seed than 0 takes its lines in a random order.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "find")
    makes: ClassVar[str] = "edge_circuit"

    model: ModelArgument
    task: TaskName = "ioi"
    """Name of a task, or a file of prompts."""
    prompts: int = 32
    """Prompt pairs on which edges are scored."""
    held_out: int | None = None
    """Further prompt pairs to evaluate the circuit on, none of them among --prompts; 0: the same pairs. Default: the
    number of --prompts, or the rest of the file."""
    metric: Literal["task", MetricName] = "task"
    """Metric of the answer: the task's own, the distance of the output from the clean one (kl, l2), or another."""
    judged_template: int | None = None
    """Wording of held-out prompts, by its number from 0: ioi and greater-than have three. Default: as --prompts."""
    attacked: bool = False
    """Also attack the circuit, with its own ablation: an adversary chooses the edges, on --prompts further pairs."""
    n_random: int = DRAWS["quick"]
    """Random circuits of the same size (per size, for the curve), as the null."""
    evaluation: Derived[EvaluationConfig] = field(default_factory=EvaluationConfig)

    def default_name(self) -> str:
        return slug(f"{Path(self.task).stem}-{short_name(self.model)}")

    def measure(self, run: AnalysisRun) -> EdgeCircuit:
        from interp.circuits.find import find_circuit

        config = settings_of(self, FindConfig, evaluation=settings_of(self, EvaluationConfig, ablation=None))
        file = run.text(Path(self.task)) if Path(self.task).suffix else None
        model = run.model(self.model)
        task, held_out, further = self._make_tasks(model)
        say_task(task)
        circuit = find_circuit(model, task, config, held_out=held_out, progress=_bars())
        if file is not None:
            circuit = replace(circuit, file=file)
        if further is None or held_out is None:
            return circuit
        return replace(circuit, attacked=self._attack(model, circuit, further, held_out))

    def _attack(self, model: HookedModel, circuit: EdgeCircuit, task: "Task", held_out: "Task") -> UnderAttack:
        """Return the worst case of a circuit, chosen on one task and judged on the other."""
        from interp.circuits.attack import attack_circuit

        ablation = circuit.evaluation.settings.ablation
        config = AttackConfig(
            prompts=max(2, task.n_prompts), ablations=(ablation,), fractions=(0.5,), n_random=max(1, self.n_random),
            batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip
        found = attack_circuit(model, task, held_out, circuit.circuit, config, say=say)
        worst, stands = found.worst, True if found.stands else False if found.breaks else None
        return UnderAttack(left=worst.left, low=worst.low, high=worst.high, null=found.null, stands=stands)

    def _make_tasks(self, model: HookedModel) -> "tuple[Task, Task | None, Task | None]":
        """Return the prompts on which edges are scored, held-out ones, and further ones that choose an attack."""
        from interp.circuits.tasks import open_task

        is_file = bool(Path(self.task).suffix)
        n_held_out = self.prompts if self.held_out is None and not is_file else self.held_out
        n_attack = self.prompts if self.attacked else 0
        n = None if n_held_out is None else self.prompts + n_held_out + n_attack
        n_drawn = n if is_file or not n_held_out or n is None else n + n // 8 + 4  # some may coincide
        all_prompts = _measured(model, self.metric, open_task(model, self.task, n_drawn, seed=self.seed))
        if n_held_out == 0 or (n_held_out is None and all_prompts.n_prompts <= self.prompts):
            if self.attacked or self.judged_template is not None:
                raise ConfigError("--attacked and --judged-template need held-out prompts; lower --prompts")
            return all_prompts, None, None
        task, rest = all_prompts.split(self.prompts)
        n_rest = rest.n_prompts - n_attack
        if n_rest < (n_held_out or 1):
            raise ConfigError(
                f"{n_held_out or 1} held-out prompts were asked for{f', and {n_attack} to attack' * self.attacked}, "
                f"{self.task} has {rest.n_prompts} that differ from the first {self.prompts}; lower --prompts or "
                "--held-out"
            )
        held_out, further = rest.take(range(n_held_out or n_rest)), rest.take(range(n_rest, rest.n_prompts))
        if self.judged_template is not None:  # other prompts in that wording
            held_out = _drawn(
                model, self.task, held_out.n_prompts, self.metric, task, further,
                seed=1000 * self.seed + 1, template=self.judged_template,
            )  # fmt: skip
        return task, held_out, further if self.attacked else None


@dataclass(frozen=True, kw_only=True)
class AttackCircuit(AttackConfig, Threaded, RunsModel, Analysis["WorstCase"]):
    """Attack a circuit: an adversary chooses which other edges are replaced.

    Example: workbench circuit attack ioi-smollm2-135m

    Faithfulness replaces all edges outside a circuit. Some of them help the answer, others hurt it, and both may
    cancel. The adversary replaces helpers alone, then follows a gradient. Other prompts judge what it chose. Nulls: as
    many random edges replaced, and random circuits of the same size with their helpers replaced.

    Replaced edges get the values of the circuit's own ablation, then those of --ablations; the worst counts. Each
    wording of ioi and greater-than judges the first, too. The attack also says how many edges a circuit needs where
    helpers are replaced. `--grow 12` searches a circuit that stands: edges that the adversary replaces are added until
    it fails, in 12 rounds at most. On SmolLM2 the attack takes some minutes for each ablation on two cores; the price
    is said first.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "attack")
    makes: ClassVar[str] = "worst_case"

    circuit: Annotated[str, Argument("CIRCUIT")]
    """Name of a circuit that `circuit find` made."""
    task: TaskName | None = None
    """File of prompts; needed where the circuit's own file was too large to be kept. Default: the circuit's task."""

    def default_name(self) -> str:
        return slug(self.circuit)

    def measure(self, run: AnalysisRun) -> WorstCase:
        from interp.circuits.attack import attack_circuit

        circuit = run.open(EdgeCircuit, self.circuit)
        model = run.model(circuit.settings.model)
        task, held_out = _other_prompts(model, circuit, self.task, self.prompts, self.seed)
        ablation = circuit.evaluation.settings.ablation
        others = (name for name in self.ablations if name != ablation)
        config = settings_of(self, AttackConfig, ablations=(ablation, *others))
        with run.progress("attack", "parts") as progress:
            return attack_circuit(
                model,
                task,
                held_out,
                circuit.circuit,
                config,
                name=circuit.name,
                wordings=_wordings(model, circuit, self.prompts, self.seed, task, held_out),
                say=say,
                progress=progress,
            )


def _measured(model: HookedModel, metric: str, prompts: "Task") -> "Task":
    """Return prompts in a metric by its name, `task` for their own."""
    from interp.patching.metrics import metric_by_name

    if metric in ("task", METRIC_OF[prompts.metric.name]):
        return prompts
    return prompts.measured_by(model, metric_by_name(metric, prompts.metric))


def _drawn(
    model: HookedModel, task: str | OwnText, n: int, metric: str, *without: "Task",
    seed: int, template: int | None = None,
) -> "Task":  # fmt: skip
    """Return at most `n` prompts of a task in a metric, none of them among those of other tasks."""
    from interp.circuits.tasks import open_task

    count = n + n // 4 + 4 if isinstance(task, str) and not Path(task).suffix else None  # some may coincide
    drawn = _measured(model, metric, open_task(model, task, count, seed=seed, template=template)).other_than(*without)
    return drawn.take(range(min(n, drawn.n_prompts)))


def _wordings(model: HookedModel, circuit: EdgeCircuit, n: int, seed: int, *others: "Task") -> "dict[str, Task]":
    """Return `n` prompts in each wording of a circuit's task that the model does, none of them among `others`."""
    from interp.circuits.tasks import N_TEMPLATES

    of, found = circuit.settings.task, {}
    draw = partial(_drawn, model, of.name, n, METRIC_OF[of.metric], *others, seed=1000 * seed + 999)
    for template in () if of.origin.get("file") else range(N_TEMPLATES.get(of.name, 0)):
        try:
            found[f"template {template}"] = draw(template=template)
        except NoGapError:
            say(f"template {template} is left out: the model does not do {of.name} in this wording")
    return found


def _other_prompts(
    model: HookedModel, circuit: EdgeCircuit, given: str | None, n: int, seed: int
) -> "tuple[Task, Task]":
    """Return `n` prompts of a circuit's task and as many held-out ones, none of them among those that scored edges."""
    from interp.circuits.tasks import open_task

    of, name, metric = circuit.settings.task, circuit.settings.task.name, METRIC_OF[circuit.settings.task.metric]
    source, is_file = given or name, bool(of.origin.get("file") or Path(given or "").suffix)
    if is_file and given is None:
        if circuit.file is None or circuit.file.text is None:
            raise ConfigError(f"the prompts of {circuit.name} came from {of.origin['file']}; give it as --task")
        source = circuit.file

    drawn, n_scored = of.origin.get("seed", 0 if is_file else seed), of.n_prompts
    count = n_scored + 2 * n + n // 4 + 4  # some may coincide
    prompts = _measured(model, metric, open_task(model, source, count, seed=int(drawn or 0)))
    task, rest = prompts.split(n_scored)[1].split(n)
    if rest.n_prompts < n:
        raise ConfigError(
            f"{2 * n} prompts are needed that did not score edges of {circuit.name}, {n} to choose and {n} "
            f"to judge; {given or name} has {task.n_prompts + rest.n_prompts}: ask for fewer"
        )
    return task, rest.take(range(n))


def _bars() -> Callable[[str], Progress]:
    """Return a callback that prints a line when a step is done."""

    def start(name: str) -> Progress:
        def report(done: int, total: int, info: dict) -> None:
            if total and done == total:
                say(f"  {name}: {total:,} done")

        return reported(name, report)

    return start


@dataclass(frozen=True, kw_only=True)
class Induction(InductionConfig, Threaded, RunsModel, Analysis["InductionCircuit"]):
    """Find induction heads and the heads that they read, and test each edge.

    Scores are fractions of attention (0 to 1) on repeated random tokens, losses are in nats. The artefact states the
    rule of the verdict and the evidence for and against every head.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "induction")
    makes: ClassVar[str] = "induction_circuit"

    model: ModelArgument

    def default_name(self) -> str:
        return f"induction-{slug(short_name(self.model))}"

    def measure(self, run: AnalysisRun) -> "InductionCircuit":
        from interp.circuits.induction import find_induction_circuit

        model = run.model(self.model)
        run.seed = self.seeds[0]
        with run.progress("induction circuit", "%") as progress:
            return find_induction_circuit(model, settings_of(self, InductionConfig), progress=progress, name=self.model)


@dataclass(frozen=True, kw_only=True)
class Show(InWorkspace):
    """Print a circuit or an attribution graph, or write a graph for other programs.

    Example: workbench circuit show capital-of-France --export capital.json --features

    `--export FILE.json` writes the JSON of Neuronpedia and of circuit-tracer's viewer, with pins, groups and names that
    were set on the page; `workbench import FILE.json` reads it back. `--export FILE.html` writes a page for people,
    with the graph's largest nodes, tests and hashes, which opens without a server.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "show")

    circuit: Annotated[str, Argument("CIRCUIT")]
    """Name of a circuit or graph in the workspace, or a path to a circuit."""
    export: Annotated[str, Means("FILE")] | None = None
    """Write a graph to this file, which ends in .json or .html."""
    features: bool = False
    """Write the latents of an exported graph too, where a features table describes them."""

    def run(self) -> None:
        path, artefact = Path(self.circuit), None
        if not path.exists():
            workspace = Workspace(self.workspace)
            manifest = workspace.find(self.circuit, *kinds_of("circuit"), KIND)
            if manifest.kind == KIND:
                return self._graph(workspace, manifest.name)
            artefact = workspace.value(manifest)
            assert isinstance(artefact, FoundCircuit)
        if self.export is not None:
            raise ConfigError(
                "--export writes attribution graphs; a circuit is JSON already: circuit.json in its folder"
            )
        circuit = Circuit.load(path) if artefact is None else artefact.circuit
        say(circuit.headline())
        for line in () if artefact is None else (artefact.verdict.line, *artefact.held_fixed, *self._tested(artefact)):
            say(line)
        for node in circuit.nodes:
            shown = [node.role, None if node.role or node.effect is None else f"{node.effect:+.3f}"]
            say(f"  {node.name:8} {'  '.join(str(part) for part in shown if part)}".rstrip())
        for edge in circuit.edges:
            say(f"  {edge_text(edge)}" + ("" if edge.score is None else f"  {edge.score:+.3f}"))
        return None

    def _tested(self, artefact: FoundCircuit) -> list[str]:
        """Return mean and worst case of a circuit, and a line for each attack in the workspace."""
        attacks = attacks_of(Workspace(self.workspace), artefact.key)
        lines = [f"attacked: {attack.headline()}" for attack in attacks]
        return [*filter(None, [mean_and_worst(artefact, attacks)]), *lines]

    def _graph(self, workspace: Workspace, name: str) -> None:
        """Print a graph, or write it."""
        from dashboard.graph.exchange import write_export
        from dashboard.graph.named import named_lines
        from interp.tracing.returning import returning

        graph = workspace.open(AttributionGraph, name)
        if self.export is None:
            returns = returning(graph, workspace.values(AttributionGraph)).headline()
            return say("\n".join([str(graph), *graph.details(), *named_lines(workspace, graph), returns]))
        for line in write_export(workspace, name, Path(self.export), features=self.features):
            say(line)
        return None
