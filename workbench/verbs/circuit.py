"""`workbench circuit ...`: circuits, found and shown. Each subcommand is a dataclass in a file of its own.

`workbench circuit features SAE SAE --task ioi`: the circuit of a task in the features of several SAEs.

`workbench circuit find MODEL --task ioi`: the circuit of a task, scored, cut and judged.

`workbench circuit induction MODEL`: the induction circuit, with its evidence, or why there is none.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from interp.errors import ConfigError
from workbench.terminal import Options, bar, say, slug, wrote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interp.circuits.find import Found
    from interp.circuits.task import Task
    from saes.circuits.find import FeatureCircuitConfig, FoundFeatures


@dataclass(frozen=True, kw_only=True)
class FeatureCircuit(Options):
    """Find which features of one SAE act on which features of a later one in a task, and judge that by ablation.

    Example: workbench circuit features sae-9 sae-15 --task ioi

    Effects are integrated gradients from the corrupted to the clean prompts; what an SAE does not reconstruct is a node
    too. The strongest edges are patched one by one, and the nodes compared with random features and untrained SAEs.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "features")

    saes: tyro.conf.Positional[tuple[str, ...]]
    """Names of SAEs or transcoders in the workspace, all of one model, at different places."""
    task: str = "ioi"
    """induction, ioi, greater-than, or a .jsonl or .csv file with the columns clean, corrupt, correct and wrong."""
    prompts: int = 16
    """Prompt pairs."""
    features: int = 20
    """Features of each SAE that become nodes."""
    edges: int = 60
    """Edges that are kept."""
    steps: int = 8
    """Gradients per prompt."""
    ablation: Literal["resample", "mean", "zero"] = "resample"
    """What features outside the circuit carry."""
    verify: int = 20
    """Edges patched one by one, and as many random ones."""
    random_circuits: int = 20
    """Random circuits of the same size."""
    nulls: bool = True
    """Judge untrained SAEs and an untrained model too."""
    batch_size: int = 8
    include_bos: bool = False
    """Take the BOS position apart too. SAEs do not see it in training."""
    model: str | None = None
    """Default: the one that the SAEs belong to."""
    allow_other_weights: bool = False
    """Apply SAEs to a model whose weights differ from those they were trained on."""

    def run(self) -> None:
        from saes.circuits.find import find_feature_circuit, save_feature_circuit
        from workbench.opening import feature_table, open_saes, parents_of

        workspace = self.open_workspace()
        self.use_threads()
        kind = Path(self.task).stem if Path(self.task).suffix else self.task
        folder = workspace.path("circuit", self.name or slug(f"{kind}-features-{'-'.join(self.saes)}"))
        check_free(folder, self.overwrite)
        model, saes = open_saes(workspace, self.saes, model=self.model, allow_other_weights=self.allow_other_weights)
        task = self._make_task(model)
        say(
            f"{task.name}: {task.metric.name} {float(task.clean_value.mean()):.3g} on clean prompts, "
            f"{float(task.corrupt_value.mean()):.3g} on corrupted ones"
        )
        tables = [feature_table(workspace, name) for name in self.saes]
        labels = [
            [str(table.get(feature, {}).get("label", "")) for feature in range(sae.d_sae)]
            for sae, table in zip(saes, tables, strict=True)
        ]
        labelled = labels if any(tables) else None
        with step_bars() as progress:
            found = find_feature_circuit(model, saes, task, self._config(model), labels=labelled, progress=progress)
        manifest = save_feature_circuit(
            folder,
            found,
            task=task,
            parents=parents_of(workspace, self.saes),
            seed=self.seed,
            overwrite=self.overwrite,
        )
        wrote(folder, f"{manifest.summary['n_features']} features, {manifest.summary['n_edges']} edges")
        for line in describe_features(found):
            say(f"      {line}")

    def _make_task(self, model: Any) -> "Task":
        from interp.circuits.tasks import make_task, task_from_file

        if Path(self.task).suffix:
            return task_from_file(model, self.task, n_prompts=self.prompts)
        return make_task(self.task, model, n_prompts=self.prompts, seed=self.seed)

    def _config(self, model: Any) -> "FeatureCircuitConfig":
        from saes.circuits.attribution import AttributionConfig
        from saes.circuits.find import FeatureCircuitConfig
        from workbench.opening import unseen_positions

        first = unseen_positions(model, include_bos=self.include_bos)
        return FeatureCircuitConfig(
            attribution=AttributionConfig(steps=self.steps, batch_size=self.batch_size, first=first),
            n_features=self.features,
            n_edges=self.edges,
            ablation=self.ablation,
            verify=self.verify,
            n_random=self.random_circuits,
            nulls=self.nulls,
            seed=self.seed,
        )


def check_free(folder: Path, overwrite: bool) -> None:
    """Raises `ConfigError` before the long work, not after it, when the folder is there."""
    from interp.errors import ConfigError

    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")


@contextlib.contextmanager
def step_bars() -> "Iterator[Callable[[str], Any]]":
    """A bar for each step of the work: the next one ends the one before."""
    with contextlib.ExitStack() as stack:

        def start(name: str) -> Any:
            stack.close()
            return stack.enter_context(bar(name))

        yield start


def describe_features(found: "FoundFeatures") -> list[str]:
    """The verdict, how far the edges can be trusted, the strongest of them, and the error's share."""
    circuit, edges = found.circuit, found.circuit.evaluation["edges"]
    lines = [str(circuit.verdict["reason"])]
    if edges.get("spearman") is not None:
        lines.append(
            f"best {edges['n']} edges patched: rank agreement {edges['spearman']:.2f} ({edges['low']:.2f} to "
            f"{edges['high']:.2f}), mean size {edges['mean_abs_exact']:.3g}, of random edges "
            f"{edges['random_mean_abs_exact']:.3g}"
        )
    effects = {node.name: node.evidence["effect"] for node in circuit.nodes if "effect" in node.evidence}
    strongest = sorted(effects, key=lambda name: -abs(effects[name]))[:8]
    lines.append("strongest nodes: " + ", ".join(f"{name} {effects[name]:+.3f}" for name in strongest))
    best = sorted(circuit.edges, key=lambda edge: -abs(edge.score or 0))[:8]
    lines.append("strongest edges: " + ", ".join(f"{e.source} -> {e.target} {e.score:+.3f}" for e in best))
    untrained = circuit.evaluation.get("untrained_saes")
    if untrained:
        lines.append(
            f"untrained SAEs: {untrained['faithfulness']:.2f} with their errors, {untrained['without_errors']:.2f} "
            f"without, all of their features {untrained['all_features']:.2f}"
        )
    return lines


@dataclass(frozen=True, kw_only=True)
class Find(Options):
    """Find the circuit of a task: score every edge, cut, and judge the circuit against random ones.

    Tasks: `induction`, `ioi` (indirect object), `greater-than`, or a .jsonl or .csv file with the columns clean,
    corrupt, correct and wrong.
    """

    model: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    task: str = "ioi"
    """A task's name, or a file of prompts."""
    prompts: int = 32
    """Prompt pairs that find the circuit."""
    held_out: int | None = None
    """Further pairs, none of them among the first, that judge it; 0: the same pairs do. Default: as many again, or what
    else the file holds."""
    metric: Literal["task", "logit-diff", "prob-diff", "log-prob", "kl", "l2"] = "task"
    """What is measured at the answer: the task's own choice, the distance of the output from the clean one (kl, l2), or
    another measure of the task's answers."""
    method: Literal["eap-ig", "eap", "exact", "acdc"] = "eap-ig"
    """How edges are scored; exact and acdc run the model once per edge."""
    level: Literal["edge", "node"] = "edge"
    """Rank edges, or whole heads and MLPs; then the circuit is all edges among the best of them."""
    steps: int = 5
    """Gradients per prompt for eap-ig."""
    ablation: Literal["resample", "mean", "zero"] = "resample"
    """What edges outside the circuit carry."""
    edges: int | None = None
    """Edges (or nodes, at that level) of the circuit. Default: the smallest size on the curve that is 80 % faithful."""
    random_circuits: int = 5
    """Random circuits per size."""
    verify: int = 20
    """Edges patched one by one to check the scores."""
    batch_size: int = 16
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def run(self) -> None:
        from interp.circuits.find import find_circuit, save_discovered
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        self.use_threads()
        kind = Path(self.task).stem if Path(self.task).suffix else self.task
        folder = workspace.path("circuit", self.name or slug(f"{kind}-{self.model}"))
        model = load_model(self.model, device=self.device)
        task, held_out = self._make_tasks(model)
        say(
            f"{task.name}: {task.metric.name} {float(task.clean_value.mean()):.3g} on clean prompts, "
            f"{float(task.corrupt_value.mean()):.3g} on corrupted ones"
        )
        found = find_circuit(model, task, self._config(), held_out=held_out, progress=_bars())
        manifest = save_discovered(
            folder,
            model=model,
            task=task,
            circuit=found.circuit,
            scores=found.scores,
            nodes=found.nodes,
            curve=found.curve,
            verified=found.verified,
            seed=self.seed,
            overwrite=self.overwrite,
        )
        wrote(folder, f"{manifest.summary['n_edges']} edges among {manifest.summary['n_heads']} heads")
        for line in describe_found(found):
            say(f"      {line}")

    def _make_tasks(self, model: Any) -> "tuple[Task, Task | None]":
        """The prompts that find the circuit, and those that judge it."""
        from interp.circuits.metrics import metric_by_name

        is_file = bool(Path(self.task).suffix)
        wanted = self.prompts if self.held_out is None and not is_file else self.held_out
        n = None if wanted is None else self.prompts + wanted
        whole = self._make_task(model, n if is_file or not wanted or n is None else n + n // 8 + 4)  # some may coincide
        if self.metric != "task":
            whole = whole.measured_by(model, metric_by_name(self.metric, whole.metric))
        if wanted == 0 or (wanted is None and whole.n_prompts <= self.prompts):
            return whole, None
        task, rest = whole.split(self.prompts)
        if wanted is not None and rest.n_prompts < wanted:
            raise ConfigError(
                f"{self.task} leaves {rest.n_prompts} prompts that differ from the first {self.prompts}, {wanted} were "
                "asked for; lower --prompts or --held-out"
            )
        return task, rest.take(range(wanted or rest.n_prompts))

    def _make_task(self, model: Any, n_prompts: int | None) -> "Task":
        from interp.circuits.tasks import make_task, task_from_file

        if Path(self.task).suffix:
            return task_from_file(model, self.task, n_prompts=n_prompts)
        return make_task(self.task, model, n_prompts=n_prompts or self.prompts, seed=self.seed)

    def _config(self) -> Any:
        from interp.circuits.evaluation import EvaluationConfig
        from interp.circuits.find import FindConfig

        judged = EvaluationConfig(n_random=self.random_circuits, batch_size=self.batch_size, seed=self.seed)
        return FindConfig(
            method=self.method,
            steps=self.steps,
            ablation=self.ablation,
            level=self.level,
            n_edges=self.edges,
            verify=self.verify,
            evaluation=judged,
        )


def describe_found(found: "Found") -> list[str]:
    """The verdict, and the strongest edges."""
    from interp.circuits.circuit import edge_text

    circuit = found.circuit
    lines = [str(circuit.verdict["reason"])]
    level = found.scores.level
    if found.verified is not None:
        checked = found.verified
        lines.append(f"best {len(checked.indices)} {level}s patched: rank agreement {checked.spearman:.2f}")
    scored = {edge_text(edge): edge.score for edge in circuit.edges}
    if level == "node":
        scored = {node.name: node.evidence.get("effect") for node in circuit.nodes}
    strongest = sorted(((name, score) for name, score in scored.items() if score is not None), key=lambda s: -abs(s[1]))
    lines.append("strongest: " + ", ".join(f"{name} {score:+.2f}" for name, score in strongest[:8]))
    return lines


def _bars() -> Any:
    """One bar per step."""

    def start(name: str) -> Any:
        def report(done: int, total: int, info: dict) -> None:
            if total and done == total:
                say(f"  {name}: {total:,} done")

        return report

    return start


@dataclass(frozen=True, kw_only=True)
class Induction(Options):
    """Look for induction heads and the heads that they read, and test every link.

    Scores are shares of attention (0 to 1) on repeated random tokens, losses are nats. The rule of the verdict is in
    circuit.json, beside the evidence for and against every head.
    """

    words: ClassVar[tuple[str, ...]] = ("circuit", "induction")

    model: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    prompts: int = 8
    """Prompts per seed."""
    n_seeds: int = 3
    """Independent draws of prompts: the first chooses senders, the others test them."""
    context_length: int | None = None
    """Tokens per prompt, BOS included. Default: 65, or the model's context when that is shorter."""
    candidates: int = 24
    """At most so many heads are tested for a sender, strongest induction scores first."""
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def run(self) -> None:
        from interp.circuits.induction import gather_induction_evidence
        from interp.circuits.induction_measure import InductionConfig
        from interp.circuits.induction_table import describe_induction, save_induction
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        self.use_threads()
        config = InductionConfig(
            seeds=tuple(range(self.seed, self.seed + self.n_seeds)),
            prompts_per_seed=self.prompts,
            context_length=self.context_length,
            max_candidates=self.candidates,
        )
        folder = workspace.path("circuit", self.name or f"induction-{slug(self.model)}")
        model = load_model(self.model, device=self.device)
        with bar("induction circuit", "%") as progress:
            evidence = gather_induction_evidence(model, config, progress=progress, name=self.model)
        manifest = save_induction(
            evidence,
            folder,
            model_name=self.model,
            weight_hash=evidence.circuit.weight_hash,
            seed=self.seed,
            overwrite=self.overwrite,
        )
        wrote(folder, f"{manifest.summary['n_nodes']} nodes, {manifest.summary['n_edges']} edges")
        for line in describe_induction(evidence):
            say(f"      {line}")


@dataclass(frozen=True, kw_only=True)
class Show(Options):
    """Print a circuit that was found: its verdict, nodes and edges."""

    circuit: tyro.conf.Positional[str]
    """Name of a circuit in the workspace, or a path to one."""

    def run(self) -> None:
        from pathlib import Path

        from interp.circuits.circuit import Circuit as Value
        from interp.circuits.circuit import edge_text
        from interp.workspace import Workspace

        path = Path(self.circuit)
        found = Value.load(path if path.exists() else Workspace(self.workspace).path("circuit", self.circuit))
        say(f"{found.model}: {len(found.nodes)} nodes, {len(found.edges)} edges")
        if found.verdict:
            say(f"{'found' if found.verdict.get('found') else 'not found'}: {found.verdict.get('reason', '')}")
        for node in found.nodes:
            label = node.evidence.get("label")
            effect = node.evidence.get("effect") if node.role in (None, "error") else None
            shown = [node.role, None if effect is None else f"{effect:+.3f}", label]
            say(f"  {node.name:8} {'  '.join(str(part) for part in shown if part)}".rstrip())
        for edge in found.edges:
            say(f"  {edge_text(edge)}" + ("" if edge.score is None else f"  {edge.score:+.3f}"))


Command = (
    Annotated[Induction, tyro.conf.subcommand("induction")]
    | Annotated[Find, tyro.conf.subcommand("find")]
    | Annotated[FeatureCircuit, tyro.conf.subcommand("features")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


@dataclass(frozen=True)
class Circuit:
    """Find circuits, with the evidence for and against them."""

    command: Command

    def run(self) -> Any:
        """Run the subcommand."""
        return self.command.run()
