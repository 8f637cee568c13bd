"""`workbench circuit features SAE SAE --task ioi`: the circuit of a task in the features of several SAEs."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from workbench.options import Options, slug
from workbench.terminal import bar, say, wrote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interp.circuits.task import Task
    from saes.feature_circuits.find import FeatureCircuitConfig, FoundFeatures


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
        from saes.feature_circuits.find import find_feature_circuit
        from saes.feature_circuits.table import save_feature_circuit
        from workbench.sae_model import feature_table, open_saes, parents_of

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
        from interp.circuits.task_files import task_from_file
        from interp.circuits.tasks import make_task

        if Path(self.task).suffix:
            return task_from_file(model, self.task, n_prompts=self.prompts)
        return make_task(self.task, model, n_prompts=self.prompts, seed=self.seed)

    def _config(self, model: Any) -> "FeatureCircuitConfig":
        from saes.attribution import AttributionConfig
        from saes.feature_circuits.find import FeatureCircuitConfig
        from workbench.sae_model import unseen_positions

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
