"""Compiled kernels, and where they are cached.

numba compiles a kernel for each combination of types of its arguments, and an array that cannot be written,
such as a memory map, is of a type of its own. Here one compiled kernel takes inputs of both. For inputs of
another element type or another order in memory it is compiled again, because converting would copy them.

By itself numba tells versions of a file apart by its time and size, takes a kernel of another file that is
compiled into this one for unchanged, keeps every version, and fails where it cannot write or read. Here
a kernel is found by what it is compiled from, and of processes that need it at once, such as the workers of a
service, one compiles it. The folder stays below a size. Where it cannot be read or written, kernels are
compiled by every process, and a warning says so.
"""

import gc
import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Self

from filelock import FileLock, Timeout
from numba.core import caching, compiler_lock, registry, sigutils, types

PLACE = "NUMBA_CACHE_DIR"
"""Environment variable that names the cache folder, to numba too."""
LIMIT = 256 << 20
"""Bytes of the folder. The kernels of a service have about 4 MiB, those of the whole library 24 MiB."""
PATIENCE = 60.0
"""Seconds that a process waits for a kernel that another one compiles."""
CONSTANTS = bool | int | float | str
"""Types of globals that numba compiles into a kernel."""


def folder() -> Path:
    """Return the cache folder, which need not exist."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return Path(os.environ.get(PLACE) or cache_home / "mgoe") / "kernels"


@cache
def content_key(function: FunctionType) -> str:
    """Return what changes with whatever a kernel is compiled from: its file and this one, the constants that
    the file imports, and the files of the kernels that it imports.
    """
    key = hashlib.sha256(
        b"".join(Path(file).read_bytes() for file in (__file__, function.__code__.co_filename))
    )
    for name, value in sorted(function.__globals__.items()):
        if isinstance(value, registry.CPUDispatcher) and value.py_func.__module__ != function.__module__:
            key.update(content_key(value.py_func).encode())
        elif isinstance(value, CONSTANTS) and not name.startswith("__"):
            key.update(f"{name}={value!r}".encode())
    return key.hexdigest()[:16]


class _Locator(caching._CacheLocator):
    """Names the files of a kernel after its module and its key."""

    def __init__(self, function: FunctionType):
        self._function, self._py_file = function, function.__code__.co_filename

    @classmethod
    def from_function(cls, py_func: FunctionType, py_file: str) -> Self:
        return cls(py_func)

    def get_cache_path(self) -> Any:
        return str(folder())

    def get_source_stamp(self) -> Any:
        return content_key(self._function)

    def get_disambiguator(self) -> Any:
        return f"{self._function.__module__}-{content_key(self._function)}"


class _Files(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar[list[Any]] = [_Locator]


class KernelCache(caching.FunctionCache):
    """numba's cache of one kernel, in the folder of this library."""

    _impl_class = _Files
    _turn: FileLock | None = None
    """Held while this process compiles the kernel."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return a compiled kernel; None if it is not there or damaged, so that this process compiles it."""
        found = self._load(sig, target_context)
        if found is None and self._turn is None:
            turn = FileLock(Path(self.cache_path, f"{self._impl.filename_base}.lock"), PATIENCE)
            with suppress(OSError, Timeout):
                Path(self.cache_path).mkdir(parents=True, exist_ok=True)
                self._turn = turn.acquire().lock
                found = self._load(sig, target_context)  # another process may have compiled it meanwhile
        if found is not None:
            self.end_turn()
        return found

    def end_turn(self) -> None:
        """Let other processes compile the kernel."""
        if self._turn is not None:
            self._turn.release()
            self._turn = None

    def _load(self, sig: Any, target_context: Any) -> Any:
        index = Path(self.cache_path, f"{self._impl.filename_base}.nbi")
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # unpickling what is damaged raises anything
            with suppress(OSError):
                index.unlink(missing_ok=True)
            return None
        if found is not None:
            with suppress(OSError):
                os.utime(index)  # kernels that were not used for longest go first
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel, if the folder can be written."""
        try:
            super().save_overload(sig, data)
            _keep_small(Path(self.cache_path))
        except OSError as error:
            _warn(self.cache_path, error.strerror or str(error))
        finally:
            self.end_turn()


@cache
def _warn(place: str, why: str) -> None:
    """Say once that kernels are not cached."""
    warnings.warn(
        f"compiled kernels cannot be cached in {place} ({why}), so every start compiles them again, for some "
        f"seconds; free space, or set {PLACE} to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )


@cache
def _keep_small(place: Path) -> None:
    """Remove kernels that were not used for longest until the folder has its size; once per process."""
    files = {path: path.stat() for path in place.iterdir() if path.is_file()}
    used = {path.stem: stat.st_mtime for path, stat in files.items() if path.suffix == ".nbi"}
    size = sum(stat.st_size for stat in files.values())
    for path in sorted(files, key=lambda path: used.get(_kernel_of(path), files[path].st_mtime)):
        if size <= LIMIT:
            return
        path.unlink(missing_ok=True)
        size -= files[path].st_size


def _kernel_of(path: Path) -> str:
    """Return the stem of a kernel's index, given any of its files, `STEM.nbi` and `STEM.NUMBER.nbc`."""
    return path.name.rpartition(".")[0] if path.suffix == ".nbi" else path.name.rsplit(".", 2)[0]


class _Kernel(registry.CPUDispatcher):
    """A function that is compiled when it is first called, and then found in the cache.

    Args:
        function: Function to compile.
        written: Names of the arguments whose arrays it writes.
        options: Options of numba.
    """

    def __init__(self, function: FunctionType, written: Sequence[str] = (), options: Any = None):
        super().__init__(function, targetoptions=options)
        self._is_written = [name in written for name in signature(function).parameters]
        self._also_taken: set[tuple[types.Type, ...]] = set()
        self._cache: KernelCache = KernelCache(function)

    def compile(self, sig: Any) -> Any:
        """Return the machine code for arguments of these types, compiled for inputs that it can only read."""
        taken, _ = sigutils.normalize_signature(sig)
        kinds = zip(taken, self._is_written, strict=True)
        compiled = tuple(kind if written else _input_type(kind) for kind, written in kinds)
        with compiler_lock.global_compiler_lock:
            searches = gc.isenabled()
            gc.disable()  # compiling leaves little garbage, and to search for it took a tenth of the time
            try:
                code = super().compile(compiled)
            finally:
                if searches:
                    gc.enable()
                self._cache.end_turn()  # also of a kernel that cannot be compiled
            if taken != compiled and taken not in self._also_taken:
                self._also_taken.add(taken)
                self._insert([kind._code for kind in taken], code, False)  # type: ignore[attr-defined]
        return code


def _input_type(kind: types.Type) -> Any:
    """Return the type for which an input is compiled: arrays as if they could not be written."""
    if isinstance(kind, types.Array):
        return kind.copy(readonly=True)
    if isinstance(kind, types.BaseTuple):
        parts = [_input_type(part) for part in kind]  # type: ignore[attr-defined]
        return kind.from_types(parts, getattr(kind, "instance_class", None))
    return types.unliteral(kind)


def kernel(*written: str, inner: bool = False, **options: Any) -> Callable[[FunctionType], Any]:
    """Have numba compile a function when it is first called. It runs without the lock of the interpreter.

    Args:
        written: Names of the arguments whose arrays it writes; it can only read those of others. Name also a
            `NamedTuple` that comes from a kernel that writes it: numba does not convert one.
        inner: Only other kernels call it, so the code that unpacks objects of Python is not compiled.
        options: Options of numba, such as `fastmath`.

    Example:
        >>> @kernel("out")
        ... def double(values, out):
        ...     for row in range(len(values)):
        ...         out[row] = 2 * values[row]
    """
    unused = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": True}
    return lambda function: _Kernel(function, written, {"nopython": True, "nogil": True, **unused, **options})
