"""The command line: `workbench VERB ...`, one verb per artefact, plus `demo` and `serve`. Torch-free until a verb runs.

Exit codes: 0 done, 1 damage found by `verify`, 2 an error that says the next move, 130 Ctrl-C.
"""

import sys
from typing import Annotated, Any, Union

import tyro

from interp.errors import WorkbenchError
from workbench.verbs.atlas import Atlas
from workbench.verbs.changes import Changes, Difference
from workbench.verbs.circuit import Circuit
from workbench.verbs.compare import Compare, Scaling
from workbench.verbs.demo import Demo
from workbench.verbs.dynamics import Dynamics
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.explain import Explain
from workbench.verbs.features import Attribute, Features, Steer
from workbench.verbs.geometry import Geometry
from workbench.verbs.heads import Heads, Lens
from workbench.verbs.record import Models, Record
from workbench.verbs.serve import Serve, Verify
from workbench.verbs.train import Import, Train

VERBS = (
    *(Demo, Serve, Models, Record, Train, Evaluate, Compare, Scaling, Features, Explain, Attribute, Steer, Difference),
    *(Changes, Heads, Circuit, Lens, Dynamics, Geometry, Atlas, Import, Verify),
)
DESCRIPTION = """Look inside transformers: record activations, learn their sparse features, score the heads,
map the geometry, and browse all of it.

Start with `workbench demo`. Every verb reads artefacts and writes one, in --workspace:
record -> train -> features -> atlas, and heads beside them."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the return value is the exit code."""
    try:
        verb = tyro.cli(
            _union(), args=arguments, prog="workbench", description=DESCRIPTION, config=(tyro.conf.OmitArgPrefixes,)
        )
        return verb.run() or 0
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nworkbench: stopped; what was written is kept, and the same command resumes it", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `workbench models | head`
        return 0


def _union() -> Any:
    return Union[tuple(Annotated[verb, tyro.conf.subcommand(verb.__name__.lower())] for verb in VERBS)]  # noqa: UP007


if __name__ == "__main__":
    sys.exit(main())
