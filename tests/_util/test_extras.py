"""Optional libraries."""

import pytest

from mgoe._util.extras import load
from mgoe.errors import MissingExtra


def test_a_library_that_is_there_is_loaded():
    assert load("json", "place", "JSON", "nothing").dumps(1) == "1"


@pytest.mark.parametrize("error", [ImportError("No module named 'x'"), OSError("libgomp.so.1: cannot open")])
def test_one_that_is_not_is_named_with_its_reason_and_its_mend(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def missing(name: str) -> None:
        raise error

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra) as found:
        load("x", "a.key", "`fast` needs X, which", "pip install -e '.[fast]'")
    reason = f"`fast` needs X, which cannot be imported ({error})"
    assert str(found.value) == f"a.key: {reason}; install it with: pip install -e '.[fast]'"
