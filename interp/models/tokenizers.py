"""One face for the tokenizers of all our models: Hugging Face's, or bytes for small ones."""

from typing import TYPE_CHECKING, Any, Literal, overload

from interp.errors import MissingError
from interp.text.tokenizer import ByteTokenizer, Tokenizer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class HubTokenizer:
    """A Hugging Face tokenizer as `interp.text.tokenizer.Tokenizer`."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @property
    def bos_token_id(self) -> int | None:
        return self.tokenizer.bos_token_id

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def token_text(self, token: int) -> str:
        """Decoded text of one token; a token that is part of a character keeps its raw form, as in `<0xE2>`."""
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if "\ufffd" in text:
            return _raw_bytes(self.tokenizer.convert_ids_to_tokens(token))
        if not text:  # decode drops some whitespace tokens; the piece itself still says what it is
            return str(self.tokenizer.convert_ids_to_tokens(token)).replace("\u2581", " ").replace("\u0120", " ")
        return text


@overload
def tokenizer_of(model: "TransformerBridge", required: Literal[True] = True) -> Tokenizer: ...
@overload
def tokenizer_of(model: "TransformerBridge", required: Literal[False]) -> Tokenizer | None: ...
def tokenizer_of(model: "TransformerBridge", required: bool = True) -> Tokenizer | None:
    """The model's tokenizer; bytes for a model of ours whose vocabulary is bytes and BOS.

    Raises `MissingError` when there is none and one is required.
    """
    if model.tokenizer is not None:
        return HubTokenizer(model.tokenizer)
    if model.cfg.d_vocab == ByteTokenizer.d_vocab:
        return ByteTokenizer()
    if required:
        raise MissingError(
            f"{model.cfg.model_name} has no tokenizer (vocabulary of {model.cfg.d_vocab}); give it token ids, "
            f"not text, or build it with d_vocab={ByteTokenizer.d_vocab} to read bytes"
        )
    return None


def _raw_bytes(piece: str) -> str:
    """`<0xE2>` for each byte that a byte-level piece stands for."""
    table = _byte_of_character()
    return "".join(f"<0x{table[c]:02X}>" if c in table else c for c in piece)


def _byte_of_character() -> dict[str, int]:
    """The GPT-2 byte alphabet: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + place): byte for place, byte in enumerate(hidden)}
