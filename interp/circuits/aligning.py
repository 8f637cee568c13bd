"""Alignment of a program's variable with a model: interchange interventions, by site and by basis.

    program = PROGRAMS["agreement"]
    found = align(model, program, "number", AlignmentConfig())
    print(found)

The model runs on a base prompt, with its residual stream at one site set to that of a source prompt within a subspace
of orthonormal basis `B`: `h + (h_source - h) B B^T`. Where the model then answers as the program does with its variable
set to the source's value, the subspace carries the variable there (Geiger et al. 2021). All of it is TransformerLens'
`tools.analysis.interchange`; here are the pairs, the split, the sites, the controls and the verdict.

1. Whole vectors are swapped at each layer and position (the map). The best site, of equal ones the one nearest to the
   middle layer, is used from then on, unless one is given.
2. At the site, bases are compared: the difference of means between values, a linear probe, the largest principal
   components, the outputs of the MLP neurons, in all layers before the site, whose mean output differs most, and of the
   latents of a dictionary, and subspaces that are learned by distributed alignment search (DAS; Geiger et al. 2024),
   whose rank is chosen on pairs that did not train them. All but the first two have that rank.
3. Controls, each of the chosen rank: a random subspace; a placebo, which moves every vector as far as the learned swap
   but in a random subspace; DAS on an untrained model. DAS fits untrained models and labels at random on the pairs that
   train it (Arora et al. 2024): so the learned subspace is also compared with arbitrary labels on those pairs.

Accuracies are over test pairs that neither trained nor chose anything. An answer is the candidate with the largest
logit, of all answers of all pairs.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.artifacts import Table
from interp.circuits.alignment import (
    ARBITRARY,
    LEARNED,
    OWN_PAIRS,
    WHOLE,
    Alignment,
    AlignmentConfig,
    AlignmentSettings,
    BasisAccuracy,
    SiteAccuracy,
    SwappedPair,
    SwappedRun,
    SwappedToken,
)
from interp.circuits.causal_programs import CausalProgram, SwapPair, draw_pairs
from interp.circuits.tasks import encoder_with_bos, one_token
from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError, PromptError
from interp.models import interchange
from interp.models.adapter import available_hook_points, token_strings, untrained_model, weight_hash
from interp.models.hooked import HookedModel
from interp.models.passes import capture, read_hook, run_from
from interp.models.residual import norm_of
from interp.names import canonical_hook_point
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import proportion_interval

ROWS_AT_ONCE = 128
MAP_PAIRS = 24
"""pairs of the map; more would only sharpen the picture"""
LEAST_PAIRS = 16


@dataclass(frozen=True)
class _Prompts:
    """Tokens of pairs, and the number of the wanted answer among the candidates."""

    pairs: list[SwapPair]
    base: Int[Tensor, "n pos"]
    source: Int[Tensor, "n pos"]
    candidates: list[str]
    ids: Int[Tensor, " n_candidates"]
    wanted: Int[Tensor, " n"]

    @classmethod
    def of(cls, model: HookedModel, pairs: list[SwapPair]) -> "_Prompts":
        """Tokenise pairs. Raises `PromptError` for an answer of several tokens, or prompts of different length."""
        encode = encoder_with_bos(model)
        sides = [[encode(getattr(pair, side), bos=True) for pair in pairs] for side in ("base", "source")]
        expected = len(sides[0][0])
        for pair, base, source in zip(pairs, *sides, strict=True):
            if not len(base) == len(source) == expected:
                raise PromptError(
                    f"prompts must have one length, so that positions correspond: {pair.base!r} has {len(base)} tokens "
                    f"and {pair.source!r} {len(source)}, the first of all {expected}; reword them"
                )
        candidates = sorted({answer for pair in pairs for answer in (pair.answer, pair.wanted)})
        ids = torch.tensor([one_token(model, encode, answer, "the pairs") for answer in candidates])
        wanted = torch.tensor([candidates.index(pair.wanted) for pair in pairs])
        return cls(pairs, torch.tensor(sides[0]), torch.tensor(sides[1]), candidates, ids, wanted)

    def take(self, rows: slice) -> "_Prompts":
        """Return some of the pairs."""
        return _Prompts(
            self.pairs[rows], self.base[rows], self.source[rows], self.candidates, self.ids, self.wanted[rows]
        )

    @property
    def changes(self) -> np.ndarray:
        return np.array([pair.changes for pair in self.pairs])


class _Site:
    """One site of one model: swaps there start from the stored residual stream before its layer."""

    def __init__(self, model: HookedModel, prompts: _Prompts, layer: int, position: int):
        self.model, self.prompts, self.layer, self.position = model, prompts, layer, position
        self.point = f"blocks.{layer}.hook_resid_pre"
        self.base, self.source = (
            torch.cat([capture(model, part, [self.point])[self.point] for part in tokens.split(ROWS_AT_ONCE)])
            for tokens in (prompts.base, prompts.source)
        )

    def answers(self, stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch n_candidates"]:
        """Return the logits of the candidates after the last token."""
        at = torch.full((len(stream), 1), stream.shape[1] - 1)
        logits = run_from(self.model, stream, [read_hook(at)], layer=self.layer, gradients=torch.is_grad_enabled())
        assert logits is not None
        return logits[:, 0, self.prompts.ids.to(logits.device)]

    def positions(self, rows: slice) -> Tensor:
        return torch.full((len(self.base[rows]),), self.position)

    def swapped(self, swap: interchange.Intervention, rows: slice) -> Int[Tensor, " n"]:
        """Return the number of the answer of each pair after a swap."""
        return self.logits(swap, rows).argmax(1)

    def logits(self, swap: interchange.Intervention, rows: slice) -> Float[Tensor, "n n_candidates"]:
        """Return the logits of the candidates for each pair after a swap."""
        return interchange.intervened_logits(
            self.model,
            self.point,
            swap,
            self.base[rows],
            self.source[rows, self.position],
            self.answers,
            positions=self.positions(rows),
            batch_size=ROWS_AT_ONCE,
        )

    def accuracy(self, swap: interchange.Intervention, rows: slice) -> float:
        """Return the share of wanted answers after a swap."""
        return float((self.swapped(swap, rows) == self.prompts.wanted[rows]).double().mean())

    def learned(self, rank: int, targets: Tensor, rows: slice, config: AlignmentConfig) -> Tensor:
        """Return the basis `[d_model, rank]` that DAS learns on some pairs."""
        with torch.enable_grad():
            trained = interchange.fit_das(
                self.model,
                self.point,
                self.base[rows],
                self.source[rows],
                targets[rows],
                self.answers,
                rank=rank,
                base_positions=self.positions(rows),
                source_positions=self.positions(rows),
                epochs=config.epochs,
                batch_size=32,
                seed=config.seed,
            )
        return trained.basis


def align(
    model: HookedModel,
    program: CausalProgram | list[SwapPair],
    variable: str = "answer",
    config: AlignmentConfig | None = None,
    *,
    site: tuple[int, int] | None = None,
    dictionary: Dictionary | None = None,
    name: str = "pairs",
    model_name: str = "",
    progress: Progress | None = None,
) -> Alignment:
    """Align a variable of a program with a model's residual stream.

    Args:
        model: its answers are compared with the program's.
        program: a causal program, or pairs that were written by hand.
        variable: the variable that is swapped.
        config: settings; see `AlignmentConfig`.
        site: `(layer, position)`: the residual stream before this layer at this token. Default: the best of the map.
        dictionary: also swap its latents; it must be on the residual stream that the site reads.
        name: of the program, where pairs are given.
        model_name: name of the model.
        progress: called after each step.
    Returns: the swaps by site and by basis, with their controls.
    Raises:
        PromptError: prompts of different length, or an answer of several tokens.
        ConfigError: a site that the model lacks, fewer than 16 pairs, a variable that never changes the answer.

    >>> inputs = lambda pick: {"key": pick("12"), "value": pick("5678"), "other": pick("34")}
    >>> variables = {"answer": lambda v: v["value"]}
    >>> repeats = CausalProgram(name="repeat", variables=variables, prompt="{key} {value} {other} {key}", draw=inputs)
    >>> few = AlignmentConfig(pairs=64, ranks=(4,), layer_step=1)
    >>> align(load_model("planted:induction"), repeats, "answer", few, site=(0, 1)).of_basis("whole vector").accuracy
    1.0
    """
    pairs = _pairs(model, program, variable, config := config or AlignmentConfig())
    prompts = _Prompts.of(model, pairs)
    _check(model, prompts, config, site)
    parts = _Parts.of(len(pairs))
    tell = _Steps(progress, 3 + len(config.ranks))
    sites = _site_map(model, prompts.take(slice(0, min(MAP_PAIRS, parts.choose.stop))), config.layer_step)
    layer, position = site or _best(sites, model.cfg.n_layers)
    _check_dictionary(dictionary, layer)
    tell("map")
    at_site = _Site(model, prompts, layer, position)
    learned, rank = _learned(at_site, parts, config, tell)
    table = _Table(at_site, parts.test)
    width = at_site.base.shape[-1]
    table.add("no swap", 0, lambda base, source: base)
    table.add(WHOLE, width, lambda base, source: source.to(base))
    table.add(LEARNED, rank, _swap(learned))
    for basis_name, basis in _fixed_bases(at_site, parts.train, rank, config.seed, dictionary).items():
        table.add(basis_name, basis.shape[1], _swap(basis))
    _add_controls(table, learned, rank, parts, config)
    tell("arbitrary labels")
    untrained_site = _Site(untrained_model(model, config.seed), prompts, layer, position)
    swap = _swap(untrained_site.learned(rank, prompts.wanted, parts.train, config))
    table.rows.append(_row("untrained model", rank, untrained_site.swapped(swap, parts.test), prompts.take(parts.test)))
    tell("untrained model")
    settings = AlignmentSettings(
        **vars(config),
        model=model_name,
        weight_hash=weight_hash(model),
        program=program.name if isinstance(program, CausalProgram) else name,
        variable=variable,
        layer=layer,
        position=position,
        rank=rank,
        site_given=site is not None,
    )
    tested = _swapped_pairs(prompts.take(parts.test), table.answers)
    return Alignment(
        settings=settings,
        solved=float(np.mean([row.answer == pair.answer for row, pair in zip(tested, pairs[parts.test], strict=True)])),
        sites=Table.of(SiteAccuracy, sites),
        bases=Table.of(BasisAccuracy, table.rows),
        pairs=Table.of(SwappedPair, tested),
        basis=learned.detach().float().cpu().numpy(),
    )


SHOWN = 3
"""Tokens of each run, the most probable ones."""


@torch.no_grad()
def swapped_run(model: HookedModel, alignment: Alignment, number: int) -> SwappedRun:
    """Run one test pair of an alignment again, with and without the swaps, and return the predictions.

    Raises `ConfigError` for a number that no pair has, `MismatchError` for other weights.
    """
    rows, of = alignment.pairs.rows(), alignment.settings
    if not 0 <= number < len(rows):
        raise ConfigError(f"the alignment has pairs 0 to {len(rows) - 1}, got {number}")
    if weight_hash(model) != of.weight_hash:
        raise MismatchError(f"the alignment was measured in other weights of {of.model}; run `workbench align` again")
    row = rows[number]
    pair = SwapPair(base=row.base, source=row.source, value="", base_value="", answer=row.wanted, wanted=row.wanted)
    prompts = _Prompts.of(model, [pair])
    site = _Site(model, replace(prompts, ids=torch.arange(model.cfg.d_vocab)), of.layer, of.position)
    basis = torch.from_numpy(alignment.basis)
    runs = {
        "base": site.logits(lambda base, source: base, slice(None)),
        "source": model(prompts.source.to(model.cfg.device))[:, -1],
        "whole": site.logits(lambda base, source: source.to(base), slice(None)),
        "learned": site.logits(_swap(basis), slice(None)),
    }
    shares = {name: logits[0].float().softmax(0).cpu() for name, logits in runs.items()}
    shown = torch.cat([*(share.topk(SHOWN).indices for share in shares.values()), prompts.ids]).unique()
    ids = sorted(shown.tolist(), key=lambda token: -float(shares["learned"][token]))
    tokens = [
        SwappedToken(token=text, **{name: float(share[token]) for name, share in shares.items()})
        for token, text in zip(ids, token_strings(model, ids), strict=True)
    ]
    return SwappedRun(row, alignment.where, tokens)


@dataclass(frozen=True)
class _Parts:
    """Rows of the pairs that train subspaces, choose the rank, and test."""

    train: slice
    choose: slice
    test: slice

    @classmethod
    def of(cls, n: int) -> "_Parts":
        return cls(slice(0, n // 2), slice(n // 2, n * 3 // 4), slice(n * 3 // 4, n))


class _Table:
    """Accuracies and answers of swaps at one site."""

    def __init__(self, site: _Site, test: slice):
        self.site, self.test = site, test
        self.rows: list[BasisAccuracy] = []
        self.answers: dict[str, Tensor] = {}

    def add(
        self,
        name: str,
        rank: int,
        swap: interchange.Intervention,
        *,
        wanted: Tensor | None = None,
        on: slice | None = None,
    ) -> None:
        """Measure a swap; `wanted` are other answers than those of the program, `on` other pairs than the test's."""
        rows = self.test if on is None else on
        prompts = self.site.prompts if wanted is None else replace(self.site.prompts, wanted=wanted)
        self.answers[name] = self.site.swapped(swap, rows)
        self.rows.append(_row(name, rank, self.answers[name], prompts.take(rows)))


def _learned(site: _Site, parts: "_Parts", config: AlignmentConfig, tell: "_Steps") -> tuple[Tensor, int]:
    """Return the subspace of the best rank, on pairs that did not train it, and that rank."""
    bases = {}
    for rank in config.ranks:
        bases[rank] = site.learned(rank, site.prompts.wanted, parts.train, config)
        tell(f"rank {rank}")
    best = max(bases, key=lambda rank: (site.accuracy(_swap(bases[rank]), parts.choose), -rank))
    return bases[best], best


def _add_controls(table: "_Table", learned: Tensor, rank: int, parts: "_Parts", config: AlignmentConfig) -> None:
    """Measure what the learned subspace has to exceed in the same model."""
    site, prompts = table.site, table.site.prompts
    random = interchange.random_basis(len(learned), rank, config.seed)
    table.add("random subspace", rank, _swap(random))
    table.add("placebo of equal norm", rank, interchange.NormMatchedPlacebo(_swap(learned), random))
    sources = [pair.source for pair in prompts.pairs]
    arbitrary = interchange.arbitrary_targets(sources, len(prompts.candidates), config.seed)
    table.add(OWN_PAIRS, rank, _swap(learned), on=parts.train)
    swap = _swap(site.learned(rank, arbitrary, parts.train, config))
    table.add(ARBITRARY, rank, swap, wanted=arbitrary, on=parts.train)


def _pairs(
    model: HookedModel, program: CausalProgram | list[SwapPair], variable: str, config: AlignmentConfig
) -> list[SwapPair]:
    pairs = program if isinstance(program, list) else []
    if isinstance(program, CausalProgram):
        encode = encoder_with_bos(model)
        pairs = draw_pairs(
            program, variable, config.pairs, seed=config.seed, length=lambda text: len(encode(text, bos=True))
        )
    if len(pairs) < LEAST_PAIRS:
        raise ConfigError(
            f"an alignment trains, chooses and tests on at least {LEAST_PAIRS} pairs, got {len(pairs)}; give more"
        )
    pairs = list(dict.fromkeys(pairs))
    order = torch.randperm(len(pairs), generator=make_generator(config.seed, "order of pairs"))
    return [pairs[i] for i in order[: config.pairs].tolist()]


class _Steps:
    """Progress by named steps."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, step: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, {"step": step})


def _swap(basis: Tensor) -> interchange.SubspaceInterchange:
    return interchange.SubspaceInterchange(basis)


def _row(name: str, rank: int, answers: Tensor, prompts: _Prompts) -> BasisAccuracy:
    right, changes = (answers == prompts.wanted).numpy(), prompts.changes
    interval = proportion_interval(int(right.sum()), len(right))
    changed, stayed = (float(right[rows].mean()) if rows.any() else float("nan") for rows in (changes, ~changes))
    return BasisAccuracy(
        basis=name,
        rank=rank,
        accuracy=float(right.mean()),
        low=interval.low,
        high=interval.high,
        changed=changed,
        stayed=stayed,
    )


def _site_map(model: HookedModel, prompts: _Prompts, step: int) -> list[SiteAccuracy]:
    """Return the accuracy of whole swaps at every `step`-th layer, at each position from the first difference on."""
    first = _first_difference(prompts)
    tokens = token_strings(model, prompts.base[0].tolist())
    sites_found = []
    for layer in range(0, model.cfg.n_layers, step):
        site = _Site(model, prompts, layer, 0)
        for position in range(first, prompts.base.shape[1]):
            site.position = position
            accuracy = site.accuracy(lambda base, source: source.to(base), slice(None))
            sites_found.append(SiteAccuracy(layer=layer, position=position, token=tokens[position], accuracy=accuracy))
    return sites_found


def _best(sites: Sequence[SiteAccuracy], n_layers: int) -> tuple[int, int]:
    best = max(sites, key=lambda site: (site.accuracy, -abs(site.layer - n_layers / 2)))
    return best.layer, best.position


def _check_dictionary(dictionary: Dictionary | None, layer: int) -> None:
    allowed = {f"blocks.{layer}.hook_resid_pre", f"blocks.{layer - 1}.hook_resid_post"}
    if dictionary is not None and canonical_hook_point(dictionary.hook_point) not in allowed:
        raise ConfigError(
            f"the SAE reads {dictionary.hook_point}, not the residual stream before layer {layer}; give --site"
        )


def _check(model: HookedModel, prompts: _Prompts, config: AlignmentConfig, site: tuple[int, int] | None) -> None:
    if max(config.ranks) > model.cfg.d_model:
        raise ConfigError(
            f"a subspace of {model.cfg.d_model} dimensions has no rank {max(config.ranks)}; lower --ranks"
        )
    if site is None:
        return
    (layer, position), first = site, _first_difference(prompts)
    if not (0 <= layer < model.cfg.n_layers and first <= position < prompts.base.shape[1]):
        raise ConfigError(
            f"the site must be a layer from 0 to {model.cfg.n_layers - 1} and a position from {first}, where prompts "
            f"begin to differ, to {prompts.base.shape[1] - 1}, got {layer}:{position}"
        )


def _first_difference(prompts: _Prompts) -> int:
    return int((prompts.base != prompts.source).any(0).int().argmax())


def _fixed_bases(
    site: _Site, train: slice, rank: int, seed: int, dictionary: Dictionary | None
) -> dict[str, Float[Tensor, "d_model rank"]]:
    """Return bases that are not trained on swaps, from the source's vectors of the training pairs."""
    x = site.source[train, site.position].float().cpu()
    values = [pair.value for pair in site.prompts.pairs[train]]
    if len(set(values)) < 2:
        return {}
    made = {
        "difference of means": lambda: interchange.mean_difference_basis(x, values),
        "linear probe": lambda: _probe(x, values, seed),
        "principal components": lambda: interchange.orthonormal_subspace((x - x.mean(0)).T, rank=rank).basis,
    }
    bases = {}
    for name, make in made.items():
        with contextlib.suppress(ValueError):  # nothing varies along as many dimensions there
            bases[name] = make()
    if dictionary is not None:
        directions = dictionary.decoder_directions.detach().float().cpu()
        acts = dictionary.encode(x.to(dictionary.decoder_directions)).float().cpu()
        bases["latents"] = _span([(acts, directions)], values, rank)
    written = _neurons(site, train)
    return bases | ({"neurons": _span(written, values, rank)} if written else {})


def _probe(x: Tensor, values: Sequence[str], seed: int) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    scale = x.std(0).clamp_min(1e-6)
    fitted = LogisticRegression(max_iter=500, random_state=seed).fit(((x - x.mean(0)) / scale).numpy(), values)
    return interchange.probe_basis(torch.from_numpy(fitted.coef_).float() / scale)


def _neurons(site: _Site, rows: slice) -> list[tuple[Tensor, Tensor]]:
    """Return activations `[n, d_mlp]` and directions `[d_mlp, d_model]` of the neurons of each layer before a site."""
    model, tokens, written = site.model, site.prompts.source[rows], []
    points = {layer: f"blocks.{layer}.mlp.hook_post" for layer in range(site.layer)}
    if not set(points.values()) <= available_hook_points(model):
        return []
    for layer, point in points.items():
        acts = torch.cat(
            [capture(model, part, [point])[point][:, site.position] for part in tokens.split(ROWS_AT_ONCE)]
        )
        post = norm_of(model.blocks[layer], "ln2_post", model.cfg.d_model)
        directions = model.blocks[layer].mlp.W_out.detach().float().cpu()
        written.append((acts.float().cpu(), directions if post is None else post.linear(directions).cpu()))
    return written


def _span(parts: Sequence[tuple[Tensor, Tensor]], values: Sequence[str], rank: int) -> Float[Tensor, "d_model rank"]:
    """Return the span of the directions of the parts whose mean output differs most between values."""
    spread = []
    for acts, directions in parts:
        groups = [acts[[value == each for value in values]].mean(0) for each in sorted(set(values))]
        spread.append(torch.stack(groups).std(0) * directions.norm(dim=1))
    top = torch.cat(spread).topk(min(rank, sum(len(each) for each in spread))).indices
    return torch.linalg.qr(torch.cat([directions for _, directions in parts])[top].T)[0]


def _swapped_pairs(prompts: _Prompts, answers: dict[str, Tensor]) -> list[SwappedPair]:
    texts = {name: [prompts.candidates[i] for i in numbers.tolist()] for name, numbers in answers.items()}
    return [
        SwappedPair(
            base=pair.base,
            source=pair.source,
            wanted=pair.wanted,
            answer=texts["no swap"][i],
            after_whole=texts[WHOLE][i],
            after_learned=texts[LEARNED][i],
        )
        for i, pair in enumerate(prompts.pairs)
    ]
