"""`workbench compare SAE SAE ...`: dictionaries side by side at one sparsity, with baselines that learned nothing.

`workbench scaling`: how the error of dictionaries falls with their size and sparsity, with intervals.
"""

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from interp.artifacts import hash_json
from interp.errors import ConfigError, WorkbenchError
from workbench.terminal import Options, bar, say, slug, wrote
from workbench.verbs.evaluate import as_dict, probe_settings, run_probes

if TYPE_CHECKING:
    from interp.workspace import Workspace
    from saes.kinds.base import SAE


@dataclass(frozen=True, kw_only=True)
class Compare(Options):
    """Compare SAEs of one hook point: each at its own L0, and all cut to the smallest among them.

    Example: workbench compare demo demo-topk

    Principal components, the hook point's own coordinates and an untrained SAE stand beside them. A lower FVU at
    another L0 says little; nor does one at the same L0 prove better features. For a recording of planted features the
    table says how many of them were found.
    """

    saes: tyro.conf.Positional[tuple[str, ...]]
    """Names of SAEs in the workspace."""
    recording: str | None = None
    """Default: the one that the first was trained on."""
    l0: float | None = None
    """The common sparsity. Default: the smallest L0 among the SAEs."""
    baselines: bool = True
    """Put principal components, coordinates and an untrained SAE into the table."""
    contexts: int = 0
    """Held-out contexts for the loss inside the model; 0 leaves that part out."""
    match: bool = False
    """Say how many features every two of the SAEs share (minutes for dictionaries of 16,384)."""
    probing: bool = False
    """Add columns of sparse probing: how well one, two and five features tell what a token is, and by how much better
    than random labels (see `workbench evaluate --probing`)."""
    labels: Path | None = None
    """Questions of yours for the probes: a .csv, .jsonl or .parquet with `label` and one of `document`, `token`."""
    probe_seeds: int = 3
    """How often the probes are repeated."""
    allow_other_weights: bool = False
    """Compare SAEs trained on other weights than the recording's."""

    def run(self) -> None:
        from interp.artifacts import Draft, write_json
        from saes.evaluation.compare import compare
        from saes.evaluation.toy_recovery import read_synthetic
        from workbench.opening import open_dictionary, open_recording_model

        workspace = self.open_workspace()
        threads = self.use_threads()
        if not self.saes:
            raise ConfigError("name the SAEs to compare: workbench compare SAE SAE")
        first = open_dictionary(workspace, self.saes[0], self.recording)
        recording = first.recording
        chosen = [open_dictionary(workspace, name, recording.folder.name) for name in self.saes]
        if any(each.is_neurons for each in chosen):
            raise ConfigError("name SAEs only: at mlp.hook_post the table's `coordinates` are the neurons")
        fractions = [workspace.manifest("sae", each.name).config.get("heldout_fraction", 0.1) for each in chosen]
        saes = {each.name: each.load_sae(allow_other_weights=self.allow_other_weights) for each in chosen}
        parents = {recording.key: recording.manifest.content_hash}
        for each in chosen:
            parents |= each.parents
        config = {
            "saes": list(saes),
            "recording": recording.folder.name,
            "l0": self.l0,
            "baselines": self.baselines,
            "contexts": self.contexts,
            **probe_settings(recording, probing=self.probing, labels=self.labels, probe_seeds=self.probe_seeds),
        }
        folder = workspace.path("evaluation", self.name or slug("compare-" + "-".join(saes)))
        draft = Draft.open(folder, kind="evaluation", config=config, seed=self.seed, overwrite=self.overwrite)
        planted = "synthetic" in recording.manifest.config
        held = min(fractions)  # held-out splits are nested: documents that none of them was trained on
        tokens = documents = None
        if self.contexts and not planted:
            tokens, documents = recording.contexts_and_documents(
                split="heldout", limit=self.contexts, heldout_fraction=held
            )
        probing = None
        try:
            if self.probing:
                seeds = tuple(range(self.seed, self.seed + self.probe_seeds))
                probing = run_probes(saes, recording, self.labels, held, seeds)
            with bar("comparing", "dictionaries") as progress:
                found = compare(
                    saes,
                    recording,
                    l0=self.l0,
                    baselines=self.baselines,
                    model=open_recording_model(recording) if tokens is not None and len(tokens) else None,
                    tokens=tokens,
                    documents=documents,
                    probing=probing.rows() if probing else None,
                    groups=self.groups(workspace),
                    truth=read_synthetic(recording) if planted else None,
                    heldout_fraction=held,
                    seed=self.seed,
                    progress=progress,
                )
        except WorkbenchError:
            draft.discard()  # nothing in it to resume
            raise
        shared = _shared(saes, self.seed) if self.match else {}
        reversals = [str(each) for each in found.reversals]
        whole = {**asdict(found), "reversals": reversals, "shared": shared, "probing": probing and as_dict(probing)}
        write_json(draft.path / "comparison.json", whole)
        summary = {"l0": found.l0, **{f"fvu_{row.name}": row.matched.fvu for row in found.rows}}
        draft.finish(summary=summary, parents=parents, threads=threads)
        say("\n".join([found.table(), *(f"{pair}: {each['finding']}" for pair, each in shared.items())]))
        if probing:
            say(f"\nprobing, balanced accuracy on {probing.n_documents} held-out documents:\n{probing.table()}")
        best = min(found.rows, key=lambda row: row.matched.fvu)
        wrote(folder, f"at L0 {found.l0:.1f} {best.name} reconstructs best (FVU {best.matched.fvu:.4f})")

    def groups(self, workspace: "Workspace") -> dict[str, str]:
        """SAE -> the first SAE with the same settings but the seed."""
        firsts: dict[str, str] = {}
        found = {}
        for name in self.saes:
            config = workspace.manifest("sae", name).config
            if config.get("kind") != "imported":
                found[name] = firsts.setdefault(hash_json({**config, "seed": None}), name)
        return found


def _shared(saes: dict[str, "SAE"], seed: int) -> dict[str, dict[str, Any]]:
    """`"one, two"` -> what the two share, in numbers and in words."""
    from saes.evaluation.matching import match_features

    found = {}
    for one, two in combinations(saes, 2):
        each = match_features(saes[one], saes[two], seed=seed)
        numbers = {
            f"{name}{end}": getattr(each, name + end) for name in ("shared", "mean_cosine") for end in ("", "_random")
        }
        found[f"{one}, {two}"] = {**numbers, "finding": str(each)}
    return found


@dataclass(frozen=True, kw_only=True)
class Scaling(Options):
    """Fit the scaling law L(n, k) to a sweep: at least three sizes and two values of k, trained alike.

    Example: workbench train demo --kind topk --d-sae 512 1024 2048 4096 --k 16 32 64 --name sweep
             workbench scaling

    The loss is the FVU on held-out documents. Says the exponent of the size for every k, whether an error remains that
    no size removes, and how well the smaller sizes predict the largest. The SAE page draws it.
    """

    saes: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of SAEs in the workspace. Default: all finished ones of a kind that were trained alike."""
    recording: str | None = None
    """Only those trained on this recording."""
    hook_point: str | None = None
    """Only those of this hook point."""
    kind: str = "topk"
    """Only those of this kind."""
    tokens: int | None = None
    """Only those that saw so many tokens (their --tokens)."""
    n_bootstrap: int = 200
    """Refits behind the intervals."""

    def run(self) -> None:
        import numpy as np

        from interp.artifacts import Draft, write_json
        from interp.errors import ConfigError
        from saes.evaluation.scaling import fit_scaling
        from saes.evaluation.scaling_runs import runs_of

        workspace = self.open_workspace()
        if self.n_bootstrap < 20:
            raise ConfigError(f"n_bootstrap must be at least 20, got {self.n_bootstrap}: fewer refits give no interval")
        runs = runs_of(
            workspace,
            self.saes,
            recording=self.recording,
            hook_point=self.hook_point,
            kind=self.kind,
            tokens=self.tokens,
        )
        fit = fit_scaling(runs, n_bootstrap=self.n_bootstrap, generator=np.random.default_rng(self.seed))
        manifests = [workspace.manifest("sae", run.name) for run in runs]
        shared = manifests[0].config
        config = {
            "saes": [run.name for run in runs],
            **{key: shared.get(key) for key in ("recording", "hook_point", "kind", "tokens")},
            "n_bootstrap": self.n_bootstrap,
        }
        name = self.name or slug(f"scaling-{shared['recording']}-{shared['kind']}")
        folder = workspace.path("evaluation", name)
        draft = Draft.open(folder, kind="evaluation", config=config, seed=self.seed, overwrite=self.overwrite)
        write_json(draft.path / "scaling.json", {**asdict(fit), "findings": fit.findings})
        summary = {f"exponent_k{each.k}": each.value for each in fit.exponents}
        errors = [abs(each.error) for each in fit.left_out]
        summary |= {"largest_predicted_within": max(errors)} if errors else {}
        draft.finish(summary=summary, parents={f"saes/{m.name}": m.content_hash for m in manifests})
        say(f"{len(runs)} runs of {shared['kind']}, {shared['tokens']:,} tokens each, at {shared['hook_point']}")
        wrote(folder, "\n      ".join(fit.findings))
