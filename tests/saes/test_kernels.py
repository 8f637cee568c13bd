"""The sparse step: the right latents, the right gradients, the right update, on every backend."""

import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.ranks import Ranks
from saes.kernels import _selection
from saes.kernels._plain import PlainOps
from saes.kernels._selection import WIDTH
from saes.kernels.compiled import CompiledOps
from saes.kernels.spread import Spread, SpreadOps, kth_largest
from saes.kernels.state import Gradients, TrainState
from saes.kernels.step import CAP, Stepper, StepSettings, choose_ops, dead_latents
from saes.kinds.config import BatchTopKConfig, ReLUConfig, TopKConfig
from saes.kinds.l1 import ReLURecipe
from saes.kinds.topk import BatchTopKRecipe, TopKRecipe

D_IN, D_SAE, N, K = 24, 96, 80, 5
BACKENDS = [PlainOps, CompiledOps]
RULES = {
    "topk": TopKRecipe(TopKConfig(d_sae=D_SAE, k=K)),
    "batchtopk": BatchTopKRecipe(BatchTopKConfig(d_sae=D_SAE, k=K)),
}


def make_state(dtype=torch.float64, seed=0, d_sae=D_SAE):
    generator = torch.Generator().manual_seed(seed)
    state = TrainState.initial(torch.randn(D_IN, generator=generator, dtype=dtype), d_sae, generator=generator)
    state.b_enc.copy_(0.1 * torch.randn(d_sae, generator=generator, dtype=dtype))
    state.W_enc.add_(0.1 * torch.randn(d_sae, D_IN, generator=generator, dtype=dtype))
    return state


def make_data(dtype=torch.float64, seed=1, n=N):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2


def entries(active):
    """The set of (row, latent, value) of a selection, without padding."""
    rows = torch.repeat_interleave(active.starts.diff())
    return {
        (r, i, v)
        for r, i, v in zip(rows.tolist(), active.latents.tolist(), active.values.tolist(), strict=True)
        if v > 0
    }


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20),
    d_sae=st.integers(8, 700),
    k=st.sampled_from([1, 3, 8, 40]),
    shift=st.sampled_from([-3.0, 0.0, 3.0]),
    seed=st.integers(0, 10**6),
)
def test_compiled_selection_finds_the_same_latents_as_torch(n, d_sae, k, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(n, d_sae, generator=generator) + shift
    threshold = torch.rand(d_sae, generator=generator)
    plain, compiled, k = PlainOps(), CompiledOps(), min(k, d_sae)
    assert entries(plain.select_topk(pre, k)) == entries(compiled.select_topk(pre, k))
    assert entries(plain.select_batch(pre, k * n)) == entries(compiled.select_batch(pre, k * n))
    assert entries(plain.select_above(pre, threshold)) == entries(compiled.select_above(pre, threshold))


def test_tied_values_go_to_the_first_latents_and_none_is_lost():
    pre = torch.ones(3, 500)
    topk, batch = CompiledOps().select_topk(pre, 4), CompiledOps().select_batch(pre, 7)
    assert topk.latents.view(3, 4).tolist() == [[0, 1, 2, 3]] * 3
    assert entries(batch) == {(0, i, 1.0) for i in range(7)}


def test_large_values_that_share_few_lanes_overflow_the_candidates_and_none_is_lost():
    pre = torch.rand(5, 6400, generator=torch.Generator().manual_seed(4))
    for lane in range(3):  # the floor of k = 4 is the fourth lane's largest value, below these 300
        pre[:, lane::64] += 10
    assert entries(CompiledOps().select_topk(pre, 4)) == entries(PlainOps().select_topk(pre, 4))


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_threshold_of_minus_zero_is_zero(ops, dtype):
    """The bits of -0 lie below those of any number: compared as they are, every value would pass."""
    pre = torch.tensor([[-1.0, 0.0, -0.0, 2.0]], dtype=dtype)
    assert entries(ops().select_above(pre, torch.full((4,), -0.0))) == {(0, 3, 2.0)}
    assert len(ops().select_above(pre, torch.full((4,), -0.0)).values) == 1


def test_bfloat16_selection_takes_the_largest_bfloat16_values():
    pre = torch.randn(50, 400, generator=torch.Generator().manual_seed(3)).bfloat16()
    values = CompiledOps().select_topk(pre, 6).values.view(50, 6)
    assert values.dtype == torch.float32
    assert torch.equal(values.sort(dim=1).values, pre.float().topk(6, dim=1).values.sort(dim=1).values)


def test_bfloat16_batches_take_the_largest_values_and_of_equal_ones_the_first():
    pre = torch.randn(50, 400, generator=torch.Generator().manual_seed(3)).bfloat16()
    flat = pre.float().flatten()
    first = flat.argsort(descending=True, stable=True)[:900].tolist()
    assert flat[first[-1]] == flat.sort(descending=True).values[900], "the cut goes through equal values"
    assert entries(CompiledOps().select_batch(pre, 900)) == {(i // 400, i % 400, float(flat[i])) for i in first}
    threshold = torch.rand(400, generator=torch.Generator().manual_seed(4)).bfloat16()
    assert entries(CompiledOps().select_above(pre, threshold)) == entries(PlainOps().select_above(pre, threshold))


def test_a_concentrated_batch_misleads_the_sample_and_still_selects_exactly():
    pre = torch.full((4 * _selection.SAMPLE, 64), 0.1) + torch.arange(64) * 1e-4
    pre[::4] += 10  # the sampled rows hold large values, the rest small ones
    n = 64 * _selection.SAMPLE + 100
    assert entries(CompiledOps().select_batch(pre, n)) >= set(entries(CompiledOps().select_above(pre, torch.ones(64))))
    assert len(entries(CompiledOps().select_batch(pre, n))) == n


@pytest.mark.parametrize(("dtype", "outlier"), [(np.int32, 2**30), (np.int16, 2**15 - 1)])
def test_the_nth_largest_is_found_among_many_values_of_one_bucket(dtype, outlier):
    values = np.random.default_rng(0).integers(0, 20_000, 3000).astype(dtype)
    values[7] = outlier  # buckets are as wide as it makes them
    descending = np.sort(values)[::-1]
    for n in (1, 2, 3, 70, 1500, 2999, 3000):
        assert _selection.nth_largest(values, n) == descending[n - 1], n


def test_an_ordinary_batch_is_selected_in_one_pass_with_few_candidates(monkeypatch):
    pre, n, passes = torch.randn(600, 800, generator=torch.Generator().manual_seed(6)), 600 * 8, []
    above = _selection.above
    monkeypatch.setattr(_selection, "above", lambda bits, floors: passes.append(above(bits, floors)) or passes[-1])
    CompiledOps().select_batch(pre, n)
    assert len(passes) == 1
    assert n <= len(passes[0][1]) < 1.6 * n


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_update_is_adam_with_clipping_on_unit_decoder_rows(ops, dtype):
    """Against torch's Adam on the projected gradient; the decoder rows are renormalised after each step."""
    state, lr = make_state(dtype), 3e-3
    peers = [w.clone() for w in state.parameters().values()]
    adam = torch.optim.Adam(peers, lr=lr)
    stepper = Stepper(StepSettings(variance=50.0, k_aux=8, dead_window=10**9, clip_norm=0.05), RULES["topk"], ops())
    for seed in range(4):
        x = make_data(dtype, seed)
        raw = [g.clone() for g in stepper.gradients(state, x).gradients.by_name().values()]
        raw[2] -= (raw[2] * state.W_dec).sum(1, keepdim=True) * state.W_dec
        for peer, grad in zip(peers, raw, strict=True):
            peer.grad = grad
        torch.nn.utils.clip_grad_norm_(peers, 0.05)
        adam.step()
        peers[2] /= peers[2].norm(dim=1, keepdim=True)
        stepper.step(state, x, lr)
        for mine, peer in zip(state.parameters().values(), peers, strict=True):
            torch.testing.assert_close(mine, peer, atol=1e-4 * lr if dtype == torch.float64 else 0.02 * lr, rtol=0)
    torch.testing.assert_close(state.W_dec.norm(dim=1), torch.ones(D_SAE, dtype=dtype))


def run_steps(ops, n_steps=12, encoder=torch.float32):
    state = make_state(torch.float32)
    state.silent[:20] = 10**6
    stepper = Stepper(
        StepSettings(variance=100.0, k_aux=8, dead_window=1000, encoder_dtype=encoder), RULES["batchtopk"], ops
    )
    results = [stepper.step(state, make_data(torch.float32, seed), 1e-3) for seed in range(n_steps)]
    return state, results


def test_the_number_of_threads_changes_no_bit_after_the_dense_product():
    before, x = torch.get_num_threads(), make_data(torch.float32, n=400)
    state, pre = make_state(torch.float32), torch.randn(400, D_SAE, generator=torch.Generator().manual_seed(5))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        ops = CompiledOps()
        active = ops.select_batch(pre, 400 * K)
        found.append((*active, *(t.clone() for t in ops.decode(x, state.W_dec, active, 0.1))))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_number_of_threads_asked_for_survives_the_first_compiled_call():
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from saes.kernels.step import choose_ops\n"
        "choose_ops('cpu').select_topk(torch.randn(4, 8), 2)\n"
        "import numba; print(torch.get_num_threads(), numba.get_num_threads())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.split() == ["1", "1"]


def test_a_bfloat16_encoder_learns_as_float32_does():
    (_, exact), (_, rough) = run_steps(CompiledOps(), 60), run_steps(CompiledOps(), 60, torch.bfloat16)
    assert exact[0].loss > 1.3 * exact[-1].loss
    assert rough[-1].loss == pytest.approx(exact[-1].loss, rel=0.01)


def test_silence_is_counted_in_tokens_and_firing_ends_it():
    state, _ = run_steps(CompiledOps(), 3)
    fired = state.silent == 0
    assert fired.any()
    assert set(state.silent[~fired].tolist()) <= {N, 2 * N, 3 * N, *(10**6 + i * N for i in (1, 2, 3))}
    assert ((state.density > 0) >= fired).all()


def test_auxk_takes_the_longest_silent_and_at_most_its_cap():
    state = make_state(torch.float32)
    state.silent[:40] = torch.arange(1000, 1040)
    n_dead, dead = dead_latents(state, window=1000, k_aux=4)
    assert n_dead == 40
    assert dead.tolist() == list(range(40 - CAP * 4, 40))


@pytest.mark.parametrize("ops", BACKENDS)
@pytest.mark.parametrize("n", [1, 2])
def test_auxk_says_nothing_of_a_single_token(ops, n):
    """The error of one token does not differ from its mean: there is no variance to take a share of."""
    state = make_state()
    state.silent[:40] = 10**6
    x = make_data(n=n)
    found = [
        Stepper(
            StepSettings(variance=50.0, k_aux=8, aux_coefficient=c, dead_window=1000), RULES["topk"], ops()
        ).gradients(state, x)
        for c in (0.5, 0.0)
    ]
    assert found[0].n_dead == 40
    assert found[0].aux == 0
    assert found[0].loss == found[1].loss < 1e3
    for mine, without in zip(*(f.gradients.by_name().values() for f in found), strict=True):
        assert torch.equal(mine, without)


def test_auxk_revives_latents_that_point_away_from_the_data():
    """Dead latents (a large negative bias) come back with AuxK and stay dead without it."""
    alive = {}
    for coefficient in (0.0, 1.0):
        state = make_state(torch.float32)
        state.b_enc[:30] -= 6
        settings_ = StepSettings(variance=100.0, k_aux=16, aux_coefficient=coefficient, dead_window=500)
        stepper = Stepper(settings_, RULES["topk"], CompiledOps())
        for seed in range(400):
            stepper.step(state, make_data(torch.float32, seed), 1e-2)
        alive[coefficient] = int((state.silent[:30] < 500).sum())
    assert alive[1.0] > alive[0.0] + 5, alive


def test_the_backend_follows_the_device():
    assert isinstance(choose_ops("cpu"), CompiledOps)
    assert isinstance(choose_ops("cuda"), PlainOps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ends", [(), (9, 31, 50)])
@pytest.mark.parametrize("d", [WIDTH - 1, WIDTH, WIDTH + 1, 3 * WIDTH, 3 * WIDTH + 5])
def test_compiled_sums_are_those_of_torch_at_every_width(d, ends, dtype):
    """The loops go over `WIDTH` columns at a time; the encoder's input is wider than the decoder's output."""
    generator = torch.Generator().manual_seed(d)
    x, target, W_dec, pre = (
        torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((30, d + 60), (30, d), (50, d), (30, 50))
    )
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    pre[4] = -1  # no latent is active
    active, found = CompiledOps().select_topk(pre.float(), 8), []
    active = active._replace(values=active.values.to(dtype))
    real = active.values > 0
    slopes = torch.randn(len(active.values), generator=generator, dtype=dtype) * real
    for ops in (PlainOps(), CompiledOps()):
        out = Gradients(pre.new_empty(50, d + 60), pre.new_empty(50), pre.new_empty(50, d), target.sum(0))
        decoded = ops.decode(target, W_dec, active, 0.3, ends)
        fired = ops.weight_gradients(x, decoded, active, slopes, out, ends)
        squared = ops.project(out, W_dec)
        found.append([decoded.grad, decoded.grad_values * real, decoded.squared, fired, *out.by_name().values()])
        found[-1].append(torch.tensor(squared))
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine.double(), expected.double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ops", BACKENDS)
def test_nested_prefixes_have_the_gradients_of_their_mean(ops):
    """`scale / 2` times the mean over prefixes of the squared error, by autograd."""
    ends, scale, state = (30, 70, D_SAE), 0.3, make_state(torch.float32)
    target = make_data(torch.float32)
    active = ops().select_above(target @ state.W_enc.T, torch.full((D_SAE,), 0.5))
    rows = torch.repeat_interleave(torch.arange(N), active.starts.diff())
    values, W_dec = active.values.clone().requires_grad_(), state.W_dec.clone()
    dense = torch.zeros(N, D_SAE).index_put((rows, active.latents.long()), values)
    errors = [dense[:, :end] @ W_dec[:end] - target for end in ends]
    loss = scale / 2 * torch.stack([error.square().sum() for error in errors]).mean()
    loss.backward()
    found = ops().decode(target, state.W_dec, active, scale, ends)
    torch.testing.assert_close(found.grad_values, values.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.squared.sum(1), torch.stack([e.square().sum() for e in errors]).detach())


def test_the_sparsity_penalty_has_its_full_weight_after_the_warm_up_and_no_more():
    settings = StepSettings(variance=1.0, k_aux=4, sparsity_warmup_steps=3)
    stepper, state, x = Stepper(settings, ReLURecipe(ReLUConfig(d_sae=D_SAE)), PlainOps()), make_state(), make_data()
    at = []
    for state.step in (0, 1, 3, 4, 50):
        at.append(stepper.gradients(state, x).penalty)
    assert at[-1] > 0
    assert np.divide(at, at[-1]) == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0], rel=1e-12)


class BesideAnother(Ranks):
    """The first of two ranks; the other holds the values `theirs`."""

    theirs = torch.tensor([[7.0, 2.0], [0.0, 0.0]])

    def gather(self, tensor):
        return [tensor, self.theirs.to(tensor)]


@pytest.mark.parametrize("ops", BACKENDS)
def test_a_step_of_shared_latents_selects_over_all_ranks_and_one_alone_keeps_its_operations(ops):
    pre = torch.tensor([[5.0, 3.0, 1.0], [4.0, 6.0, 0.5]])
    step, own = StepSettings(variance=1.0, k_aux=4), ops()
    shared = Stepper(step, RULES["topk"], own, Spread(latents=BesideAnother(0, 2)))
    assert sorted(shared.ops.select_topk(pre, 2).values.tolist()) == [4, 5, 6], "of the first row, 7 is elsewhere"
    assert Stepper(step, RULES["topk"], own).ops is own


class InThreads(Ranks):
    """A rank whose others are threads: they meet at `at`, with their tensors in `seen`."""

    def __init__(self, rank, at, seen):
        super().__init__(rank, len(seen))
        vars(self).update(at=at, seen=seen)

    def gather(self, tensor):
        self.seen[self.rank] = tensor.clone()
        self.at.wait()
        found = list(self.seen)
        self.at.wait()
        return found

    def add(self, *tensors):
        for tensor in tensors:
            tensor.copy_(torch.stack(self.gather(tensor)).sum(0))
        return tensors[0]


class OneAtATime(CompiledOps):
    """For ranks in threads: not every layer of numba's threads serves two callers."""

    lock = threading.Lock()

    def select_topk(self, pre, k):
        with self.lock:
            return super().select_topk(pre, k)

    def select_batch(self, pre, n):
        with self.lock:
            return super().select_batch(pre, n)


def on_ranks(world, work):
    """Return the results of `work(ranks)` on so many ranks; an exchange that only some of them reach is an error."""
    at, seen = threading.Barrier(world, timeout=30), [None] * world
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda rank: work(InThreads(rank, at, seen)), range(world)))


@pytest.mark.parametrize("highest", [3, 2**11, 2**22 + 1, 2**40, 2**63 - 1])
@pytest.mark.parametrize("shared", ["tokens", "latents"])
def test_the_largest_of_all_ranks_are_those_of_a_sorted_list(highest, shared):
    """Many or no equal keys, up to those of the highest bit; the order of keys is not that of the ranks."""
    rng = np.random.default_rng(highest % 1000)
    keys, order = torch.tensor(rng.integers(1, highest, 300, endpoint=True)), torch.tensor(rng.permutation(300))
    keys[::7] = highest
    ranked = sorted(range(300), key=lambda i: (-int(keys[i]), int(order[i])))
    bits = highest.bit_length()
    for n in (1, 2, 40, 44, 150, 299, 300, 500):
        expected = [i in set(ranked[:n]) for i in range(300)]
        assert Spread().largest(keys, order, n, bits=bits).tolist() == expected

        def mine(ranks, n=n):
            here = slice(*[(0, 100), (100, 100), (100, 300)][ranks.rank])  # the second has none
            return Spread(**{shared: ranks}).largest(keys[here], order[here], n, bits=bits).tolist()

        assert list(itertools.chain(*on_ranks(3, mine))) == expected, n


@pytest.mark.parametrize(("dtype", "ties"), [(torch.float32, True), (torch.float32, False), (torch.float64, False)])
@pytest.mark.parametrize("shared", ["tokens", "latents"])
def test_ranks_in_threads_select_what_one_process_selects(dtype, ties, shared):
    """torch selects float64, and any of its equal values."""
    pre = torch.randn(6, 12, generator=torch.Generator().manual_seed(2), dtype=dtype)
    pre = (pre * 2).round() if ties else pre
    ops, axis, size = OneAtATime(), *((0, 2) if shared == "tokens" else (1, 4))
    for k in (1, 3, 9):

        def mine(ranks, k=k):
            part = pre.narrow(axis, size * ranks.rank, size).contiguous()
            own, there = SpreadOps(ops, Spread(**{shared: ranks})), [0, 0]
            there[axis] = size * ranks.rank
            found = own.select_batch(part, k * len(part)), own.select_topk(part, k)
            return [{(r + there[0], i + there[1], v) for r, i, v in entries(each)} for each in found]

        batch, rows = zip(*on_ranks(3, mine), strict=True)
        assert set().union(*batch) == entries(ops.select_batch(pre, k * len(pre)))
        assert set().union(*rows) == entries(ops.select_topk(pre, k))


@pytest.mark.parametrize("k", [1, 3, 6, 12])
def test_the_kth_largest_is_that_of_all_ranks_columns(k):
    rows = torch.randn(5, 12, generator=torch.Generator().manual_seed(3)).round(decimals=1)
    expected = rows.relu().topk(k, dim=1).values[:, -1:]
    assert torch.equal(kth_largest(OneAtATime(), rows, k, Ranks()), expected)
    parts = rows.split([4, 0, 8], dim=1)
    found = on_ranks(3, lambda ranks: kth_largest(OneAtATime(), parts[ranks.rank].contiguous(), k, ranks))
    assert all(torch.equal(each, expected) for each in found)


STEPS = """
import hashlib, torch
from saes.kernels.state import TrainState
from saes.kernels.step import Stepper, StepSettings, choose_ops
from saes.kinds.registry import recipe_of
from saes.kinds.config import MatryoshkaConfig, TopKConfig

torch.set_num_threads(1)
for config in (TopKConfig(d_sae=96, k=4), MatryoshkaConfig(d_sae=96, k=4)):
    generator = torch.Generator().manual_seed(1)
    state = TrainState.initial(torch.zeros(70), config.d_sae, generator=generator)
    stepper = Stepper(StepSettings(variance=70.0, k_aux=8), recipe_of(config), choose_ops("cpu"))
    for _ in range(5):
        stepper.step(state, torch.randn(64, 70, generator=generator), 1e-2)
    for weights in state.parameters().values():
        print(hashlib.sha256(weights.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_process_that_compiles_rounds_as_one_that_loads_its_code(tmp_path):
    command, environment = [sys.executable, "-c", STEPS], {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    printed = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert any(tmp_path.rglob("*.nbc")), "the first one compiled"
    assert printed[0].stdout == printed[1].stdout != ""
