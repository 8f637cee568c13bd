"""Words that a destination loses without a route, beside their null.

The difference between the clean residual and the one without the route is carried to the last layer by the Jacobian
lens, or read as it is where none is fitted, as logits of the vocabulary. Its strength is its largest logit in standard
deviations over the vocabulary. The null are differences without a content of their own: sums, with random signs, of
`MIXED` differences from edges that are cut in the same window of layers of unrelated texts, each of length 1. A
difference is read as words only where fewer than 1 in 20 of `MIXTURES` are as strong, and its strongest token is a
whole word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionary import Dictionary
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import Lens
from interp.lenses.vocabulary import Vocabulary, vocabulary_of
from interp.models.adapter import available_hook_points, bos_token_id
from interp.models.hooked import Hook, HookedModel
from interp.models.identity import tokenizer_of
from interp.models.passes import storing_hook
from interp.names import parse_hook_point
from interp.nulls import ALPHA
from interp.routes.cut import CleanRun, Cut, Layers, clean_run, first_position, passes_of, run_cuts
from interp.routes.routes import CarriedWords, Route
from interp.seeds import make_generator
from interp.text.passages import PASSAGES

DRAWN_TEXTS, DRAWN_EDGES, TEXT_TOKENS = 5, 4, 12
"""Unrelated texts, edges that are cut in each, and tokens of each."""
WORDS, CANDIDATES = 3, 12
"""Words that are read of a difference, from as many of its strongest tokens."""
WINDOWS = 6
"""Windows of layers, each with a null of its own."""
MIXED, MIXTURES = 8, 99
"""Differences in a mixture, and draws of the null."""
Rows = Float[Tensor, "rows d"]


def unrelated_tokens(model: HookedModel, number: int, length: int) -> Tensor:
    """Return the first tokens `[1, length]` of an unrelated text, after BOS where the model has one.

    Of a model without a tokenizer, tokens drawn at random.
    """
    if tokenizer_of(model, required=False) is None:
        drawn = torch.randint(model.cfg.d_vocab, (1, length), generator=make_generator(number, "unrelated texts"))
        return drawn.to(model.cfg.device)
    bos = [] if (first := bos_token_id(model)) is None else [first]
    text = " ".join(PASSAGES[(number + i) % len(PASSAGES)] for i in range(4))
    ids = [*bos, *tokenizer_of(model).encode_batch([text])[0]][:length]
    return torch.tensor([ids], device=model.cfg.device)


@dataclass(eq=False)
class LostWords:
    """Reads differences of residuals as words, beside a null from unrelated texts."""

    model: HookedModel
    lens: JacobianLens | None
    """None for the logit lens"""
    vocabulary: Vocabulary
    texts: list[CleanRun]
    mean_mlp: dict[int, Float[Tensor, " d"]]
    """mean output of each MLP over the texts, by layer"""
    null_of_mlps: dict[Layers, float] | None = None
    """null of stations by window, once it was measured"""

    @classmethod
    def of(cls, model: HookedModel, lens: Lens | None) -> "LostWords":
        """Run the unrelated texts once; without a Jacobian lens differences are read as they are (logit lens)."""
        length = min(TEXT_TOKENS, model.cfg.n_ctx)
        texts = [clean_run(model, unrelated_tokens(model, number, length)) for number in range(DRAWN_TEXTS)]
        means = {}
        for layer in range(model.cfg.n_layers):
            if (name := f"blocks.{layer}.hook_mlp_out") in available_hook_points(model):
                means[layer] = torch.stack([text.values[name][0, 1:] for text in texts]).flatten(0, 1).mean(0)
        return cls(model, lens if isinstance(lens, JacobianLens) else None, vocabulary_of(model), texts, means)

    @property
    def how(self) -> str:
        """Name of the lens."""
        return self.lens.how if self.lens else "logit"

    def strongest(self, layer: int, difference: Float[Tensor, " d"]) -> list[tuple[int, float]]:
        """Return the strongest tokens of a difference after a layer, each with its strength."""
        carried = self._carried(layer, difference[None])
        tokens = self.vocabulary.strongest(carried, CANDIDATES)[0]
        strengths = self.vocabulary.logits(carried, tokens)[0] / self.vocabulary.scale(carried)[0]
        return list(zip(tokens.tolist(), strengths.tolist(), strict=True))

    def _carried(self, layer: int, differences: Float[Tensor, "n d"]) -> np.ndarray:
        rows = differences.float()
        return (self.lens.carry(f"blocks.{layer}.hook_resid_post", rows) if self.lens else rows).cpu().numpy()

    def words(self, strongest: Sequence[tuple[int, float]], null: float) -> tuple[str, ...]:
        """Return the first whole words that are stronger than the null, each once however it is spelled.

        None where the strongest token of all is no whole word.
        """
        words: dict[str, str] = {}
        for number, (token, strength) in enumerate(strongest):
            text = self.vocabulary.texts[token]
            if strength > null and _whole_word(text):
                words.setdefault(text.strip().casefold(), text.strip())
            elif number == 0:
                return ()
        return tuple(words.values())[:WORDS]

    def window(self, layer: int) -> Layers:
        """Return the window of layers with a null that holds a layer."""
        return next(window for window in layer_windows(self.model.cfg.n_layers) if window[0] <= layer <= window[1])

    @cached_property
    def null(self) -> dict[Layers, float]:
        """Strength of mixtures of what random edges take, cut in each window of layers of unrelated texts."""
        windows, lost = layer_windows(self.model.cfg.n_layers), list[Rows]()
        for text in self.texts:
            lost.append(lost_by_cuts(text, [LostBy((s,), d, *w) for w in windows for s, d in drawn_edges(text)]))
        return self.reached_by_mixtures(windows, lost)

    def reached_by_mixtures(self, windows: Sequence[Layers], lost: Sequence[Rows]) -> dict[Layers, float]:
        """Return the strength that 1 in 20 mixtures of differences reaches after each window.

        `lost` are the rows of each text, in the order of the windows.
        """
        by_window = torch.cat([rows.unflatten(0, (len(windows), -1)) for rows in lost], 1)
        draw, mixtures = make_generator(0, "mixtures of differences"), []
        for (_, last), rows in zip(windows, by_window, strict=True):
            units = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
            chosen = torch.stack([torch.randperm(len(units), generator=draw)[:MIXED] for _ in range(MIXTURES)])
            signs = 2.0 * torch.randint(2, chosen.shape, generator=draw) - 1
            mixtures.append(self._carried(last, (signs[..., None] * units[chosen]).sum(1)))
        carried = np.concatenate(mixtures)
        strengths = self.vocabulary.largest(carried) / self.vocabulary.scale(carried)
        reached = np.quantile(strengths.reshape(len(windows), MIXTURES), 1 - ALPHA, axis=1)
        return dict(zip(windows, reached.tolist(), strict=True))

    def read(self, run: CleanRun, routes: Sequence[Route]) -> list[CarriedWords]:
        """Return the words that destinations lose without routes, whose layers are known.

        Each is cut a second time with the destination's own MLPs of these layers held clean: do the words survive?
        """
        cuts = []
        for route in routes:
            assert route.layers is not None
            first, last = route.layers.first, route.layers.last
            cuts += [LostBy(route.sources, route.destination, first, last, hold) for hold in (False, True)]
        lost, found = lost_by_cuts(run, cuts), []
        for cut, (whole, held) in zip(cuts[::2], lost.split(2), strict=True):
            null, strongest = self.null[self.window(cut.last)], self.strongest(cut.last, whole)
            words = self.words(strongest, null)
            survives = bool({*words} & {*self.words(self.strongest(cut.last, held), null)})
            found.append(CarriedWords(words=words, strength=strongest[0][1], null=null, without_mlps=survives))
        return found


def _whole_word(text: str) -> bool:
    """Return True for a token that begins with a space or a capital, or in a script without them, and is letters."""
    word = text.strip()
    return len(word) > 1 and word.isalnum() and (text[:1].isspace() or not word[0].islower() or not word.isascii())


def layer_windows(n_layers: int) -> list[Layers]:
    """Return the first and the last layer of each window that has a null."""
    size = -(-n_layers // min(WINDOWS, n_layers))
    return [(first, min(first + size, n_layers) - 1) for first in range(0, n_layers, size)]


@dataclass(frozen=True)
class LostBy:
    """A cut whose destination is read after its last layer."""

    sources: tuple[int, ...]
    destination: int
    first: int
    last: int
    hold: bool = False
    """True where the destination's own MLPs keep their clean outputs in these layers"""

    def cut(self, run: CleanRun) -> Cut:
        """Return the cut."""
        return Cut(run.edges_of(self.sources, self.destination), first=self.first, last=self.last)


@torch.no_grad()
def lost_by_cuts(run: CleanRun, losses: Sequence[LostBy]) -> Rows:
    """Return what the last position of each destination loses after the last layer of its cut."""
    cuts, lost = [loss.cut(run) for loss in losses], torch.zeros(len(losses), run.model.cfg.d_model)
    for rows in passes_of(run, [(cut.start, cut.first) for cut in cuts]):
        chosen = [cuts[row] for row in rows]
        start, store = first_position(run, chosen), dict[str, Tensor]()
        hooks: list[tuple[str, Hook]] = []
        for at, row in enumerate(rows):
            loss, span = losses[row], run.words[losses[row].destination]
            for layer in range(loss.first, loss.last + 1) if loss.hold else ():
                if (name := f"blocks.{layer}.hook_mlp_out") in run.values:
                    clean = run.values[name][:, span.start : span.stop]
                    hooks.append((name, setting(span, start, clean, [at])))
        points = {f"blocks.{losses[row].last}.hook_resid_post" for row in rows}
        run_cuts(run, chosen, [*hooks, *((point, storing_hook(store, point)) for point in points)])
        for at, row in enumerate(rows):
            point, end = f"blocks.{losses[row].last}.hook_resid_post", run.words[losses[row].destination].stop - 1
            lost[row] = run.values[point][0, end] - store[point][at, end - start]
    return lost


def setting(span: range, start: int, values: Tensor, rows: Sequence[int] | slice = slice(None)) -> Hook:
    """Return a hook that sets positions of some rows, in a pass that begins at position `start`."""

    def edit(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        value[rows, span.start - start : span.stop - start] = values.to(value)
        return value

    return edit


def drawn_edges(text: CleanRun) -> list[tuple[int, int]]:
    """Return random edges of an unrelated text, the same for the same text."""
    edges, draw = text.edges(), make_generator(int(text.tokens.sum()), "unrelated edges")
    return [edges[i] for i in torch.randperm(len(edges), generator=draw)[:DRAWN_EDGES].tolist()]


@torch.no_grad()
def lost_features(
    run: CleanRun, route: Route, dictionary: Dictionary, texts: Sequence[CleanRun]
) -> tuple[list[tuple[int, float]], float]:
    """Return the features that fall most at a destination without a route, and the fall of 1 in 20 unrelated edges.

    The dictionary reads the residual stream after a block; the route is cut from its first layer up to there. No
    feature where the route begins later. Falls are in units of the activations.
    """
    point = dictionary.hook_point
    layer = parse_hook_point(point).layer
    if route.layers is None or layer is None or layer < route.layers.first:
        return [], 0.0
    first = route.layers.first

    def falls(text: CleanRun, edges: Sequence[tuple[tuple[int, ...], int]]) -> Float[Tensor, "edges d_sae"]:
        lost = lost_by_cuts(text, [LostBy(sources, destination, first, layer) for sources, destination in edges])
        clean = torch.stack([text.values[point][0, text.words[destination].stop - 1] for _, destination in edges])
        return dictionary.encode(clean) - dictionary.encode(clean - lost.to(clean))

    drawn = torch.cat([falls(text, [((s,), d) for s, d in drawn_edges(text)]).max(1).values for text in texts])
    null = float(drawn.float().quantile(1 - ALPHA))
    values, numbers = falls(run, [(route.sources, route.destination)])[0].topk(WORDS)
    return [(n, v) for n, v in zip(numbers.tolist(), values.tolist(), strict=True) if v > null], null
