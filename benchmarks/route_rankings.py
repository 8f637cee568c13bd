"""Rankings of edges of attention between words: by cuts, by attention, by rollout, by contributions.

Each scores edges of a prompt, from one clean pass (and a pass for each cut). `benchmarks.routes` asks which of them
finds the edge that a swap proves.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interp.models.residual import ResidualStream
from interp.routes.cut import CleanRun, Cut, cut_effects


def between_words(run: CleanRun, matrix: Tensor, source: int, destination: int) -> Tensor:
    """Return `[..., q, k]` of two words: summed over tokens of the source, mean over those of the destination."""
    q, k = run.positions(source, destination)
    return matrix[..., q.start : q.stop, k.start : k.stop].sum(-1).mean(-1)


def rollout_flow(patterns: Tensor) -> Tensor:
    """Return the part of the attention rollout of the last position that leaves a source by each edge, `[q, k]`.

    `patterns [layers, heads, q, k]`. Rollout multiplies the layers' mean attention, half of it identity (Abnar and
    Zuidema 2020). A path from position k stays there, leaves by one edge at one layer, and ends at the last position:
    the flows out of k sum to the rollout from it (the last position apart).
    """
    mean = patterns.mean(1)
    eye = torch.eye(mean.shape[-1])
    mixed = 0.5 * mean + 0.5 * eye
    kept = mixed.diagonal(dim1=1, dim2=2)
    stays = torch.cat([torch.ones_like(kept[:1]), kept[:-1].cumprod(0)])
    after, flow = eye[-1], torch.zeros_like(eye)
    for layer in reversed(range(len(mean))):
        flow += after[:, None] * 0.5 * mean[layer] * stays[layer] * (1 - eye)
        after = after @ mixed[layer]
    return flow


def contributions(run: CleanRun) -> Tensor:
    """Return the share of each position in what another one is made of after attention, summed over layers, `[q, k]`.

    Terms are the residual and the weighted, projected value of each head and source, at the scale of a norm after
    attention. The share of a term is the part of the sum's L1 norm that is near it, `max(0, |y| - |y - term|)`, of that
    of all terms (Ferrando and Voita 2024). In a layer the shares of a row are at most 1 together.
    """
    stream, total = ResidualStream(run.model), torch.zeros(run.tokens.shape[1], run.tokens.shape[1])
    for layer in range(run.n_layers):
        pattern = run.values[f"blocks.{layer}.attn.hook_pattern"][0].float()
        value = run.values[f"blocks.{layer}.attn.hook_v"][0].float()
        value = value.repeat_interleave(len(pattern) // value.shape[1], 1)
        scale = stream.write_scale(layer, torch.einsum("hqk,khd->qhd", pattern, value))
        projected = torch.einsum("khd,hdm->hkm", value, stream.W_write(layer).float())
        for q in range(len(total)):
            terms = pattern[:, q, :, None] * projected / (1 if scale is None else scale[q])
            residual = run.resid(layer)[0, q].float()
            bias = stream.write_bias(layer, None if scale is None else scale[q])
            y = residual + terms.sum((0, 1)) + (0 if bias is None else bias)
            near = [(y.abs().sum() - (y - term).abs().sum(-1)).clamp(min=0) for term in (terms, residual)]
            total[q] += near[0].sum(0) / (near[0].sum() + near[1]).clamp(min=1e-12)
    return total


@torch.no_grad()
def rankings(run: CleanRun, edges: Sequence[tuple[int, int]]) -> dict[str, list[float]]:
    """Return by ranking the score of each edge, `(source, destination)`; they are compared with each other."""
    patterns = torch.stack([run.values[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(run.n_layers)])
    cuts = cut_effects(run, [Cut((run.positions(*edge),)) for edge in edges])

    def by(matrix: Tensor, of: Callable[[Tensor], Tensor] = torch.max) -> list[float]:
        return [float(of(between_words(run, matrix, *edge))) for edge in edges]

    return {
        "cut": [cut.effect for cut in cuts],
        "cut, KL": [cut.kl for cut in cuts],
        "attention, largest": by(patterns),
        "attention, mean": by(patterns, torch.mean),
        "rollout": by(rollout_flow(patterns.float())),
        "contributions": by(contributions(run)),
        "last word": [float(destination == len(run.words) - 1) for _, destination in edges],
    }
