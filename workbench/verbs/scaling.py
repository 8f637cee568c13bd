"""`workbench scaling`: how the error of dictionaries falls with their size and sparsity, with intervals."""

from dataclasses import asdict, dataclass

import tyro

from workbench.options import Options, slug
from workbench.terminal import say, wrote


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
        from saes.scaling import fit_scaling
        from saes.scaling_runs import runs_of

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
