"""Models, dictionaries, lenses and readings of a workspace, each loaded at first use: acts are measured with them.

Models are bounded by their total memory, dictionaries and lenses by their number; the least recently used go first. The
latest readings of prompts stay in memory, so that views of a prompt need no other pass.

    Steer(features="demo", feature=4398, text="I went to").measure(Session(workspace))
"""

import contextlib
import dataclasses
import functools
import gc
import os
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

from interp.acts import Price
from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.progress import duration
from interp.workspace import Workspace
from saes.features.schema import Features, check_described

if TYPE_CHECKING:
    from torch import Tensor

    from interp.dictionary import Dictionary
    from interp.interventions.site import DictionarySite
    from interp.lenses.jacobian_lens import JacobianLens
    from interp.lenses.lens import Lens
    from interp.routes.carried import LostWords
    from interp.tracing.graph import AttributionGraph
    from saes.acts._reading import PromptReading
    from saes.features.case import FeatureCase
    from saes.kinds.base import SAE

AFTER = 3
"""Tokens after the peak of an example on which a feature is ablated."""
MOST_TOKENS = 512
"""Tokens of a prompt; the context of the model may be longer."""
FIRST_MODEL = "smollm2-135m"
"""Model of an empty workspace: that of the demo."""
_READINGS = 256 * 2**20
"""Bytes of readings in memory, which save another pass; the last one always stays."""
_DICTIONARIES = 4
"""Most recently used dictionaries and lenses that stay in memory."""


M = TypeVar("M", bound=Callable[..., Any])


def without_gradients(measure: M) -> M:
    """Return a function that runs without gradients; torch is imported when it is called."""

    @functools.wraps(measure)
    def run(*arguments: Any) -> Any:
        import torch

        with torch.no_grad():
            return measure(*arguments)

    return cast(M, run)


def half_of_memory() -> int:
    """Return half of the machine's memory in bytes: the default bound on the models in memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def model_bytes(model: HookedModel) -> int:
    """Return the bytes of a model's parameters and buffers, shared ones once."""
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in chain(model.parameters(), model.buffers())}
    return sum(sizes.values())


def models(workspace: Workspace) -> list[str]:
    """Return the specs of the models that the artefacts of a workspace were made with, sorted."""
    return sorted({manifest.model for manifest in workspace.artifacts()} - {""})


def models_to_read(workspace: Workspace) -> list[str]:
    """Return the models that an act may load: those of the artefacts; in an empty workspace the one of the demo."""
    return models(workspace) or [FIRST_MODEL]


class TokenPace:
    """Seconds of a token by model and kind of pass, each of the last answer that was counted."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def counting(
        self, price: Price, check: Callable[[str], None], stage: Callable[[int], str]
    ) -> Callable[[int], None]:
        """Return a function that counts the tokens of passes and calls `check` with the stage and the time left."""
        done, begun = 0, time.perf_counter()

        def add(tokens: int) -> None:
            nonlocal done
            done += tokens
            pace = self._seconds[price.model, price.passes] = (time.perf_counter() - begun) / done
            left = duration(max(0, price.total - done) * pace)
            check(f"{now}, {left} left" if (now := stage(done)) else "")

        return add

    def of(self, price: Price) -> Price:
        """Return a price with its seconds; without them before the first answer of its kind."""
        pace = self._seconds.get((price.model, price.passes))
        return price if pace is None else dataclasses.replace(price, seconds=price.total * pace)


class Session:
    """The models and dictionaries of a workspace, each loaded at first use and kept in memory, for one act at a time.

    Above `memory` bytes in total, the least recently used models are dropped; the one in use stays. A server reads the
    models of its artefacts alone; with `any_model`, for scripts, every spec is loaded.
    """

    def __init__(self, workspace: Workspace, memory: int | None = None, *, any_model: bool = False):
        self.workspace = workspace
        self._memory = half_of_memory() if memory is None else memory
        self._any_model = any_model
        self.state = "cold"
        """`cold` (nothing loaded), `loading` or `ready`."""
        self._models: dict[str, HookedModel] = {}
        self._kept: dict[tuple[str, str], Any] = {}
        """Dictionaries, lenses and other values that were made for a model."""
        self._readings: dict[tuple[str, str, bool, str | None], PromptReading] = {}
        self._check: Callable[[str], None] = lambda stage: None
        self._pace = TokenPace()

    @contextlib.contextmanager
    def checked(self, check: Callable[[str], None]) -> Iterator[None]:
        """Call `check` at every stage within the block; it may raise, when the request was cancelled."""
        before, self._check = self._check, check
        try:
            yield
        finally:
            self._check = before

    def check(self, stage: str = "") -> None:
        """Name the stage that begins; an empty name is a step within one."""
        self._check(stage)

    def counted(self, price: Price, stage: Callable[[int], str] | None = None) -> Callable[[int], None]:
        """Return a function that counts the tokens of passes and names the stage (the arm); it raises as `check`."""
        return self._pace.counting(price, self.check, stage or price.arm)

    def priced(self, price: Price) -> Price:
        """Return a price with its seconds, at the pace of the last answer with such passes of its model."""
        return self._pace.of(price)

    # Models and prompts

    def model(self, spec: str) -> HookedModel:
        """Return a model. Raises `UnknownNameError` for one that the workspace does not name, unless any may be read:
        an address must not make the server load another one."""
        if spec in self._models:
            self._models[spec] = self._models.pop(spec)  # the last is the one used last
        else:
            known = models_to_read(self.workspace)
            if spec not in known and not self._any_model:
                raise UnknownNameError("model of this workspace", spec, known)
            from interp.models.loading import load_model

            self.state = "loading"
            try:
                self._models[spec] = load_model(spec)
            finally:
                self.state = "ready" if self._models else "cold"
        self._drop()
        return self._models[spec]

    @property
    def models(self) -> list[str]:
        """Return the specs of the models in memory, the most recently used last."""
        return list(self._models)

    def prompt(self, text: str, spec: str, chat: bool = False) -> "tuple[HookedModel, Tensor]":
        """Return the model and the tokens `[1, n]` of a prompt. Raises `PromptError` (empty, or too long)."""
        if not text.strip():
            raise PromptError("the prompt is empty; type some text")
        from interp.models.generation import prompt_tokens

        model = self.model(spec)
        tokens = prompt_tokens(model, text, chat=chat)
        if tokens.shape[1] > MOST_TOKENS:
            raise PromptError(f"the prompt has {tokens.shape[1]} tokens, at most {MOST_TOKENS} can be read; shorten it")
        return model, tokens

    def known_reading(self, text: str, spec: str, chat: bool, features: str | None) -> "PromptReading | None":
        """Return the reading of a prompt with these features, if it is in memory."""
        return self._readings.get((text, spec, chat, self._version(features)))

    def reading(self, text: str, spec: str, chat: bool, features: str | None = None) -> "PromptReading":
        """Return the reading of a prompt, with the activations of `features` when they are named."""
        version = self._version(features)
        for key, known in self._readings.items():
            if key[:3] == (text, spec, chat) and version in (None, key[3]):
                return known
        from saes.acts._reading import read

        self.check("reading the prompt")
        model, tokens = self.prompt(text, spec, chat)
        dictionary = self.dictionary(spec, features) if features else None
        started = time.perf_counter()
        reading = read(model, spec, tokens, dictionary, self.lens_choices(spec), self.check)
        reading.result = dataclasses.replace(reading.result, seconds=time.perf_counter() - started)
        self._readings[text, spec, chat, version] = reading
        for gone in [key for key in self._readings if key[1] not in self._models]:
            del self._readings[gone]
        while len(self._readings) > 1 and sum(reading.size for reading in self._readings.values()) > _READINGS:
            self._readings.pop(next(iter(self._readings)))
        return reading

    # Lenses

    def lens(self, spec: str, kind: str) -> "Lens | None":
        """Return a lens of the workspace, kept in memory; None for the logit lens. Raises `PromptError` if missing."""
        if kind == "logit":
            return None
        lens = self._lenses(spec).get(kind)
        if lens is None:
            raise PromptError(
                f"the workspace has no {kind} lens of {spec}: `workbench lens {spec} --kind {kind}` fits one"
            )
        return self._keep((spec, f"{kind} {lens.about.content_hash}"), lambda: lens)

    def jacobian_lens(self, spec: str) -> "JacobianLens | None":
        """Return the newest Jacobian lens of these weights in the workspace, or None."""
        from interp.lenses.jacobian_lens import JacobianLens

        lens = self._lenses(spec).get("jacobian")
        return lens if isinstance(lens, JacobianLens) else None

    def lens_choices(self, spec: str) -> list[tuple[str, str]]:
        """Return the kinds of lens, each with its mean distance from the model's output; the nearest first."""
        from interp.lenses.logit_lens import gain

        lenses = self._lenses(spec)
        if not lenses:
            return [("logit", "")]
        pairs = {kind: list(lens.distances().values()) for kind, lens in lenses.items()}
        ranked = [(kind, gain(lens), [distance for _, distance in pairs[kind]]) for kind, lens in lenses.items()]
        ranked.append(("logit", 0.0, [logit for logit, _ in next(iter(pairs.values()))]))
        ranked.sort(key=lambda choice: -choice[1])
        text = "{:.1f} nats from the output on held-out text, mean of {} layers"
        if (jacobian := self.jacobian_lens(spec)) is not None:
            text += f"; the mean residual alone {jacobian.constant:.1f}"
        return [(kind, text.format(sum(distances) / len(distances), len(distances))) for kind, _, distances in ranked]

    def lost_words(self, spec: str) -> "LostWords":
        """Return what reads the words that routes of a model carry, by its Jacobian lens where it has one."""
        from interp.routes.carried import LostWords

        self.check("reading unrelated texts")
        lens = self.jacobian_lens(spec)
        return self._keep((spec, "words of routes"), lambda: LostWords.of(self.model(spec), lens))

    def _lenses(self, spec: str) -> "dict[str, Lens]":
        """Return the lenses of these weights in the workspace by kind, the best on held-out text first."""
        from interp.lenses.logit_lens import lenses_of
        from interp.models.adapter import weight_hash

        return lenses_of(self.workspace, weight_hash(self.model(spec)))

    # Dictionaries and features

    def described(self, features: str) -> Features:
        """Return a features artefact."""
        return self.workspace.open(Features, features)

    def dictionary(self, spec: str, features: str) -> "Dictionary":
        """Return the SAE or neurons of a features artefact. Raises `MismatchError`: the SAE was made again since."""
        described = self.described(features)
        check_described(self.workspace, described)
        key = (spec, described.about.content_hash)
        return self._keep(key, lambda: self._open_dictionary(self.model(spec), described))

    def sae(self, spec: str, features: str) -> "SAE":
        """Return the SAE of a features artefact. Raises `ConfigError` for neurons."""
        from saes.kinds.base import SAE

        dictionary = self.dictionary(spec, features)
        if not isinstance(dictionary, SAE):
            raise ConfigError(f"this needs the features of an SAE, which {features} are not; choose another dictionary")
        return dictionary

    def feature(self, features: str, feature: int, model: HookedModel) -> "tuple[DictionarySite, FeatureCase]":
        """Return the hook points of a dictionary in a model, and one of its features with its text and controls."""
        from interp.interventions.site import DictionarySite
        from saes.features.case import ProofConfig, read_case

        dictionary = self.dictionary(self.described(features).settings.model, features)
        site = DictionarySite.of(model, dictionary)
        return site, read_case(self.workspace.path("features", features), feature, ProofConfig(after=AFTER))

    def largest(self, features: str, feature: int) -> float:
        """Return the largest activation of a feature that was measured."""
        path = self.workspace.table_path("features", features, "features")
        query = "select max_activation from f where feature = ?"
        rows = self.workspace.query(query, feature, f=path).to_pylist()
        if not rows:
            raise UnknownNameError("feature", str(feature), [], f"of {features}")
        return float(rows[0]["max_activation"])

    def lists(self, spec: str, site: "DictionarySite") -> Any:
        """Return the lists of words, read at the site of a direction."""
        from saes.features.measure_proof import read_lists

        return self._keep((spec, f"lists at {site.stream}"), lambda: read_lists(site, self.check))

    # Graphs

    def traced(self, graph: "AttributionGraph") -> Any:
        """Return the frozen model of a graph's prompt with its latents.

        Raises `MismatchError` for a graph of other weights.
        """
        from saes.sets.replacement import system_of

        key = (graph.model, graph.about.content_hash)
        return self._keep(key, lambda: system_of(graph, self.model(graph.model), self.workspace))

    # Memory

    def _drop(self) -> None:
        """Drop the least recently used models, with their dictionaries and lenses, until the rest fit in memory."""
        while len(self._models) > 1 and sum(map(model_bytes, self._models.values())) > self._memory:
            gone = next(iter(self._models))
            del self._models[gone]
            for key in [key for key in self._kept if key[0] == gone]:
                del self._kept[key]
            gc.collect()  # a model refers to itself

    def _version(self, features: str | None) -> str | None:
        """Return the content hash of a features artefact, which differs once it is made again."""
        return self.workspace.manifest("features", features).content_hash if features else None

    def _keep(self, key: tuple[str, str], load: Callable[[], Any]) -> Any:
        known = self._kept.pop(key, None)
        self._kept[key] = load() if known is None else known  # the last is the one used last
        while len(self._kept) > _DICTIONARIES:
            self._kept.pop(next(iter(self._kept)))
        return self._kept[key]

    def _open_dictionary(self, model: HookedModel, features: Features) -> "Dictionary":
        if not features.sae:
            from saes.sets.set import open_described

            return open_described(self.workspace, features.dictionary, model, sign=features.settings.sign)[0]
        from interp.models.adapter import weight_hash
        from saes.weights.folder import check_model, load_sae

        sae = load_sae(self.workspace.path("sae", features.sae))
        check_model(sae, weight_hash(model))
        return sae.to(model.cfg.device)
