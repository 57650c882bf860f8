"""The version that was installed, or `0.0` if the source runs without an installation."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mgoe")
except PackageNotFoundError:
    __version__ = "0.0"
