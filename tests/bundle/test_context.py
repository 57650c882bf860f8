"""A context is encoded, or refused with the name of the feature and the rule."""

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.bundle.context import encode_json
from mgoe.config import FeatureSettings
from mgoe.data import Vocabulary
from mgoe.data.features import FeatureEncoders
from mgoe.errors import BundleError, DataError

FEATURES = (
    FeatureSettings(name="device"), FeatureSettings(name="age", kind="numeric"),
    FeatureSettings(name="tags", kind="multi"), FeatureSettings(name="numbers", kind="multi"),
)  # fmt: skip
ENCODERS = FeatureEncoders(
    FEATURES,
    {
        "device": Vocabulary(pa.array([1, 2])),
        "tags": Vocabulary(pa.array(["a", "b"])),
        "numbers": Vocabulary(pa.array([7, 8])),
    },
    {"tags": 3, "numbers": 3},
    {"age": (40.0, 10.0)},
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, 2**63, 10**400])
    | st.floats(allow_nan=False)
    | st.text()
)
several = st.lists(scalars, max_size=4)


@given(context=st.fixed_dictionaries({}, optional={feature.name: scalars | several for feature in FEATURES}))
def test_any_context_is_encoded_or_refused(context: dict[str, Any]):
    with suppress(BundleError, DataError):
        assert encode_json(ENCODERS, context).keys() == {"device", "numeric", "tags", "numbers"}


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"device": [1]}, "context.device: takes one value, found a list of 1"),
        ({"age": [1, 2]}, "context.age: takes one value, found a list of 2"),
        ({"tags": 7}, "context.tags: takes a list, or a text with separators, found 7"),
        ({"tags": True}, "context.tags: takes a list"),
        (
            {"devise": 1},
            "context.devise: 'devise' is not a context feature of this bundle; did you mean 'device'",
        ),
    ],
)
def test_a_value_that_does_not_suit_its_feature_is_refused(context: dict[str, Any], said: str):
    with pytest.raises(BundleError, match=said):
        encode_json(ENCODERS, context)


@pytest.mark.parametrize(
    ("context", "codes"),
    [
        ({"tags": "a|b"}, [1, 2, -1]),
        ({"tags": ["b", None, "x"]}, [2, 0, -1]),
        ({"tags": [1, "a"]}, [0, 1, -1]),
        ({"tags": []}, [-1] * 3),
        ({"tags": None}, [-1] * 3),
    ],
)
def test_multi_valued_features_are_encoded(context: dict[str, Any], codes: list[int]):
    encoded = encode_json(ENCODERS, context)
    assert encoded["tags"].tolist() == [codes]


@pytest.mark.parametrize("age", [1e308, -1e308, 10**400, 10**30, 1e39])
def test_large_numbers_stay_finite(age: float):
    encoded = encode_json(ENCODERS, {"age": age})
    assert np.isfinite(encoded["numeric"]).all()
