"""Dictionaries of a kind of one's own (`saes.kinds.own`), in our folder: `cfg.json` names the kind and its settings.

    cfg.json                 architecture (the kind), d_in, d_sae, d_out, settings, metadata
    sae_weights.safetensors  kind.NAME for each parameter and buffer of its class, in training units; and the scales
                             between these and raw activations: input_scale, shift_scale, output_scale, unit_scale

The class is that of the file which the environment names; none comes with the folder. `selfcheck.safetensors` has
reconstructions from the end of training. Loading repeats them, so that a class that computes something else is noticed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import CorruptError
from saes.kinds.autograd import AutogradSAE, Sizes
from saes.kinds.base import SAEMetadata
from saes.kinds.own import own_kind
from saes.kinds.recipe import Scales
from saes.weights.layout import Conversion, check_size, require, section

SETTINGS = "settings"
"""Key of `cfg.json` that only such a dictionary has."""


def convert(config: dict[str, Any], tensors: Mapping[str, Tensor], about: SAEMetadata, path: Path) -> Conversion:
    """Return the dictionary. Raises `MissingError` without its code, `CorruptError` where the weights do not fit it."""
    require(path, config, "d_out")
    d_in, d_sae, d_out = (check_size(config[axis], axis, path) for axis in ("d_in", "d_sae", "d_out"))
    kind = own_kind(config["architecture"], Sizes(d_in, d_sae, torch.zeros(d_out)), section(config, SETTINGS, path))
    state = {name.removeprefix("kind."): t for name, t in tensors.items() if name.startswith("kind.")}
    scales = {name: tensors.get(f"{name}_scale") for name in ("input", "shift", "output", "unit")}
    expected = {name: t.shape for name, t in kind.state_dict().items()}
    wrong = [n for n in {*expected, *state} if n not in state or n not in expected or state[n].shape != expected[n]]
    wrong += [f"{name}_scale" for name, t in scales.items() if t is None]
    if wrong:
        raise CorruptError(
            f"{path} does not fit the class of the kind {config['architecture']} (at {', '.join(sorted(wrong))}); the "
            "code has changed since the training, or the file is damaged: restore it, or train again"
        )
    kind.load_state_dict(state)
    inner, shift, outer, unit = (t.double() for t in scales.values() if t is not None)
    sae = AutogradSAE(kind, Scales(inner, outer, float(unit), shift), metadata=about)
    return Conversion(sae=sae, forward=lambda x: (sae.encode(x), sae(x)))
