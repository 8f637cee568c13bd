"""Text that a model writes while it is steered: the share of samples that keep a rule, and the answers of a judge.

    questions = sampled_questions(model, prompts, rule=r"\\b(great|lovely)\\b")
    choice = choose_steering(model, candidates, questions, neutral_text(model, TEXT))

A sample of a prompt is drawn with the same random numbers in every arm and unsteered, so that an arm that changes
nothing changes no share.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from interp.directions.choice import SampleJudgement
from interp.directions.config import check_rule
from interp.errors import PromptError, WorkbenchError
from interp.interventions.arms import Arms
from interp.models.adapter import token_strings
from interp.models.generation import NextToken, Offset, end_tokens, generate, prompt_tokens, sampled
from interp.models.hooked import HookedModel
from interp.seeds import derive_seed, make_generator
from interp.statistics import t_interval

SAMPLE_TOKENS = 24
"""Tokens of a sample."""
SAMPLE_ROWS = 128
"""Samples that are written together."""


@dataclass(frozen=True)
class Samples:
    """Prompts that are continued at a temperature of 1, and the rule that a sample may keep."""

    prompts: tuple[str, ...]
    tokens: tuple[Int[Tensor, " pos"], ...]
    rule: str
    """Regular expression, found in a sample that keeps it; case does not count."""
    n_each: int
    """Samples of each prompt."""
    seed: int
    measured_in: str = "of the samples"

    @property
    def question(self) -> str:
        """The question, in words."""
        return f"share of samples in which /{self.rule}/ is found"

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def n_tokens(self) -> int:
        """Tokens that one arm writes, at most."""
        return len(self) * self.n_each * SAMPLE_TOKENS

    def half(self, odd: int) -> "Samples":
        """Return the even-numbered prompts (0) or the odd-numbered ones (1)."""
        seed = derive_seed(self.seed, "half", str(odd))
        return replace(self, prompts=self.prompts[odd::2], tokens=self.tokens[odd::2], seed=seed)

    def effects(
        self, model: HookedModel, arms: Arms, done: Callable[[int], None] | None = None
    ) -> Float64[np.ndarray, "arms n"]:
        """Return the change of every prompt's share in every arm from the unsteered model, which is an arm of its own.

        `done` is called with the number of tokens that were written.
        """
        [plain] = self._shares(model, None, done)
        return self._shares(model, arms, done) - plain

    def _shares(
        self, model: HookedModel, arms: Arms | None, done: Callable[[int], None] | None
    ) -> Float64[np.ndarray, "arms n"]:
        texts = self.texts(model, arms, done)
        matches = [[bool(re.search(self.rule, text, re.IGNORECASE)) for text in arm] for arm in texts]
        return np.array(matches, np.float64).reshape(len(matches), len(self), self.n_each).mean(2)

    def texts(
        self, model: HookedModel, arms: Arms | None, done: Callable[[int], None] | None = None
    ) -> list[list[str]]:
        """Return the samples of every arm, those of a prompt one after another; without arms the unsteered ones."""
        written = continuations_of(
            model, self.tokens, arms, n_each=self.n_each, temperature=1.0, seed=self.seed, done=done
        )
        return [[text_of(model, ids) for ids in arm] for arm in written]


def sampled_questions(
    model: HookedModel, prompts: Sequence[str], rule: str = "", *, n_each: int = 2, chat: bool = False, seed: int = 0
) -> Samples:
    """Return prompts to continue; with `chat` each stands in the model's chat template.

    Raises `ConfigError` for a rule that is not a regular expression, `PromptError` for a prompt without room for a
    sample.
    """
    check_rule(rule)
    tokens = tuple(prompt_tokens(model, prompt or "The", chat=chat)[0] for prompt in prompts)
    for prompt, ids in zip(prompts, tokens, strict=True):
        if len(ids) + SAMPLE_TOKENS > model.cfg.n_ctx:
            raise PromptError(
                f"{prompt[:40]!r} has {len(ids)} tokens, which leaves no room for {SAMPLE_TOKENS} more in a context of "
                f"{model.cfg.n_ctx}; shorten it"
            )
    return Samples(tuple(prompts), tokens, rule, n_each, seed)


@torch.no_grad()
def continuations_of(
    model: HookedModel,
    prompts: Sequence[Int[Tensor, " pos"]],
    arms: Arms | None,
    *,
    n_each: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> list[list[Int[Tensor, " new"]]]:
    """Return what follows every prompt in every arm, up to `SAMPLE_TOKENS` tokens or the context's end; without arms
    unsteered. The `n_each` continuations of a prompt follow one another. `done` is called with the number of tokens of
    each part.
    """
    n_arms = 1 if arms is None else len(arms)
    continued = [[torch.zeros(0, dtype=torch.long)] * len(prompts) * n_each for _ in range(n_arms)]
    for members in _of_one_length(prompts, SAMPLE_ROWS // n_each):
        rows = torch.stack([prompts[i] for i in members]).repeat_interleave(n_each, 0)
        numbers = [i * n_each + copy for i in members for copy in range(n_each)]
        together = max(1, SAMPLE_ROWS // len(rows))
        for at in range(0, n_arms, together):
            part = None if arms is None else arms.part(slice(at, at + together))
            generator = make_generator(seed, "samples", str(members))  # the same for every part of the arms
            new = _written(model, rows, part, temperature, generator)
            for arm, texts in enumerate(new.unflatten(0, (-1, len(rows))), at):
                for number, ids in zip(numbers, texts, strict=True):
                    continued[arm][number] = ids
            if done:
                done(new.numel())
    return continued


def _of_one_length(prompts: Sequence[Tensor], most: int) -> Iterator[list[int]]:
    """Yield the numbers of prompts of the same length, at most `most` at a time."""
    for length in sorted(set(map(len, prompts))):
        members = [i for i, ids in enumerate(prompts) if len(ids) == length]
        for at in range(0, len(members), max(1, most)):
            yield members[at : at + max(1, most)]


def _written(
    model: HookedModel, rows: Tensor, arms: Arms | None, temperature: float, generator: torch.Generator
) -> Int[Tensor, "rows new"]:
    """Continue `rows [n, pos]` in every arm: `[arms * n, new]`, the rows of an arm together."""
    n_new = max(0, min(SAMPLE_TOKENS, model.cfg.n_ctx - rows.shape[1]))
    tokens = rows.to(model.cfg.device).repeat(1 if arms is None else len(arms), 1)
    if not n_new:
        return tokens[:, :0]
    offset = Offset()
    step = NextToken(model, [] if arms is None else arms.hooks(model, offset), offset=offset)
    choose = sampled(temperature, generator, coupled=len(rows))
    return torch.stack(list(generate(step, tokens, n_new, choose)), 1).cpu()


def text_of(model: HookedModel, ids: Int[Tensor, " new"]) -> str:
    """Return the text of tokens up to the first that ends a reply."""
    if model.tokenizer is None:  # a small model of bytes
        return "".join(token_strings(model, ids))
    ends, row = end_tokens(model), ids.tolist()
    return model.tokenizer.decode(row[: next((at for at, token in enumerate(row) if token in ends), len(row))])


@dataclass(frozen=True)
class Judge:
    """Somebody who answers a question with yes or no about texts, without knowing how they were written."""

    question: str
    by: str
    """Its name."""
    answers: Callable[[Sequence[tuple[str, str]], Callable[[], None]], Sequence[bool | None]]
    """Called with a prompt and its continuation for each sample, and a function to call after each; returns None for an
    answer that is neither."""

    def judge(
        self, model: HookedModel, questions: Samples, arms: Arms, report: Callable[[str], None] | None = None
    ) -> SampleJudgement | str:
        """Return the share of yes unsteered, in the first arm, and in the others, the null.

        A judge that stops answering gives the reason instead: what was measured before it is not lost.
        """
        texts = [*questions.texts(model, None), *questions.texts(model, arms)]
        prompts = np.repeat(np.array(questions.prompts, object), questions.n_each)
        pairs = [(prompt, text) for arm in texts for prompt, text in zip(prompts, arm, strict=True)]
        numbers = count(1)

        def answered() -> None:
            if report:
                report(f"{next(numbers)} of {len(pairs)} samples judged")

        try:
            verdicts = self.answers(pairs, answered)
        except WorkbenchError as error:
            return f"{self.by} did not judge: {error}"
        yes = np.array([np.nan if verdict is None else float(verdict) for verdict in verdicts])
        shares = yes.reshape(len(texts), len(questions), questions.n_each)
        by_prompt = np.ma.masked_invalid(shares).mean(2).filled(np.nan)
        if np.isnan(by_prompt[:2]).any(0).all() or np.isnan(by_prompt).all(1).any():
            return f"{self.by} answered neither yes nor no to {np.isnan(yes).mean():.0%} of the samples"
        by_arm = np.nanmean(shares, axis=(1, 2))
        return SampleJudgement(
            question=self.question, by=self.by, plain=float(by_arm[0]), steered=float(by_arm[1]),
            change=t_interval(by_prompt[1] - by_prompt[0]), random=by_arm[2:],
            n_samples=len(questions) * questions.n_each, unanswered=int(np.isnan(yes).sum()),
        )  # fmt: skip
