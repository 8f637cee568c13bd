"""Sets of transcoders: one for every layer of a model, in one artefact, as circuit tracing needs them.

- `set`           the set: what its latents read and write, and its files, which are those of circuit-tracer
- `stored`        a set in a workspace, as an artefact
- `train`         one pass through the model feeds the transcoders of all layers
- `importing`     sets of other tools
- `replacement`   a set on one prompt, for attribution graphs
"""

from typing import TYPE_CHECKING

from interp.packages import lazily

if TYPE_CHECKING:
    from saes.sets.set import CrossLayerSet, LayerFirings, PerLayerSet, TranscoderSet, open_set, read_set

__getattr__, __all__ = lazily(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
