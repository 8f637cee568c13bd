"""Planted and trained toys: what they are must be exact, since everything else is judged by them."""

import pytest
import torch

from interp.artifacts import as_json
from interp.circuits.circuit import Circuit
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.forms import from_json
from interp.models.adapter import run_with_cache, weight_hash
from interp.models.hooked import wrap_in_memory
from interp.models.loading import load_model
from interp.models.passes import loss_per_token
from interp.models.residual import ResidualStream
from interp.models.small import SmallConfig, build_small, load_small, save_small
from interp.models.toys import planted_copying, planted_induction, repeating_rows
from interp.models.training import TrainingConfig, train_small
from tests.interp.circuit_tasks import planted_circuit


def repeated(generator_seed: int = 0, d_vocab: int = 16) -> torch.Tensor:
    block = torch.randperm(d_vocab, generator=torch.Generator().manual_seed(generator_seed))
    return torch.cat([block, block])[None]


def patterns(model, tokens: torch.Tensor) -> list[torch.Tensor]:
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(2)]
    _, cache = run_with_cache(model, tokens, names)
    return [cache[name][0] for name in names]


def second_half(model, rows: torch.Tensor) -> dict[str, float]:
    """Mean loss (nats) and accuracy over the second half of rows that repeat once: the copying itself."""
    half = rows.shape[1] // 2
    right = model(rows)[:, half - 1 : -1].argmax(-1) == rows[:, half:]
    return {"loss": float(loss_per_token(model, rows)[:, half - 1 :].mean()), "accuracy": float(right.float().mean())}


@pytest.mark.parametrize("seed", range(3))
def test_planted_heads_attend_exactly_where_they_are_planted(seed: int) -> None:
    previous, induction = patterns(planted_induction(), repeated(seed))
    assert previous[0].diagonal(-1).mean() == pytest.approx(1, abs=1e-6)
    # position 0 has nothing before it, so one query of the 16 splits its attention in two
    assert induction[0].diagonal(-15)[1:].mean() == pytest.approx(31 / 32, abs=1e-6)


def test_a_first_token_used_nowhere_else_makes_it_exactly_one() -> None:
    block = 1 + torch.randperm(15, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.zeros(1, dtype=torch.long), block, block])[None]
    _, induction = patterns(planted_induction(), tokens)
    assert induction[0].diagonal(-14)[2:].mean() == pytest.approx(1, abs=1e-6)


def test_planted_induction_predicts_the_repeat() -> None:
    tokens = repeated()
    predicted = planted_induction()(tokens)[0].argmax(-1)
    assert (predicted[16:31] == tokens[0, 17:]).all()


def test_planted_copying_behaves_alike_without_induction_attention() -> None:
    tokens = repeated()
    model = planted_copying()
    assert (model(tokens)[0].argmax(-1)[16:31] == tokens[0, 17:]).all()
    _, heads = patterns(model, tokens)
    assert heads[0].diagonal(-15)[1:].mean() < 1e-6, "the working head does not attend to what followed"
    assert heads[0].diagonal(-14)[2:].mean() > 0.9, "but one later"


def test_planted_residuals_are_plain_sums() -> None:
    for model in (planted_induction(), planted_copying()):
        assert ResidualStream(model).check_additive() < 1e-6


def test_a_residual_multiplier_is_refused() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    config = GraniteConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=50,
        intermediate_size=64, residual_multiplier=0.2, attn_implementation="eager",
    )  # fmt: skip
    plain = GraniteForCausalLM(config).eval()
    with pytest.raises(ConfigError, match="not the sum of its heads"):
        ResidualStream(wrap_in_memory(plain))


def test_planted_circuit_names_the_seven_edges() -> None:
    circuit = planted_circuit("hash")
    assert len(circuit.edges) == 7
    assert circuit.prune().edges == circuit.edges, "every edge lies on a path from the embedding to the logits"
    assert [node.name for node in circuit.nodes] == ["embed", "L0H0", "L1H0", "logits"]
    assert from_json(Circuit, as_json(circuit), "circuit") == circuit


@pytest.mark.parametrize("spec", ["planted:induction", "planted:copying"])
def test_planted_models_load_by_name(spec: str) -> None:
    assert weight_hash(load_model(spec)) == weight_hash(load_model(spec))
    with pytest.raises(UnknownNameError, match="planted:induction"):
        load_model("planted:induktion")


def test_planted_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match="4 positions"):
        planted_induction(n_ctx=2)


def test_rows_repeat_with_their_own_period() -> None:
    rows = repeating_rows(200, 40, 1000, 8, 16, torch.Generator().manual_seed(0))
    periods = set()
    for row in rows:
        period = next(p for p in range(1, 40) if (row[p:] == row[:-p]).all())
        periods.add(period)
    assert periods == set(range(8, 17))


def test_training_lowers_the_loss_and_is_reproducible() -> None:
    config = SmallConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=8, n_ctx=16)

    def train() -> tuple[list[float], str]:
        model = build_small(config, seed=0, device="cpu", dtype=torch.float32)
        steps = list(train_small(model, batches, TrainingConfig(steps=60, batch_size=16, lr=1e-2, log_every=20)))
        return [step.loss for step in steps], weight_hash(model)

    def batches(n: int, generator: torch.Generator) -> torch.Tensor:
        return repeating_rows(n, 16, 8, 1, 1, generator)

    losses, first = train()
    assert len(losses) == 3
    assert losses[-1] < 0.5 * losses[0]
    assert train() == (losses, first)


def test_small_models_survive_the_disk(tmp_path) -> None:
    config = SmallConfig(n_layers=1, d_model=16, n_heads=2, d_mlp=8)
    model = build_small(config, seed=3, device="cpu", dtype=torch.float32)
    save_small(model, config, tmp_path / "model")
    tokens = torch.arange(10)[None]
    assert torch.equal(load_model(str(tmp_path / "model"))(tokens), model(tokens))


def test_damaged_small_models_are_refused(tmp_path) -> None:
    config = SmallConfig(n_layers=1, d_model=16, n_heads=2)
    save_small(build_small(config, seed=0, device="cpu", dtype=torch.float32), config, tmp_path)
    (tmp_path / "small.json").write_text(
        (tmp_path / "small.json").read_text().replace('"n_layers": 1', '"n_layers": 2')
    )
    with pytest.raises(CorruptError, match="do not fit"):
        load_small(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CorruptError):
        load_small(tmp_path)


def test_the_recipe_separates_two_layers_from_one(induction_toy, one_layer_toy) -> None:
    rows = repeating_rows(256, 64, 64, 32, 32, torch.Generator().manual_seed(99))
    two, one = second_half(induction_toy, rows), second_half(one_layer_toy, rows)
    assert two["loss"] < 1.0
    assert one["loss"] > 2.5


def test_the_fixed_period_control_copies_by_position(fixed_period_toy) -> None:
    generator = torch.Generator().manual_seed(99)
    on_its_period = second_half(fixed_period_toy, repeating_rows(256, 32, 64, 16, 16, generator))
    elsewhere = second_half(fixed_period_toy, repeating_rows(256, 32, 64, 11, 11, generator))
    assert on_its_period["accuracy"] > 0.95
    assert elsewhere["accuracy"] < 0.3
