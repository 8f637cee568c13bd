"""Acts: questions to a model and to the features of a workspace, each a class with its answer.

- `run`          models, dictionaries and readings in memory, which acts and analyses are measured with
- `prompt`       one prompt: losses, features, attention, the prediction after each layer, the next token
- `_reading`     the pass behind them, and the controls of its numbers
- `readings`     their answers
- `attribution`  the parts and the features behind an answer, and the reasons for an attention score
- `writing`      continuations under a change, and chats side by side
- `routes`       the routes of a prompt, one of them in full, and one that carries another word
- `patching`     activation patching between two prompts
- `features`     one feature: on a text, steered, ablated, its direction, its documents
- `heads`        one attention head, ablated on its own examples
- `monitors`     a text under a monitor
- `graphs`       an attribution graph: latents changed, groups, edges by heads

The page *Prompt* and others, `workbench ask`, `/api/`, agents and notebooks have every act from its class
(`catalogue`). To add one, put its class into a module of this folder.
"""

import importlib
import pkgutil
from functools import cache
from typing import Any

from interp.acts import Act


@cache
def catalogue() -> dict[str, type[Act[Any, Any]]]:
    """Return every act by name, in the order of the modules of this folder; they load without torch."""
    acts: dict[str, type[Act[Any, Any]]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, Act) and value.__module__ == f"{__name__}.{module}":
                acts[value.verb] = value
    return acts
