"""Type hints for arrays.

    from ether.typing import ArraySpec

    def fit(self, points: Annotated[np.ndarray, ArraySpec(dtype="float64", shape=(None, 3))]) -> float: ...

Ether checks such arguments, and publishes the rule with the method's schema. Without Ether these hints have no effect.
"""

from ether.spec.array_hints import ArraySpec

__all__ = ["ArraySpec"]
