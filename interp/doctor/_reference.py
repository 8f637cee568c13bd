"""Transformers alone: the same files read once more, without hooks, in float32 on the CPU."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import UnknownNameError, WorkbenchError
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec


@dataclass(frozen=True)
class Reference:
    """A model of transformers that nothing of ours has touched."""

    plain: Any
    tokenizer: Any
    """as its author has it; None for a model without one"""

    @torch.no_grad()
    def run(self, tokens: Tensor, **options: Any) -> Any:
        """Return the output of transformers for `tokens [1, pos]`."""
        return self.plain(input_ids=tokens.cpu(), use_cache=False, **options)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return logits `[1, pos, d_vocab]` float32."""
        return self.run(tokens).logits

    @torch.no_grad()
    def continued(self, tokens: Tensor, n: int) -> list[int]:
        """Return the `n` most likely tokens after `tokens [1, pos]`, by transformers' own generation."""
        plain, tokens = self.plain, tokens.cpu()
        written = plain.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, min_new_tokens=n, do_sample=False,
            num_beams=1, pad_token_id=0,
        )  # fmt: skip
        return written[0, tokens.shape[1] :].tolist()


def reference_of(model: HookedModel, plain: nn.Module | None = None) -> tuple[Reference | None, str]:
    """Return the reference of a model, or None with the reason. `plain` is a module to take instead of its files."""
    if plain is not None:
        return Reference(plain.eval(), None), ""
    from interp.models.loading import read_plain

    spec = model_spec(model)
    try:
        pair = read_plain(spec)
    except UnknownNameError:
        return None, "it was made in memory, so it cannot be read again from files"
    except WorkbenchError as error:
        return None, f"no other program runs {spec}: {error}"
    if pair is None:
        return None, f"{spec} is a small model of the workbench's own, which no other program runs"
    module, tokenizer = pair
    return Reference(module.to(device="cpu", dtype=torch.float32).eval(), tokenizer), ""
