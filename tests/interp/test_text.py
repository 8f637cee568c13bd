"""Documents are the same every time, every token of a context is accounted for, and bad files are named."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.models.loading import chat_template
from interp.text import corpora
from interp.text.corpora import TXT_DOCUMENT_CHARS, Document, corpus_hash, open_corpus, with_column
from interp.text.tokens import ByteTokenizer, pack

PROSE = (
    "This paragraph has two sentences and is long enough to count as prose. It speaks about nothing in particular, "
    "which is what a test needs, and ends with a full stop."
)


def take(spec: str, n: int, seed: int = 0) -> list[Document]:
    return list(itertools.islice(open_corpus(spec, seed=seed), n))


def test_docstrings_are_the_same_for_a_seed_and_a_mix_of_packages() -> None:
    documents = take("docstrings", 60)
    assert documents == take("docstrings", 60)
    assert documents[:10] != take("docstrings", 10, seed=1)
    assert len({document.label for document in documents}) >= 8
    assert len({document.id for document in documents}) == 60
    assert not {document.label for document in documents} & corpora.PACKAGES_LEFT_OUT
    paragraphs = [p for document in documents for p in document.text.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)


def test_docstring_hash_follows_the_seed() -> None:
    assert corpus_hash(open_corpus("docstrings")) == corpus_hash(open_corpus("docstrings"))
    assert corpus_hash(open_corpus("docstrings")) != corpus_hash(open_corpus("docstrings", seed=1))


def test_prose_is_told_from_code_and_lists(tmp_path: Path) -> None:
    source = f'''"""{PROSE}

    >>> print("{PROSE}")

    x : int
        {PROSE}
    """
def kept():
    """Short.

    {PROSE.replace("paragraph", "method")}

    Too short to keep. It really is."""
class Outer:
    if True:
        def inner(self):
            """{PROSE.replace("paragraph", "inner text")}"""
'''
    (tmp_path / "module.py").write_text(source)
    assert list(corpora.prose_of(tmp_path / "module.py")) == [
        PROSE,
        PROSE.replace("paragraph", "method"),
        PROSE.replace("paragraph", "inner text"),
    ]
    (tmp_path / "broken.py").write_text("def (:")
    assert list(corpora.prose_of(tmp_path / "broken.py")) == []


def test_text_files_are_grouped_paragraphs_and_lose_nothing(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n}. " + "word " * (20 * (n % 5 + 1)) for n in range(40)]
    (tmp_path / "notes.txt").write_text("\n\n\n".join(paragraphs))
    documents = list(open_corpus(str(tmp_path / "notes.txt")))
    assert "\n\n".join(d.text for d in documents).split() == " ".join(paragraphs).split()
    assert all(len(d.text) >= TXT_DOCUMENT_CHARS for d in documents[:-1])
    assert [d.id for d in documents[:2]] == ["notes.txt#0", "notes.txt#1"]
    assert {d.label for d in documents} == {"notes"}


def test_a_folder_is_its_text_files_in_name_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    assert [(d.text, d.label) for d in open_corpus(str(tmp_path))] == [("text of a", "a"), ("text of b", "b")]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_keep_their_id_and_label(suffix: str, tmp_path: Path) -> None:
    rows = [{"text": "one", "id": "first", "label": "l"}, {"text": "two", "id": None, "label": None}]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    corpus = open_corpus(str(path))
    expected = [Document("one", "first", "l"), Document("two", f"rows{suffix}#1", "rows")]
    assert list(corpus) == list(corpus) == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_another_column_is_read_and_belongs_to_the_hash(suffix: str, tmp_path: Path) -> None:
    path, rows = tmp_path / f"rows{suffix}", [{"text": "a summary", "body": "the page", "label": "l"}]
    if suffix == ".jsonl":
        path.write_text(json.dumps(rows[0]))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert list(open_corpus(with_column(str(path), "body"))) == [Document("the page", f"rows{suffix}#0", "l")]
    assert open_corpus(f"{path}?column=body").hash != open_corpus(str(path)).hash
    with pytest.raises(ConfigError, match=r"no column `title` \(columns: text, body, label\)"):
        list(open_corpus(f"{path}?column=title"))
    with pytest.raises(ConfigError, match="not of docstrings"):
        with_column("docstrings", "body")


def test_conversations_of_both_forms_go_through_the_template(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    forms = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}], [
        {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"},
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps({"messages": form}) for form in forms))
    spec = with_column(str(path), "messages")
    documents = list(open_corpus(spec, template=lambda chat: " / ".join(f"{m['role']}: {m['content']}" for m in chat)))
    assert [each.text for each in documents] == ["user: Hi / assistant: Yes?"] * 2
    with pytest.raises(ConfigError, match="holds conversations, which only"):
        list(open_corpus(spec))
    path.write_text(json.dumps({"messages": ["Hi"]}))
    with pytest.raises(ConfigError, match="entries are not messages"):
        list(open_corpus(spec, template=str))


def test_a_conversation_is_written_as_the_model_reads_it() -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    written = chat_template("smollm2-135m")(chat)
    assert written.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n")
    with pytest.raises(ConfigError, match="small:mlp-1l has no chat template"):
        chat_template("small:mlp-1l")(chat)


def test_the_corpus_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = open_corpus(str(path)).hash
    assert open_corpus(str(path)).hash == before
    path.write_text("two")
    assert open_corpus(str(path)).hash != before


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt", b"fine\n\ncaf\xe9 au lait", CorruptError, r"line 3 is not UTF-8 \(byte 0xe9\)"),
        ("a.txt", b" \n\n", MissingError, "holds no text"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', CorruptError, "line 2 is not JSON"),
        ("a.jsonl", b"[1]", CorruptError, "is a list"),
        ("a.jsonl", b'{"body": "x", "n": 1}', ConfigError, r"no column `text` \(columns: body, n\)"),
        ("a.jsonl", b'{"text": 5}', ConfigError, "holds int"),
        ("a.jsonl", b"", MissingError, "holds no text"),
    ],
)
def test_bad_files_are_named_in_one_line(name: str, content: bytes, error: type, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        list(open_corpus(str(tmp_path / name)))
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_is_named_in_one_line(damage_file, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"page {n}" for n in range(500)]}), tmp_path / "a.parquet")
    damage_file(tmp_path / "a.parquet")
    with pytest.raises(CorruptError, match=r"cannot read .*a\.parquet: .*copy the file again") as caught:
        list(open_corpus(str(tmp_path / "a.parquet")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("docstring", UnknownNameError, "did you mean 'docstrings'"),
        ("nothing/here.txt", MissingError, "no corpus file"),
        ("hub:", ConfigError, r"hub:NAME"),
        ("hub:a:b:c:d", ConfigError, r"hub:NAME"),
    ],
)
def test_unknown_corpora_are_answered(spec: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        open_corpus(spec)


def test_an_unreachable_hub_and_other_file_types_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="hub, which cannot be reached"):
        take("hub:owner/name:config:train", 1)
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(UnknownNameError, match=r"\.jsonl"):
        open_corpus(str(tmp_path / "a.pdf"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"no \.txt files"):
        open_corpus(str(tmp_path / "empty"))


def test_hub_rows_are_streamed_with_the_config_and_split_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from interp.text import corpora as hub

    asked = []

    def load_dataset(name, config, *, split, streaming):
        asked.append((name, config, split, streaming))
        return ({"text": f"row {n}", "label": n % 2} for n in itertools.count())

    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert take("hub:owner/name:small:test", 2) == [
        Document("row 0", "owner/name#0", "0"),
        Document("row 1", "owner/name#1", "1"),
    ]
    assert asked == [("owner/name", "small", "test", True)]


@given(
    texts=st.lists(st.text(max_size=40), min_size=1, max_size=12),
    length=st.integers(2, 17),
    bos=st.sampled_from(["context", "document", "none"]),
)
@settings(max_examples=80, deadline=None)
def test_packing_accounts_for_every_token(texts: list[str], length: int, bos: str) -> None:
    tokenizer = ByteTokenizer()
    documents = [Document(text, str(n), "") for n, text in enumerate(texts)]
    contexts = list(pack(documents, tokenizer, length, bos))
    assert all(column.shape == (length,) and column.dtype == np.int32 for context in contexts for column in context)
    empty = np.empty((0, 3, length), dtype=np.int32)
    columns = np.array([np.stack(context) for context in contexts]) if contexts else empty
    tokens, document, position = columns.transpose(1, 0, 2).reshape(3, -1)
    found = [(int(d), int(p), int(t)) for t, d, p in zip(tokens, document, position, strict=True) if d >= 0]
    expected = [(n, p, t) for n, text in enumerate(texts) for p, t in enumerate(text.encode())]
    assert found == expected
    other = document < 0
    assert bool((tokens[other] == tokenizer.bos_token_id).all())
    assert bool((position[other] == -1).all())
    if bos == "context":
        assert all(context.document[0] == -1 for context in contexts)
    padding = len(contexts) * length - len(expected)
    structural = {"context": len(contexts), "document": sum(bool(t) for t in texts), "none": 0}[bos]
    assert 0 <= padding - structural < length


def test_packing_needs_the_bos_it_is_asked_for() -> None:
    class NoBos(ByteTokenizer):
        bos_token_id = None

    with pytest.raises(ConfigError, match="no BOS token; use bos='none'"):
        next(pack([Document("abc", "", "")], NoBos(), 8, "context"))
    assert len(list(pack([Document("abcdefghi", "", "")], NoBos(), 8, "none"))) == 2
    with pytest.raises(ConfigError, match="at least 2"):
        next(pack([Document("abc", "", "")], ByteTokenizer(), 1, "none"))
    with pytest.raises(UnknownNameError, match="document"):
        next(pack([Document("abc", "", "")], ByteTokenizer(), 8, "documents"))  # type: ignore[arg-type]
