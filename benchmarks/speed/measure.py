"""Time and memory of training steps: contenders in turn, in one process, each round in an order of its own."""

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

Clock = Callable[[], float]


class Timed(NamedTuple):
    """Seconds of one step, a value for each round.

    Attributes:
        wall: by the clock on the wall.
        cpu: of the process on all its cores; other programs hardly change it.
    """

    wall: list[float]
    cpu: list[float]


def timed(
    steps: Mapping[str, tuple[Callable[[], None], int]], rounds: int, tick: Callable[[], None]
) -> dict[str, Timed]:
    """Time every contender in every round, in random order, after two rounds that do not count.

    Arguments:
        steps: contender -> what makes one step, and the number of steps in a measurement.
        rounds: measurements of each.
        tick: is told when a contender was measured; ends with all work of the device done.
    """
    found = {name: Timed([], []) for name in steps}
    order, chance = list(steps), random.Random(0)
    for number in range(rounds + 2):
        chance.shuffle(order)
        for name in order:
            step, count = steps[name]
            synchronized()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                step()
            synchronized()
            if number >= 2:
                found[name].wall.append((time.perf_counter() - wall) / count)
                found[name].cpu.append((time.process_time() - cpu) / count)
            tick()
    return found


def peak_bytes(step: Callable[[], None], device: torch.device, steps: int) -> int:
    """Return the most memory that a contender's tensors take at once in its first steps, its model's weights aside.

    Arguments:
        step: makes one step.
        device: where it works.
        steps: how many steps, the first of which makes the optimizer's buffers.
    """
    gc.collect()  # what others leave would be counted as freed here
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(steps):
            step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for _ in range(steps):
            step()
    return _peak([event for event in _events(recorded) if event[1]])


def _events(recorded: Any) -> Sequence[tuple[int, int]]:
    events = recorded.profiler.kineto_results.events()
    return sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")


def _peak(events: Sequence[tuple[int, int]]) -> int:
    held = most = 0
    for _, change in events:
        held += change
        most = max(most, held)
    return most


def synchronized() -> None:
    """Wait until a GPU, where there is one, has done what was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
