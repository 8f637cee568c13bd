"""One template with several words: flows that all words share, and flows that only some have."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, PromptError
from interp.models.small import SmallConfig, build_small
from interp.tracing.graph import TraceConfig
from interp.tracing.replacement import Neurons
from interp.tracing.trace import flows, trace_variants
from tests.interp.tracing_graphs import aim_of, system_of

WORDS = {"a": "x", "b": "y", "c": "z"}
CONFIG = TraceConfig(max_feature_nodes=200)


def byte_model():
    config = SmallConfig(d_model=16, n_heads=2, d_mlp=32, n_ctx=16, n_layers=2)
    return build_small(config, seed=2, device="cpu", dtype=torch.float32)


def test_flows_between_groups_hold_every_edge_score_once():
    from interp.tracing._influence import influence, normalise_rows
    from interp.tracing.trace import assemble

    adjacency = assemble(system_of("gpt2", "some neurons"), aim_of(system_of("gpt2", "some neurons")), CONFIG)
    each_alone = flows(adjacency, [f"{i:05d}" for i in range(len(adjacency.kinds))])
    halves = flows(adjacency, ["a" if i % 2 else "b" for i in range(len(adjacency.kinds))])
    assert sum(halves.values()) == pytest.approx(sum(each_alone.values()), rel=1e-4)
    total = influence(normalise_rows(adjacency.matrix), adjacency.weights)
    assert sum(map(abs, each_alone.values())) == pytest.approx(float(total.sum()), rel=1e-3)


def test_every_word_gives_one_value_and_intervals_hold_the_mean():
    found = trace_variants(byte_model(), "say {}", WORDS, Neurons(), CONFIG)
    assert found.words == ("a", "b", "c")
    rows = found.to_records()
    assert {len(values) for values in found.flows.values()} == {3}
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert any(row["source"] == "token '{}' (5)" for row in rows)
    assert abs(rows[0]["mean"]) == max(abs(np.mean(values)) for values in found.flows.values())
    assert "by chance" in found.headline()


def test_words_that_cannot_be_compared_are_refused():
    model = byte_model()
    with pytest.raises(PromptError, match="same number of tokens"):
        trace_variants(model, "say {}", {**WORDS, "long": "x"}, Neurons(), CONFIG)
    with pytest.raises(ConfigError, match="at least 3 words"):
        trace_variants(model, "say {}", {"a": "x", "b": "y"}, Neurons(), CONFIG)
    with pytest.raises(ConfigError, match="where the word goes"):
        trace_variants(model, "say it", WORDS, Neurons(), CONFIG)
