"""Members equal as many models, whose experts have one first layer in common but for a scale and a shift of
each unit."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import ModelSettings
from mgoe.features import GROUPS
from mgoe.models import MGOE, make_model
from tests.effort import up_to
from tests.models.batches import make_spec, random_batch

OPTIONS = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["mlp", "paper"]),
        "transfer": st.sampled_from(["none", "aitm", "concat"]),
        "gate_query": st.sampled_from(["counts", "inputs", "experts"]),
        "products": st.sampled_from([0, 3]),
        **{name: st.booleans() for name in ("table", "one_gate", "edge_vectors")},
    }
)


def make(spec, options: dict, members: int, seed: int = 0) -> MGOE:
    model = make_model(
        ModelSettings(
            name="m", base="mgoe", ids="on", inputs=tuple(GROUPS), options={**options, "members": members}
        ),
        spec,
        seed,
    )
    assert isinstance(model, MGOE)
    return model


def alone(together: MGOE, member: int, spec, options: dict) -> MGOE:
    """One member as a model: its scales and shifts are those of the weights of the first layers."""
    model = make(spec, options, 1)
    weights = together.state_dict()
    if together.experts is not None:
        experts, units = len(spec.tasks), together.options.hidden[0]
        scale, shift = (weights.pop(f"experts.members.{name}")[member] for name in ("scale", "shift"))
        for name in ("experts.common", "read_products"):  # (inputs, S W)
            if name in weights:
                weights[name] = weights[name] * scale.reshape(1, experts * units)
        weights["experts.own"] = weights["experts.own"] * scale
        weights["experts.bias"] = weights["experts.bias"] * scale + shift
    for name, own in model.state_dict().items():
        whole = weights[name]
        if whole.dim() > own.dim():  # gates that read experts, laid out as `nn.Linear`
            whole = whole[member].T.reshape(own.shape)
        axis = next((axis for axis in range(own.dim()) if whole.shape[axis] != own.shape[axis]), None)
        if axis is not None:
            whole = whole.narrow(axis, member * own.shape[axis], own.shape[axis])
        weights[name] = whole
    model.load_state_dict(weights)
    return model


@up_to(15)
@given(options=OPTIONS, tasks=st.integers(1, 4), members=st.integers(2, 4), seed=st.integers(0, 99))
def test_members_are_models_of_one_first_layer(options, tasks, members, seed):
    spec = make_spec(tasks)
    together, batch = make(spec, options, members, seed), random_batch(spec, 8, seed)
    single = [alone(together, member, spec, options) for member in range(members)]
    torch.testing.assert_close(
        together.each(batch), torch.stack([model(batch) for model in single]), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        together(batch), torch.stack([model(batch) for model in single]).mean(0), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        together.loss(batch)[1], torch.stack([model.loss(batch)[1] for model in single]).mean(0)
    )
    torch.testing.assert_close(
        together.watch(batch)["gates"], single[0].watch(batch)["gates"], atol=1e-5, rtol=1e-5
    )


def test_members_differ_from_the_start():
    spec = make_spec()
    each = make(spec, {}, 3).each(random_batch(spec))
    assert (each[0] - each[1]).abs().mean() > 1e-3
    assert (each[1] - each[2]).abs().mean() > 1e-3
