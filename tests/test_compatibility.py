"""What version 1.0 wrote opens in every 1.x, and its names can be imported (decision 41).

`fixtures/workspace-1.0.tar.gz` holds one artefact of each kind, and `fixtures/names-1.0.txt` the public names; neither
changes before version 2. `python -m tests.test_compatibility FOLDER` wrote both.
"""

import importlib
import shutil
import sys
import tarfile
from dataclasses import fields
from pathlib import Path

import pytest

from interp.artifacts import KINDS, manifest, read_json, save_artefact, verify, write_json
from interp.artifacts.artefact import is_stored
from interp.errors import SchemaError
from interp.packages import lazily
from interp.workspace import Workspace

FIXTURES = Path(__file__).parent / "fixtures"
WORKSPACE, NAMES = FIXTURES / "workspace-1.0.tar.gz", FIXTURES / "names-1.0.txt"
NEWER = ()
"""Kinds that came after 1.0."""
PACKAGES = ("interp", "interp.studies", "saes", "dashboard")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version-1.0")
    with tarfile.open(WORKSPACE) as archive:
        archive.extractall(folder, filter="data")
    return Workspace(folder)


@pytest.mark.parametrize("name", KINDS)
def test_an_artefact_of_1_0_opens_whole(workspace, name):
    kind = KINDS[name].load()
    stored = workspace.values(kind)
    assert bool(stored) != (name in NEWER), (
        f"no {name} in {WORKSPACE.name}; a kind that came after 1.0 belongs in NEWER"
    )
    for artefact in stored:
        assert verify(artefact.folder) == []
        for part in fields(artefact):
            value = getattr(artefact, part.name)
            if hasattr(value, "arrow"):
                assert value.arrow().num_columns
        assert artefact.headline()
        assert artefact.to_records() is not None


def test_names_of_1_0_can_still_be_imported():
    for line in NAMES.read_text().split():
        package, _, name = line.rpartition(".")
        assert hasattr(importlib.import_module(package), name), f"{line} was public in 1.0: see decision 41"


def test_a_renamed_name_works_and_warns(tmp_path, monkeypatch):
    (tmp_path / "old_house.py").write_text(
        "from typing import TYPE_CHECKING\nfrom interp.packages import lazily\n"
        "if TYPE_CHECKING:\n    from math import sqrt\n"
        "__getattr__, __all__ = lazily(__name__, __file__, {'root': 'sqrt'})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    house = importlib.import_module("old_house")
    with pytest.warns(DeprecationWarning, match="old_house.root is called sqrt now"):
        assert house.root(4) == 2
    assert house.__all__ == ["sqrt"]
    assert lazily("old_house", house.__file__)[1] == ["sqrt"]


def test_a_later_schema_reads_an_earlier_one_through_its_upgrades(tmp_path, monkeypatch):
    first = manifest.FIRST_VERSION
    about = {"kind": "heads", "name": "h", "config": {"model": "m"}, "files": {}, "content_hash": ""}
    write_json(tmp_path / "manifest.json", about | {"schema_version": first})
    steps = (
        lambda raw: {**raw, "config": {"spec": raw["config"]["model"]}},
        lambda raw: {**raw, "config": {"spec": raw["config"]["spec"] + "!"}},
    )
    monkeypatch.setattr(manifest, "UPGRADES", steps)
    monkeypatch.setattr(manifest, "SCHEMA_VERSION", first + 2)
    assert manifest.read_manifest(tmp_path).config == {"spec": "m!"}
    write_json(tmp_path / "manifest.json", about | {"schema_version": first + 1, "config": {"spec": "n"}})
    assert manifest.read_manifest(tmp_path).config == {"spec": "n!"}
    write_json(tmp_path / "manifest.json", about | {"schema_version": first - 1})
    with pytest.raises(SchemaError, match="make it again"):
        manifest.read_manifest(tmp_path)


def write(folder: Path) -> None:
    """Write both fixtures: one artefact of each kind, as other tests make them, and the public names."""
    from tests.test_results import artefacts

    for value in artefacts().values():
        at = folder / "workspace" / KINDS[value.kind].folder / "first"
        if is_stored(value):
            shutil.copytree(value.folder, at, dirs_exist_ok=True)
            write_json(at / "manifest.json", read_json(at / "manifest.json") | {"name": "first"})
        else:
            save_artefact(value, at, seed=0, overwrite=True)
    with tarfile.open(folder / WORKSPACE.name, "w:gz") as archive:
        archive.add(folder / "workspace", ".")
    names = [f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__]
    (folder / NAMES.name).write_text("\n".join(sorted(names)) + "\n")


if __name__ == "__main__":
    sys.path += [str(FIXTURES.parent / part) for part in ("", "fixtures", "interp", "saes", "dashboard")]
    write(Path(sys.argv[1]))
