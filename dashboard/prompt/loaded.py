"""The models and dictionaries that answer prompts: loaded at first use, the least recently used dropped first.

Models are bounded by their total memory, dictionaries and lenses by their number.
"""

import dataclasses
import gc
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from dashboard.components.live import Exchange
    from dashboard.prompt.compute import Changes, Reading
    from dashboard.turns import Turn
    from interp.interventions.chat import Chats
    from interp.lenses.jacobian_lens import JacobianLens
    from interp.lenses.lens import Lens
    from interp.tracing.graph import AttributionGraph
    from saes.features.schema import Features

MAX_TOKENS = 512
"""Tokens that the page can show; the context of the model may be longer."""
_READINGS = 256 * 2**20
"""Bytes of readings in memory, which save another pass; the last one always stays."""
_DICTIONARIES = 4
"""Most recently used dictionaries and lenses that stay in memory."""


def half_of_memory() -> int:
    """Return half of the machine's memory in bytes: the default bound on the models in memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def model_bytes(model: HookedModel) -> int:
    """Return the bytes of a model's parameters and buffers, shared ones once."""
    from itertools import chain

    held = {each.data_ptr(): each.nbytes for each in chain(model.parameters(), model.buffers())}
    return sum(held.values())


class Loaded:
    """The models and dictionaries of a workspace, each loaded at first use and then kept.

    Above `memory` bytes in total, the least recently used models are dropped; the one in use stays.
    """

    def __init__(self, workspace: Workspace, memory: int | None = None):
        self._workspace = workspace
        self._memory = half_of_memory() if memory is None else memory
        self.state = "cold"
        """`cold` (nothing loaded), `loading` or `ready`."""
        self._models: dict[str, HookedModel] = {}
        self._dictionaries: dict[tuple[str, str], Any] = {}

    def sae(self, spec: str, features: str) -> Any:
        """Return the SAE of a features artefact. Raises `ConfigError` for neurons."""
        from dashboard.prompt.compute import HookedSAE

        dictionary = self.dictionary(spec, features)
        if not isinstance(dictionary, HookedSAE):
            raise ConfigError(f"this needs the features of an SAE, which {features} are not; choose another dictionary")
        return dictionary

    def feature(self, loaded: HookedModel, spec: str, features: str, index: int) -> tuple[Any, Any]:
        """Return the hook points of a dictionary in a model, and one of its features with its text and controls."""
        from saes.features.measure_proof import DictionarySite
        from saes.features.proof import ProofConfig, read_case

        dictionary = self.dictionary(spec, features)
        site = DictionarySite.of(loaded, getattr(dictionary, "sae", dictionary))
        return site, read_case(self._workspace.path("features", features), index, ProofConfig())

    def largest(self, features: str, feature: int) -> float:
        """Return the largest activation of a feature that was measured."""
        path = self._workspace.table_path("features", features, "features")
        query = "select max_activation from f where feature = ?"
        rows = self._workspace.query(query, feature, f=path).to_pylist()
        if not rows:
            raise UnknownNameError("feature", str(feature), [], f"of {features}")
        return float(rows[0]["max_activation"])

    def model(self, spec: str) -> HookedModel:
        """Return the model of a spec that the workspace names; an address must not make the server load another one."""
        if spec in self._models:
            self._models[spec] = self._models.pop(spec)  # the last is the one used last
        else:
            from dashboard.data.workspace import models_to_read

            known = models_to_read(self._workspace)
            if spec not in known:
                raise UnknownNameError("model of this workspace", spec, known)
            from interp.models.loading import load_model

            self.state = "loading"
            try:
                self._models[spec] = load_model(spec)
            finally:
                self.state = "ready" if self._models else "cold"
        self._drop()
        return self._models[spec]

    def _drop(self) -> None:
        """Drop the least recently used models, with their dictionaries and lenses, until the rest fit in memory."""
        while len(self._models) > 1 and sum(map(model_bytes, self._models.values())) > self._memory:
            gone = next(iter(self._models))
            del self._models[gone]
            for key in [key for key in self._dictionaries if key[0] == gone]:
                del self._dictionaries[key]
            gc.collect()  # a model refers to itself

    @property
    def models(self) -> list[str]:
        """Return the specs of the models in memory, the most recently used last."""
        return list(self._models)

    def prompt(self, text: str, spec: str, chat: bool = False) -> "tuple[HookedModel, Tensor]":
        """Return the model and the tokens `[1, n]` of a prompt. Raises `PromptError` (empty, or too long)."""
        if not text.strip():
            raise PromptError("the prompt is empty; type some text")
        from interp.models.generation import prompt_tokens

        loaded = self.model(spec)
        tokens = prompt_tokens(loaded, text, chat=chat)
        if tokens.shape[1] > MAX_TOKENS:
            raise PromptError(
                f"the prompt has {tokens.shape[1]} tokens, this page shows at most {MAX_TOKENS}; shorten the prompt"
            )
        return loaded, tokens

    def lenses(self, spec: str) -> "dict[str, Lens]":
        """Return the lenses of these weights in the workspace by kind, the best on held-out text first."""
        from interp.lenses.nearest import lenses_of
        from interp.models.adapter import weight_hash

        return lenses_of(self._workspace, weight_hash(self.model(spec)))

    def lens(self, spec: str, how: str) -> "Lens | None":
        """Return a lens of the workspace, kept in memory; None for the logit lens. Raises `PromptError` if missing."""
        if how == "logit":
            return None
        found = self.lenses(spec).get(how)
        if found is None:
            raise PromptError(
                f"the workspace has no {how} lens of {spec}: `workbench lens {spec} --kind {how}` fits one"
            )
        return self._held((spec, f"{how} {found.about.content_hash}"), lambda: found)

    def jacobian_lens(self, spec: str) -> "JacobianLens | None":
        """Return the newest Jacobian lens of these weights in the workspace, or None."""
        from interp.lenses.jacobian_lens import JacobianLens

        found = self.lenses(spec).get("jacobian")
        return found if isinstance(found, JacobianLens) else None

    def changes(self, spec: str, change: "Exchange | tuple[str, int, float]", seed: int) -> "Changes":
        """Return what changes three rows of a batch, for `compute.steps_of`.

        `change` is two words, or a features artefact, the number of a feature and what is added to its activation in
        units of the largest that was measured. Raises as `sae`.
        """
        from dashboard.prompt.compute import exchanged_rows, steered_rows

        loaded = self.model(spec)
        if not isinstance(change, tuple):
            return partial(exchanged_rows, loaded, self.jacobian_lens(spec), change, seed)
        features, feature, strength = change
        sae = self.sae(spec, features).sae
        return partial(steered_rows, loaded, sae, feature, strength * self.largest(features, feature), seed)

    def lens_choices(self, spec: str) -> list[tuple[str, str]]:
        """Return the kinds of lens, each with its mean distance from the model's output; the nearest first."""
        from interp.lenses.nearest import gain

        found = self.lenses(spec)
        if not found:
            return [("logit", "")]
        pairs = {how: list(lens.distances().values()) for how, lens in found.items()}
        ranked = [(how, gain(lens), [own for _, own in pairs[how]]) for how, lens in found.items()]
        ranked.append(("logit", 0.0, [logit for logit, _ in next(iter(pairs.values()))]))
        said = "{:.1f} nats from the output on held-out text, mean of {} layers"
        ranked.sort(key=lambda each: -each[1])
        return [(how, said.format(sum(own) / len(own), len(own))) for how, _, own in ranked]

    def dictionary(self, spec: str, features: str) -> Any:
        """Return the SAE or neurons of a features artefact. Raises `MismatchError`: the SAE was made again since."""
        from saes.features.schema import Features, check_described

        found = self._workspace.open(Features, features)
        check_described(self._workspace, found)
        return self._held((spec, found.about.content_hash), lambda: self._load(self.model(spec), found))

    def lists(self, spec: str, site: Any, done: Callable[[], None]) -> Any:
        """Return the lists of words, read at the site of a direction."""
        from saes.features.measure_proof import read_lists

        return self._held((spec, f"lists at {site.stream}"), lambda: read_lists(site, done))

    def traced(self, graph: "AttributionGraph") -> Any:
        """Return the frozen model of a graph's prompt with its latents.

        Raises `MismatchError` for a graph of other weights.
        """
        from saes.sets.replacement import system_of

        version = graph.about.content_hash
        return self._held((graph.model, version), lambda: system_of(graph, self.model(graph.model), self._workspace))

    def version(self, features: str | None) -> str | None:
        """Return the content hash of a features artefact, which differs once it is made again."""
        return self._workspace.manifest("features", features).content_hash if features else None

    def take_chats(self, spec: str, steering: str) -> "Chats | None":
        """Take the chats of the last conversation out of memory if they are steered in the same way."""
        last, chats = self._dictionaries.pop((spec, "chats"), ("", None))
        return chats if last == steering else None

    def put_chats(self, spec: str, steering: str, chats: "Chats") -> None:
        """Keep the chats of a conversation, with everything that they have read, for the next message."""
        if spec in self._models:
            self._dictionaries.pop((spec, "chats"), None)
            self._held((spec, "chats"), lambda: (steering, chats))

    def _held(self, key: tuple[str, str], load: Callable[[], Any]) -> Any:
        found = self._dictionaries.pop(key, None)
        self._dictionaries[key] = load() if found is None else found  # the last is the one used last
        while len(self._dictionaries) > _DICTIONARIES:
            self._dictionaries.pop(next(iter(self._dictionaries)))
        return self._dictionaries[key]

    def _load(self, loaded: HookedModel, features: "Features") -> Any:
        if not features.sae:
            from saes.sets.set import open_described

            return open_described(self._workspace, features.dictionary, loaded, sign=features.settings.sign)[0]
        from interp.models.adapter import weight_hash
        from saes.weights.folder import check_model, load_sae

        sae = load_sae(self._workspace.path("sae", features.sae))
        check_model(sae, weight_hash(loaded))
        from dashboard.prompt.compute import HookedSAE

        return HookedSAE(sae)


class Readings:
    """The latest readings of prompts, by text, model, chat and content hash of the features."""

    def __init__(self, loaded: Loaded):
        self._loaded = loaded
        self._held: dict[tuple[str, str, bool, str | None], Reading] = {}

    def known(self, text: str, spec: str, chat: bool, features: str | None) -> "Reading | None":
        """Return the reading of a prompt with these features, if it is in memory."""
        return self._held.get((text, spec, chat, self._loaded.version(features)))

    def get(self, turn: "Turn", text: str, spec: str, chat: bool, features: str | None = None) -> "Reading":
        """Return the reading of a prompt, with the activations of `features` when they are named."""
        version = self._loaded.version(features)
        for key, reading in self._held.items():
            if key[:3] == (text, spec, chat) and version in (None, key[3]):
                return reading
        from dashboard.prompt import compute

        turn.check("reading the prompt")
        loaded, tokens = self._loaded.prompt(text, spec, chat)
        dictionary = self._loaded.dictionary(spec, features) if features else None
        started = time.perf_counter()
        found = compute.read(loaded, spec, tokens, dictionary, self._loaded.lens_choices(spec), turn.check)
        found.result = dataclasses.replace(found.result, seconds=time.perf_counter() - started)
        self._held[text, spec, chat, version] = found
        for gone in [key for key in self._held if key[1] not in self._loaded.models]:
            del self._held[gone]
        while len(self._held) > 1 and sum(each.size for each in self._held.values()) > _READINGS:
            self._held.pop(next(iter(self._held)))
        return found
