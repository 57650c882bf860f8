"""Dockerfile, compose.yaml and the manifests of Kubernetes, as far as can be without an engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml

import mgoe
from mgoe.cli import app
from mgoe.data.erasures import Erasures
from mgoe.errors import ConfigError
from mgoe.lifecycle import Registry, load_cycle
from mgoe.serving.http.middleware import OPEN
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.tokens import read_tokens
from tests.effort import slow
from tests.lifecycle.test_update import stream
from tests.serving.http.test_deployment import LENIENT, TOKEN, await_version, client_of, send
from tests.serving.machine import EXAMPLES, ROOT, Machine, free_ports, needs, nginx, wait_for_port
from tests.serving.served import check_ready

COMPOSE = EXAMPLES / "compose" / "compose.yaml"
KUBERNETES = EXAMPLES / "kubernetes"
USER = 10001
"""Of the image."""


def options(words: list[str]) -> dict[str, Any]:
    """Parse the words of a command of `mgoe` as it does. Refuses unknown options and wrong values."""
    command: Any = typer.main.get_command(app)
    name, *rest = words
    while hasattr(command := command.commands[name], "commands"):
        name, *rest = rest
    return command.make_context(name, rest).params


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
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return [one for file in sorted(KUBERNETES.iterdir()) for one in yaml.safe_load_all(file.read_text())]


def test_the_image_serves_as_a_user_without_rights(image: dict[str, str]):
    order = [name for name, _ in instructions()]
    assert image["USER"] not in ("root", "0")
    assert f"useradd --system --uid {USER} --no-create-home {image['USER']}" in image["RUN"]
    assert order.index("USER") > max(number for number, name in enumerate(order) if name in ("RUN", "COPY"))
    found = options(yaml.safe_load(image["CMD"]))
    assert yaml.safe_load(image["ENTRYPOINT"]) == ["mgoe"]
    assert found["port"] == int(image["EXPOSE"])
    assert not found["public"]  # so that it refuses to start without a token
    for folder in ("/bundles", str(found["state"]), image["ENV"].split("NUMBA_CACHE_DIR=")[1]):
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


def test_the_services_of_compose_fit_together(services: dict[str, Any], image: dict[str, str]):
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"]
    servers = {name: one for name, one in services.items() if name.startswith("mgoe-")}
    assert len(servers) == 2
    cycle = load_cycle(COMPOSE.parent / "cycle.yaml")
    for one in servers.values():
        found = options(one["command"])
        assert found["port"] == int(image["EXPOSE"])
        assert f"{found['redis']}?state=/state" == cycle.state
        assert str(found["bundle"]) == "/bundles/registry/current"
        assert str(found["state"]) in mounts(one)
        assert mounts(one)["/bundles"] == ("bundles", False), "a service changes no version"
        assert "MGOE_TOKEN" in one["environment"]
        assert one["ulimits"]["nofile"] >= 65536
        assert "ports" not in one
    assert len({mounts(one)["/state"] for one in servers.values()}) == 2
    assert mounts(services["cycle"])["/bundles"] == ("bundles", True)
    for service in services.values():
        assert service["mem_limit"]
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}
        for name in service.get("depends_on", {}):
            assert "healthcheck" in services[name] or name in servers
        for source, _ in mounts(service).values():
            assert source in declared if "/" not in source else (COMPOSE.parent / source).exists()
    for published in services["nginx"]["ports"]:
        assert published.startswith("127.0.0.1:")


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return by place what is mounted there, and whether it may be written."""
    found = [volume.split(":") for volume in service["volumes"]]
    return {place: (source, mode != ["ro"]) for source, place, *mode in found}


@needs("sh")
def test_the_loop_of_the_cycle_is_a_shell_s(services: dict[str, Any]):
    [script] = services["cycle"]["command"]
    subprocess.run(["sh", "-n", "-c", script.replace("$$", "$")], check=True)
    [words] = re.findall(r"mgoe (cycle \S+)", script)
    assert str(options(words.split())["config"]) in mounts(services["cycle"])


@needs("nginx")
def test_nginx_takes_the_file_that_compose_makes(services: dict[str, Any], tmp_path: Path):
    machine, site = Machine(tmp_path, {}), tmp_path / "site.conf"
    script = services["nginx"]["command"][-1].split("exec nginx")[0]
    script = script.replace("/etc/mgoe/nginx.conf", str(EXAMPLES / "redis" / "nginx.conf"))
    subprocess.run(["sh", "-ec", script.replace("/etc/nginx/conf.d/default.conf", str(site))], check=True)
    upstream = re.findall(r"^\s*server ([\w.-]+):(\d+) ", site.read_text(), re.MULTILINE)
    servers = [(name, "8000") for name in services if name.startswith("mgoe-")]
    assert upstream == 2 * servers, "all requests, and those that bring records"
    [port] = re.findall(r"^\s*listen (\d+);", site.read_text(), re.MULTILINE)
    assert all(published.endswith(f":{port}") for published in services["nginx"]["ports"])
    text = re.sub(r"mgoe-\d:", "127.0.0.1:", site.read_text())  # no such hosts here
    [free] = free_ports(1)
    site.write_text(text.replace(f"listen {port}", f"listen 127.0.0.1:{free}"))
    with nginx(machine, site), httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
        answer = client.post(f"http://127.0.0.1:{free}/v1/rank", json={})
        assert answer.status_code == 502, "no service is behind it"


@needs("redis-server")
def test_redis_takes_the_options_of_compose(services: dict[str, Any], tmp_path: Path):
    words, [port] = services["redis"]["command"], free_ports(1)
    machine = Machine(tmp_path, {6379: port})
    machine.writable(services["redis"]["working_dir"])
    words = [words[0], machine.install("redis/redis.conf", words[1]), *words[2:], "--bind", "127.0.0.1"]
    check_redis(words, tmp_path)


def test_the_commands_of_the_page_exist(services: dict[str, Any], manifests: list[dict[str, Any]]):
    page = (ROOT / "docs" / "deployment.md").read_text()
    lines = re.findall(r"^(?:docker|kubectl) .*", page, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line, comments=True)
        for word in words:
            assert not word.startswith("examples/") or (ROOT / word).exists(), word
        for found in re.findall(r"\bmgoe (registry[\w /]+)", line):
            options(found.split())
        if words[:2] == ["docker", "compose"] and "run" in words:
            assert words[-2] in services
            assert services[words[-2]]["entrypoint"] == ["sh", "-c"]
    names = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in manifests}
    assert {*re.findall(r"\b(?:deployment|pod)/[\w-]+", page)} <= names


def check_redis(words: list[Any], folder: Path) -> None:
    """Start Redis, and stop it once it accepts connections."""
    with subprocess.Popen([str(word) for word in words], cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert any(b"Ready to accept connections" in line for line in process.stdout)
        finally:
            process.terminate()


def test_the_manifests_follow_the_schemas_of_kubernetes(manifests: list[dict[str, Any]]):
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="not installed: pip install kubernetes-validate"
    )
    for one in manifests:
        schemas.validate(one, "1.31", strict=True)
    assert {one["kind"] for one in manifests} >= {"Deployment", "Service", "CronJob", "StatefulSet"}


def containers(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Kind, pod and container of each manifest that has some."""
    for one in manifests:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", one)
        for container in template.get("spec", {}).get("containers", []):
            yield one["kind"], template, container


def test_the_pods_have_what_they_mount_and_are_limited(manifests: list[dict[str, Any]]):
    held = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    own = {template["metadata"]["name"] for one in manifests
           for template in one.get("spec", {}).get("volumeClaimTemplates", [])}  # fmt: skip
    found = list(containers(manifests))
    assert {kind for kind, _, _ in found} == {"Deployment", "CronJob", "StatefulSet", "Pod"}
    for kind, pod, container in found:
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys() | (
            own if kind == "StatefulSet" else set()
        )
        for volume in volumes.values():
            for source, named, key in (
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
                ("configMap", "ConfigMap", "name"),
                ("secret", "Secret", "secretName"),
            ):
                assert source not in volume or (named, volume[source][key]) in held
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        user = pod["spec"]["securityContext"]
        assert user["runAsNonRoot"]
        assert container["image"] != "mgoe" or user["runAsUser"] == user["fsGroup"] == USER
    for one in manifests:
        if one["kind"] in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            selector = one["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            chosen = [c for _, pod, c in found if selector.items() <= pod["metadata"]["labels"].items()]
            assert len(chosen) == 1
            for port in one["spec"].get("ports", []):
                assert port["targetPort"] in [open_["name"] for open_ in chosen[0]["ports"]]


def test_the_servers_of_kubernetes_are_asked_for_what_is_open_to_all(
    manifests: list[dict[str, Any]], image: dict[str, str]
):
    [(pod, server)] = [(pod, one) for kind, pod, one in containers(manifests) if kind == "Deployment"]
    found, writable = (
        options(server["args"]),
        {m["mountPath"] for m in server["volumeMounts"] if "readOnly" not in m},
    )
    assert found["port"] == server["ports"][0]["containerPort"] == int(image["EXPOSE"])
    assert {str(found["state"]), "/kernels", "/tmp"} == writable
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["path"] in OPEN
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 40
    services = [one for one in manifests if one["kind"] == "Service"]
    host, port = re.findall(r"//([\w-]+):(\d+)/", found["redis"])[0]
    assert int(port) in {
        p["port"] for one in services if one["metadata"]["name"] == host for p in one["spec"]["ports"]
    }


def test_the_settings_in_the_manifests_are_valid(manifests: list[dict[str, Any]], tmp_path: Path):
    [settings] = [one["data"] for one in manifests if one["kind"] == "ConfigMap"]
    for name, text in settings.items():
        (tmp_path / name).write_text(text)
    cycle = load_cycle(tmp_path / "cycle.yaml")
    [server] = [one for kind, _, one in containers(manifests) if kind == "Deployment"]
    assert cycle.state == options(server["args"])["redis"]
    [job] = [one for kind, _, one in containers(manifests) if kind == "CronJob"]
    assert str(cycle.registry.parent) in {
        mount["mountPath"] for mount in job["volumeMounts"] if "readOnly" not in mount
    }
    subprocess.run(["sh", "-n", "-c", job["command"][-1]], check=True)
    lines = {*settings["redis.conf"].splitlines()} - {"bind * -::*", "protected-mode no", "dir /data"}
    assert lines < {*(EXAMPLES / "redis" / "redis.conf").read_text().splitlines()}
    if shutil.which("redis-server"):
        words = ["--dir", tmp_path, "--port", free_ports(1)[0], "--bind", "127.0.0.1"]
        (tmp_path / "redis.conf").write_text(settings["redis.conf"].replace("dir /data", f"dir {tmp_path}"))
        check_redis(["redis-server", tmp_path / "redis.conf", *words], tmp_path)


def test_the_list_of_erased_users_is_in_the_volume_of_the_registry(
    services: dict[str, Any], manifests: list[dict[str, Any]], image: dict[str, str], tmp_path: Path
):
    """It is stored next to the registry, so a volume for the registry alone loses it with the container."""
    [settings] = [one["data"]["cycle.yaml"] for one in manifests if one["kind"] == "ConfigMap"]
    (tmp_path / "cycle.yaml").write_text(settings)
    pods = {kind: of_pod(pod, one, manifests) for kind, pod, one in containers(manifests)}
    engine = {name: of_compose(one) for name, one in services.items()}
    for cycle, readers, writers in (
        (COMPOSE.parent / "cycle.yaml", [engine["mgoe-1"], engine["mgoe-2"]], [engine["cycle"]]),
        (tmp_path / "cycle.yaml", [pods["Deployment"]], [pods["CronJob"], pods["Pod"]]),
    ):
        folder = str(Erasures.of(load_cycle(cycle).registry).path.parent)
        assert [one.mounts.get(folder) for one in readers] == [("bundles", False)] * len(readers)
        assert [one.mounts.get(folder) for one in writers] == [("bundles", True)] * len(writers)
    served = options(yaml.safe_load(image["CMD"]))["bundle"]
    assert str(Erasures.of(served.parent).path.parent) in yaml.safe_load(image["VOLUME"])


def test_no_service_starts_with_the_token_of_the_example(manifests: list[dict[str, Any]], tmp_path: Path):
    [secret] = [one["stringData"] for one in manifests if one["kind"] == "Secret"]
    (tmp_path / "tokens").write_text(secret["tokens"])
    with pytest.raises(ConfigError, match="at least 16 characters"):
        read_tokens(ServeSettings(bundle=tmp_path, token_file=tmp_path / "tokens"))


@dataclass
class Container:
    """What an engine would start.

    Attributes:
        words: Its command; without the image's entrypoint if there is another.
        mounts: By place, the name of a volume or the files of a folder, and whether it may be written.
    """

    words: list[str]
    mounts: dict[str, tuple[str | dict[str, str], bool]]
    secrets: tuple[str, ...] = ()
    """Variables that a secret gives."""


def of_compose(service: dict[str, Any]) -> Container:
    entry = service.get("entrypoint", ["mgoe"] if service.get("image") == "mgoe" else [])
    found: dict[str, tuple[str | dict[str, str], bool]] = {}
    for place, (source, writable) in mounts(service).items():
        if "/" in source:
            target = Path(place)
            found[str(target.parent)] = {target.name: (COMPOSE.parent / source).read_text()}, False
        else:
            found[place] = source, writable
    words = [*entry, *service["command"]]
    return Container([word.replace("$$", "$") for word in words], found)


def of_pod(pod: dict[str, Any], container: dict[str, Any], manifests: list[dict[str, Any]]) -> Container:
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    files = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
    found: dict[str, tuple[str | dict[str, str], bool]] = {}
    for mount in container["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        source: Any = mount["name"]
        if "configMap" in volume:
            source = files[volume["configMap"]["name"]]
        elif "secret" in volume:
            source = {item["path"]: TOKEN for item in volume["secret"]["items"]}
        elif "persistentVolumeClaim" not in volume:
            source = f"{container['name']}-{mount['name']}"  # of its own
        found[mount["mountPath"]] = source, not mount.get("readOnly", False)
    words = container.get("command") or ["mgoe" if container["image"] == "mgoe" else "", *container["args"]]
    secrets = tuple(one["name"] for one in container.get("env", []) if "valueFrom" in one)
    return Container(list(filter(None, words)), found, secrets)


@dataclass
class Engine:
    """Starts containers below a folder, on this machine's loopback.

    Attributes:
        folder: Of its volumes, and of a folder per container.
        hosts: Names that containers know each other by.
        redis: Port of Redis.
    """

    folder: Path
    hosts: tuple[str, ...]
    redis: int

    def volume(self, name: str) -> Path:
        """Return the folder of a volume."""
        (place := self.folder / "volumes" / name).mkdir(parents=True, exist_ok=True)
        return place

    def place(
        self, name: str, container: Container, port: int = 0
    ) -> tuple[Machine, list[str], dict[str, str]]:
        """Set up the folder of a container, and return it with the command and its environment."""
        machine = Machine(self.folder / name, {8000: port, 6379: self.redis})

        def moved(text: str) -> str:
            for host in self.hosts:
                text = re.sub(rf"\b{host}(?=:\d)", "127.0.0.1", text)
            return machine.moved(text.replace("0.0.0.0", "127.0.0.1"))

        writable = []
        for place, (source, may_write) in container.mounts.items():
            if isinstance(source, dict):
                machine.path(place).mkdir(parents=True, exist_ok=True)
                for file, text in source.items():
                    (machine.path(place) / file).write_text(moved(text))
            elif place != "/tmp":
                machine.path(place).parent.mkdir(parents=True, exist_ok=True)
                machine.path(place).symlink_to(self.volume(source))
                writable += [machine.path(place)] if may_write else []
        if (settings := machine.path("/etc/mgoe/cycle.yaml")).exists():
            small = {"rows": 100, "weights": "keep", "bounds": LENIENT}
            settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | small))
        if "/kernels" in container.mounts:
            machine.cache_kernels("/kernels")
        own = {
            "PATH": f"{machine.path('/opt/mgoe/bin')}{os.pathsep}{os.environ['PATH']}",
            "NUMBA_CACHE_DIR": str(machine.path("/kernels")),
            "MGOE_TOKEN": TOKEN,
        } | dict.fromkeys(container.secrets, TOKEN)
        return machine, *machine.command([moved(word) for word in container.words], writable, own)

    @contextmanager
    def started(self, name: str, container: Container, port: int = 0) -> Iterator[None]:
        """Run a container while the block runs."""
        machine, command, environment = self.place(name, container, port)
        with machine.running(command, environment, machine.folder):
            yield


@slow
@needs("redis-server")
@pytest.mark.parametrize("case", ["compose", "kubernetes"])
def test_containers_answer_by_the_version_of_a_cycle(
    case: str, finished: Path, services: dict[str, Any], manifests: list[dict[str, Any]], tmp_path: Path
):
    pods = {kind: of_pod(pod, one, manifests) for kind, pod, one in containers(manifests)}
    if case == "compose":
        store, cycle = (of_compose(services[name]) for name in ("redis", "cycle"))
        servers = [of_compose(one) for name, one in services.items() if name.startswith("mgoe-")]
        cycle.words[-1] = cycle.words[-1].replace("sleep 21600", "exit 0; sleep 21600")  # one round
    else:
        store, cycle, servers = pods["StatefulSet"], pods["CronJob"], [pods["Deployment"]]
    ports = free_ports(1 + len(servers))
    engine = Engine(tmp_path, ("mgoe-redis", "redis"), ports[0])
    [place] = {str(one.mounts["/bundles"][0]) for one in servers}
    registry, first = Registry(engine.volume(place) / "registry"), mgoe.load(finished / "bundle")
    registry.promote(registry.add(finished / "bundle"))
    events = [asdict(event) for event in stream(first, 150)]
    with ExitStack() as stack:
        stack.enter_context(engine.started("redis", store))
        wait_for_port(ports[0])
        for number, (one, port) in enumerate(zip(servers, ports[1:], strict=True)):
            stack.enter_context(engine.started(f"server-{number}", one, port))
        clients = [stack.enter_context(client_of(f"http://127.0.0.1:{port}")) for port in ports[1:]]
        for client in clients:
            check_ready(str(client.base_url))
        send(clients[0], events=events)
        machine, command, environment = engine.place("cycle", cycle)
        done = subprocess.run(command, cwd=machine.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["step"] == "learn"
        made = registry.promote(force="a test")
        for client in clients:
            await_version(client, made)
