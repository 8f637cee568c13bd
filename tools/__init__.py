"""Makers of what ships with the package and of the pictures of its documents. The wheel has none of them.

All of it is made again in this order, each step by `python -m tools.NAME`:

- `lexicon`   first: classes of words for labels, from WordNet
- `releases`  SAELens' names of dictionaries, from its wheel
- `build`     the dictionary, from the text it was trained on to its folders
- `lens`      the Jacobian lens
- `labels`    batches for readers who write and judge labels of its features
- `adopt`     those labels, given to the dictionary
- `pictures`  last: the pictures of README and docs, from the demo that shows all of this

Two modules make nothing:

- `sources`   the texts, each from a package of a registry or from `tools/text/`, as documents
- `chromium`  the browser of the system on a running dashboard, for pictures, tests and benchmarks

What they make lies in `workbench/shipped/data/`, `saes/features/`, `saes/weights/` and `docs/images/`. Nothing of the
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
