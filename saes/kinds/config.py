"""Settings of the kinds of dictionary: one frozen dataclass each. Torch-free."""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Union

from interp.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Settings that every kind has."""

    kind: str = ""
    """Name of the kind."""

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

    kind: Literal["topk"] = "topk"


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(KConfig):
    """The `k * n` largest latents of a batch: difficult tokens get more (Bussmann et al. 2024, arXiv 2412.06410)."""

    kind: Literal["batchtopk"] = "batchtopk"


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(KConfig):
    """BatchTopK whose prefixes reconstruct too, general features first (Bussmann et al. 2025, arXiv 2503.17547)."""

    kind: Literal["matryoshka"] = "matryoshka"

    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """Nested prefixes, as rising shares of `d_sae`; the whole dictionary is always added."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in pairwise(self.prefixes))
        check_setting(
            bool(self.prefixes) and rising and self.prefixes[0] > 0 and self.prefixes[-1] <= 1,
            "prefixes",
            "rising shares of d_sae above 0 and at most 1",
            self.prefixes,
        )


@dataclass(frozen=True, kw_only=True)
class JumpReLUConfig(KConfig):
    """One learned threshold per latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    kind: Literal["jumprelu"] = "jumprelu"

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
        check_setting(self.sparsity_coefficient >= 0, "sparsity_coefficient", "at least 0", self.sparsity_coefficient)
        check_setting(self.bandwidth > 0, "bandwidth", "above 0", self.bandwidth)


@dataclass(frozen=True, kw_only=True)
class L1Config(SAEConfig):
    """A kind with an L1 penalty."""

    l1_coefficient: float = 0.1
    """Weight of the L1 norm of the activations, in units of the root of the data's variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting(self.l1_coefficient >= 0, "l1_coefficient", "at least 0", self.l1_coefficient)


@dataclass(frozen=True, kw_only=True)
class ReLUConfig(L1Config):
    """ReLU and L1: the baseline (Bricken et al. 2023; Cunningham et al. 2023, arXiv 2309.08600)."""

    kind: Literal["relu"] = "relu"


@dataclass(frozen=True, kw_only=True)
class GatedConfig(L1Config):
    """A gate decides whether a latent fires, a second path how strongly (Rajamanoharan et al. 2024, 2404.16014)."""

    kind: Literal["gated"] = "gated"

    l1_coefficient: float = 0.3
    """Weight of the L1 norm of the gate, in units of the root of the data's variance. At 0.1, enough for relu, dozens
    of latents fire where four features are on, since the penalty does not shrink magnitudes."""


@dataclass(frozen=True, kw_only=True)
class TranscoderConfig(KConfig):
    """Latents of one hook point that reconstruct another (Dunefsky et al. 2024, arXiv 2406.11944)."""

    kind: Literal["transcoder"] = "transcoder"

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
        shared = {name: getattr(self, name) for name in setting_names(config) if hasattr(self, name)}
        return config(**{name: value for name, value in shared.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class OwnConfig(SAEConfig):
    """A kind in a file of one's own (`saes.kinds.own.own_config` makes the config)."""

    code: str
    """sha256 of the file: an unfinished run with other code is another one."""

    settings: dict[str, bool | int | float | str]
    """Settings of its class, defaults included."""


@dataclass(frozen=True, kw_only=True)
class CrossLayerConfig(KConfig):
    """Latents of every layer that write to the MLP outputs of it and of all later layers (Ameisen et al. 2025).

    `d_sae` and `k` are those of one layer.
    """

    kind: Literal["cross_layer"] = "cross_layer"

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
            check_setting(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("tanh_scale", "bandwidth"):
            check_setting(getattr(self, name) > 0, name, "above 0", getattr(self, name))


SELECTIONS: dict[str, type[SAEConfig]] = {
    c.kind: c for c in (TopKConfig, BatchTopKConfig, MatryoshkaConfig, JumpReLUConfig, ReLUConfig, GatedConfig)
}
"""Kinds that a transcoder's latents can have."""


@dataclass(frozen=True, kw_only=True)
class CrosscoderConfig(KConfig):
    """One set of latents for several hook points or models (Lindsey et al. 2024, "Sparse crosscoders")."""

    kind: Literal["crosscoder"] = "crosscoder"

    sparsity: Literal["batchtopk", "l1"] = "batchtopk"
    """`k` latents per token on average, or an L1 penalty of weight `l1_coefficient` (then `k` has no effect)."""

    l1_coefficient: float = 0.1
    """Weight of the L1 norm of activation times decoder norm, in units of the root of the data's variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity not in ("batchtopk", "l1"):
            raise UnknownNameError("sparsity of a crosscoder", self.sparsity, ["batchtopk", "l1"])
        check_setting(self.l1_coefficient >= 0, "l1_coefficient", "at least 0", self.l1_coefficient)


_KINDS: tuple[type[SAEConfig], ...] = (
    *SELECTIONS.values(),
    TranscoderConfig,
    CrosscoderConfig,
)
CONFIGS: dict[str, type[SAEConfig]] = {c.kind: c for c in _KINDS}

if TYPE_CHECKING:
    AnyConfig = SAEConfig
else:
    AnyConfig = Union[(*_KINDS, CrossLayerConfig, OwnConfig)]  # read from JSON by `kind`, one's own by its fields


def setting_names(config: type[SAEConfig]) -> list[str]:
    """Return the names of the settings of a kind."""
    return [field.name for field in fields(config) if field.name != "kind"]


def make_config(kind: str, **settings: Any) -> SAEConfig:
    """Return the config of a kind, by name.

    Raises `UnknownNameError` with the known kinds, `ConfigError` for a setting that this kind does not have.
    """
    if kind not in CONFIGS:
        raise UnknownNameError("SAE kind", kind, CONFIGS)
    names = setting_names(CONFIGS[kind])
    foreign = [name for name in settings if name not in names]
    if foreign:
        raise ConfigError(f"a {kind} SAE has no {', '.join(foreign)}; its settings are {', '.join(names)}")
    return CONFIGS[kind](**settings)


def check_setting(holds: bool, name: str, expected: str, came: object) -> None:
    """Raise `ConfigError` with the name of a setting, what it must be and what came, unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {came}")
