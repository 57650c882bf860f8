"""Products of user features and item features."""

import torch
from torch import Tensor, nn

from mgoe.models.layers.inputs import DenseInputs
from mgoe.models.layers.stacked import uniform


class Products(nn.Module):
    """`LayerNorm((x_u A) * (x_i B))`, a bilinear form of low rank over side features and macro edges (ours).

    An MLP over both sides needs many units for each product. Each factor depends on one side, so a service
    computes the user's once per request and the item's once per refresh.

    Args:
        inputs: The dense inputs; without columns of one side there is no product, and `width` is 0.
        width: P, the number of products per pair.
    """

    user_columns: Tensor
    item_columns: Tensor

    def __init__(self, inputs: DenseInputs, width: int):
        super().__init__()
        user, item = inputs.columns("user_side", "u1", "u2"), inputs.columns("item_side", "i1", "i2")
        self.width = width if user and item else 0
        if not self.width:
            return
        self.register_buffer("user_columns", torch.tensor(user), persistent=False)
        self.register_buffer("item_columns", torch.tensor(item), persistent=False)
        self.user = uniform(len(user), width, fan_in=len(user))
        self.item = uniform(len(item), width, fan_in=len(item))
        self.norm = nn.LayerNorm(width)

    def factors(self, x: Tensor) -> Tensor:
        """Return the factors of user and item: dense inputs (B, inputs) -> (2, B, P)."""
        return torch.stack([x[:, self.user_columns] @ self.user, x[:, self.item_columns] @ self.item])

    def forward(self, factors: Tensor) -> Tensor:
        """(2, B, P) -> (B, P)."""
        user, item = factors.unbind()
        return self.norm(user * item)
