"""MGOE, the Macro Graph of Experts (arXiv 2506.10520)."""

from mgoe.models.decomposition import AdditiveDecomposition, Decomposition
from mgoe.models.mgoe.folded import Folded
from mgoe.models.mgoe.network import MacroGraphNetwork
from mgoe.models.mgoe.per_copy import PerCopy
from mgoe.models.spec import batch_keys


class MGOE(MacroGraphNetwork):
    """The network of experts, and how a service computes it: see `MacroGraphNetwork` for its equations.

    Example:
        >>> from mgoe.models import make_model, neutral, resolve
        >>> make_model(resolve("mgoe"), spec, seed=0).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    def decompose(self) -> Decomposition:
        late = self.nodes.reads if self.recents is not None and self.nodes is not None else set()
        keys = batch_keys(self.spec, self.needs)
        if self.experts is None:
            return AdditiveDecomposition(Folded(self), self.inputs, keys, late)
        tables = {"table_user", "table_item"} if self.table is not None else set()
        served = PerCopy(self) if PerCopy.fits(self) else self
        return AdditiveDecomposition(served, self.inputs, keys, late | tables)
