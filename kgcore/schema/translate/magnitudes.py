"""Magnitudes: between which bounds numbers lie, to know beforehand that no result overflows.

SQLite goes over from integers to reals, and from reals to infinity or to zero. PostgreSQL raises an
error for each, and the statement that met it fails: an ALTER TABLE or a CREATE INDEX as a whole.
"""

import math
from dataclasses import dataclass

# Far enough from the limits of both types (2^63, 1.8e308 and 4.9e-324) for the bounds' own
# rounding: they are doubles.
_LARGEST_INTEGER = 2.0**62
_LARGEST_REAL = 1e300
_SMALLEST_REAL = 1e-290

# The difference of two doubles is zero, or no smaller than the last bit of the smaller one.
_LAST_BIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """The bounds of absolute values; zeros lie within any."""

    smallest: float = 1.0
    largest: float = 1.0

    @classmethod
    def of(cls, number: float) -> "Magnitudes":
        """Return those of one number alone."""
        size = abs(float(number)) or 1.0
        return cls(size, size)

    def either(self, other: "Magnitudes") -> "Magnitudes":
        """Return the bounds of numbers that are of one or the other."""
        return Magnitudes(min(self.smallest, other.smallest), max(self.largest, other.largest))

    def plus(self, other: "Magnitudes") -> "Magnitudes":
        """Return the bounds of sums and differences."""
        smallest = min(self.smallest, other.smallest) * _LAST_BIT
        return Magnitudes(smallest, self.largest + other.largest)

    def times(self, other: "Magnitudes") -> "Magnitudes":
        """Return the bounds of products."""
        return Magnitudes(self.smallest * other.smallest, self.largest * other.largest)

    def over(self, other: "Magnitudes") -> "Magnitudes":
        """Return the bounds of quotients."""
        if not other.smallest:
            return UNKNOWN
        return Magnitudes(self.smallest / other.largest, self.largest / other.smallest)

    @property
    def whole(self) -> "Magnitudes":
        """The bounds if all are integers."""
        return Magnitudes(1.0, max(self.largest, 1.0))

    @property
    def fit_integers(self) -> bool:
        """Whether integers of 64 bits surely hold all."""
        return self.largest < _LARGEST_INTEGER

    @property
    def fit_reals(self) -> bool:
        """Whether doubles surely hold all, none of them as infinity or as zero."""
        return self.smallest > _SMALLEST_REAL and self.largest < _LARGEST_REAL


#: Nothing is known of the numbers.
UNKNOWN = Magnitudes(0.0, math.inf)
