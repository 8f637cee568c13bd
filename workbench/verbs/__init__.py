"""Verbs: frozen dataclasses whose fields are the options and whose `measure` or `run` does the work.

- `record`    record activations; list models
- `train`     train dictionaries; import one
- `evaluate`  evaluate a dictionary
- `features`  describe, search, steer with and prove features
- `explain`   label features by a language model
- `heads`     score heads; train a tuned lens
- `circuit`   find, evaluate and print circuits
- `patch`     activation patching
- `trace`     attribution graphs; attribution to features
- `atlas`     maps
- `geometry`  shapes, directions
- `compare`   compare dictionaries or models
- `dynamics`  studies of training
"""

from workbench.analysis import Analysis
from workbench.terminal import Verb
from workbench.verbs.atlas import Atlas
from workbench.verbs.circuit import FeatureCircuit, Find, Induction, Show
from workbench.verbs.compare import CompareLatents, CompareModels, CompareSAEs, CompareSizes
from workbench.verbs.dynamics import Form, Grok, Scale
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.explain import Explain
from workbench.verbs.features import Features, Prove, Search, Steer
from workbench.verbs.geometry import CompareSpaces, Direction, Shapes, Space
from workbench.verbs.heads import Heads, Lens
from workbench.verbs.patch import Patch
from workbench.verbs.record import Record
from workbench.verbs.trace import Attribute, Trace
from workbench.verbs.train import Import, Train

GROUPS: dict[str, tuple[type[Verb], ...]] = {
    "record and train": (Record, Train, Import, Evaluate),
    "features": (Features, Search, Explain, Attribute, Steer, Prove),
    "heads and circuits": (Heads, Lens, Patch, Trace, Induction, Find, FeatureCircuit, Show),
    "geometry and maps": (Shapes, Direction, Space, CompareSpaces, Atlas),
    "comparisons and studies": (CompareSAEs, CompareSizes, CompareModels, CompareLatents, Grok, Form, Scale),
}
"""Every verb of this folder, under the heading that `workbench --help` gives it."""

ANALYSES = tuple(verb for group in GROUPS.values() for verb in group if issubclass(verb, Analysis) and verb.on_page)
"""Verbs that the page *Runs*, the API and agents may start, in the order of the menu."""
