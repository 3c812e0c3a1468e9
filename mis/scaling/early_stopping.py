"""Who is stopped early in a simulated search: ASHA's rule, on trials whose ranks are known."""

from bisect import insort
from dataclasses import dataclass, field


@dataclass
class EarlyStopping:
    """ASHA (Li et al. 2020), as Ray Tune has it: at each rung, one in `reduction_factor` goes on.

    The model of who is stopped: a trial has one quality, drawn at random and independent of how long its epochs take,
    and its Dice ranks as its quality at every rung. A real search ranks early epochs wrongly now and then; how many
    trials are stopped at a rung, and so the time, depends little on which of them they are.

    Attributes:
        grace_epochs: The first rung.
        reduction_factor: One in so many goes on; each rung has so many times the epochs of the one before.
    """

    grace_epochs: int
    reduction_factor: int
    _reached: dict[int, list[float]] = field(default_factory=dict)

    def next_rung(self, epochs: int) -> int:
        """Return the first rung after so many epochs.

        >>> [EarlyStopping(2, 3).next_rung(epochs) for epochs in (0, 2, 6)]
        [2, 6, 18]
        """
        rung = self.grace_epochs
        while rung <= epochs:
            rung *= self.reduction_factor
        return rung

    def stops(self, rung: int, quality: float) -> bool:
        """Note that a trial has reached a rung, and return whether it is stopped there.

        As in Ray Tune, it is stopped where it is below the quantile of those that came before; the first goes on.
        """
        before = self._reached.setdefault(rung, [])
        cut = _quantile(before, 1 - 1 / self.reduction_factor) if before else quality
        insort(before, quality)
        return quality < cut


def _quantile(rising: list[float], part: float) -> float:
    """Return a quantile of sorted values, interpolated between two of them as NumPy does."""
    position = part * (len(rising) - 1)
    low = int(position)
    high = min(low + 1, len(rising) - 1)
    return rising[low] + (position - low) * (rising[high] - rising[low])
