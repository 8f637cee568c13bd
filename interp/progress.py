"""Signature of every progress callback: `progress(done, total, facts)`.

Long work calls it after every unit. `done` and `total` count the same unit (batches, heads, steps). `facts` holds short
values to show with the progress bar, such as `{"fvu": .12}`. The callback runs in the thread that does the work, and an
exception raised in it stops the work.
"""

from collections.abc import Callable

Progress = Callable[[int, int, dict], None]
