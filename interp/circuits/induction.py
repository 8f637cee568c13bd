"""The induction circuit, from attention pattern to causal evidence (Olsson et al. 2022; Elhage et al. 2021).

An induction head attends to the token that followed an earlier copy of the current token. Its keys read the output of a
head in an earlier layer, which writes each position's previous token there. The evidence covers both parts:

1. scores     induction score of every head, strict and by TransformerLens' stripe, against unrepeated prompts
2. senders    exact direct edge of every earlier head into a candidate's keys; the strongest is the sender
3. controls   on other prompts: the same sender into queries and values, control senders of the same norm into keys
4. ablation   of single heads and of the group: the loss before and after the start of the repeat
5. outputs    direct effect of each head on the logit of the repeated token (reported)
6. weights    composition of the pairs, OV copying of the candidates (reported, and not part of the verdict)

    result = find_induction_circuit(model)
    result.verdict.holds, [node.name for node in result.circuit.nodes if node.role == "induction"]

The rule of the verdict is the docstring of `interp.circuits._induction_measure`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Table
from interp.circuits._induction_measure import (
    SMALLEST_SCORE,
    DirectEdges,
    GroupRun,
    HeadVerdicts,
    InductionPrompts,
    Measurements,
    circuit_verdict,
    direct_outputs,
    draw_induction_prompts,
    head_rows,
    join_runs,
    judge_heads,
    proved_senders,
    run_group,
    score_p_values,
    to_circuit,
)
from interp.circuits.circuit import Circuit
from interp.circuits.config import InductionConfig
from interp.circuits.found_circuit import TaskPrompt
from interp.circuits.head_kinds import head_patterns, pattern_scores, untrained_bounds
from interp.circuits.head_weights import Composition, HeadWeights, composition, copying
from interp.circuits.induction_circuit import (
    ComposedPair,
    HeadVerdict,
    InductionCircuit,
    InductionSettings,
    PathLoss,
    SenderTest,
)
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.residual import SIDES, ResidualStream, Side
from interp.names import HeadName, parse_node
from interp.patching.ablation import Ablations, ablate
from interp.patching.patching_map import AblationEffect
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import t_interval

N_CONTROLS = 6
"""Control senders for each chosen sender: half are other heads, half random rotations of its own output."""
MAX_LOSS_SENDERS = 2
"""Senders whose paths into keys, queries and values are also measured in loss, those of most candidates first."""
MAX_SINGLES = 48
"""In models of at most this many heads, every head is also ablated by itself."""
COPYING_TOKENS = 2048
"""Tokens sampled for the OV copying score."""


@torch.no_grad()
def find_induction_circuit(
    model: HookedModel, config: InductionConfig | None = None, *, progress: Progress | None = None,
    name: str | None = None,
) -> InductionCircuit:  # fmt: skip
    """Run all steps of the search (see the module).

    Args:
        config: numbers of prompts and controls (default: `InductionConfig()`).
        progress: called with the done part of 100.
        name: the model's name in the circuit.
    Returns: the circuit; without nodes where it was not found.
    Raises:
        ConfigError: the model's attention gives no patterns, or its residual is not a plain sum.

    >>> quick = InductionConfig(prompts_per_seed=4, screening_prompts=2)
    >>> find_induction_circuit(load_model("planted:induction"), quick).headline()
    '1 induction head in planted:induction: ablating them changes the loss on repeats by ... nats'
    """
    from interp.models.adapter import logit_cap
    from interp.models.identity import model_spec, weight_hash

    config = config or InductionConfig()
    residual = ResidualStream(model)
    steps = _Steps(progress)
    draws = [draw_induction_prompts(model, config, seed) for seed in config.seeds]
    scores, p_score, previous_high = _score(model, draws, config, steps)
    candidates = _choose_candidates(scores, p_score, config)
    senders = _screen(model, draws[0], candidates, config, steps)
    tests, effects = _test(model, draws[1:], senders, config, steps)
    verdicts = judge_heads(scores, p_score, tests, previous_high)
    ablations = _ablate(model, draws[1:], verdicts, config, steps)
    outputs = direct_outputs(model, draws[1:], sorted(verdicts.induction), config.batch_size)
    weights = HeadWeights(model)
    compositions = _compose(model, weights, verdicts, candidates, config)
    heads = residual.all_heads() if len(residual.all_heads()) <= MAX_SINGLES else list(candidates)
    copies = copying(model, heads, n_tokens=COPYING_TOKENS, weights=weights) if heads else None
    deep = None
    if heads and residual.shape.n_layers > 2:
        deep = copying(model, heads, n_tokens=COPYING_TOKENS, weights=weights, through_block_0=True)
    steps.at(100, "judged")
    measured = Measurements(verdicts, tests, effects, ablations, outputs, compositions, (copies, deep))
    verdict, redundancy = circuit_verdict(measured)
    circuit = to_circuit(name or model_spec(model), weight_hash(model), measured, holds=bool(verdict.holds))
    settings = InductionSettings(
        model=circuit.model,
        weight_hash=circuit.weight_hash,
        frozen=residual.frozen_settings().get("frozen"),
        **vars(config),
    )
    pattern_heads, patterns = head_patterns(model, draws[0].tokens[:1], _heads_to_show(verdicts, circuit))
    cap = logit_cap(model)
    return InductionCircuit(
        settings=settings,
        circuit=circuit,
        verdict=verdict,
        redundancy=redundancy,
        context_length=draws[0].tokens.shape[1],
        lags=(int(draws[0].lags.min()), int(draws[0].lags.max())),
        logit_effect=None if cap is None else f"before the soft cap of {cap:g}",
        prompts=_texts(model, draws[0]),
        heads=Table.of(HeadVerdict, head_rows(measured, candidates, circuit)),
        ablations=Table.of(AblationEffect, [row for ablation in ablations for row in ablation.rows()]),
        paths=Table.of(PathLoss, _path_losses(effects)),
        composition=_composed(compositions),
        sender_tests=tuple(tests.values()),
        scores=scores,
        pattern_heads=pattern_heads,
        patterns=patterns,
    )


def _path_losses(effects: Mapping[tuple[HeadName, Side], GroupRun]) -> list[PathLoss]:
    """Return, per sender and side, the change of both losses under a patch into all candidates."""
    rows = []
    for (sender, side), effect in effects.items():
        if effect.first is None or effect.second is None:
            continue
        mean, low, high = (float(number) for number in t_interval(effect.second.double().numpy()))
        first = float(effect.first.mean())
        rows.append(
            PathLoss(sender=str(sender), via=side, loss_first_half=first, loss_second_half=mean, low=low, high=high)
        )
    return rows


def _composed(compositions: dict[Side, Composition]) -> Table[ComposedPair] | None:
    rows = [row for composition in compositions.values() for row in composition.rows()]
    return Table.of(ComposedPair, rows) if rows else None


def _score(
    model: HookedModel, drawn: Sequence[InductionPrompts], config: InductionConfig, steps: "_Steps"
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return scores `[n_layers, n_heads, 3, n]`, p-values of strict scores, and the previous-token bound.

    The bound is that of an untrained model's heads.
    """
    from interp.models.adapter import untrained_model

    score_parts, null = [], []
    for i, prompts in enumerate(drawn):
        score_parts.append(pattern_scores(model, prompts.tokens, prompts.weights, config.batch_size))
        null.append(pattern_scores(model, prompts.unrepeated, prompts.weights, config.batch_size))
        steps.at(2 + 12 * (i + 1) // len(drawn), "scores")
    untrained = untrained_model(model, config.seeds[0])
    untrained_scores = pattern_scores(untrained, drawn[0].tokens, drawn[0].weights, config.batch_size)
    del untrained
    scores, unrepeated = (torch.cat(parts, 3).double().numpy() for parts in (score_parts, null))
    length = drawn[0].tokens.shape[1]
    uniform = float((1 / torch.arange(2, length + 1)).mean())
    _, previous_high = untrained_bounds(
        untrained_scores[:, :, 2].double().numpy(), uniform, scores.shape[0] * scores.shape[1]
    )
    steps.at(18, "scores")
    return scores, score_p_values(scores[:, :, 0], unrepeated[:, :, 0]), previous_high


def _choose_candidates(scores: np.ndarray, p_score: np.ndarray, config: InductionConfig) -> tuple[HeadName, ...]:
    """Return heads whose strict score is above its null (Holm over all heads), highest first."""
    from interp.nulls import ALPHA, holm

    strict = scores[:, :, 0].mean(-1)
    passed = (holm(p_score) < ALPHA) & (strict >= SMALLEST_SCORE)
    order = np.argsort(-strict, axis=None, kind="stable")
    heads = [HeadName(int(i), int(j)) for i, j in zip(*np.unravel_index(order, strict.shape), strict=True)]
    return tuple([head for head in heads if passed[head.layer, head.head]][: config.max_candidates])


def _screen(
    model: HookedModel,
    prompts: InductionPrompts,
    candidates: Sequence[HeadName],
    config: InductionConfig,
    steps: "_Steps",
) -> dict[HeadName, HeadName]:
    """Return each candidate's sender: the earlier head with the largest direct effect through its keys.

    Measurements on the first seed's prompts.
    """
    layers = sorted({head.layer for head in candidates if head.layer > 0})
    if not layers:
        return {}
    residual = ResidualStream(model)
    parts = prompts.first(config.screening_prompts).batches(config.batch_size)
    drops: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    work, done = sum(layers) * len(parts), 0
    for part in parts:
        edges = DirectEdges(model, part, layers)
        for layer in layers:
            clean, of_layers = edges.clean(layer), []
            for earlier in range(layer):
                senders = [HeadName(earlier, head) for head in range(residual.shape.n_heads)]
                changed = edges.scores(layer, "k", [edges.difference(sender) for sender in senders])
                of_layers.append(clean - changed)
                done += 1
                steps.at(18 + 27 * done // work, "senders")
            drops[layer].append(torch.cat(of_layers))  # [n_senders, n_heads, batch]
    mean = {layer: torch.cat(parts, -1).mean(-1) for layer, parts in drops.items()}
    before = residual.all_heads()
    return {head: before[int(mean[head.layer][:, head.head].argmax())] for head in candidates if head.layer in mean}


def _test(
    model: HookedModel, drawn: Sequence[InductionPrompts], senders: dict[HeadName, HeadName], config: InductionConfig,
    steps: "_Steps",
) -> tuple[dict[HeadName, SenderTest], dict[tuple[HeadName, Side], GroupRun]]:  # fmt: skip
    """Test the chosen senders against controls, on prompts other than those that chose them."""
    if not senders:
        return {}, {}
    candidates, chosen = list(senders), sorted(set(senders.values()))
    layers = sorted({head.layer for head in candidates})
    controls = {head: _control_senders(model, senders[head], chosen, config) for head in candidates}
    per_batch: dict[HeadName, list[dict[str, Tensor]]] = {head: [] for head in candidates}
    popular = sorted(chosen, key=lambda sender: -list(senders.values()).count(sender))[:MAX_LOSS_SENDERS]
    group: dict[tuple[HeadName, Side], list[GroupRun]] = {
        (s, side): [] for s in chosen for side in SIDES if s in popular or side == "v"
    }
    parts = [part for prompts in drawn for part in prompts.batches(config.batch_size)]
    for i, part in enumerate(parts):
        edges = DirectEdges(model, part, layers)
        clean = run_group(model, part, candidates)
        for head in candidates:
            test = _direct_test(edges, head, senders[head], controls[head], clean.strict[head])
            per_batch[head].append(test)
        for j, (sender, side) in enumerate(group):
            group[sender, side].append(
                edges.into_candidates(sender, side, candidates, clean, with_loss=sender in popular)
            )
            steps.at(45 + 30 * (i * len(group) + j + 1) // (len(parts) * len(group)), "path patching")
    effects = {key: join_runs(runs) for key, runs in group.items()}
    tests = {}
    for head, batches in per_batch.items():
        joined = {key: torch.cat([batch[key] for batch in batches], -1).double().numpy() for key in batches[0]}
        tests[head] = SenderTest(
            head=head,
            sender=senders[head],
            clean=joined["clean"],
            k=joined["k"],
            q=joined["q"],
            v=-effects[senders[head], "v"].strict[head].double().numpy(),
            controls=joined["controls"],
        )
    return tests, effects


def _direct_test(
    edges: DirectEdges, head: HeadName, sender: HeadName, controls: Sequence[HeadName | int], clean: Tensor
) -> dict[str, Tensor]:
    """Return drops of one candidate's strict score `clean` by prompt: into keys, queries, and controls into keys."""
    difference = edges.difference(sender)
    random = [
        edges.rotated(sender, control) if isinstance(control, int) else edges.difference(control)
        for control in controls
    ]
    keys = edges.scores(head.layer, "k", [difference, *random])[:, head.head]
    query = edges.scores(head.layer, "q", [difference])[0, head.head]
    return {"clean": clean, "k": clean - keys[0], "q": clean - query, "controls": clean - keys[1:]}


def _control_senders(
    model: HookedModel, sender: HeadName, chosen: Sequence[HeadName], config: InductionConfig
) -> list[HeadName | int]:
    """Draw control senders that match the sender in depth or in norm.

    Half are heads of the sender's layer and the one before that are no candidate's sender. The others, given as seeds,
    are random rotations of the sender's own output.
    """
    shape = ResidualStream(model).shape
    pool = [
        HeadName(layer, head)
        for layer in range(max(sender.layer - 1, 0), sender.layer + 1)
        for head in range(shape.n_heads)
        if HeadName(layer, head) not in chosen
    ]
    generator = make_generator(config.seeds[0], "control senders", str(sender))
    order = torch.randperm(len(pool), generator=generator).tolist()
    n_rotations = N_CONTROLS - len(order[: N_CONTROLS // 2])
    return [pool[i] for i in order[: N_CONTROLS // 2]] + list(range(n_rotations))


def _ablate(
    model: HookedModel,
    drawn: Sequence[InductionPrompts],
    verdicts: HeadVerdicts,
    config: InductionConfig,
    steps: "_Steps",
) -> list[Ablations]:
    """Mean-ablate single heads, all induction heads, all their senders, and random groups of equal size."""
    residual = ResidualStream(model)
    every = residual.all_heads()
    heads, senders = sorted(verdicts.induction), sorted(proved_senders(verdicts))
    singles = every if len(every) <= MAX_SINGLES else sorted({*heads, *senders})
    groups = {str(head): [str(head)] for head in singles}
    if heads:
        groups["induction heads"] = [str(head) for head in heads]
        groups["senders"] = [str(head) for head in senders]
        groups |= _random_groups(every, heads, senders, config)
    if not groups:
        return []
    tokens = torch.cat([prompts.tokens for prompts in drawn])
    return [
        ablate(
            model, tokens, groups, kind="mean", lags=torch.cat([prompts.lags for prompts in drawn]),
            start=drawn[0].start, batch_size=config.batch_size,
            progress=lambda done, total, _: steps.at(75 + 20 * done // total, "ablation"),
        )
    ]  # fmt: skip


def _random_groups(
    every: Sequence[HeadName], heads: Sequence[HeadName], senders: Sequence[HeadName], config: InductionConfig
) -> dict[str, list[str]]:
    """Draw groups of other heads, as large as the set of induction heads, from the same layers where possible."""
    taken = {*heads, *senders}
    groups = {}
    for i in range(3):
        generator = make_generator(config.seeds[0], "random heads", i)
        left = [head for head in every if head not in taken]
        picked = []
        for head in heads:
            pool = [candidate for candidate in left if candidate.layer == head.layer and candidate not in picked]
            pool = pool or [candidate for candidate in left if candidate not in picked]
            if pool:
                picked.append(pool[int(torch.randint(len(pool), (1,), generator=generator))])
        if picked:
            groups[f"random heads {i + 1}"] = [str(head) for head in picked]
    return groups


def _compose(
    model: HookedModel,
    weights: HeadWeights,
    verdicts: HeadVerdicts,
    candidates: Sequence[HeadName],
    config: InductionConfig,
) -> dict[Side, Composition]:
    """Score composition of all pairs; in a large model, of senders and previous-token heads with candidates."""
    every = weights.residual.all_heads()
    if len(every) <= MAX_SINGLES:
        senders, readers = every, every
    else:
        strong = np.argsort(-verdicts.previous_token, axis=None)[:16]
        heads = zip(*np.unravel_index(strong, verdicts.previous_token.shape), strict=True)
        senders = sorted({*proved_senders(verdicts), *(HeadName(int(i), int(j)) for i, j in heads)})
        readers = sorted(candidates)
    try:
        return composition(model, senders=senders, readers=readers, weights=weights, seed=config.seeds[0])
    except ConfigError:  # one layer, or no candidate after a sender
        return {}


def _texts(model: HookedModel, prompts: InductionPrompts, n: int = 3) -> tuple[TaskPrompt, ...]:
    from interp.models.adapter import token_strings

    return tuple(
        TaskPrompt(clean=tuple(token_strings(model, clean)), corrupt=tuple(token_strings(model, corrupt)))
        for clean, corrupt in zip(prompts.tokens[:n], prompts.corrupted[0][:n], strict=True)
    )


def _heads_to_show(verdicts: HeadVerdicts, circuit: Circuit) -> list[HeadName]:
    """Return the heads of the circuit; of an empty one, the four heads with the highest strict scores."""
    names = [parse_node(node.name) for node in circuit.nodes]
    heads = [HeadName(node.layer or 0, node.head or 0) for node in names if node.kind == "head"]
    if heads:
        return heads
    order = np.argsort(-verdicts.strict, axis=None)[:4]
    return [HeadName(int(i), int(j)) for i, j in zip(*np.unravel_index(order, verdicts.strict.shape), strict=True)]


class _Steps:
    """Progress in percent."""

    def __init__(self, progress: Progress | None):
        self.progress = progress

    def at(self, percent: int, what: str) -> None:
        if self.progress is not None:
            self.progress(percent, 100, {"stage": what})
