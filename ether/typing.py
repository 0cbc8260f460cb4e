"""What Ether adds to type hints.

    from ether.typing import ArraySpec

    def fit(self, points: Annotated[np.ndarray, ArraySpec(dtype="float64", shape=(None, 3))]) -> float: ...

Hints stay hints: without Ether they change nothing.
"""

from ether.spec.array_hints import ArraySpec

__all__ = ["ArraySpec"]
