"""A model taken apart gives what it gives whole, whatever it reads and however it is switched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import ModelSettings
from mgoe.features import GROUPS, batch_keys
from mgoe.models import (
    AdditiveDecomposition,
    Batch,
    CategoricalSpec,
    Decomposition,
    FeatureSpec,
    RankingModel,
    make_model,
)
from mgoe.models.baselines.din import DIN
from mgoe.models.baselines.flat import SharedBottom
from tests.effort import up_to
from tests.models.batches import RATES, make_spec, random_batch
from tests.models.test_contract import MODELS, every_model

CONTEXT = (CategoricalSpec("hour", 4), CategoricalSpec("tags", 5, multi=True))
PARTS = {name: key.parts for name, key in batch_keys(make_spec(context=CONTEXT, rates=RATES), GROUPS).items()}
MIXED = [name for name, parts in PARTS.items() if len({*parts}) > 1]


def columns_of(name: str, part: str) -> torch.Tensor:
    """Which columns of a mixed key belong to a part."""
    return torch.tensor([one == part for one in PARTS[name]])


def is_of_user(name: str) -> bool:
    return {*PARTS.get(name, ())} == {"user"}


def of_one_user(spec: FeatureSpec, rows: int, seed: int) -> Batch:
    """One user and several items: every column of the user's is the same in all rows."""
    batch = random_batch(spec, rows, seed)
    for name, value in batch.items():
        if is_of_user(name):
            batch[name] = value[:1].expand(rows, *value.shape[1:])
    for name in batch.keys() & {*MIXED}:
        batch[name] = torch.where(columns_of(name, "user"), batch[name][:1], batch[name])
    return batch


def part(batch: Batch, side: str, keys: frozenset[str]) -> Batch:
    """What one side knows: its own keys, and zeros where a column is another's. The user has one row."""
    out = {}
    for name in keys & batch.keys():
        value = batch[name][:1] if side == "user" else batch[name]
        out[name] = torch.where(columns_of(name, side), value, 0.0) if name in MIXED else value
    return out


def late(batch: Batch, taken: Decomposition) -> Batch:
    """What is left for `join`: one row of the user's, and the pair's columns of mixed keys where it reads no
    others."""
    out = {name: batch[name][:1] if is_of_user(name) else batch[name] for name in taken.keys & batch.keys()}
    for name in out.keys() & {*MIXED} if not taken.whole else ():
        out[name] = out[name][:, columns_of(name, "pair")]
    return out


def check_decomposition(model, batch: Batch) -> None:
    decomposition = model.decompose()
    with torch.no_grad():
        user, item = (
            decomposition.user(part(batch, "user", decomposition.user_keys)),
            decomposition.item(part(batch, "item", decomposition.item_keys)),
        )
        assert user.shape == (1, decomposition.width)
        assert item.shape == (len(batch["item"]), decomposition.width)
        torch.testing.assert_close(
            decomposition.join(user + item, late(batch, decomposition)),
            model.logits(batch),
            atol=1e-5,
            rtol=1e-5,
        )


@every_model
@up_to(5)
@given(rows=st.integers(1, 9), seed=st.integers(0, 99), tasks=st.integers(1, 4))
def test_the_parts_together_are_the_whole(model, rows, seed, tasks):
    spec = make_spec(tasks)
    check_decomposition(make_model(model, spec, seed), of_one_user(spec, rows, seed))


@pytest.mark.parametrize("name", ["mgoe", "shared-bottom+mgoe", "logistic"])
def test_a_model_that_reads_rates_can_be_taken_apart(name):
    spec = make_spec(rates=RATES)
    model = make_model(name, spec, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    check_decomposition(model, of_one_user(spec, 7, 0))


def test_any_options_of_mgoe_can_be_taken_apart():
    options = st.fixed_dictionaries(
        {
            "form": st.sampled_from(["mlp", "paper"]),
            "transfer": st.sampled_from(["none", "aitm", "concat"]),
            "gate_query": st.sampled_from(["counts", "inputs", "experts"]),
            "products": st.sampled_from([0, 4]),
            "knots": st.lists(st.floats(-2, 2), max_size=3, unique=True).map(sorted),
            **{
                name: st.booleans()
                for name in (
                    "second_order",
                    "table",
                    "mask_empty",
                    "edge_vectors",
                    "one_gate",
                    "shared_macro",
                )
            },
        }
    )
    groups = st.sets(st.sampled_from(tuple(GROUPS))).map(lambda more: more | {"counts", "side", "aggregates"})

    @given(options=options, inputs=groups, tasks=st.integers(1, 4), seed=st.integers(0, 99))
    def check(options, inputs, tasks, seed):
        spec = make_spec(tasks)
        settings = ModelSettings(
            name="x",
            base="mgoe",
            inputs=tuple(group for group in tuple(GROUPS) if group in inputs),
            options=options,
        )
        check_decomposition(make_model(settings, spec, seed), of_one_user(spec, 5, seed))

    check()


@pytest.mark.parametrize("name", ["mgoe", "mgoe-paper", "mmoe", "mmoe+graph", "shared-bottom"])
def test_presets_compute_users_and_items_ahead(name):
    decomposition = make_model(MODELS.get(name, name), make_spec(), 0).decompose()
    assert isinstance(decomposition, AdditiveDecomposition)
    assert not decomposition.keys & {"u1", "u2", "i1", "i2", "counts"}
    assert decomposition.width > 0


def test_a_context_a_candidate_gives_the_user_a_row_each():
    spec = make_spec()
    model, batch = make_model("mgoe", spec, 0), of_one_user(spec, 6, 0)
    batch["context.hour"] = random_batch(spec, 6, 1)["context.hour"]
    decomposition = model.decompose()
    known = part(batch, "user", decomposition.user_keys) | {"context.hour": batch["context.hour"]}
    with torch.no_grad():
        user, item = (
            decomposition.user(known),
            decomposition.item(part(batch, "item", decomposition.item_keys)),
        )
        torch.testing.assert_close(
            decomposition.join(user + item, late(batch, decomposition)),
            model.logits(batch),
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("base", ["mmoe", "mgoe"])
def test_one_expert_has_a_weight_of_one_in_every_row(base, tasks):
    spec = make_spec(tasks)
    model = ModelSettings(name=base, base=base, options={"experts": 1} if base == "mmoe" else {})
    gates = make_model(model, spec, 0).explain(random_batch(spec, 6))["gates"]
    assert gates.shape == (6, tasks, 1 if base == "mmoe" else tasks)
    torch.testing.assert_close(gates.sum(2), torch.ones(6, tasks))


@every_model
def test_explanations_are_weights_a_row(model):
    spec = make_spec()
    built, batch = make_model(model, spec, 0), random_batch(spec, 6)
    with torch.no_grad():
        shown = built.explain(batch)
    if type(built).explain is RankingModel.explain:
        assert shown == {}
        return
    for name, weights in shown.items():
        assert len(weights) == 6, name
        if isinstance(built, DIN) and name.startswith("recent"):  # its weights need not sum to one
            assert not weights[batch[name] < 0].any()
            continue
        total = weights.sum(-1)
        empty = torch.zeros(6, dtype=torch.bool)
        if name.startswith(("u", "i")):
            empty = (batch[name] == 0).all(1) & torch.tensor(built.options.mask_empty)
        elif name.startswith("recent"):
            empty = (batch[name] < 0).all(1)
        expected = torch.where(empty.view(-1, *[1] * (total.dim() - 1)), 0.0, torch.ones_like(total))
        torch.testing.assert_close(total, expected)
    assert ("u1" in shown) == ("aggregates" in built.needs)
    assert ("recent_items" in shown) == ("recents" in built.needs)
    assert ("gates" in shown) == (not isinstance(built, SharedBottom))
