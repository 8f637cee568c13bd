"""Acts on two prompts: activation patching between them, and a second prompt that suits a first one.

Torch-free until an act is measured.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.acts import Act
from interp.errors import PromptError
from interp.options import Label, ModelName, PromptText, Words
from interp.patching.config import Direction, What
from saes.acts.prompt import OnPrompt
from saes.acts.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.hooked import HookedModel
    from interp.patching.patching_map import PatchingMap

PATCH_TOKENS = 64
"""Most tokens of a prompt that is patched by these acts."""
PATCH_DRAWS = 3
"""Null maps that come with a map of patches."""
PATCHED = Words(
    resid_pre="residual stream before each block, by position",
    attn_out="attention outputs, by position",
    mlp_out="MLP outputs, by position",
    z="outputs of single heads",
)
_NEAR = 60
"""Tokens nearest to a word, among which its replacement is searched for."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, kw_only=True)
class PatchPrompts(Act[Session, "PatchingMap"]):
    """Patch activations between two prompts of one length: each patch's share of the gap between their answers.

    The null are patches from prompts with other words. Raises `PromptError` (too long, lengths differ, an answer of
    several tokens), `ConfigError` where the metric shows no gap.
    """

    verb: ClassVar[str] = "patch"
    clean: Annotated[PromptText, Label("Clean prompt")]
    """The prompt with the right answer."""
    corrupt: Annotated[PromptText, Label("Corrupt prompt, same length")]
    """A prompt of the same length with another answer."""
    model: ModelName
    """A model of the workspace."""
    answer: Annotated[str, Label("Clean answer")]
    """Next token of the clean prompt, with or without its leading space."""
    wrong: Annotated[str, Label("Corrupt answer")] = ""
    """Next token of the corrupt prompt; empty for the mean over the vocabulary."""
    what: Annotated[What, Label("Value that is patched"), PATCHED] = "resid_pre"
    """Activations that are patched; those of heads (`z`) at all positions at once."""
    direction: Annotated[
        Direction,
        Label("Direction"),
        Words(denoise="denoise: clean into corrupt", noise="noise: corrupt into clean"),
    ] = "denoise"
    """`denoise`: clean activations into the corrupt run; `noise`: the reverse."""
    chat: bool = False
    """Put both prompts into the model's chat template."""

    def measure(self, run: Session) -> "PatchingMap":
        from interp.circuits.tasks import pair_task
        from interp.patching.config import PatchingConfig
        from interp.patching.maps import measure_map

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
        config = PatchingConfig(
            what=self.what, direction=self.direction, by_position=self.what != "z", draws=PATCH_DRAWS
        )
        return measure_map(model, task, config, model_name=self.model)


def _answer_text(model: "HookedModel", tokens: "Tensor", text: str) -> str:
    """Return the text of the one token that an answer denotes after `tokens [1, n]`."""
    from interp.models.adapter import run_with_cache, token_text
    from saes.acts.reading import single_token

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
class SuggestPair(OnPrompt, Act[Session, PatchPair]):
    """Suggest a corrupt prompt that differs from a prompt in one word, with the most probable next tokens of both.

    The word is the last capitalised one after the first word, else the last one that has a replacement: the nearest
    token by the cosine similarity of embeddings that is another word in the same letter case. Without such a word,
    where the lengths would differ, or for a prompt that is too long to be patched, the corrupt prompt is empty.
    """

    verb: ClassVar[str] = "suggest_pair"
    later: ClassVar[bool] = True

    def measure(self, run: Session) -> PatchPair:
        from interp.models.adapter import run_with_cache, token_strings

        reading, model = run.reading(self.text, self.model, self.chat), run.model(self.model)
        likeliest = reading.result.likeliest
        if reading.tokens.shape[1] > PATCH_TOKENS:
            return PatchPair(self.text, "", likeliest, "")
        run.check("choosing a second prompt")
        words = list(_WORD.finditer(self.text))
        capitals = [word for word in words[1:] if word[0][0].isupper()]
        for word in [*reversed(capitals), *(other for other in reversed(words) if other not in capitals)]:
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


def nearest_word(model: "HookedModel", word: str) -> str | None:
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
        other = near.removeprefix(" ")
        whole = near.startswith(" ") and _WORD.fullmatch(other) and other.istitle() == word.istitle()
        akin = other.lower().startswith(low[:4]) or low.startswith(other.lower()[:4])
        if whole and not akin and other.isupper() == word.isupper():
            return other
    return None
