"""A dictionary named by its place on the hub, or by SAELens' name, with the client replaced: no network."""

import lzma
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from interp.errors import ConfigError, MismatchError, MissingError, UnknownNameError
from saes.weights import importing
from saes.weights.importing import checkpoint_path, is_hub_spec
from saes.weights.read import load_dictionary
from tools.releases import table

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """A hub that holds `layers.9/`; what it was asked for."""
    asked: dict = {}

    def snapshot_download(repository: str, **options) -> str:
        asked.update(options, repository=repository)
        (tmp_path / "snapshot" / "layers.9").mkdir(parents=True, exist_ok=True)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(importing, "hub_reachable", lambda: True)
    return asked


@pytest.mark.parametrize("spec", ["hub:owner/sae-model/layers.9", "owner/sae-model/layers.9"])
def test_one_folder_of_a_repository_is_fetched_and_nothing_else(spec, fetched, tmp_path):
    assert checkpoint_path(spec) == tmp_path / "snapshot" / "layers.9"
    assert fetched["repository"] == "owner/sae-model"
    assert all(pattern.startswith("layers.9") for pattern in fetched["allow_patterns"])
    assert not any(pattern.endswith(".py") for pattern in fetched["allow_patterns"])


def test_a_part_that_the_repository_lacks_is_named(fetched):
    with pytest.raises(MissingError, match=r"no layers\.10"):
        checkpoint_path("hub:owner/sae-model/layers.10")


def test_a_path_that_exists_is_no_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner/name").mkdir(parents=True)
    assert not is_hub_spec("owner/name")
    assert is_hub_spec("hub:owner/name")
    assert checkpoint_path("owner/name") == tmp_path / "owner" / "name"


@pytest.mark.parametrize("spec", ["hub:", "hub:name", "hub:owner/name/../..", "hub:https://x/y"])
def test_what_is_no_hub_name_is_refused(spec):
    with pytest.raises(ConfigError, match="hub:OWNER/NAME"):
        checkpoint_path(spec)


def test_without_a_network_the_next_move_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="cannot be reached; connect"):
        checkpoint_path("hub:owner/never-cached-sae")


@pytest.fixture
def peers(monkeypatch, tmp_path):
    """A hub with checkpoints of the fixtures at the paths of three releases, which gives only what is asked for."""
    on_hub = {
        "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82": "gemma_scope/layer_20/width_24/average_l0_4",
        "mwhanna/qwen3-4b-transcoders": "circuit_tracer",
        "jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre": "saelens_flat_relu",
    }
    for place, fixture in on_hub.items():
        shutil.copytree(FIXTURES / fixture, tmp_path / "hub" / place)

    def snapshot_download(repository: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        source, target = tmp_path / "hub" / repository, tmp_path / f"models--{repository.replace('/', '--')}" / "1"
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        for name in filter_repo_objects(files, allow_patterns=allow_patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(importing, "hub_reachable", lambda: True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "fixture", "about"),
    [
        (
            "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical",
            "gemma_scope/layer_20/width_24/average_l0_4",
            ("google/gemma-2-2b", "blocks.12.hook_resid_post"),
        ),
        ("mwhanna-qwen3-4b-transcoders/layer_2", "circuit_tracer", ("tiny", "blocks.2.mlp.hook_in")),
        ("gpt2-small-res-jb/blocks.8.hook_resid_pre", "saelens_flat_relu", ("gpt2-small", "blocks.2.hook_resid_pre")),
    ],
)
def test_a_name_of_saelens_opens_the_dictionary_with_its_numbers(name, fixture, about, peers):
    sae, probe = load_dictionary(name), load_file(FIXTURES / fixture / "probe.safetensors")
    torch.testing.assert_close(sae.encode(probe["x"]), probe["feature_acts"], atol=1e-4, rtol=1e-4)
    assert (sae.metadata.model, sae.metadata.hook_point) == about


def test_names_that_saelens_does_not_have_are_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'gemma-scope-2b-pt-res-canonical'"):
        checkpoint_path("gemma-scope-2b-pt-res-cannonical/layer_12/width_16k/canonical")
    with pytest.raises(UnknownNameError, match="did you mean 'layer_12/width_16k/canonical'"):
        checkpoint_path("gemma-scope-2b-pt-res-canonical/layer_12/width_16k")
    with pytest.raises(UnknownNameError, match=r"blocks\.0\.hook_resid_pre.* Write gpt2-small-res-jb/ID"):
        checkpoint_path("gpt2-small-res-jb")
    with pytest.raises(MismatchError, match="by its loader temporal"):
        checkpoint_path("temporal-sae-llama-3.1-8b/blocks.15.hook_resid_post")


def test_a_folder_of_that_name_is_no_name_of_saelens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gpt2-small-res-jb").mkdir()
    assert checkpoint_path("gpt2-small-res-jb") == tmp_path / "gpt2-small-res-jb"


def test_without_a_network_a_name_of_saelens_says_what_to_fetch_from_where(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match=r"fetch layer_12/width_16k/average_l0_82 of google/gemma-scope-2b-pt-res"):
        checkpoint_path("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")


def test_the_table_of_releases_has_paths_ids_and_what_cannot_be_read(tmp_path, monkeypatch):
    listed = {
        "a": {"repo_id": "o/a", "conversion_func": None, "saes": [{"id": "x", "path": "x"}, {"id": "y", "path": 0}]},
        "b": {"repo_id": "o/b", "conversion_func": "own", "saes": [{"id": "z", "path": "p/z:v1"}]},
    }
    monkeypatch.setattr(importing, "TABLE", tmp_path / "table.xz")
    importing.TABLE.write_bytes(lzma.compress(table(listed).encode()))
    found = importing.releases.__wrapped__()
    assert found == {"a": ("o/a", {"x": "x", "y": "0"}, ""), "b": ("o/b", {"z": "p/z:v1"}, "by its loader own")}
    monkeypatch.undo()
    assert len(importing.releases()) > 150
