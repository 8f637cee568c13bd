"""`workbench circuit find MODEL --task ioi`: the circuit of a task, scored, cut and judged."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from interp.errors import ConfigError
from workbench.options import Options, slug
from workbench.terminal import say, wrote

if TYPE_CHECKING:
    from interp.circuits.find import Found
    from interp.circuits.task import Task


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
        from interp.circuits.discovered_table import save_discovered
        from interp.circuits.find import find_circuit
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
        from interp.circuits.task_files import task_from_file
        from interp.circuits.tasks import make_task

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
