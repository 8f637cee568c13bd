"""Every page of the dashboard shows the same of a workspace in a bucket as of one in a folder."""

import re
import shutil
from pathlib import Path

import pytest
from fake_live import FakeLive
from make_workspace import build
from s3_server import BUCKET, new_machine, running
from visit import ERROR, Visitor

from dashboard.app import create_app
from dashboard.components.pages import artefact_href
from dashboard.data.features import examples_between
from dashboard.data.workspace import stamp
from interp import remote
from interp.artifacts import copy_artefact, verify
from interp.cache import FileCache
from interp.workspace import Workspace, move_to_trash
from saes.features.schema import Features
from workbench.commands import Commands

SIZES = {"n_features": 60, "n_points": 80}
STAMP = re.compile(r'"data": "([0-9a-f]{16}){1,4}"|\d+(\.\d+)? (s|seconds|ms)\b')
"""Fingerprints of listings, which differ between the two; ids of sessions; how long a page took."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = build(tmp_path_factory.mktemp("folder") / "w", **SIZES)
    shutil.rmtree(found.root / "saes" / "wide.partial")  # unfinished work is seen on its own machine only
    return found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, local: Workspace):
    """The same, copied into a bucket by one machine and seen from another."""
    with running() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        target = Workspace(BUCKET, create=True)
        for each in local.artifacts():
            copy_artefact(local.path(each.kind, each.name), target.path(each.kind, each.name))
        new_machine(tmp_path_factory.mktemp("other"))
        server.log.clear()
        yield Workspace(BUCKET)


def shown(workspace: Workspace, *addresses: str) -> dict[str, str]:
    """Return pages by their address, without what differs between two copies."""
    visitor, found = Visitor(create_app(workspace, live=FakeLive())), {}
    for address in addresses:
        text = visitor.open(address)
        assert ERROR not in text, address
        text = text.replace(workspace.address, "WORKSPACE").replace(stamp(workspace), "STAMP")
        found[address] = STAMP.sub("STAMP", text)
    return found


def test_a_copy_has_the_same_artefacts(local: Workspace, bucket: Workspace) -> None:
    def known(workspace: Workspace) -> dict[str, tuple[str, dict]]:
        return {workspace.key(each): (each.content_hash, each.parents) for each in workspace.artifacts()}

    assert known(bucket) == known(local)
    assert len(known(bucket)) > 12
    assert bucket.broken() == []
    for each in bucket.artifacts():
        assert verify(bucket.path(each.kind, each.name)) == []


def test_every_page_shows_the_same(local: Workspace, bucket: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "IN_PLACE", 0)  # small as they are, tables are read in place
    monkeypatch.setattr(FileCache, "GRACE", 0.0)
    monkeypatch.setenv("INTERP_CACHE_GB", "0.0001")  # and what is fetched is soon dropped
    visitor = Visitor(create_app(local, live=FakeLive()))
    pages = {each["path"] for each in visitor.pages} - {"/404", "/runs", "/notes"}
    addresses = sorted(pages | {artefact_href(local, local.key(each)) for each in local.artifacts()})
    here, there = shown(local, *addresses), shown(bucket, *addresses)
    for address in addresses:
        assert there[address] == here[address], address


def test_pages_of_what_is_local_say_where_it_is(bucket: Workspace) -> None:
    found = shown(bucket, "/runs", "/notes")
    assert "saes/demo" in found["/runs"]
    assert "interp-workbench/notes" in found["/notes"]


def test_runs_from_the_page_name_the_bucket(bucket: Workspace) -> None:
    words = Commands(bucket).arguments("features", {"dictionary": "demo", "overwrite": True})
    assert words[-2:] == ["--workspace", BUCKET]


def test_examples_come_from_their_row_groups(local: Workspace, bucket: Workspace) -> None:
    assert examples_between(bucket.open(Features, "demo"), 3, 0.0, 1e9) == examples_between(
        local.open(Features, "demo"), 3, 0.0, 1e9
    )


def test_the_overview_notices_what_another_machine_deletes(bucket: Workspace, tmp_path: Path) -> None:
    before = stamp(bucket)
    assert stamp(bucket) == before
    (gone,) = bucket.artifacts("grokking")
    new_machine(tmp_path)
    other = Workspace(BUCKET)
    move_to_trash(other, other.key(gone))
    assert bucket.remote
    bucket.remote.forget_listing()
    assert stamp(bucket) != before
    assert gone.name not in bucket.names("grokking")
