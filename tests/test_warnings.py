"""Warnings by whose they are: ours fail a test, see `filterwarnings` in pyproject.toml."""

import pytest

WARN = "import warnings; warnings.warn('look here')"


@pytest.mark.parametrize("module", ["mgoe.made_up", "tests.made_up", "benchmarks.made_up"])
def test_a_warning_of_ours_fails_a_test(module: str):
    with pytest.raises(UserWarning, match="look here"):
        exec(WARN, {"__name__": module})
