"""Dockerfile and compose.yaml, as far as they can be checked without a container engine."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mgoe.cli import app
from mgoe.serving.http.middleware import OPEN
from tests.serving.http.test_deployment import free_ports

ROOT = Path(__file__).parents[3]


def serve_options(words: list[str]) -> dict[str, Any]:
    """Parse the words of `mgoe serve` as the command does. Refuses unknown options and wrong values."""
    command: Any = typer.main.get_command(app)
    assert words[0] == "serve"
    return command.commands["serve"].make_context("serve", words[1:]).params


def instructions() -> list[tuple[str, str]]:
    """The instructions of the last stage."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    starts = [number for number, (name, _) in enumerate(lines) if name == "FROM"]
    return [(name, rest) for name, rest in lines[starts[-1] :]]


@pytest.fixture(scope="module")
def image() -> dict[str, str]:
    return dict(instructions())


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_the_image_serves_as_a_user_without_rights(image: dict[str, str]):
    order = [name for name, _ in instructions()]
    assert image["USER"] not in ("root", "0")
    assert f"useradd --system --uid 10001 --no-create-home {image['USER']}" in image["RUN"]
    assert order.index("USER") > max(number for number, name in enumerate(order) if name in ("RUN", "COPY"))
    options = serve_options(yaml.safe_load(image["CMD"]))
    assert yaml.safe_load(image["ENTRYPOINT"]) == ["mgoe"]
    assert options["port"] == int(image["EXPOSE"])
    assert not options["public"]  # so that it refuses to start without a token
    for folder in (str(options["state"]), image["ENV"].split("NUMBA_CACHE_DIR=")[1]):
        assert folder in yaml.safe_load(image["VOLUME"])
        assert folder in image["RUN"].split("install --directory --owner mgoe ")[1].split()


def test_the_health_check_asks_a_route_that_is_open_to_all(image: dict[str, str]):
    code = yaml.safe_load(image["HEALTHCHECK"].split("CMD ", 1)[1])
    assert code[:2] == ["python", "-c"]
    compile(code[2], "HEALTHCHECK", "exec")
    [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", code[2])
    assert port == image["EXPOSE"]
    assert path in OPEN


def test_what_the_image_copies_is_in_its_context():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for word in shlex.split(line)[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_servers_of_compose_are_those_of_the_examples(services: dict[str, Any], image: dict[str, str]):
    servers = {name: one for name, one in services.items() if name.startswith("mgoe")}
    assert len(servers) == 2
    for one in servers.values():
        options = serve_options(one["command"])
        assert options["port"] == int(image["EXPOSE"])
        assert options["redis"].startswith("redis://redis:6379/")
        assert "redis" in services
        assert str(options["state"]) in yaml.safe_load(image["VOLUME"])
        assert "MGOE_TOKEN" in one["environment"]
        mounted = [volume.rsplit(":", 2)[1] for volume in one["volumes"]]
        assert str(options["bundle"].parent) in mounted
        assert "ports" not in one
    for service in services.values():
        for name in service.get("depends_on", {}):
            assert "healthcheck" in services[name] or name in servers
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in ("events", "${BUNDLES") or (ROOT / source).exists()
    for published in services["nginx"]["ports"]:
        assert published.startswith("127.0.0.1:")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="not installed: nginx")
def test_nginx_takes_the_file_that_compose_makes(services: dict[str, Any], tmp_path: Path):
    script = services["nginx"]["command"][-1].split("exec nginx")[0]
    source, site = ROOT / "examples" / "serving" / "nginx.conf", tmp_path / "site.conf"
    script = script.replace("/etc/mgoe.conf", str(source)).replace(
        "/etc/nginx/conf.d/default.conf", str(site)
    )
    subprocess.run(["sh", "-ec", script], check=True)
    upstream = re.findall(r"^\s*server ([\w.-]+):(\d+) ", site.read_text(), re.MULTILINE)
    assert upstream == [(name, "8000") for name in services if name.startswith("mgoe")]
    [port] = re.findall(r"^\s*listen (\d+);", site.read_text(), re.MULTILINE)
    assert all(published.endswith(f":{port}") for published in services["nginx"]["ports"])
    site.write_text(re.sub(r"mgoe-\d:", "127.0.0.1:", site.read_text()))  # no such hosts here
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ include {site}; }}\n")
    subprocess.run(["nginx", "-t", "-p", tmp_path, "-c", whole, "-e", "stderr"], check=True)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="not installed: redis-server")
def test_redis_takes_the_options_of_compose(services: dict[str, Any], tmp_path: Path):
    words = services["redis"]["command"]
    assert words[1] == "/etc/redis.conf"
    [port] = free_ports(1)
    words = [words[0], str(ROOT / "examples/serving/redis.conf"), *words[2:], "--bind", "127.0.0.1"]
    with subprocess.Popen([*words, "--port", str(port)], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert any(b"Ready to accept connections" in line for line in process.stdout)
        finally:
            process.terminate()
