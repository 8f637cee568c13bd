"""A model that answers prompts, loaded at the first one.

Requests take turns (`turns`), so that no two of them share the hooks of a model. The latest readings stay in memory, so
views of a prompt come from its residual stream without another pass.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from dashboard.components.live import (
    ChatStep,
    DocumentText,
    Exchange,
    FeatureAnswer,
    FeatureShares,
    Generation,
    LensCells,
    LogitShares,
    NextTokens,
    PatchPair,
    Pattern,
    PromptResult,
    ScoreReasons,
    SteeringVerdict,
)
from dashboard.prompt.graphs import GraphModel
from dashboard.prompt.loaded import MAX_TOKENS, Loaded, Readings
from dashboard.turns import Turns
from interp.errors import PromptError, UnknownNameError
from interp.interventions.conversation import Conversation
from interp.workspace import Workspace
from saes.features.schema import Features

if TYPE_CHECKING:
    from interp.patching.patching_map import PatchingMap

PATCH_TOKENS = 64
"""Most tokens of a prompt that can be patched here."""
_FEATURE_NEW = 16
"""Tokens of each continuation on a feature's page."""


class LiveModel(GraphModel):
    """Answers prompts with the models and dictionaries of a workspace; implements `dashboard.components.live.Live`."""

    def __init__(self, workspace: Workspace, *, memory: int | None = None):
        """Open a workspace; `memory` bounds the bytes of its models in memory (`Loaded`)."""
        super().__init__(workspace, Turns(), Loaded(workspace, memory))
        self._readings = Readings(self._loaded)

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        return self._loaded.state

    def stage(self, visitor: str) -> str:
        """Return the progress of the requests of a page, in words."""
        return "loading the model" if self._loaded.state == "loading" else self._turns.stage(visitor)

    def cancel(self, visitor: str) -> None:
        """Drop the requests of a page."""
        self._turns.cancel(visitor)

    def read(self, text: str, *, model: str, features: str | None, chat: bool = False) -> PromptResult:
        """Tokens, losses, small attention patterns and, with `features` (an artefact's name), the strongest per token.

        Raises `PromptError` (empty, or longer than the page or the model can take), `UnknownNameError`,
        `MismatchError` (the dictionary belongs to other weights).
        """
        known = self._readings.known(text, model, chat, features)
        if known is not None:
            return known.result
        with self._turns.take("read") as turn:
            return self._readings.get(turn, text, model, chat, features).result

    def lens(
        self, text: str, *, model: str, start: int, stop: int, lens: str = "logit", token: str = "", chat: bool = False
    ) -> LensCells:
        """Decode some positions after every layer. Raises `PromptError`: no such positions, lens, not one token."""
        from dashboard.prompt import compute

        with self._turns.take("lens") as turn:
            reading = self._readings.get(turn, text, model, chat)
            n = reading.tokens.shape[1]
            if not 0 <= start < stop <= n:
                raise PromptError(
                    f"the prompt has positions 0 to {n - 1}, got {start} to {stop - 1}; choose among them"
                )
            loaded, translators = self._loaded.model(model), self._loaded.lens(model, lens)
            followed = compute.token_at_end(loaded, reading, token) if token else None
            return compute.lens_cells(loaded, reading, start, stop, translators, followed, turn.check)

    def next_tokens(
        self, text: str, *, model: str, after: int | None, temperature: float = 1.0, chat: bool = False
    ) -> NextTokens:
        """Return the likeliest tokens after a position. Raises `PromptError`: no such position or temperature."""
        from dashboard.prompt import compute

        if not 0.05 <= temperature <= 5:
            raise PromptError(f"expected a temperature from 0.05 to 5, got {temperature:g}; choose one in this range")
        with self._turns.take("next") as turn:
            reading = self._readings.get(turn, text, model, chat)
            at = compute.position(reading.tokens, after)
            return compute.next_tokens(self._loaded.model(model), reading, at, temperature)

    def activations(self, text: str, *, model: str, features: str, feature: int, chat: bool = False) -> list[float]:
        """Return the activation of one feature on every token. Raises `UnknownNameError`: no such feature."""
        from dashboard.prompt import compute

        with self._turns.take("activations") as turn:
            reading = self._readings.get(turn, text, model, chat, features)
            n = self._workspace.open(Features, features).n_features
            if not 0 <= feature < n:
                raise UnknownNameError("feature", str(feature), [], f"of {features}; the last one is {n - 1}")
            return compute.activations_of(reading, feature)

    def pattern(self, text: str, *, model: str, layer: int, head: int, chat: bool = False) -> Pattern:
        """Attention of one head. Raises `PromptError`, `UnknownNameError` when the model has no such head."""
        from dashboard.prompt import compute

        with self._turns.take("pattern") as turn:
            reading = self._readings.get(turn, text, model, chat)
            compute.check_head(self._loaded.model(model), layer, head)
            weights = reading.patterns[layer, head].float()
            weights = (weights / weights.sum(-1, keepdim=True)).cpu().numpy()  # stored with ten bits each
            return Pattern(reading.result.tokens, layer, head, weights)

    def generate(
        self, text: str, *, model: str, n_new: int, temperature: float, seed: int, features: str = "",
        feature: int = 0, strength: float = 1.0, exchange: Exchange | None = None, chat: bool = False,
    ) -> Iterator[Generation]:  # fmt: skip
        """Continue a prompt unchanged, changed, and moved as far at random. Raises `PromptError`."""
        from dashboard.prompt import compute
        from interp.models.generation import check_room

        with self._turns.take("generate") as turn:
            loaded, tokens = self._loaded.prompt(text, model, chat)
            check_room(loaded, tokens, n_new)
            changes = self._loaded.changes(model, exchange or (features, feature, strength), seed)
        yield from compute.steps_of(
            loaded, tokens, changes, n_new=n_new, temperature=temperature, seed=seed,
            turn=lambda: self._turns.take("generate", again=turn),
        )  # fmt: skip

    def chat(self, talk: Conversation, message: str) -> Iterator[ChatStep]:
        """Answer a message in every chat of a conversation; others take turns between two tokens."""
        from interp.interventions.chat import reply_to

        spec, steering = talk.recipe.model, talk.steering
        with self._turns.take("chat") as turn:
            replies = reply_to(self._loaded.model(spec), talk, message, self._loaded.take_chats(spec, steering))
        try:
            while True:
                with self._turns.take("chat", again=turn) as held:
                    said = next(replies, None)
                    held.check()
                if said is None:
                    break
                yield ChatStep(said)
            yield ChatStep([], replies.finished())
        finally:
            self._loaded.put_chats(spec, steering, replies.chats)

    def check_chat(self, talk: Conversation) -> dict[str, bool | int]:
        """Load the model; return whether it has a chat template, and its context. Raises as `chat` does."""
        from interp.models.adapter import weight_hash
        from interp.models.generation import has_template

        with self._turns.take("chat check"):
            loaded = self._loaded.model(talk.recipe.model)
            talk.recipe.check(weight_hash(loaded), {})
            return {"template": has_template(loaded), "context": loaded.cfg.n_ctx}

    def shares(
        self, text: str, *, model: str, answer: str, contrast: str, after: int | None, chat: bool = False
    ) -> LogitShares:
        """Direct logit attribution. Raises `PromptError`: not one token, or no such position."""
        from dashboard.prompt import compute

        with self._turns.take("shares") as turn:
            reading = self._readings.get(turn, text, model, chat)
            loaded, at = self._loaded.model(model), compute.position(reading.tokens, after)
            right, wrong = compute.answers(loaded, reading, at, answer, contrast)
            turn.check("attributing the answer")
            return compute.logit_shares(loaded, reading, at, right, wrong)

    def feature_shares(
        self, text: str, *, model: str, features: str, answer: str, contrast: str, after: int | None,
        chat: bool = False,
    ) -> FeatureShares:  # fmt: skip
        """Attribution to the features of an SAE. Raises as `shares` does, and `ConfigError` for neurons."""
        from dashboard.prompt import compute

        with self._turns.take("feature shares") as turn:
            reading = self._readings.get(turn, text, model, chat)
            loaded, at = self._loaded.model(model), compute.position(reading.tokens, after)
            dictionary = self._loaded.sae(model, features)
            right, wrong = compute.answers(loaded, reading, at, answer, contrast)
            turn.check("attributing the answer to features")
            return compute.feature_shares(loaded, dictionary.sae, reading.tokens[:, : at + 1], right, wrong)

    def reasons(
        self, text: str, *, model: str, layer: int, head: int, query: int, key: int, chat: bool = False
    ) -> ScoreReasons:
        """QK attribution of one cell of a pattern. Raises `PromptError`, `UnknownNameError`."""
        from dashboard.prompt import compute

        with self._turns.take("reasons"):
            loaded, tokens = self._loaded.prompt(text, model, chat)
            return compute.score_reasons(loaded, tokens, layer, head, query, key)

    def suggest_pair(self, text: str, *, model: str, chat: bool = False) -> PatchPair:
        """Suggest a corrupt prompt for patching; empty for a prompt that is too long to be patched here."""
        from dashboard.prompt import nulls

        with self._turns.take("suggest") as turn:
            reading = self._readings.get(turn, text, model, chat)
            if reading.tokens.shape[1] > PATCH_TOKENS:
                return PatchPair(text, "", reading.result.likeliest, "")
            turn.check("choosing a second prompt")
            given = self._loaded.model(model), text, reading.tokens, reading.result.likeliest
            return nulls.suggest_pair(*given, lambda other: self._loaded.prompt(other, model, chat)[1])

    def patch(
        self, clean: str, corrupt: str, *, model: str, answer: str, wrong: str, what: str, direction: str,
        chat: bool = False,
    ) -> "PatchingMap":  # fmt: skip
        """Activation patching between two prompts. Raises `PromptError`, `ConfigError` (no gap, no such value)."""
        from dashboard.prompt import compute

        with self._turns.take("patch"):
            loaded, tokens = self._loaded.prompt(clean, model, chat)
            if tokens.shape[1] > PATCH_TOKENS:
                raise PromptError(
                    f"the prompt has {tokens.shape[1]} tokens, this panel patches at most {PATCH_TOKENS}; shorten it, "
                    "or use `workbench patch`"
                )
            right = compute.answer_text(loaded, tokens, answer)
            against = (
                compute.answer_text(loaded, self._loaded.prompt(corrupt, model, chat)[1], wrong) if wrong else None
            )
            return compute.patch_map(loaded, model, (clean, corrupt, right, against), what, direction, chat=chat)

    def steering_verdict(
        self, text: str, *, model: str, features: str, feature: int, strength: float = 1.0, chat: bool = False
    ) -> SteeringVerdict:
        """Compare steering with both nulls. Raises as `try_feature` does."""
        from dashboard.prompt import nulls

        with self._turns.take("verdict") as turn:
            loaded, tokens = self._loaded.prompt(text, model, chat)
            site, case = self._loaded.feature(loaded, model, features, feature)
            turn.check("steering along the directions of both nulls")
            lens = self._loaded.jacobian_lens(model)
            return nulls.steering_verdict(site, case, tokens, strength, lens, lambda _: turn.check())

    def try_feature(
        self, ask: Literal["text", "steer", "ablate", "direction"], *, model: str, features: str, index: int,
        text: str = "", strength: float = 1.0,
    ) -> FeatureAnswer:  # fmt: skip
        """Ask about one feature, with its controls. Raises `PromptError`, `UsageError` (it never fires)."""
        from saes.features import answers
        from saes.features.proof import ProofConfig

        with self._turns.take(f"feature {ask}") as turn:
            alone = ask in ("ablate", "direction")
            loaded, tokens = (self._loaded.model(model), None) if alone else self._loaded.prompt(text, model)
            site, case = self._loaded.feature(loaded, model, features, index)
            turn.check("asking about the feature")
            if ask == "direction":
                return answers.lists_apart(site, index, self._loaded.lists(model, site, turn.check))
            if tokens is None:
                return answers.compare_ablation(site, case, ProofConfig(), done=lambda _: turn.check())
            if ask == "text":
                return answers.feature_on_text(site, case, tokens)
            return answers.compare_steering(site, case, tokens, strength * case.max_activation, _FEATURE_NEW)

    def documents(self, *, features: str, index: int, rows: list[int]) -> list[DocumentText]:
        """Return the documents around rows of the recording. Raises `UnknownNameError`, `MismatchError`."""
        from dashboard.data.documents import described_recording, document_text

        recording, spec = described_recording(self._workspace, features)
        with self._turns.take("documents") as turn:
            dictionary, model = self._loaded.dictionary(spec, features), self._loaded.model(spec)
            texts: list[DocumentText] = []
            for row in rows:
                turn.check("reading documents")
                texts.append(document_text(model, dictionary, recording, row, index, MAX_TOKENS))
            return texts
