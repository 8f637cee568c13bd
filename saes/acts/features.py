"""Acts on one feature, each with its controls: on a text, steered, ablated, its direction, its documents.

`saes.features.measure_proof` makes the same measurements on more text, and with more null directions. Torch-free until
an act is measured.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Len

from interp.acts import Act, Compared, Price
from interp.errors import MismatchError, MissingError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.nulls import DRAWS, Level, NullComparison
from interp.options import Count, FeaturesName, PromptText, Strength
from interp.results import Result
from interp.view import View
from saes.acts.run import AFTER, MOST_TOKENS, Run, without_gradients
from saes.features.case import FeatureCase
from saes.features.proof import AblatedExample, ListsApart, SteeredRow, TextFirings
from saes.features.schema import Features

if TYPE_CHECKING:
    from torch import Tensor

    from interp.dictionary import Dictionary
    from interp.interventions.arms import Arms
    from interp.interventions.site import DictionarySite
    from interp.recording.store import Recording

EXAMPLES, MOVED, NEW_TOKENS = 4, 5, 16
"""Examples and tokens shown, and tokens of each continuation."""


@dataclass(frozen=True, kw_only=True)
class OnFeature:
    """Fields of every act on a feature."""

    features: FeaturesName
    """Described features of a dictionary or of neurons."""
    feature: Count
    """Number of the feature."""

    def spec(self, run: Run) -> str:
        """Return the model of the features."""
        return run.open(Features, self.features).settings.model

    def case(self, run: Run, model: HookedModel) -> "tuple[DictionarySite, FeatureCase]":
        """Return the site of the dictionary, and the feature with its text and controls."""
        return run.feature(self.features, self.feature, model)


@dataclass(frozen=True, kw_only=True)
class ReadText(OnFeature, Act[Run, TextFirings]):
    """Return the activation of one feature on each token of a text; the control are other features.

    `alike` has the number of tokens on which each of some features of like density fires. Raises `PromptError`,
    `UsageError` (no such feature, or it never fires).
    """

    verb: ClassVar[str] = "read_text"
    text: PromptText
    """The text."""

    @without_gradients
    def measure(self, run: Run) -> TextFirings:
        from interp.models.adapter import token_strings

        model, tokens = run.prompt(self.text, self.spec(run))
        site, case = self.case(run, model)
        run.check("reading the text with the feature")
        acts = site.activations(site.read(tokens).x, [case.feature, *case.alike])[0]
        firing = (acts[:, 1:] > 0).sum(0).tolist()
        return TextFirings(token_strings(model, tokens[0]), acts[:, 0].tolist(), firing)


@dataclass(frozen=True, kw_only=True)
class Steer(OnFeature, Act[Run, list[SteeredRow]]):
    """Continue a text unchanged, steered by a feature, by a random direction of that norm, and by another feature.

    `kl` is the change of the next-token distribution in nats: an effect counts only where it exceeds that of the random
    direction; with one of each null, p cannot go below 1/2 (`judge_steering` draws more). Raises as `ReadText` does.
    """

    verb: ClassVar[str] = "steer"
    text: PromptText
    """The prompt to continue."""
    strength: Strength = 1.0
    """A multiple of the feature's largest activation; `Intervention.amount` is the activation itself."""

    @without_gradients
    def measure(self, run: Run) -> list[SteeredRow]:
        from interp.interventions.arms import positions_from, prefix_of, read_arms
        from interp.interventions.site import continuations
        from interp.models.adapter import token_strings

        model, tokens = run.prompt(self.text, self.spec(run))
        site, case = self.case(run, model)
        run.check("steering")
        alike = case.alike[:1]
        arms = site.arms(case.feature, alike, 1, 0, self.strength * case.max_activation)
        texts = continuations(site, tokens, arms, NEW_TOKENS)

        def next_token(logits: "Tensor") -> "Tensor":
            return logits[:, 0, -1].float().log_softmax(-1)

        prefix, _ = prefix_of(model, tokens, arms)
        log_p = read_arms(model, prefix, arms, next_token, at=positions_from(tokens, -1))
        p = log_p.exp()
        names = ["unchanged", "feature", "random direction", *(f"feature {number}" for number in alike)]
        rows = []
        for name, text, after, log_after in zip(names, texts, p, log_p, strict=True):
            order = (after - p[0]).abs().topk(MOVED).indices.tolist() if name != "unchanged" else []
            moved = [
                (word, float(p[0, token]), float(after[token]))
                for word, token in zip(token_strings(model, order), order, strict=True)
            ]
            rows.append(SteeredRow(name, text, float((p[0] * (log_p[0] - log_after)).sum()), moved))
        return rows


@dataclass(frozen=True)
class SteeringVerdict(Result):
    """Rise of the words that a feature reads; below strength 0, their fall."""

    feature: int
    strength: float
    """added on every token, in units of its largest activation"""
    amount: float
    """the same as an activation"""
    words: list[str]
    raised: NullComparison
    """nats of log-probability, of the same words for every direction; below strength 0 how far they are lowered"""
    shift: NullComparison
    """nats, `KL(unchanged || steered)` of the next token"""

    def view(self) -> View:
        shown, raised, moved = ", ".join(self.words), self.raised, "fall" if self.strength < 0 else "rise"
        yield (
            f"Feature {self.feature} at {self.strength:.3g} × its maximum ({self.amount:.3g}): its words ({shown}) "
            f"{moved} by {raised.value:.3g} nats, {raised.exceeds()} "
            f"(p {raised.p:.3g}, the smallest possible is {raised.smallest_p:.3g}). "
            f"{raised.verdict().capitalize()}, on this one prompt."
        )
        yield f"The next token shifts by {self.shift.value:.3g} nats of KL divergence, {self.shift.exceeds()}."


@dataclass(frozen=True, kw_only=True)
class JudgeSteering(OnFeature, Compared[Run, SteeringVerdict]):
    """Judge steering on one prompt: the rise of the words that a feature reads, against directions of two nulls.

    The words are those of the proof, the same for every direction; below strength 0 they should fall. Raises as
    `ReadText` does.
    """

    verb: ClassVar[str] = "judge_steering"
    text: PromptText
    """The prompt."""
    strength: Strength = 1.0
    """In units of the feature's largest activation."""
    chat: bool = False
    """Put the prompt into the model's chat template."""
    nulls: Level = "standard"

    def arms(self, run: Run) -> "Arms":
        """Return the additions: along the feature, along random directions, and along features of like density."""
        site, case = self.case(run, run.model(self.spec(run)))
        return _arms(self.nulls, site, case, self.strength * case.max_activation)

    def price(self, run: Run) -> Price:
        tokens = run.prompt(self.text, self.spec(run), self.chat)[1].shape[1]
        return _price(self, run, len(self.arms(run)), tokens)

    @without_gradients
    def measure(self, run: Run) -> SteeringVerdict:
        from saes.features.measure_proof import proof_words
        from saes.features.passes import next_token_changes

        n = DRAWS[self.nulls]
        model, tokens = run.prompt(self.text, self.spec(run), self.chat)
        site, case = self.case(run, model)
        amount = self.strength * case.max_activation
        arms = _arms(self.nulls, site, case, amount)
        run.check("reading the words of the feature")
        words = proof_words(site, case, run.jacobian_lens(self.spec(run)))
        done = run.counted(_price(self, run, len(arms), tokens.shape[1]))
        moved, shift = next_token_changes(site, [tokens], arms, words.ids, done)
        raised = np.sign(self.strength) * moved[:, 0].mean(-1)
        compared = _compared(raised, n), _compared(shift[:, 0], n)
        return SteeringVerdict(case.feature, self.strength, amount, list(words.texts), *compared)


def _arms(level: Level, site: "DictionarySite", case: FeatureCase, amount: float = 1.0) -> "Arms":
    """Return the arms of a feature: along it, and along as many directions of each null as a level has draws."""
    n = DRAWS[level]
    return site.arms(case.feature, case.alike[:n], n, 0, amount)


def _price(act: "JudgeSteering | Ablate", run: Run, arms: int, tokens: int) -> Price:
    """Return the price of the arms of a feature, and of the unchanged model before them."""
    n = DRAWS[act.nulls]
    counts = {"unchanged": 1, "the feature": 1, "random directions": n, "features of like density": arms - 1 - n}
    return Price(counts, tokens, act.spec(run), act.verb)


def _compared(values: np.ndarray, draws: int) -> NullComparison:
    """Compare the value of a feature with those of random directions and of features of like density."""
    random, alike = values[1 : 1 + draws].tolist(), values[1 + draws :].tolist()
    return NullComparison(float(values[0]), {"random directions": random, "features of like density": alike})


@dataclass(frozen=True, kw_only=True)
class Ablate(OnFeature, Compared[Run, list[AblatedExample]]):
    """Ablate a feature on its own examples: the change of loss in nats per token, with both nulls.

    `random` has the changes by random directions of the same size, `alike` those by features of like density. Raises
    `UsageError` (no such feature, or it never fires).
    """

    verb: ClassVar[str] = "ablate"

    def arms(self, run: Run) -> "Arms":
        """Return the subtractions in the amounts of the feature: along it, and along the directions of both nulls."""
        return _arms(self.nulls, *self.case(run, run.model(self.spec(run))))

    def price(self, run: Run) -> Price:
        site, case = self.case(run, run.model(self.spec(run)))
        return self._priced(run, site, case, len(_arms(self.nulls, site, case)))

    def _priced(self, run: Run, site: "DictionarySite", case: FeatureCase, n_arms: int) -> Price:
        tokens = sum(len(passage.token_ids) + site.first for passage in case.strongest(case.examples, EXAMPLES))
        return _price(self, run, n_arms, tokens)

    @without_gradients
    def measure(self, run: Run) -> list[AblatedExample]:
        from interp.models.adapter import token_strings
        from saes.features.passes import ablation_losses, with_bos

        n = DRAWS[self.nulls]
        model = run.model(self.spec(run))
        site, case = self.case(run, model)
        run.check("ablating the feature")
        arms, examples = _arms(self.nulls, site, case), list[AblatedExample]()
        passages = case.strongest(case.examples, EXAMPLES)
        price = self._priced(run, site, case, len(arms))
        done = run.counted(price, lambda _: f"example {len(examples) + 1} of {len(passages)}")
        for passage in passages:
            tokens, _ = with_bos(model, [passage])
            acts = site.activations(site.read(tokens).x, [case.feature])[0, site.first :, 0]
            at = passage.peak + site.first
            rises = ablation_losses(site, passage, case.feature, arms, done, start=at)
            means = rises[:, at : at + AFTER].mean(1).tolist()
            words = token_strings(model, list(passage.token_ids))
            nulls = means[1 : 1 + n], means[1 + n :]
            examples.append(AblatedExample(words, acts.tolist(), passage.peak, passage.document, means[0], *nulls))
        return examples


@dataclass(frozen=True, kw_only=True)
class SeparateLists(OnFeature, Act[Run, ListsApart]):
    """Return the lists of words that the direction of a feature separates, each with its p-value by random directions.

    A list is separated if its `p` is at most `alpha`, which is 0.05 divided by the number of lists.
    """

    verb: ClassVar[str] = "separate_lists"

    def measure(self, run: Run) -> ListsApart:
        from interp.geometry.separation import words_along

        spec = self.spec(run)
        site, _ = self.case(run, run.model(spec))
        run.check("reading lists of words")
        lists = run.lists(spec, site)
        result = words_along(lists, site.stream, site.directions[self.feature].double().cpu().numpy())
        apart = list(result.set_apart)
        return ListsApart(str(result), result.hook_point, result.alpha, result.n_random, apart, result.to_records())


@dataclass(frozen=True)
class DocumentText:
    """A document of the recording, or the part of it around one token, with a feature's activation on each token."""

    tokens: list[str]
    token_ids: list[int]
    activations: list[float]
    first: int
    """position in the document of the first token here"""
    peak: int
    """index in `tokens` of the token of the row"""
    cut: bool
    """the document is longer"""


@dataclass(frozen=True, kw_only=True)
class ReadDocuments(OnFeature, Act[Run, list[DocumentText]]):
    """Return the documents that contain some rows of the recording, with one feature's activation on every token.

    Raises `MissingError` or `MismatchError` where the recording, the SAE or the model that made the features is not
    here.
    """

    verb: ClassVar[str] = "documents"
    rows: Annotated[tuple[Count, ...], Len(1, 100)]
    """Rows of the recording."""

    def measure(self, run: Run) -> list[DocumentText]:
        recording, spec = described_recording(run, self.features), self.spec(run)
        n = run.open(Features, self.features).n_features
        if not 0 <= self.feature < n:
            raise UnknownNameError("feature", str(self.feature), [], f"of {self.features}; the last one is {n - 1}")
        dictionary, model = run.described_dictionary(self.features), run.model(spec)
        texts = []
        for row in self.rows:
            run.check("reading documents")
            texts.append(document_text(model, dictionary, recording, row, self.feature, MOST_TOKENS))
        return texts


def described_recording(run: Run, features: str) -> "Recording":
    """Return the recording that features were described on.

    Raises `MissingError` if the workspace lacks it, `MismatchError` if it was made again since.
    """
    described = run.open(Features, features)
    name = described.settings.recording
    if name not in run.workspace.names("recording"):
        raise MissingError(
            f"the text is in the recording {name!r}, which is not in this workspace; run `workbench features` on a "
            "recording that is (--recording NAME)"
        )
    if run.workspace.manifest("recording", name).content_hash != described.about.parents.get(f"recordings/{name}"):
        raise MismatchError(
            f"the recording {name!r} differs from the one that {features!r} was made of; run `workbench features` "
            f"with --name {features} --overwrite"
        )
    return run.recording(name)


def document_text(
    model: HookedModel, dictionary: "Dictionary", recording: "Recording", row: int, feature: int, limit: int
) -> DocumentText:
    """Return the document that contains a row of the recording, at most `limit` tokens of it around that row.

    Activations are those of the recorded vectors, encoded again. `dictionary` is an SAE or `NeuronBasis`. Raises
    `UnknownNameError` for a row that the recording lacks, or that is in no document (BOS, padding).
    """
    import torch

    from interp.models.adapter import token_strings
    from interp.recording.store import context_of

    if not 0 <= row < recording.n_rows:
        raise UnknownNameError("row of the recording", str(row), [], f"; the last one is {recording.n_rows - 1}")
    context, at = context_of(recording, row)
    document = int(context.document[at])
    if document < 0:
        raise UnknownNameError("token of a document", str(row), [], "; this row is BOS or padding")
    rows = recording.document_rows(document)
    peak = int((rows == row).nonzero()[0])
    start = max(0, min(peak - limit // 2, len(rows) - limit))
    part = rows[start : start + limit]
    shard_of = np.searchsorted(recording.shard_starts, part.numpy(), side="right") - 1
    ids = torch.empty(len(part), dtype=torch.long)
    for shard in np.unique(shard_of):
        inside = torch.as_tensor(shard_of == shard)
        local = part[inside] - int(recording.shard_starts[shard])
        ids[inside] = recording.token_shard(int(shard)).tokens[local].long()
    device = dictionary.decoder_directions.device
    with torch.no_grad():
        codes = dictionary.encode_sparse(recording.read_rows(dictionary.hook_point, part).to(device))
    values = torch.where(codes.indices == feature, codes.values.float(), 0.0).sum(1).clamp_min(0)
    return DocumentText(
        tokens=token_strings(model, ids),
        token_ids=ids.tolist(),
        activations=values.tolist(),
        first=start,
        peak=peak - start,
        cut=len(part) < len(rows),
    )
