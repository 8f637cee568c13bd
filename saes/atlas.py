"""An SAE's features as the source of an atlas, one point each, and as what reads the cells of any atlas."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from interp.artifacts import read_manifest
from interp.atlas.readouts import DictionaryReadout, NearestReadout, Reading
from interp.atlas.sources import AtlasSource
from interp.errors import MismatchError

if TYPE_CHECKING:
    from saes.kinds.base import SAE


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
    found = dict(parents or {})
    if features_folder is not None:
        labels, values = _read_features(features_folder, len(directions))
        value_name = "log10 firing density"
        found[f"features/{features_folder.name}"] = read_manifest(features_folder).content_hash
    return AtlasSource(
        vectors=directions,
        source=f"{'sae' if side == 'decoder' else 'encoder'}:{name}",
        labels=labels,
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
    """The tokens that a direction alone raises most (`interp.logit_effects`); the weight is by how much."""

    name = "unembedding"

    def __init__(self, model: Any) -> None:
        self.model = model

    def read(self, vectors: Tensor, top: int) -> Reading:
        from interp.logit_effects import logit_effects
        from interp.models.adapter import token_strings

        effects = logit_effects(self.model, vectors, top)
        texts = [token_strings(self.model, ids) for ids in effects.promoted_ids]
        return Reading(texts, effects.promoted_logits.tolist())


def named(labels: list[str]) -> list[str]:
    """The labels, and a number for each feature without one."""
    return [label if label and label != str(i) else f"feature {i}" for i, label in enumerate(labels)]


def _read_features(folder: Path, d_sae: int) -> tuple[list[str], np.ndarray]:
    import pyarrow.parquet as pq

    manifest = read_manifest(folder)
    table = pq.read_table(folder / "features.parquet", columns=["feature", "label", "density"])
    if len(table) != d_sae:
        raise MismatchError(f"{folder} describes {len(table)} features, the SAE has {d_sae}; build its own features")
    density = table["density"].to_numpy()
    floor = 0.5 / max(int(manifest.summary["n_tokens"]), 1)
    return table["label"].to_pylist(), np.log10(np.maximum(density, floor)).astype(np.float32)
