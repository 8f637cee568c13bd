"""The lexicon is made from WordNet's files: usual senses, capitals, and the classes above; the same bytes each time."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from tools import lexicon

NOUNS = """\
00000001 15 n 01 land 0 000 | a country
00000002 15 n 01 Turkey 0 001 @i 00000001 n 0000 | a land
00000003 15 n 01 France 0 001 @i 00000001 n 0000 | a land
00000004 05 n 01 bird 0 000 | an animal
00000005 05 n 01 turkey 0 001 @ 00000004 n 0000 | a bird
00000006 05 n 01 crane 0 001 @ 00000004 n 0000 | a bird
00000007 06 n 01 crane 0 000 | a machine
"""
SENSES = """\
land%1:15:00:: 00000001 1 5
turkey%1:15:00:: 00000002 2 1
turkey%1:05:00:: 00000005 1 3
france%1:15:00:: 00000003 1 9
bird%1:05:00:: 00000004 1 4
crane%1:05:00:: 00000006 2 0
crane%1:06:00:: 00000007 1 9
"""


def archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as files:
        for name in ("data.noun", "data.verb", "data.adj", "data.adv", "index.sense"):
            text = {"data.noun": "  1 licence\n" + NOUNS, "index.sense": SENSES}.get(name, "").encode()
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(text)
            files.addfile(member, io.BytesIO(text))
    return path


def test_words_get_the_classes_of_their_usual_senses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lexicon, "MIN_WORDS", 2)
    wordnet = lexicon.read_wordnet(archive(tmp_path / "wordnet.tgz"))
    paths = tmp_path / "a.xz", tmp_path / "b.xz"
    for path in paths:
        lexicon.write_lexicon(path, wordnet)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    head, body = lzma.decompress(paths[0].read_bytes()).decode().split("\n\n")
    names = [line.split("|")[0] for line in head.split("\n")]
    entries = dict(line.split(" ", 1) for line in body.splitlines())
    classes = {word: {names[int(n)] for n in text.split()[1:]} for word, text in entries.items()}
    assert "land" in classes["france"]
    assert classes["turkey"] == {"bird"}, "in lower case it is no country"
    assert classes["Turkey"] == {"land"}, "a capital makes it the country"
    assert "bird" not in classes["crane"], "its rare sense"
