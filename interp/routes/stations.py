"""Stations: layers in which the MLPs at a word add to the answer (Geva et al. 2023, arXiv 2304.14767, section 5).

The MLPs of a word in a window of layers give their mean outputs over unrelated texts instead. The effect is the fall of
the answer's log-probability, and what the residual after the window loses is read as words, beside MLPs replaced at
words of the unrelated texts. Early layers mostly restate their token: a station says whether the embedding of the token
alone gives the same word through the lens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.models.hooked import Hook
from interp.models.passes import storing_hook
from interp.routes.carried import DRAWN_EDGES, LostWords, Rows, layer_windows, setting
from interp.routes.cut import CleanRun, Done, Layers, kept_before, passes_of, run_rows
from interp.routes.routes import FLOOR, Station
from interp.seeds import make_generator

Replaced = tuple[int, int, int]
"""Number of a word, first and last layer."""


@torch.no_grad()
def stations(
    run: CleanRun, words: Sequence[int], reader: LostWords, done: Done | None = None
) -> dict[int, tuple[Station, ...]]:
    """Return the stations of some words that have an effect of `FLOOR`, the strongest first; `reader` names words."""
    replaced = [(word, first, last) for word in words for first, last in layer_windows(run.n_layers)]
    by_word: dict[int, list[Station]] = {word: [] for word in words}
    if not reader.mean_mlp:
        return dict.fromkeys(words, ())
    effects, lost = without_mlps(run, replaced, reader.mean_mlp, done)
    strong = [row for row, effect in enumerate(effects) if abs(effect) >= FLOOR]
    null = _null(reader) if strong else {}
    for row in strong:
        word, first, last = replaced[row]
        read = reader.words(reader.strongest(last, lost[row]), null[first, last])
        alone = reader.strongest(-1, run.resid(0)[0, run.words[word].stop - 1]) if read else []
        restates = bool({*read} & {*reader.words(alone, 0.0)})
        by_word[word].append(Station(first=first, last=last, effect=effects[row], words=read, restates=restates))
    return {word: tuple(sorted(places, key=lambda station: -abs(station.effect))) for word, places in by_word.items()}


def _null(reader: LostWords) -> dict[Layers, float]:
    """Return the null of the words of stations, by window, from random words of the unrelated texts; kept."""
    if reader.null_of_mlps is None:
        windows, lost = layer_windows(reader.model.cfg.n_layers), list[Rows]()
        for number, text in enumerate(reader.texts):
            draw = make_generator(number, "unrelated words")
            words = torch.randperm(len(text.words), generator=draw)[:DRAWN_EDGES].tolist()
            lost.append(
                without_mlps(text, [(word, *window) for window in windows for word in words], reader.mean_mlp)[1]
            )
        reader.null_of_mlps = reader.reached_by_mixtures(windows, lost)
    return reader.null_of_mlps


@torch.no_grad()
def without_mlps(
    run: CleanRun, replaced: Sequence[Replaced], means: dict[int, Tensor], done: Done | None = None
) -> tuple[list[float], Rows]:
    """Return the effects on the answer, and what the last position of each word loses after the last layer."""
    effects, lost = [0.0] * len(replaced), torch.zeros(len(replaced), run.model.cfg.d_model)
    for rows in passes_of(run, [(run.words[word].start, first) for word, first, _ in replaced]):
        chosen = [replaced[row] for row in rows]
        start = kept_before(run, min(run.words[word].start for word, _, _ in chosen))
        store: dict[str, Tensor] = {}
        hooks: list[tuple[str, Hook]] = []
        for at, (word, first, last) in enumerate(chosen):
            layers = range(first, last + 1)
            span = run.words[word]
            hooks += [(f"blocks.{k}.hook_mlp_out", setting(span, start, means[k], [at])) for k in layers]
        points = {f"blocks.{last}.hook_resid_post" for _, _, last in chosen}
        hooks += [(point, storing_hook(store, point)) for point in points]
        changed = run_rows(run, len(rows), hooks, first=start, layer=min(first for _, first, _ in chosen))
        for at, (row, (word, _, last)) in enumerate(zip(rows, chosen, strict=True)):
            point, end = f"blocks.{last}.hook_resid_post", run.words[word].stop - 1
            effects[row] = float(run.log_probs[run.answer] - changed[at, run.answer])
            lost[row] = run.values[point][0, end] - store[point][at, end - start]
        if done:
            done(len(rows) * (run.tokens.shape[1] - start))
    return effects, lost
