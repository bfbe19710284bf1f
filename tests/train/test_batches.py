"""The order of samples: each once an epoch, from seed and epoch alone."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.data import TensorSplit
from msam.data._loaders import batches, in_chunks, in_epoch, shuffled


def split(size: int) -> TensorSplit:
    return TensorSplit({"x": torch.arange(size).float().unsqueeze(1)}, torch.arange(size))


@given(size=st.integers(1, 200), batch_size=st.integers(1, 70), seed=st.integers(0, 2**40), epoch=st.integers(0, 500))
def test_every_sample_comes_exactly_once_an_epoch(size, batch_size, seed, epoch):
    order = shuffled(split(size), batch_size, seed=seed, epoch=epoch)
    assert sorted(i for chunk in order for i in chunk) == list(range(size))
    lengths = [len(chunk) for chunk in order]
    assert all(length == batch_size for length in lengths[:-1])
    assert lengths[-1] <= batch_size + 1
    if size > 1 and batch_size > 1:
        assert lengths[-1] > 1


@pytest.mark.parametrize(
    ("size", "batch_size", "lengths"),
    [(5, 2, [2, 3]), (4, 2, [2, 2]), (3, 1, [1, 1, 1]), (1, 8, [1]), (9, 8, [9]), (10, 8, [8, 2]), (0, 8, [])],
)
def test_a_lone_last_sample_joins_the_batch_before(size, batch_size, lengths):
    assert [len(chunk) for chunk in in_chunks(range(size), batch_size)] == lengths
    assert [i for chunk in in_chunks(range(size), batch_size) for i in chunk] == list(range(size))


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {(s, e): shuffled(split(50), 8, seed=s, epoch=e) for s in range(4) for e in range(4)}
    torch.manual_seed(7)
    torch.rand(3)
    before = torch.get_rng_state()
    assert all(shuffled(split(50), 8, seed=s, epoch=e) == order for (s, e), order in orders.items())
    assert torch.equal(torch.get_rng_state(), before)
    assert len({str(order) for order in orders.values()}) == 16
    flat = [[i for chunk in orders[0, 1] for i in chunk], *shuffled(split(50), 50, seed=0, epoch=1)]
    assert flat[0] == flat[1]


def test_batches_hold_the_samples_they_are_asked_for():
    made = list(batches(split(5), [[4, 0], [2]]))
    assert [b.target.tolist() for b in made] == [[4, 0], [2]]
    assert [b.inputs["x"].flatten().tolist() for b in made] == [[4.0, 0.0], [2.0]]
    assert all(b.present is None for b in made)


class Slow(TensorSplit):
    """A split that reads from disk, and notes who asked for what."""

    reads_ahead = True

    def __getitem__(self, index):
        self.inputs.setdefault("asked", []).append((list(index), threading.current_thread().name))
        if index == [9]:
            raise ValueError("sample 9 is broken")
        return super().__getitem__(index)


def slow() -> Slow:
    made = Slow({}, torch.arange(10))
    object.__setattr__(made, "inputs", Asked())
    return made


class Asked(dict):
    def items(self):
        return [(name, value) for name, value in super().items() if name != "asked"]


def test_a_split_that_reads_from_disk_is_read_ahead_by_another_thread_in_the_same_order():
    split_, order = slow(), [[1], [2, 3], [4], [5], [6]]
    coming = batches(split_, order)
    assert next(coming).target.tolist() == [1]
    asked = split_.inputs["asked"]
    assert all(thread.startswith("msam-batches") for _, thread in asked)
    assert [batch.target.tolist() for batch in coming] == order[1:]
    assert [index for index, _ in asked] == order


def test_what_goes_wrong_in_reading_ahead_is_raised_at_its_batch():
    coming = batches(slow(), [[1], [9], [2]])
    assert next(coming).target.tolist() == [1]
    with pytest.raises(ValueError, match="sample 9"):
        next(coming)


def test_leaving_an_epoch_early_ends_the_reading():
    before = threading.active_count()
    coming = batches(slow(), [[i] for i in range(8)])
    next(coming)
    coming.close()
    assert threading.active_count() == before


def test_a_split_may_look_different_in_every_epoch():
    class Drawn(TensorSplit):
        def in_epoch(self, seed, epoch):
            return TensorSplit({}, self.target + 100 * seed + epoch)

    assert in_epoch(split(3), seed=1, epoch=2).target.tolist() == [0, 1, 2]
    assert in_epoch(Drawn({}, torch.arange(3)), seed=1, epoch=2).target.tolist() == [102, 103, 104]
