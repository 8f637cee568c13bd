"""Healthy set-ups for the doctor: tiny random models of ten families as folders that transformers wrote."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from interp.doctor._prompts import PROMPTS
from interp.models.loading import quiet_transformers
from interp.text.passages import PASSAGES

COMMON = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 300,
    "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 128,
}  # fmt: skip
GROUPED = {**COMMON, "num_key_value_heads": 2}
GEMMA = {
    **GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {
        "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": 300, "bos_token_id": 0,
        "eos_token_id": 1,
    }),
    "pythia": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**COMMON, "rotary_pct": 0.5}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 16}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {
        **GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0,
    }),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA),
    "opt": ("OPTForCausalLM", "OPTConfig", {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 300,
        "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 128, "word_embed_proj_dim": 32,
    }),
    "phi": ("PhiForCausalLM", "PhiConfig", {**COMMON, "partial_rotary_factor": 0.5}),
}  # fmt: skip


@cache
def tokenizer() -> Any:
    """Return a byte-level tokenizer of 300 tokens with BOS and EOS, trained on the doctor's own texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [*PASSAGES, *PROMPTS], vocab_size=300, special_tokens=["<s>", "</s>"], show_progress=False
    )
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>")


def write_family(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a random model of a family, its weights large enough that attention is not flat."""
    import transformers

    architecture, config, options = FAMILIES[name]
    with quiet_transformers():
        plain = getattr(transformers, architecture)(getattr(transformers, config)(**options)).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in plain.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim > 1:
                    parameter.copy_(noise * (0.6 if "embed" in key or "wte" in key or "wpe" in key else 0.25))
                elif "weight" in key:
                    parameter.copy_(("gemma" not in name) + 0.2 * noise)  # Gemma stores the gain - 1
                else:
                    parameter.copy_(0.3 * noise)
        plain.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder
