"""What a vector says: in tokens, through a model or by nearness, or in the features of a dictionary."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.nn.functional import normalize

from interp.dictionary import Dictionary


class Reading(NamedTuple):
    """What some vectors say, the strongest first."""

    texts: list[list[str]]
    weights: list[list[float]]


class Readout(Protocol):
    """Something that can read vectors."""

    @property
    def name(self) -> str:
        """`unembedding`, `tokens`, `dictionary:NAME`"""
        ...

    def read(self, vectors: Tensor, top: int) -> Reading:
        """The `top` strongest texts of each of `vectors [n, d]` float32; fewer where there are fewer."""
        ...


class UnembeddingReadout:
    """The tokens that the model would say if the vector were its last residual: final norm, then unembedding.

    A logit lens of averages (nostalgebraist 2020). The weight is the probability. Early layers do not speak the last
    layer's language: there the features of a dictionary say more.
    """

    name = "unembedding"

    def __init__(self, model: Any) -> None:
        self.model = model

    def read(self, vectors: Tensor, top: int) -> Reading:
        from interp.models.adapter import final_norm_and_unembed, token_strings

        weight = next(self.model.parameters())
        logits = final_norm_and_unembed(self.model, vectors.to(weight.device, weight.dtype)).float()
        found = logits.log_softmax(-1).topk(min(top, logits.shape[-1]))
        strings = token_strings(self.model, found.indices.cpu())
        k = found.indices.shape[1]
        return Reading([strings[i * k : (i + 1) * k] for i in range(len(vectors))], found.values.exp().cpu().tolist())


class NearestReadout:
    """The labels of the nearest of some known directions; the weight is the cosine.

    Of token embeddings: an average of embeddings is no residual, so it is read where it lies, among the embeddings.
    Both are taken from the mean of the directions. Raw embeddings share a large mean: the more unlike the vectors of
    an average are, the more it is that mean, whose nearest tokens are the rarely trained ones, cell after cell.
    """

    def __init__(self, name: str, directions: Tensor, labels: Sequence[str]) -> None:
        self.name = name
        self.directions, self.labels = directions.detach().float().cpu(), labels

    @cached_property
    def middle(self) -> Tensor:
        """`[d]`: the mean direction."""
        return self.directions.double().mean(0).float()

    @cached_property
    def unit(self) -> Tensor:
        """`[n, d]`: the directions from their mean, at length 1."""
        return normalize(self.directions - self.middle, dim=1)

    def read(self, vectors: Tensor, top: int) -> Reading:
        found = (normalize(vectors - self.middle, dim=1) @ self.unit.T).topk(min(top, len(self.labels)))
        texts: list[list[str]] = [[str(self.labels[i]) for i in row] for row in found.indices.tolist()]
        return Reading(texts, found.values.tolist())


class DictionaryReadout:
    """The features that are most active on the vector; the weight is the activation. Silent features are left out."""

    def __init__(self, name: str, dictionary: Dictionary, labels: Sequence[str] | None = None) -> None:
        self.name = f"dictionary:{name}"
        self.dictionary, self.labels = dictionary, labels

    def read(self, vectors: Tensor, top: int) -> Reading:
        acts = self.dictionary.encode(vectors).float().cpu()
        found = acts.topk(min(top, acts.shape[-1]))
        texts, weights = [], []
        for indices, values in zip(found.indices.tolist(), found.values.tolist(), strict=True):
            active = [(i, value) for i, value in zip(indices, values, strict=True) if value > 0]
            texts.append([self._label(i) for i, _ in active])
            weights.append([value for _, value in active])
        return Reading(texts, weights)

    def _label(self, feature: int) -> str:
        return (self.labels[feature] if self.labels else "") or f"feature {feature}"
