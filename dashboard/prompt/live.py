"""A model that answers prompts, loaded at the first one; with `compute`, all of the dashboard that needs torch.

Requests take turns (`turns`), so that no two of them share the hooks of a model. The latest readings stay in memory:
views of a prompt that was read are computed from its residual stream, without another pass.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from dashboard.components.live import (
    DocumentText,
    FeatureAnswer,
    FeatureShares,
    Generation,
    LensCells,
    LogitShares,
    NextTokens,
    PatchEffects,
    Pattern,
    PromptResult,
    ScoreReasons,
)
from dashboard.prompt.turns import Turn, Turns
from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from dashboard.prompt.compute import Reading

MAX_TOKENS = 512
"""Tokens that the page can show; the context of the model may be longer."""
PATCH_TOKENS = 48
"""Tokens of a prompt that can be patched here."""
MAX_NEW = 60
"""Tokens that a continuation can have."""
_FEATURE_NEW = 16
"""Tokens of each continuation on a feature's page."""
_MEMORY = 256 * 2**20
"""Bytes of readings held in memory, so that a prompt read before needs no pass; the last one is always held."""

_DICTIONARIES = 4
"""Dictionaries and tuned lenses held in memory: those used last."""


class Loaded:
    """The models and dictionaries of a workspace, each loaded when it is first asked for and then held."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self.state = "cold"
        """`cold` (nothing loaded), `loading` or `ready`."""
        self._models: dict[str, Any] = {}
        self._dictionaries: dict[tuple[str, str], Any] = {}

    def sae(self, spec: str, features: str) -> Any:
        """Return the SAE of a features artefact. Raises `ConfigError` for neurons."""
        from dashboard.prompt.compute import HookedSAE

        dictionary = self.dictionary(spec, features)
        if not isinstance(dictionary, HookedSAE):
            raise ConfigError("this needs the features of an SAE, got neurons; choose another dictionary")
        return dictionary

    def largest(self, features: str, feature: int) -> float:
        """Return the largest activation of a feature that was measured."""
        path = self._workspace.table_path("features", features, "features")
        query = "select max_activation from f where feature = ?"
        rows = self._workspace.query(query, feature, f=path).to_pylist()
        if not rows:
            raise UnknownNameError("feature", str(feature), [], f"of {features}")
        return float(rows[0]["max_activation"])

    def model(self, spec: str) -> Any:
        """Return the model of a spec that the workspace names: an address must not make the server load another one."""
        if spec not in self._models:
            from dashboard.overview.data import models

            known = models(self._workspace)
            if spec not in known:
                raise UnknownNameError("model of this workspace", spec, known)
            from interp.models.loading import load_model

            self.state = "loading"
            try:
                self._models[spec] = load_model(spec)
            finally:
                self.state = "ready" if self._models else "cold"
        return self._models[spec]

    def tuned_lens(self, spec: str) -> Any:
        """Return the newest tuned lens of these weights in the workspace, or None."""
        lenses = [m for m in self._workspace.artifacts("lens") if m.config.get("model") == spec]
        if not lenses:
            return None
        from interp.lenses.tuned_lens import TunedLens
        from interp.models.adapter import weight_hash

        own = weight_hash(self.model(spec))
        fitting = [m for m in lenses if m.config.get("weight_hash") == own]
        if not fitting:
            return None
        newest = max(fitting, key=lambda m: m.created)
        key = (spec, newest.content_hash)
        path = self._workspace.path("lens", newest.name)
        return self._held(key, lambda: TunedLens.load(path, self.model(spec)))

    def dictionary(self, spec: str, features: str) -> Any:
        """Return the SAE or neurons of a features artefact. Raises `MismatchError`: the SAE was made again since."""
        from saes.features.sources import check_described

        manifest = self._workspace.manifest("features", features)
        check_described(self._workspace, manifest)
        source, _, name = str(manifest.config["dictionary"]).partition(":")
        key = (spec, manifest.content_hash)
        return self._held(key, lambda: self._load(self.model(spec), source, name, manifest.config))

    def version(self, features: str | None) -> str | None:
        """Return the content hash of a features artefact: one made again under its name is another."""
        return self._workspace.manifest("features", features).content_hash if features else None

    def _held(self, key: tuple[str, str], load: Callable[[], Any]) -> Any:
        found = self._dictionaries.pop(key, None)
        self._dictionaries[key] = load() if found is None else found  # the last is the one used last
        while len(self._dictionaries) > _DICTIONARIES:
            self._dictionaries.pop(next(iter(self._dictionaries)))
        return self._dictionaries[key]

    def _load(self, loaded: Any, source: str, name: str, config: dict[str, Any]) -> Any:
        if source == "neurons":
            from saes.features.sources import neurons_of

            return neurons_of(loaded, name, sign=config.get("sign", 1))
        if source != "sae":
            raise ConfigError(f"cannot run {source}:{name} on a prompt: only features of an SAE or of neurons can be")
        from interp.models.adapter import weight_hash
        from saes.weights.folder import check_model, load_sae

        sae = load_sae(self._workspace.path("sae", name))
        check_model(sae, weight_hash(loaded))
        from dashboard.prompt.compute import HookedSAE

        return HookedSAE(sae)


class LiveModel:
    """Answers prompts with the models and dictionaries of a workspace; implements `dashboard.components.live.Live`."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._turns = Turns()
        self._loaded = Loaded(workspace)
        self._readings: dict[tuple[str, str, bool, str | None], Reading] = {}
        """Readings by text, model, chat and content hash of the features."""

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        return self._loaded.state

    def stage(self, visitor: str) -> str:
        """Say how far the requests of a page are."""
        return "loading the model" if self._loaded.state == "loading" else self._turns.stage(visitor)

    def cancel(self, visitor: str) -> None:
        """Drop the requests of a page."""
        self._turns.cancel(visitor)

    def read(self, text: str, *, model: str, features: str | None, chat: bool = False) -> PromptResult:
        """Tokens, losses, small attention patterns and, with `features` (an artefact's name), the strongest per token.

        Raises `PromptError` (empty, or longer than the page or the model can take), `UnknownNameError`,
        `MismatchError` (the dictionary belongs to other weights).
        """
        known = self._readings.get((text, model, chat, self._loaded.version(features)))
        if known is not None:
            return known.result
        with self._turns.take("read") as turn:
            return self._reading(turn, text, model, chat, features).result

    def lens(
        self, text: str, *, model: str, start: int, stop: int, tuned: bool = False, token: str = "", chat: bool = False
    ) -> LensCells:
        """Decode some positions after every layer. Raises `PromptError`: no such positions, not one token."""
        from dashboard.prompt import compute

        with self._turns.take("lens") as turn:
            reading = self._reading(turn, text, model, chat)
            n = reading.tokens.shape[1]
            if not 0 <= start < stop <= n:
                raise PromptError(
                    f"the prompt has positions 0 to {n - 1}, got {start} to {stop - 1}; choose among them"
                )
            loaded, translators = self._loaded.model(model), self._loaded.tuned_lens(model) if tuned else None
            followed = compute.token_at_end(loaded, reading, token) if token else None
            return compute.lens_cells(loaded, reading, start, stop, translators, followed, turn.check)

    def next_tokens(
        self, text: str, *, model: str, after: int | None, temperature: float = 1.0, chat: bool = False
    ) -> NextTokens:
        """Return the likeliest tokens after a position. Raises `PromptError`: no such position or temperature."""
        from dashboard.prompt import compute

        if not 0.05 <= temperature <= 5:
            raise PromptError(f"a temperature from 0.05 to 5 was expected, got {temperature:g}; choose one of these")
        with self._turns.take("next") as turn:
            reading = self._reading(turn, text, model, chat)
            at = compute.position(reading.tokens, after)
            return compute.next_tokens(self._loaded.model(model), reading, at, temperature)

    def activations(self, text: str, *, model: str, features: str, feature: int, chat: bool = False) -> list[float]:
        """Return the activation of one feature on every token. Raises `UnknownNameError`: no such feature."""
        from dashboard.prompt import compute

        with self._turns.take("activations") as turn:
            reading = self._reading(turn, text, model, chat, features)
            n = self._workspace.manifest("features", features).summary.get("n_features")
            if feature < 0 or (n is not None and feature >= n):
                last = "" if n is None else f"; the last one is {n - 1}"
                raise UnknownNameError("feature", str(feature), [], f"of {features}{last}")
            return compute.activations_of(reading, feature)

    def pattern(self, text: str, *, model: str, layer: int, head: int, chat: bool = False) -> Pattern:
        """Attention of one head. Raises `PromptError`, `UnknownNameError` when the model has no such head."""
        from dashboard.prompt import compute

        with self._turns.take("pattern") as turn:
            reading = self._reading(turn, text, model, chat)
            compute.check_head(self._loaded.model(model), layer, head)
            weights = reading.patterns[layer, head].float()
            weights = (weights / weights.sum(-1, keepdim=True)).cpu().numpy()  # stored with ten bits each
            return Pattern(reading.result.tokens, layer, head, weights)

    def generate(
        self, text: str, *, model: str, features: str, feature: int, amount: float | None, n_new: int,
        temperature: float, seed: int, chat: bool = False,
    ) -> Iterator[Generation]:  # fmt: skip
        """Continue a prompt unchanged, steered, and moved as far in a random direction. Raises `ConfigError`."""
        from dashboard.prompt import compute

        if not 1 <= n_new <= MAX_NEW or not 0 <= temperature <= 5:
            raise ConfigError(f"1 to {MAX_NEW} tokens and a temperature from 0 to 5 were expected; choose among these")
        with self._turns.take("generate") as turn:
            loaded, tokens = self._tokens(text, model, chat)
            _check_room(loaded, tokens, n_new)
            dictionary = self._loaded.sae(model, features)
            if amount is None:
                amount = self._loaded.largest(features, feature)
            hooks = compute.generation_hooks(loaded, dictionary.sae, feature, amount, seed)
        yield from compute.steps_of(
            loaded, tokens, hooks, n_new=n_new, temperature=temperature, seed=seed,
            turn=lambda: self._turns.take("generate", again=turn),
        )  # fmt: skip

    def shares(
        self, text: str, *, model: str, answer: str, contrast: str, after: int | None, chat: bool = False
    ) -> LogitShares:
        """Direct logit attribution. Raises `PromptError`: not one token, or no such position."""
        from dashboard.prompt import compute
        from interp.lenses.direct_attribution import direct_logit_attribution
        from interp.models.adapter import token_strings

        with self._turns.take("shares") as turn:
            reading = self._reading(turn, text, model, chat)
            loaded, tokens = self._loaded.model(model), reading.tokens
            at = compute.position(tokens, after)
            right, wrong = compute.answers(loaded, reading, at, answer, contrast)
            turn.check("attributing the answer")
            found = direct_logit_attribution(loaded, tokens[:, : at + 1], right, wrong)
            names = token_strings(loaded, [right] if wrong is None else [right, wrong])
            return LogitShares(
                answer=names[0],
                contrast=None if wrong is None else names[1],
                after=at,
                token=reading.result.tokens[at],
                total=float(found.total[0]),
                parts=list(zip(found.parts, found.values[:, 0].tolist(), strict=True)),
                heads=found.heads[:, :, 0].tolist(),
                mlps=found.mlps[:, 0].tolist() if "L0MLP" in found.parts else [],
            )

    def feature_shares(
        self, text: str, *, model: str, features: str, answer: str, contrast: str, after: int | None,
        chat: bool = False,
    ) -> FeatureShares:  # fmt: skip
        """Attribution to the features of an SAE. Raises as `shares` does, and `ConfigError` for neurons."""
        from dashboard.prompt import compute

        with self._turns.take("feature shares") as turn:
            reading = self._reading(turn, text, model, chat)
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
        from interp.circuits.score_explanation import explain_score

        with self._turns.take("reasons"):
            loaded, tokens = self._tokens(text, model, chat)
            compute.check_head(loaded, layer, head)
            found = explain_score(loaded, tokens, f"L{layer}H{head}", query=query, key=key)
            return ScoreReasons(
                layer=layer,
                head=head,
                query=query,
                key=key,
                query_token=str(found.settings["query_token"]),
                key_token=str(found.settings["key_token"]),
                attention=found.attention,
                score=found.score,
                relative=found.relative_score,
                matrix=found.relative.numpy(),
                query_parts=list(found.query_parts),
                key_parts=list(found.key_parts),
            )

    def patch(
        self, clean: str, corrupt: str, *, model: str, answer: str, wrong: str, what: str, direction: str
    ) -> PatchEffects:
        """Activation patching between two prompts. Raises `PromptError`, `ConfigError` (no gap, no such value)."""
        from dashboard.prompt import compute

        with self._turns.take("patch"):
            loaded, tokens = self._tokens(clean, model)
            if tokens.shape[1] > PATCH_TOKENS:
                raise PromptError(
                    f"the prompt has {tokens.shape[1]} tokens, this panel patches at most {PATCH_TOKENS}; shorten it, "
                    "or use `workbench patch`"
                )
            right = compute.answer_text(loaded, tokens, answer)
            against = compute.answer_text(loaded, self._tokens(corrupt, model)[1], wrong) if wrong else None
            return compute.patch_effects(loaded, model, (clean, corrupt, right, against), what, direction)

    def try_feature(
        self, ask: Literal["text", "steer", "ablate"], *, model: str, features: str, index: int, text: str = "",
        strength: float = 1.0,
    ) -> FeatureAnswer:  # fmt: skip
        """Ask about one feature, with its controls. Raises `PromptError`, `UsageError` (it never fires)."""
        from saes.features import measure_proof as measures
        from saes.features.proof import ProofConfig, read_case

        with self._turns.take(f"feature {ask}") as turn:
            loaded, tokens = (self._loaded.model(model), None) if ask == "ablate" else self._tokens(text, model)
            dictionary = self._loaded.dictionary(model, features)
            site = measures.FeatureSite.of(loaded, getattr(dictionary, "sae", dictionary))
            case = read_case(self._workspace.path("features", features), index, config := ProofConfig())
            turn.check("asking about the feature")
            if tokens is None:
                return measures.compare_ablation(site, case, config, done=lambda _: turn.check())
            if ask == "text":
                return measures.feature_on_text(site, case, tokens)
            return measures.compare_steering(site, case, tokens, strength * case.max_activation, _FEATURE_NEW)

    def documents(self, *, features: str, index: int, rows: list[int]) -> list[DocumentText]:
        """Return the documents around rows of the recording. Raises `UnknownNameError`, `MismatchError`."""
        from dashboard.feature.documents import described_recording, document_text

        recording, spec = described_recording(self._workspace, features)
        with self._turns.take("documents") as turn:
            dictionary, model = self._loaded.dictionary(spec, features), self._loaded.model(spec)
            texts = []
            for row in rows:
                turn.check("reading documents")
                texts.append(document_text(model, dictionary, recording, row, index, MAX_TOKENS))
            return texts

    def _reading(self, turn: Turn, text: str, spec: str, chat: bool, features: str | None = None) -> "Reading":
        """Return the reading of a prompt, with the activations of `features` when they are named."""
        version = self._loaded.version(features)
        for key, known in self._readings.items():
            if key[:3] == (text, spec, chat) and version in (None, key[3]):
                return known
        from dashboard.prompt import compute

        turn.check("reading the prompt")
        loaded, tokens = self._tokens(text, spec, chat)
        dictionary = self._loaded.dictionary(spec, features) if features else None
        started = time.perf_counter()
        tuned = self._loaded.tuned_lens(spec) is not None
        found = compute.read(loaded, spec, tokens, dictionary, tuned, turn.check)
        found.result = dataclasses.replace(found.result, seconds=time.perf_counter() - started)
        self._readings[text, spec, chat, version] = found
        while len(self._readings) > 1 and sum(each.size for each in self._readings.values()) > _MEMORY:
            self._readings.pop(next(iter(self._readings)))
        return found

    def _tokens(self, text: str, spec: str, chat: bool = False) -> "tuple[Any, Tensor]":
        """Return the loaded model and the tokens `[1, n]` of a prompt. Raises `PromptError` (empty, or too long)."""
        if not text.strip():
            raise PromptError("the prompt is empty; type some text")
        from interp.models.generation import prompt_tokens

        loaded = self._loaded.model(spec)
        tokens = prompt_tokens(loaded, text, chat=chat)
        if tokens.shape[1] > MAX_TOKENS:
            raise PromptError(
                f"the prompt has {tokens.shape[1]} tokens, this page shows at most {MAX_TOKENS}; shorten the prompt"
            )
        return loaded, tokens


def _check_room(loaded: Any, tokens: "Tensor", n_new: int) -> None:
    if tokens.shape[1] + n_new > loaded.cfg.n_ctx:
        raise PromptError(
            f"the prompt has {tokens.shape[1]} tokens, which with {n_new} new ones exceed the "
            f"model's context of {loaded.cfg.n_ctx}; shorten the prompt, or ask for fewer"
        )
