import sys

import pytest

import mgoe
from mgoe import experiments, graph


@pytest.mark.parametrize("package", [mgoe, graph, experiments])
def test_every_name_of_a_lazy_package_can_be_used(package):
    assert all(getattr(package, name) is not None for name in dir(package))


@pytest.mark.parametrize("package", [mgoe, graph, experiments])
def test_a_name_that_a_lazy_package_lacks_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'absent'"):
        _ = package.absent


def test_a_module_is_imported_when_its_name_is_first_used(tmp_path, monkeypatch):
    package = tmp_path / "lazy_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from mgoe._util.lazy import lazy\n\n"
        "__getattr__, __dir__ = lazy(__name__, {'part': ('name', 'other')})\n"
    )
    (package / "part.py").write_text("name, other = 1, 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_package  # pyright: ignore[reportMissingImports]

    assert dir(lazy_package) == ["name", "other"]
    assert "lazy_package.part" not in sys.modules
    assert lazy_package.other == 2
    assert "lazy_package.part" in sys.modules
