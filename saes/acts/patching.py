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
from interp.options import ChoiceWords, FieldLabel, ModelName, PromptText
from interp.patching.patching_map import Direction, PatchingConfig, PatchingMap, What
from saes.acts.prompt import OnPrompt
from saes.acts.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from interp.patching.maps import MapArm
    from interp.patching.task import Task

PATCH_TOKENS = 64
"""Most tokens of a prompt that is patched by these acts."""
PATCHED = ChoiceWords(
    resid_pre="residual stream before each block, by position",
    attn_out="attention outputs, by position",
    mlp_out="MLP outputs, by position",
    z="outputs of single heads",
)
_NEAR = 60
"""Tokens nearest to a word, among which its replacement is searched for."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, kw_only=True)
class PatchPrompts(Compared[Run, "PatchingMap"]):
    """Patch activations between two prompts of one length: each patch's share of the gap between their answers.

    The null are patches from prompts with other words. Raises `PromptError` (too long, lengths differ, an answer of
    several tokens), `ConfigError` where the metric shows no gap.
    """

    verb: ClassVar[str] = "patch"
    clean: Annotated[PromptText, FieldLabel("Clean prompt")]
    """The prompt with the right answer."""
    corrupt: Annotated[PromptText, FieldLabel("Corrupt prompt, same length")]
    """A prompt of the same length with another answer."""
    model: ModelName
    """A model of the workspace."""
    answer: Annotated[str, FieldLabel("Clean answer")]
    """Next token of the clean prompt, with or without its leading space."""
    wrong: Annotated[str, FieldLabel("Corrupt answer")] = ""
    """Next token of the corrupt prompt; empty for the mean over the vocabulary."""
    what: Annotated[What, FieldLabel("Value that is patched"), PATCHED] = "resid_pre"
    """Activations that are patched; those of heads (`z`) at all positions at once."""
    direction: Annotated[
        Direction,
        FieldLabel("Direction"),
        ChoiceWords(denoise="denoise: clean into corrupt", noise="noise: corrupt into clean"),
    ] = "denoise"
    """`denoise`: clean activations into the corrupt run; `noise`: the reverse."""
    chat: bool = False
    """Put both prompts into the model's chat template."""

    def arms(self, run: Run) -> "list[MapArm]":
        """Return the sources of the patches: the two prompts, then draws of the null."""
        from interp.patching.maps import arm_of

        model, task, config = self.asked(run)
        return [arm_of(model, task, config, 0, number) for number in range(1 + config.draws)]

    def price(self, run: Run) -> Price:
        return self._priced(*self.asked(run))

    def measure(self, run: Run) -> PatchingMap:
        from interp.patching.maps import measure_map

        model, task, config = self.asked(run)
        price = self._priced(model, task, config)
        done = run.counted(price)

        def layer(_: int, total: int, __: object) -> None:
            done(price.total // total)

        return measure_map(model, task, config, model_name=self.model, progress=layer)

    def asked(self, run: Run) -> "tuple[HookedModel, Task, PatchingConfig]":
        """Return the model, the pair of prompts with its metric, and the settings of the map."""
        from interp.circuits.tasks import pair_task

        run.check("reading the two prompts")
        model, tokens = run.prompt(self.clean, self.model, self.chat)
        if tokens.shape[1] > PATCH_TOKENS:
            raise PromptError(
                f"the prompt has {tokens.shape[1]} tokens, at most {PATCH_TOKENS} can be patched here; shorten it, "
                "or use `workbench patch`"
            )
        right = _answer_text(model, tokens, self.answer)
        wrong = None
        if self.wrong:
            wrong = _answer_text(model, run.prompt(self.corrupt, self.model, self.chat)[1], self.wrong)
        task = pair_task(model, self.clean, self.corrupt, right, wrong, chat=self.chat)
        by_position = self.what != "z"
        return model, task, PatchingConfig(
            what=self.what, direction=self.direction, by_position=by_position, draws=DRAWS[self.nulls]
        )  # fmt: skip

    def _priced(self, model: HookedModel, task: "Task", config: PatchingConfig) -> Price:
        """Return the price of a map: each patch is a pass over the prompt."""
        from interp.models.adapter import head_shape

        shape, pos = head_shape(model), task.clean.shape[1]
        patches = shape.n_layers * (pos if config.by_position else shape.n_heads)
        arms = {"the two prompts": 1, "random tokens": config.draws}
        return Price(arms, patches * pos, self.model, f"{self.verb} {self.what}")


def _answer_text(model: HookedModel, tokens: "Tensor", text: str) -> str:
    """Return the text of the one token that an answer denotes after `tokens [1, n]`."""
    from interp.lenses.direct_attribution import single_token
    from interp.models.adapter import run_with_cache, token_text

    if not text:
        raise PromptError("the answer to the clean prompt is empty; type a word that is one token")
    return token_text(model, single_token(model, text, run_with_cache(model, tokens, [])[0][0, -1].float()))


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
