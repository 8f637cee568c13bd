"""Words that features make the model say: their directions through the Jacobian lens. Torch-free to read.

    meaning = meaning_of(workspace, features)      # None where the workspace has no Jacobian lens of these weights
    meaning.says(540)                              # Saying(raised=((" colors", 9.1), ...), lowered=...)
    meaning.strengths(tokens)                      # [n_features, tokens]: how far each feature raises them

Strength is the logit that a unit of the direction adds to a token, less the mean and in standard deviations over the
vocabulary, so features and layers can be compared. **Null**: the largest strength of random directions through the same
lens. The strength is an average over contexts, to first order; only steering a feature proves that it makes the model
say a word.

A direction written at a layer is read by the lens of the residual stream after that layer's block. For a direction that
attention writes, the effect through the MLP of the same block is left out.

Everything is computed once for a features artefact and a lens, and kept in the user's cache (`$INTERP_CACHE`).
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from interp.cache import cache_folder
from interp.errors import disk_errors
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import lens_point, newest_lens
from interp.lenses.vocabulary import Vocabulary, open_vocabulary, vocabulary_of
from interp.nulls import DRAWS, p_from_null
from interp.seeds import make_generator
from interp.workspace import Workspace
from saes.features.schema import Features

if TYPE_CHECKING:
    from torch import Tensor

    from interp.dictionary import Dictionary
    from interp.models.hooked import HookedModel

KEPT = 12
"""tokens kept per feature and side"""
N_DIRECTIONS = DRAWS["thorough"]
"""random directions of the null"""
_AT_ONCE = 256
_ARRAYS = ("carried", "scale", "raised", "raised_strength", "lowered", "lowered_strength", "null_high", "null_low")
_building = Lock()


@dataclass(frozen=True)
class Saying:
    """The tokens that a feature raises and lowers most, with their strengths, largest first."""

    raised: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]
    raised_p: float
    """Fraction of random directions, this one counted too, whose largest strength is at least as large."""
    lowered_p: float


@dataclass(frozen=True)
class Meaning:
    """Words that each feature of one artefact makes the model say."""

    lens: JacobianLens
    hook_point: str
    """hook point of the lens through which they are read"""
    vocabulary: Vocabulary
    carried: np.ndarray
    """`[n_features, d_model]` float32: unit directions carried to the last layer"""
    scale: np.ndarray
    """`[n_features]` standard deviation over the vocabulary of the logits that they add"""
    raised: np.ndarray
    """`[n_features, KEPT]` numbers of tokens; likewise `lowered`"""
    raised_strength: np.ndarray
    lowered: np.ndarray
    lowered_strength: np.ndarray
    null_high: np.ndarray
    """`[N_DIRECTIONS]` largest strength of each random direction; likewise `null_low`, the smallest"""
    null_low: np.ndarray

    def says(self, feature: int, k: int = KEPT) -> Saying:
        """Return what one feature says."""
        texts = self.vocabulary.texts

        def side(ids: np.ndarray, strengths: np.ndarray) -> tuple[tuple[str, float], ...]:
            pairs = zip(ids[feature, :k].tolist(), strengths[feature, :k].tolist(), strict=True)
            return tuple((texts[i], strength) for i, strength in pairs)

        raised, lowered = side(self.raised, self.raised_strength), side(self.lowered, self.lowered_strength)
        high = p_from_null(raised[0][1], self.null_high)
        low = p_from_null(lowered[0][1], self.null_low, alternative="less")
        return Saying(raised, lowered, high, low)

    def strengths(self, tokens: np.ndarray | list[int]) -> np.ndarray:
        """Return how far every feature raises some tokens, `[n_features, tokens]`."""
        return self.vocabulary.logits(self.carried, tokens) / self.scale[:, None]


def model_hash(features: Features) -> str:
    """Return the hash of the weights that features were described on; empty where they do not name it."""
    return next((value for key, value in features.about.parents.items() if key.startswith("model:")), "")


def lens_for(workspace: Workspace, features: Features) -> JacobianLens | None:
    """Return the newest Jacobian lens of the weights that features were described on; None without one."""
    digest = model_hash(features)
    return newest_lens(workspace, JacobianLens, digest) if digest else None


Opener = Callable[[Workspace, Features, "HookedModel"], "Dictionary"]
"""Opens the dictionary that a features artefact describes."""


def meaning_of(
    workspace: Workspace, features: Features, model: "HookedModel | None" = None, *, opener: Opener | None = None
) -> Meaning | None:
    """Return what the features of an artefact say; None without a lens, or where they write to no residual stream.

    The first time for a features artefact and a lens it is computed: seconds, with the model, which is loaded unless it
    is given. Layers of a set of transcoders need an `opener` for that; without one they are None.
    """
    lens = lens_for(workspace, features)
    if lens is None or (features.set_name and opener is None and not is_computed(features, lens)):
        return None
    folder = _folder(features, lens)
    if is_computed(features, lens):  # a reader does not wait while something else is computed
        return _opened(folder, lens)
    with _building:
        if not is_computed(features, lens):
            _build(workspace, features, lens, folder, model, opener if opener and features.set_name else _dictionary)
    return _opened(folder, lens)


def is_computed(features: Features, lens: JacobianLens) -> bool:
    """Return True where `meaning_of` has only to read."""
    vocabulary = open_vocabulary(lens.settings.weight_hash)
    return vocabulary is not None and (_folder(features, lens) / "done").is_file()


def _folder(features: Features, lens: JacobianLens) -> Path:
    return cache_folder() / "meanings" / f"{features.about.content_hash[:24]}-{lens.about.content_hash[:24]}"


def _build(
    workspace: Workspace, features: Features, lens: JacobianLens, folder: Path, model: "HookedModel | None",
    opener: Opener,
) -> None:  # fmt: skip
    from interp.models.loading import load_model
    from saes.features.sources import writes_to_residual

    model = model or load_model(features.settings.model)
    lens.check_model(model)
    dictionary = opener(workspace, features, model)
    arrays: dict[str, np.ndarray] = {}
    point = ""
    if writes_to_residual(dictionary):
        point = _lens_point_of(dictionary, model)
        arrays = said_by_directions(dictionary, lens, model)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
            for name, value in arrays.items():
                np.save(Path(draft) / f"{name}.npy", value, allow_pickle=False)
            (Path(draft) / "done").write_text(point, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(shutil.copytree(draft, Path(draft) / "new"), folder)


def said_tokens(
    dictionary: "Dictionary", lens: JacobianLens, model: "HookedModel", k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` tokens that each direction of a dictionary makes the model say, the strongest first, `[n, k]`.

    Beside them those of random directions, `[N_DIRECTIONS, k]`.
    """
    import torch

    vocabulary = vocabulary_of(model)
    read = torch.from_numpy(np.array(vocabulary.directions)).float()
    directions = dictionary.decoder_directions.detach().float().cpu()
    drawn = torch.randn(N_DIRECTIONS, directions.shape[1], generator=make_generator(0, "what random directions say"))
    carried = lens.carry(_lens_point_of(dictionary, model), torch.cat([directions, drawn]))
    best = [(block @ read.T).topk(min(k, len(read))).indices.int() for block in carried.split(_AT_ONCE)]
    ids = torch.cat(best).numpy()
    return ids[: len(directions)], ids[len(directions) :]


def said_by_directions(
    dictionary: "Dictionary", lens: JacobianLens, model: "HookedModel", kept: int = KEPT
) -> dict[str, np.ndarray]:
    """Return the arrays of a `Meaning`, of a dictionary whose directions lie in the residual stream."""
    directions = dictionary.decoder_directions.detach().float().cpu()
    return measure_saying(directions, lens, _lens_point_of(dictionary, model), vocabulary_of(model), kept)


def _lens_point_of(dictionary: "Dictionary", model: "HookedModel") -> str:
    return lens_point(getattr(dictionary, "hook_point_out", "") or dictionary.hook_point, model.cfg.n_layers)


def _dictionary(workspace: Workspace, features: Features, model: "HookedModel") -> "Dictionary":
    from saes.features.sources import neurons_of

    if features.sae:
        from saes.weights.folder import load_sae

        return load_sae(workspace.path("sae", features.sae))
    return neurons_of(model, features.neurons, sign=features.settings.sign)


def measure_saying(
    directions: "Tensor", lens: JacobianLens, point: str, vocabulary: Vocabulary, kept: int, draws: int = N_DIRECTIONS
) -> dict[str, np.ndarray]:
    """Return the arrays of a `Meaning`, of directions `[n, d]`."""
    import torch

    drawn = torch.randn(draws, directions.shape[1], generator=make_generator(0, "what random directions say"))
    every = torch.cat([directions, drawn])
    every = every / every.norm(dim=1, keepdim=True).clamp_min(1e-12)
    carried = lens.carry(point, every)
    read = torch.from_numpy(np.array(vocabulary.directions)).float()
    scale = torch.from_numpy(vocabulary.scale(carried.numpy()))
    sides: dict[str, list[Tensor]] = {name: [] for name in _ARRAYS[2:6]}
    k = min(kept, len(read))
    for block, spread in zip(carried.split(_AT_ONCE), scale.split(_AT_ONCE), strict=True):
        strengths = block @ read.T / spread[:, None]
        for side, largest in (("raised", True), ("lowered", False)):
            best = strengths.topk(k, largest=largest)
            sides[side].append(best.indices.int())
            sides[f"{side}_strength"].append(best.values)
    joined = {name: torch.cat(blocks).numpy() for name, blocks in sides.items()}
    n = len(directions)
    arrays = {name: value[:n] for name, value in joined.items()}
    arrays |= {"null_high": joined["raised_strength"][n:, 0], "null_low": joined["lowered_strength"][n:, 0]}
    return arrays | {"carried": carried[:n].numpy(), "scale": scale[:n].numpy()}


@lru_cache(maxsize=8)
def _arrays(folder: Path, built: int) -> dict[str, np.ndarray]:
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}


def _opened(folder: Path, lens: JacobianLens) -> Meaning | None:
    done = folder / "done"
    point, vocabulary = done.read_text(encoding="utf-8"), open_vocabulary(lens.settings.weight_hash)
    if not point or vocabulary is None:
        return None
    return Meaning(lens=lens, hook_point=point, vocabulary=vocabulary, **_arrays(folder, done.stat().st_mtime_ns))
