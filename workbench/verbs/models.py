"""`workbench models`: what can be loaded, and from where."""

from dataclasses import dataclass

from workbench.terminal import say


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the models that load by name.

    Also loadable: any Hugging Face id or folder, and any .gguf file.
    """

    def run(self) -> None:
        from interp.models.sources import known_models

        for model in known_models():
            size = f"{model.n_params / 1e6:,.1f}M" if model.n_params >= 1e5 else f"{model.n_params:,}"
            say(
                f"{model.name:<38} {size:>8}  {model.n_layers:>2} layers of {model.d_model:<5} "
                f"{model.source}: {model.note}"
            )
        say("\nAlso: any Hugging Face id (owner/name), a model folder, or a .gguf file.")
