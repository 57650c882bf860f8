"""A stand-in for a machine on which the files of examples/serving are installed.

Absolute paths of the files lie below a folder of the test, and ports are free ones. Commands run in their
folder, with their environment, and under a read-only mount if this machine lets a user make one: only what
systemd or a container engine would make writable is.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mgoe._util.kernels import PLACE
from tests.effort import SOAK

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "serving"
ROOTS = ("etc", "var", "opt", "backup", "bundles", "state", "kernels", "data")
"""First folders of the paths that are moved; those of others, such as /usr, are this machine's own."""
Unit = dict[str, dict[str, list[str]]]
"""Values of each key, by section."""

READ_ONLY = """
while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done; shift
cd "$PWD"  # into the mount that is there now
for place in / "$1"; do mount -o remount,bind,ro "$place"; done; shift
exec "$@"
"""
"""Makes the file system read-only, but for some folders, and runs a command. After them comes the mount point
of the test's folder."""
COMMAND = f"""#!{sys.executable}
import sys
from functools import partial
from mgoe.cli import main
if {not SOAK} and sys.argv[1] == "serve":
    sys.argv += ["--engine", "torch"]  # which has nothing to export
if {not SOAK} and sys.argv[1] == "cycle":
    from mgoe.pipeline import serving_time
    serving_time.Runtime = partial(serving_time.Runtime, engine="torch")
main()
"""
"""`mgoe`. The short form exports no model, which takes half a minute."""

STUBS = {
    "systemctl": 'echo "$*" >> "$ADMINISTERED"',
    "systemd-sysusers": ":",
    "runuser": 'shift 3; exec "$@"',
    "install": """for word; do shift; case $word in -o | -g) skipped=1 ;; *)
[ "$skipped" ] || set -- "$@" "$word"; skipped= ;; esac; done; exec /usr/bin/install "$@" """,
}
"""Stand for commands of root: units are noted, there are no other users, and files belong to this one."""


def lines_of(page: str, heading: str, number: int = 0) -> list[str]:
    """Return the lines of a block of a shell on a page, below a heading, except what installs libraries."""
    below = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    block = re.findall(r"^```sh\n(.*?)^```", below, re.MULTILINE | re.DOTALL)[number]
    return [line for line in block.splitlines() if "pip install" not in line]


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for_port(port: int, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < end, port
            time.sleep(0.05)


def read_unit(file: Path) -> Unit:
    """Parse a unit file by the rules of systemd: a key may come several times, and nothing is quoted."""
    found: Unit = {}
    section: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n\s*", " ", file.read_text()).splitlines():
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if head := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(head[1], {})
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        assert re.fullmatch(r"[A-Z]\w+", key), line
        section.setdefault(key, []).append(value.strip())
    return found


def may_mount() -> bool:
    """Whether this machine lets its user make a read-only mount of its own."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-rm", "sh", "-ec", READ_ONLY, "sh", "--", "/", "true"]
    return subprocess.run(tried, capture_output=True).returncode == 0


@dataclass
class Machine:
    """A folder in the place of a machine's own.

    Attributes:
        folder: Where its paths lie.
        ports: Its port, by the one that the files name.
        environment: Variables of all commands, such as a token.
    """

    folder: Path
    ports: Mapping[int, int]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        command = self.path("/opt/mgoe/bin/mgoe")
        command.parent.mkdir(parents=True)
        command.write_text(COMMAND)
        command.chmod(0o755)
        (command.parent / "python").symlink_to(sys.executable)
        self.path("/var/log/nginx").mkdir(parents=True)

    def path(self, place: str) -> Path:
        """Return where a path of the files lies."""
        return self.folder / place.removeprefix("/")

    def moved(self, text: str) -> str:
        """Return a text of the files with paths and ports of this stand-in."""
        text = re.sub(r"\b\d{4}\b", lambda found: str(self.ports.get(int(found[0]), found[0])), text)
        return re.sub(rf"(?<![\w./-])/(?=(?:{'|'.join(ROOTS)})\b)", f"{self.folder}/", text)

    def install(self, name: str, place: str) -> Path:
        """Copy a file of the examples to a path of the machine."""
        target = self.path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.moved((EXAMPLES / name).read_text()))
        return target

    def administer(self, lines: Iterable[str]) -> list[str]:
        """Run lines of a shell in the checkout, as root of the machine does, and return what each prints."""
        self.environment["ADMINISTERED"] = str(self.folder / "systemctl")
        stubs = self.path("/stubs")
        stubs.mkdir(exist_ok=True)
        for name, script in STUBS.items():
            (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
            (stubs / name).chmod(0o755)
        path = os.pathsep.join([str(stubs), str(self.path("/opt/mgoe/bin")), os.environ["PATH"]])
        printed = []
        for line in lines:
            done = subprocess.run(
                ["sh", "-euc", self.moved(line)],
                cwd=ROOT,
                env=os.environ | self.environment | {"PATH": path},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            printed.append(done.stdout)
        for folder in ("/etc/mgoe", "/etc/nginx/conf.d"):
            for file in self.path(folder).glob("*"):
                file.write_text(self.moved(file.read_text()))
        return printed

    @property
    def enabled(self) -> set[str]:
        """The units that `systemctl` has enabled."""
        lines = self.path("/systemctl").read_text().splitlines()
        return {word for line in lines for word in line.split() if line.startswith("enable") and "." in word}

    def writable(self, *places: str) -> list[Path]:
        """Make folders that a command may write."""
        folders = [self.path(place) for place in places]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    def cache_kernels(self, place: str) -> None:
        """Put what is compiled already where the files keep it, so that no start compiles it again."""
        compiled = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mgoe"
        if (folder := Path(os.environ.get(PLACE) or compiled) / "kernels").exists():
            shutil.copytree(folder, self.path(place) / "kernels", dirs_exist_ok=True)

    def command(
        self, words: Sequence[object], writable: Iterable[Path], variables: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Return a command that may write nothing but some folders, and its environment."""
        own = [*self.writable("/tmp"), *writable]
        command = [str(word) for word in words]
        if may_mount():
            mount = os.fspath(self.folder)
            while not os.path.ismount(mount):
                mount = os.path.dirname(mount)
            command = ["unshare", "-rm", "sh", "-ec", READ_ONLY, "sh", *map(str, own), "--", mount, *command]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),  # is not there
            "TMPDIR": str(own[0]),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }
        return command, environment | self.environment | dict(variables)

    def unit(self, file: str) -> tuple[list[str], dict[str, str], Path]:
        """Return command, environment and folder of an installed unit, such as `mgoe@8001.service`."""
        template = re.sub(r"@\w+", "@", file)
        instance = self.moved(file.rpartition("@")[2].removesuffix(".service"))
        service = read_unit(self.path("/etc/systemd/system") / template)["Service"]
        values = {
            key: [self.moved(value.replace("%i", instance)) for value in values]
            for key, values in service.items()
        }
        states = [f"/var/lib/{name}" for name in values.get("StateDirectory", [])]
        caches = [f"/var/cache/{name}" for name in values.get("CacheDirectory", [])]
        writable = self.writable(*states, *caches)
        variables = dict(
            word.split("=", 1) for line in values.get("Environment", []) for word in line.split()
        )
        [line] = values["ExecStart"]
        command, environment = self.command(shlex.split(line), writable, variables)
        return command, environment, Path(values["WorkingDirectory"][0])

    @contextmanager
    def started(self, file: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the service of a unit while the block runs."""
        command, environment, place = self.unit(file)
        with self.running(command, environment, place) as process:
            yield process

    @contextmanager
    def running(
        self, command: Sequence[str], environment: Mapping[str, str], place: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process while the block runs. What it says is in a file of the machine's folder `said`."""
        (said := self.folder / "said").mkdir(exist_ok=True)
        with (
            (said / f"{time.monotonic_ns()}.log").open("wb") as log,
            subprocess.Popen(command, cwd=place, env=dict(environment), stdout=log, stderr=log) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(120)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise

    def once(self, file: str) -> subprocess.CompletedProcess[str]:
        """Run the command of a unit of type `oneshot` to its end."""
        command, environment, place = self.unit(file)
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)

    @property
    def said(self) -> str:
        """What its processes have said so far."""
        return "".join(file.read_text(errors="replace") for file in sorted((self.folder / "said").iterdir()))


@contextmanager
def nginx(machine: Machine, *sites: Path) -> Iterator[None]:
    """Run nginx with files of its http block, and let it write below one folder only."""
    folder = machine.folder
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "" if os.getuid() else "user root;\n"  # another one may not enter the folder
    main = f"daemon off;\n{user}pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
    included = "".join(f"include {site};\n" for site in sites)
    whole = folder / "nginx.conf"
    whole.write_text(f"{main}http {{\n{temporary}{included}}}\n")
    command = ["nginx", "-p", str(folder), "-c", str(whole), "-e", "stderr"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with machine.running(command, os.environ, folder):
        yield
