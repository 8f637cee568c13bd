"""Acts on two prompts: activation patching between them, and a second prompt that suits a first one.

Torch-free until an act is measured.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.acts import Act, Compared, Price
from interp.errors import PromptError
from interp.models.hooked import HookedModel
from interp.nulls import DRAWS
from interp.options import FieldLabel, ModelName, PromptText, base_of
from interp.patching.patching_map import NULL_OF, WHOLE, PatchChoice, PatchingConfig, PatchingMap
from saes.acts.prompt import OnPrompt
from saes.acts.run import Run

if TYPE_CHECKING:
    from interp.patching.maps import MapArm
    from interp.patching.task import Task

PATCH_TOKENS = 64
"""Most tokens of a prompt that is patched by these acts."""
_NEAR = 60
"""Tokens nearest to a word, among which its replacement is searched for."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, kw_only=True)
class PatchPrompts(PatchChoice, Compared[Run, PatchingMap]):
    """Patch activations between two prompts of one length: each patch's share of the gap between their answers.

    The null of denoise are the same patches with values of random tokens, of noise changes of the same size in random
    directions. Raises `PromptError` (too long, lengths differ, an answer of several tokens), `ConfigError` where the
    metric shows no gap.
    """

    verb: ClassVar[str] = "patch"
    clean: Annotated[PromptText, FieldLabel("Clean prompt")]
    """Prompt that the model answers. Of a model without a tokenizer: token numbers, "3 5 7"."""
    corrupt: Annotated[PromptText, FieldLabel("Corrupt prompt, same length")]
    """Prompt of the same number of tokens, with another answer."""
    model: ModelName
    """A model of the workspace."""
    answer: Annotated[str, FieldLabel("Clean answer")]
    """Next token of the clean prompt, with or without its leading space."""
    wrong: Annotated[str, FieldLabel("Corrupt answer")] = ""
    """Next token of the corrupt prompt. With it the metric is a difference of logits, else the log-probability of the
    answer."""
    chat: bool = False
    """Put both prompts into the model's chat template, as the message of a user."""

    def arms(self, run: Run) -> "list[MapArm]":
        """Return the sources of the patches: the two prompts, then draws of the null."""
        from interp.patching.maps import arm_of

        model, task, config = self.asked(run)
        return [arm_of(model, task, config, run.seed or 0, number) for number in range(1 + config.draws)]

    def price(self, run: Run) -> Price:
        return self._priced(*self.asked(run))

    def measure(self, run: Run) -> PatchingMap:
        from interp.patching.maps import measure_map

        asked = self.asked(run)
        with run.progress("patching", "layers", self._priced(*asked)) as progress:
            return measure_map(*asked, seed=run.seed or 0, draft=run.draft, progress=progress)

    def asked(self, run: Run) -> "tuple[HookedModel, Task, PatchingConfig]":
        """Return the model, the prompts with their metric, and the settings of the map."""
        from interp.patching.maps import resolved

        run.check("reading the two prompts")
        model = run.model(self.model)
        task = self.make_task(run, model)
        config = PatchingConfig(**vars(base_of(self, PatchChoice)), draws=DRAWS[self.nulls])
        return model, task, resolved(task, config)

    def make_task(self, run: Run, model: HookedModel) -> "Task":
        """Return the pair of prompts, with the metric of its answers."""
        from interp.circuits.tasks import pair_task

        right = self._answer(run, model, self.clean, self.answer)
        wrong = self._answer(run, model, self.corrupt, self.wrong) if self.wrong else None
        return pair_task(model, self.clean, self.corrupt, right, wrong, chat=self.chat)

    def _answer(self, run: Run, model: HookedModel, prompt: str, text: str) -> str:
        """Return the text of the one token that an answer denotes after a prompt."""
        from interp.lenses.direct_attribution import single_token
        from interp.models.adapter import run_with_cache, token_text
        from interp.models.identity import tokenizer_of

        if not text:
            raise PromptError("the answer to the clean prompt is empty; type a word that is one token")
        if tokenizer_of(model, required=False) is None:
            return text  # the number of a token
        tokens = run.prompt(prompt, self.model, self.chat)[1]
        run.check_length(tokens.shape[1], PATCH_TOKENS, "or use `workbench patch`")
        return token_text(model, single_token(model, text, run_with_cache(model, tokens, [])[0][0, -1].float()))

    def _priced(self, model: HookedModel, task: "Task", config: PatchingConfig) -> Price:
        """Return the price of a map: each patch is a pass over the prompts."""
        from interp.models.adapter import head_shape

        shape, (n_prompts, pos) = head_shape(model), task.clean.shape
        patches = shape.n_layers * (1 if config.what in WHOLE else shape.n_heads) * (pos if config.by_position else 1)
        arms = {"the two prompts": 1, NULL_OF[config.direction]: config.draws}
        return Price(arms, patches * n_prompts * pos, self.model, f"{self.verb} {self.what}")


@dataclass(frozen=True)
class PatchPair:
    """A suggestion of two prompts to patch between."""

    clean: str
    corrupt: str
    """the same with one word replaced; empty where no word could be"""
    answer: str
    wrong: str
    """the most probable next token of each; empty where the corrupt one is unknown or the same"""


@dataclass(frozen=True, kw_only=True)
class SuggestPair(OnPrompt, Act[Run, PatchPair]):
    """Suggest a corrupt prompt that differs from a prompt in one word, with the most probable next tokens of both.

    The word is the last capitalised one after the first word, else the last one that has a replacement: the nearest
    token by the cosine similarity of embeddings that is another word in the same letter case. Without such a word,
    where the lengths would differ, or for a prompt that is too long to be patched, the corrupt prompt is empty.
    """

    verb: ClassVar[str] = "suggest_pair"
    later: ClassVar[bool] = True

    def measure(self, run: Run) -> PatchPair:
        from interp.models.adapter import run_with_cache, token_strings

        reading, model = run.reading(self.text, self.model, self.chat), run.model(self.model)
        likeliest = reading.result.likeliest
        if reading.tokens.shape[1] > PATCH_TOKENS:
            return PatchPair(self.text, "", likeliest, "")
        run.check("choosing a second prompt")
        words = list(_WORD.finditer(self.text))
        capitals = [word for word in words[1:] if word[0][0].isupper()]
        for word in [*reversed(capitals), *(match for match in reversed(words) if match not in capitals)]:
            spaced = word.start() and self.text[word.start() - 1] == " "
            replacement = nearest_word(model, word[0]) if spaced else None
            if replacement is None:
                continue
            corrupt = self.text[: word.start()] + replacement + self.text[word.end() :]
            changed = run.prompt(corrupt, self.model, self.chat)[1]
            if changed.shape != reading.tokens.shape:
                continue
            after = run_with_cache(model, changed, [])[0][0, -1].float().argmax()
            wrong = token_strings(model, [int(after)])[0]
            return PatchPair(self.text, corrupt, likeliest, "" if wrong == likeliest else wrong)
        return PatchPair(self.text, "", likeliest, "")


def nearest_word(model: HookedModel, word: str) -> str | None:
    """Return the word, one token with its leading space, whose embedding is nearest to that of `word`."""
    from interp.lenses.direct_attribution import token_ids
    from interp.models.adapter import token_strings

    token = None
    with contextlib.suppress(PromptError):
        token = int(token_ids(model, f" {word}", 1)[0])
    if token is None:
        return None
    table = model.W_E.detach()
    scores = (table @ table[token]).float() / table.norm(dim=-1).float().clamp_min(1e-9)
    low = word.lower()
    for near in token_strings(model, scores.topk(min(_NEAR, len(scores))).indices):
        candidate = near.removeprefix(" ")
        whole = near.startswith(" ") and _WORD.fullmatch(candidate) and candidate.istitle() == word.istitle()
        akin = candidate.lower().startswith(low[:4]) or low.startswith(candidate.lower()[:4])
        if whole and not akin and candidate.isupper() == word.isupper():
            return candidate
    return None
