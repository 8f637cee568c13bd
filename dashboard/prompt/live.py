"""A model that answers prompts, loaded at the first one. The only module of the dashboard that loads torch.

Prompts run one at a time: a lock keeps two visitors from loading a model twice or from sharing its hooks.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from dashboard.components.live import (
    ActiveFeature,
    FeatureShare,
    FeatureShares,
    LogitShares,
    PatchEffects,
    Pattern,
    PromptResult,
    ScoreReasons,
)
from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 256
"""Tokens that the page can show; the context of the model may be longer."""
TOP_TOKENS, TOP_FEATURES = 5, 5
TOP_SHARES, SHARE_STEPS = 16, 8
"""Features shown for an answer, and steps of the integrated gradients behind their effects."""
PATCH_TOKENS, PATCH_DRAWS = 48, 3
"""Tokens of a prompt that can be patched here, and null maps that come with the map."""
_REMEMBERED = 16
"""Results that are retained, so that going back to a prompt costs nothing."""


class LiveModel:
    """Answers prompts with the models and dictionaries of a workspace; implements `dashboard.components.live.Live`."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._lock = threading.Lock()
        self._state = "cold"
        self._models: dict[str, Any] = {}
        self._dictionaries: dict[tuple[str, str], Any] = {}
        self._readings: OrderedDict[tuple[str, str, str | None], PromptResult] = OrderedDict()

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        return self._state

    def read(self, text: str, *, model: str, features: str | None) -> PromptResult:
        """Tokens, losses, logit lens and, with `features` (an artefact's name), the strongest features per token.

        Raises `PromptError` (empty, or longer than the page or the model can take), `UnknownNameError`,
        `MismatchError` (the dictionary belongs to other weights).
        """
        key = (text, model, features)
        with self._lock:
            if key not in self._readings:
                self._readings[key] = self._read(text, model, features)
                while len(self._readings) > _REMEMBERED:
                    self._readings.popitem(last=False)
            return self._readings[key]

    def pattern(self, text: str, *, model: str, layer: int, head: int) -> Pattern:
        """Attention of one head. Raises `PromptError`, `UnknownNameError` when the model has no such head."""
        from interp.models.adapter import run_with_cache, token_strings

        with self._lock:
            loaded, tokens = self._tokens(text, model)
            _check_head(loaded, layer, head)
            name = f"blocks.{layer}.attn.hook_pattern"
            _, values = run_with_cache(loaded, tokens, [name], stop_at_layer=layer + 1)
            return Pattern(token_strings(loaded, tokens), layer, head, values[name][0, head].float().cpu().numpy())

    def shares(self, text: str, *, model: str, answer: str, contrast: str, after: int | None) -> LogitShares:
        """Direct logit attribution. Raises `PromptError`: not one token, or no such position."""
        from interp.lenses.direct_attribution import direct_logit_attribution
        from interp.models.adapter import token_strings

        with self._lock:
            loaded, tokens = self._tokens(text, model)
            at = _position(tokens, after)
            right, wrong = _answers(loaded, tokens[:, : at + 1], answer, contrast)
            found = direct_logit_attribution(loaded, tokens, right, wrong, position=at)
            names = token_strings(loaded, tokens.new_tensor([right] if wrong is None else [right, wrong]))
            return LogitShares(
                answer=names[0],
                contrast=None if wrong is None else names[1],
                after=at,
                token=token_strings(loaded, tokens[0])[at],
                total=float(found.total[0]),
                parts=list(zip(found.parts, found.values[:, 0].tolist(), strict=True)),
                heads=found.heads[:, :, 0].tolist(),
                mlps=found.mlps[:, 0].tolist() if "L0MLP" in found.parts else [],
            )

    def feature_shares(
        self, text: str, *, model: str, features: str, answer: str, contrast: str, after: int | None
    ) -> FeatureShares:
        """Attribution to the features of an SAE. Raises as `shares` does, and `ConfigError` for neurons."""
        with self._lock:
            loaded, tokens = self._tokens(text, model)
            tokens = tokens[:, : _position(tokens, after) + 1]
            dictionary = self._dictionary(model, features)
            if not isinstance(dictionary, HookedSAE):
                raise ConfigError("attribution needs the features of an SAE, got neurons; choose another dictionary")
            right, wrong = _answers(loaded, tokens, answer, contrast)
            return _feature_shares(loaded, dictionary.sae, tokens, right, wrong)

    def reasons(self, text: str, *, model: str, layer: int, head: int, query: int, key: int) -> ScoreReasons:
        """QK attribution of one cell of a pattern. Raises `PromptError`, `UnknownNameError`."""
        from interp.circuits.score_explanation import explain_score

        with self._lock:
            loaded, tokens = self._tokens(text, model)
            _check_head(loaded, layer, head)
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
        with self._lock:
            loaded, tokens = self._tokens(clean, model)
            if tokens.shape[1] > PATCH_TOKENS:
                raise PromptError(
                    f"the prompt has {tokens.shape[1]} tokens, this panel patches at most {PATCH_TOKENS}; shorten it, "
                    "or use `workbench patch`"
                )
            right = _answer_text(loaded, tokens, answer)
            against = _answer_text(loaded, self._tokens(corrupt, model)[1], wrong) if wrong else None
            return _patch_effects(loaded, model, (clean, corrupt, right, against), what, direction)

    def _read(self, text: str, spec: str, features: str | None) -> PromptResult:
        from interp.lenses.logit_lens import logit_lens
        from interp.models.adapter import head_shape, run_with_cache, token_strings

        loaded, tokens = self._tokens(text, spec)
        dictionary = self._dictionary(spec, features) if features else None
        started = time.perf_counter()
        hook_points = [dictionary.hook_point] if dictionary is not None else []
        logits, values = run_with_cache(loaded, tokens, hook_points)
        lens, translators = logit_lens(loaded, tokens, top=TOP_TOKENS), self._tuned_lens(spec)
        tuned = logit_lens(loaded, tokens, top=TOP_TOKENS, lens=translators) if translators is not None else None
        shape = head_shape(loaded)
        return PromptResult(
            model=spec,
            tokens=token_strings(loaded, tokens),
            losses=_losses(logits[0], tokens[0]),
            next_tokens=_next_tokens(loaded, logits[0, -1]),
            layers=["embedding", *(f"layer {i}" for i in range(shape.n_layers))],
            lens=_lens_cells(lens),
            n_layers=shape.n_layers,
            n_heads=shape.n_heads,
            features=_strongest(loaded, dictionary, values, tokens[0]) if dictionary is not None else [],
            tuned=_lens_cells(tuned) if tuned is not None else [],
            seconds=time.perf_counter() - started,
        )

    def _tokens(self, text: str, spec: str) -> "tuple[Any, Tensor]":
        """Return the loaded model and the tokens `[1, n]` of a prompt. Raises `PromptError` (empty, or too long)."""
        if not text.strip():
            raise PromptError("the prompt is empty; type some text")
        from interp.models.adapter import to_tokens

        loaded = self._model(spec)
        tokens = to_tokens(loaded, text)
        if tokens.shape[1] > MAX_TOKENS:
            raise PromptError(
                f"the prompt has {tokens.shape[1]} tokens, this page shows at most {MAX_TOKENS}; shorten the prompt"
            )
        return loaded, tokens

    def _model(self, spec: str) -> Any:
        """Return the model of a spec that the workspace names: an address must not make the server load another one."""
        if spec not in self._models:
            from dashboard.overview.data import models

            known = models(self._workspace)
            if spec not in known:
                raise UnknownNameError("model of this workspace", spec, known)
            from interp.models.loading import load_model

            self._state = "loading"
            try:
                self._models[spec] = load_model(spec)
            finally:
                self._state = "ready" if self._models else "cold"
        return self._models[spec]

    def _tuned_lens(self, spec: str) -> Any:
        """Return the newest tuned lens of these weights in the workspace, or None."""
        lenses = [m for m in self._workspace.artifacts("lens") if m.config.get("model") == spec]
        if not lenses:
            return None
        from interp.lenses.tuned_lens import TunedLens
        from interp.models.adapter import weight_hash

        own = weight_hash(self._model(spec))
        fitting = [m for m in lenses if m.config.get("weight_hash") == own]
        if not fitting:
            return None
        newest = max(fitting, key=lambda m: m.created)
        key = (spec, newest.content_hash)
        if key not in self._dictionaries:
            self._dictionaries[key] = TunedLens.load(self._workspace.path("lens", newest.name), self._model(spec))
        return self._dictionaries[key]

    def _dictionary(self, spec: str, features: str) -> Any:
        """Return the SAE or the neurons that a features artefact describes."""
        manifest = self._workspace.manifest("features", features)
        source, _, name = str(manifest.config["dictionary"]).partition(":")
        key = (spec, manifest.content_hash)
        if key not in self._dictionaries:
            self._dictionaries[key] = self._load_dictionary(self._model(spec), source, name, manifest.config)
        return self._dictionaries[key]

    def _load_dictionary(self, loaded: Any, source: str, name: str, config: dict[str, Any]) -> Any:
        if source == "neurons":
            from saes.features.sources import neurons_of

            return neurons_of(loaded, name, sign=config.get("sign", 1))
        if source != "sae":
            raise ConfigError(f"cannot run {source}:{name} on a prompt: only features of an SAE or of neurons can be")
        from interp.models.adapter import weight_hash
        from saes.weights.folder import check_model, load_sae

        sae = load_sae(self._workspace.path("sae", name))
        check_model(sae, weight_hash(loaded))
        return HookedSAE(sae)


class HookedSAE:
    """An SAE with the hook point that it reads."""

    def __init__(self, sae: Any):
        self.sae, self.hook_point = sae, sae.metadata.hook_point

    def encode_sparse(self, x: "Tensor") -> Any:
        """`[n, d_in]` -> (values, indices)."""
        return self.sae.encode_sparse(x)


def _check_head(loaded: Any, layer: int, head: int) -> None:
    from interp.models.adapter import head_shape

    shape = head_shape(loaded)
    if not (0 <= layer < shape.n_layers and 0 <= head < shape.n_heads):
        last = f"L{shape.n_layers - 1}H{shape.n_heads - 1}"
        raise UnknownNameError("head", f"L{layer}H{head}", ["L0H0", last], f"(the last one is {last})")


def _answers(loaded: Any, tokens: "Tensor", answer: str, contrast: str) -> tuple[int, int | None]:
    """Ids of the answer and the contrast; what was left empty comes from the model's own ranking after `tokens`."""
    from interp.models.adapter import run_with_cache

    logits = run_with_cache(loaded, tokens, [])[0][0, -1].float()
    likeliest = logits.topk(2).indices.tolist()
    right = _single_token(loaded, answer, logits) if answer else likeliest[0]
    if contrast:
        return right, _single_token(loaded, contrast, logits)
    return right, None if answer else likeliest[1]


def _answer_text(loaded: Any, tokens: "Tensor", text: str) -> str:
    """The text of the one token that an answer stands for after `tokens [1, n]`."""
    from interp.models.adapter import run_with_cache, token_text

    if not text:
        raise PromptError("the answer to the clean prompt is empty; type a word that is one token")
    return token_text(loaded, _single_token(loaded, text, run_with_cache(loaded, tokens, [])[0][0, -1].float()))


def _patch_effects(
    loaded: Any, spec: str, pair: tuple[str, str, str, str | None], what: Any, direction: Any
) -> PatchEffects:
    """The map of one pair of prompts; heads are patched at all positions at once."""
    from interp.circuits.tasks import pair_task
    from interp.patching.config import PatchingConfig
    from interp.patching.maps import measure_map

    task = pair_task(loaded, *pair)
    config = PatchingConfig(what=what, direction=direction, by_position=what != "z", draws=PATCH_DRAWS)
    found = measure_map(loaded, task, config)
    return PatchEffects(
        model=spec,
        metric=task.metric.name,
        records=found.to_records(),
        clean_tokens=list(found.found.clean_tokens),
        corrupt_tokens=list(found.found.corrupt_tokens),
        summary=found.summary(),
    )


def _position(tokens: "Tensor", after: int | None) -> int:
    """The position asked for in `tokens [1, n]`, by default the last. Raises `PromptError`."""
    at = tokens.shape[1] - 1 if after is None else after
    if not 0 <= at < tokens.shape[1]:
        raise PromptError(f"the prompt has positions 0 to {tokens.shape[1] - 1}, got {at}; choose one of them")
    return at


def _feature_shares(loaded: Any, sae: Any, tokens: "Tensor", right: int, wrong: int | None) -> FeatureShares:
    """The strongest features behind `logit(right) - logit(wrong)` after the last of `tokens [1, n]`."""
    from interp.circuits.metrics import LogitDiff
    from interp.models.adapter import bos_token_id, token_strings
    from saes.circuits.attribution import AttributionConfig, attribute
    from saes.circuits.sites import Prompts

    metric, n = LogitDiff([right], None if wrong is None else [wrong]), tokens.shape[1]
    lengths = tokens.new_tensor([n]).cpu()
    prompts = Prompts(name="", tokens=tokens.cpu(), lengths=lengths, at=lengths[:, None] - 1, metric=metric)
    config = AttributionConfig(steps=SHARE_STEPS, first=int(bos_token_id(loaded) is not None))
    [found] = attribute(loaded, sae, prompts, config)
    texts = token_strings(loaded, tokens[0])
    shares = []
    for feature, effect in found.top(TOP_SHARES):
        mine = found.feature == feature
        position = int(found.position[mine][found.effect[mine].abs().argmax()])
        shares.append(FeatureShare(feature, effect, position, texts[position]))
    names = token_strings(loaded, [right] if wrong is None else [right, wrong])
    return FeatureShares(
        answer=names[0],
        contrast=None if wrong is None else names[1],
        after=n - 1,
        token=texts[-1],
        hook_point=found.site.writes,
        total=found.total,
        explained=found.explained,
        error=found.error_effect,
        gap=found.gap,
        n_active=int((found.by_feature != 0).sum()),
        features=shares,
    )


def _single_token(loaded: Any, text: str, logits: "Tensor") -> int:
    """The id of a word as it is typed or with a leading space, as in a sentence: the likelier of the two here."""
    from interp.lenses.direct_attribution import token_ids

    found = []
    for form in (text,) if text.startswith(" ") else (text, f" {text}"):
        with contextlib.suppress(PromptError):
            found.append(int(token_ids(loaded, form, 1)[0]))
    if not found:
        raise PromptError(f"{text!r} is several tokens, with and without a leading space; choose a word that is one")
    return max(found, key=lambda token: float(logits[token]))


def _losses(logits: "Tensor", tokens: "Tensor") -> list[float | None]:
    """Nats of each token given those before it; None for the first. `logits [n, d_vocab]`, `tokens [n]`."""
    log_p = logits.float().log_softmax(-1)
    found = -log_p[:-1].gather(1, tokens[1:, None]).squeeze(1)
    return [None, *found.tolist()]


def _next_tokens(loaded: Any, logits: "Tensor", top: int = 10) -> list[tuple[str, float]]:
    from interp.models.adapter import token_strings

    best = logits.float().softmax(-1).topk(min(top, len(logits)))
    return list(zip(token_strings(loaded, best.indices), best.values.tolist(), strict=True))


def _lens_cells(lens: Any) -> list[list[list[tuple[str, float]]]]:
    """layer -> position -> [(token, probability)] of a `LogitLens`."""
    probabilities = lens.probabilities.tolist()
    return [
        [list(zip(texts, numbers, strict=True)) for texts, numbers in zip(*layer, strict=True)]
        for layer in zip(lens.top_tokens, probabilities, strict=True)
    ]


def _strongest(
    loaded: Any, dictionary: Any, values: "dict[str, Tensor]", tokens: "Tensor"
) -> list[list[ActiveFeature]]:
    """The strongest features on each token; none on BOS, which no dictionary here is made from."""
    from interp.models.adapter import bos_token_id

    acts = dictionary.encode_sparse(values[dictionary.hook_point][0].float())
    best = acts.values.topk(min(TOP_FEATURES, acts.values.shape[1]), dim=1)
    numbers = acts.indices.long().gather(1, best.indices)
    bos = bos_token_id(loaded)
    return [
        [ActiveFeature(n, a) for n, a in zip(*row, strict=True) if a > 0 and token != bos]
        for token, *row in zip(tokens.tolist(), numbers.tolist(), best.values.tolist(), strict=True)
    ]
