"""A specification of features is restored exactly."""

from hypothesis import given
from hypothesis import strategies as st

from mgoe.features import FeatureSpec


@given(spec=st.from_type(FeatureSpec))
def test_a_specification_is_restored_to_the_last_bit(spec: FeatureSpec):
    assert repr(FeatureSpec.from_json(spec.to_json())) == repr(spec)  # nan is equal to nan there
