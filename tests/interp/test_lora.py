"""Adapters: merged, they are the model that peft runs; trained here, peft reads them; others are refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.models.loading import adapter_of, find_source, load_model, load_tokenizer
from interp.models.lora import WEIGHTS, Lora

peft = pytest.importorskip("peft")


def folder(path, *, width: int = 16):
    """Write a tiny Llama with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=width, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", unk_token="w1").save_pretrained(path)
    return model


@pytest.fixture(scope="module", params=["merged here", "merged by peft"])
def trained(request, tmp_path_factory):
    """A base, and a LoRA whose matrices are not 0; the second one has a setting that only peft knows."""
    root = tmp_path_factory.mktemp("adapters")
    base, own = folder(root / "base"), request.param == "merged here"
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_alpha=8, use_rslora=not own)
    tuned = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    tuned.peft_config["default"].base_model_name_or_path = str(root / "base")
    tuned.save_pretrained(root / "lora")
    return root, tuned.eval()


@pytest.mark.parametrize("spec", ["{root}/base+{root}/lora", "{root}/lora"])
def test_a_merged_adapter_gives_the_logits_of_peft(trained, spec):
    root, tuned = trained
    tokens = torch.tensor([[0, 3, 7, 2, 9]])
    model = load_model(spec.format(root=root))
    with torch.no_grad():
        expected = tuned(tokens).logits
        assert (model(tokens) - expected).abs().max() < 1e-4
        plain = load_model(f"{root}/base")
        assert (plain(tokens) - expected).abs().max() > 1e-2
    from interp.models.identity import weight_hash

    assert weight_hash(model) != weight_hash(plain)
    assert load_tokenizer(spec.format(root=root)).encode_batch(["w5"])
    assert adapter_of(spec.format(root=root)) == "LORA of rank 2 on down_proj, q_proj of layers 0 to 1 (2)"
    assert not adapter_of(f"{root}/base")


def test_an_adapter_of_another_base_is_refused(trained, tmp_path):
    root, _ = trained
    folder(tmp_path / "wide", width=32)
    with pytest.raises(MismatchError, match="another base"):
        load_model(f"{tmp_path}/wide+{root}/lora")
    with pytest.raises(MissingError, match="not an adapter of peft"):
        load_model(f"{root}/base+{tmp_path}/wide")
    with pytest.raises(ConfigError, match="model of transformers"):
        find_source("small:mlp-2l+x")


def test_a_lora_trained_here_learns_and_is_read_alike_by_peft_and_without_it(tmp_path):
    plain, frozen = folder(tmp_path / "base"), folder(tmp_path / "base").state_dict()
    names = [f"model.layers.1.{name}" for name in ("self_attn.o_proj", "mlp.down_proj")]
    lora = Lora(plain, names, rank=2, alpha=8, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[0, 3, 7, 2, 9, 3, 7, 2]])
    before = plain(tokens, labels=tokens)
    optimizer = torch.optim.AdamW([factor for pair in lora.factors.values() for factor in pair], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        plain(tokens, labels=tokens).loss.backward()
        optimizer.step()
    after = plain(tokens, labels=tokens)
    assert after.loss < before.loss - 0.1, "the frozen unembedding is small: 0.2 nats are the most"
    assert all(torch.equal(value, frozen[name]) for name, value in plain.state_dict().items())
    lora.save(tmp_path / "lora", str(tmp_path / "base"))
    with torch.no_grad():
        by_peft = peft.PeftModel.from_pretrained(folder(tmp_path / "base"), tmp_path / "lora")(tokens).logits
        assert (by_peft - after.logits).abs().max() < 1e-4
        assert (load_model(str(tmp_path / "lora"))(tokens) - after.logits).abs().max() < 1e-4
    tensors = load_file(tmp_path / "lora" / WEIGHTS)
    tensors.pop(next(name for name in tensors if "lora_A" in name))
    save_file(tensors, tmp_path / "lora" / WEIGHTS)
    with pytest.raises(CorruptError, match="no pair of LoRA matrices"):
        load_model(str(tmp_path / "lora"))


def test_quantised_folders_are_refused_with_the_reason(tmp_path):
    folder(tmp_path / "q")
    path = tmp_path / "q" / "config.json"
    config = json.loads(path.read_text()) | {
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}
    }
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="bitsandbytes"):
        load_model(str(tmp_path / "q"))
