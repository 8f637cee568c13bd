"""Checks of an engine: one for each part of a block, one for missing rows, one for the order of requests."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from interp.doctor._engine_rows import cause_of, parts_of, reference_rows
from interp.doctor.trials import Outcome, Skip, relative, trial
from interp.engines.modules import Site
from interp.errors import ResourceError
from interp.names import parse_hook_point
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
    def tokenizer(self) -> Tokenizer: ...
    def hook(self, sites: dict[str, Site], adding: Mapping[str, Tensor] | None = None) -> None: ...
    def rows(self, contexts: list[list[int]]) -> dict[str, Tensor]: ...


@dataclass
class EngineSetup:
    """An engine under examination, and the reference."""

    engine: GivesRows
    plain: Any
    """the model in transformers, float32 on the CPU"""
    contexts: list[list[int]]
    tolerance: float
    """largest relative error; of a narrow precision measured on transformers itself"""
    between_runs: float | None = None
    """relative difference of two runs of transformers in this precision, with other batches; None in float32"""
    whole: str = ""
    """why rows are missing; empty where all came"""
    errors: dict[str, float] = field(default_factory=dict)
    """relative error by hook point"""
    last_rows: list[Tensor] = field(default_factory=list)
    """rows that came of the last residual, by context"""

    @property
    def last(self) -> str:
        """The hook point of the last residual."""
        return next(reversed([name for name in self.engine.sites if name.endswith("hook_resid_post")]))

    def measure(self) -> Iterator[int]:
        """Compare all hook points, and yield how many contexts are done: each runs here and there once."""
        sites, width = self.engine.sites, self.plain.get_input_embeddings().weight.shape[1]
        off, size = dict.fromkeys(sites, 0.0), dict.fromkeys(sites, 1e-24)
        self.engine.hook(sites)
        for first, part in parts_of(self.contexts, AT_A_TIME // (4 * width * len(sites))):
            try:
                came = self.engine.rows(part)
            except ResourceError as error:
                self.whole = str(error)
                return
            for name, expected in reference_rows(self.plain, sites, part).items():
                off[name] += (relative(came[name], expected) * float(expected.norm())) ** 2
                size[name] += float(expected.norm()) ** 2
            self.last_rows += came[self.last].split([len(context) for context in part])
            yield first + len(part)
        self.errors = {name: math.sqrt(off[name] / size[name]) for name in sites}

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
        return False, came + self.cause(worst)

    def cause(self, name: str, rows: Tensor | None = None) -> str:
        """Return what may be wrong, or nothing: a search that fails leaves the verdict as it is."""
        with contextlib.suppress(Exception):
            if rows is None:
                self.engine.hook({name: self.engine.sites[name]})
                rows = self.engine.rows(self.contexts)[name]
            if cause := cause_of(self.plain, self.engine.sites, name, rows, self.contexts):
                return f"; {cause}"
        return ""


_DID = "Ran contexts of different lengths here and through transformers."
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
    engine, contexts, name, first = setup.engine, setup.contexts, setup.last, setup.last_rows
    engine.hook({name: engine.sites[name]})
    again = list(reversed(engine.rows(contexts[::-1])[name].split([len(context) for context in contexts[::-1]])))
    alone = [engine.rows([context])[name] for context in contexts[:8]]
    error = max(relative(torch.cat(again), torch.cat(first)), relative(torch.cat(alone), torch.cat(first[:8])))
    theirs = f"; two runs of transformers differ by {setup.between_runs:.2g}" if setup.between_runs is not None else ""
    came = f"a relative error up to {error:.2g} at {name} ({setup.tolerance:.2g} allowed){theirs}"
    if error <= setup.tolerance:
        return True, came
    return False, came + setup.cause(name, torch.cat(again))


@trial(
    "engine", "added vectors", did="Added a vector after the middle block, attention and MLP; compared the last block.",
    expected=_EXPECTED, means="Steering in this engine is not what it is in the model.",
)  # fmt: skip
def added_vectors(setup: EngineSetup) -> Outcome:
    if setup.whole:
        raise Skip("not every row came")
    engine, few, last = setup.engine, setup.contexts[:8], setup.last
    layer = ((parse_hook_point(last).layer or 0) + 1) // 2
    before = torch.cat(setup.last_rows[:8])
    vector = torch.randn(before.shape[1], generator=torch.Generator().manual_seed(0)) * before.std()
    points = [f"blocks.{layer}.{name}" for name in ("hook_resid_post", "hook_attn_out", "hook_mlp_out")]
    adding = dict(zip(points, (vector, vector.flip(0), -vector.roll(1)), strict=True))
    engine.hook({last: engine.sites[last]}, adding)
    came = engine.rows(few)[last]
    paths = {engine.sites[name].path: vector for name, vector in adding.items()}
    expected = reference_rows(setup.plain, {last: engine.sites[last]}, few, paths)[last]
    error, moved = relative(came, expected), relative(before, expected)
    came = f"a relative error of {error:.2g} at {last} ({setup.tolerance:.2g} allowed), which they moved by {moved:.2g}"
    return error <= setup.tolerance < moved, came
