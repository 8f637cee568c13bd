"""Requests to a provider within a budget, and their replies on disk. Torch-free.

`ProviderRequest`, `ProviderReply` and `Provider` are the interface between `explain` and the language model that
answers. `count` gives the cost as a `RequestPlan` before anything is sent; `Budget` limits the requests; `Asker` sends
them.

Each reply is written as soon as it arrives, as one JSON line of `replies.jsonl`. Its key is a hash of the prompt, the
settings and the provider, so a resumed run or another labels artefact reuses it. After a `kill -9` only the requests in
flight are sent again.

`ask_all` asks a provider without a budget: for texts written as two characters.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from interp.artifacts import atomic_file, disk_errors, hash_json
from interp.errors import ConfigError, ResourceError


@dataclass(frozen=True)
class ProviderRequest:
    """One user message, with the settings that determine its reply."""

    content: str
    max_tokens: int
    temperature: float = 0.0
    start: str = ""
    """Text that the reply is forced to begin with; only for providers that support it (`starts`)."""
    bits: int = 0
    """With a `start`: the number of zeros and ones that follow it, the likelier of the two each time."""

    def key(self, identity: dict[str, str]) -> str:
        """Return the sha256 of message, settings and provider."""
        return hash_json({**identity, **asdict(self)})


@dataclass(frozen=True)
class ProviderReply:
    """Reply of a provider to one request."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool = False
    """True when the reply was cut off at the limit of tokens."""


class Provider(Protocol):
    """A language model that replies to one user message."""

    model: str
    """Its name, as shown with a label."""
    where: str
    """Its address, or `this machine`, for display."""
    remote: bool
    """True when text leaves this process."""
    concurrency: int
    """Largest number of requests at a time."""
    starts: bool
    """True when a reply can be forced to begin with a given text, so that a small model answers in the right form."""

    @property
    def identity(self) -> dict[str, str]:
        """Return the facts about the provider that determine a reply, for the key of the cache. No secrets."""
        ...

    def complete(self, request: ProviderRequest, *, before_send: Callable[[], None]) -> ProviderReply:
        """Return the reply to a request. `before_send` is called before every attempt and may raise.

        Raises `ConfigError` (refused, and a retry cannot help), `MissingError` (no provider at this address),
        `ResourceError` (every attempt failed).
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text; an estimate when the tokenizer is not available."""
        ...


REPLIES = "replies.jsonl"
Lines = dict[str, dict[str, Any]]
"""Lines of a file of replies, by key."""


class Budget:
    """A hard limit on the number of requests sent, failed attempts included."""

    def __init__(self, most: int):
        self.most, self.sent = most, 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """Count one request. Raises `ResourceError` once the budget is spent."""
        with self._lock:
            if self.sent >= self.most:
                raise ResourceError(
                    f"the budget of {self.most:,} requests is spent; the replies so far are saved: run the same "
                    "command again to go on, with a larger --max-requests"
                )
            self.sent += 1


class Transcript:
    """Replies in a file of JSON lines, and the lines of other files that may be reused."""

    def __init__(self, path: Path, others: Lines | None = None):
        self.path, self._others = path, others or {}
        self._lock = threading.Lock()
        self._own = read_lines([path])
        _cut_torn_line(path)

    def __contains__(self, key: str) -> bool:
        return key in self._own or key in self._others

    def reply(self, key: str) -> ProviderReply | None:
        """Return the reply with this key, of this file or another; None when there is none."""
        return reply_of(self._own.get(key) or self._others.get(key))

    def add(self, key: str, request: ProviderRequest, reply: ProviderReply) -> None:
        """Append a reply to the file; it is on the disk when this returns."""
        self._append(key, {"key": key, **asdict(request), **asdict(reply)})

    def reuse(self, key: str) -> None:
        """Copy a reply of another file into this one, unless it is here already."""
        if key not in self._own:
            self._append(key, self._others[key])

    def finish(self, keys: Iterable[str]) -> None:
        """Rewrite the file with these replies in this order, so that the same run gives the same bytes."""
        with atomic_file(self.path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
            handle.writelines(_dump(self._own[key]) for key in dict.fromkeys(keys))

    def _append(self, key: str, line: dict[str, Any]) -> None:
        with self._lock, disk_errors(self.path), open(self.path, "a", encoding="utf-8") as handle:
            handle.write(_dump(line))
            handle.flush()
            os.fsync(handle.fileno())
            self._own[key] = line


class _Stopped(Exception):
    """Raised before sending when another request has failed."""


class Asker:
    """Sends requests to a provider, several at a time, each once."""

    def __init__(
        self, provider: Provider, transcript: Transcript, budget: Budget, progress: Callable[[], None] | None = None
    ):
        self.provider, self.transcript, self.budget = provider, transcript, budget
        self.identity = provider.identity
        self.keys: list[str] = []
        """Keys of the requests, in the order asked."""
        self._progress = progress or (lambda: None)
        self._stopped = threading.Event()

    def ask(self, requests: Sequence[ProviderRequest]) -> list[ProviderReply]:
        """Return one reply per request. The first error stops the rest; replies already under way are still saved."""
        wanted = {request.key(self.identity): request for request in requests}
        for key in wanted:
            if key in self.transcript:
                self.transcript.reuse(key)
                self._progress()
        missing = [key for key in wanted if key not in self.transcript]
        with ThreadPoolExecutor(self.provider.concurrency) as pool:
            futures = [pool.submit(self._one, key, wanted[key]) for key in missing]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                if not all(future.done() and not future.exception() for future in futures):
                    self._stopped.set()
                    pool.shutdown(wait=False, cancel_futures=True)
        errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
            raise error
        keys = [request.key(self.identity) for request in requests]
        self.keys += keys
        return [reply for key in keys if (reply := self.transcript.reply(key)) is not None]

    def _one(self, key: str, request: ProviderRequest) -> None:
        reply = self.provider.complete(request, before_send=self._before_send)
        self.transcript.add(key, request, reply)
        self._progress()

    def _before_send(self) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self.budget.take()


def read_lines(paths: Iterable[Path]) -> Lines:
    """Return the lines of files of replies, by key. Missing files count as empty; damaged lines are skipped."""
    lines: Lines = {}
    for path in paths:
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                reply = json.loads(line)
                reply_of(reply)
                lines[reply["key"]] = reply
            except (ValueError, KeyError, TypeError):
                continue
    return lines


def reply_of(line: dict[str, Any] | None) -> ProviderReply | None:
    """Return the reply that a line holds; None for no line."""
    return None if line is None else ProviderReply(line["text"], line["tokens_in"], line["tokens_out"], line["cut"])


def _cut_torn_line(path: Path) -> None:
    """Cut the file after its last whole line: a process killed while writing may have left half of one."""
    if path.is_file():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with disk_errors(path), open(path, "r+b") as handle:
                handle.truncate(whole)


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=True, sort_keys=True) + "\n"


UNKNOWN_LABEL = "words that name a place, a person or a thing, right after a preposition or an article"
"""Placeholder of average length for a label that is not written yet, when the tokens of prompts are counted."""


@dataclass(frozen=True, kw_only=True)
class RequestPlan:
    """Requests still to be sent, and their tokens."""

    requests: dict[str, int] = field(default_factory=dict)
    """Number of requests to send for each purpose (`explanation`, `detection`, `fuzzing`)."""
    cached: int = 0
    """Number of requests already answered, in this unfinished run or in another labels artefact."""
    tokens_in: int = 0
    """Tokens of the prompts. For an endpoint an estimate, as its tokenizer is not available; for a local model exact
    except for labels not yet written."""
    tokens_out_most: int = 0
    """Upper bound on the tokens of all replies."""

    @property
    def total(self) -> int:
        """Number of requests to send."""
        return sum(self.requests.values())

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the upper bound on the cost, at prices per million tokens and with every reply at its limit."""
        return (self.tokens_in * price_in + self.tokens_out_most * price_out) / 1e6

    def check(self, max_requests: int) -> None:
        """Raise `ConfigError` when the plan exceeds the budget before any retry."""
        if self.total > max_requests:
            raise ConfigError(
                f"this takes {self.total:,} requests, the budget is {max_requests:,}; choose fewer features, or raise "
                "--max-requests"
            )

    def __str__(self) -> str:
        if not self.total:
            return f"nothing to send: all {self.cached:,} replies are here already"
        parts = ", ".join(f"{n:,} {purpose}" for purpose, n in self.requests.items() if n)
        cached = f"; {self.cached:,} more are answered already" if self.cached else ""
        return (
            f"{self.total:,} requests to send ({parts}{cached}), about {self.tokens_in:,} tokens in, "
            f"at most {self.tokens_out_most:,} out"
        )


def count(
    provider: Provider,
    wanted: Sequence[tuple[str, ProviderRequest]],
    known: Callable[[ProviderRequest], ProviderReply | None],
) -> RequestPlan:
    """Return the plan for `(purpose, request)` pairs; a request that occurs twice is sent once."""
    requests: dict[str, int] = {}
    cached = tokens_in = tokens_out = 0
    for request, purpose in {request: purpose for purpose, request in wanted}.items():
        if known(request) is not None:
            cached += 1
            continue
        requests[purpose] = requests.get(purpose, 0) + 1
        tokens_in += provider.count_tokens(request.content)
        tokens_out += request.max_tokens
    return RequestPlan(requests=requests, cached=cached, tokens_in=tokens_in, tokens_out_most=tokens_out)


WRITTEN_TOKENS = 40
"""Longest passage that is written for an opening."""
_WRITE = """\
Go on with a text in one sentence of at most fifteen words, as somebody who is very {trait} would. Reply with the \
words that follow and nothing else.

The text begins: {start}"""


def ask_all(
    provider: Provider, requests: Sequence[ProviderRequest], report: Callable[[], None] | None = None
) -> list[str]:
    """Return the replies to requests, several at a time; `report` is called after each. Raises as `Provider.complete`
    does."""
    with tempfile.TemporaryDirectory() as folder:
        asker = Asker(provider, Transcript(Path(folder) / REPLIES), Budget(2 * len(requests) + 10), report)
        return [reply.text for reply in asker.ask(requests)]


def written_by(provider: Provider) -> Callable[[str, Sequence[str]], list[str]]:
    """Return a function that writes what follows some openings, as somebody with a trait."""

    def write(trait: str, starts: Sequence[str]) -> list[str]:
        requests = [ProviderRequest(_WRITE.format(trait=trait, start=start), WRITTEN_TOKENS) for start in starts]
        return [_continuation(reply, start) for reply, start in zip(ask_all(provider, requests), starts, strict=True)]

    return write


def _continuation(reply: str, start: str) -> str:
    """Return the first line of a reply without quotes and without the opening, after a space."""
    first = next((line for line in reply.splitlines() if line.strip()), "")
    return " " + first.strip(' "').removeprefix(start).strip(" .")
