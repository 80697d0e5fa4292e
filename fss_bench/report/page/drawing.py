"""Numbers to places in small drawings."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 34


@dataclass(frozen=True)
class Tick:
    """A line of a scale: its place and what stands there."""

    place: float
    text: str


@dataclass(frozen=True)
class Point:
    """A row in a scatter, with the ends of its interval."""

    row: str
    name: str
    number: int
    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """Accuracy against a cost.

    Attributes:
        cost: key of the cost.
        label: of the lower scale.
        points: a row each.
        across, up: ticks.
    """

    cost: str
    label: str
    points: tuple[Point, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


@dataclass(frozen=True)
class Scale:
    """Values to places, with round ticks.

    Attributes:
        low, high: ends in values.
        start, end: the same in px.
        step: between ticks.
    """

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> "Scale":
        """A scale with room around the values."""
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = max(0.0, low - margin), high + margin
        step = _round_step((high - low) / 6)
        return cls(low, high, start, end, step)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> tuple[Tick, ...]:
        """At multiples of the step."""
        first = -int(-self.low // self.step)
        numbers = range(first, int(self.high // self.step) + 1)
        return tuple(Tick(self(n * self.step), f"{n * self.step:.10g}") for n in numbers)


def _round_step(about: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** int(f"{about:e}".partition("e")[2])
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= about * 0.999)
