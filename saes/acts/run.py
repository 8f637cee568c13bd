"""A run: what acts and analyses open of a workspace, each model, dictionary, lens and reading loaded at first use.

Models are bounded by their total memory, dictionaries and lenses by their number; the least recently used go first. The
latest readings of prompts stay in memory, so that views of a prompt need no other pass.

    Steer(features="demo", feature=4398, text="I went to").measure(Run(workspace))

An unknown name raises `UnknownNameError` with the nearest ones, other weights raise `MismatchError`.
"""

import contextlib
import dataclasses
import functools
import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

from interp.acts import Price
from interp.artifacts import Artefact, Draft, Manifest
from interp.errors import ConfigError, MismatchError, PromptError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.progress import Progress, duration
from interp.workspace import Workspace
from saes.features.schema import NEURONS, Features, check_described
from saes.training.stored import StoredSAE

if TYPE_CHECKING:
    from torch import Tensor

    from interp.dictionary import Dictionary
    from interp.interventions.site import DictionarySite
    from interp.lenses.jacobian_lens import JacobianLens
    from interp.lenses.lens import Lens
    from interp.recording.store import Recording
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


A = TypeVar("A", bound=Artefact)
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


@dataclass(frozen=True, kw_only=True)
class ChosenDictionary:
    """An SAE of the workspace or the neurons of a layer, with the recording whose activations it encodes."""

    run: "Run"
    source: str
    recording: "Recording"

    @property
    def is_neurons(self) -> bool:
        """True for the neurons of a layer, False for an SAE."""
        return self.source.startswith(NEURONS)

    @property
    def name(self) -> str:
        """Name of the SAE, or the hook point of the neurons."""
        return self.source.removeprefix(NEURONS)

    @property
    def full_name(self) -> str:
        """Name with its kind, `sae:NAME` or `neurons:HOOK_POINT`, as manifests store it."""
        return self.source if self.is_neurons else f"sae:{self.source}"

    @property
    def parents(self) -> dict[str, str]:
        """Parents for a manifest: the SAE with its content hash; none for neurons, which belong to the model."""
        return {key: digest for key, digest in self.run.parents.items() if key == f"saes/{self.name}"}

    def load(self, model: HookedModel, *, allow_other_weights: bool = False) -> "Dictionary":
        """Return the dictionary. Raises `MismatchError` when an SAE belongs to other weights."""
        if self.is_neurons:
            from saes.features.sources import neurons_of

            return neurons_of(model, self.recording.check_hook_point(self.name))
        return self.load_sae(allow_other_weights=allow_other_weights)

    def load_sae(self, *, allow_other_weights: bool = False) -> "SAE":
        """Return the SAE. Raises `MismatchError` when the recording comes from other weights."""
        from saes.weights.folder import check_model

        sae = self.run.sae(self.name)
        check_model(sae, self.recording.weight_hash, allow_other_weights=allow_other_weights)
        return sae


class LoadedModels:
    """Models of a workspace, loaded at first use and kept, and the hash of everything that was opened.

    Above `memory` bytes in total, the least recently used models are dropped; the one in use stays. A server's run
    takes the models of its artefacts alone (`known_only`): an address must not make it load another one. `device` is
    asked when the device is first needed.
    """

    def __init__(
        self,
        workspace: Workspace,
        memory: int | None = None,
        *,
        known_only: bool = False,
        device: Callable[[], str | None] = lambda: None,
    ):
        self.workspace = workspace
        self.parents: dict[str, str] = {}
        """Hash of everything that was opened, by key: the parents of what is made from it."""
        self._memory = half_of_memory() if memory is None else memory
        self._known_only = known_only
        self._pick_device = device
        self.seed: int | None = None
        """Seed of what an answer draws; 0 where it is None."""
        self.state = "cold"
        """`cold` (nothing loaded), `loading` or `ready`."""
        self._models: dict[str, HookedModel] = {}
        self._kept: dict[tuple[str, str], Any] = {}
        """Dictionaries, lenses and other values that were made for a model."""
        self._check: Callable[[str], None] = lambda stage: None
        self._pace = TokenPace()

    @functools.cached_property
    def device(self) -> str | None:
        """Device of models, and of the dictionaries applied to them; None takes the fastest for a model."""
        return self._pick_device()

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

    @contextlib.contextmanager
    def progress(self, title: str, unit: str = "", price: Price | None = None) -> Iterator[Progress]:
        """Yield a function that is called with `(done, total, facts)`; with a price, the time left is shown."""
        counted, shown = self.counted(price) if price else None, 0

        def report(done: int, total: int, facts: dict[str, object]) -> None:
            nonlocal shown
            if counted and price:
                tokens = price.total * done // total
                counted(tokens - shown)
                shown = tokens
            else:
                self.check()

        yield report

    def draft(self, settings: object) -> Draft | None:
        """Return the work in progress of an answer that is stored; None for one that is only told."""
        return None

    def counted(self, price: Price, stage: Callable[[int], str] | None = None) -> Callable[[int], None]:
        """Return a function that counts the tokens of passes and names the stage (the arm); it raises as `check`."""
        return self._pace.counting(price, self.check, stage or price.arm)

    def priced(self, price: Price) -> Price:
        """Return a price with its seconds, at the pace of the last answer with such passes of its model."""
        return self._pace.of(price)

    # Artefacts and recordings

    def open(self, form: type[A], name: str) -> A:
        """Return an artefact of the workspace; it becomes a parent."""
        artefact = self.workspace.open(form, name)
        self.made_from(artefact.about)
        return artefact

    def manifest(self, kind: str, name: str) -> Manifest:
        """Return the manifest of an artefact of the workspace; it becomes a parent."""
        return self.made_from(self.workspace.manifest(kind, name))

    def made_from(self, manifest: Manifest) -> Manifest:
        """Add an artefact to the parents."""
        self.parents[manifest.key] = manifest.content_hash
        return manifest

    def recording(self, name: str) -> "Recording":
        """Return a recording, stored or live (its model runs on the device); it becomes a parent."""
        from interp.recording.live import open_recording

        self.manifest("recording", name)
        return open_recording(self.workspace.path("recording", name), device=self.device)

    def recorded_model(self, recording: "Recording") -> HookedModel:
        """Return the model that a recording came from. Raises `MismatchError` where it has other weights now."""
        model = self.model(recording.model)
        if self.weight_hash(recording.model) != recording.weight_hash:
            raise MismatchError(
                f"{recording.model!r} now has other weights than when {recording.key} was recorded; record it again"
            )
        return model

    # Models and prompts

    def model(self, spec: str, *, dtype: str | None = None) -> HookedModel:
        """Return a model, which becomes a parent.

        Raises `UnknownNameError` for one that the workspace does not name, where only those may be loaded.
        """
        if spec in self._models:
            self._models[spec] = self._models.pop(spec)  # the last is the one used last
        else:
            if self._known_only and spec not in (known := models_to_read(self.workspace)):
                raise UnknownNameError("model of this workspace", spec, known)
            from interp.models.adapter import weight_hash
            from interp.models.loading import load_model

            self.state = "loading"
            try:
                self._models[spec] = load_model(spec, dtype=dtype, device=self.device)
                self.parents[f"model:{spec}"] = weight_hash(self._models[spec])
                self.examine(self._models[spec])
            finally:
                self.state = "ready" if self._models else "cold"
        self._drop()
        return self._models[spec]

    def examine(self, model: HookedModel) -> None:
        """Examine a model that was just loaded, where a run does so."""

    def weight_hash(self, spec: str) -> str:
        """Return the hash of the weights of a model."""
        self.model(spec)
        return self.parents[f"model:{spec}"]

    @property
    def models(self) -> list[str]:
        """Return the specs of the models in memory, the most recently used last."""
        return list(self._models)

    def _drop(self) -> None:
        """Drop the least recently used models, with their dictionaries and lenses, until the rest fit in memory."""
        while len(self._models) > 1 and sum(map(model_bytes, self._models.values())) > self._memory:
            gone = next(iter(self._models))
            del self._models[gone]
            for key in [key for key in self._kept if key[0] == gone]:
                del self._kept[key]
            gc.collect()  # a model refers to itself

    def _keep(self, key: tuple[str, str], load: Callable[[], Any]) -> Any:
        known = self._kept.pop(key, None)
        self._kept[key] = load() if known is None else known  # the last is the one used last
        while len(self._kept) > _DICTIONARIES:
            self._kept.pop(next(iter(self._kept)))
        return self._kept[key]


class Run(LoadedModels):
    """Models of a workspace, with the prompts, lenses, dictionaries and features that an act reads there.

    One act runs at a time.
    """

    @functools.cached_property
    def _readings(self) -> "dict[tuple[str, str, bool, str | None], PromptReading]":
        """Readings of prompts by text, model, chat and the hash of the features."""
        return {}

    # Prompts

    def check_length(self, n_tokens: int, most: int, instead: str) -> None:
        """Raise `PromptError`, with what to do `instead`, where a visitor of a server asks about too long a prompt."""
        if self._known_only and n_tokens > most:
            raise PromptError(
                f"the prompt has {n_tokens} tokens, at most {most} can be read here; shorten it, {instead}"
            )

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
        dictionary = self.described_dictionary(features, spec) if features else None
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
        """Return the newest Jacobian lens of a model's weights, which becomes a parent; None without one."""
        from interp.lenses.jacobian_lens import JacobianLens
        from interp.lenses.lens import newest_lens

        lens = newest_lens(self.workspace, JacobianLens, self.weight_hash(spec))
        if lens is not None:
            self.made_from(lens.about)
        return lens

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

        return lenses_of(self.workspace, self.weight_hash(spec))

    # Dictionaries and features

    def sae(self, name: str) -> "SAE":
        """Return an SAE of the workspace, which becomes a parent: on the CPU where no device was asked for.

        On mps it stays on the CPU too, since operations of the sparse step are missing there.
        """
        from saes.weights.folder import load_sae

        self.manifest("sae", name)
        sae = load_sae(self.workspace.path("sae", name))
        return sae if self.device in (None, "cpu", "mps") else sae.to(self.device)

    def saes(
        self, names: Sequence[str], model: str | None = None, *, allow_other_weights: bool = False
    ) -> "tuple[HookedModel, list[SAE]]":
        """Return the model that some SAEs belong to, and the SAEs on its device.

        Raises `ConfigError` (none named, or no model known).
        """
        from saes.weights.folder import check_model

        if not names:
            raise ConfigError("no SAE was named; give the name of one or more SAEs of the workspace")
        saes = [self.sae(name) for name in names]
        spec = model or next((sae.metadata.model for sae in saes if sae.metadata.model), "")
        if not spec:
            raise ConfigError(f"{names[0]} does not say which model it belongs to; add --model NAME")
        loaded = self.model(spec)
        for sae in saes:
            check_model(sae, self.weight_hash(spec), allow_other_weights=allow_other_weights)
        return loaded, [sae.to(loaded.cfg.device) for sae in saes]

    def dictionary(self, source: str, recording: str | None) -> ChosenDictionary:
        """Return an SAE, or the neurons of a layer (`neurons:HOOK_POINT`), with a recording: by default the SAE's own.

        Raises `ConfigError` where no recording is named and none belongs to the dictionary.
        """
        if source.startswith(NEURONS):
            if recording is None:
                raise ConfigError(f"{source} needs a recording to read activations from; add --recording NAME")
        else:
            recording = recording or self.open(StoredSAE, source).recording
            if recording is None:
                raise ConfigError(f"{source} was imported and has no recording of its own; add --recording NAME")
            self.manifest("sae", source)
        return ChosenDictionary(run=self, source=source, recording=self.recording(recording))

    def described_dictionary(self, name: str, spec: str = "", *, allow_other_weights: bool = False) -> "Dictionary":
        """Return the SAE or the neurons that features describe, kept in memory with their model, or with `spec`.

        Raises `MismatchError` where the SAE was made again, or the model has other weights than it was described on.
        """
        features = self.open(Features, name)
        check_described(self.workspace, features)
        spec = spec or features.settings.model
        digest = self.weight_hash(spec)
        if not allow_other_weights and (described := features.about.parents.get(f"model:{spec}", digest)) != digest:
            raise MismatchError(
                f"{features.name} was described on {features.settings.model} with the weights {described[:12]}, "
                f"{spec} has {digest[:12]}; run `workbench features {features.sae or features.dictionary}` again"
            )
        key = (spec, features.about.content_hash)
        return self._keep(key, lambda: self._open_dictionary(spec, features, allow_other_weights))

    def described_sae(self, name: str, spec: str = "") -> "SAE":
        """Return the SAE that features describe. Raises `ConfigError` for neurons."""
        from saes.kinds.base import SAE

        dictionary = self.described_dictionary(name, spec)
        if not isinstance(dictionary, SAE):
            raise ConfigError(f"this needs the features of an SAE, which {name} are not; choose another dictionary")
        return dictionary

    def feature(self, features: str, feature: int, model: HookedModel) -> "tuple[DictionarySite, FeatureCase]":
        """Return the hook points of a dictionary in a model, and one of its features with its text and controls."""
        from interp.interventions.site import DictionarySite
        from saes.features.case import ProofConfig, read_case

        dictionary = self.described_dictionary(features)
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

    def _version(self, features: str | None) -> str | None:
        """Return the content hash of a features artefact, which differs once it is made again."""
        return self.workspace.manifest("features", features).content_hash if features else None

    def _open_dictionary(self, spec: str, features: Features, allow: bool) -> "Dictionary":
        model = self.model(spec)
        if not features.sae:
            from saes.sets.set import open_described

            dictionary, parents = open_described(
                self.workspace, features.dictionary, model, sign=features.settings.sign, allow_other_weights=allow
            )
            self.parents |= parents
            return dictionary
        from saes.weights.folder import check_model

        sae = self.sae(features.sae)
        check_model(sae, self.weight_hash(spec), allow_other_weights=allow)
        return sae.to(model.cfg.device)
