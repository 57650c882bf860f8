"""Macro graph experts against their definition."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.models.layers.experts import LEADS_TO, MacroExperts, edge_weights
from tests.models.batches import make_spec, random_batch, take

sizes = st.integers(1, 6)


def naive(module: MacroExperts, batch, targets) -> dict[str, torch.Tensor]:
    """`sum_k w_k (E_k V)` expert by expert, order by order, with (B, K, D) spelled out; each (B, H)."""
    out = {}
    for order in module.orders:
        nodes = module.nodes[LEADS_TO[order]]
        for s in range(module.experts):
            embedding = nodes[s if len(nodes) > 1 else 0]  # (K, D)
            edges = batch[order]
            logits = edges / module.tau
            if targets is not None:
                query = embedding @ module.query[order][s]  # (K, H)
                key = targets["item" if order[0] == "u" else "user"][s] @ module.key[order][s]  # (B, H)
                logits = logits + (query[None] * key[:, None]).sum(2) / math.sqrt(query.shape[1])
            power = logits.exp() * ((edges > 0) if module.mask_empty else 1)
            total = power.sum(1, keepdim=True)
            weights = torch.where(total > 0, power / total, 0.0)
            out[order, s] = (weights[:, :, None] * embedding[None]).sum(1) @ module.value[order][s]
    return out


@given(
    experts=sizes,
    width=sizes,
    aggregate=sizes,
    tau=st.floats(0.3, 3),
    mask_empty=st.booleans(),
    second_order=st.booleans(),
    shared_macro=st.booleans(),
    target=st.integers(0, 3),
    seed=st.integers(0, 999),
)
def test_fused_experts_equal_naive_ones(seed, experts, target, **options):
    torch.manual_seed(seed)
    spec, rows = make_spec(), 6
    module = MacroExperts(spec, experts, target=target, **options)
    batch = random_batch(spec, rows, seed)
    targets = {side: torch.randn(experts, rows, target) for side in ("user", "item")} if target else None
    expected = naive(module, batch, targets)
    for order in module.orders:
        of_order = targets and targets["item" if order[0] == "u" else "user"]
        found = module.of_order(order, batch[order], of_order)
        want = torch.stack([expected[order, s] for s in range(experts)])
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)
    if targets is None:
        for side, found in zip("ui", module(batch), strict=True):
            orders = [order for order in module.orders if order[0] == side]
            want = [torch.cat([expected[order, s] for order in orders], 1) for s in range(experts)]
            torch.testing.assert_close(found, torch.stack(want), atol=1e-5, rtol=1e-4)


@given(rows=st.integers(1, 5), nodes=st.integers(1, 9), tau=st.floats(0.2, 3), seed=st.integers(0, 99))
def test_weights_are_shares_of_the_linked_macro_nodes(rows, nodes, tau, seed):
    g = torch.Generator().manual_seed(seed)
    edges = torch.rand(rows, nodes, generator=g) * (torch.rand(rows, nodes, generator=g) < 0.5)
    torch.testing.assert_close(edge_weights(edges, tau, mask_empty=False).sum(1), torch.ones(rows))
    masked = edge_weights(edges, tau, mask_empty=True)
    assert not masked[edges == 0].any()
    torch.testing.assert_close(masked.sum(1), (edges > 0).any(1).float())


def test_one_link_of_nine_edges_among_twenty_nodes():
    """Spec 5: 76 % of the mass stays on empty macro nodes at tau 1.3, unless they are masked."""
    edges = torch.zeros(1, 20)
    edges[0, 3] = math.log1p(9)
    assert 0.755 < 1 - edge_weights(edges, 1.3, mask_empty=False)[0, 3] < 0.77
    assert edge_weights(edges, 1.3, mask_empty=True)[0, 3] == 1


def test_a_node_without_edges_aggregates_to_zero_where_empty_nodes_are_masked():
    spec = make_spec()
    batch = take(random_batch(spec), slice(4)) | {
        order: torch.zeros(4, n) for order, n in (("u1", 7), ("u2", 5), ("i1", 5), ("i2", 7))
    }
    for target in (0, 2):
        vector = torch.randn(3, 4, 2) if target else None
        masked, bare = (
            [module.of_order(order, batch[order], vector) for order in module.orders]
            for module in (
                MacroExperts(spec, 3, width=4, aggregate=4, tau=1.0, mask_empty=mask, target=target)
                for mask in (True, False)
            )
        )
        assert not torch.cat(masked).any()
        assert torch.cat(bare).any()
