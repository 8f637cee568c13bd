"""What single heads do for a task, by transformers and forward hooks alone: no line is shared with the library.

Two classical measures of a Llama-shaped model (Wang et al. 2022, sections 3.1 and 3.2), for prompts padded on the
right whose answer is read at position `at [n]`:

    direct effect      what a head itself adds to logit(correct) - logit(wrong), the final norm's scale as it was
    resampled effect   how far the logit difference falls when the head's output is that of the corrupted prompt, at
                       all positions, everything after it recomputed
"""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


def load_plain(gguf: Path):
    """The transformers model of a .gguf file, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()


@contextmanager
def _at_output_projections(model, hook):
    """`hook(layer, z [n, pos, n_heads * d_head])` before every output projection; what it returns replaces z."""

    def of_layer(layer):
        return lambda module, args: hook(layer, args[0])

    handles = [
        block.self_attn.o_proj.register_forward_pre_hook(of_layer(i)) for i, block in enumerate(model.model.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(model, tokens):
    """(`z` per layer, the stream before every layer and the last one, before the final norm)."""
    outputs, streams = [], []
    handle = model.model.norm.register_forward_pre_hook(lambda module, args: streams.append(args[0]))
    befores = [
        block.register_forward_pre_hook(lambda module, args, kwargs: streams.append(args[0]), with_kwargs=True)
        for block in model.model.layers
    ]
    with _at_output_projections(model, lambda layer, z: outputs.append(z)):
        model(tokens, use_cache=False, logits_to_keep=1)
    for each in (handle, *befores):
        each.remove()
    return outputs, streams


def _difference(model, stream, at, correct, wrong):
    """`[n]` logit(correct) - logit(wrong) at `at`, of the stream before the final norm."""
    last = model.model.norm(stream[torch.arange(len(stream)), at])
    return (last * (model.lm_head.weight[correct] - model.lm_head.weight[wrong])).sum(-1)


@torch.no_grad()
def direct_effects(model, tokens: Tensor, at: Tensor, correct: Tensor, wrong: Tensor) -> Tensor:
    """`[n_layers, n_heads]`, mean over prompts, in logits."""
    outputs, streams = _run(model, tokens)
    rows, norm = torch.arange(len(tokens)), model.model.norm
    final = streams[-1][rows, at]
    scale = (final.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    direction = (model.lm_head.weight[correct] - model.lm_head.weight[wrong]) * norm.weight / scale
    n_heads = model.config.num_attention_heads
    effects = []
    for block, z in zip(model.model.layers, outputs, strict=True):
        read = (direction @ block.self_attn.o_proj.weight).unflatten(-1, (n_heads, -1))
        effects.append((z[rows, at].unflatten(-1, (n_heads, -1)) * read).sum(-1).mean(0))
    return torch.stack(effects)


@torch.no_grad()
def resampled_effects(
    model,
    clean: Tensor,
    corrupt: Tensor,
    at: Tensor,
    correct: Tensor,
    wrong: Tensor,
    layers: Sequence[int] | None = None,
) -> Tensor:
    """`[n_layers, n_heads]`, mean over prompts, in logits: all heads of a layer at once, each in rows of its own.

    `layers` asks for some of them only.
    """
    n_heads, n = model.config.num_attention_heads, len(clean)
    _, streams = _run(model, clean)
    other, _ = _run(model, corrupt)
    positions = torch.arange(clean.shape[1])[None]
    rotation = model.model.rotary_emb(streams[0], positions)
    before = _difference(model, streams[-1], at, correct, wrong)
    effects = []
    for start in range(len(model.model.layers)) if layers is None else layers:

        def swap(layer, z, start=start):
            if layer != start:
                return None
            z = z.unflatten(-1, (n_heads, -1)).unflatten(0, (n_heads, n)).clone()
            theirs = other[layer].unflatten(-1, (n_heads, -1))
            for head in range(n_heads):
                z[head, :, :, head] = theirs[:, :, head]
            return z.flatten(0, 1).flatten(-2)

        stream = streams[start].repeat(n_heads, 1, 1)
        with _at_output_projections(model, swap):
            for block in model.model.layers[start:]:
                stream = block(stream, attention_mask=None, position_ids=positions, position_embeddings=rotation)
        wide = (each.repeat(n_heads) for each in (at, correct, wrong))
        after = _difference(model, stream, *wide).unflatten(0, (n_heads, n))
        effects.append((before - after).mean(1))
    return torch.stack(effects)
