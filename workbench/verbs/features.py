"""`workbench features`: what each feature of a dictionary responds to."""

from dataclasses import dataclass

import tyro

from workbench.options import Options, slug
from workbench.terminal import bar, wrote


@dataclass(frozen=True, kw_only=True)
class Features(Options):
    """Statistics, examples, effects and labels of every feature, in one pass over a recording.

    Example: workbench features my-sae

    Neurons: workbench features neurons:blocks.9.mlp.hook_post --recording my-recording
    """

    dictionary: tyro.conf.Positional[str]
    """The name of an SAE in the workspace, or neurons:HOOK_POINT."""
    recording: str | None = None
    """The recording to pass over. Default: the one that the SAE was trained on."""
    window: int = 16
    """Tokens of context shown on each side of a peak."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from workbench.steps import open_dictionary, open_recording_model

        workspace = self.open_workspace()
        self.use_threads()
        chosen = open_dictionary(workspace, self.dictionary, self.recording)
        model = open_recording_model(chosen.recording)
        dictionary = chosen.load(model, allow_other_weights=self.allow_other_weights)
        folder = workspace.path("features", self.name or slug(chosen.name))
        from saes.features import build_features

        with bar("features", "tokens") as progress:
            manifest = build_features(
                dictionary,
                chosen.recording,
                model,
                folder,
                dictionary_name=chosen.full_name,
                window=self.window,
                seed=self.seed,
                overwrite=self.overwrite,
                parents=chosen.parents,
                progress=progress,
            )
        found = manifest.summary
        wrote(
            folder,
            f"{found['n_features']:,} features over {found['n_tokens']:,} tokens: "
            f"{found['n_dead']:,} never fire, {found['n_dense']:,} fire on more than a tenth of all tokens",
        )
