"""Steps of `workbench own`: their settings, whole or quick, and what the further ones cost.

The first steps follow from the text: recording, dictionary, lens, features, evaluation, map, heads. The further ones
show the model as the demo does: neurons of some layers, word geometry, the induction circuit, attribution graphs of
prompts that it answers, and proofs of features, which are chosen once features are described.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.geometry.words import CONCEPTS
from interp.tracing.graph import TraceConfig
from interp.tracing.prompts import AnsweredPrompt
from saes.features.case import ProofConfig
from workbench.costs import BATCH, Cost, CostSizes, ModelPace
from workbench.first_look import certificate_name
from workbench.steps import WorkspaceStep
from workbench.terminal import slug
from workbench.verbs.atlas import Atlas
from workbench.verbs.circuit import Induction
from workbench.verbs.doctor import Doctor
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.features import DescribeFeatures, DescribeNeurons, Prove
from workbench.verbs.geometry import Shapes
from workbench.verbs.heads import FitLens, Heads
from workbench.verbs.record import Record
from workbench.verbs.trace import TracePrompt
from workbench.verbs.train import Train

if TYPE_CHECKING:
    from workbench.own import Own

PROMPT, ROW = 11, 1e-6
"""Tokens of a prompt, and 10^9 multiplications that a row of a graph takes as long as, for each of its tokens, layers
and dimensions."""
INDUCTION_TOKENS = 41
"""Tokens of a prompt of the induction circuit, as in the demo."""


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
    tokens=200_000, rounds=10, contexts=Evaluate.contexts, layers=6, neuron_tokens=40_000, background=8, graphs=3,
    lists=(), proofs=3, draws=ProofConfig.draws,
)  # fmt: skip
QUICK = OwnScale(
    tokens=40_000, rounds=3, contexts=8, layers=2, neuron_tokens=15_000, background=3, graphs=1,
    lists=("weekdays", "months"), proofs=1, draws=ProofConfig.draws, quick=True,
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


def steps_of(own: "Own", facts: OwnFacts) -> list[WorkspaceStep]:
    """Return the steps in their order, all but the proofs; options that they share are not filled in."""
    first, last = _examinations(own)
    return [*first, *_of_text(own, facts), *_of_model(own, facts), *last]


def _examinations(own: "Own") -> tuple[list[WorkspaceStep], list[WorkspaceStep]]:
    """Return the examination of the model, which comes first, and that of the dictionary, which comes last."""
    if not own.doctor:
        return [], []
    model, made = own.model, own.made
    examined, whole = certificate_name(model), certificate_name(model, f"saes/{made}")
    why = "Is any number of this set-up silently wrong?"
    last = Doctor(model=model, dictionary=made, name=whole, quick=own.scale.quick)
    return (
        [WorkspaceStep("Examine the model", why, Doctor(model=model, name=examined, quick=own.scale.quick))],
        [WorkspaceStep("Examine the dictionary", why, last, needs=("sae",))],
    )


def _of_text(own: "Own", facts: OwnFacts) -> Iterator[WorkspaceStep]:
    """Yield the steps from the text to the map of the features."""
    made, sizes = own.made, facts.sizes
    yield WorkspaceStep(
        "Record",
        f"Its activations at {facts.hook_point} are stored.",
        Record(
            model=own.model, name=made, corpus=own.text, column=own.column, hook_points=(facts.hook_point,),
            tokens=sizes.tokens, compute=own.dtype,
        ),
    )  # fmt: skip
    yield WorkspaceStep(
        "Train a sparse autoencoder",
        f"It writes each activation as a sum of about {own.k} of {sizes.d_sae:,} directions: the features.",
        Train(recording=made, name=made, kind="batchtopk", d_sae=(sizes.d_sae,), k=(own.k,), tokens=sizes.seen),
        needs=("recording",),
    )
    if sizes.rounds:
        yield WorkspaceStep(
            "Fit a Jacobian lens",
            "The mean derivative of the last residual: what a direction makes the model say.",
            FitLens(model=own.model, name=made, kind="jacobian", recording=made, rounds=sizes.rounds),
            needs=("recording",),
        )
    yield WorkspaceStep(
        "Describe every feature",
        "Where does it fire, and what does it make the model say?",
        DescribeFeatures(dictionary=made, name=made),
        needs=("sae",),
    )
    yield WorkspaceStep(
        "Evaluate the dictionary",
        "On held-out documents, and inside the model.",
        Evaluate(sae=made, name=made, contexts=own.scale.contexts),
        needs=("sae",),
    )
    yield WorkspaceStep(
        "Map the features",
        "Features with similar directions lie close together.",
        Atlas(source=f"sae:{made}", name=f"{made}-features"),
        needs=("sae",),
    )


def _of_model(own: "Own", facts: OwnFacts) -> Iterator[WorkspaceStep]:
    """Yield the steps that show the model as the demo does."""
    made, scale = own.made, own.scale
    yield WorkspaceStep(
        "Score every attention head",
        "Which attend to the previous token, or to an earlier copy?",
        Heads(model=own.model, name=made),
    )
    if facts.d_mlp:
        layers = facts.layers(scale.layers)
        shown = f"layers {', '.join(map(str, layers))}" if layers else "all layers"
        yield WorkspaceStep(
            "Describe neurons",
            f"Attribution graphs are read in the labels of MLP neurons, those of {shown}.",
            DescribeNeurons(
                recording=made, name=made, layers=layers, tokens=scale.neuron_tokens, prompts=scale.background
            ),
            needs=("recording",),
        )
    for answer in facts.prompts:
        yield WorkspaceStep(
            f"Trace the answer{answer.target}",
            f"Why does it say{answer.target} after: {answer.prompt}",
            TracePrompt(
                model=own.model, name=slug(f"{answer.name}-{made}"), prompt=answer.prompt, target=answer.target,
                contrast=answer.contrast,
            ),
        )  # fmt: skip
    yield WorkspaceStep(
        "Test the induction circuit",
        "An induction head needs to know the token before each position, from an earlier head. Which one?",
        Induction(
            model=own.model, name=f"induction-{made}", prompts_per_seed=6, seeds=own.seed_range(2),
            context_length=min(INDUCTION_TOKENS, facts.n_ctx), max_candidates=8,
        ),
    )  # fmt: skip
    yield WorkspaceStep(
        "Find the geometry of words",
        "Do weekdays, months or numbers lie on a circle or a line?",
        Shapes(model=own.model, name=made, lists=scale.lists),
    )


def proofs_of(own: "Own", chosen: Sequence[int]) -> list[WorkspaceStep]:
    """Return the proofs of some features of the dictionary."""
    why = "Does it fire on its words, and does steering along it make the model say them?"
    return [
        WorkspaceStep(
            f"Prove feature {feature}",
            why,
            Prove(features=own.made, feature=feature, draws=own.scale.draws),
            needs=("features",),
        )
        for feature in chosen
    ]


def further_costs(scale: OwnScale, facts: OwnFacts, pace: ModelPace) -> dict[str, Cost]:
    """Return the cost of each further step, by the kind of artefact, and of a quick examination.

    Counted are passes; the share of a graph's row that one product takes, and constants of a few seconds, are those of
    two models (docs/log.md).
    """
    d_model, layers = facts.sizes.d_in, min(scale.layers, facts.n_layers)
    directions = 2 * layers * facts.d_mlp
    rows = TraceConfig.max_feature_nodes
    traced = rows * PROMPT * facts.n_layers * d_model * ROW * pace.product
    graph = pace.memory + 12 * rows * min(TraceConfig.max_neurons, PROMPT * facts.n_layers * facts.d_mlp)
    read = 1.3 * scale.neuron_tokens / BATCH * pace.blocks
    words = 1.2 * directions / 2 / BATCH * pace.logits
    lists = len(scale.lists or CONCEPTS)
    costs = {
        "neurons": Cost(100 * directions, graph, 5 + read + words + 6e-4 * directions + scale.background * traced),
        "attribution_graph": Cost(2e6, graph, 5 + 1.8 * traced),
        "induction_circuit": Cost(1e6, pace.memory, 5 + 10 * pace.blocks),
        "word_geometry": Cost(1e6, pace.memory, lists * (3 + 4 * pace.blocks)),
        "proof": Cost(
            1e6, pace.memory + 16 * pace.d_vocab * d_model, 5 + 0.12 * scale.draws * (pace.blocks + pace.logits)
        ),
    }
    if scale.quick:
        costs["certificate"] = Cost(1e5, pace.memory + pace.weights, 5 + 4 * (pace.blocks + pace.logits))
    return costs
