"""Requests to an endpoint, counted before they are sent, and their replies on disk. Torch-free.

Each reply is written as soon as it arrives, as one JSON line of `replies.jsonl`, by the hash of prompt, limit and
endpoint. An interrupted run finds it there, so after a `kill -9` only the requests in flight are sent again.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.artifacts import atomic_file, disk_errors
from saes.explain.endpoint import Endpoint, EndpointReply, EndpointRequest

REPLIES = "replies.jsonl"
CONCURRENCY = 4
"""Requests under way at a time."""
BYTES_PER_TOKEN = 3.5
"""That the estimate assumes. English and code have about 4; a cost should be estimated too high."""
Replies = dict[str, EndpointReply]
"""Replies by key."""


def ask(
    endpoint: Endpoint, requests: Sequence[EndpointRequest], path: Path, known: Replies, report: Callable[[], None]
) -> list[EndpointReply]:
    """Return one reply per request. Those that `known` lacks are asked for, several at a time, and added to it.

    Each is on the disk, in the file `path`, before `report` is called. The first error stops the rest.
    """
    missing = {endpoint.key_of(request): request for request in requests}
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures = {pool.submit(endpoint.complete, missing[key]): key for key in missing if key not in known}
        try:
            for future in as_completed(futures):
                key = futures[future]
                known[key] = future.result()
                with disk_errors(path), open(path, "a", encoding="utf-8") as handle:
                    handle.write(_line(key, known[key]))
                    handle.flush()
                    os.fsync(handle.fileno())
                report()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [known[endpoint.key_of(request)] for request in requests]


def read_replies(path: Path) -> Replies:
    """Return the replies in a file. A missing file counts as empty; a line that a killed process left is skipped."""
    replies: Replies = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            content = json.loads(line)
            key = content.pop("key")
            replies[key] = EndpointReply(**content)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return replies


def write_replies(path: Path, replies: Replies, keys: Iterable[str]) -> None:
    """Write these replies in this order, so that the same run gives the same bytes."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        handle.writelines(_line(key, replies[key]) for key in dict.fromkeys(keys))


def _line(key: str, reply: EndpointReply) -> str:
    return json.dumps({"key": key, **asdict(reply)}, ensure_ascii=True, sort_keys=True) + "\n"


@dataclass(frozen=True, kw_only=True)
class RequestPlan:
    """Requests still to be sent, and their tokens."""

    requests: int
    cached: int
    """Requests that an interrupted run has answered already."""
    tokens_in: int
    """Tokens of the prompts, an estimate: the tokenizer is not known."""
    tokens_out_most: int
    """Upper bound on the tokens of all replies."""

    def __str__(self) -> str:
        if not self.requests:
            return f"nothing to send: all {self.cached:,} replies are here already"
        cached = f" ({self.cached:,} more are answered already)" if self.cached else ""
        return (
            f"{self.requests:,} requests to send{cached}, about {self.tokens_in:,} tokens in, "
            f"at most {self.tokens_out_most:,} out"
        )


def plan_of(endpoint: Endpoint, requests: Iterable[EndpointRequest], known: Replies) -> RequestPlan:
    """Return the plan for some requests, of which those with a known reply are not sent; nor is one twice."""
    wanted = set(requests)
    left = [request for request in wanted if endpoint.key_of(request) not in known]
    n_bytes = sum(len(request.content.encode("utf-8", "replace")) for request in left)
    return RequestPlan(
        requests=len(left),
        cached=len(wanted) - len(left),
        tokens_in=round(n_bytes / BYTES_PER_TOKEN),
        tokens_out_most=sum(request.max_tokens for request in left),
    )
