"""The neurons of an MLP layer as a dictionary: what people look at first, and the baseline that an SAE must beat.

An SAE's features as the source of an atlas, one point each, and as what reads the cells of any atlas.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import read_manifest
from interp.atlas.cells import DictionaryReadout, NearestReadout, Reading
from interp.atlas.sources import AtlasSource
from interp.dictionary import SparseActs
from interp.errors import ConfigError, MismatchError
from interp.names import canonical_hook_point
from saes.explain.tokens import WRITTEN
from saes.features.schema import LABEL_FIELDS

if TYPE_CHECKING:
    from saes.kinds.base import SAE


class NeuronBasis:
    """Feature `i` is neuron `i`: its activation is the neuron's own value where that has the chosen sign, else 0.

    Reads `blocks.N.mlp.hook_post [.., d_mlp]`. Under `sign=-1` activations are the negated negative values and the
    directions are negated too, so that `decode` still adds what the neuron adds.
    """

    writes_to_residual = True
    """Its directions are in residual coordinates although its hook point is not."""

    def __init__(self, d_mlp: int, hook_point: str, W_out: Tensor, *, sign: int = 1):
        """`W_out [d_mlp, d_model]`: what each neuron writes per unit."""
        if sign not in (1, -1):
            raise ConfigError(f"sign must be 1 (positive activations) or -1 (negative ones), got {sign}")
        if W_out.ndim != 2 or len(W_out) != d_mlp:
            raise MismatchError(f"W_out must be [d_mlp={d_mlp}, d_model], got {list(W_out.shape)}")
        self.d_in = self.d_sae = d_mlp
        self.hook_point = canonical_hook_point(hook_point)
        self.sign = sign
        self._directions = W_out.detach().float() * sign

    @property
    def decoder_directions(self) -> Tensor:
        """`[d_mlp, d_model]`: the neuron's row of `W_out`, times the sign."""
        return self._directions

    def encode(self, x: Tensor) -> Tensor:
        """`[..., d_mlp]` -> the same shape: the part with the chosen sign, as values >= 0."""
        return torch.relu(x * self.sign)

    def encode_sparse(self, x: Tensor) -> SparseActs:
        """`[n, d_mlp]` -> every neuron with its own number; the inactive ones are the padding."""
        indices = torch.arange(self.d_sae, dtype=torch.int32).expand(len(x), -1)
        return SparseActs(self.encode(x), indices)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """`[..., d_mlp] -> [..., d_model]`: the part of the MLP's output that these activations write."""
        return feature_acts @ self._directions


def neurons_of(model, hook_point: str, *, sign: int = 1) -> NeuronBasis:
    """The neurons of the MLP at `blocks.N.mlp.hook_post` of a loaded model."""
    from interp.names import parse_hook_point

    place = parse_hook_point(hook_point)
    if place.layer is None or place.suffix != "mlp.hook_post" or place.layer >= model.cfg.n_layers:
        raise ConfigError(
            f"neurons live at blocks.N.mlp.hook_post with N below {model.cfg.n_layers}, got {hook_point!r}"
        )
    W_out = model.blocks[place.layer].mlp.W_out
    return NeuronBasis(len(W_out), str(place), W_out, sign=sign)


def sae_source(
    sae: "SAE",
    name: str,
    *,
    side: Literal["decoder", "encoder"] = "decoder",
    features_folder: Path | None = None,
    parents: dict[str, str] | None = None,
) -> AtlasSource:
    """Directions of the SAE `name`, the rows of `W_dec` or of `W_enc^T`; with its features folder, labels and `log10
    firing density` as the value.

    Without one, labels are feature numbers and the value is the length of the direction. Features that never fired get
    the density of half a token, so that the logarithm exists. Raises `MismatchError` when the folder is another SAE's.
    """
    directions = (sae.decoder_directions if side == "decoder" else sae.W_enc.T).detach().float().cpu().contiguous()
    labels, values, value_name = [str(i) for i in range(len(directions))], directions.norm(dim=1).numpy(), "norm"
    subjects = None
    found = dict(parents or {})
    if features_folder is not None:
        labels, subjects, values = _read_features(features_folder, len(directions))
        value_name = "log10 firing density"
        found[f"features/{features_folder.name}"] = read_manifest(features_folder).content_hash
    return AtlasSource(
        vectors=directions,
        source=f"{'sae' if side == 'decoder' else 'encoder'}:{name}",
        labels=labels,
        subjects=subjects,
        items=np.arange(len(directions), dtype=np.int32),
        values=values,
        value_name=value_name,
        item_kind="feature",
        parents=found,
        features=None if features_folder is None else features_folder.name,
        readout=NearestReadout(f"dictionary:{name}", directions, named(labels)),
    )


def dictionary_readout(sae: "SAE", name: str, features_folder: Path | None = None) -> DictionaryReadout:
    """Reads activations by the features of the SAE `name`, which its features folder names; without one, by number."""
    labels = None if features_folder is None else named(_read_features(features_folder, sae.d_sae)[0])
    return DictionaryReadout(name, sae, labels)


class PromotedReadout:
    """The tokens that a direction alone raises most (`interp.lenses.logit_lens`); the weight is by how much."""

    name = "unembedding"

    def __init__(self, model: Any) -> None:
        self.model = model

    def read(self, vectors: Tensor, top: int) -> Reading:
        from interp.lenses.logit_lens import logit_effects
        from interp.models.adapter import token_strings

        effects = logit_effects(self.model, vectors, top)
        texts = [token_strings(self.model, ids) for ids in effects.promoted_ids]
        return Reading(texts, effects.promoted_logits.tolist())


def named(labels: list[str]) -> list[str]:
    """The labels, and a number for each feature without one."""
    return [label if label and label != str(i) else f"feature {i}" for i, label in enumerate(labels)]


def _read_features(folder: Path, d_sae: int) -> tuple[list[str], list[str] | None, np.ndarray]:
    """Return labels, their subjects (None where the table has only the text of labels), and `log10 firing density`."""
    import pyarrow.parquet as pq

    manifest = read_manifest(folder)
    known = set(pq.read_schema(folder / "features.parquet").names)
    fields = [name for name in LABEL_FIELDS if name in known]
    table = pq.read_table(folder / "features.parquet", columns=["feature", "label", "density", *fields])
    if len(table) != d_sae:
        raise MismatchError(f"{folder} describes {len(table)} features, the SAE has {d_sae}; build its own features")
    density = table["density"].to_numpy()
    floor = 0.5 / max(int(manifest.summary["n_tokens"]), 1)
    labels, subjects = table["label"].to_pylist(), None
    if fields:
        parts = zip(labels, table["label_kind"].to_pylist(), table["label_names"].to_pylist(), strict=True)
        subjects = [" ".join(names) or (kind if kind != WRITTEN else label) for label, kind, names in parts]
    return labels, subjects, np.log10(np.maximum(density, floor)).astype(np.float32)
