"""The settings of retraining: how the weights of a bundle learn from new rows."""

from pydantic import Field

from mgoe.config.base import PositiveLength, Settings


class RetrainSettings(Settings):
    """Training on new rows, from the weights of a bundle.

    Example:
        >>> RetrainSettings(replay=0.5).epochs
        3
    """

    epochs: int = Field(default=3, ge=1)
    """Passes over the new and the replayed rows."""
    batch_size: int = Field(default=1024, ge=1)
    """Rows per step, at most those of `training`: few new rows are few steps of large batches."""
    rate: float = Field(default=1.0, gt=0, le=1)
    """Learning rates at the start, as a share of those of `training`; they fall linearly to zero."""
    replay: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Older rows that are trained again, per new row."""
    memory: int = Field(default=50_000, ge=0)
    """Older rows that are kept beside a bundle to be replayed."""
    full_after: PositiveLength = "30d"
    """Age of the last full training, by the time of the log, from which another one is due."""
