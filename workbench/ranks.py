"""A verb that `torchrun` started several times over: the first rank speaks, and a failure is reported once."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp.errors import OtherRankError
from interp.progress import Progress
from workbench.terminal import bar

if TYPE_CHECKING:
    from interp.ranks import Ranks


@contextlib.contextmanager
def together() -> Iterator["Ranks"]:
    """The ranks of this run. One that ends because another failed ends without a word of its own."""
    from interp.ranks import join

    with join() as ranks:
        try:
            yield ranks
        except OtherRankError as error:
            raise SystemExit(error.exit_code) from None


@contextlib.contextmanager
def first_bar(ranks: "Ranks", title: str, unit: str = "") -> Iterator[Progress]:
    """The first rank's progress bar; on the others it shows nothing."""
    if not ranks.first:
        yield lambda done, total, info: None
        return
    with bar(title, unit) as progress:
        yield progress
