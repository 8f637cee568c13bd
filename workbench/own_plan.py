"""Settings of `workbench own`, whole or quick, and costs of the steps that show the model as the demo does."""

from dataclasses import dataclass

from interp.geometry.words import CONCEPTS
from interp.tracing.graph import TraceConfig
from interp.tracing.prompts import AnsweredPrompt
from saes.features.case import ProofConfig
from workbench.costs import BATCH, Cost, CostSizes, ModelPace
from workbench.verbs.evaluate import Evaluate

LOGITS = 10 * 4 * 8 * 41
"""Bytes of the logits of the prompts of the induction circuit that are in memory together, for each token."""
PROMPT, ROW = 11, 1e-6
"""Tokens of a prompt, and 10^9 multiplications that a row of a graph takes as long as, for each of its tokens, layers
and dimensions."""


@dataclass(frozen=True, kw_only=True)
class OwnScale:
    """Settings by which a quick run differs from a whole one."""

    tokens: int
    """tokens of text at most"""
    rounds: int
    """rounds of the Jacobian lens"""
    contexts: int
    """held-out contexts of the loss inside the model"""
    layers: int
    """layers whose neurons are described, evenly spread"""
    neuron_tokens: int
    background: int
    """prompts over which the background of graphs is measured"""
    graphs: int
    lists: tuple[str, ...]
    """lists of words whose geometry is measured; all where none is named"""
    proofs: int
    draws: int
    """directions of each null of a proof; with fewer than 99 no claim of five can hold"""
    quick: bool = False
    """only the quick checks of an examination"""


WHOLE = OwnScale(
    tokens=200_000, rounds=6, contexts=Evaluate.contexts, layers=6, neuron_tokens=40_000, background=8, graphs=3,
    lists=("weekdays", "months", "digits"), proofs=3, draws=ProofConfig.draws,
)  # fmt: skip
QUICK = OwnScale(
    tokens=40_000, rounds=2, contexts=8, layers=2, neuron_tokens=15_000, background=3, graphs=1,
    lists=("weekdays",), proofs=1, draws=ProofConfig.draws, quick=True,
)  # fmt: skip


@dataclass(frozen=True)
class OwnFacts:
    """Facts of the model and its text that the steps follow from."""

    sizes: CostSizes
    hook_point: str
    n_layers: int
    n_ctx: int
    prompts: tuple[AnsweredPrompt, ...]
    """prompts that it answers, for graphs; none for a model without MLPs"""
    d_mlp: int
    """neurons of an MLP; 0 without MLPs"""

    def layers(self, n: int) -> tuple[int, ...]:
        """Return `n` layers, evenly spread; none where that is all of them.

        >>> OwnFacts(None, "", 18, 128, (), 2048).layers(6)
        (1, 4, 7, 10, 13, 16)
        """
        return () if n >= self.n_layers else tuple((2 * i + 1) * self.n_layers // (2 * n) for i in range(n))


def further_costs(scale: OwnScale, facts: OwnFacts, pace: ModelPace) -> dict[str, Cost]:
    """Return the cost of each further step, by the kind of artefact, and of a quick examination.

    Counted are passes; the share of a graph's row that one product takes, and constants of a few seconds, are those of
    two models (docs/log.md).
    """
    d_model, layers = facts.sizes.d_in, min(scale.layers, facts.n_layers)
    directions = 2 * layers * facts.d_mlp
    rows = TraceConfig.max_feature_nodes
    traced = rows * PROMPT * facts.n_layers * d_model * ROW * pace.product
    vocabulary = 8 * pace.d_vocab * d_model
    graph = pace.memory + 12 * rows * min(TraceConfig.max_neurons, PROMPT * facts.n_layers * facts.d_mlp)
    read = 1.3 * scale.neuron_tokens / BATCH * pace.blocks
    words = 1.2 * directions / 2 / BATCH * pace.logits
    lists = len(scale.lists or CONCEPTS)
    above = pace.blocks - pace.batch  # steering and ablation run what lies above the hook point
    costs = {
        "neurons": Cost(
            100 * directions, graph + vocabulary, 5 + read + words + 6e-4 * directions + scale.background * traced
        ),
        "attribution_graph": Cost(2e6, graph, 5 + 1.8 * traced),
        "induction_circuit": Cost(1e6, pace.memory + LOGITS * pace.d_vocab, 5 + 10 * pace.blocks),
        "word_geometry": Cost(1e6, pace.memory, lists * (3 + 4 * (pace.blocks + pace.logits))),
        "proof": Cost(1e6, pace.memory + 2 * vocabulary, 10 + scale.draws * (0.1 * above + 0.01 * pace.logits)),
    }
    if scale.quick:
        costs["certificate"] = Cost(1e5, pace.memory + pace.weights, 2 + 0.2 * (pace.blocks + pace.logits))
    return costs
