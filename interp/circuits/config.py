"""Settings of the circuit analyses. Torch-free: the command line inherits them."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from interp.errors import ConfigError, UnknownNameError
from interp.names import HEAD_KINDS
from interp.nulls import PER_PART
from interp.options import BASIC, Derived, Seed, check_least, check_positive

Method = Literal["exact", "eap", "eap-ig", "acdc"]
Ablation = Literal["resample", "other", "mean", "zero"]
By = Literal["abs", "signed"]
Level = Literal["edge", "node"]
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Circuit sizes at which the Mechanistic Interpretability Benchmark measures a ranking, as fractions of all edges."""


@dataclass(frozen=True, kw_only=True)
class HeadScoresConfig:
    """Settings of the scores of heads by kind."""

    n_prompts: Annotated[int, BASIC] = 16
    """Prompts per seed."""
    context_length: int = 101
    """Tokens per prompt, BOS included."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of independent draws of prompts; the first also draws the weights of the untrained model."""
    min_lag: int = 20
    """Shortest block that repeats."""
    max_lag: int = 50
    """Longest block that repeats."""
    batch_size: int = 16
    """Prompts per forward pass."""
    kinds: tuple[str, ...] = ()
    """Kinds to score. Default: all but those on text, which take passes of their own: predecessor."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in HEAD_KINDS:
                raise UnknownNameError("kind of head", kind, HEAD_KINDS)
        if not self.seeds or self.n_prompts < 1 or self.n_prompts * len(self.seeds) < 2 or self.batch_size < 1:
            raise ConfigError(
                f"an interval needs at least two prompts, got {self.n_prompts} for {len(self.seeds)} seeds, in batches "
                f"of {self.batch_size}"
            )
        if not 1 <= self.min_lag <= self.max_lag:
            raise ConfigError(f"lags must rise from at least 1, got {self.min_lag} to {self.max_lag}")


@dataclass(frozen=True, kw_only=True)
class InductionConfig:
    """Settings of the search for the induction circuit."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of independent draws of prompts: the first draw chooses senders, the others test them."""
    prompts_per_seed: int = 8
    """Prompts of each draw."""
    context_length: int | None = None
    """Tokens per prompt, BOS included. Default: 65, or the model's context when that is shorter."""
    lag: Derived[int | None] = None
    """Length of the block that repeats. Default: each length from a quarter to half of the prompt."""
    batch_size: int = 8
    """Prompts per forward pass."""
    max_candidates: int = 24
    """Largest number of heads tested for a sender, highest induction scores first."""
    screening_prompts: int = 4
    """Prompts of the first draw on which every earlier head is tested as a sender."""

    def __post_init__(self) -> None:
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                f"at least two different seeds are needed, one to choose senders and one to test them, got {self.seeds}"
            )
        check_least(self, {"prompts_per_seed": 3, "batch_size": 1, "max_candidates": 1})


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of a circuit's evaluation. Every random circuit, half and edge costs a run on all prompts."""

    ablation: Ablation | None = None
    """Values on edges outside the circuit: resample, other, mean or zero. Default: as in the circuit's settings."""
    n_random: int = PER_PART
    """Number of random circuits of the same size, the null distribution (for a curve: per size)."""
    n_knockouts: int = 4
    """Number of random halves of the circuit that are removed, for completeness."""
    n_minimality: int = 20
    """Number of random edges of the circuit that are removed one by one, for minimality."""
    untrained: bool = True
    """Also measure the gap of an untrained model."""
    fractions: tuple[float, ...] = FRACTIONS
    """Sizes of the circuits on the faithfulness curve, as fractions of all edges."""
    batch_size: int = 16
    """Prompts per forward pass."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        check_least(self, {"n_random": 0, "n_knockouts": 0, "n_minimality": 0, "batch_size": 1})
        if len(self.fractions) < 2 or list(self.fractions) != sorted(set(self.fractions)) or self.fractions[-1] > 1:
            raise ConfigError(f"fractions must rise from above 0 to at most 1, got {self.fractions}")


@dataclass(frozen=True, kw_only=True)
class FindConfig:
    """Settings of the search for a task's circuit."""

    method: Annotated[Method, BASIC] = "eap-ig"
    """Scores of edges: integrated gradients (eap-ig), one gradient (eap), or one forward pass per edge (exact,
    acdc)."""
    steps: int = 5
    """Gradients per prompt, for eap-ig."""
    ablation: Ablation = "resample"
    """Values on edges outside the circuit: of the corrupted prompt (resample), of another corrupted prompt of the same
    length (other), their mean over prompts, or zero."""
    by: By = "abs"
    """Rank edges by absolute score (abs), or by signed score."""
    level: Level = "edge"
    """Rank edges, or whole heads and MLPs (node); then the circuit is all edges among the highest-ranked nodes."""
    n_edges: Annotated[int | None, BASIC] = None
    """Edges (nodes, at that level) of the circuit before pruning. Default: the smallest size on the curve that reaches
    `faithfulness`."""
    faithfulness: float = 0.8
    """Faithfulness that decides the size: 0 is the corrupted value of the metric, 1 the clean one."""
    verify: int = 20
    """Number of highest-ranked edges that are patched one by one to check the scores; 0 for none."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_least(self, {"n_edges": 1})
        check_positive(self, "faithfulness")
        if self.verify < 0 or self.verify == 1:
            raise ConfigError(f"verify must be 0 or at least 2, got {self.verify}; an agreement needs two edges")
