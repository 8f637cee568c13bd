"""The features folder: planted features come back with their examples, effects, neighbours and labels."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from planted import HOOK, ReluDictionary, TableDictionary, random_recording, write_recording

from interp.artifacts import open_artefact, partial_path, verify
from interp.artifacts.tables import schema_of
from interp.errors import ConfigError, MismatchError, NonFiniteError, UnknownNameError
from interp.lenses.logit_lens import logit_effects
from interp.models.adapter import final_norm_and_unembed, weight_hash
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.recording.store import context_of
from saes.features.build import Described, build_features
from saes.features.label_shares import label_shares
from saes.features.schema import GROUPS, ExampleRow, FeatureRow, Features, FeaturesConfig, RelationRow

D = 12


@pytest.fixture(scope="module")
def model():
    return load_model(SmallConfig(d_model=D, n_heads=4, d_mlp=20, normalization="RMS"))


@pytest.fixture(scope="module")
def built(model, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("features")
    recording = random_recording(folder / "rec", n_contexts=40, weight_hash=weight_hash(model))
    dictionary = ReluDictionary(D, 30)
    found = build_features(
        Described(dictionary=dictionary, name="sae:toy", folder=folder / "feat"),
        recording,
        model,
        FeaturesConfig(window=5),
    )
    features = pq.read_table(folder / "feat" / "features.parquet")
    examples = pq.read_table(folder / "feat" / "examples.parquet")
    return folder / "feat", recording, dictionary, found, features, examples


def test_the_tables_have_the_documented_schema(built):
    _, _, _, _, features, examples = built
    assert features.schema.equals(schema_of(FeatureRow))
    assert examples.schema.equals(schema_of(ExampleRow))
    relations = pq.read_table(built[0] / "relations.parquet")
    assert relations.schema.equals(schema_of(RelationRow))
    assert len(relations) == 30
    assert features["feature"].to_pylist() == list(range(30))


def test_the_manifest_names_parents_and_what_was_found(built):
    folder, recording, _, found, features, _ = built
    assert found.about == open_artefact(Features, folder).about
    assert found.about.parents[recording.key] == recording.manifest.content_hash
    assert found.about.parents["model:tiny"] == recording.weight_hash
    assert found.n_tokens == 40 * 15
    assert found.n_features == 30
    assert found.n_dead == sum(n == 0 for n in features["n_fired"].to_pylist())
    assert [row.label for row in found.features.rows()] == features["label"].to_pylist()
    assert len(found.histogram_edges) == len(features["histogram"][0].as_py()) + 1
    assert verify(folder) == []


def test_examples_are_sorted_and_their_groups_are_quartiles(built):
    _, recording, dictionary, _, _, examples = built
    keys = list(zip(*(examples[c].to_pylist() for c in ("feature", "group_order", "rank")), strict=True))
    assert keys == sorted(keys)
    assert all(
        GROUPS[order] == group
        for order, group in zip(examples["group_order"].to_pylist(), examples["group"].to_pylist(), strict=True)
    )
    acts = torch.cat([dictionary.encode(b.activations[HOOK]) for b in recording.sequential([HOOK])]).numpy()
    slack = 0.2  # quartiles of a sample of 64
    for feature in range(30):
        active = np.sort(acts[:, feature][acts[:, feature] > 0])
        for row in examples.filter(pq_equal(examples, feature)).to_pylist():
            if row["group"] == "top":
                continue
            quantile = np.searchsorted(active, row["activation"]) / len(active)
            low = 1 - row["group_order"] / 4
            assert low - slack <= quantile <= low + 0.25 + slack, row["group"]


def pq_equal(table, feature: int):
    import pyarrow.compute as pc

    return pc.equal(table["feature"], feature)


def test_label_shares_count_the_features_that_fire_on_something(model, tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    letters = torch.tensor(list(b"abcdefghijkl"))[torch.randint(D, (4000,), generator=generator)]
    fires = torch.nn.functional.one_hot(letters - ord("a"), D).float()
    fires[:, 6:] = (torch.rand(4000, 6, generator=generator) < 0.08).float()  # six on a letter, six on anything
    at = {"context_length": 10, "shard_contexts": 400, "weight_hash": weight_hash(model)}
    recording = write_recording(tmp_path / "rec", fires, letters, torch.arange(4000) // 100, **at)
    share = label_shares({"toy": TableDictionary(D)}, recording, model)["toy"]
    assert (share.n_fired, share.labelled.estimate) == (D, 0.5)
    assert share.score.estimate == pytest.approx(1 - 1 / 24, abs=3e-3)  # each letter is a twelfth of all tokens


def test_fewer_examples_and_a_smaller_index_are_a_part_of_the_whole(built, model, tmp_path: Path):
    folder, recording, dictionary, _, features, examples = built
    build_features(
        Described(dictionary=dictionary, name="sae:toy", folder=tmp_path / "small"),
        recording,
        model,
        FeaturesConfig(window=5, examples=3, samples=2, index_units=2),
    )
    small = pq.read_table(tmp_path / "small" / "examples.parquet").to_pylist()
    top = [row for row in examples.to_pylist() if row["group"] == "top" and row["rank"] < 3]
    assert [row for row in small if row["group"] == "top"] == top
    assert max(row["rank"] for row in small if row["group"] != "top") == 1
    labels = pq.read_table(tmp_path / "small" / "features.parquet")["label"]
    assert labels.equals(features["label"]), "labels rest on the same firings"
    whole = pq.read_table(folder / "index" / "firings.parquet").to_pandas()
    kept = pq.read_table(tmp_path / "small" / "index" / "firings.parquet").to_pandas()
    tokens = pq.read_table(folder / "index" / "units.parquet").to_pandas().query("pieces == 1")["unit"]
    for feature, mine in kept[kept.unit.isin(tokens)].groupby("feature"):
        largest = whole[(whole.feature == feature) & whole.unit.isin(tokens)].share.nlargest(2).to_list()
        assert sorted(mine.share, reverse=True) == pytest.approx(largest)


def test_an_example_shows_its_own_text(built):
    _, recording, dictionary, _, _, examples = built
    for row in examples.to_pylist()[::37]:
        context, place = context_of(recording, row["row"])
        assert context.tokens[place] == row["token_ids"][row["peak"]]
        assert int(context.document[place]) == row["document"]
        assert row["document_id"] == f"doc{row['document']}"
        assert len(row["tokens"]) == len(row["token_ids"]) == len(row["activations"])
        start = place - row["peak"]
        assert context.tokens[start : start + len(row["token_ids"])].tolist() == row["token_ids"]
        assert (context.document[start : start + len(row["token_ids"])] >= 0).all(), "BOS is not text"
        assert row["activations"][row["peak"]] == pytest.approx(row["activation"])
        rows = torch.arange(row["row"] - row["peak"], row["row"] - row["peak"] + len(row["tokens"]))
        truth = dictionary.encode(recording.read_rows(HOOK, rows))[:, row["feature"]]
        np.testing.assert_allclose(row["activations"], truth.numpy(), atol=1e-5)


def test_promoted_tokens_equal_a_direct_computation(built, model):
    _, _, dictionary, _, features, _ = built
    for feature in (0, 7, 29):
        direction = dictionary.W[feature]
        unit = direction / direction.pow(2).mean().sqrt()
        scale = model.ln_final.original_component.weight if hasattr(model.ln_final, "original_component") else 1
        with torch.no_grad():
            logits = (unit * scale) @ model.W_U
        logits = logits - logits.mean()
        values = features["promoted_logits"][feature].as_py()
        np.testing.assert_allclose(values, logits.topk(10).values, rtol=1e-2, atol=1e-3)
        lowest = features["suppressed_logits"][feature].as_py()
        np.testing.assert_allclose(lowest, logits.topk(10, largest=False).values, rtol=1e-2, atol=1e-3)


def test_effects_do_not_depend_on_the_length_of_a_direction(model):
    directions = torch.randn(5, D)
    one, other = (logit_effects(model, scale * directions, 4) for scale in (3.0, 300.0))
    assert torch.equal(one.promoted_ids, other.promoted_ids)
    torch.testing.assert_close(one.promoted_logits, other.promoted_logits, rtol=1e-3, atol=1e-4)


def test_a_token_s_own_unembedding_direction_promotes_it(model):
    directions = torch.nn.functional.normalize(model.W_U.detach().T, dim=1)[[5, 60, 200]]
    with torch.no_grad():
        best = final_norm_and_unembed(model, directions[None])[0].argmax(1)
    assert logit_effects(model, directions, 1).promoted_ids[:, 0].tolist() == best.tolist()


def test_neighbours_are_the_nearest_by_cosine(built):
    _, _, dictionary, _, features, _ = built
    cosine = dictionary.W @ dictionary.W.T
    cosine.fill_diagonal_(-2)
    for feature in range(30):
        expected = cosine[feature].topk(10)
        np.testing.assert_allclose(features["neighbour_cosines"][feature].as_py(), expected.values, atol=1e-5)
        assert feature not in features["neighbours"][feature].as_py()


def test_hostile_token_text_stays_plain_text(model, tmp_path: Path):
    text = "<b>&x"
    tokens = torch.tensor(list(text.encode()) * 8)[: 5 * 8]
    activations = torch.zeros(40, D)
    activations[7, 0] = 5.0
    recording = write_recording(
        tmp_path / "rec",
        activations,
        tokens,
        torch.zeros(40).long(),
        context_length=10,
        shard_contexts=4,
        labels=["<script>alert(1)</script>"],
        weight_hash=weight_hash(model),
    )
    build_features(
        Described(dictionary=TableDictionary(D), name="sae:toy", folder=tmp_path / "feat"),
        recording,
        model,
        FeaturesConfig(window=3),
    )
    row = pq.read_table(tmp_path / "feat" / "examples.parquet").to_pylist()[0]
    assert row["document_label"] == "<script>alert(1)</script>"
    assert row["tokens"][row["peak"]] == recording_token(model, int(tokens[7]))
    labels = pq.read_table(tmp_path / "feat" / "features.parquet")["label"].to_pylist()
    assert labels[1:] == ["dead"] * (D - 1)


def recording_token(model, token: int) -> str:
    from interp.models.adapter import token_strings

    return token_strings(model, [token])[0]


def test_a_dictionary_that_does_not_write_to_the_residual_has_no_effects(model, tmp_path: Path):
    place = "blocks.1.attn.hook_z"
    recording = random_recording(tmp_path / "rec", hook_point=place, weight_hash=weight_hash(model))
    dictionary = ReluDictionary(D, 6, hook_point=place)
    build_features(Described(dictionary=dictionary, name="sae:z", folder=tmp_path / "feat"), recording, model)
    features = pq.read_table(tmp_path / "feat" / "features.parquet")
    assert features["promoted_tokens"].to_pylist() == [[]] * 6
    assert all(len(row) == 5 for row in features["neighbours"].to_pylist()), "five others exist"


def test_an_interrupted_build_leaves_nothing_that_looks_finished(model, tmp_path: Path):
    recording = random_recording(tmp_path / "rec", weight_hash=weight_hash(model))

    def stop(done: int, total: int, info: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_features(
            Described(dictionary=ReluDictionary(D, 6), name="sae:x", folder=tmp_path / "f"),
            recording,
            model,
            progress=stop,
        )
    assert not (tmp_path / "f").exists()
    assert partial_path(tmp_path / "f").exists()
    build_features(Described(dictionary=ReluDictionary(D, 6), name="sae:x", folder=tmp_path / "f"), recording, model)
    assert verify(tmp_path / "f") == []


def test_the_same_seed_gives_the_same_bytes(model, tmp_path: Path):
    recording = random_recording(tmp_path / "rec", n_contexts=60, weight_hash=weight_hash(model))
    first, again, other = (
        build_features(
            Described(dictionary=ReluDictionary(D, 6), name="sae:x", folder=tmp_path / name),
            recording,
            model,
            seed=seed,
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.about.content_hash == again.about.content_hash
    assert first.about.content_hash != other.about.content_hash


def test_parents_that_do_not_belong_together_are_refused(model, tmp_path: Path):
    recording = random_recording(tmp_path / "rec", weight_hash=weight_hash(model))
    with pytest.raises(MismatchError, match="the dictionary reads"):
        build_features(
            Described(
                dictionary=ReluDictionary(D, 4, hook_point="blocks.0.hook_resid_post"),
                name="sae:x",
                folder=tmp_path / "f",
                hook_point=HOOK,
            ),
            recording,
            model,
        )
    with pytest.raises(UnknownNameError, match="hook point"):
        build_features(
            Described(
                dictionary=ReluDictionary(D, 4, hook_point="blocks.0.hook_z"), name="sae:x", folder=tmp_path / "f"
            ),
            recording,
            model,
        )
    stranger = random_recording(tmp_path / "other")
    with pytest.raises(MismatchError, match="other weights"):
        build_features(Described(dictionary=ReluDictionary(D, 4), name="sae:x", folder=tmp_path / "f"), stranger, model)
    assert not (tmp_path / "f").exists()


def test_nan_in_a_recording_leaves_no_finished_folder(model, tmp_path: Path):
    activations = torch.randn(32, D)
    activations[3] = torch.nan
    ids, documents = torch.ones(32).long(), torch.zeros(32).long()
    recording = write_recording(
        tmp_path / "rec", activations, ids, documents, context_length=8, shard_contexts=2,
        weight_hash=weight_hash(model),
    )  # fmt: skip
    with pytest.raises(NonFiniteError):
        build_features(
            Described(dictionary=ReluDictionary(D, 4), name="sae:x", folder=tmp_path / "f"), recording, model
        )
    assert not (tmp_path / "f").exists()


def test_a_finished_folder_is_not_overwritten_unasked(built, model):
    folder, recording, dictionary, *_ = built
    with pytest.raises(ConfigError, match="already there"):
        build_features(
            Described(dictionary=dictionary, name="sae:toy", folder=folder), recording, model, FeaturesConfig(window=5)
        )
