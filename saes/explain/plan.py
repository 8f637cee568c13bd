"""What asking will cost, counted before anything is sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from interp.errors import ConfigError
from saes.explain.providers import Provider, Reply, Request

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
