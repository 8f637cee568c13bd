"""What packing needs of a tokenizer, and the simplest one: bytes. Torch-free."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back to readable text. No special tokens are added by `encode_batch`."""

    @property
    def bos_token_id(self) -> int | None:
        """The beginning-of-sequence token, None when the model has none."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text."""
        ...

    def token_text(self, token: int) -> str:
        """The text of one token, with plain spaces and newlines."""
        ...


class ByteTokenizer:
    """UTF-8 bytes as tokens 0..255, and 256 for BOS: a small model reads any text without a trained vocabulary."""

    d_vocab = 257
    bos_token_id = 256

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(text.encode("utf-8")) for text in texts]

    def token_text(self, token: int) -> str:
        """ASCII characters as they are, other bytes as `<0xE4>`, BOS as `<bos>`."""
        if token == self.bos_token_id:
            return "<bos>"
        return chr(token) if token < 128 else f"<0x{token:02X}>"
