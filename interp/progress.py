"""The one signature of a progress callback: `progress(done, total, facts)`.

Long work calls it after every unit. `done` and `total` count the same unit (batches, heads, steps); `facts` holds
short values to show beside the bar, such as `{"fvu": .12}`. It is called in the thread that does the work; an exception
raised in it stops the work.
"""

from collections.abc import Callable

Progress = Callable[[int, int, dict], None]
