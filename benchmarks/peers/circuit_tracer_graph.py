"""Attribution graph by circuit-tracer, timed. Runs in its environment; `against_circuit_tracer` starts it.

    python -m benchmarks.peers.circuit_tracer_graph MODEL SET SETTINGS

MODEL is a folder of a Llama model, SET one of JumpReLU transcoders without skip connections. SETTINGS is JSON: `tokens,
rows, batch, threads`. Prints JSON: `seconds, cpu, rows, active`. The set is read by hand, since circuit-tracer's loader
knows no thresholds per layer; its classes do.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from circuit_tracer import attribute
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from safetensors.torch import load_file
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained import weight_conversions

HOOKS = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}


def read_set(folder: Path, n_layers: int) -> TranscoderSet:
    layers = {}
    for layer in range(n_layers):
        tensors = load_file(folder / f"layer_{layer}.safetensors")
        threshold = tensors["activation_function.threshold"]
        d_sae, d_model = tensors["W_enc"].shape
        transcoder = SingleLayerTranscoder(d_model, d_sae, JumpReLU(threshold), layer, False, dtype=torch.float32)
        with torch.no_grad():
            for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
                getattr(transcoder, name).copy_(tensors[name])
        layers[layer] = transcoder
    return TranscoderSet(layers, **HOOKS)


def read_model(folder: Path) -> TransformerLensReplacementModel:
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("quantization_config", None)  # null, which this version of transformers does not expect
    theta = settings.pop("rope_parameters")["rope_theta"]
    has = transformers.LlamaConfig(**settings, rope_theta=theta, attn_implementation="eager")
    plain = transformers.LlamaForCausalLM.from_pretrained(folder, config=has, dtype=torch.float32)
    config = HookedTransformerConfig(
        d_model=has.hidden_size, d_head=has.hidden_size // has.num_attention_heads, n_heads=has.num_attention_heads,
        n_layers=has.num_hidden_layers, n_ctx=512, d_vocab=has.vocab_size, d_mlp=has.intermediate_size, act_fn="silu",
        normalization_type="RMS", eps=has.rms_norm_eps, positional_embedding_type="rotary",
        rotary_dim=has.hidden_size // has.num_attention_heads, rotary_base=int(theta), rotary_adjacent_pairs=False,
        gated_mlp=True, final_rms=True, n_key_value_heads=has.num_key_value_heads, device="cpu", dtype=torch.float32,
        default_prepend_bos=False, original_architecture="LlamaForCausalLM", model_name="model",
        tokenizer_name=str(folder),
    )  # fmt: skip
    special = {f"{name}_token": "<|im_start|>" for name in ("bos", "eos", "unk", "pad")}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
    saved = tempfile.mkdtemp()  # TransformerLens reads the tokenizer again, by its path
    fast.save_pretrained(saved)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    model = TransformerLensReplacementModel(config, tokenizer)
    model.load_state_dict(weight_conversions.convert_llama_weights(plain.eval(), config), strict=False)
    tokens = torch.arange(1, 17)[None]
    with torch.no_grad():
        off = float((model(tokens) - plain(tokens).logits).abs().max())
    assert off < 1e-2, f"TransformerLens' logits differ from transformers' by {off:.1e}"
    return model


def main() -> None:
    folder, transcoders, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(settings["threads"])
    model = read_model(folder)
    model._configure_replacement_model(read_set(transcoders, model.cfg.n_layers))
    start, cpu = time.perf_counter(), time.process_time()
    graph = attribute(
        torch.tensor(settings["tokens"]), model.eval(), batch_size=settings["batch"], max_n_logits=10,
        max_feature_nodes=settings["rows"],
    )  # fmt: skip
    measures = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print(json.dumps(measures | {"rows": len(graph.selected_features), "active": len(graph.active_features)}))


if __name__ == "__main__":
    main()
