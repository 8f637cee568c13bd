"""The same template with other words: a distribution for every edge of the grouped graph.

    words = {"France": " Paris", "Italy": " Rome", "Japan": " Tokyo"}
    found = trace_variants(model, "The capital of {} is", words, replacement)
    print(found)                 # flows between groups of nodes, with 95 % intervals over the words

Latents that are active differ from word to word, so nodes are grouped by what all prompts share: the position, and the
third of the layers. The flow from one group to another is the sum of edge scores between their nodes, signed by the
edges: the part of all influence on the target that goes straight from one to the other.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, PromptError
from interp.models.adapter import to_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.results import Record, Result
from interp.statistics import t_interval
from interp.tracing.config import TraceConfig
from interp.tracing.graph import Flow
from interp.tracing.influence import influence, normalise_rows
from interp.tracing.rows import Adjacency

if TYPE_CHECKING:
    from interp.tracing.edges import System
    from interp.tracing.replacement import Replacement

LEAST = 3
"""Fewest words that give an interval."""
PARTS = ("early", "middle", "late")


@dataclass(frozen=True, repr=False)
class Variants(Result):
    """Flows between groups of nodes over several prompts of one template."""

    template: str
    words: tuple[str, ...]
    flows: dict[tuple[str, str], Float[np.ndarray, " words"]]
    """`(source group, target group)` -> flow in each prompt, signed; the absolute flows into the target group sum to
    less than 1 where effects of both signs meet"""

    def rows(self) -> list[Flow]:
        """Return one row per pair of groups, the largest mean flow first."""
        rows = []
        for (source, target), values in self.flows.items():
            interval = t_interval(values)
            ends = {"low": float(interval.low), "high": float(interval.high)}
            same = int((np.sign(values) == np.sign(values.mean())).sum())
            mean = float(values.mean())
            rows.append(Flow(source=source, target=target, mean=mean, **ends, same_sign=same, n=len(values)))
        return sorted(rows, key=lambda row: -abs(row.mean))

    def to_records(self) -> list[Record]:
        """Return the flows as rows of a table."""
        return [asdict(row) for row in self.rows()]

    def headline(self) -> str:
        """Name the template, and how many flows have a sign that the words agree on."""
        rows = self.rows()
        sure = sum(row.beyond for row in rows)
        return (
            f"{self.template!r} with {len(self.words)} words: {sure} of {len(rows)} flows between groups have an "
            f"interval that excludes 0, {0.05 * len(rows):.0f} by chance."
        )


def trace_variants(
    model: HookedModel,
    template: str,
    words: Mapping[str, str],
    replacement: "Replacement",
    config: TraceConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Variants:
    """Trace every word of a template, which has `{}` where the word goes; `words` maps each to the target token.

    Raises `PromptError` unless all prompts have the same number of tokens, so that positions can be compared, and
    `ConfigError` for fewer than three words or a template without `{}`.
    """
    from interp.tracing.trace import aim_at, assemble, open_system

    config = replace(config or TraceConfig(), effects=0, nulls=False)
    if "{}" not in template or len(words) < LEAST:
        raise ConfigError(
            f"a template has {{}} where the word goes, and at least {LEAST} words; got {len(words)} words"
        )
    tokens = {word: to_tokens(model, template.replace("{}", word)) for word in words}
    lengths = {word: each.shape[1] for word, each in tokens.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{word!r} {n}" for word, n in lengths.items())
        raise PromptError(f"prompts of a template need the same number of tokens, got {shown}; choose other words")
    ids = [each[0].tolist() for each in tokens.values()]
    slots = [len({row[i] for row in ids}) > 1 for i in range(len(ids[0]))]
    texts = ["{}" if slot else text for slot, text in zip(slots, token_strings(model, ids[0]), strict=True)]
    found: dict[tuple[str, str], list[float]] = {}
    for done, (word, target) in enumerate(words.items()):
        system = open_system(model, tokens[word], replacement, skip_positions=config.skip_positions)
        adjacency = assemble(system, aim_at(model, system, config, target), config)
        for pair, flow in flows(adjacency, groups_of(system, adjacency, texts)).items():
            found.setdefault(pair, [0.0] * len(words))[done] = flow
        if progress is not None:
            progress(done + 1, len(words), {})
    arrays = {pair: np.array(values) for pair, values in found.items() if np.any(values)}
    return Variants(template, tuple(words), arrays)


def groups_of(system: "System", adjacency: Adjacency, texts: list[str]) -> list[str]:
    """Return the group of each node: kind, third of the layers, position."""
    n_layers, n_pos = system.frozen.shape.n_layers, system.frozen.n_pos
    at = [f"{text!r} ({position})" for position, text in enumerate(texts)]

    def part(layer: int) -> str:
        return PARTS[min(2, 3 * layer // n_layers)]

    layers, positions = system.layer.tolist(), system.position.tolist()
    names = [f"{part(layers[i])} latents at {at[positions[i]]}" for i in adjacency.features.tolist()]
    names += [f"{part(i // n_pos)} errors at {at[i % n_pos]}" for i in range(system.n_errors)]
    names += [f"token {each}" for each in at]
    return names + ["target"] * (len(adjacency.kinds) - len(names))


def flows(adjacency: Adjacency, groups: list[str]) -> dict[tuple[str, str], float]:
    """Return the signed flow of influence between groups, by `(source, target)`; pairs without any are left out."""
    shares = normalise_rows(adjacency.matrix)
    shares *= (influence(shares, adjacency.weights) + adjacency.weights.astype(shares.dtype))[:, None]
    shares *= np.sign(adjacency.matrix)
    names = sorted(set(groups))
    member = np.array([[group == name for group in groups] for name in names], dtype=np.float32)
    table = member @ shares @ member.T  # [target group, source group]
    return {(names[source], names[target]): float(table[target, source]) for target, source in np.argwhere(table != 0)}
