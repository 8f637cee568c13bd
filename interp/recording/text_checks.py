"""Problems of a recording's text: tokens out of order, twice or missing, and other tokens than its corpus gives."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from interp.errors import WorkbenchError
from interp.recording.store import Recording
from interp.recording.writer import text_files
from interp.text.corpora import Corpus, open_corpus
from interp.text.tokens import Tokenizer, shard_texts


def order_problems(recording: Recording) -> Iterator[str]:
    """Yield where tokens are not in document order: a shard is repeated or missing."""
    before = torch.tensor([[-1], [0]])
    for shard in range(recording.n_shards):
        found = recording.token_shard(shard)
        real = found.document >= 0
        document, position = torch.cat([before, torch.stack([found.document, found.position])[:, real].long()], 1)
        goes_on = (document.diff() == 0) & (position.diff() == 1)
        begins = (document.diff() > 0) & (position[1:] == 0)
        if len(wrong := (~(goes_on | begins)).nonzero()):
            yield (
                f"tokens/{shard:05d}.safetensors: {_token(document, position, int(wrong[0]) + 1)} follows "
                f"{_token(document, position, int(wrong[0]))}: text is there twice, or is missing"
            )
        before = torch.stack([document, position])[:, -1:]


def _token(document: Tensor, position: Tensor, at: int) -> str:
    return f"token {int(position[at])} of document {int(document[at])}" if document[at] >= 0 else "the beginning"


def corpus_problems(recording: Recording, corpus: Corpus, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the shards whose text differs from that of their corpus, read again by one process."""
    text, settings = recording.artefact.settings.text, recording.artefact.settings
    assert text is not None, "planted features have no text"
    stored = recording.manifest.files
    for shard in shard_texts(
        corpus,
        tokenizer,
        context_length=settings.context_length,
        bos=settings.bos,
        n_tokens=settings.n_tokens,
        shard_contexts=text.shard_rows // settings.context_length,
    ):
        for relative, content in text_files(shard).items():
            if stored.get(relative, {}).get("sha256") != hashlib.sha256(content).hexdigest():
                yield f"{relative}: holds other text than {text.corpus} gives"


def source_of_text(recording: Recording) -> tuple[Corpus, Tokenizer] | str:
    """Return the corpus and tokenizer that a recording was made with, or why it cannot be compared with them."""
    from interp.models.identity import vocabulary_hash
    from interp.models.loading import chat_template, load_tokenizer

    text, settings = recording.artefact.settings.text, recording.artefact.settings
    if text is None:
        return "planted features have no text"
    if text.corpus.startswith("hub:"):
        return f"{text.corpus} would have to be downloaded"
    try:
        template = chat_template(settings.model)
        corpus = open_corpus(text.corpus, seed=recording.manifest.seed or 0, template=template)
        if corpus.hash != text.corpus_hash:
            return f"{text.corpus} has changed since"
        tokenizer = load_tokenizer(settings.model)
    except WorkbenchError as error:
        return str(error)
    if vocabulary_hash(tokenizer) != text.tokenizer_hash:
        return f"{settings.model} has another tokenizer now"
    return corpus, tokenizer


def text_problems(recording: Recording) -> tuple[list[str], str]:
    """Return what is wrong with the text of a recording, and why it was not compared with its corpus, if so."""
    problems = list(order_problems(recording))
    source = source_of_text(recording)
    if isinstance(source, str):
        return problems[:3], source
    return [*problems, *corpus_problems(recording, *source)][:3], ""
