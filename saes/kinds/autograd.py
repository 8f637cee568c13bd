"""Kinds that need a loss, not a gradient: a class with `encode`, `decode` and `loss`, trained by autograd.

    class Soft(AutogradKind):
        def __init__(self, sizes: Sizes, *, penalty: float = 0.1):
            super().__init__(sizes)                         # W_dec [d_sae, d_out] and b_dec [d_out]
            self.penalty = penalty
            self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())

        def encode(self, x):
            return ((x - self.b_dec) @ self.W_enc).relu()

        def loss(self, batch, acts, recons):
            return batch.fvu(recons) + batch.warmth * self.penalty * acts.sum(-1).mean()

Such a kind trains in the loop of every other (`saes.training`), with its schedules, ranks that share tokens, log,
checkpoints and held-out scores; `AutogradSAE` is its trained form. `saes.kinds.own` finds a class in a file of one's
own; kinds of this tree are named in `registry`.

A step costs several times that of a `Recipe` with its gradients written out (`benchmarks/sae_step.py`), since products
with the decoder are dense.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ConfigError
from interp.seeds import derive_seed, make_generator
from saes.kernels.autograd import BatchMeasurements, Learner, LossInputs, bind
from saes.kernels.state import RunState
from saes.kinds.base import SAE, Finished, SAEMetadata, Scales

RESERVED = ("silent", "density")
_PROBE = 4
_CHUNK = 1 << 24


class DictionarySizes(NamedTuple):
    """Sizes of a dictionary to train, and the mean of its target."""

    d_in: int
    d_sae: int
    mean: Tensor
    """`[d_out]` in training units; `[n_layers, d_out]` with several layers"""

    @property
    def d_out(self) -> int:
        return self.mean.shape[-1]


class AutogradKind(Learner):
    """A dictionary in training. Everything is in training units (rows of mean norm `sqrt(d)`).

    Subclasses write `encode`, and whatever differs of `decode`, `loss`, `constrain`. Keyword-only arguments of
    `__init__` after `sizes` are the settings of the kind. Parameters and buffers are checkpointed, and saved with the
    dictionary.
    """

    W_dec: nn.Parameter
    b_dec: nn.Parameter
    name = ""
    """Name of the kind; with `settings` set by `named`."""
    settings: Mapping[str, object] = {}

    def __init__(self, sizes: DictionarySizes):
        """Draw random decoder rows of norm 1; the bias starts at the mean of the target."""
        super().__init__()
        self.d_sae = sizes.d_sae
        rows = torch.randn(sizes.d_sae, sizes.d_out)
        self.W_dec = nn.Parameter(nn.functional.normalize(rows, dim=1))
        self.b_dec = nn.Parameter(sizes.mean.clone())

    @abstractmethod
    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Return activations >= 0, 0 where a latent is silent."""

    def decode(self, acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_out"]:
        """Return the reconstruction: a sum of directions, one for each latent, and a bias."""
        return acts @ self.W_dec + self.b_dec

    def loss(
        self, batch: LossInputs, acts: Float[Tensor, "n d_sae"], recons: Float[Tensor, "n d_out"]
    ) -> Float[Tensor, ""]:
        """Return the loss, a mean over the tokens of the batch. Default: the fraction of variance unexplained."""
        return batch.fvu(recons)

    def measure(self, batch: LossInputs) -> BatchMeasurements:
        """Return what a step needs of a batch. Override it for a kind that reads more of it than `x`."""
        acts = self.encode(batch.x)
        recons = self.decode(acts)
        return BatchMeasurements(self.loss(batch, acts, recons), batch.fvu(recons.detach()), acts)

    def finish(self, finished: Finished) -> nn.Module:
        """Return the dictionary for raw activations; the parameters are those at the end of training."""
        return AutogradSAE(self, finished.scales, metadata=finished.metadata)

    def named(self, name: str, settings: Mapping[str, object]) -> "AutogradKind":
        """Set name and settings, with which the trained dictionary is saved."""
        self.name, self.settings = name, dict(settings)
        return self


@final
class AutogradSAE(SAE):
    """The trained form of any kind: its own `encode`, between the scales of training and raw activations.

    `W_dec` and `b_dec` are read off the kind's `decode`: the reconstruction is `acts @ W_dec + b_dec` in the units of
    the model.
    """

    subtracts_b_dec = False

    def __init__(self, kind: AutogradKind, scales: Scales, *, metadata: SAEMetadata | None = None):
        super().__init__()
        self.kind, self.architecture, self.settings = kind.requires_grad_(False).eval(), kind.name, kind.settings
        shift = torch.zeros_like(scales.input) if scales.shift is None else scales.shift
        unit = torch.tensor(scales.unit, dtype=torch.float64)
        for name, value in (("input", scales.input), ("shift", shift), ("output", scales.output), ("unit", unit)):
            self.register_buffer(f"{name}_scale", value.float())
        bias, directions = affine_parts(kind)
        self.W_dec = nn.Parameter(directions * (self.unit_scale / self.output_scale), requires_grad=False)
        self.b_dec = nn.Parameter(bias / self.output_scale, requires_grad=False)
        self.describe(len(self.input_scale), metadata)

    input_scale: Tensor
    shift_scale: Tensor
    output_scale: Tensor
    unit_scale: Tensor

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        return self.kind.encode(x.to(self.W_dec.dtype) * self.input_scale - self.shift_scale) / self.unit_scale

    def saved_tensors(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.state_dict().items() if name not in ("W_dec", "b_dec")}

    def extra_config(self) -> dict[str, object]:
        return {"d_out": self.d_out, "settings": dict(self.settings)}


@torch.no_grad()
def affine_parts(kind: AutogradKind) -> tuple[Float[Tensor, " d_out"], Float[Tensor, "d_sae d_out"]]:
    """Return bias and directions of a kind's `decode`."""
    zero = next(kind.parameters()).new_zeros(1, kind.d_sae)
    bias, chunks = kind.decode(zero)[0], torch.arange(kind.d_sae).split(max(1, _CHUNK // kind.d_sae))
    rows = (kind.decode(nn.functional.one_hot(chosen, kind.d_sae).to(zero)) - bias for chosen in chunks)
    return bias, torch.cat(list(rows))


class AutogradRecipe:
    """Training side of a kind with a loss: the counterpart of `saes.kinds.base.TrainingRecipe`."""

    shares_latents = False

    def __init__(self, stream: str, make: Callable[[DictionarySizes], AutogradKind]):
        """`make` builds the kind; its random numbers are those of the random stream."""
        self._stream, self._make = stream, make

    def build(self, sizes: DictionarySizes, seed: int) -> AutogradKind:
        """Return the kind before its first step: the same for the same seed, whatever it draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, self._stream, "initial weights"))
            return self._make(sizes)

    def start(self, sizes: DictionarySizes, seed: int) -> RunState:
        """Return the state before the first step. Raises `ConfigError` for a kind that cannot be trained."""
        kind = self.build(sizes, seed)
        _check(kind, sizes)
        shape = (*sizes.mean.shape[:-1], sizes.d_sae)
        state = RunState(
            silent=torch.zeros(shape, dtype=torch.int64),
            density=torch.zeros(shape),
            extra={name: p.detach().contiguous() for name, p in kind.named_parameters()},
            buffers={name: b.detach().contiguous() for name, b in kind.named_buffers()},
        )
        state.zero_moments()
        return state

    def finish(self, sizes: DictionarySizes, seed: int, state: RunState, finished: Finished) -> nn.Module:
        """Return the dictionary of a state, ready for use."""
        kind = self.build(sizes, seed)
        bind(kind, state)
        return kind.requires_grad_(False).finish(finished)


@torch.no_grad()
def _check(kind: AutogradKind, sizes: DictionarySizes) -> None:
    """Raise `ConfigError` where names cannot be saved, or where a reconstruction is not a sum of directions."""
    what = type(kind).__name__
    tensors = {**dict(kind.named_parameters()), **dict(kind.named_buffers())}
    if wrong := [n for n in tensors if n in RESERVED or n.endswith((".mean", ".square"))]:
        raise ConfigError(f"{what} has a parameter {wrong[0]}, a name that checkpoints use; choose another")
    if sizes.mean.ndim > 1:
        return
    generator = make_generator(0, "affine")
    a, b = (torch.rand(_PROBE, sizes.d_sae, generator=generator) for _ in range(2))
    both, apart = kind.decode(a + b) + kind.decode(torch.zeros_like(a)), kind.decode(a) + kind.decode(b)
    if not torch.allclose(both, apart, atol=1e-3 * float(apart.abs().max()), rtol=1e-3):
        raise ConfigError(
            f"{what}.decode must be a sum of one direction for each latent and a bias, so that a latent has a "
            "direction, but it is not linear; put what is not linear into `encode`"
        )
