"""A dictionary named by its place on the hub, with the client replaced: no network."""

from pathlib import Path

import huggingface_hub
import pytest

from interp.errors import ConfigError, MissingError
from saes.weights import importing as hub
from saes.weights.importing import checkpoint_path, is_hub_spec


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """A hub that holds `layers.9/`; what it was asked for."""
    asked: dict = {}

    def snapshot_download(repository: str, **options) -> str:
        asked.update(options, repository=repository)
        (tmp_path / "snapshot" / "layers.9").mkdir(parents=True, exist_ok=True)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
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
