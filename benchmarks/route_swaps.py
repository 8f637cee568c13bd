"""Pairs of prompts for `benchmarks.routes`: swaps of one edge, chosen on one wording and judged on another.

A pair of `routes.toml` has a word, another word, and two wordings in which these make the model say two answers. The
candidates are the edges from the word to each later word. An edge that is chosen on the first wording is carried over
to the second: to the last later word of the same text, else to the word as far from the end (at most the first later
one).
"""

import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel
    from interp.routes.carried import LostWords
    from interp.routes.cut import CleanRun
    from interp.routes.swap import SwapRow, Values

PAIRS = Path(__file__).with_name("routes.toml")
NULLS, OTHER_WORDS = 19, 6
LEAST = 0.5
"""Nats that all edges out of the word together must move, so that a share means something."""
UNTRAINED, IDLE_EDGES, NO_EFFECT, NO_KL = 4, 12, 0.02, 0.005
"""Untrained models for false words; edges drawn of each prompt; effect and KL below which one has no effect, nats."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two words, the answers that count for each, and two wordings with `{}` for the word."""

    kind: str
    words: tuple[str, str]
    answers: tuple[list[str], list[str]]
    wordings: tuple[str, str]


def read_pairs() -> list[Pair]:
    """Return the pairs of `routes.toml`."""
    kinds = tomllib.loads(PAIRS.read_text(encoding="utf-8"))
    return [Pair(kind, **pair) for kind, each in kinds.items() for pair in each["pairs"]]


class Dropped(Exception):
    """The reason why a pair is not measured."""


@dataclass(frozen=True)
class Wording:
    """One wording with the word, and what all swaps of it need."""

    run: "CleanRun"
    source: int
    values: "Values"
    """of the other word"""
    counterpart: int
    """token that is said with the other word"""
    aligned: bool
    """True where the words have other numbers of tokens"""

    @classmethod
    def of(cls, model: "HookedModel", pair: Pair, text: str) -> "Wording":
        """Run both prompts. Raises `Dropped`."""
        from interp.models.adapter import to_tokens, token_text
        from interp.routes.cut import clean_run
        from interp.routes.swap import swap_pairs, values_of, with_word

        word, instead = pair.words
        run = clean_run(model, to_tokens(model, text.replace("{}", word)))
        [(source, _)] = swap_pairs(run, [f"{word}={instead}"])
        other, theirs, _ = with_word(run, source, instead)
        if not torch.equal(other.tokens, to_tokens(model, text.replace("{}", instead))):
            raise Dropped("written out, the prompt has other tokens")
        answers = run.answer, int(other.log_probs.argmax())
        for token, known in zip(answers, pair.answers, strict=True):
            if not says(token_text(model, token), known):
                raise Dropped("another answer")
        if answers[0] == answers[1] or len(run.words) - source < 3:
            raise Dropped("the same answer, or one edge")
        n = min(len(theirs), len(run.words[source]))
        values = values_of(other, range(theirs.stop - n, theirs.stop))
        return cls(run, source, values, answers[1], len(theirs) != len(run.words[source]))

    @property
    def later(self) -> range:
        """Numbers of the words that may read the word."""
        return range(self.source + 1, len(self.run.words))

    def row(self, destinations: Sequence[int], values: "Values | None" = None) -> "SwapRow":
        """Return a swap into the edges to some words."""
        from interp.routes.swap import SwapRow

        return SwapRow(self.source, tuple(destinations), values or self.values)

    def moved(self, rows: "Sequence[SwapRow]") -> tuple[list[float], list[bool]]:
        """Return the movement of each swap in nats, and True where the counterpart's answer becomes the likeliest."""
        from interp.routes.swap import swapped

        changed = torch.cat([swapped(self.run, rows[i : i + 16]) for i in range(0, len(rows), 16)])
        rise = changed[:, self.counterpart] - self.run.log_probs[self.counterpart]
        return rise.tolist(), (changed.argmax(-1) == self.counterpart).tolist()

    def carried_over(self, other: "Wording", destination: int) -> int:
        """Return the word of another wording that stands for a destination of this one."""
        texts = other.run.texts
        same = [word for word in other.later if texts[word] == self.run.texts[destination]]
        found = same[-1] if same else len(texts) - (len(self.run.words) - destination)
        return max(found, other.later.start)


def measure(model: "HookedModel", pair: Pair, nulls: "Sequence[CleanRun]", others: Sequence[str]) -> Row:
    """Return the row of a pair. `nulls` are texts from which unrelated values come, `others` other words of the kind.

    Edges are numbered from 0, the word after the changed one. Raises `Dropped`.
    """
    from benchmarks.route_rankings import rankings
    from interp.routes.swap import equal_norm

    one, two = (Wording.of(model, pair, text) for text in pair.wordings)
    scores = rankings(one.run, [(one.source, word) for word in one.later])
    scores["swap"], _ = one.moved([one.row([word]) for word in one.later])
    carried = [one.carried_over(two, word) for word in one.later]
    chosen = {name: carried[int(np.argmax(score))] for name, score in scores.items()} | {"last word": two.later[-1]}
    best, first = chosen["swap"], two.later.start
    both = sorted({carried[at] for at in np.argsort(scores["swap"])[-2:]})
    rest = [word for word in two.later if word != best]
    rows = [two.row(words) for words in (two.later, both, rest, *([word] for word in two.later))]
    drawn = [equal_norm(two.values, nulls, number) for number in range(NULLS)]
    words = [found for word in others if (found := other_values(two, word, pair.answers[1])) is not None][:OTHER_WORDS]
    moved, flips = two.moved([*rows, *(two.row([best], values) for values in (*drawn, *words))])
    whole, n = moved[0], len(rows)
    if whole < LEAST:
        raise Dropped(f"all edges together move less than {LEAST} nats")
    shares = [value / whole for value in moved]
    edges = two.run.edges()
    of_all, proven = rankings(two.run, edges), (two.source, first + int(np.argmax(moved[3:n])))
    mine = [edges.index((two.source, word)) for word in two.later]
    here = {name: int(np.argmax(np.take(score, mine))) for name, score in of_all.items()}
    return {
        "kind": pair.kind, "words": pair.words, "aligned": one.aligned or two.aligned, "edges": len(two.later),
        "destination": two.run.texts[best], "whole": whole, "whole_flips": flips[0],
        "two": shares[1], "two_flips": flips[1], "rest": shares[2], "rest_flips": flips[2],
        "shares": shares[3:n], "flips": flips[3:n], "null": shares[n : n + NULLS], "other_words": shares[n + NULLS :],
        "chosen": {name: word - first for name, word in chosen.items()},
        "chosen_here": here | {"swap": proven[1] - first, "last word": len(two.later) - 1},
        "carried": [word - first for word in carried], "edges_of_all": len(edges),
        "rank_of_all": {name: rank_of(score, edges.index(proven)) for name, score in of_all.items()},
    }  # fmt: skip


def rank_of(scores: Sequence[float], at: int) -> float:
    """Return the place of a score among all, the largest first; of equal ones the mean place."""
    values = np.asarray(scores)
    return 0.5 + float((values > values[at]).sum()) + float((values == values[at]).sum()) / 2


def says(token: str, answers: Sequence[str]) -> bool:
    """Return True for a token that begins one of some answers."""
    return bool(token.strip()) and any(answer.startswith(token.strip()) for answer in answers)


def other_values(wording: Wording, word: str, answers: Sequence[str]) -> "Values | None":
    """Return the values of another word in a wording; None where it is shorter, or leads to one of the answers."""
    from interp.models.adapter import token_text
    from interp.routes.swap import values_of, with_word

    other, theirs, _ = with_word(wording.run, wording.source, word)
    n = len(next(iter(wording.values.values())))
    if says(token_text(other.model, int(other.log_probs.argmax())), answers) or len(theirs) < n:
        return None
    return values_of(other, range(theirs.stop - n, theirs.stop))


def false_words(reader: "LostWords", texts: Sequence[str], seed: int, *, idle: bool) -> list[Row]:
    """Return random edges in random windows of layers: strength of what they take, its null, and the words read.

    One of each text, or with `idle` those without effect among `IDLE_EDGES` of each.
    """
    from interp.models.adapter import to_tokens
    from interp.routes.carried import LostBy, layer_windows, lost_by_cuts
    from interp.routes.cut import Cut, clean_run, cut_effects
    from interp.seeds import make_generator

    model = reader.model
    windows, rows, drawn = layer_windows(model.cfg.n_layers), list[Row](), IDLE_EDGES if idle else 1
    for number, text in enumerate(texts):
        run, draw = clean_run(model, to_tokens(model, text)), make_generator(seed, "false words", number)
        edges = [run.edges()[i] for i in torch.randperm(len(run.edges()), generator=draw)[:drawn].tolist()]
        if idle:
            cuts = cut_effects(run, [Cut((run.positions(*edge),)) for edge in edges])
            pairs = zip(edges, cuts, strict=True)
            edges = [edge for edge, cut in pairs if abs(cut.effect) < NO_EFFECT and cut.kl < NO_KL]
        if not edges:
            continue
        within = [windows[int(torch.randint(len(windows), (1,), generator=draw))] for _ in edges]
        lost = lost_by_cuts(run, [LostBy((s,), d, *w) for (s, d), w in zip(edges, within, strict=True)])
        for (_, last), difference in zip(within, lost, strict=True):
            null, strongest = reader.null[reader.window(last)], reader.strongest(last, difference)
            rows.append({"strength": strongest[0][1], "null": null, "words": reader.words(strongest, null)})
    return rows


def others_of(pair: Pair, pairs: Sequence[Pair]) -> list[str]:
    """Return the words of other pairs that share a wording with a pair."""
    alike = [each for each in pairs if each != pair and {*each.wordings} & {*pair.wordings}]
    return sorted({word for each in alike for word in each.words} - {*pair.words})


def measure_model(spec: str, workspace: Path | None) -> Row:
    """Return all rows of a model, the reasons of dropped pairs, and false words."""
    from interp.models.adapter import untrained_model
    from interp.models.loading import load_model
    from interp.routes.carried import LostWords

    model, pairs, rows, dropped = load_model(spec), read_pairs(), list[Row](), Counter[str]()
    reader = LostWords.of(model, lens_of(model, workspace))
    for number, pair in enumerate(pairs):
        try:
            rows.append(measure(model, pair, reader.texts, others_of(pair, pairs)))
        except Dropped as reason:
            dropped[f"{pair.kind}: {reason}"] += 1
        print(f"{spec} {number + 1} of {len(pairs)}: {pair.words}", file=sys.stderr, flush=True)
    texts = [pair.wordings[1].replace("{}", pair.words[0]) for pair in pairs]
    idle, false = false_words(reader, texts, 0, idle=True), list[Row]()
    for seed in range(UNTRAINED):
        false += false_words(LostWords.of(untrained_model(model, seed), None), texts, seed, idle=False)
    return {"model": spec, "rows": rows, "dropped": dropped, "lens": reader.how, "idle": idle, "untrained": false}


def lens_of(model: "HookedModel", workspace: Path | None) -> Any:
    """Return the Jacobian lens of a model in a workspace; None for the logit lens."""
    if workspace is None:
        return None
    from interp.lenses.jacobian_lens import JacobianLens
    from interp.lenses.lens import newest_lens
    from interp.models.identity import weight_hash
    from interp.workspace import Workspace

    return newest_lens(Workspace(workspace), JacobianLens, weight_hash(model))
