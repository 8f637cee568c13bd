"""Requests to a provider and their replies on disk, within a budget. Torch-free.

`Request`, `Reply` and `Provider` are the contract between `explain` and whatever answers it. The cost is counted before
anything is sent. A reply is written as soon as it arrives, one JSON line in `replies.jsonl`, under a key made of prompt,
settings and provider, so that a resumed run or another labels artefact reuses it. After a `kill -9` only the requests in
flight are sent again.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from interp.artifacts import atomic_file, disk_errors, hash_json
from interp.errors import ConfigError, ResourceError


@dataclass(frozen=True)
class Request:
    """One user message with what decides its reply."""

    content: str
    max_tokens: int
    temperature: float = 0.0
    start: str = ""
    """words that the reply is made to begin with; only for providers that can (`starts`)"""
    bits: int = 0
    """with a `start`: what follows is so many zeros and ones, at each place the likelier one"""

    def key(self, identity: dict[str, str]) -> str:
        """sha256 over message, settings and provider."""
        return hash_json({**identity, **asdict(self)})


@dataclass(frozen=True)
class Reply:
    """What came back."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool = False
    """it ran into the limit of tokens"""


class Provider(Protocol):
    """Something that continues a chat of one user message."""

    model: str
    """its name, as shown beside a label"""
    where: str
    """for people: the address, or `this machine`"""
    remote: bool
    """whether text leaves this process"""
    concurrency: int
    """requests that it takes at a time"""
    starts: bool
    """whether it can be made to begin a reply with given words, which keeps a small model to the form asked for"""

    @property
    def identity(self) -> dict[str, str]:
        """What decides a reply besides the prompt and its settings; a part of the key of the cache. No secrets."""
        ...

    def complete(self, request: Request, *, before_send: Callable[[], None]) -> Reply:
        """The reply to a request. `before_send` is called before every attempt and may raise.

        Raises `ConfigError` (refused for good), `MissingError` (nothing there), `ResourceError` (tried in vain).
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; an estimate where the tokenizer is not at hand."""
        ...


REPLIES = "replies.jsonl"
Lines = dict[str, dict[str, Any]]
"""key -> line of a file of replies"""


class Budget:
    """A hard limit on requests sent, attempts that fail included."""

    def __init__(self, most: int):
        self.most, self.sent = most, 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """Count one request. Raises `ResourceError` once the budget is spent."""
        with self._lock:
            if self.sent >= self.most:
                raise ResourceError(
                    f"the budget of {self.most:,} requests is spent; what was answered is kept: run the same command "
                    "again to go on, with a larger --max-requests"
                )
            self.sent += 1


class Transcript:
    """Replies in a file of JSON lines, and the lines of other files that may be used as well."""

    def __init__(self, path: Path, others: Lines | None = None):
        self.path, self._others = path, others or {}
        self._lock = threading.Lock()
        self._own = read_lines([path])
        _cut_torn_line(path)

    def __contains__(self, key: str) -> bool:
        return key in self._own or key in self._others

    def reply(self, key: str) -> Reply | None:
        """The reply that is kept under a key."""
        return reply_of(self._own.get(key) or self._others.get(key))

    def add(self, key: str, request: Request, reply: Reply) -> None:
        """Write a reply down; it is on the disk when this returns."""
        self._append(key, {"key": key, **asdict(request), **asdict(reply)})

    def keep(self, key: str) -> None:
        """Take a reply of another file into this one."""
        if key not in self._own:
            self._append(key, self._others[key])

    def finish(self, keys: Iterable[str]) -> None:
        """Rewrite the file with these replies in this order: the same run gives the same bytes."""
        with atomic_file(self.path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
            handle.writelines(_dump(self._own[key]) for key in dict.fromkeys(keys))

    def _append(self, key: str, line: dict[str, Any]) -> None:
        with self._lock, disk_errors(self.path), open(self.path, "a", encoding="utf-8") as handle:
            handle.write(_dump(line))
            handle.flush()
            os.fsync(handle.fileno())
            self._own[key] = line


class _Stopped(Exception):
    """Another request has failed."""


class Asker:
    """Puts requests to a provider, several at a time, each once."""

    def __init__(
        self, provider: Provider, transcript: Transcript, budget: Budget, progress: Callable[[], None] | None = None
    ):
        self.provider, self.transcript, self.budget = provider, transcript, budget
        self.identity = provider.identity
        self.asked: list[str] = []
        """keys in the order asked"""
        self._progress = progress or (lambda: None)
        self._stopped = threading.Event()

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply per request. The first error stops the rest; what is on its way is still written down."""
        wanted = {request.key(self.identity): request for request in requests}
        for key in wanted:
            if key in self.transcript:
                self.transcript.keep(key)
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
        self.asked += keys
        return [reply for key in keys if (reply := self.transcript.reply(key)) is not None]

    def _one(self, key: str, request: Request) -> None:
        reply = self.provider.complete(request, before_send=self._before_send)
        self.transcript.add(key, request, reply)
        self._progress()

    def _before_send(self) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self.budget.take()


def read_lines(paths: Iterable[Path]) -> Lines:
    """The lines of files of replies, by key. Missing files have none; a damaged line is left out and asked again."""
    found: Lines = {}
    for path in paths:
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                kept = json.loads(line)
                reply_of(kept)
                found[kept["key"]] = kept
            except (ValueError, KeyError, TypeError):
                continue
    return found


def reply_of(line: dict[str, Any] | None) -> Reply | None:
    """The reply in a line."""
    return None if line is None else Reply(line["text"], line["tokens_in"], line["tokens_out"], line["cut"])


def _cut_torn_line(path: Path) -> None:
    """End the file at its last whole line: a process killed while writing may have left half of one."""
    if path.is_file():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with disk_errors(path), open(path, "r+b") as handle:
                handle.truncate(whole)


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=True, sort_keys=True) + "\n"


UNKNOWN_LABEL = "words that name a place, a person or a thing, right after a preposition or an article"
"""stands in prompts for a label that is not written yet, when their tokens are counted"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Requests still to be sent, and their tokens."""

    requests: dict[str, int] = field(default_factory=dict)
    """purpose (`explanation`, `detection`, `fuzzing`) -> requests to send"""
    cached: int = 0
    """requests already answered: in this unfinished run or in another labels artefact"""
    tokens_in: int = 0
    """an estimate for an endpoint, whose tokenizer is not at hand; exact but for labels not yet written otherwise"""
    tokens_out_most: int = 0
    """every reply as long as it may be"""

    @property
    def total(self) -> int:
        """Requests to send."""
        return sum(self.requests.values())

    def cost(self, price_in: float, price_out: float) -> float:
        """Money at prices per million tokens, every reply as long as it may be."""
        return (self.tokens_in * price_in + self.tokens_out_most * price_out) / 1e6

    def check(self, max_requests: int) -> None:
        """Raise `ConfigError` when the plan alone is over the budget."""
        if self.total > max_requests:
            raise ConfigError(
                f"this takes {self.total:,} requests, the budget is {max_requests:,}; choose fewer features, or raise "
                "--max-requests"
            )

    def __str__(self) -> str:
        if not self.total:
            return f"nothing to send: all {self.cached:,} replies are here already"
        parts = ", ".join(f"{n:,} {purpose}" for purpose, n in self.requests.items() if n)
        kept = f"; {self.cached:,} more are answered already" if self.cached else ""
        return (
            f"{self.total:,} requests to send ({parts}{kept}), about {self.tokens_in:,} tokens in, "
            f"at most {self.tokens_out_most:,} out"
        )


def count(provider: Provider, wanted: Sequence[tuple[str, Request]], known: Callable[[Request], Reply | None]) -> Plan:
    """The plan for some (purpose, request): a request that occurs twice is sent once."""
    requests: dict[str, int] = {}
    cached = tokens_in = tokens_out = 0
    for request, purpose in {request: purpose for purpose, request in wanted}.items():
        if known(request) is not None:
            cached += 1
            continue
        requests[purpose] = requests.get(purpose, 0) + 1
        tokens_in += provider.count_tokens(request.content)
        tokens_out += request.max_tokens
    return Plan(requests=requests, cached=cached, tokens_in=tokens_in, tokens_out_most=tokens_out)
