"""A chat endpoint on this machine that reads prompts as a perfect explainer and judge would, or misbehaves as told.

It knows nothing but the prompt: it finds the marked tokens, names their characters, and judges by that name. So a
prompt that hides, tears or invents a mark costs it its perfect score.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, int], Any]
"""(prompt, number of the request from 0) -> reply text, or (status, headers, body bytes)"""


class FakeEndpoint:
    """`with FakeEndpoint() as endpoint: ... endpoint.url`; what arrived is in `prompts` and `headers`."""

    def __init__(self, answer: Answer | None = None):
        self.answer = answer or (lambda prompt, number: perfect(prompt))
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "FakeEndpoint":
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    number = len(fake.prompts)
                    fake.prompts.append(body["messages"][0]["content"])
                    fake.bodies.append(body)
                    fake.headers.append(dict(self.headers))
                found = fake.answer(fake.prompts[number], number)
                status, headers, raw = found if isinstance(found, tuple) else (200, {}, completion(found))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(text: str | None, **extra: Any) -> bytes:
    """The body of a chat completion."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    return json.dumps({"choices": [choice], "usage": usage, **extra}).encode()


def excerpts(prompt: str) -> list[str]:
    """The numbered excerpts, as text; those of the worked example are left out."""
    n = int(re.search(r"Below are\s(\d+)|JSON list of (\d+)", prompt).group().split()[-1])
    return [json.loads(line) for line in re.findall(r'^\d+\. (".*")$', prompt, flags=re.MULTILINE)][-n:]


def marked(prompt: str) -> list[list[str]]:
    """The marked stretches of every excerpt."""
    return [re.findall("⟪(.*?)⟫", text, flags=re.DOTALL) for text in excerpts(prompt)]


def perfect(prompt: str) -> str:
    """The right answer: characters are named by number, as no text may be lost."""
    if "Explanation:" in prompt:
        found = {c for stretches in marked(prompt) for stretch in stretches for c in stretch}
        return f"They share characters.\nExplanation: characters {' '.join(str(ord(c)) for c in sorted(found))}"
    label = json.loads(re.search(r'fires on: (".*")$', prompt, flags=re.MULTILINE).group(1))
    known = {chr(int(number)) for number in label.split()[1:]}
    return json.dumps([int(set("".join(stretches)) <= known) for stretches in marked(prompt)])


def coin(prompt: str) -> str:
    """A judge that does not read: answers from a hash of the prompt."""
    if "Explanation:" in prompt:
        return perfect(prompt)
    bits = hashlib.sha256(prompt.encode()).digest()
    return json.dumps([bits[i] & 1 for i in range(len(excerpts(prompt)))])
