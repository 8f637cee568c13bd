"""The measures have the values that their definitions give by hand, and intervals that cover the truth."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted import HOOK, random_recording, write_recording
from test_kinds import make_saes

from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.statistics import MIN_DOCUMENTS, DocumentBootstrap, poisson_weights, quantile_ends
from saes.evaluation import in_model
from saes.evaluation.in_model import evaluate_all_in_model, evaluate_in_model
from saes.evaluation.scores import InModel
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder
from saes.training.reconstruction import evaluate_on_recording
from saes.training.stored import DENSITY_EDGES

D = 12
HISTOGRAM = ("density_edges", "density_counts")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return random_recording(tmp_path_factory.mktemp("recordings") / "random", n_contexts=60, d=D)


def signed_basis(scale: float = 1.0, *, k: int = D, b_dec: torch.Tensor | None = None) -> TopKSAE:
    """Features `+e_i` and `-e_i`: with `k = D` the reconstruction is `scale * (x - b_dec) + b_dec`."""
    directions = torch.cat([torch.eye(D), -torch.eye(D)])
    b_dec = torch.zeros(D) if b_dec is None else b_dec
    weights = Weights(directions.T.contiguous(), torch.zeros(2 * D), directions * scale, b_dec)
    return TopKSAE(weights, k=k, metadata=SAEMetadata(model="tiny", hook_point=HOOK))


def rows_of(recording, split="all"):
    return torch.cat([b.activations[HOOK] for b in recording.sequential(split=split)]).double()


def test_a_perfect_dictionary_leaves_nothing_unexplained(recording):
    found = evaluate_on_recording(signed_basis(), recording, "all")
    assert found.n_tokens == len(rows_of(recording))
    assert found.fvu == pytest.approx(0, abs=1e-12)
    assert found.l0 == pytest.approx(D)
    assert (found.l2_ratio, found.relative_bias, found.cosine) == pytest.approx((1, 1, 1))
    assert (found.dead_fraction, found.dense_fraction) == (0, 1)


def test_the_mean_alone_explains_nothing(recording):
    sae = signed_basis(0.0, b_dec=rows_of(recording).mean(0).float())
    assert evaluate_on_recording(sae, recording, "all").fvu == pytest.approx(1, abs=1e-6)


def test_shrinkage_shows_in_norm_and_bias_but_not_in_cosine(recording):
    found = evaluate_on_recording(signed_basis(0.8), recording, "all")
    assert found.l2_ratio == pytest.approx(0.8)
    assert found.relative_bias == pytest.approx(0.8)
    assert found.cosine == pytest.approx(1)


def test_fvu_equals_its_definition_and_not_the_mean_of_ratios(recording):
    sae, x = signed_basis(k=2), rows_of(recording)
    error = (x - sae(x.float()).double()).square().sum()
    expected = float(error / (x - x.mean(0)).square().sum())
    assert evaluate_on_recording(sae, recording, "all").fvu == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(recording, batch_size):
    sae = signed_basis(k=3)
    whole = asdict(evaluate_on_recording(sae, recording, "train"))
    parts = asdict(evaluate_on_recording(sae, recording, "train", batch_size=batch_size))
    ends, others = whole.pop("intervals"), parts.pop("intervals")
    assert [parts.pop(name) for name in HISTOGRAM] == [whole.pop(name) for name in HISTOGRAM]
    assert parts == pytest.approx(whole)
    assert ends.keys() == {"l0", "fvu", "l2_ratio", "relative_bias", "cosine"}
    for name in ends:
        assert others[name] == pytest.approx(ends[name]), name


def test_densities_are_those_of_the_features_that_fired(recording):
    found = evaluate_on_recording(signed_basis(k=D), recording, "all")
    assert sum(found.density_counts) == 2 * D
    assert found.density_counts[-2:] == (2 * D, 0)  # each fires on about half of the tokens: 10 ** -0.3
    assert -0.5 < torch.tensor(0.5).log10() < DENSITY_EDGES[-2] == -0.25
    one = signed_basis(k=1)
    one.b_enc.data[1:] = -1e9  # only feature 0 is left
    few = evaluate_on_recording(one, recording, "all")
    assert sum(few.density_counts) == 1
    assert few.dead_fraction == pytest.approx(1 - 1 / (2 * D))


def clustered(folder, *, n_documents: int, seed: int):
    """Documents of 30 tokens that share an offset: the cosine with a one-feature dictionary is a document's own."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(n_documents, 1, D, generator=generator).repeat(1, 30, 1)
    x = (own + 0.3 * torch.randn(n_documents, 30, D, generator=generator)).flatten(0, 1)
    document = torch.arange(n_documents).repeat_interleave(30)
    return write_recording(folder, x, torch.ones(len(x)), document, context_length=30, shard_contexts=100)


def test_intervals_cover_the_truth_and_intervals_over_tokens_would_not(tmp_path):
    sae = signed_basis(k=2)
    truth = evaluate_on_recording(sae, clustered(tmp_path / "all", n_documents=2000, seed=99), "all")
    inside, narrow, runs = 0, 0, 25
    for seed in range(runs):
        recording = clustered(tmp_path / f"{seed}", n_documents=30, seed=seed)
        found = evaluate_on_recording(sae, recording, "all", seed=seed)
        low, high = found.intervals["fvu"]
        inside += low <= truth.fvu <= high
        x = rows_of(recording)
        tokens = DocumentBootstrap(seed=seed)  # every token an observation of its own
        values = torch.stack([(x - sae(x.float()).double()).square().sum(1), (x - x.mean(0)).square().sum(1)], 1)
        tokens.add(values, torch.arange(len(x)))
        ends = tokens.interval(lambda sums: sums[:, 0] / sums[:, 1])
        narrow += ends[0] <= truth.fvu <= ends[1]
    assert inside >= 0.8 * runs
    assert narrow <= 0.6 * runs


def test_intervals_of_ten_documents_hold_the_truth_as_often_as_those_of_many():
    """Plain quantiles of the replicates do in 372 of these 400 cases, these in 387."""
    held = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(20, 60, 10)
        document = np.repeat(np.arange(10) + 1000 * seed, lengths)
        values = np.repeat(rng.normal(0, 0.5, 10), lengths) + rng.normal(0, 0.3, lengths.sum())
        sums = DocumentBootstrap(seed=seed)
        sums.add(torch.from_numpy(np.stack([np.ones(len(values)), values], 1)), torch.from_numpy(document))
        low, high = sums.interval(lambda s: s[:, 1] / s[:, 0]) or (-np.inf, np.inf)
        held += low <= 0 <= high
    assert 376 <= held <= 390


def test_few_documents_give_no_interval(tmp_path):
    sae = signed_basis(k=2)
    few = evaluate_on_recording(sae, clustered(tmp_path / "few", n_documents=MIN_DOCUMENTS - 1, seed=0), "all")
    assert (few.n_documents, few.intervals) == (MIN_DOCUMENTS - 1, {})


def test_a_replicate_without_documents_takes_no_interval_away():
    whole = np.linspace(0, 1, 200)
    ends = quantile_ends(whole[1:], 8)
    assert quantile_ends(np.append(whole[1:], np.nan), 8) == ends is not None
    assert quantile_ends(np.append(whole[:150], np.full(50, np.nan)), 8) is None, "a quarter has no value"


def test_a_document_counts_the_same_wherever_it_comes():
    weights = poisson_weights([5, 9, 2], replicates=400)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == poisson_weights([2, 5], replicates=400)[:, 1]).all()
    assert (weights != poisson_weights([5, 9, 2], replicates=400, seed=1)).any()
    assert weights[1:].mean() == pytest.approx(1, abs=0.1)
    assert weights[1:].var() == pytest.approx(1, abs=0.15)


def test_splits_add_up_to_all(recording):
    sae = signed_basis(k=3)
    parts = [evaluate_on_recording(sae, recording, split) for split in ("train", "heldout")]
    whole = evaluate_on_recording(sae, recording, "all")
    assert sum(p.n_tokens for p in parts) == whole.n_tokens
    assert sum(p.l0 * p.n_tokens for p in parts) / whole.n_tokens == pytest.approx(whole.l0)


def test_an_sae_of_another_place_is_refused(recording):
    with pytest.raises(MismatchError, match="width 12"):
        evaluate_on_recording(make_saes()[0], recording)
    elsewhere = signed_basis()
    elsewhere.hook_point = "blocks.7.hook_resid_post"
    with pytest.raises(UnknownNameError, match="recorded hook point"):
        evaluate_on_recording(elsewhere, recording)
    with pytest.raises(ConfigError, match="no tokens in its 'heldout' split"):
        evaluate_on_recording(signed_basis(), recording, heldout_fraction=1e-9)


class OneLayerModel:
    """Embeds tokens, passes them through two hook points, and unembeds: enough to splice into."""

    def __init__(self, d_vocab: int = 30):
        generator = torch.Generator().manual_seed(0)
        self.W_E = torch.randn(d_vocab, D, generator=generator)
        self.W_U = torch.randn(D, d_vocab, generator=generator)
        self.cfg = SimpleNamespace(d_vocab=d_vocab)
        self.passes = 0

    def run_with_hooks(self, tokens, *, return_type, fwd_hooks, stop_at_layer=None):
        self.passes += 1
        value = self.W_E[tokens]
        assert {name for name, _ in fwd_hooks} <= {HOOK, OUT}
        for place in (HOOK, OUT):
            for name, hook in fwd_hooks:
                changed = hook(value, hook=None) if name == place else None
                value = value if changed is None else changed
            if place == HOOK:
                value = value * 2  # what a transcoder has to predict
        return None if stop_at_layer is not None else value @ self.W_U / 2


OUT = "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def tokens():
    """Each token's successor is the one its own embedding predicts best, so that the clean model is good."""
    model, rows = OneLayerModel(), torch.arange(20)[:, None]
    steps = [rows]
    for _ in range(7):
        steps.append((model.W_E[steps[-1]] @ model.W_U).argmax(-1))
    return torch.cat(steps, dim=1)


def test_a_perfect_dictionary_recovers_all_of_the_models_loss(tokens):
    found = evaluate_in_model(signed_basis(), OneLayerModel(), tokens, batch_size=6)
    assert found.n_tokens == 20 * 6
    assert found.ce_spliced == pytest.approx(found.ce_clean)
    assert found.ce_recovered == pytest.approx(1)
    assert found.kl_spliced == pytest.approx(0, abs=1e-6)
    assert found.ce_clean < found.ce_zero
    assert found.ce_zero == pytest.approx(torch.log(torch.tensor(30.0)).item())  # zeros predict uniformly


def test_an_sae_that_gives_zeros_recovers_nothing(tokens):
    found = evaluate_in_model(signed_basis(0.0), OneLayerModel(), tokens)
    assert found.ce_recovered == pytest.approx(0)
    assert found.kl_spliced > 0.1


def test_losses_are_those_computed_by_hand(tokens):
    model, sae = OneLayerModel(), signed_basis(k=2)
    found = evaluate_in_model(sae, model, tokens, batch_size=7)
    value, target = model.W_E[tokens][:, 1:-1], tokens[:, 2:]
    mean = model.W_E[tokens][:, 1:].mean((0, 1))
    for name, changed in {"clean": value, "spliced": sae(value), "mean": mean.expand_as(value)}.items():
        loss = torch.nn.functional.cross_entropy((changed @ model.W_U).flatten(0, 1), target.flatten())
        assert getattr(found, f"ce_{name}") == pytest.approx(loss.item(), rel=1e-5), name


def test_kl_is_that_computed_by_hand_and_its_share_runs_from_zeros_to_clean(tokens):
    model, sae = OneLayerModel(), signed_basis(k=2)
    found = evaluate_in_model(sae, model, tokens, batch_size=7)
    value = model.W_E[tokens][:, 1:-1]
    clean, spliced, zero = ((v @ model.W_U).log_softmax(-1) for v in (value, sae(value), 0 * value))
    for name, other in {"spliced": spliced, "zero": zero}.items():
        expected = (clean.exp() * (clean - other)).sum(-1).mean()
        assert getattr(found, f"kl_{name}") == pytest.approx(expected.item(), rel=1e-4), name
    assert found.kl_recovered == pytest.approx(1 - found.kl_spliced / found.kl_zero)
    assert evaluate_in_model(signed_basis(0.0), model, tokens).kl_recovered == pytest.approx(0, abs=1e-5)


def test_tokens_that_are_no_text_are_neither_replaced_nor_scored(tokens):
    model, sae = OneLayerModel(), signed_basis(0.0)
    documents = torch.arange(20)[:, None].repeat(1, 8)
    documents[:, [0, 4]] = -1
    found = evaluate_in_model(sae, model, tokens, documents=documents, batch_size=7)
    before = torch.tensor([1, 2, 5, 6])  # 3 predicts a token that is no text, 4 is none itself
    value = model.W_E[tokens][:, before]
    assert (found.n_tokens, found.n_documents) == (20 * 4, 20)
    loss = torch.nn.functional.cross_entropy((value @ model.W_U).flatten(0, 1), tokens[:, before + 1].flatten())
    assert found.ce_clean == pytest.approx(loss.item(), rel=1e-5)
    assert found.ce_spliced == pytest.approx(torch.log(torch.tensor(30.0)).item())


def test_values_where_there_is_no_text_pass_through_unchanged(tokens):
    seen = []

    class Watched(OneLayerModel):
        def run_with_hooks(self, tokens, *, fwd_hooks, **kw):
            watch = [(HOOK, lambda value, hook: seen.append(value.clone()))]
            return super().run_with_hooks(tokens, fwd_hooks=[*fwd_hooks, *watch], **kw)

    documents = torch.arange(20)[:, None].repeat(1, 8)
    documents[:, [0, 4]] = -1
    options = {"documents": documents, "batch_size": 20, "mean": torch.ones(D)}
    evaluate_in_model(signed_basis(0.0), Watched(), tokens, **options)
    clean, zero, mean, spliced = seen
    text = documents >= 0
    for changed, value in ((zero, 0.0), (mean, 1.0), (spliced, 0.0)):
        assert (changed[text] == value).all()
        assert torch.equal(changed[~text], clean[~text])


def test_several_saes_share_the_passes_without_them(tokens):
    saes = {"all": signed_basis(), "two": signed_basis(k=2), "none": signed_basis(0.0)}
    model = OneLayerModel()
    found = evaluate_all_in_model(saes, model, tokens, batch_size=20, mean=torch.zeros(D))
    assert model.passes == 3 + len(saes)
    for name, sae in saes.items():
        alone = evaluate_in_model(sae, OneLayerModel(), tokens, batch_size=20, mean=torch.zeros(D))
        assert found[name] == alone, name
    assert found["all"].ce_spliced < found["two"].ce_spliced < found["none"].ce_spliced


@pytest.mark.parametrize("values", [1, 31, 1 << 22])
def test_neither_the_chunk_nor_the_batch_changes_a_loss(tokens, values, monkeypatch):
    whole = asdict(evaluate_in_model(signed_basis(k=2), OneLayerModel(), tokens))
    monkeypatch.setattr("saes.evaluation.in_model.CHUNK_VALUES", values)
    monkeypatch.setattr("saes.evaluation.in_model.LOGIT_VALUES", 300 * values)
    parts = asdict(evaluate_in_model(signed_basis(k=2), OneLayerModel(), tokens))
    whole.pop("intervals"), parts.pop("intervals")
    assert parts == pytest.approx(whole, rel=1e-5)


def test_intervals_inside_the_model_hold_the_score(tokens):
    found = evaluate_in_model(signed_basis(k=2), OneLayerModel(), tokens)
    assert found.n_documents == 20
    assert {"ce_recovered", "ce_recovered_from_mean", "kl_spliced"} <= found.intervals.keys()
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high, name
    assert evaluate_in_model(signed_basis(k=2), OneLayerModel(), tokens[:4]).intervals == {}


def transcoder(scale: float) -> Transcoder:
    """Predicts `scale * x` at `OUT` from `x` at `HOOK`; the truth is 2."""
    basis = signed_basis(scale)
    return Transcoder(basis.weights, metadata=SAEMetadata(hook_point=HOOK, hook_point_out=OUT))


def test_a_transcoders_prediction_takes_the_place_of_its_target(tokens):
    right = evaluate_in_model(transcoder(2.0), OneLayerModel(), tokens)
    assert right.ce_spliced == pytest.approx(right.ce_clean)
    assert right.ce_recovered == pytest.approx(1)
    assert evaluate_in_model(transcoder(0.0), OneLayerModel(), tokens).ce_recovered == pytest.approx(0)
    wrong = evaluate_in_model(transcoder(1.0), OneLayerModel(), tokens)
    value, target = OneLayerModel().W_E[tokens][:, 1:-1], tokens[:, 2:]
    loss = torch.nn.functional.cross_entropy((value @ OneLayerModel().W_U / 2).flatten(0, 1), target.flatten())
    assert wrong.ce_spliced == pytest.approx(loss.item(), rel=1e-5)


def test_where_zeros_do_not_hurt_nothing_is_said_to_be_recovered(tokens):
    model = OneLayerModel()
    model.W_U = torch.zeros_like(model.W_U)
    found = evaluate_in_model(signed_basis(k=2), model, tokens)
    assert isinstance(found, InModel)
    assert found.ce_recovered is None
    assert found.kl_recovered is None


def test_what_cannot_be_put_into_the_model_is_refused(tokens):
    with pytest.raises(ConfigError, match="n_ctx >= 3"):
        evaluate_in_model(signed_basis(), OneLayerModel(), torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="like the tokens"):
        evaluate_in_model(signed_basis(), OneLayerModel(), tokens, documents=torch.zeros(20, 7, dtype=torch.int64))
    with pytest.raises(ConfigError, match="no token can be scored"):
        evaluate_in_model(signed_basis(), OneLayerModel(), tokens, documents=torch.full_like(tokens, -1))
    with pytest.raises(MismatchError, match="replace one hook point"):
        evaluate_all_in_model({"a": signed_basis(), "b": transcoder(1.0)}, OneLayerModel(), tokens)


def both_signs(d: int, hook_point: str, scale: float = 1.0) -> TopKSAE:
    directions = torch.cat([torch.eye(d), -torch.eye(d)])
    weights = Weights(directions.T.contiguous(), torch.zeros(2 * d), directions * scale, torch.zeros(d))
    return TopKSAE(weights, k=d, metadata=SAEMetadata(hook_point=hook_point))


@pytest.mark.parametrize("hook_point", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"])
def test_hooks_reach_a_real_bridge_at_the_names_on_disk(tiny_model, hook_point):
    tokens = torch.randint(0, tiny_model.cfg.d_vocab, (4, 12), generator=torch.Generator().manual_seed(0))
    whole = evaluate_in_model(both_signs(tiny_model.cfg.d_model, hook_point), tiny_model, tokens, batch_size=3)
    assert whole.ce_spliced == pytest.approx(whole.ce_clean, abs=1e-5)
    zero = evaluate_in_model(both_signs(tiny_model.cfg.d_model, hook_point, 0.0), tiny_model, tokens)
    assert zero.ce_spliced == pytest.approx(zero.ce_zero)
    assert zero.kl_spliced > 1e-4
    assert zero.ce_zero != pytest.approx(zero.ce_clean, abs=1e-6)


def test_heads_that_lie_apart_and_transcoders_reach_a_real_bridge(tiny_model):
    tokens = torch.randint(0, tiny_model.cfg.d_vocab, (4, 12), generator=torch.Generator().manual_seed(0))
    cfg = tiny_model.cfg
    whole = evaluate_in_model(both_signs(cfg.n_heads * cfg.d_head, "blocks.0.attn.hook_z"), tiny_model, tokens)
    assert whole.ce_spliced == pytest.approx(whole.ce_clean, abs=1e-5)
    assert whole.ce_zero != pytest.approx(whole.ce_clean, abs=1e-6)
    nothing = both_signs(cfg.d_model, "", 0.0).weights
    metadata = SAEMetadata(hook_point="blocks.0.hook_resid_mid", hook_point_out="blocks.0.hook_mlp_out")
    zero = evaluate_in_model(Transcoder(nothing, metadata=metadata), tiny_model, tokens)
    assert zero.ce_spliced == pytest.approx(zero.ce_zero)
    assert zero.kl_spliced > 1e-6


def test_a_large_vocabulary_is_scored_at_a_sample_of_positions(tiny_model, monkeypatch):
    """Each loss is that of the whole run at the positions that were drawn, whatever the batch."""
    d, point = tiny_model.cfg.d_model, "blocks.0.hook_resid_post"
    weights = Weights(torch.eye(d), torch.zeros(d), torch.eye(d), torch.zeros(d))
    sae = TopKSAE(weights, k=4, metadata=SAEMetadata(model="tiny", hook_point=point))
    tokens = torch.randint(0, 255, (6, 20), generator=torch.Generator().manual_seed(1))
    whole = evaluate_in_model(sae, tiny_model, tokens)
    monkeypatch.setattr(in_model, "CONTEXT_VALUES", 5 * tiny_model.cfg.d_vocab)
    found = evaluate_in_model(sae, tiny_model, tokens, batch_size=4)
    documents = in_model.check_documents(tokens, None)
    at = in_model.scored_positions(documents, tiny_model.cfg.d_vocab, 0)
    assert at.shape == (6, 5)
    assert (at > 0).all(), "BOS is not text"
    with torch.no_grad():
        log_p = tiny_model(tokens).log_softmax(-1)[torch.arange(6)[:, None], at]
    expected = -log_p.gather(-1, tokens.gather(1, at + 1)[..., None]).mean()
    assert (found.n_tokens, whole.n_tokens) == (30, 6 * 18)
    assert found.ce_clean == pytest.approx(float(expected), rel=1e-5)
    assert found.kl_spliced == pytest.approx(whole.kl_spliced, rel=0.5)
