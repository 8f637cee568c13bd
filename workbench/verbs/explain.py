"""`workbench explain FEATURES`: labels by a language model, and how far they can be trusted."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.errors import ConfigError
from saes.explain.config import ExplainConfig
from workbench.terminal import Options, bar, say, slug, wrote

if TYPE_CHECKING:
    from pathlib import Path

    from interp.workspace import Workspace
    from saes.explain.asking import Plan
    from saes.explain.protocol import Provider
    from saes.explain.run import Explanation


@dataclass(frozen=True, kw_only=True)
class Explain(Options):
    """Ask a language model what features fire on, and score its answers on text that it was not shown.

    Example: workbench explain demo --provider http://localhost:8000/v1 --model my-model --top 50

    On this machine: workbench explain demo --provider local:smollm2-135m --features 12 57

    An endpoint gets excerpts of the recorded text. Requests and tokens are counted first, and nothing is sent before
    you agree. Interrupted? The same command goes on, and nothing that was answered is sent again.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FEATURES")]
    """Name of a features artefact in the workspace."""
    provider: str
    """The base URL of an OpenAI-compatible endpoint, or local:MODEL."""
    model: str | None = None
    """The model's name at the endpoint."""
    features: tuple[int, ...] = ()
    """Explain these."""
    top: int | None = None
    """Explain so many: the most frequent that are not dense."""
    sample: int | None = None
    """Explain so many, drawn at random: only their scores speak for the whole dictionary."""
    explain: ExplainConfig = field(default_factory=ExplainConfig)
    into: str | None = None
    """Also write a features artefact of this name that carries the new labels."""
    dry_run: bool = False
    """Count requests and tokens, and stop."""
    yes: bool = False
    """Send without asking."""
    max_requests: int = 1000
    """Send no more than this, attempts that fail included."""
    price_in: float | None = None
    """Money per million tokens in."""
    price_out: float | None = None
    """Money per million tokens out."""
    key_variable: str = "WORKBENCH_API_KEY"
    """The environment variable that holds the key; it is read there and written nowhere."""
    concurrency: int = 4
    """Requests at a time."""
    timeout: float = 60.0
    """Seconds to wait for a reply."""
    retries: int = 5
    """Further attempts when the endpoint is busy or fails."""
    allow_other_weights: bool = False
    """Use an SAE on a recording of other weights than it was trained on."""

    def run(self) -> None:
        from saes.explain.providers import open_provider
        from saes.explain.run import explain

        workspace = self.open_workspace()
        self.use_threads()
        manifest = workspace.manifest("features", self.source)
        provider = open_provider(
            self.provider,
            self.model,
            key_variable=self.key_variable,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
        )
        folder = workspace.path("labels", self.name or slug(f"{self.source}-{provider.model}"))
        target = workspace.path("features", self.into) if self.into else None
        if not self.dry_run:
            for path in (folder, target):
                self._check_free(path)
        run, parents = self._prepare(workspace, provider, folder)
        for feature, why in run.skipped.items():
            say(f"feature {feature} is left out: it {why}")
        plan = run.plan()
        say(describe_plan(plan, provider.where, self.price_in, self.price_out))
        if self.dry_run:
            return
        plan.check(self.max_requests)
        if provider.remote and plan.total and not self.yes:
            ask_first(provider.where)
        about = {
            "features": self.source,
            "features_hash": manifest.content_hash,
            "explained": [case.feature for case in run.cases],
        }
        with bar("explaining", "requests") as progress:
            found = explain(
                run,
                folder,
                about=about,
                parents={f"features/{self.source}": manifest.content_hash, **parents},
                max_requests=self.max_requests,
                overwrite=self.overwrite,
                progress=progress,
            )
        say(describe_scores(found.summary))
        wrote(folder, f"{found.summary['n_labelled']} of {found.summary['n_features']} features labelled")
        if target is not None:
            from saes.explain.run import adopt_labels

            adopt_labels(folder, workspace.path("features", self.source), target, overwrite=self.overwrite)
            wrote(target, f"the features of {self.source} with these labels")

    def _check_free(self, path: "Path | None") -> None:
        """Fail before anything is paid for, not after."""
        if path is not None and path.exists() and not self.overwrite:
            raise ConfigError(f"{path} is already there; choose another name, or --overwrite to replace it")

    def _prepare(
        self, workspace: "Workspace", provider: "Provider", folder: "Path"
    ) -> "tuple[Explanation, dict[str, str]]":
        """The cases and what is known of them; and the parents besides the features."""
        from interp.models.adapter import token_strings
        from saes.explain.cases import Source, build_cases, choose_features
        from saes.explain.run import Explanation, known_replies
        from workbench.opening import NEURONS, open_dictionary, open_recording_model

        config: dict[str, Any] = workspace.manifest("features", self.source).config
        features_folder = workspace.path("features", self.source)
        chosen_features = choose_features(
            features_folder, features=self.features, top=self.top, sample=self.sample, seed=self.seed
        )
        name = str(config["dictionary"])
        chosen = open_dictionary(
            workspace, name if name.startswith(NEURONS) else name.removeprefix("sae:"), config["recording"]
        )
        model = open_recording_model(chosen.recording)
        source = Source(
            features_folder,
            int(config["window"]),
            chosen.load(model, allow_other_weights=self.allow_other_weights),
            chosen.recording,
            config["hook_point"],
            token_strings(model, list(range(model.cfg.d_vocab))),
        )
        cases, skipped = build_cases(source, chosen_features, self.explain, seed=self.seed)
        others = [workspace.path("labels", other) for other in workspace.names("labels")]
        run = Explanation(
            cases=cases,
            skipped=skipped,
            provider=provider,
            config=self.explain,
            seed=self.seed,
            known=known_replies(folder, others),
        )
        return run, {**chosen.parents, chosen.recording.key: chosen.recording.manifest.content_hash}


def describe_plan(plan: "Plan", where: str, price_in: float | None, price_out: float | None) -> str:
    """The plan, where it goes, and the money, when prices are given."""
    line = f"{plan}; to {where}" if plan.total else str(plan)
    if price_in is None and price_out is None:
        return line
    return f"{line}; at most {plan.cost(price_in or 0.0, price_out or 0.0):,.2f} at the prices given"


def describe_scores(summary: dict[str, Any]) -> str:
    """One line per score: the label's, the null's, and what lies between."""
    lines = []
    for name, title in (
        ("detection", "detection"),
        ("detection_hard", "detection, look-alikes"),
        ("fuzzing", "fuzzing"),
    ):
        own, null, gain = (summary[f"{name}{part}"] for part in ("", "_null", "_gain"))
        if own is None:
            continue
        line = f"{title}: {own['mean']:.2f} ({own['low']:.2f} to {own['high']:.2f}, {own['n']} features)"
        if null is not None:
            line += f", with another feature's label {null['mean']:.2f}"
            line += f", gain {gain['mean']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f})"
        lines.append(line)
    if summary["unanswered"]:
        lines.append(f"{summary['unanswered']:.0%} of the judgements could not be read and count as no")
    if summary["cut"]:
        lines.append(f"{summary['cut']:,} of {summary['requests']:,} replies were cut off at --max-tokens; allow more")
    return "\n".join(lines) or "nothing could be scored"


def ask_first(where: str) -> None:
    """Let a person agree. Raises `ConfigError` where nobody can be asked, and when the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigError(f"this sends recorded text to {where}; add --yes to agree, or --dry-run to only count")
    if input("send? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was sent")
