"""Check of the shapes and dtypes in signatures, by beartype, at every call and in tests only (CONTRIBUTING.md).

`conftest.py` applies it to these modules as they are imported. Compiled kernels are left out.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray

SHAPES_CHECKED = [
    "interp.atlas.layout",
    "interp.atlas.build",
    "interp.atlas.sources",
    "interp.changes.transplant",
    "interp.circuits.attribution",
    "interp.circuits._edge_scores",
    "interp.circuits.find",
    "interp.circuits.graph",
    "interp.circuits.head_kinds",
    "interp.circuits.head_weights",
    "interp.circuits.judging",
    "interp.circuits.score_explanation",
    "interp.geometry.circles",
    "interp.geometry.dimension",
    "interp.geometry.probes",
    "interp.geometry.points",
    "interp.geometry.report",
    "interp.geometry.separation",
    "interp.geometry.shapes",
    "interp.geometry.similarity",
    "interp.geometry._steering",
    "interp.geometry.sweeps",
    "interp.geometry.words",
    "interp.lenses.direct_attribution",
    "interp.lenses.lens_training",
    "interp.lenses.logit_lens",
    "interp.models.head_score",
    "interp.models.passes",
    "interp.models.residual",
    "interp.patching.ablation",
    "interp.patching.activation",
    "interp.patching.maps",
    "interp.patching.paths",
    "interp.patching.metrics",
    "interp.patching.task",
    "interp.recording.store",
    "interp.studies.grokking",
    "interp.tracing._influence",
    "interp.tracing.loadings",
    "interp.tracing.reasons",
    "interp.tracing.supernodes",
    "saes.attribution.attribution",
    "saes.attribution.sites",
    "saes.evaluation.absorption",
    "saes.evaluation.baselines",
    "saes.evaluation.compare",
    "saes.evaluation.crosscoder_latents",
    "saes.evaluation.in_model",
    "saes.evaluation.matching",
    "saes.evaluation.probing",
    "saes.evaluation.synthetic",
    "saes.features.sources",
    "saes.kinds.base",
    "saes.kinds.crosscoder",
    "saes.kinds.jumprelu",
    "saes.kinds.l1",
    "saes.kinds.topk",
    "saes.kinds.transcoder",
    "saes.training.reconstruction",
]

STRINGS_ONLY = ["interp.models.adapter", "interp.models.training"]
"""Modules that pages and `--help` import, so that they load torch inside functions only: their shapes are strings, for
readers and for pyright, which beartype cannot resolve."""


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with the annotations that hold a shape checked at every call, and no others.

    The others are for pyright: some are protocols or generic tuples, which cannot be checked at run time.
    """
    function.__annotations__ = {
        name: hint if _holds_shape(hint) else Any for name, hint in function.__annotations__.items()
    }
    return beartype(function)


def _holds_shape(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_holds_shape, get_args(hint)))
