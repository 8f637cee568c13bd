"""Prompts with repeats, their corrupted versions, the measurements on them, and the verdict on induction heads.

A prompt repeats a block of random tokens. It has two corrupted versions: one replaces all tokens at even positions, the
other those at odd positions. So where a version retains a token, *the token before it differs*. A head's corrupted
value at a position is taken from the version that retains the token. Its difference from the clean value then depends
on the previous token (and others at odd distance), not on the token itself.

Direct edges (`DirectEdges`) are exact and need no full forward pass (`interp.patching.paths`). With all nodes between
sender and reader frozen, each sender costs one block, from its input to its attention pattern. `into_candidates`
patches the edges into all candidates at once. In a model with post-norms the change of the sender's output is taken at
the scale of the clean run.

Direct effects on the logits (`direct_outputs`) replace the path from a head to the final stream. The head's output on
prompts without repeats is added and its own output subtracted, and the final norm is recomputed. The metric is the
logit of the correct next token above the mean logit, at all positions where the first block determines that token. This
is exact and takes two passes for all heads. Indirect effects through later components are not included.

RULE. A head is an induction head when all of these hold, each by a one-sided Student t test over prompts. Its p-value
is the largest of theirs, corrected by Holm over *all* heads of the model, and is below 0.05.

1. Its strict induction score exceeds its score for the same targets on prompts without repeats (all seeds), and is at
   least 0.1.
2. It depends on one earlier head, its sender, through its keys: patching this direct edge lowers the strict score by
   more than patching the same sender into its queries.
3. The drop exceeds that of patching the same sender into the values of all candidates.
4. The drop exceeds that of the most effective of several control senders into its keys. Controls are other heads of
   about the same depth, and the sender's own output under a random rotation.
   (2 to 4 are tested on prompts other than those that chose the sender; the drop is at least a quarter of the score.)

The circuit is found when there is such a head and ablating all of them together raises the loss after the start of the
repeat (95 % interval above 0), by more than the loss before it, and by more than every random group of the same number
of heads. A sender is called a previous-token head when its previous-token score exceeds that of untrained heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from interp.circuits.circuit import Circuit, Edge, HeadEvidence, KeyEvidence, Node, OutputEvidence
from interp.circuits.config import InductionConfig
from interp.circuits.found_circuit import Verdict
from interp.circuits.head_kinds import draw_prompts, pattern_point, scoring_hooks, target_masks, target_weights
from interp.circuits.head_weights import Composition, Copying, haar_frame
from interp.circuits.induction_circuit import HeadVerdict, Redundancy, SenderTest
from interp.errors import ConfigError
from interp.models.adapter import Hook, widened
from interp.models.hooked import HookedModel
from interp.models.passes import capture, repeat_losses, run_from, token_losses
from interp.models.residual import ResidualStream, Side
from interp.names import HeadName
from interp.nulls import ALPHA, holm
from interp.patching.ablation import Ablations
from interp.patching.patching_map import AblationEffect
from interp.patching.paths import Read, Reader, parse_receivers, reading_hooks
from interp.patching.task import final_point
from interp.seeds import make_generator
from interp.statistics import p_above, t_interval
from interp.text.tokens import repeated_random_tokens


@dataclass(frozen=True)
class InductionPrompts:
    """Prompts of one seed."""

    tokens: Tensor
    """`[n, pos]` prompts that repeat a block"""
    unrepeated: Tensor
    """`[n, pos]` prompts without repeats, the null, with the same lags"""
    corrupted: tuple[Tensor, Tensor]
    """`[n, pos]` each: with the tokens at even (odd) positions replaced"""
    lags: Tensor
    """`[n]` length of the repeated block of each prompt"""
    start: int
    """1 after a BOS, else 0"""
    weights: Tensor
    """`[n, pos * pos, 3]`: weights of attention in the three scores of `measure_weights`"""

    def merge_corrupted(self, even_replaced: Tensor, odd_replaced: Tensor) -> Tensor:
        """Merge values `[n, pos, ...]` of the two versions: each position from the one that retains its token."""
        even = (torch.arange(even_replaced.shape[1], device=even_replaced.device) % 2 == 0).view(
            1, -1, *[1] * (even_replaced.ndim - 2)
        )
        return torch.where(even, odd_replaced, even_replaced)

    def first(self, n: int) -> "InductionPrompts":
        """Return the first `n` prompts."""
        return self.batches(n)[0]

    def batches(self, size: int) -> list["InductionPrompts"]:
        """Return the prompts in order, in batches of `size`."""
        tokens, unrepeated, even, odd, lags, weights = (
            value.split(size) for value in (self.tokens, self.unrepeated, *self.corrupted, self.lags, self.weights)
        )
        return [
            InductionPrompts(tokens[i], unrepeated[i], (even[i], odd[i]), lags[i], self.start, weights[i])
            for i in range(len(tokens))
        ]


def draw_induction_prompts(model: HookedModel, config: InductionConfig, seed: int) -> InductionPrompts:
    """Draw the prompts of one seed. Raises `ConfigError` when context or vocabulary are too small for a repeat."""
    from interp.models.adapter import bos_token_id, ordinary_tokens

    ids, bos = ordinary_tokens(model), bos_token_id(model)
    length, low, high = prompt_sizes(model, config, len(ids), bos)
    tokens, unrepeated = _draw(ids, bos, config.prompts_per_seed, length, low, high, seed)
    lags = torch.stack([_lag(row, bos) for row in tokens])
    generator = make_generator(seed, "corrupted twins")
    others = ids[torch.randint(len(ids) - 1, tokens.shape, generator=generator)]
    others = torch.where(others == tokens, ids[-1], others)  # any other token
    even = (torch.arange(length) % 2 == 0)[None].expand_as(tokens)
    is_bos = tokens == (-1 if bos is None else bos)
    corrupted = [torch.where(which & ~is_bos, others, tokens) for which in (even, ~even)]
    return InductionPrompts(
        tokens, unrepeated, (corrupted[0], corrupted[1]), lags, int(bos is not None), measure_weights(tokens, lags, bos)
    )


def _draw(ids: Tensor, bos: int | None, n: int, length: int, low: int, high: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw prompts with and without repeats; tokens of the latter are independent where the vocabulary is too small."""
    if len(ids) >= length - (bos is not None):
        return draw_prompts(ids, bos, n, length, low, high, seed)
    tokens = repeated_random_tokens(
        n_prompts=n, context_length=length, d_vocab_ids=ids, min_lag=low, max_lag=high, bos=bos,
        generator=make_generator(seed, "head prompts"),
    ).tokens  # fmt: skip
    independent = ids[torch.randint(len(ids), tokens.shape, generator=make_generator(seed, "independent tokens"))]
    if bos is not None:
        independent[:, 0] = bos
    return tokens, independent


def prompt_sizes(model: HookedModel, config: InductionConfig, n_ids: int, bos: int | None) -> tuple[int, int, int]:
    """Return context length, shortest and longest lag. Raises `ConfigError` for a length beyond the context."""
    length = config.context_length or min(int(model.cfg.n_ctx), 65)
    if length > model.cfg.n_ctx:
        raise ConfigError(f"context_length {length} exceeds the model's context of {model.cfg.n_ctx}")
    if config.lag is not None:
        return length, config.lag, config.lag
    high = min((length - (bos is not None)) // 2, n_ids)
    return length, min(max(high // 2, 2), high), high


def measure_weights(tokens: Tensor, lags: Tensor, bos: int | None) -> Tensor:
    """Return attention weights of three scores, `[n, pos * pos, 3]`: strict induction, stripe, previous token.

    The strict score takes queries whose token occurred before and sums attention over all matches. The stripe (`tl`, as
    in TransformerLens) is the mean of the diagonal `lag - 1` back, whose first entry has no match yet.
    """
    masks = target_masks(tokens, bos)
    position = torch.arange(tokens.shape[1])
    distance = position[:, None] - position[None, :]
    stripe = distance[None] == (lags - 1)[:, None, None]
    return target_weights({"strict": masks["induction"], "tl": stripe, "previous_token": masks["previous_token"]})


def _lag(row: Tensor, bos: int | None) -> Tensor:
    text = row[1:] if bos is not None else row
    return (text[1:] == text[0]).nonzero()[0, 0] + 1


class DirectEdges:
    """Patches of one sender's direct edges into later heads, on one batch of prompts.

    A clean pass and two corrupted ones, up to the last of `layers`, the layers of candidates, give all activations that
    are needed.
    """

    @torch.no_grad()
    def __init__(self, model: HookedModel, prompts: InductionPrompts, layers: Sequence[int], *, at_once: int = 4):
        self.model, self.prompts, self.residual, self.at_once = model, prompts, ResidualStream(model), at_once
        z_names = [f"blocks.{layer}.attn.hook_z" for layer in range(max(layers))]
        resid_names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers}
        clean = capture(model, prompts.tokens, [*z_names, *resid_names.values()])
        even, odd = (capture(model, tokens, z_names) for tokens in prompts.corrupted) if z_names else ({}, {})
        self.resid = {layer: clean[name] for layer, name in resid_names.items()}
        """input of each of the layers, `[batch, pos, d_model]`"""
        self.clean_z = [clean[name] for name in z_names]
        """`[batch, pos, n_heads, d_head]` of each layer before the last"""
        self.corrupt_z = [prompts.merge_corrupted(even[name], odd[name]) for name in z_names]
        self.scales = [self.residual.write_scale(layer, z) for layer, z in enumerate(self.clean_z)]

    def difference(self, sender: HeadName) -> Tensor:
        """Return corrupted minus clean output of a head, `[batch, pos, d_model]`."""
        layer, head = sender.layer, sender.head
        z = self.corrupt_z[layer][:, :, head] - self.clean_z[layer][:, :, head]
        return self.residual.head_write(layer, head, z, self.scales[layer])

    def rotated(self, sender: HeadName, seed: int) -> Tensor:
        """Return the sender's difference under a random rotation: the same norms in another direction."""
        delta = self.difference(sender)
        size = delta.shape[-1]
        return delta @ haar_frame(size, size, make_generator(seed, "turned writes")).to(delta)

    def scores(self, layer: int, side: Side, differences: Sequence[Tensor]) -> Tensor:
        """Return strict scores of a layer's heads for each difference, `[n_differences, n_heads, batch]`."""
        parts = [
            self._scores(Reader(layer, side), differences[i : i + self.at_once])
            for i in range(0, len(differences), self.at_once)
        ]
        return torch.cat(parts)

    def clean(self, layer: int) -> Tensor:
        """Return strict scores without a patch, `[n_heads, batch]`."""
        return self.scores(layer, "k", [torch.zeros_like(self.resid[layer])])[0]

    @torch.no_grad()
    def _scores(self, reader: Reader, differences: Sequence[Tensor]) -> Tensor:
        n, layer = len(differences), reader.layer
        scores: dict[int, Tensor] = {}
        added = torch.cat(list(differences))
        reading = reading_hooks(self.residual, [reader], lambda _, stream: [Read(reader, stream + added)])
        weights = self.prompts.weights[..., :1].repeat(n, 1, 1)
        hooks = [*reading, *scoring_hooks([layer], weights, scores)]
        run_from(self.model, self.resid[layer].repeat(n, 1, 1), hooks, layer=layer, until=pattern_point(layer))
        return rearrange(scores[layer], "(sender batch) head 1 -> sender head batch", sender=n)

    @torch.no_grad()
    def into_candidates(
        self, sender: HeadName, side: Side, candidates: Sequence[HeadName], clean: "GroupRun", *, with_loss: bool = True
    ) -> "GroupRun":
        """Patch a sender into the queries, keys or values of every candidate in a later layer; return all changes.

        Candidates also read the changes of earlier candidates. Without the loss, the pass ends at the last candidate's
        attention pattern.
        """
        after = [head for head in candidates if head.layer > sender.layer]
        receivers = parse_receivers(self.residual, [(str(head), side) for head in after])
        added, first = self.difference(sender), min(head.layer for head in after)
        reading = reading_hooks(
            self.residual,
            receivers,
            lambda readers, stream: [Read(reader, stream + added, receivers[reader]) for reader in readers],
        )
        run = run_group(self.model, self.prompts, after, self.resid[first], reading, layer=first, with_loss=with_loss)
        return run.change_from(clean)


@dataclass(frozen=True)
class GroupRun:
    """Strict scores of some heads and the losses of one run, or their changes by a patch, by prompt."""

    strict: dict[HeadName, Tensor]
    """`[n]` strict score of each head"""
    first: Tensor | None
    """`[n]` loss before the repeat, nats; None where the pass ended before the logits"""
    second: Tensor | None
    """`[n]` loss after the start of the repeat, nats"""

    def change_from(self, clean: "GroupRun") -> "GroupRun":
        """Return this run minus a clean run."""
        strict = {head: score - clean.strict[head] for head, score in self.strict.items()}
        if self.first is None or self.second is None or clean.first is None or clean.second is None:
            return GroupRun(strict, None, None)
        return GroupRun(strict, self.first - clean.first, self.second - clean.second)


@torch.no_grad()
def run_group(
    model: HookedModel,
    prompts: InductionPrompts,
    heads: Sequence[HeadName],
    value: Tensor | None = None,
    hooks: Sequence[tuple[str, Hook]] = (),
    *,
    layer: int = 0,
    with_loss: bool = True,
) -> GroupRun:
    """Measure strict scores of heads and the losses, in a run of the prompts or from the input `value` of a layer."""
    scores: dict[int, Tensor] = {}
    layers = sorted({head.layer for head in heads})
    hooks = [*hooks, *scoring_hooks(layers, prompts.weights[..., :1], scores)]
    until = None if with_loss else pattern_point(layers[-1])
    logits = run_from(model, prompts.tokens if value is None else value, hooks, layer=layer, until=until)
    strict = {head: scores[head.layer][:, head.head, 0] for head in heads}
    if logits is None:
        return GroupRun(strict, None, None)
    losses = token_losses(logits, prompts.tokens).cpu()
    return GroupRun(strict, *repeat_losses(losses, prompts.lags, start=prompts.start))


def join_runs(runs: Sequence[GroupRun]) -> GroupRun:
    """Concatenate the runs of batches."""
    first = [run.first for run in runs if run.first is not None]
    second = [run.second for run in runs if run.second is not None]
    return GroupRun(
        {head: torch.cat([run.strict[head] for run in runs]) for head in runs[0].strict},
        torch.cat(first) if first else None,
        torch.cat(second) if second else None,
    )


@dataclass(frozen=True)
class DirectOutput:
    """Effect of replacing one head's direct path to the logits."""

    change: np.ndarray
    """`[n]` change of the correct token's logit above the mean, by prompt; below 0 the head raises that logit"""
    control: np.ndarray | None
    """`[n]` the same for the strongest head of the layer that is not an induction head"""


def direct_outputs(
    model: HookedModel, drawn: Sequence[InductionPrompts], heads: Sequence[HeadName], batch_size: int
) -> dict[HeadName, DirectOutput]:
    """Measure the direct effect on the logits of each of `heads`, with other heads of its layer as controls."""
    if not heads:
        return {}
    layers = sorted({head.layer for head in heads})
    parts = [part for prompts in drawn for part in prompts.batches(batch_size)]
    changes = torch.cat([direct_logit_changes(model, part, layers) for part in parts], -1).double().numpy()
    outputs = {}
    for head in heads:
        of_layer = changes[layers.index(head.layer)]
        others = [i for i in range(len(of_layer)) if HeadName(head.layer, i) not in heads]
        strongest = min(others, key=lambda i: of_layer[i].mean(), default=None)
        outputs[head] = DirectOutput(of_layer[head.head], None if strongest is None else of_layer[strongest])
    return outputs


@torch.no_grad()
def direct_logit_changes(model: HookedModel, prompts: InductionPrompts, layers: Sequence[int]) -> Tensor:
    """Replace the direct path of each head of `layers`; return the change of the correct token's logit above the mean.

    `[n_layers, n_heads, n]`, mean over positions.
    """
    residual, tokens = ResidualStream(model), prompts.tokens
    names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    final = final_point(model)
    clean, unrepeated = capture(model, tokens, [*names, final]), capture(model, prompts.unrepeated, names)
    known = _known(prompts).to(clean[final].device)
    following = tokens[:, 1:].to(known.device)[known]
    W_U = widened(model.W_U)
    direction = W_U.T[following] - W_U.mean(1)
    stream = clean[final][:, :-1][known]

    def above_mean(resid: Tensor) -> Tensor:
        logits = (residual.norm_final(resid[None])[0] * direction).sum(-1)
        total = logits.new_zeros(known.shape, dtype=torch.float32).masked_scatter_(known, logits.float())
        return (total.sum(1) / known.sum(1)).cpu()

    before, changes = above_mean(stream), []
    for layer, name in zip(layers, names, strict=True):
        clean_z, new = (values[name][:, :-1][known] for values in (clean, unrepeated))  # [n_known, n_heads, d_head]
        scale, z = residual.write_scale(layer, clean_z), (new - clean_z).unbind(1)
        added = (residual.head_write(layer, head, change, scale) for head, change in enumerate(z))
        changes.append(torch.stack([above_mean(stream + change) - before for change in added]))
    return torch.stack(changes)


def _known(prompts: InductionPrompts) -> Tensor:
    """Return positions whose next token the first block determines, `[n, pos - 1]` bool."""
    position = torch.arange(prompts.tokens.shape[1] - 1)[None]
    return position >= (prompts.start + prompts.lags)[:, None]


SMALLEST_SCORE = 0.1
RULE = " ".join((__doc__ or "").split("RULE. ")[1].split())


@dataclass(frozen=True)
class HeadVerdicts:
    """Scores and p-values of every head, all `[n_layers, n_heads]`, and the induction heads."""

    strict: np.ndarray
    tl: np.ndarray
    previous_token: np.ndarray
    p_holm: np.ndarray
    previous_high: float
    """upper bound of untrained heads' previous-token scores, corrected for all heads"""
    induction: dict[HeadName, HeadName] = field(default_factory=dict)
    """sender of each induction head"""

    def is_previous_token(self, head: HeadName) -> bool:
        """Return whether a head's previous-token score exceeds that of untrained heads."""
        return bool(self.previous_token[head.layer, head.head] > self.previous_high)


def score_p_values(strict: np.ndarray, unrepeated: np.ndarray) -> np.ndarray:
    """Test that strict scores exceed those on prompts without repeats (paired); p-values `[n_layers, n_heads]`."""
    return p_above(strict - unrepeated)


def judge_heads(
    scores: np.ndarray, p_score: np.ndarray, tests: Mapping[HeadName, SenderTest], previous_high: float
) -> HeadVerdicts:
    """Apply the rule to every head; heads without a sender have p = 1."""
    p = np.ones_like(p_score)
    for head, test in tests.items():
        p[head.layer, head.head] = max(p_score[head.layer, head.head], test.p)
    strict, tl, previous = (scores[:, :, i].mean(-1) for i in range(3))
    adjusted = holm(p)
    proved = {
        head: test.sender
        for head, test in tests.items()
        if adjusted[head.layer, head.head] < ALPHA and strict[head.layer, head.head] >= SMALLEST_SCORE
    }
    return HeadVerdicts(strict, tl, previous, adjusted, previous_high, proved)


def proved_senders(verdicts: HeadVerdicts) -> set[HeadName]:
    """Return the senders of all induction heads."""
    return set(verdicts.induction.values())


@dataclass(frozen=True)
class Measurements:
    """All measurements that a circuit is made from."""

    verdicts: HeadVerdicts
    tests: Mapping[HeadName, SenderTest]
    effects: Mapping[tuple[HeadName, Side], GroupRun]
    ablations: Sequence[Ablations]
    outputs: Mapping[HeadName, DirectOutput]
    compositions: Mapping[Side, Composition]
    copies: tuple[Copying | None, Copying | None]
    """with embeddings as they are, and passed through block 0"""

    def losses(self) -> dict[str, AblationEffect]:
        """Return the effect of ablating each group."""
        return {row.group: row for ablation in self.ablations for row in ablation.rows()}

    def copying(self, head: HeadName) -> list[tuple[float | None, float | None]]:
        """Return eigenvalue score and `top1` of a head: of its OV circuit, and with embeddings through block 0."""
        return [
            (None, None) if scores is None else (scores.eigenvalue.get(head), scores.top1.get(head))
            for scores in self.copies
        ]


def to_circuit(model_name: str, weight_hash: str, measured: Measurements, *, holds: bool) -> Circuit:
    """Build the circuit from nodes and edges with their evidence; without nodes unless its verdict holds."""
    verdicts, nodes, edges = measured.verdicts, [], []
    if holds:
        for head, sender in sorted(verdicts.induction.items()):
            nodes.append(_node(head, "induction", measured))
            edges.append(_edge(sender, head, measured))
        for sender in sorted(proved_senders(verdicts) - set(verdicts.induction)):
            role = "previous_token" if verdicts.is_previous_token(sender) else None
            nodes.append(_node(sender, role, measured))
        edges += [_to_logits(head, measured) for head in sorted(verdicts.induction)]
    return Circuit.of(model_name, weight_hash, edges, nodes)


def circuit_verdict(measured: Measurements) -> tuple[Verdict, Redundancy | None]:
    """Apply the rule; the redundancy is None without induction heads."""
    verdicts = measured.verdicts
    if not verdicts.induction:
        return Verdict(holds=False, rule=RULE, reason=_reason_not_found(verdicts, measured.tests)), None
    result = measured.ablations[0]
    rows = list(result.groups)
    group = rows.index("induction heads")
    mean, low, _ = t_interval(result.second[group])
    first = float(result.first[group].mean())
    random = {name: float(result.second[i].mean()) for i, name in enumerate(rows) if name.startswith("random")}
    singles = [float(result.second[rows.index(str(head))].mean()) for head in verdicts.induction]
    excess = p_above(result.second[group] - result.first[group])
    above_nulls = bool(low > 0 and excess < ALPHA and all(float(mean) > value for value in random.values()))
    heads = ", ".join(map(str, sorted(verdicts.induction)))
    senders = ", ".join(map(str, sorted(proved_senders(verdicts))))
    reason = (
        f"induction heads: {heads}, which read {senders} through their keys; ablating all of them changes the loss "
        f"after the start of the repeat by {float(mean):+.2f} nats (before it by {first:+.2f}; random heads by at most "
        f"{max(random.values(), default=0.0):+.2f})"
    )
    redundancy = Redundancy(
        group=float(mean), sum_of_singles=float(np.sum(singles)), largest_single=float(np.max(singles))
    )
    return Verdict(holds=above_nulls, rule=RULE, reason=reason), redundancy


def _reason_not_found(verdicts: HeadVerdicts, tests: Mapping[HeadName, SenderTest]) -> str:
    best = HeadName(*map(int, np.unravel_index(verdicts.strict.argmax(), verdicts.strict.shape)))
    score = f"the highest strict induction score is {verdicts.strict.max():.2f} ({best})"
    if verdicts.strict.max() < SMALLEST_SCORE:
        return f"no head attends by induction: {score}"
    if not tests:
        return f"{score}, and no head with a high enough score is after the first layer"
    return (
        f"{score}, and none of {len(tests)} candidates depends on a sender through its keys more than on the controls"
    )


def _node(head: HeadName, role: str | None, measured: Measurements) -> Node:
    verdicts, at = measured.verdicts, (head.layer, head.head)
    loss = measured.losses().get(str(head))
    (eigenvalue, top1), (deep_eigenvalue, deep_top1) = measured.copying(head)
    evidence = HeadEvidence(
        induction_score=float(verdicts.strict[at]),
        induction_score_tl=float(verdicts.tl[at]),
        previous_token_score=float(verdicts.previous_token[at]),
        p_holm=float(verdicts.p_holm[at]) if role == "induction" else None,
        loss_first_half=None if loss is None else loss.loss_first_half,
        loss_second_half=None if loss is None else loss.loss_second_half,
        low=None if loss is None else loss.low,
        high=None if loss is None else loss.high,
        ov_copying=eigenvalue,
        ov_top1=top1,
        ov_copying_through_block_0=deep_eigenvalue,
        ov_top1_through_block_0=deep_top1,
    )
    return Node(str(head), role, evidence=evidence)


def _edge(sender: HeadName, head: HeadName, measured: Measurements) -> Edge:
    test = measured.tests[head]
    mean, low, high = t_interval(test.k)

    def loss(side: Side) -> float | None:
        effect = measured.effects.get((sender, side))
        return None if effect is None or effect.second is None else float(effect.second.mean())

    composition, at = measured.compositions.get("k"), None
    if composition is not None and sender in composition.senders and head in composition.readers:
        at = composition.senders.index(sender), composition.readers.index(head)
    evidence = KeyEvidence(
        effect=-float(mean),
        low=-float(high),
        high=-float(low),
        share_of_score=float(mean / test.clean.mean()),
        q_effect=-float(test.q.mean()),
        v_effect=-float(test.v.mean()),
        null_high=float(t_interval(test.strongest_control)[2]),
        loss_second_half_k=loss("k"),
        loss_second_half_q=loss("q"),
        loss_second_half_v=loss("v"),
        composition=None if composition is None or at is None else float(composition.score[at]),
        composition_null_high=None if composition is None or at is None else float(composition.null_high[at]),
        composition_is_argmax=None if composition is None or at is None else composition.argmax().get(head) == sender,
    )
    return Edge(str(sender), str(head), "k", score=float(mean), evidence=evidence)


def _to_logits(head: HeadName, measured: Measurements) -> Edge:
    """Build the edge from an induction head to the logits: its direct effect by patching, and copying by its weights.

    It has no score, since scores of the other edges are changes of the induction score and this effect is in logits.
    """
    output = measured.outputs[head]
    mean, low, high = (float(number) for number in t_interval(output.change))
    control = None if output.control is None else float(output.control.mean())
    (eigenvalue, top1), (deep_eigenvalue, deep_top1) = measured.copying(head)
    evidence = OutputEvidence(
        logit_effect=mean,
        low=low,
        high=high,
        logit_effect_of_other_head=control,
        ov_copying=eigenvalue,
        ov_top1=top1,
        ov_copying_through_block_0=deep_eigenvalue,
        ov_top1_through_block_0=deep_top1,
    )
    return Edge(str(head), "logits", evidence=evidence)


def head_rows(measured: Measurements, candidates: Sequence[HeadName], circuit: Circuit) -> list[HeadVerdict]:
    """Return the evidence of every head, by layer and head."""
    verdicts, losses, copies = measured.verdicts, measured.losses(), measured.copies[0]
    roles = {node.name: node.role for node in circuit.nodes}
    rows = []
    for at in np.ndindex(verdicts.strict.shape):
        head = HeadName(*at)
        test, loss = measured.tests.get(head), losses.get(str(head))
        rows.append(
            HeadVerdict(
                layer=head.layer,
                head=head.head,
                strict=float(verdicts.strict[at]),
                tl=float(verdicts.tl[at]),
                previous_token=float(verdicts.previous_token[at]),
                p_holm=float(verdicts.p_holm[at]),
                candidate=head in candidates,
                best_sender=None if test is None else str(test.sender),
                k_effect=None if test is None else float(test.k.mean()),
                q_effect=None if test is None else float(test.q.mean()),
                v_effect=None if test is None else float(test.v.mean()),
                loss_first_half=None if loss is None else loss.loss_first_half,
                loss_second_half=None if loss is None else loss.loss_second_half,
                ov_eigenvalue=None if copies is None else copies.eigenvalue.get(head),
                ov_top1=None if copies is None else copies.top1.get(head),
                induction=head in verdicts.induction,
                verdict=roles.get(str(head)),
            )
        )
    return rows
