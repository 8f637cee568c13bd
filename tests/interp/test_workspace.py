"""A workspace lists what is whole, shows what is broken or unfinished, and lets no name out of its folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from interp.artifacts import MANIFEST, Draft, read_json, write_json, write_table
from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.notes import Notes
from interp.workspace import Workspace, outdated


def make(root: Path, kind: str, name: str, parents: dict[str, str] | None = None) -> Path:
    folder = Workspace(root).path(kind, name)
    work = Draft.open(folder, kind=kind, config={"name": name})
    write_table(work.path / f"{kind}.parquet", pa.table({"feature": [0, 1, 2], "density": [0.1, 0.5, 0.2]}))
    work.finish(parents=parents)
    return folder


@pytest.fixture
def root(workspace_folder: Path) -> Path:
    make(workspace_folder, "recording", "demo")
    make(workspace_folder, "sae", "demo", {"recordings/demo": "hash"})
    make(workspace_folder, "sae", "other")
    return workspace_folder


def test_names_manifests_and_children_are_found(root: Path) -> None:
    workspace = Workspace(root)
    assert workspace.names("sae") == ["demo", "other"]
    assert workspace.names("atlas") == []
    assert workspace.manifest("sae", "demo").parents == {"recordings/demo": "hash"}
    assert [(m.kind, m.name) for m in workspace.children("recording", "demo")] == [("sae", "demo")]
    assert len(workspace.artifacts()) == 3
    assert workspace.broken() == workspace.partials() == []


def test_a_page_opens_on_the_newest_readable_artefact_unless_it_prefers_others(root: Path) -> None:
    for kind, name, created in (
        ("sae", "demo", "2026-01-02"),
        ("sae", "other", "2026-01-01"),
        ("recording", "demo", "2026-01-03"),
    ):
        path = Workspace(root).path(kind, name) / MANIFEST
        write_json(path, read_json(path) | {"created": f"{created}T00:00:00Z"})
    workspace = Workspace(root)

    def opened(*kinds: str, **prefer: Any) -> tuple[str, str] | None:
        found = workspace.default(*kinds, **prefer)
        return None if found is None else (found.kind, found.name)

    assert opened("sae") == ("sae", "demo")
    assert opened("sae", "recording") == ("recording", "demo")
    assert opened("sae", prefer=lambda m: m.name == "other") == ("sae", "other")
    assert opened("sae", prefer=lambda m: m.name == "nobody") == ("sae", "demo")
    assert opened("atlas") is None
    (root / "saes" / "demo" / MANIFEST).write_text("{ cut")
    assert opened("sae") == ("sae", "other")


def test_artefacts_of_one_second_open_by_name(root: Path) -> None:
    for name in ("demo", "other"):
        path = Workspace(root).path("sae", name) / MANIFEST
        write_json(path, read_json(path) | {"created": "2026-01-01T00:00:00Z"})
    assert [m.name for m in Workspace(root).newest("sae")] == ["demo", "other"]


def test_a_missing_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="workbench demo"):
        Workspace(tmp_path / "nowhere")
    assert Workspace(tmp_path / "new", create=True).artifacts() == []


@pytest.mark.parametrize("url", ["memory:", "memory://demo", "s3://bucket/team", "file:///tmp/x", "https://host/w"])
@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("create", [True, False])
def test_a_url_is_no_folder_of_that_name(
    url: str, kind: type, create: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"a workspace is a folder, got .*aws s3 sync.*workbench verify"):
        Workspace(kind(url), create=create)
    assert not list(tmp_path.iterdir())


def test_a_colon_elsewhere_is_no_url(tmp_path: Path) -> None:
    for name in ("a:b", "memory:", "2026-01-02T03:04"):
        assert Workspace(tmp_path / name, create=True).root == tmp_path / name


def test_a_workspace_that_was_moved_away_is_not_an_empty_one(root: Path) -> None:
    workspace, away = Workspace(root), root.with_name("away")
    root.rename(away)
    for read in (workspace.artifacts, workspace.partials, lambda: workspace.find("demo", "sae"),
                 lambda: Notes.open(workspace)):  # fmt: skip
        with pytest.raises(MissingError, match=r"no folder at .* any more; move the workspace back"):
            read()
    assert not root.exists()
    away.rename(root)
    assert len(workspace.artifacts()) == 3


def test_wrong_names_and_kinds_list_the_nearest(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'demo'"):
        Workspace(root).manifest("sae", "demoo")
    with pytest.raises(UnknownNameError, match="did you mean 'recording'"):
        Workspace(root).names("recordin")


@pytest.mark.parametrize(
    "name",
    ["../sae", "..", "a/b", "/etc", ".hidden", "", "a" * 65, "x.partial", "x.old", "x.tmp", "a\0b", "naïve"],
)
def test_names_cannot_leave_the_workspace(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a usable name"):
        Workspace(root).path("sae", name)


def test_links_out_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "saes" / "link").symlink_to(outside)
    with pytest.raises(ConfigError, match="points outside"):
        Workspace(root).manifest("sae", "link")
    (root / "atlases").symlink_to(outside)
    with pytest.raises(ConfigError, match="points outside"):
        Workspace(root).path("atlas", "x")


@pytest.mark.parametrize("where", ["features.parquet", "deep/er/file.json", "folder"])
def test_a_link_within_an_artefact_is_refused_like_a_linked_artefact(root: Path, tmp_path: Path, where: str) -> None:
    outside = tmp_path / "secret"
    outside.write_text("secret")
    link = root / "saes" / "demo" / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside if "." in where else tmp_path, target_is_directory="." not in where)
    with pytest.raises(ConfigError, match=f"holds a link, {where}"):
        Workspace(root).manifest("sae", "demo")
    assert [broken.name for broken in Workspace(root).broken() if broken.kind == "sae"] == ["demo"]


def test_what_cannot_be_read_is_shown_with_its_reason(root: Path) -> None:
    workspace = Workspace(root)
    newer = root / "saes" / "demo" / MANIFEST
    write_json(newer, {**read_json(newer), "schema_version": 7})
    (root / "saes" / "other" / MANIFEST).write_text("{ cut")
    write_json(
        root / "recordings" / "demo" / MANIFEST, {**read_json(root / "recordings" / "demo" / MANIFEST), "kind": "sae"}
    )
    reasons = {(broken.kind, broken.name): broken.problem for broken in workspace.broken()}
    assert "upgrade the workbench" in reasons["sae", "demo"]
    assert "not valid JSON" in reasons["sae", "other"]
    assert "holds a sae, not a recording" in reasons["recording", "demo"]
    assert workspace.artifacts() == []


def test_work_in_progress_is_listed_apart(root: Path) -> None:
    work = Draft.open(root / "atlases" / "map", kind="atlas", config={})
    work.update(done=4)
    broken = Draft.open(root / "atlases" / "torn", kind="atlas", config={})
    (broken.path / "status.json").write_text("{")
    workspace = Workspace(root)
    found = {partial.name: partial for partial in workspace.partials()}
    assert found["map"].kind == "atlas"
    assert found["map"].status["progress"] == {"done": 4}
    assert found["torn"].status["state"] == "unreadable"
    assert workspace.names("atlas") == []
    with pytest.raises(MissingError, match="unfinished"):
        workspace.manifest("atlas", "map")


def test_a_finished_artefact_is_found_beside_an_unfinished_one_of_its_name(root: Path) -> None:
    make(root, "edge_circuit", "ioi")
    Draft.open(Workspace(root).path("induction_circuit", "ioi"), kind="induction_circuit", config={})
    assert Workspace(root).find("ioi", "induction_circuit", "edge_circuit").kind == "edge_circuit"


def test_tables_are_queried_in_place(root: Path) -> None:
    workspace = Workspace(root)
    path = workspace.table_path("sae", "demo", "sae")
    rows = workspace.query("select feature from f where density > ? order by feature", 0.15, f=path)
    assert rows["feature"].to_pylist() == [1, 2]


def test_a_table_that_was_written_again_is_read_again(root: Path) -> None:
    workspace = Workspace(root)
    path = workspace.table_path("sae", "demo", "sae")
    for n in range(2, 8):  # within one second, and with as many bytes or more
        write_table(path, pa.table({"feature": list(range(n)), "density": [n / 10] * n}))
        found = workspace.query("select * from f where density = ?", n / 10, f=path)
        assert found["feature"].to_pylist() == list(range(n))


def test_missing_and_damaged_tables_are_named(root: Path) -> None:
    workspace = Workspace(root)
    with pytest.raises(CorruptError, match=r"absent\.parquet is missing"):
        workspace.table_path("sae", "demo", "absent")
    path = workspace.table_path("sae", "demo", "sae")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CorruptError, match=r"sae\.parquet.*workbench verify"):
        workspace.query("select * from f", f=path)
    with pytest.raises(ConfigError, match="alias"):
        workspace.query("select 1", **{"a; drop": path})


def test_an_artefact_is_outdated_when_its_parent_has_other_content_now(root: Path) -> None:
    workspace = Workspace(root)
    digest = workspace.manifest("recording", "demo").content_hash
    make(
        root,
        "features",
        "fresh",
        {"recordings/demo": digest, "model:x": "ab", "saes/gone": "cd", "certificates/x": "ef"},
    )
    make(root, "certificate", "x", {})
    found = outdated(workspace.artifacts(), workspace.key)
    assert found["features/fresh"] == [], "its model was examined again, which measures nothing anew"
    assert found["saes/demo"] == ["recordings/demo"], "its parent had the hash 'hash' when it was made"
