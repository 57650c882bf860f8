"""`context`: features of the request."""

from mgoe.features.group import CONTEXT, Arrays, InputGroup, Key
from mgoe.features.side import encoded_keys, named
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View


class Context(InputGroup):
    """Numbers as standard scores, shape (B, columns), and categories, (B,) or padded lists (B, L)."""

    name = "context"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        return encoded_keys("context", CONTEXT, spec.context, spec)

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return named("context", pairs.context)
