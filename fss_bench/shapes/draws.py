"""The stream of random numbers a scene is drawn from, and the number types all modules share."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Ints = NDArray[np.int32]
Point = tuple[float, float]


class Draws:
    """A stream of random numbers that depends on a key and on the order of calls only."""

    def __init__(self, key: str) -> None:
        """Start the stream of `key`."""
        self._key = key.encode()
        self._calls = 0

    def raw(self, count: int) -> bytes:
        """Return the next `count` random bytes."""
        self._calls += 1
        return hashlib.shake_256(self._calls.to_bytes(4, "big") + self._key).digest(count)

    def integer(self, low: int, high: int) -> int:
        """Return an integer of low..high, both included."""
        return low + (int.from_bytes(self.raw(4), "big") * (high - low + 1) >> 32)

    def real(self, low: float, high: float) -> float:
        """Return one of 65,536 equally spaced reals of low..high."""
        return low + (high - low) * (self.integer(0, 65535) / 65535)

    def direction(self) -> Point:
        """Return a unit vector; rational in the draw, so that no sine is needed."""
        t = self.real(0.0, 1.0)
        x, y = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
        return ((x, y), (-y, x), (-x, -y), (y, -x))[self.integer(0, 3)]

    def noise(self, shape: tuple[int, ...], cell: int) -> Ints:
        """Return smooth value noise of a 2-D shape, 0..255, with blobs about `cell` px wide."""
        height, width = shape
        cols, rows = width // cell + 4, height // cell + 4
        bits = np.frombuffer(self.raw(cols * rows), dtype=np.uint8).astype(np.int32)
        wide = self._stretch(bits.reshape(cols, rows), width, cell)
        smooth = self._stretch(np.ascontiguousarray(wide.T), height, cell) >> 16
        # Averaging took away contrast; give some back.
        contrasted: Ints = np.clip((smooth * 14 >> 3) - 96, 0, 255)
        return contrasted

    def clouds(self, shape: tuple[int, ...], cell: int) -> Ints:
        """Return two octaves of value noise of a 2-D shape, 0..255."""
        fine = self.noise(shape, max(cell // 3, 2))
        return (self.noise(shape, cell) * 3 + fine) >> 2

    def _stretch(self, grid: Ints, size: int, cell: int) -> Ints:
        """Interpolate the first axis to `size` by quadratic B-splines, times 256."""
        at = np.arange(size, dtype=np.int32) + self.integer(0, cell - 1)
        t = (at % cell * 256 // cell)[:, None]
        left, right = (256 - t) * (256 - t) >> 9, t * t >> 9
        at = at // cell
        return grid[at] * left + grid[at + 1] * (256 - left - right) + grid[at + 2] * right
