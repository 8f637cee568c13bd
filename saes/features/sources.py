"""The neurons of an MLP layer as a dictionary, and the directions of an SAE as the source or readout of an atlas.

Neurons are the baseline that an SAE must improve on. As a source, an SAE gives one point for each of its latents; as a
readout, it gives the features that are active in each cell of any atlas.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.artifacts import open_artefact, read_manifest
from interp.atlas.cells import DictionaryReadout, NearestReadout, VectorReadings
from interp.atlas.sources import AtlasSource
from interp.dictionary import Dictionary, SparseActs
from interp.errors import ConfigError, MismatchError
from interp.lenses.logit_lens import logit_effects
from interp.models.adapter import widened
from interp.models.hooked import HookedModel
from interp.names import RESIDUAL_SUFFIXES, canonical_hook_point, parse_hook_point
from saes.features.schema import WRITTEN, Features
from saes.kinds.base import SAE, one_layer


def writes_to_residual(dictionary: Dictionary) -> bool:
    """Return whether the decoder directions of a dictionary lie in the residual stream."""
    flag = getattr(dictionary, "writes_to_residual", None)
    written = getattr(dictionary, "hook_point_out", "") or dictionary.hook_point
    return bool(flag) if flag is not None else parse_hook_point(written).suffix in RESIDUAL_SUFFIXES


class NeuronBasis:
    """Dictionary whose latent `i` is neuron `i`: the neuron's own activation where it has the chosen sign, else 0.

    It reads `blocks.N.mlp.hook_post [.., d_mlp]`. With `sign=-1` its activations are the negated negative values. The
    directions are negated too, so that `decode` still gives the contribution of the neurons.
    """

    writes_to_residual = True
    """Its directions lie in the residual stream, although its hook point does not."""

    def __init__(self, d_mlp: int, hook_point: str, W_out: Float[Tensor, "..."], *, sign: int = 1):
        """Take `W_out [d_mlp, d_model]`, the vector that each neuron writes per unit of activation."""
        if sign not in (1, -1):
            raise ConfigError(f"sign must be 1 (positive activations) or -1 (negative ones), got {sign}")
        if W_out.ndim != 2 or len(W_out) != d_mlp:
            raise MismatchError(f"W_out must be [d_mlp={d_mlp}, d_model], got {list(W_out.shape)}")
        self.d_in = self.d_sae = d_mlp
        self.hook_point = canonical_hook_point(hook_point)
        self.sign = sign
        self._directions = W_out.detach().float() * sign

    @property
    def decoder_directions(self) -> Float[Tensor, "d_mlp d_model"]:
        """Each neuron's row of `W_out` times the sign, `[d_mlp, d_model]`."""
        return self._directions

    def encode(self, x: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
        """Return the part of `x [..., d_mlp]` with the chosen sign, as values >= 0 of the same shape."""
        return torch.relu(x * self.sign)

    def encode_sparse(self, x: Float[Tensor, "n d_mlp"]) -> SparseActs:
        """Return the activations of `x [n, d_mlp]` with the number of every neuron; inactive ones are padding."""
        indices = torch.arange(self.d_sae, dtype=torch.int32, device=x.device).expand(len(x), -1)
        return SparseActs(self.encode(x), indices)

    def decode(self, feature_acts: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_model"]:
        """Return the contribution of activations `[..., d_mlp]` to the MLP's output, `[..., d_model]`."""
        return feature_acts @ self._directions


def neurons_of(model: HookedModel, hook_point: str, *, sign: int = 1) -> NeuronBasis:
    """Return the neurons of the MLP at `blocks.N.mlp.hook_post` of a loaded model. Raises `ConfigError` elsewhere.

    `sign` 1 takes the activations above 0, -1 those below.
    """
    point = parse_hook_point(hook_point)
    if point.layer is None or point.suffix != "mlp.hook_post" or point.layer >= model.cfg.n_layers:
        raise ConfigError(
            f"neurons live at blocks.N.mlp.hook_post with N below {model.cfg.n_layers}, got {hook_point!r}"
        )
    W_out = widened(model.blocks[point.layer].mlp.W_out)
    return NeuronBasis(len(W_out), str(point), W_out, sign=sign)


DENSITY = "log10 firing density"


def sae_source(
    sae: SAE,
    name: str,
    *,
    side: Literal["decoder", "encoder"] = "decoder",
    features_folder: Path | None = None,
    parents: dict[str, str] | None = None,
) -> AtlasSource:
    """Return the directions of the SAE `name` as the source of an atlas: the rows of `W_dec` or of `W_enc^T`.

    With its features folder, points have the features' labels, and `log10 firing density` as the value. A feature that
    never fired gets the density of half a token, so that the logarithm exists. Without a folder, labels are feature
    numbers and the value is the norm of the direction. Raises `MismatchError` when the folder is another SAE's.
    """
    directions = (sae.decoder_directions if side == "decoder" else one_layer(sae).W_enc.T).detach().float().cpu()
    directions = directions.contiguous()
    kind = "sae" if side == "decoder" else "encoder"
    return features_source(directions, f"{kind}:{name}", features_folder, shown=f"dictionary:{name}", parents=parents)


def features_source(
    vectors: Float[Tensor, "n d"],
    source: str,
    features_folder: Path | None,
    *,
    shown: str,
    parents: dict[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> AtlasSource:
    """Return one vector per feature as the source of an atlas; see `sae_source` for what the folder gives.

    `shown` names the vectors where others are read by them.
    """
    labels, values, value_name = [str(i) for i in range(len(vectors))], vectors.norm(dim=1).numpy(), "norm"
    subjects, groups = None, None
    all_parents = dict(parents or {})
    if features_folder is not None:
        labels, subjects, groups, values = read_features(features_folder, len(vectors))
        value_name = DENSITY
        all_parents[f"features/{features_folder.name}"] = read_manifest(features_folder).content_hash
    return AtlasSource(
        vectors=vectors,
        source=source,
        labels=labels,
        subjects=subjects,
        groups=groups,
        items=np.arange(len(vectors), dtype=np.int32),
        values=values,
        value_name=value_name,
        item_kind="feature",
        parents=all_parents,
        features=None if features_folder is None else features_folder.name,
        notes=notes,
        readout=NearestReadout(shown, vectors, named(labels)),
    )


def dictionary_readout(sae: SAE, name: str, features_folder: Path | None = None) -> DictionaryReadout:
    """Return a readout by the features of the SAE `name`, shown by label with a features folder, else by number."""
    labels = None if features_folder is None else named(read_features(features_folder, sae.d_sae)[0])
    return DictionaryReadout(name, sae, labels)


class PromotedReadout:
    """Readout by the tokens whose logits a direction alone raises most (`interp.lenses.logit_lens`).

    The weight of a token is the increase of its logit.
    """

    name = "unembedding"

    def __init__(self, model: HookedModel) -> None:
        self.model = model

    def read(self, vectors: Tensor, top: int) -> VectorReadings:
        from interp.models.adapter import token_strings

        effects = logit_effects(self.model, vectors, top)
        texts = [token_strings(self.model, ids) for ids in effects.promoted_ids]
        return VectorReadings(texts, effects.promoted_logits.tolist())


def named(labels: list[str]) -> list[str]:
    """Return the labels, with `feature NUMBER` for each feature without one."""
    return [label if label and label != str(i) else f"feature {i}" for i, label in enumerate(labels)]


LABEL_GROUPS = {
    **dict.fromkeys(("token", "any_form", "word"), "one word"),
    "tokens": "several words",
    **dict.fromkeys(("class", "chunk"), "a class of words"),
    **dict.fromkeys(("said", "said_near", "says"), "words that it makes the model say"),
    **dict.fromkeys(("document", "surroundings"), "a kind of text"),
    **dict.fromkeys(("none", "rare", "dead"), "no label"),
    "dense": "nearly every token",
    WRITTEN: "a written label",
}
"""Group of a feature on a map, by the kind of its label; of other kinds `BESIDE`."""
BESIDE = "what stands beside"


def read_features(folder: Path, d_sae: int) -> tuple[list[str], list[str], list[str], np.ndarray]:
    """Return the labels, their subjects, their groups and `log10 firing density` of all features.

    A subject is the tokens that a label names, or else its kind or text.
    """
    described = open_artefact(Features, folder)
    table = described.features.query("select label, density, label_kind, label_names from t order by feature")
    if len(table) != d_sae:
        raise MismatchError(f"{folder} describes {len(table)} features, the SAE has {d_sae}; build its own features")
    density = table["density"].to_numpy()
    floor = 0.5 / max(described.n_tokens, 1)
    labels = table["label"].to_pylist()
    parts = zip(labels, table["label_kind"].to_pylist(), table["label_names"].to_pylist(), strict=True)
    subjects = [" ".join(names) or (kind if kind != WRITTEN else label) for label, kind, names in parts]
    groups = [LABEL_GROUPS.get(kind, BESIDE) for kind in table["label_kind"].to_pylist()]
    return labels, subjects, groups, np.log10(np.maximum(density, floor)).astype(np.float32)
