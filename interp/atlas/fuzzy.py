"""The fuzzy graph of UMAP: how strongly each point is tied to its neighbours (McInnes, Healy & Melville 2018, sec. 3).

    w(i -> j) = exp(-(d_ij - rho_i) / sigma_i)          rho_i: distance to the nearest, which is tied with weight 1
    sum over j of w(i -> j) = log2(k + 1)               fixes sigma_i; the point itself counts as a neighbour
    w(i, j) = w(i -> j) + w(j -> i) - w(i -> j) w(j -> i)

Rows are independent, so the result is the same for any number of threads.
"""

from typing import NamedTuple

import numpy as np

from interp.atlas.neighbours import Neighbours, rescaled


class FuzzyGraph(NamedTuple):
    """A symmetric graph by rows: the ties of point `i` are `starts[i] : starts[i + 1]`, by rising other point."""

    starts: np.ndarray
    """`[n + 1]` int64"""
    others: np.ndarray
    """`[n_ties]` int32"""
    weights: np.ndarray
    """`[n_ties]` float32, above 0 and at most 1"""

    @property
    def n(self) -> int:
        return len(self.starts) - 1


def fuzzy_graph(neighbours: Neighbours) -> FuzzyGraph:
    """The graph of `neighbours` (the point itself not among them)."""
    import scipy.sparse as sparse

    from interp.atlas.kernels import memberships
    from interp.compiled import run_compiled

    distances = np.ascontiguousarray(rescaled(neighbours.distances).numpy())
    n, k = distances.shape
    directed = np.empty_like(distances)
    run_compiled(memberships, distances, float(distances.mean(dtype=np.float64)), directed)
    columns = neighbours.indices.numpy().astype(np.int32).ravel()
    one_way = sparse.csr_matrix((directed.ravel(), columns, np.arange(n + 1) * k), shape=(n, n))
    other_way = one_way.T.tocsr()
    both = (one_way + other_way - one_way.multiply(other_way)).tocsr()
    both.sort_indices()
    return FuzzyGraph(both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32))
