"""Attribution graphs by circuit-tracer. Run where `pip install circuit-tracer==0.5.0` was.

    python tests/oracles/circuit_tracer_graphs.py OUT          score random matrices, trace random models
    python tests/oracles/circuit_tracer_graphs.py OUT --read   parse the graph JSON that we wrote beside its own

Models are random Llama, GPT-2 and Gemma 2, saved as transformers save them, so that both tools load the same weights.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from circuit_tracer import attribute
from circuit_tracer.attribution.targets import LogitTarget
from circuit_tracer.frontend.graph_models import Model
from circuit_tracer.graph import (
    Graph,
    compute_edge_influence,
    compute_graph_scores,
    compute_node_influence,
    prune_graph,
)
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet, load_transcoder_set
from circuit_tracer.utils.create_graph_files import create_graph_files
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained import weight_conversions

D_MODEL, D_SAE, N_LAYERS, VOCABULARY = 32, 48, 3, 50
PROMPT = [0, 7, 21, 3, 44, 12]
MLP = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}
RESIDUAL = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
"""Of a model with post-norms, `mlp.hook_out` lies before that norm and `hook_mlp_out` after it."""
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
COMMON = {
    "d_model": D_MODEL, "d_head": 8, "n_heads": 4, "n_layers": N_LAYERS, "n_ctx": 64, "d_vocab": VOCABULARY,
    "device": "cpu", "default_prepend_bos": False, "dtype": torch.float32,
}  # fmt: skip
ROTARY = {
    "d_mlp": 64, "normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": 8,
    "rotary_adjacent_pairs": False, "gated_mlp": True, "final_rms": True, "n_key_value_heads": 2,
}  # fmt: skip


def configs(name: str) -> tuple[object, dict, object]:
    """The transformers config, TransformerLens' config and its conversion of the weights."""
    if name == "llama":
        ours = ROTARY | {"act_fn": "silu", "eps": 1e-6, "original_architecture": "LlamaForCausalLM"}
        config = transformers.LlamaConfig(**SIZES, rms_norm_eps=1e-6, tie_word_embeddings=False)
        return config, ours, weight_conversions.convert_llama_weights
    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=4, n_positions=64
        )
        ours = {"d_mlp": 4 * D_MODEL, "act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-5}
        return config, ours | {"original_architecture": "GPT2LMHeadModel"}, weight_conversions.convert_gpt2_weights
    gemma = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64, "attn_logit_softcapping": 5.0}
    config = transformers.Gemma2Config(**SIZES, **gemma, final_logit_softcapping=10.0)
    ours = ROTARY | {
        "act_fn": "gelu_pytorch_tanh", "eps": 1e-6, "use_normalization_before_and_after": True, "window_size": 64,
        "use_local_attn": True, "attn_types": ["global", "local", "global"], "attn_scores_soft_cap": 5.0,
        "output_logits_soft_cap": 10.0, "attn_scale": 8**0.5, "original_architecture": "Gemma2ForCausalLM",
    }  # fmt: skip
    return config, ours, weight_conversions.convert_gemma_weights


def random_model(name: str, seed: int, folder: Path) -> tuple[torch.nn.Module, dict, object]:
    """A model whose attention is not flat, with gains and biases that matter, saved with a tokenizer."""
    config, ours, convert = configs(name)
    config.bos_token_id = config.eos_token_id = 0
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (0.6 if "embed" in key or "wte" in key or "wpe" in key else 0.25))
            else:
                parameter.copy_((name != "gemma2" and "weight" in key) + 0.2 * noise)
    model.save_pretrained(folder)
    words = {"<s>": 0} | {f"t{i}": i for i in range(1, VOCABULARY)}
    plain = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "<s>", "unk_token": "<s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    return model, ours | {"model_name": name, "tokenizer_name": str(folder)}, convert


def replaced(name: str, seed: int, folder: Path, transcoders: object) -> TransformerLensReplacementModel:
    plain, ours, convert = random_model(name, seed, folder)
    config = HookedTransformerConfig(**COMMON, **ours)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = TransformerLensReplacementModel(config, tokenizer)
    model.load_state_dict(convert(plain, config), strict=False)
    tokens = torch.tensor([PROMPT])
    off = float((model(tokens) - plain(tokens).logits).abs().max())
    assert off < 1e-4, f"{name}: TransformerLens' logits differ from transformers' by {off:.1e}"
    model._configure_replacement_model(transcoders)
    return model.eval()


def per_layer(folder: Path, seed: int, *, jump: bool = True, skip: bool = False, hooks: dict = MLP) -> TranscoderSet:
    """Random transcoders of every layer, saved and read back by circuit-tracer's own code."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(N_LAYERS):
        threshold = torch.rand(D_SAE, generator=g) * 0.5
        one = SingleLayerTranscoder(
            D_MODEL, D_SAE, JumpReLU(threshold) if jump else torch.nn.functional.relu, layer, skip, dtype=torch.float32
        )
        with torch.no_grad():
            for parameter, scale in ((one.W_enc, 0.3), (one.b_enc, 0.3), (one.W_dec, 0.3), (one.b_dec, 0.5)):
                parameter.copy_(torch.randn(parameter.shape, generator=g) * scale)
            one.b_enc -= 1.5
            if skip:
                one.W_skip.copy_(torch.randn(D_MODEL, D_MODEL, generator=g) * 0.2)
        found[layer] = one
    TranscoderSet(found, **hooks).to_safetensors(str(folder))
    paths = {layer: str(folder / f"layer_{layer}.safetensors") for layer in range(N_LAYERS)}
    return load_transcoder_set(paths, "random", **hooks, device=torch.device("cpu"))


def cross_layer(folder: Path, seed: int, *, jump: bool, hooks: dict = MLP) -> CrossLayerTranscoder:
    g = torch.Generator().manual_seed(seed)
    kind = "jump_relu" if jump else "relu"
    one = CrossLayerTranscoder(
        N_LAYERS, D_SAE, D_MODEL, activation_function=kind, lazy_decoder=False, dtype=torch.float32, **hooks
    )
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)
        one.b_enc -= 1.5
        if jump:
            one.activation_function.threshold.copy_(torch.rand(N_LAYERS, 1, D_SAE, generator=g) * 0.5)
    one.to_safetensors(str(folder))
    return load_clt(str(folder), **hooks, scan="random", dtype=torch.float32, device=torch.device("cpu"))


CASES = {
    "llama-relu": ("llama", lambda at: per_layer(at, 1, jump=False)),
    "llama-skip": ("llama", lambda at: per_layer(at, 2, skip=True)),
    "gpt2-jumprelu": ("gpt2", lambda at: per_layer(at, 3)),
    "gpt2-clt": ("gpt2", lambda at: cross_layer(at, 4, jump=False)),
    "gpt2-residual-clt": ("gpt2", lambda at: cross_layer(at, 7, jump=False, hooks=RESIDUAL)),
    "gemma2-jumprelu": ("gemma2", lambda at: per_layer(at, 5)),
    "gemma2-clt": ("gemma2", lambda at: cross_layer(at, 6, jump=True)),
    "gemma2-residual": ("gemma2", lambda at: per_layer(at, 8, hooks=RESIDUAL)),
}


def trace_random_models(out: Path) -> None:
    for number, (case, (name, make)) in enumerate(CASES.items()):
        folder = out / "graphs" / case
        transcoders = make(folder / "transcoders")
        about = {
            "model_name": name, "layers": list(range(N_LAYERS)),
            "model_kind": "cross_layer_transcoder" if case.endswith("clt") else "transcoder_set",
        } | {hook: getattr(transcoders, hook) for hook in MLP}  # fmt: skip
        text = "".join(f"{key}: {value}\n" for key, value in about.items())
        (folder / "transcoders" / "config.yaml").write_text(text)
        model = replaced(name, 100 + number, folder / "model", transcoders)
        graph = attribute(torch.tensor(PROMPT), model, batch_size=16, max_n_logits=5)
        graph.scan = "random"
        create_graph_files(graph, case, str(folder / "json"))
        kept, arithmetic = describe(graph)
        save_file(
            arithmetic | {
                "features": graph.active_features[graph.selected_features].long().contiguous(),
                "activations": graph.activation_values[graph.selected_features].contiguous(),
                "targets": graph.logit_token_ids, "prompt": torch.tensor(PROMPT),
            },
            folder / "graph.safetensors",
        )  # fmt: skip
        print(f"{case}: {len(graph.selected_features)} latents, {kept} nodes kept, by circuit-tracer")


def describe(graph: Graph, node_share: float = 0.8, edge_share: float = 0.98) -> tuple[int, dict[str, torch.Tensor]]:
    """Adjacency matrix, influence, masks, shares, edge scores of the pruned matrix, and scores of a graph."""
    weights = torch.zeros(len(graph.adjacency_matrix))
    weights[-len(graph.logit_probabilities) :] = graph.logit_probabilities
    influence = compute_node_influence(graph.adjacency_matrix, weights)
    pruned = prune_graph(graph, node_share, edge_share)
    sizes = [len(graph.selected_features), graph.cfg.n_layers * graph.n_pos, graph.n_pos, len(weights)]
    return int(pruned.node_mask.sum()), {
        "adjacency": graph.adjacency_matrix.contiguous(), "weights": weights, "influence": influence,
        "nodes": pruned.node_mask.clone(), "edges": pruned.edge_mask.contiguous(), "share": pruned.cumulative_scores,
        "edge_scores": compute_edge_influence(graph.adjacency_matrix, weights).contiguous(),
        "scores": torch.tensor(compute_graph_scores(graph), dtype=torch.float64), "sizes": torch.tensor(sizes),
        "thresholds": torch.tensor([node_share, edge_share], dtype=torch.float64),
    }  # fmt: skip


def score_random_matrices(out: Path) -> None:
    """Sparse and dense matrices of latents in layers, errors, tokens and logits, at several thresholds."""
    for number in range(12):
        g = torch.Generator().manual_seed(number)
        n_pos, n_layers, n_logits = 4, 3, 1 + number % 3
        layer = torch.arange(n_layers).repeat_interleave(5 + 10 * (number % 4))
        latents = len(layer)
        depth = torch.cat([layer, torch.arange(n_layers).repeat_interleave(n_pos), torch.full((n_pos,), -1)])
        n = len(depth) + n_logits
        matrix = torch.zeros(n, n)
        matrix[:latents, : len(depth)] = (layer[:, None] > depth).float()
        matrix[-n_logits:, : len(depth)] = 1
        matrix *= torch.randn(n, n, generator=g).exp() * torch.randn(n, n, generator=g).sign()
        matrix *= torch.rand(n, n, generator=g) < (0.2, 0.6, 1.0)[number % 3]
        config = HookedTransformerConfig(**COMMON, d_mlp=8, act_fn="relu", model_name="x", tokenizer_name="x")
        config.n_layers, config.original_architecture = n_layers, "x"
        graph = Graph(
            input_string="", input_tokens=torch.zeros(n_pos), adjacency_matrix=matrix, cfg=config,
            active_features=torch.zeros(latents, 3), selected_features=torch.arange(latents),
            activation_values=torch.ones(latents), logit_targets=[LogitTarget("", i) for i in range(n_logits)],
            logit_probabilities=torch.rand(n_logits, generator=g) / n_logits, scan="x",
        )  # fmt: skip
        shares = ((0.8, 0.98), (0.5, 0.9), (0.95, 0.8))[number % 3]
        save_file(describe(graph, *shares)[1], out / f"arithmetic_{number}.safetensors")


def read_ours(out: Path) -> None:
    """Parse the graph JSON that we wrote, as the viewer's server does."""
    for path in sorted((out / "graphs").glob("*/ours.json")):
        graph = Model(**json.loads(path.read_text()))
        theirs = json.loads((path.parent / "json" / f"{path.parent.name}.json").read_text())
        assert sorted(node.jsNodeId for node in graph.nodes) == sorted(node["jsNodeId"] for node in theirs["nodes"])
        assert len(graph.links) == len(theirs["links"])
        print(f"{path.parent.name}: circuit-tracer reads our JSON: {len(graph.nodes)} nodes, {len(graph.links)} links")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    if "--read" in sys.argv:
        read_ours(root)
    else:
        (root / "graphs").mkdir(parents=True, exist_ok=True)
        score_random_matrices(root)
        trace_random_models(root)
