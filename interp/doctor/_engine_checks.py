"""Checks of an engine: one for each part of a block, one for missing rows, one for the order of requests."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from interp.doctor._engine_rows import cause_of, groups_of, reference_rows
from interp.doctor.trials import Outcome, Skip, relative, trial
from interp.engines.modules import Site
from interp.errors import ResourceError
from interp.names import parse_hook_point

if TYPE_CHECKING:
    from torch import Tensor

    from interp.text.tokens import Tokenizer

AT_A_TIME = 500_000_000
"""Bytes of rows that are compared at a time."""


class GivesRows(Protocol):
    """An engine that can be examined, such as `interp.engines.vllm.Vllm`."""

    spec: str
    precision: str
    n_ctx: int
    sites: dict[str, Site]

    @property
    def about(self) -> str: ...
    @property
    def weight_hash(self) -> str: ...
    @property
    def tokenizer(self) -> "Tokenizer": ...
    def hook(self, sites: dict[str, Site]) -> None: ...
    def rows(self, contexts: list[list[int]]) -> "dict[str, Tensor]": ...


@dataclass
class EngineSetup:
    """An engine under examination, and the reference."""

    engine: GivesRows
    plain: Any
    """the model in transformers, float32 on the CPU"""
    contexts: list[list[int]]
    tolerance: float
    """largest relative error; of a narrow precision measured on transformers itself"""
    whole: str = ""
    """why rows are missing; empty where all came"""
    errors: dict[str, float] = field(default_factory=dict)
    """relative error by hook point"""
    worst: "dict[str, tuple[str, Tensor]]" = field(default_factory=dict)
    """by kind of hook point: the one with the largest error, and the rows that came"""

    def measure(self) -> Iterator[int]:
        """Compare all hook points, and yield how many are done."""
        sites = self.engine.sites
        width = self.plain.get_input_embeddings().weight.shape[1]
        for group in groups_of(sites, sum(map(len, self.contexts)), width, AT_A_TIME):
            self.engine.hook(group)
            try:
                came = self.engine.rows(self.contexts)
            except ResourceError as error:
                self.whole = str(error)
                return
            expected = reference_rows(self.plain, group, self.contexts)
            for name in group:
                error = relative(came[name], expected[name])
                self.errors[name] = error
                kind = parse_hook_point(name).suffix
                if kind not in self.worst or not error <= self.errors[self.worst[kind][0]]:
                    self.worst[kind] = name, came[name]
            yield len(self.errors)

    def judged(self, *kinds: str) -> Outcome:
        """Return the outcome for the hook points of some kinds."""
        if self.whole:
            raise Skip("not every row came")
        names = [name for name in self.errors if parse_hook_point(name).suffix in kinds]
        if not names:
            raise Skip("the engine does not offer it")
        worst = max(names, key=lambda name: self.errors[name])
        error = self.errors[worst]
        came = (
            f"{len(names)} hook points, a relative error up to {error:.2g}, at {worst} ({self.tolerance:.2g} allowed)"
        )
        if error <= self.tolerance:
            return True, came
        name, rows = self.worst[parse_hook_point(worst).suffix]
        cause = cause_of(self.plain, self.engine.sites, name, rows, self.contexts)
        return False, f"{came}" + (f"; {cause}" if cause else "")


_DID = "Ran contexts of different lengths here and, each alone, through transformers."
_EXPECTED = "the same rows but for rounding"


@trial(
    "engine", "whole contexts", did=_DID, expected="one row for every token of every context",
    means="The engine splits prompts, or does not compute what it has cached: rows of a recording would be missing.",
)  # fmt: skip
def whole_contexts(setup: EngineSetup) -> Outcome:
    n = sum(map(len, setup.contexts))
    return not setup.whole, setup.whole or f"all {n:,} rows of {len(setup.contexts)} contexts"


@trial(
    "engine", "residual stream", did=_DID, expected=_EXPECTED,
    means="Recordings of the residual stream are of something else, and dictionaries trained on them too.",
)  # fmt: skip
def residual_stream(setup: EngineSetup) -> Outcome:
    return setup.judged("hook_resid_pre", "hook_resid_mid", "hook_resid_post")


@trial(
    "engine", "attention output", did=_DID, expected=_EXPECTED,
    means="What attention writes is read at another place, or in part.",
)  # fmt: skip
def attention_output(setup: EngineSetup) -> Outcome:
    return setup.judged("hook_attn_out", "ln1_post.hook_in")


@trial(
    "engine", "MLP", did=_DID, expected=_EXPECTED,
    means="What the MLP reads or writes is read at another place, or in part: transcoders would learn something else.",
)  # fmt: skip
def mlp(setup: EngineSetup) -> Outcome:
    return setup.judged("mlp.hook_in", "hook_mlp_out", "ln2_post.hook_in")


@trial(
    "engine", "other batches", did="Ran the contexts again in the opposite order, and eight of them alone.",
    expected=_EXPECTED, means="A row depends on what else is in its batch: requests are mixed up, or padding is read.",
)  # fmt: skip
def other_batches(setup: EngineSetup) -> Outcome:
    if setup.whole:
        raise Skip("not every row came")
    engine, contexts = setup.engine, setup.contexts
    name = next(reversed([name for name in engine.sites if name.endswith("hook_resid_post")]))
    engine.hook({name: engine.sites[name]})
    sizes = [len(context) for context in contexts]
    first = engine.rows(contexts)[name].split(sizes)
    again = list(reversed(engine.rows(contexts[::-1])[name].split(sizes[::-1])))
    alone = [engine.rows([context])[name] for context in contexts[:8]]
    error = max(relative(torch.cat(again), torch.cat(first)), relative(torch.cat(alone), torch.cat(first[:8])))
    return error <= setup.tolerance, f"a relative error up to {error:.2g} at {name} ({setup.tolerance:.2g} allowed)"
