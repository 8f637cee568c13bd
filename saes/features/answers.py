"""Single answers about a feature, each with its controls: for the dashboard and for agents.

`saes.features.measure_proof` makes the same measurements on more text, and with more null directions.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.interventions.site import DictionarySite, continuations, effects_of
from interp.models.adapter import token_strings
from saes.features.measure_proof import ablation_changes, with_bos
from saes.features.proof import AblatedExample, FeatureCase, ListsApart, ProofConfig, SteeredRow, TextFirings

if TYPE_CHECKING:
    from interp.geometry.words import WordActivations

LIVE_DRAWS, LIVE_EXAMPLES, MOVED = 5, 4, 5
"""Directions of each null, examples, and tokens shown."""


@torch.no_grad()
def feature_on_text(site: DictionarySite, case: FeatureCase, tokens: Tensor) -> TextFirings:
    """Return the activation of a feature on every token of `tokens [1, pos]`, and firings of others of like density."""
    acts = site.activations(site.read(tokens).x, [case.feature, *case.alike])[0]
    firing = (acts[:, 1:] > 0).sum(0).tolist()
    return TextFirings(token_strings(site.model, tokens[0]), acts[:, 0].tolist(), firing)


def lists_apart(site: DictionarySite, feature: int, lists: "dict[str, WordActivations]") -> ListsApart:
    """Return which lists of words (`read_lists`) the direction of a feature sets apart, against random directions."""
    from interp.geometry.separation import words_along

    found = words_along(lists, site.stream, site.directions[feature].double().cpu().numpy())
    return ListsApart(str(found), found.hook_point, found.alpha, found.n_random, list(found.set_apart),
                      found.to_records())  # fmt: skip


@torch.no_grad()
def compare_steering(
    site: DictionarySite, case: FeatureCase, tokens: Tensor, strength: float, n_new: int, seed: int = 0
) -> list[SteeredRow]:
    """Continue `tokens [1, pos]` unchanged, steered, and steered along one direction of each null."""
    alike = case.alike[:1]
    directions = site.nulls(case.feature, alike, 1, seed)
    texts = continuations(site, tokens, strength, directions, n_new)
    both = torch.cat([torch.zeros_like(directions[:1]), directions])
    amounts = torch.full(tokens.shape, strength, device=tokens.device)

    def next_token(logits: Tensor) -> Tensor:
        return logits[:, 0, -1].float().log_softmax(-1)

    log_p = effects_of(site, site.read(tokens), amounts, both, next_token, first=-1)
    p = log_p.exp()
    names = ["unchanged", "feature", "random direction", *(f"feature {each}" for each in alike)]
    rows = []
    for name, text, after, log_after in zip(names, texts, p, log_p, strict=True):
        order = (after - p[0]).abs().topk(MOVED).indices.tolist() if name != "unchanged" else []
        moved = [
            (word, float(p[0, token]), float(after[token]))
            for word, token in zip(token_strings(site.model, order), order, strict=True)
        ]
        rows.append(SteeredRow(name, text, float((p[0] * (log_p[0] - log_after)).sum()), moved))
    return rows


@torch.no_grad()
def compare_ablation(
    site: DictionarySite,
    case: FeatureCase,
    config: ProofConfig,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> list[AblatedExample]:
    """Ablate a feature on its strongest examples, and subtract directions of both nulls in the same amounts."""
    directions = site.nulls(case.feature, case.alike[:LIVE_DRAWS], LIVE_DRAWS, seed)
    found = []
    for each in case.strongest(LIVE_EXAMPLES):
        tokens, _, _ = with_bos(site.model, [each])
        acts = site.activations(site.read(tokens).x, [case.feature])[0, site.first :, 0]
        change = -ablation_changes(site, [each], case.feature, directions, done)[..., 0]
        at = each.peak + site.first
        means = change[:, 0, at : at + config.after].mean(1).tolist()
        words = token_strings(site.model, list(each.token_ids))
        found.append(
            AblatedExample(words, acts.tolist(), each.peak, each.document, means[0],
                           means[1 : 1 + LIVE_DRAWS], means[1 + LIVE_DRAWS :])
        )  # fmt: skip
    return found
