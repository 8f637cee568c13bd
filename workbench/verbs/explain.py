"""`workbench explain FEATURES`: labels of features by a language model, scored on held-out text."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from interp.errors import ConfigError
from interp.options import ArtefactName, FeaturesName, Means, ModelName
from saes.explain.asking import ExplainConfig
from workbench.terminal import RunsModel, Seeded, Threaded, Writes, bar, say, settings_of, slug, wrote

if TYPE_CHECKING:
    from interp.workspace import Workspace
    from saes.explain.asking import Plan, Provider
    from saes.explain.run import Explanation


@dataclass(frozen=True, kw_only=True)
class Explain(ExplainConfig, Writes, Seeded, Threaded, RunsModel):
    """Label features with a language model, and score the labels on held-out text.

    Example: workbench explain demo --provider http://localhost:8000/v1 --model my-model --top 50

    On this machine: workbench explain demo --provider local:smollm2-135m --features 12 57

    Labels of Neuronpedia: workbench explain gpt2-res-jb --neuronpedia explanations.jsonl

    An endpoint receives excerpts of the recorded text. Requests and tokens are counted first, and nothing is sent
    before you agree. An interrupted command continues when it is repeated, and no answered request is sent again.
    """

    source: Annotated[tyro.conf.Positional[FeaturesName], tyro.conf.arg(metavar="FEATURES")]
    """Name of a features artefact in the workspace."""
    provider: Annotated[str, Means("PROVIDER")] | None = None
    """Base URL of an OpenAI-compatible endpoint, or local:MODEL."""
    model: ModelName | None = None
    """Name of the model at the endpoint. With --neuronpedia: take only explanations by this model."""
    neuronpedia: Path | None = None
    """Instead of asking a model: take the labels of an explanations export of Neuronpedia (JSON or JSONL, plain or
    gzipped), with their source and scores."""
    features: tuple[int, ...] = ()
    """Features to explain, by index."""
    top: int | None = None
    """Explain this many of the most frequent features that are not dense."""
    sample: int | None = None
    """Explain this many features drawn at random. Only a random sample estimates the scores of the whole dictionary."""
    into: ArtefactName | None = None
    """Also write a features artefact of this name with the new labels."""
    dry_run: bool = False
    """Count requests and tokens, and stop."""
    yes: bool = False
    """Send without asking."""
    max_requests: int = 1000
    """Largest number of requests, failed attempts included."""
    price_in: float | None = None
    """Price per million input tokens."""
    price_out: float | None = None
    """Price per million output tokens."""
    key_variable: Annotated[str, Means("VARIABLE")] = "WORKBENCH_API_KEY"
    """Environment variable that holds the key. The key is never written to disk."""
    concurrency: int = 4
    """Concurrent requests."""
    timeout: float = 60.0
    """Seconds to wait for a reply."""
    retries: int = 5
    """Further attempts when the endpoint is busy or fails."""
    allow_other_weights: bool = False
    """Use an SAE on a recording of other weights than it was trained on."""

    def run(self) -> None:
        if (self.provider is None) == (self.neuronpedia is None):
            given = "neither" if self.provider is None else "both"
            raise ConfigError(f"explain takes --provider, a model to ask, or --neuronpedia, a file; got {given}")
        workspace = self.open_workspace()
        if self.neuronpedia is not None:
            self._import(workspace, self.neuronpedia)
        else:
            self._ask(workspace, self.provider or "")

    def _import(self, workspace: "Workspace", path: Path) -> None:
        """Write the labels of an export, and the features with them if asked."""
        from saes.explain.imported import import_labels

        folder = workspace.path("labels", self.name or slug(f"{self.source}-neuronpedia"))
        target = workspace.path("features", self.into) if self.into else None
        self.check_free(folder, target)
        found = import_labels(workspace, self.source, path, folder, model=self.model, overwrite=self.overwrite).summary
        more = f", chosen of {found['n_read']:,} explanations" if found["n_read"] > found["n_labelled"] else ""
        scored = f"; {found['n_scored']:,} with a score" if found["n_scored"] else "; none with a score"
        wrote(folder, f"{found['n_labelled']:,} labels of {found['label_source']}{more}{scored}")
        self._adopt(workspace, folder, target)

    def _adopt(self, workspace: "Workspace", folder: Path, target: Path | None) -> None:
        if target is not None:
            from saes.explain.run import adopt_labels

            adopt_labels(folder, workspace.path("features", self.source), target, overwrite=self.overwrite)
            wrote(target, f"the features of {self.source} with these labels")

    def _ask(self, workspace: "Workspace", where: str) -> None:
        """Ask a model for labels, score them, and write both."""
        from saes.explain.providers import open_provider
        from saes.explain.run import explain

        self.use_threads()
        manifest, device = workspace.manifest("features", self.source), self.use_device()
        provider = open_provider(
            where,
            self.model,
            key_variable=self.key_variable,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            device=device,
        )
        folder = workspace.path("labels", self.name or slug(f"{self.source}-{provider.model}"))
        target = workspace.path("features", self.into) if self.into else None
        if not self.dry_run:
            self.check_free(folder, target)  # before anything is paid for
        run, parents = self._prepare(workspace, provider, folder, device)
        for feature, why in run.skipped.items():
            say(f"feature {feature} is skipped: it {why}")
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
        self._adopt(workspace, folder, target)

    def _prepare(
        self, workspace: "Workspace", provider: "Provider", folder: Path, device: str
    ) -> "tuple[Explanation, dict[str, str]]":
        """Return the features to explain with their contexts, and the parents besides the features artefact."""
        from interp.models.adapter import token_strings
        from saes.explain.cases import Source, build_cases, choose_features
        from saes.explain.run import Explanation, known_replies
        from workbench.opening import NEURONS, open_dictionary, open_recording_model

        config: dict[str, Any] = workspace.manifest("features", self.source).config
        features_folder = workspace.path("features", self.source)
        chosen_features = choose_features(
            features_folder, features=self.features, top=self.top, sample=self.sample, seed=self.seed
        )
        settings, name = settings_of(self, ExplainConfig), str(config["dictionary"])
        chosen = open_dictionary(
            workspace,
            name if name.startswith(NEURONS) else name.removeprefix("sae:"),
            config["recording"],
            device=device,
        )
        model = open_recording_model(chosen.recording, device=device)
        source = Source(
            features_folder,
            int(config["window"]),
            chosen.load(model, allow_other_weights=self.allow_other_weights),
            chosen.recording,
            config["hook_point"],
            token_strings(model, list(range(model.cfg.d_vocab))),
        )
        cases, skipped = build_cases(source, chosen_features, settings, seed=self.seed)
        others = [workspace.path("labels", other) for other in workspace.names("labels")]
        run = Explanation(
            cases=cases,
            skipped=skipped,
            provider=provider,
            config=settings,
            seed=self.seed,
            known=known_replies(folder, others),
        )
        return run, {**chosen.parents, chosen.recording.key: chosen.recording.manifest.content_hash}


def describe_plan(plan: "Plan", where: str, price_in: float | None, price_out: float | None) -> str:
    """Return the number of requests and tokens, their destination, and the cost when prices are given."""
    line = f"{plan}; to {where}" if plan.total else str(plan)
    if price_in is None and price_out is None:
        return line
    return f"{line}; at most {plan.cost(price_in or 0.0, price_out or 0.0):,.2f} at the prices given"


def describe_scores(summary: dict[str, Any]) -> str:
    """Return one line per score: of the label, of another feature's label (the null), and the gain."""
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
    """Ask for consent. Raises `ConfigError` where the input is not a terminal, and when the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigError(f"this sends recorded text to {where}; add --yes to agree, or --dry-run to only count")
    if input("send? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was sent")
