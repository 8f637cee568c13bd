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
            say(f"{model.name:<20} {model.description}")
        say("Also: a Hugging Face id or folder, or a .gguf file.")
