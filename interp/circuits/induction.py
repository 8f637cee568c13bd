"""The induction circuit: found by its pattern, proved by its parts (Olsson et al. 2022; Elhage et al. 2021).

An induction head attends to what followed the current token before; it can, because a head in an earlier layer wrote
the token before into each position, and the induction head's keys read that. So the proof has more than the pattern:

1. scores     every head's induction score, strict and by TransformerLens' stripe, against unrepeated prompts
2. senders    every earlier head's direct edge into the candidate's keys, exactly; the strongest one is the sender
3. controls   on other prompts: the same sender into queries and values, random senders of the same size into the keys
4. ablation   of single heads and of the group: the loss after the repeat begins, and before
5. outputs    each head's direct path to the logits replaced: the logit of the repeated token (reported)
6. weights    composition of the pairs, OV copying of the candidates (reported; no verdict rests on them)

    circuit = find_induction_circuit(model)
    circuit.verdict["found"], [node.name for node in circuit.nodes if node.role == "induction"]

The rule of the verdict is the docstring of `interp.circuits.induction_verdict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.head_kinds import head_patterns, pattern_scores, twin_bounds
from interp.circuits.head_weights import Composition, Copying, HeadWeights, composition, copying
from interp.circuits.induction_measure import (
    DirectEdges,
    GroupEffect,
    InductionConfig,
    InductionPrompts,
    clean_run,
    collect_effects,
    direct_outputs,
    draw_induction_prompts,
    hold,
    into_candidates,
)
from interp.circuits.induction_verdict import (
    SMALLEST_SCORE,
    HeadVerdicts,
    SenderTest,
    judge_heads,
    proved_senders,
    score_p_values,
    to_circuit,
)
from interp.errors import ConfigError
from interp.models.residual import SIDES, ResidualStream, Side
from interp.names import HeadName, parse_node
from interp.patching.ablation import Ablations, ablate
from interp.progress import Progress
from interp.results import Record, Result
from interp.runtime import make_generator


@dataclass(frozen=True, kw_only=True)
class InductionEvidence(Result):
    """Everything that was measured, and what follows from it."""

    circuit: Circuit
    scores: np.ndarray
    """`[n_layers, n_heads, 3, n_prompts]`: strict, tl, previous token; all seeds"""
    verdicts: HeadVerdicts
    candidates: tuple[HeadName, ...]
    tests: dict[HeadName, SenderTest]
    """per candidate: its best sender and that sender's controls, on the test prompts"""
    group_effects: dict[tuple[HeadName, Side], GroupEffect]
    """(sender, side) -> its value sent into all candidates"""
    ablations: list[Ablations]
    compositions: dict[Side, Composition]
    copying: Copying | None
    copying_deep: Copying | None
    """the same with embeddings passed through block 0; None in models of two layers or fewer"""
    prompts: InductionPrompts
    """of the first seed"""
    texts: list[dict[str, list[str]]]
    """`tokens` and `corrupt_tokens` of its first prompts"""
    patterns: dict[str, Tensor]
    """head -> `[dest, src]`: attention on the first prompt; the circuit's heads, or without one the strongest"""
    config: InductionConfig = field(default_factory=InductionConfig)

    def to_records(self) -> list[Record]:
        """Return one row per candidate head: `head, strict, stripe, sender, by_keys, by_queries, p_holm, induction`.

        `strict` and `stripe` are shares of attention; `by_keys` and `by_queries` are what the strict score loses when
        the sender's value on the corrupted prompt enters by that side alone; `p_holm` belongs to the former.
        """
        rows = []
        for head in self.candidates:
            at, test = (head.layer, head.head), self.tests.get(head)
            rows.append(
                {
                    "head": str(head),
                    "strict": float(self.verdicts.strict[at]),
                    "stripe": float(self.verdicts.tl[at]),
                    "sender": str(test.sender) if test else None,
                    "by_keys": float(test.k.mean()) if test else None,
                    "by_queries": float(test.q.mean()) if test else None,
                    "p_holm": float(self.verdicts.p_holm[at]),
                    "induction": head in self.verdicts.induction,
                }
            )
        return rows

    def headline(self) -> str:
        """Describe the circuit."""
        return self.circuit.headline()


def find_induction_circuit(
    model: Any, *, seeds: tuple[int, ...] = (0, 1, 2), progress: Progress | None = None, name: str | None = None,
    **settings: Any,
) -> Circuit:  # fmt: skip
    """The induction circuit of a model with its evidence, or a circuit without nodes and the reason why.

    `circuit.verdict`: `found`, `rule`, `reason`, `redundancy`. `settings` are those of `InductionConfig`; `name` is
    the model's name in the circuit. Raises `ConfigError` when the model gives no patterns, or its stream is no sum.
    """
    config = InductionConfig(seeds=tuple(seeds), **settings)
    return gather_induction_evidence(model, config, progress=progress, name=name).circuit


@torch.no_grad()
def gather_induction_evidence(
    model: Any, config: InductionConfig | None = None, *, progress: Progress | None = None, name: str | None = None
) -> InductionEvidence:
    """Measure, test, judge. See the module's steps; progress counts them out of 100."""
    from interp.models.identity import model_spec, weight_hash

    config = config or InductionConfig()
    residual = ResidualStream(model)
    steps = _Steps(progress)
    drawn = [draw_induction_prompts(model, config, seed) for seed in config.seeds]
    scores, p_score, previous_high = _score(model, drawn, config, steps)
    candidates = _choose_candidates(scores, p_score, config)
    senders = _screen(model, drawn[0], candidates, config, steps)
    tests, effects = _test(model, drawn[1:], senders, config, steps)
    verdicts = judge_heads(scores, p_score, tests, previous_high)
    ablations = _ablate(model, drawn[1:], verdicts, config, steps)
    outputs = direct_outputs(model, drawn[1:], sorted(verdicts.induction), config.batch_size)
    weights = HeadWeights(model)
    compositions = _compose(model, weights, verdicts, candidates, config)
    chosen = residual.all_heads() if len(residual.all_heads()) <= config.max_singles else list(candidates)
    copies = copying(model, chosen, n_tokens=config.copying_tokens, weights=weights) if chosen else None
    deep = None
    if chosen and residual.shape.n_layers > 2:
        deep = copying(model, chosen, n_tokens=config.copying_tokens, weights=weights, through_block_0=True)
    steps.at(100, "judged")
    circuit = to_circuit(
        model_name=name or model_spec(model),
        weight_hash=weight_hash(model),
        verdicts=verdicts,
        tests=tests,
        effects=effects,
        ablations=ablations,
        outputs=outputs,
        compositions=compositions,
        copies=(copies, deep),
        settings=_settings(config, drawn[0]),
    )
    return InductionEvidence(
        circuit=circuit,
        scores=scores,
        verdicts=verdicts,
        candidates=candidates,
        tests=tests,
        group_effects=effects,
        ablations=ablations,
        compositions=compositions,
        copying=copies,
        copying_deep=deep,
        prompts=drawn[0],
        texts=_texts(model, drawn[0]),
        patterns=head_patterns(model, drawn[0].tokens[:1], _heads_to_show(verdicts, circuit)),
        config=config,
    )


def _score(
    model: Any, drawn: Sequence[InductionPrompts], config: InductionConfig, steps: "_Steps"
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores `[n_layers, n_heads, 3, n]`, p-values of the strict ones, the bound of previous-token scores untrained."""
    from interp.models.adapter import untrained_model

    found, null = [], []
    for i, prompts in enumerate(drawn):
        found.append(pattern_scores(model, prompts.tokens, prompts.weights, config.batch_size))
        null.append(pattern_scores(model, prompts.unrepeated, prompts.weights, config.batch_size))
        steps.at(2 + 12 * (i + 1) // len(drawn), "scores")
    twin = untrained_model(model, config.seeds[0])
    twin_scores = pattern_scores(twin, drawn[0].tokens, drawn[0].weights, config.batch_size)
    del twin
    scores, unrepeated = (torch.cat(each, 3).double().numpy() for each in (found, null))
    length = drawn[0].tokens.shape[1]
    even = float((1 / torch.arange(2, length + 1)).mean())
    _, previous_high = twin_bounds(twin_scores[:, :, 2].double().numpy(), even, scores.shape[0] * scores.shape[1])
    steps.at(18, "scores")
    return scores, score_p_values(scores[:, :, 0], unrepeated[:, :, 0]), previous_high


def _choose_candidates(scores: np.ndarray, p_score: np.ndarray, config: InductionConfig) -> tuple[HeadName, ...]:
    """Heads whose induction score stands above its null (Holm over all heads), strongest first."""
    from interp.statistics import holm

    strict = scores[:, :, 0].mean(-1)
    passed = (holm(p_score) < 0.05) & (strict >= SMALLEST_SCORE)
    order = np.argsort(-strict, axis=None, kind="stable")
    heads = [HeadName(int(i), int(j)) for i, j in zip(*np.unravel_index(order, strict.shape), strict=True)]
    return tuple([head for head in heads if passed[head.layer, head.head]][: config.max_candidates])


def _screen(
    model: Any, prompts: InductionPrompts, candidates: Sequence[HeadName], config: InductionConfig, steps: "_Steps"
) -> dict[HeadName, HeadName]:
    """Per candidate the earlier head whose direct edge into its keys matters most, on the first seed's prompts."""
    layers = sorted({head.layer for head in candidates if head.layer > 0})
    if not layers:
        return {}
    residual = ResidualStream(model)
    parts = prompts.first(config.screening_prompts).batches(config.batch_size)
    drops: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    work, done = sum(layers) * len(parts), 0
    for part in parts:
        edges = DirectEdges(model, hold(model, part, layers))
        for layer in layers:
            clean, of_layers = edges.clean(layer), []
            for earlier in range(layer):
                senders = [HeadName(earlier, head) for head in range(residual.shape.n_heads)]
                changed = edges.scores(layer, "k", [edges.difference(sender) for sender in senders])
                of_layers.append(clean - changed)
                done += 1
                steps.at(18 + 27 * done // work, "senders")
            drops[layer].append(torch.cat(of_layers))  # [n_senders, n_heads, batch]
    mean = {layer: torch.cat(found, -1).mean(-1) for layer, found in drops.items()}
    before = residual.all_heads()
    return {head: before[int(mean[head.layer][:, head.head].argmax())] for head in candidates if head.layer in mean}


def _test(
    model: Any, drawn: Sequence[InductionPrompts], senders: dict[HeadName, HeadName], config: InductionConfig,
    steps: "_Steps",
) -> tuple[dict[HeadName, SenderTest], dict[tuple[HeadName, Side], GroupEffect]]:  # fmt: skip
    """The chosen senders and their controls, on prompts that did not choose them."""
    if not senders:
        return {}, {}
    candidates, chosen = list(senders), sorted(set(senders.values()))
    layers = sorted({head.layer for head in candidates})
    controls = {head: _matched(model, senders[head], chosen, config) for head in candidates}
    per_batch: dict[HeadName, list[dict[str, Tensor]]] = {head: [] for head in candidates}
    popular = sorted(chosen, key=lambda sender: -list(senders.values()).count(sender))[: config.max_loss_senders]
    group: dict[tuple[HeadName, Side], list[GroupEffect]] = {
        (s, side): [] for s in chosen for side in SIDES if s in popular or side == "v"
    }
    parts = [part for prompts in drawn for part in prompts.batches(config.batch_size)]
    for i, part in enumerate(parts):
        held = hold(model, part, layers)
        edges = DirectEdges(model, held)
        clean = clean_run(model, part, candidates)
        for head in candidates:
            per_batch[head].append(_direct_test(edges, head, senders[head], controls[head]))
        for j, (sender, side) in enumerate(group):
            group[sender, side].append(
                into_candidates(model, part, held, sender, side, candidates, clean, with_loss=sender in popular)
            )
            steps.at(45 + 30 * (i * len(group) + j + 1) // (len(parts) * len(group)), "path patching")
    effects = {key: collect_effects(found) for key, found in group.items()}
    tests = {}
    for head, batches in per_batch.items():
        joined = {key: torch.cat([batch[key] for batch in batches], -1).double().numpy() for key in batches[0]}
        v = -effects[senders[head], "v"].strict[head].double().numpy()
        tests[head] = SenderTest(
            sender=senders[head], clean=joined["clean"], k=joined["k"], q=joined["q"], v=v, controls=joined["controls"]
        )
    return tests, effects


def _direct_test(
    edges: DirectEdges, head: HeadName, sender: HeadName, controls: Sequence[HeadName | int]
) -> dict[str, Tensor]:
    """Drops of one candidate's strict score by prompt: keys, queries, and controls into the keys."""
    own = edges.difference(sender)
    random = [edges.turned(sender, other) if isinstance(other, int) else edges.difference(other) for other in controls]
    clean = edges.clean(head.layer)[head.head]
    keys = edges.scores(head.layer, "k", [own, *random])[:, head.head]
    query = edges.scores(head.layer, "q", [own])[0, head.head]
    return {"clean": clean, "k": clean - keys[0], "q": clean - query, "controls": clean - keys[1:]}


def _matched(model: Any, sender: HeadName, chosen: Sequence[HeadName], config: InductionConfig) -> list[HeadName | int]:
    """Random senders to compare with, matched in depth and in size.

    Heads of the sender's layer and the one before that were chosen for nobody, with what they write themselves; and
    seeds of random turns of the sender's own write.
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
    n_turns = config.n_controls - len(order[: config.n_controls // 2])
    return [pool[i] for i in order[: config.n_controls // 2]] + list(range(n_turns))


def _ablate(
    model: Any, drawn: Sequence[InductionPrompts], verdicts: HeadVerdicts, config: InductionConfig, steps: "_Steps"
) -> list[Ablations]:
    """Mean ablation of single heads, the induction heads together, their senders, and random heads as many."""
    residual = ResidualStream(model)
    every = residual.all_heads()
    heads, senders = sorted(verdicts.induction), sorted(proved_senders(verdicts))
    singles = every if len(every) <= config.max_singles else sorted({*heads, *senders})
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
    """Groups of other heads, as many as the induction heads and layer by layer where the layer has others."""
    taken = {*heads, *senders}
    groups = {}
    for i in range(3):
        generator = make_generator(config.seeds[0], "random heads", i)
        left = [head for head in every if head not in taken]
        picked = []
        for head in heads:
            pool = [each for each in left if each.layer == head.layer and each not in picked]
            pool = pool or [each for each in left if each not in picked]
            if pool:
                picked.append(pool[int(torch.randint(len(pool), (1,), generator=generator))])
        if picked:
            groups[f"random heads {i + 1}"] = [str(head) for head in picked]
    return groups


def _compose(
    model: Any, weights: HeadWeights, verdicts: HeadVerdicts, candidates: Sequence[HeadName], config: InductionConfig
) -> dict[Side, Composition]:
    """All pairs of a small model; of a large one all heads before the candidates with the candidates."""
    every = weights.residual.all_heads()
    if len(every) <= config.max_singles:
        senders, readers = every, every
    else:
        strong = np.argsort(-verdicts.previous_token, axis=None)[:16]
        places = zip(*np.unravel_index(strong, verdicts.previous_token.shape), strict=True)
        senders = sorted({*proved_senders(verdicts), *(HeadName(int(i), int(j)) for i, j in places)})
        readers = sorted(candidates)
    try:
        return composition(model, senders=senders, readers=readers, weights=weights, seed=config.seeds[0])
    except ConfigError:  # one layer, or no candidate after a sender
        return {}


def _texts(model: Any, prompts: InductionPrompts, n: int = 3) -> list[dict[str, list[str]]]:
    from interp.models.adapter import token_strings

    return [
        {"tokens": token_strings(model, clean), "corrupt_tokens": token_strings(model, corrupt)}
        for clean, corrupt in zip(prompts.tokens[:n], prompts.twins[0][:n], strict=True)
    ]


def _heads_to_show(verdicts: HeadVerdicts, circuit: Circuit) -> list[HeadName]:
    """Those of the circuit; of an empty one the four with the strongest scores."""
    names = [parse_node(node.name) for node in circuit.nodes]
    heads = [HeadName(node.layer or 0, node.head or 0) for node in names if node.kind == "head"]
    if heads:
        return heads
    order = np.argsort(-verdicts.strict, axis=None)[:4]
    return [HeadName(int(i), int(j)) for i, j in zip(*np.unravel_index(order, verdicts.strict.shape), strict=True)]


def _settings(config: InductionConfig, prompts: InductionPrompts) -> dict[str, Any]:
    return {
        "kind": "induction",
        "task": "repeated random tokens",
        "metric": "strict induction score; loss after the repeat begins",
        "method": "direct-edge path patching into keys, queries, values",
        "ablation": "resample (path patching), mean (ablation)",
        "direction": "noise",
        "between": "frozen (heads' effects), receivers (losses)",
        "seeds": list(config.seeds),
        "prompts_per_seed": config.prompts_per_seed,
        "context_length": prompts.tokens.shape[1],
        "lags": [int(prompts.lags.min()), int(prompts.lags.max())],
        "n_controls": config.n_controls,
    }


class _Steps:
    """Progress out of 100."""

    def __init__(self, progress: Progress | None):
        self.progress = progress

    def at(self, percent: int, what: str) -> None:
        if self.progress is not None:
            self.progress(percent, 100, {"stage": what})
