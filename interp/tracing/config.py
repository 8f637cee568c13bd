"""Settings of attribution graphs. Torch-free: the command line inherits them."""

from dataclasses import dataclass

from interp.errors import ConfigError
from interp.options import Seed


@dataclass(frozen=True, kw_only=True)
class TraceConfig:
    """Settings of an attribution graph."""

    max_feature_nodes: int = 4096
    """Largest number of active latents that get a row of edges: those with most influence on the targets so far."""
    max_logits: int = 10
    """Largest number of next tokens that become targets, unless targets are named."""
    logit_share: float = 0.95
    """The targets are the fewest next tokens whose probabilities sum to this."""
    node_share: float = 0.8
    """Nodes that hold this share of all influence are kept in the pruned graph."""
    edge_share: float = 0.98
    """Edges that hold this share of the scores between kept nodes are kept."""
    max_neurons: int = 30_000
    """With MLP neurons as the dictionary: the largest number of neurons that become nodes, by activation times length
    of the output weights. The others of a layer and position are part of its error node."""
    skip_positions: int = 1
    """First positions without latents and errors: BOS, whose activations are outliers. Gemma 3 instruct: 4."""
    batch_size: int = 256
    """Rows that are computed together."""
    effects: int = 48
    """Latents that are ablated in the free model, to compare the effects with the graph's prediction; 0 for none."""
    nulls: bool = True
    """Also compute the scores of the same prompt without any latent, and with an untrained dictionary."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        if min(self.max_feature_nodes, self.max_logits, self.batch_size, self.max_neurons) < 1:
            raise ConfigError(
                "max_feature_nodes, max_logits, max_neurons and batch_size must be at least 1, got "
                f"{self.max_feature_nodes}, {self.max_logits}, {self.max_neurons}, {self.batch_size}"
            )
        shares = {name: getattr(self, name) for name in ("logit_share", "node_share", "edge_share")}
        for name, value in shares.items():
            if not 0 < value <= 1:
                raise ConfigError(f"{name} must be above 0 and at most 1, got {value}")
        if self.effects < 0 or self.skip_positions < 0:
            raise ConfigError(f"effects and skip_positions must be >= 0, got {self.effects}, {self.skip_positions}")
