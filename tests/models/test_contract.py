"""What must hold for every model under every choice of inputs and switches."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mgoe.config import ModelSettings
from mgoe.features import GROUPS
from mgoe.models import PRESETS, FeatureSpec, TaskSpec, make_model
from mgoe.models.baselines.own_experts import GatedExperts
from mgoe.models.layers.stacked import StackedMLP
from tests.effort import SOAK, up_to
from tests.models.batches import UNTRAINED, make_spec, random_batch, take

OTHERS = ("lightgbm", "logistic", *UNTRAINED)
GRAPH_ONLY = ("recents", "aggregates")
MODELS = {
    name: ModelSettings(name=name, base=base, **more)
    for name, base, more in [
        ("mgoe", "mgoe", {}),
        ("mgoe-paper", "mgoe-paper", {}),
        ("mgoe+counts", "mgoe+counts", {}),
        (
            "everything",
            "mgoe",
            {
                "inputs": tuple(GROUPS),
                "options": {"table": True, "transfer": "concat", "gate_query": "inputs", "products": 4},
            },
        ),
        (
            "shared macro nodes",
            "mgoe",
            {"inputs": tuple(GROUPS), "options": {"shared_macro": True, "one_gate": True}},
        ),
        ("one order", "mgoe", {"options": {"second_order": False, "transfer": "none", "hidden": [8]}}),
        ("a table of nothing", "mgoe+counts", {"options": {"table": True}}),
        ("paper, masked", "mgoe-paper", {"options": {"mask_empty": True, "gate_query": "inputs"}}),
        ("paper without ids", "mgoe-paper", {"inputs": ("side", "recents", "aggregates", "counts")}),
        (
            "paper of the graph alone",
            "mgoe-paper",
            {"inputs": GRAPH_ONLY, "options": {"gate_query": "inputs", "tower_hidden": [16]}},
        ),
        ("mgoe of the graph alone", "mgoe", {"inputs": GRAPH_ONLY}),
        ("a gate per task", "mgoe", {"inputs": tuple(GROUPS), "options": {"table": True, "one_gate": False}}),
        ("mmoe", "mmoe", {}),
        ("mmoe+graph", "mmoe+graph", {"options": {"experts": 4}}),
        ("mmoe+counts", "mmoe+counts", {}),
        ("shared-bottom", "shared-bottom", {}),
        ("shared-bottom+edges", "shared-bottom+edges", {"options": {"hidden": [16, 8, 4]}}),
        ("shared-bottom without ids", "shared-bottom", {"inputs": GRAPH_ONLY}),
        ("shared-bottom, bent", "shared-bottom", {"inputs": tuple(GROUPS), "options": {"knots": [-1, 0, 1]}}),
        ("single-task", "single-task", {}),
        ("omoe", "omoe", {}),
        ("ple", "ple", {}),
        (
            "ple of three levels",
            "ple+mgoe",
            {"options": {"hidden": [16, 12, 8], "own_experts": 2, "shared_experts": 3}},
        ),
        ("cgc", "ple+counts", {"options": {"hidden": [16]}}),
        ("esmm", "esmm", {}),
        ("esmm in a chain", "esmm+graph", {"options": {"funnel": "chain"}}),
        ("aitm", "aitm", {}),
        ("metaheac", "metaheac", {}),
        ("metaheac of many", "metaheac+graph", {"options": {"experts": 4}}),
        ("stem", "stem", {}),
        ("stem+mgoe", "stem+mgoe", {}),
        ("stem of the graph alone", "stem", {"inputs": GRAPH_ONLY}),
        ("home", "home", {}),
        ("home of several", "home+mgoe", {"options": {"experts": 2, "hidden": [16, 8]}}),
        ("din", "din", {}),
        ("din+mgoe", "din+mgoe", {}),
        ("macgnn", "macgnn", {}),
        ("macgnn+mgoe", "macgnn+mgoe", {}),
        ("macgnn of the graph alone", "macgnn", {"inputs": GRAPH_ONLY}),
    ]
}
"""Every class of models under every choice of inputs and switches."""
SHORT = (
    "everything",
    "shared macro nodes",
    "mgoe-paper",
    "mmoe+graph",
    "shared-bottom, bent",
    "single-task",
    "ple of three levels",
    "esmm in a chain",
    "aitm",
    "metaheac of many",
    "stem of the graph alone",
    "home of several",
    "din+mgoe",
    "macgnn+mgoe",
)
"""Those of the short form: each class once, with the switches that change most of what it computes."""
SPEC = make_spec()
_NAMES = list(MODELS if SOAK else SHORT)
every_model = pytest.mark.parametrize("model", [MODELS[name] for name in _NAMES], ids=_NAMES)


@every_model
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_every_parameter_gets_gradient(model, tasks):
    spec = make_spec(tasks)
    built = make_model(model, spec, seed=0)
    built.loss(random_batch(spec, 256))[0].backward()
    gradients = {name: p.grad for name, p in built.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.to_dense().any()] == []


@every_model
@up_to(5)
@given(rows=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_prediction_is_independent_of_its_batch_mates(model, rows, seed):
    built = make_model(model, SPEC, seed=0)
    batch = random_batch(SPEC, rows, seed)
    together = built.predict(batch)
    torch.testing.assert_close(
        torch.cat([built.predict(take(batch, slice(i, i + 1))) for i in range(rows)]),
        together,
        atol=1e-6,
        rtol=0,
    )
    backwards = torch.arange(rows - 1, -1, -1)
    torch.testing.assert_close(built.predict(take(batch, backwards))[backwards], together, atol=1e-6, rtol=0)


@every_model
def test_the_same_seed_gives_the_same_model_and_leaves_torch_alone(model):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (make_model(model, SPEC, seed) for seed in (0, 0, 1))
    assert torch.rand(1) == expected
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one(random_batch(SPEC)), other(random_batch(SPEC)))


@every_model
def test_no_rows_are_no_trouble(model):
    """As the last part of a batch that is taken in parts may have."""
    built = make_model(model, SPEC, seed=0)
    assert built(take(random_batch(SPEC), slice(0, 0))).shape == (0, len(SPEC.tasks))


@every_model
def test_cold_nodes_and_empty_lists_give_finite_predictions(model):
    batch = random_batch(SPEC, 8)
    cold = {
        "user": SPEC.n_users,
        "item": SPEC.n_items,
        "user_macro": SPEC.macro_users,
        "item_macro": SPEC.macro_items,
    }
    cold |= {
        "recent_items": -1,
        "recent_users": -1,
        "recent_items_macro": SPEC.macro_items,
        "recent_users_macro": SPEC.macro_users,
    }
    cold |= {
        "recent_items_task_mask": 0,
        "recent_users_task_mask": 0,
        "table_user": SPEC.macro_items,
        "table_item": SPEC.macro_users,
    }
    cold |= {"u1": 0, "u2": 0, "i1": 0, "i2": 0, "user_side.tags": -1}
    for key, value in cold.items():
        batch[key] = torch.full_like(batch[key], value)
    built = make_model(model, SPEC, seed=0)
    loss, _ = built.loss(batch)
    loss.backward()
    assert built.predict(batch).isfinite().all()
    assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in built.parameters())


@every_model
def test_only_the_needed_groups_are_read(model):
    built = make_model(model, SPEC, seed=0)
    keys = {
        "ids": ("user", "item"),
        "side": ("user_side", "item_side"),
        "context": ("context",),
        "recents": ("recent_",),
        "aggregates": ("u1", "u2", "i1", "i2", "table_"),
    }
    needed = {"user", "item", "user_macro", "item_macro"}  # always there
    batch = {
        key: value
        for key, value in random_batch(SPEC).items()
        if key in needed or any(key.startswith(keys.get(group, (group,))) for group in built.needs)
    }
    assert built.predict(batch).shape == (64, 3)


@every_model
def test_bfloat16_is_close_to_float32(model):
    built, batch = make_model(model, SPEC, seed=0), random_batch(SPEC, 256)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = built.loss(batch)
        low = built.predict(batch)
    loss.backward()
    assert loss.dtype == low.dtype == torch.float32
    torch.testing.assert_close(low, built.predict(batch), atol=0.02, rtol=0)
    assert all(p.grad is not None and p.grad.to_dense().isfinite().all() for p in built.parameters())


@every_model
def test_copies_that_lie_side_by_side_differ_from_the_start(model, monkeypatch):
    built, found = make_model(model, SPEC, seed=0), []

    def kept(of_copies):
        found.extend(itertools.combinations(of_copies, 2))
        return of_copies

    rest = StackedMLP.rest  # some models call it alone
    monkeypatch.setattr(StackedMLP, "rest", lambda mlp, first: kept(rest(mlp, first)))
    for module in built.modules():
        if isinstance(module, GatedExperts):
            module.register_forward_hook(lambda module, _, out: kept(out))
    built(random_batch(SPEC))
    assert found
    assert all((a - b).abs().max() > 1e-4 for a, b in found)


class Called(TorchDispatchMode):
    """Counts what is computed inside, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func] += 1
        return func(*args, **(kwargs or {}))


@every_model
def test_a_loss_does_not_wait_for_the_device(model):
    """On a GPU each number that leaves its tensor does."""
    built, batch = make_model(model, SPEC, seed=0), random_batch(SPEC)
    leaves = torch.ops.aten._local_scalar_dense.default
    with Called() as called:
        loss, _ = built.loss(batch)
    assert called.counts
    assert called.counts[leaves] == 0
    with called:
        loss.item()
    assert called.counts[leaves] == 1


@every_model
def test_missing_labels_move_nothing(model):
    built, batch = make_model(model, SPEC, seed=0), random_batch(SPEC)
    missing = batch["labels"].isnan()
    raw = built(batch).detach().requires_grad_()
    built.forward = lambda batch: raw
    built.loss(batch)[0].backward()
    assert not raw.grad[missing].any()
    assert (raw.grad[~missing] != 0).all()


@every_model
def test_rows_without_labels_are_as_good_as_absent(model):
    batch = random_batch(SPEC)
    batch["labels"][::3] = torch.nan
    kept = take(batch, torch.arange(64) % 3 != 0)
    gradients = []
    for rows in (batch, kept):
        built = make_model(model, SPEC, seed=0)
        built.loss(rows)[0].backward()
        gradients.append([p.grad.to_dense() for p in built.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@every_model
def test_parameters_are_tables_with_sparse_gradients_or_dense(model):
    built = make_model(model, SPEC, seed=0)
    built.loss(random_batch(SPEC))[0].backward()
    tables, dense, everything = (
        {id(p) for p in ps} for ps in (built.tables(), built.dense(), built.parameters())
    )
    assert tables | dense == everything
    assert not tables & dense
    assert all(p.grad.is_sparse for p in built.tables())
    assert not any(p.grad.is_sparse for p in built.dense())


@every_model
def test_weights_reload_into_a_model_made_from_json(model):
    built = make_model(model, SPEC, seed=0)
    again = make_model(model, FeatureSpec.from_json(SPEC.to_json()), seed=1)
    again.load_state_dict(built.state_dict())
    assert torch.equal(again.predict(random_batch(SPEC)), built.predict(random_batch(SPEC)))


@every_model
def test_gates_are_shares(model):
    built = make_model(model, SPEC, seed=0)
    for gates in built.watch(random_batch(SPEC)).values():
        assert gates.shape[0] == 3
        torch.testing.assert_close(gates.sum(1), torch.ones(3))


def test_any_two_options_go_together():
    batch = random_batch(SPEC, 4)
    switches = {
        "form": ["mlp", "paper"],
        "transfer": ["none", "aitm", "concat"],
        "gate_query": ["counts", "inputs", "experts"],
        "second_order": [True, False],
        "table": [True, False],
    }
    for first in switches:
        for second in list(switches)[list(switches).index(first) + 1 :]:
            for a in switches[first]:
                for b in switches[second]:
                    built = make_model(
                        ModelSettings(
                            name="x", base="mgoe", inputs=tuple(GROUPS), options={first: a, second: b}
                        ),
                        SPEC,
                        0,
                    )
                    assert built.predict(batch).isfinite().all(), (first, a, second, b)


def test_the_user_side_ignores_the_candidate():
    built = make_model("mgoe", SPEC, seed=0)
    batch = random_batch(SPEC)
    other = batch | {key: batch[key].flip(0) for key in ("i1", "i2", "item", "item_macro")}
    assert torch.equal(built.macro(batch)[0], built.macro(other)[0])


NETWORKS = ["mgoe", *(name for name in PRESETS if name not in ("mgoe", "mgoe-paper", *OTHERS))]


@pytest.mark.parametrize("model", NETWORKS if SOAK else ["mgoe", "ple", "esmm"])
def test_mixed_tasks_train_together(model):
    spec = make_spec(
        (
            TaskSpec("click"),
            TaskSpec("buy", given=0),
            TaskSpec("stay", kind="regression", mean=50.0, std=20.0),
        )
    )
    batch = random_batch(spec)
    batch["labels"][:, 2] = torch.rand(64, generator=torch.Generator().manual_seed(0)) * 100
    batch["labels"][:, 1] = torch.where(batch["labels"][:, 0] == 1, batch["labels"][:, 1], torch.nan)
    built = make_model(model, spec, seed=0)
    optimizer = torch.optim.AdamW(built.dense(), 1e-2)
    first = built.loss(batch)[1]
    for _ in range(70):
        optimizer.zero_grad()
        built.loss(batch)[0].backward()
        optimizer.step()
    assert (built.loss(batch)[1] < first / 2).all()
    stay, known = built.predict(batch)[:, 2], ~batch["labels"][:, 2].isnan()
    assert (stay - batch["labels"][:, 2])[known].square().mean().sqrt() < 15
