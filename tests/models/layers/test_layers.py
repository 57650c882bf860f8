"""Side-by-side layers, gates, towers and recents against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mgoe.models.layers.experts import Gates, mix
from mgoe.models.layers.inputs import CLIP, Category, DenseInputs, Nodes, Recents, TargetAttention
from mgoe.models.layers.stacked import MacroTaskTable, StackedMLP, Towers
from mgoe.models.spec import CategoricalSpec
from tests.models.batches import make_spec, random_batch

small = st.integers(1, 5)


@given(
    copies=small,
    common=st.integers(0, 4),
    own=st.integers(0, 4),
    hidden=st.lists(small, min_size=1, max_size=3),
    rows=small,
)
def test_stacked_mlps_equal_separate_ones(copies, common, own, hidden, rows):
    mlp = StackedMLP(copies, common, own, hidden)
    x, mine = torch.randn(rows, common), torch.randn(copies, rows, own)
    found = mlp(x, mine) if common or own else None
    if found is None:
        return
    for c in range(copies):
        h = mlp.bias[c].expand(rows, -1)
        if mlp.common is not None:
            h = h + x @ mlp.common.view(common, copies, -1)[:, c]
        if mlp.own is not None:
            h = h + mine[c] @ mlp.own[c]
        h = h.relu()
        for layer in mlp.deeper:
            h = (h @ layer.weight[c] + layer.bias[c]).relu()
            ones = torch.ones(2, layer.weight.shape[1])
            torch.testing.assert_close(
                layer.one(c, ones), layer.weight[c].sum(0) + layer.bias[c].expand(2, -1)
            )
        torch.testing.assert_close(found[c], h, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tasks", [1, 3])
def test_gates_mix_experts(tasks):
    gates = Gates(tasks, experts=4, query=5)
    weights = gates(torch.randn(6, 5))
    assert weights.shape == (6, tasks, 4)
    torch.testing.assert_close(weights.sum(2), torch.ones(weights.shape[:2]))
    experts = torch.randn(4, 6, 7)
    torch.testing.assert_close(mix(weights, experts), torch.einsum("bts,sbw->tbw", weights, experts))


def test_gradients_of_a_mix_are_those_of_its_sums():
    weights = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    experts = torch.randn(4, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mix, (weights, experts))
    gradients = torch.randn(5, 3, 6, 7, dtype=torch.float64)
    together = torch.autograd.grad(mix(weights, experts), experts, gradients, is_grads_batched=True)[0]
    torch.testing.assert_close(together, torch.einsum("bts,ntbw->nsbw", weights, gradients))


def test_inputs_that_all_copies_share_may_come_once():
    mlp = StackedMLP(copies=3, common=2, own=4, hidden=(6, 5))
    common, own = torch.randn(7, 2), torch.randn(1, 7, 4)
    torch.testing.assert_close(mlp(common, own), mlp(common, own.expand(3, -1, -1)))


def naive_towers(towers: Towers, common, own):
    """Tower by tower, as section 4 says."""
    logits, before = [], None
    for t in range(len(own)):
        first = towers.mlp.first(common, own)[t]
        message = None
        if before is not None and towers.message is not None:
            message = (before @ towers.message.weight[t - 1] + towers.message.bias[t - 1]).relu()
        if towers.read_message is not None and message is not None:
            first = first + message @ towers.read_message[t - 1]
        h = first.relu()
        for layer in towers.mlp.deeper:
            h = (h @ layer.weight[t] + layer.bias[t]).relu()
        if towers.attention is not None and message is not None:
            d = h.shape[1]
            score, value = [], []
            for v in (message, h):
                projected = v @ towers.attention.weight[t - 1] + towers.attention.bias[t - 1]
                query, key, worth = projected.split(d, 1)
                score.append((query * key).sum(1) / d**0.5)
                value.append(worth)
            share = torch.stack(score).softmax(0)
            h = share[0][:, None] * value[0] + share[1][:, None] * value[1]
        logits.append(h @ towers.out.weight[t] + towers.out.bias[t])
        before = h
    return torch.cat(logits, 1)


@pytest.mark.parametrize("transfer", ["none", "concat", "aitm"])
@pytest.mark.parametrize("common", [0, 3])
def test_towers_equal_their_definition(transfer, common):
    towers = Towers(4, common, 5, (6, 4), transfer)
    x, own = torch.randn(8, common) if common else None, torch.randn(4, 8, 5)
    torch.testing.assert_close(towers(x, own), naive_towers(towers, x, own))


@pytest.mark.parametrize("transfer", ["none", "concat", "aitm"])
def test_information_passes_from_weak_to_strong_only(transfer):
    torch.manual_seed(0)
    towers = Towers(3, 0, 5, (32, 16), transfer)  # wide enough that no unit layer is dead on all rows
    own = torch.randn(3, 64, 5, requires_grad=True)
    out = towers(None, own)
    for t in range(3):
        (gradient,) = torch.autograd.grad(out[:, t].sum(), own, retain_graph=True)
        read = gradient.flatten(1).any(1).tolist()
        assert read == [s == t or (s < t and transfer != "none") for s in range(3)]


def test_table_entries_of_each_task_are_its_own():
    table = MacroTaskTable(2, macro_users=3, macro_items=4, width=5)
    found = table(torch.tensor([[1, 4], [0, 2]]), torch.tensor([[3, 0], [2, 1]]))
    assert found.shape == (2, 2, 10)
    torch.testing.assert_close(
        found[1, 0], torch.cat([table.of_user.weight[5 + 4], table.of_item.weight[4 + 0]])
    )


@given(rows=small, recents=st.integers(1, 6), seed=st.integers(0, 999))
def test_recents_in_any_order_give_the_same_summary(rows, recents, seed):
    g = torch.Generator().manual_seed(seed)
    attention = TargetAttention(3, 4)
    target, neighbors = torch.randn(rows, 3, generator=g), torch.randn(rows, recents, 3, generator=g)
    bonus, present = torch.rand(rows, recents, generator=g), torch.rand(rows, recents, generator=g) < 0.7
    order = torch.randperm(recents, generator=g)
    expected = attention(target, neighbors, bonus, present)
    torch.testing.assert_close(
        attention(target, neighbors[:, order], bonus[:, order], present[:, order]),
        expected,
        atol=1e-6,
        rtol=1e-5,
    )
    other = torch.where(present[:, :, None], neighbors, 9.0)  # values under the padding are not read
    torch.testing.assert_close(attention(target, other, bonus, present), expected)
    assert not expected[~present.any(1)].any()


def test_recents_equal_their_definition():
    attention = TargetAttention(3, 4)
    target, neighbors, bonus = torch.randn(5, 3), torch.randn(5, 6, 3), torch.rand(5, 6)
    key, query = neighbors @ attention.key, target @ attention.query
    weights = ((key * query[:, None]).sum(2) / 2 + bonus).softmax(1)
    expected = (weights[:, :, None] * (neighbors @ attention.value)).sum(1)
    torch.testing.assert_close(
        attention(target, neighbors, bonus, torch.ones(5, 6, dtype=torch.bool)), expected
    )


def test_a_stronger_behaviour_weighs_more():
    spec = make_spec(task_mask_scores=(0.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0))
    batch = random_batch(spec, 1) | {"recent_items": torch.tensor([[3, 5, -1, -1]])}
    nodes, recents = Nodes(spec, by_id=True, recents=True, width=4), Recents(spec, 4, 4)
    summaries = [
        recents(batch | {"recent_items_task_mask": torch.tensor([[1, code, 0, 0]])}, nodes(batch))[0, :4]
        for code in range(1, 8)
    ]
    ends = nodes.items.weight[[3, 5]] @ recents.items.value
    shares = (torch.stack(summaries) - ends[0]) @ (ends[1] - ends[0])  # of item 5, up to a factor
    assert (shares.diff() >= -1e-7).all()
    assert shares[-1] > shares[0]


def test_dense_features_are_standardised_and_clipped():
    """Those that are constant in training say nothing later."""
    spec = make_spec(moments={"counts": ((1.0, 2, 3, 4, 5), (2.0, 1, 0, 1, 1e-12))})
    inputs = DenseInputs(spec, ["counts", "pair"], width=4)
    batch = random_batch(spec, 3)
    batch["counts"] = torch.tensor([[3.0, 2, 3, 400, 5], [1, 1, 4, -400, 5], [5, 3, 3, 4, 6]])
    found = inputs(batch)
    torch.testing.assert_close(
        found[:, :5], torch.tensor([[1.0, 0, 0, CLIP, 0], [0, -1, 0, -CLIP, 0], [2, 1, 0, 0, 0]])
    )
    torch.testing.assert_close(found[:, 5:], batch["pair"].clamp(-CLIP, CLIP))
    assert inputs.columns("counts") == [0, 1, 2, 3, 4]


@given(knots=st.lists(st.floats(-2, 2), max_size=4), seed=st.integers(0, 99))
def test_every_number_but_target_edges_bends_at_each_knot(knots, seed):
    spec, batch = make_spec(), random_batch(make_spec(), 6, seed)
    torch.manual_seed(seed)
    groups = ["counts", "side", "edges", "pair"]
    plain, bent = DenseInputs(spec, groups, 4), DenseInputs(spec, groups, 4, knots=knots)
    bent.categories.load_state_dict(plain.categories.state_dict())
    x = plain(batch)
    numbers = [column for column, name in enumerate(plain.names[: len(plain.mean)]) if name != "edges"]
    hinges = [(x[:, numbers] - knot).clamp_min(0) for knot in knots]
    torch.testing.assert_close(bent(batch), torch.cat([x, *hinges], 1))
    assert bent.width == len(bent.parts()) == x.shape[1] + len(knots) * len(numbers)
    assert bent.columns("counts") == plain.columns("counts")


def test_several_categories_give_their_mean():
    category = Category(CategoricalSpec("tags", 5, multi=True), width=3)
    rows = category.codes.weight
    found = category(torch.tensor([[1, 4, -1], [2, -1, -1], [-1, -1, -1]]))
    torch.testing.assert_close(found, torch.stack([(rows[1] + rows[4]) / 2, rows[2], torch.zeros(3)]))


@pytest.mark.parametrize("by_id", [True, False])
def test_the_unseen_start_at_zero(by_id):
    spec = make_spec()
    nodes = Nodes(spec, by_id, recents=False, width=4)
    batch = random_batch(spec, 2)
    batch |= {"user": torch.tensor([spec.n_users, 0]), "user_macro": torch.tensor([spec.macro_users, 0])}
    rows = nodes(batch)
    assert not rows.user[0].any()
    assert rows.user[1].any()
    assert rows.recent_items.shape == (2, 0, 4)
    assert F.cosine_similarity(rows.user[1:], nodes.users.weight[:1]).item() == pytest.approx(1)
