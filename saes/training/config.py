"""Settings of training: one frozen dataclass per SAE kind, and `TrainConfig` for the run. Torch-free.

`None` means "chosen from the token budget and `d_sae`"; `plan` makes these choices and prints them.
"""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Literal

from interp.errors import ConfigError, UnknownNameError

MIN_STEPS = 250
"""Below this many steps an SAE does not converge at any learning rate: shrink the batch first."""


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Settings that every kind has."""

    kind: ClassVar[str] = ""

    d_sae: int = 4608
    """Number of latents (features)."""

    def __post_init__(self) -> None:
        if self.d_sae < 1:
            raise ConfigError(f"d_sae must be at least 1, got {self.d_sae}")


@dataclass(frozen=True, kw_only=True)
class KConfig(SAEConfig):
    """A kind whose sparsity is a number of latents per token."""

    k: int = 32
    """Latents active per token: exactly (TopK), on average over a batch (BatchTopK), or as a target (JumpReLU)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.d_sae:
            raise ConfigError(f"k must lie between 1 and d_sae = {self.d_sae}, got {self.k}")


@dataclass(frozen=True, kw_only=True)
class TopKConfig(KConfig):
    """The k largest latents of every token (Gao et al. 2024, arXiv 2406.04093)."""

    kind: ClassVar[str] = "topk"


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(KConfig):
    """The `k * n` largest latents of a batch: difficult tokens get more (Bussmann et al. 2024, arXiv 2412.06410)."""

    kind: ClassVar[str] = "batchtopk"


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(KConfig):
    """BatchTopK whose prefixes reconstruct too, general features first (Bussmann et al. 2025, arXiv 2503.17547)."""

    kind: ClassVar[str] = "matryoshka"

    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """Nested prefixes, as rising shares of `d_sae`; the whole dictionary is always added."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in pairwise(self.prefixes))
        _check(
            bool(self.prefixes) and rising and self.prefixes[0] > 0 and self.prefixes[-1] <= 1,
            "prefixes",
            "rising shares of d_sae above 0 and at most 1",
            self.prefixes,
        )


@dataclass(frozen=True, kw_only=True)
class JumpReLUConfig(KConfig):
    """One learned threshold per latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    kind: ClassVar[str] = "jumprelu"

    sparsity: Literal["quadratic", "tanh"] = "quadratic"
    """Penalty: `quadratic` holds L0 at `k`; `tanh` lowers L0 as long as that saves more penalty than it costs in FVU.
    """

    sparsity_coefficient: float = 1.0
    """Weight of the penalty in the loss."""

    bandwidth: float = 0.5
    """Width of the window around a threshold in which pre-activations give it a gradient, in training units (rows have
    mean norm `sqrt(d)`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity not in ("quadratic", "tanh"):
            raise UnknownNameError("sparsity penalty", self.sparsity, ["quadratic", "tanh"])
        _check(self.sparsity_coefficient >= 0, "sparsity_coefficient", "at least 0", self.sparsity_coefficient)
        _check(self.bandwidth > 0, "bandwidth", "above 0", self.bandwidth)


@dataclass(frozen=True, kw_only=True)
class L1Config(SAEConfig):
    """A kind with an L1 penalty."""

    l1_coefficient: float = 0.1
    """Weight of the L1 norm of the activations, in units of the root of the data's variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.l1_coefficient >= 0, "l1_coefficient", "at least 0", self.l1_coefficient)


@dataclass(frozen=True, kw_only=True)
class ReLUConfig(L1Config):
    """ReLU and L1: the baseline (Bricken et al. 2023; Cunningham et al. 2023, arXiv 2309.08600)."""

    kind: ClassVar[str] = "relu"


@dataclass(frozen=True, kw_only=True)
class GatedConfig(L1Config):
    """A gate decides whether a latent fires, a second path how strongly (Rajamanoharan et al. 2024, 2404.16014)."""

    kind: ClassVar[str] = "gated"

    l1_coefficient: float = 0.3
    """Weight of the L1 norm of the gate, in units of the root of the data's variance. At .1, enough for relu, dozens of
    latents fire where four features are on, since the penalty does not shrink magnitudes."""


@dataclass(frozen=True, kw_only=True)
class TranscoderConfig(KConfig):
    """Latents of one hook point that reconstruct another (Dunefsky et al. 2024, arXiv 2406.11944)."""

    kind: ClassVar[str] = "transcoder"

    target: str = ""
    """Hook point to reconstruct, in the same recording; for an MLP its output."""

    skip: bool = False
    """Learn a linear skip connection too (Paulo et al. 2025, arXiv 2501.18823)."""

    selection: Literal["topk", "batchtopk", "matryoshka", "jumprelu", "relu", "gated"] = "batchtopk"
    """Kind whose latents and penalty it has; `l1_coefficient` is for relu and gated, `sparsity` for jumprelu,
    `prefixes` for matryoshka."""

    l1_coefficient: float | None = None
    """Weight of the L1 norm. Default: that of a relu or gated SAE."""

    sparsity: Literal["quadratic", "tanh"] = "quadratic"
    """Penalty, as in a jumprelu SAE."""

    prefixes: tuple[float, ...] = MatryoshkaConfig.prefixes
    """Nested prefixes, as in a matryoshka SAE."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target:
            raise ConfigError("a transcoder needs a target: the hook point whose activations it is to reconstruct")
        if self.selection not in SELECTIONS:
            raise UnknownNameError("selection", self.selection, SELECTIONS)
        self.selects()

    def selects(self) -> SAEConfig:
        """Return the settings of the SAE of the same kind: those of them that it shares with this config."""
        config = SELECTIONS[self.selection]
        shared = {f.name: getattr(self, f.name) for f in fields(config) if hasattr(self, f.name)}
        return config(**{name: value for name, value in shared.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class CrossLayerConfig(KConfig):
    """Latents of every layer that write to the MLP outputs of it and of all later layers (Ameisen et al. 2025).

    `d_sae` and `k` are those of one layer.
    """

    kind: ClassVar[str] = "cross_layer"

    target: str = "hook_mlp_out"
    """Hook point inside a block that is reconstructed."""

    skip: bool = False
    """Learn a linear skip connection for each layer too."""

    selection: Literal["jumprelu", "batchtopk"] = "jumprelu"
    """Thresholds learned under a tanh penalty, or the largest activations of a batch over all layers together."""

    sparsity_coefficient: float = 1.0
    """Weight of the tanh penalty at the end of the run; it rises from 0 over the whole run."""

    tanh_scale: float = 4.0
    """`c` of the penalty `tanh(c * activation * decoder norm)`."""

    bandwidth: float = 1.0
    """Width of the window around a threshold in which pre-activations give it a gradient, in training units."""

    threshold: float = 0.03
    """Threshold at the start, in training units."""

    dead_coefficient: float = 3e-6
    """Weight of the penalty that lifts the pre-activations of dead latents."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection not in ("jumprelu", "batchtopk"):
            raise UnknownNameError("selection across layers", self.selection, ["jumprelu", "batchtopk"])
        for name in ("sparsity_coefficient", "threshold", "dead_coefficient"):
            _check(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("tanh_scale", "bandwidth"):
            _check(getattr(self, name) > 0, name, "above 0", getattr(self, name))


SELECTIONS: dict[str, type[SAEConfig]] = {
    c.kind: c for c in (TopKConfig, BatchTopKConfig, MatryoshkaConfig, JumpReLUConfig, ReLUConfig, GatedConfig)
}
"""Kinds that a transcoder's latents can have."""


@dataclass(frozen=True, kw_only=True)
class CrosscoderConfig(KConfig):
    """One set of latents for several hook points or models (Lindsey et al. 2024, "Sparse crosscoders")."""

    kind: ClassVar[str] = "crosscoder"

    sparsity: Literal["batchtopk", "l1"] = "batchtopk"
    """`k` latents per token on average, or an L1 penalty of weight `l1_coefficient` (then `k` has no effect)."""

    l1_coefficient: float = 0.1
    """Weight of the L1 norm of activation times decoder norm, in units of the root of the data's variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity not in ("batchtopk", "l1"):
            raise UnknownNameError("sparsity of a crosscoder", self.sparsity, ["batchtopk", "l1"])
        _check(self.l1_coefficient >= 0, "l1_coefficient", "at least 0", self.l1_coefficient)


_KINDS: tuple[type[SAEConfig], ...] = (
    *SELECTIONS.values(),
    TranscoderConfig,
    CrosscoderConfig,
)
CONFIGS: dict[str, type[SAEConfig]] = {c.kind: c for c in _KINDS}


def make_config(kind: str, **settings: Any) -> SAEConfig:
    """Return the config of a kind, by name.

    Raises `UnknownNameError` with the known kinds, `ConfigError` for a setting that this kind does not have.
    """
    if kind not in CONFIGS:
        raise UnknownNameError("SAE kind", kind, CONFIGS)
    own = [field.name for field in fields(CONFIGS[kind])]
    foreign = [name for name in settings if name not in own]
    if foreign:
        raise ConfigError(f"a {kind} SAE has no {', '.join(foreign)}; its settings are {', '.join(own)}")
    return CONFIGS[kind](**settings)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run, the same for every kind."""

    tokens: int = 1_100_000
    """Tokens to train on. Each token of the recording is seen once per epoch; epochs repeat until the budget is spent.
    """

    batch_size: int | None = None
    """Tokens per step. Default: 4,096, halved until the run has at least 250 steps (not below 256)."""

    lr: float | None = None
    """Peak learning rate of Adam. Default: by the size of the dictionary and the length of the run (`choose_lr`)."""

    warmup_steps: int = 20
    """Steps of linear warm-up from 0, at most a tenth of the run."""

    decay_fraction: float = 0.2
    """Share of the run, at its end, over which the learning rate falls linearly to 0."""

    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss, by which dead latents learn to predict the reconstruction error; 0: no AuxK."""

    k_aux: int | None = None
    """Dead latents used per token in AuxK. Default: the power of two nearest d_in / 2 (Gao et al. 2024, A.2)."""

    dead_window: int | None = None
    """A latent is dead when it has not fired for this many tokens. Default: a tenth of the run, at most 10 million."""

    sparsity_warmup: float = 0.05
    """Share of the run, at its start, over which a sparsity penalty (JumpReLU, ReLU, Gated) rises to its full weight.
    """

    clip_norm: float = 1.0
    """Maximum norm of the gradient of all parameters together; longer ones are rescaled to it."""

    heldout_fraction: float = 0.1
    """Share of documents held out from training, for the final evaluation."""

    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the dense encoder product. bfloat16 is faster on machines with native bfloat16 products."""

    checkpoint_every: int = 200
    """Steps between checkpoints."""

    log_every: int = 10
    """Steps between health lines."""

    seed: int = 0
    """Seed of the initial weights and of the order of tokens."""

    def __post_init__(self) -> None:
        _check(self.tokens >= 1, "tokens", "at least 1", self.tokens)
        _check(self.batch_size is None or self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        _check(self.lr is None or 0 < self.lr < 1, "lr", "between 0 and 1", self.lr)
        _check(self.warmup_steps >= 0, "warmup_steps", "at least 0", self.warmup_steps)
        _check(0 <= self.decay_fraction <= 1, "decay_fraction", "between 0 and 1", self.decay_fraction)
        _check(self.aux_coefficient >= 0, "aux_coefficient", "at least 0", self.aux_coefficient)
        _check(self.k_aux is None or self.k_aux >= 1, "k_aux", "at least 1", self.k_aux)
        _check(0 <= self.sparsity_warmup <= 1, "sparsity_warmup", "between 0 and 1", self.sparsity_warmup)
        _check(self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)
        _check(0 < self.heldout_fraction < 1, "heldout_fraction", "between 0 and 1", self.heldout_fraction)
        _check(self.checkpoint_every >= 1, "checkpoint_every", "at least 1", self.checkpoint_every)
        _check(self.log_every >= 1, "log_every", "at least 1", self.log_every)
        if self.encoder_dtype not in ("float32", "bfloat16"):
            raise UnknownNameError("encoder dtype", self.encoder_dtype, ["float32", "bfloat16"])
        if self.dead_window is not None and not 1 <= self.dead_window < self.tokens:
            raise ConfigError(
                f"dead_window must be shorter than the run of {self.tokens:,} tokens, got {self.dead_window:,}; "
                "a longer one could never find a dead latent: leave it out to have it chosen"
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A `TrainConfig` with every default resolved."""

    n_steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    decay_start: int
    """First step of the decay."""
    k_aux: int
    dead_window: int
    sparsity_warmup_steps: int

    def lr_at(self, step: int) -> float:
        """Return the learning rate of step `step` (from 0): linear warm-up, constant, linear decay to almost 0."""
        up = (step + 1) / (self.warmup_steps + 1)
        down = (self.n_steps - step) / (self.n_steps - self.decay_start + 1)
        return self.lr * min(1.0, up, down)

    def __str__(self) -> str:
        return (
            f"{self.n_steps:,} steps of {self.batch_size:,} tokens, learning rate {self.lr:.1e} "
            f"({self.warmup_steps} steps up, down from {self.decay_start:,}), dead after {self.dead_window:,} tokens"
        )


def plan(train: TrainConfig, *, d_in: int, d_sae: int) -> Plan:
    """Resolve every number of a run from the token budget and the sizes.

    Raises `ConfigError` when the budget is less than one batch.
    """
    batch = train.batch_size or choose_batch(train.tokens)
    n_steps = train.tokens // batch
    if n_steps < 1:
        raise ConfigError(
            f"a run of {train.tokens:,} tokens has no batch of {batch:,}; raise tokens or lower batch_size"
        )
    return Plan(
        n_steps=n_steps,
        batch_size=batch,
        lr=train.lr or choose_lr(n_steps, d_sae),
        warmup_steps=min(train.warmup_steps, n_steps // 10),
        decay_start=n_steps - round(train.decay_fraction * n_steps),
        k_aux=min(train.k_aux or 2 ** round(math.log2(max(2, d_in / 2))), d_sae),
        dead_window=train.dead_window or max(1, min(10_000_000, train.tokens // 10)),
        sparsity_warmup_steps=round(train.sparsity_warmup * n_steps),
    )


def choose_batch(tokens: int) -> int:
    """Return 4,096, halved until the run has `MIN_STEPS` steps; never below 256."""
    batch = 4096
    while batch > 256 and tokens // batch < MIN_STEPS:
        batch //= 2
    return batch


def choose_lr(n_steps: int, d_sae: int) -> float:
    """Return `2e-4 * sqrt(2^14 / d_sae)` (Gao et al. 2024, figure 3), raised for runs of fewer than 10,000 steps.

    With unit-norm decoder rows Adam rotates a direction by about `lr` a step, so the angle that it can cover grows as
    `lr * sqrt(n_steps)`. Below 10,000 steps the rate is multiplied by `sqrt(10_000 / n_steps)`, at most 8.
    """
    return 2e-4 * math.sqrt(2**14 / d_sae) * min(8.0, max(1.0, math.sqrt(10_000 / n_steps)))


def _check(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {came}")
