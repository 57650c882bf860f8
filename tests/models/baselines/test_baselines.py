"""Each baseline against its equations, on small inputs."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import ModelSettings
from mgoe.models import TaskSpec, make_model
from mgoe.models.baselines import own_experts
from mgoe.models.baselines.funnel import logit_of_product, parents
from mgoe.models.baselines.own_experts import groups_of
from mgoe.models.layers.experts import LEADS_TO, PartialGates, mix
from tests.models.batches import make_spec, random_batch

SPEC = make_spec()
FUNNEL = (TaskSpec("click"), TaskSpec("cart"), TaskSpec("buy"))


def make(base, spec=SPEC, **options):
    return make_model(ModelSettings(name="x", base=base, options=options), spec, 0)


def blocks(tensor, axis, order):
    """The tensor with its equal parts along an axis in another order."""
    return torch.cat([tensor.chunk(len(order), axis)[k] for k in order], axis)


def permuted(state, rules):
    """Set weights by rules: a pattern of names, and a value."""
    for pattern, axis, order in rules:
        state = {
            name: blocks(value, axis, order) if re.match(pattern, name) else value
            for name, value in state.items()
        }
    return state


def stacked(where, order):
    """Rules for copies that lie side by side."""
    return [(rf"{where}\.common", 1, order), (rf"{where}\.(?!common)", 0, order)]


ORDER = [2, 0, 1]
WITH_SHARED = [2, 0, 1, 3]
OF_TASKS = {
    "single-task": [],
    "shared-bottom": [],
    "din": [],
    "macgnn": [],
    "omoe": [],
    "mmoe": [(r"gates\.score", 0, ORDER)],
    "metaheac": [("tasks", 0, ORDER)],
    "ple": [
        *stacked(r"levels\.\d\.experts", WITH_SHARED),
        *stacked(r"levels\.\d\.gates\.score", ORDER),
        (r"levels\.\d\.shared_gate\.score", 0, WITH_SHARED),
    ],
    "home": [
        (r"task_experts", 0, [2, 0, 1, 3, 4, 5]),
        *stacked(r"(self_)?gates\.score", ORDER),
    ],
}


@pytest.mark.parametrize("base", OF_TASKS)
def test_tasks_in_another_order_give_the_same_in_that_order(monkeypatch, base):
    monkeypatch.setattr(own_experts, "groups_of", lambda tasks: [int(task.name == "t1") for task in tasks])
    ours, batch = make(base), random_batch(SPEC)
    theirs = make(base, replace(SPEC, tasks=tuple(SPEC.tasks[t] for t in ORDER)))
    towers = [] if base == "metaheac" else [*stacked("towers.mlp", ORDER), (r"towers\.out", 0, ORDER)]
    theirs.load_state_dict(
        permuted(ours.state_dict(), [*OF_TASKS[base], *towers, (r"bias\.weight", 1, ORDER)])
    )
    torch.testing.assert_close(theirs(batch), ours(batch)[:, ORDER], atol=1e-6, rtol=1e-5)
    losses = theirs.loss(batch | {"labels": batch["labels"][:, ORDER]})[1]
    torch.testing.assert_close(losses, ours.loss(batch)[1][ORDER], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("base", ["single-task", "esmm", "macgnn"])
def test_no_layer_is_shared(base):
    built = make(base)
    built(random_batch(SPEC))[:, 1].sum().backward()
    reached = {name: p.grad for name, p in built.towers.named_parameters()}
    moved = {
        name: g.unflatten(1, (3, -1)).transpose(0, 1) if name == "mlp.common" else g
        for name, g in reached.items()
    }
    before = [0] if base == "esmm" else []  # a click is a step of every product
    assert all([t for t in range(3) if g[t].any()] == [*before, 1] for g in moved.values())


def test_one_expert_of_a_mixture_is_a_shared_bottom():
    mixture, bottom = make("omoe", experts=1), make("shared-bottom", hidden=[128, 64])
    bottom.load_state_dict(
        {name.replace("experts.", "bottom."): value for name, value in mixture.state_dict().items()}
    )
    batch = random_batch(SPEC)
    assert torch.equal(mixture.predict(batch), bottom.predict(batch))


def test_one_gate_is_a_gate_a_task_that_agree():
    one, several, batch = make("omoe"), make("mmoe"), random_batch(SPEC)
    state = one.state_dict()
    state |= {
        f"gates.score.{part}": state.pop(f"gate.score.{part}").repeat(*((3, 1) if part == "weight" else (3,)))
        for part in ("weight", "bias")
    }
    common = state.pop("towers.mlp.common")
    state["towers.mlp.own"] = common.unflatten(1, (3, -1)).transpose(0, 1)
    several.load_state_dict(state)
    torch.testing.assert_close(several.predict(batch), one.predict(batch), atol=1e-6, rtol=0)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_a_gate_weighs_what_it_reads_and_nothing_else(gates, each, seed):
    torch.manual_seed(seed)
    reads = [torch.randperm(6)[:each].tolist() for _ in range(gates)]
    built = PartialGates(reads, 6, common=3, own=2)
    weights = built(torch.randn(5, 3), torch.randn(gates, 5, 2))
    assert weights.shape == (5, gates, 6)
    for g, read in enumerate(reads):
        rest = [s for s in range(6) if s not in read]
        assert not weights[:, g, rest].any()
        assert (weights[:, g, read] > 0).all()
        if each > 1:
            torch.testing.assert_close(weights[:, g].sum(1), torch.ones(5))


def one_copy(mlp, copy, common, own):
    """One MLP of several that lie side by side."""
    h = mlp.bias[copy].expand(len(common if own is None else own), -1)
    if mlp.common is not None:
        h = h + common @ mlp.common.unflatten(1, (mlp.copies, -1))[:, copy]
    if mlp.own is not None:
        h = h + own @ mlp.own[copy]
    return h


def test_extraction_equals_its_equations():
    built, batch = make("ple", own_experts=2, shared_experts=3), random_batch(SPEC, 16)
    common, below = built.inputs(batch), None
    for number, level in enumerate(built.levels):
        reads = [None if below is None else below[group] for group in (0, 0, 1, 1, 2, 2, 3, 3, 3)]
        experts = torch.stack(
            [one_copy(level.experts, s, common, read).relu() for s, read in enumerate(reads)]
        )
        out = []
        for t in range(3):
            read = [2 * t, 2 * t + 1, 6, 7, 8]
            gate = one_copy(level.gates.score, t, common, None if below is None else below[t]).softmax(1)
            out.append((gate.T[:, :, None] * experts[read]).sum(0))
        if number == 0:
            out.append((level.shared_gate.score(common).softmax(1).T[:, :, None] * experts).sum(0))
        common, below = None, torch.stack(out)
    torch.testing.assert_close(built.logits(batch), built.towers(None, below))


def test_equal_gates_take_the_mean():
    built, batch = make("ple", hidden=[8]), random_batch(SPEC)
    for parameter in built.levels[0].gates.parameters():
        torch.nn.init.zeros_(parameter)
    experts = built.levels[0].experts(built.inputs(batch))
    torch.testing.assert_close(built._extract(batch)[0], (experts[:3] + experts[3:]) / 2)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_the_logit_of_a_product_of_probabilities(a, b):
    x, y = torch.tensor([a, b], dtype=torch.float64)
    product = x.sigmoid() * y.sigmoid()
    torch.testing.assert_close(logit_of_product(x, y).sigmoid(), product, rtol=1e-9, atol=0)
    assert logit_of_product(x, y) <= min(x, y)
    assert logit_of_product(x, y) == logit_of_product(y, x)


@pytest.mark.parametrize("size", [20.0, 90.0, 1e4])
def test_a_product_stays_finite_where_probabilities_are_0_or_1(size):
    for signs in ((1, 1), (1, -1), (-1, -1)):
        a, b = (torch.tensor(size * sign, requires_grad=True) for sign in signs)
        logit = logit_of_product(a, b)
        torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor(1.0)).backward()
        assert logit.isfinite()
        assert a.grad.isfinite()
        assert b.grad.isfinite()


def test_a_task_follows_from_the_first_or_from_the_one_before():
    assert parents(FUNNEL, "first") == [None, 0, 0]
    assert parents(FUNNEL, "chain") == [None, 0, 1]
    mixed = (
        TaskSpec("stay", kind="regression"),
        *FUNNEL[:2],
        TaskSpec("price", kind="regression"),
        TaskSpec("buy", given=1),
    )
    assert parents(mixed, "first") == parents(mixed, "chain") == [None, None, 1, None, 1]
    assert (
        parents(
            (*mixed[:2], TaskSpec("buy", given=0), TaskSpec("price", kind="regression", given=1)), "first"
        )
        == [None] * 4
    )


@pytest.mark.parametrize("funnel", ["first", "chain"])
def test_probabilities_multiply_along_the_funnel(funnel):
    built, batch = make("esmm", make_spec(FUNNEL), funnel=funnel), random_batch(make_spec(FUNNEL))
    click, cart, buy = built.towers(built.inputs(batch), None).sigmoid().T
    expected = torch.stack([click, click * cart, click * buy * (cart if funnel == "chain" else 1)], 1)
    torch.testing.assert_close(built.predict(batch), expected)


def test_a_conditional_task_is_trained_on_every_exposure_and_predicted_within_its_own():
    spec = make_spec((TaskSpec("click"), TaskSpec("buy", given=0)))
    built, batch = make("esmm", spec), random_batch(spec, 4)
    nan = torch.nan
    batch["labels"] = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, nan], [nan, nan]])
    torch.testing.assert_close(
        built.targets(batch), torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [nan, nan]]), equal_nan=True
    )
    priced = make("esmm", make_spec((TaskSpec("click"), TaskSpec("price", kind="regression", given=0))))
    assert priced.targets(batch)[2:, 1].isnan().all()  # what was not bought has no price
    steps = built.towers(built.inputs(batch), None).sigmoid()
    torch.testing.assert_close(built.predict(batch), steps)
    del batch["position"]
    joint = steps.prod(1)[:3]
    weight = batch["weight"][:3]
    expected = -(weight * torch.stack([joint[0], 1 - joint[1], 1 - joint[2]]).log()).sum() / weight.sum()
    torch.testing.assert_close(built.loss(batch)[1][1], expected)


@pytest.mark.parametrize("funnel", ["first", "chain"])
def test_the_calibrator_by_hand(funnel):
    spec = make_spec((*FUNNEL, TaskSpec("pay", given=2)))
    built, plain = (make("aitm", spec, calibrator=alpha, funnel=funnel) for alpha in (0.5, 0))
    batch = random_batch(spec)
    share, valid = built(batch).sigmoid(), ~batch["labels"].isnan()
    expected = torch.zeros(4)
    for t in (1, 2):  # a task with a sample space is in no order
        parent = t - 1 if funnel == "chain" else 0
        excess = (share[:, t] - share[:, parent]).relu() * valid[:, t] * valid[:, parent]
        expected[t] = 0.5 * (excess * batch["weight"]).sum() / (batch["weight"] * valid[:, t]).sum()
    torch.testing.assert_close(built.loss(batch)[1] - plain.loss(batch)[1], expected, atol=1e-6, rtol=1e-4)
    assert expected[1:3].all()


def test_experts_and_critics_equal_their_equations():
    built, batch = make("metaheac", experts=4), random_batch(SPEC, 16)
    x = built.inputs(batch)
    experts = built.experts(x)
    for t in range(3):
        with_task = torch.cat(
            [x, built.tasks[t].expand(16, -1)], 1
        )  # the gates of the paper read the two side by side
        weights = [
            (
                with_task @ torch.cat([gate.of_inputs.weight, gate.of_task.weight], 1).T + gate.of_inputs.bias
            ).softmax(1)
            for gate in (built.expert_gate, built.critic_gate)
        ]
        h = torch.einsum("bs,sbw->bw", weights[0], experts)
        verdicts = built.verdict(built.critics(h)).squeeze(2)  # (C, B)
        torch.testing.assert_close(
            built.logits(batch)[:, t], (weights[1].T * verdicts).sum(0), atol=1e-6, rtol=1e-5
        )


def test_a_task_reads_every_embedding_and_moves_its_own_and_the_shared_ones():
    built, batch = make("stem"), random_batch(SPEC)
    table = built.inputs.nodes.users
    sets = table.embedding_dim // 4
    built.logits(batch)[:, 1].sum().backward()
    moved = table.weight.grad.to_dense().unflatten(1, (4, sets)).abs().sum((0, 2)) > 0
    assert moved.tolist() == [False, True, False, True]
    before = built.logits(batch)[:, 1].detach()
    with torch.no_grad():
        table.weight[:, :sets] += 1
    assert not torch.allclose(built.logits(batch)[:, 1], before)


def test_stopped_gradients_leave_the_sum_as_it_is():
    built, batch = make("stem+mgoe"), random_batch(SPEC)
    common, own = built.inputs(batch)
    whole = mix(built._weights(common, own), built.experts(common, own))
    torch.testing.assert_close(built.logits(batch), built.towers(None, whole))


def test_tasks_fall_into_groups():
    assert groups_of(FUNNEL) == [0, 1, 1]
    assert groups_of(FUNNEL[:1]) == [0]
    assert groups_of((*FUNNEL, TaskSpec("stay", kind="regression"))) == [0, 0, 0, 1]


@pytest.mark.parametrize("experts", [1, 2])
def test_the_hierarchy_masks_experts_of_others(experts):
    built, batch = make("home", experts=experts), random_batch(SPEC)
    _, query = built._meta(batch)
    weights = (built.gates(None, query) + built.self_gates(None, query)).transpose(0, 1)  # (T, B, S)
    unit = [(weights[t].unflatten(1, (6, experts)) > 0).all(0).all(1).tolist() for t in range(3)]
    #         t0     t1     t2     t0     t1,t2  all
    assert unit == [
        [True, False, False, True, False, True],
        [False, True, False, False, True, True],
        [False, False, True, False, True, True],
    ]


def test_a_row_is_normalised_by_itself_in_training_too():
    built, batch = make("home").train(), random_batch(SPEC, 8)
    alone = {key: value[:1] for key, value in batch.items()}
    torch.testing.assert_close(built(alone), built(batch)[:1], atol=1e-6, rtol=1e-5)


def test_macro_neighbours_equal_their_equations():
    built, batch = make("macgnn"), random_batch(SPEC, 8)
    macro, rows = built.inputs.macro, built.inputs.nodes(batch)
    targets, expected = {"user": rows.user, "item": rows.item}, []
    for order, side in LEADS_TO.items():
        nodes = macro.nodes[side][0]
        attention = (targets[side] @ macro.key[order][0]) @ (nodes @ macro.query[order][0]).T / 32**0.5
        weights = (batch[order] / 1.3).exp() * attention.exp()
        expected.append((weights / weights.sum(1, keepdim=True)) @ (nodes @ macro.value[order][0]))
    torch.testing.assert_close(
        built.inputs(batch)[:, -4 * 32 :], torch.cat(expected, 1), atol=1e-6, rtol=1e-5
    )


@given(share=st.floats(0.001, 0.999), mean=st.floats(0, 1e3))
def test_a_constant_is_the_share_of_a_task_and_the_mean_of_a_regression(share, mean):
    spec = make_spec(
        (TaskSpec("click", mean=share, std=0.4), TaskSpec("stay", "regression", mean=mean, std=9.0))
    )
    found = make("constant", spec).predict(random_batch(spec, 5))
    torch.testing.assert_close(found, torch.tensor([share, mean]).expand(5, 2))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_constant_of_a_task_that_never_or_always_happens_is_finite(share):
    spec = make_spec((TaskSpec("click", mean=share),))
    assert make("constant", spec).loss(random_batch(spec))[0].isfinite()
