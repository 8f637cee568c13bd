"""`workbench trace MODEL`: the attribution graph of one prompt, its scores beside their nulls."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.tracing.config import TraceConfig
from workbench.terminal import ModelArgument, OnDevice, Threaded, Writes, bar, say, settings_of, slug, wrote

if TYPE_CHECKING:
    from interp.tracing.graph import AttributionGraph
    from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Trace(TraceConfig, Writes, Threaded, OnDevice):
    """Trace why a model says what it says: the attribution graph of one prompt.

    Example: workbench trace smollm2-135m --prompt "The capital of France is" --target " Paris" --contrast " Rome"

    Nodes are active latents, tokens, reconstruction errors and likely next tokens; an edge is the direct effect of one
    on another with attention patterns and norms frozen (Ameisen et al. 2025). With `--set` the latents are those of a
    set of transcoders (`workbench train --set`), without it MLP neurons, which need no training.

    The replacement score is the share of influence that reaches the tokens through latents and not through errors: 1 is
    perfect. It stands beside that of the same prompt without latents and with untrained transcoders. A sample of
    latents is ablated in the model itself, to tell how well the graph predicts it. Opens on the page *Graph*.
    Interrupted? The same command resumes.
    """

    model: ModelArgument
    prompt: str
    """Text whose next token is explained."""
    set: str | None = None
    """Set of transcoders that replaces the MLPs. Default: MLP neurons."""
    target: str | None = None
    """Explain this token (one token, often with a leading space), or a latent, feature:LAYER:POSITION:LATENT. Default:
    the most likely next tokens."""
    contrast: str | None = None
    """Explain the difference between the target and this token."""
    chat: bool = False
    """Put the prompt into the model's chat template, as the message of a user."""
    allow_other_weights: bool = False
    """Apply a set to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from interp.models.generation import prompt_tokens
        from interp.models.loading import load_model
        from interp.tracing.trace import save_trace

        workspace = self.open_workspace()
        self.use_threads()
        folder = workspace.path("attribution_graph", self.name or slug(f"{self.prompt}-{self.set or 'neurons'}"))
        self.check_free(folder)
        options = self._dictionary(workspace)
        model = load_model(self.model, device=self.use_device(), attention="eager")
        tokens = prompt_tokens(model, self.prompt, chat=self.chat)
        with bar("tracing", "latents") as progress:
            graph = save_trace(
                folder,
                model,
                tokens if self.chat else self.prompt,
                config=settings_of(self, TraceConfig),
                target=self.target,
                contrast=self.contrast,
                overwrite=self.overwrite,
                progress=progress,
                report=say,
                **options,
            )
        wrote(folder, f"{graph.settings['rows']} of {graph.settings['active']} active latents have their edges")
        for line in describe(graph):
            say(f"      {line}")

    def _dictionary(self, workspace: "Workspace") -> dict[str, Any]:
        """Return the dictionary, its null, its labels, and the artefacts that it came from."""
        if self.set is None:
            from interp.tracing.replacement import Neurons

            say("MLP neurons are the latents; transcoders give fewer and clearer ones: workbench train --set NAME")
            return {"replacement": Neurons(self.max_neurons)}
        from saes.sets.replacement import SetReplacement, labels_of, untrained_set
        from saes.sets.set import open_set

        found = open_set(workspace, self.set)
        allow = self.allow_other_weights
        null = SetReplacement(untrained_set(found, self.seed), "untrained", allow_other_weights=allow)
        manifest = workspace.manifest("transcoders", self.set)
        return {
            "replacement": SetReplacement(found, self.set, allow_other_weights=allow),
            "untrained": null if self.nulls else None,
            "labels": labels_of(workspace, self.set),
            "parents": {workspace.key(manifest): manifest.content_hash},
        }


def describe(graph: "AttributionGraph", n: int = 8) -> list[str]:
    """Return the headline of a graph and its most influential latents, with the strongest edge of each."""
    lines = graph.headline().split(". ")
    for row in [row for row in graph.to_records() if row["kind"] == "feature" and row["kept"]][:n]:
        token = graph.token_texts[row["position"]]
        first = next(iter(graph.edges_from(row["node"])), None)
        leads = f" -> {first['node']} {first['weight']:+.3g}" if first else ""
        lines.append(f"{row['node']} at {token!r} {row['label']}: influence {row['influence']:.3f}{leads}")
    return lines
