"""The deployments that are described: manifests, units and scripts name what there is, and work."""

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kgcore.backends import metrics
from kgcore.config import Settings
from kgcore.errors import KGError
from tests.conftest import ROOT
from tests.docs.pages import blocks, commands_in, parse, sections

SETTINGS = {name.upper() for name in Settings.model_fields}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def manifests() -> list[dict[str, Any]]:
    """Every Kubernetes object of the documentation."""
    found = [yaml.safe_load_all(block.code) for block in blocks("yaml")]
    return [item for block in found for item in block]


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [
        (item["kind"], item["spec"]["template"]["spec"])
        for item in manifests()
        if "template" in item["spec"]
    ]


def manifest(kind: str) -> dict[str, Any]:
    (one,) = (item for item in manifests() if item["kind"] == kind)
    return one


def script_of_the_job() -> str:
    (container,) = manifest("Job")["spec"]["template"]["spec"]["containers"]
    *shell, script = container["command"]
    assert shell == ["sh", "-ec"]
    return str(script)


def test_there_are_a_job_and_a_deployment() -> None:
    assert {item["kind"] for item in manifests()} >= {"Job", "Deployment", "PersistentVolumeClaim"}
    deployment = manifest("Deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == deployment["selector"]["matchLabels"]


@pytest.mark.parametrize(("kind", "pod"), pods())
def test_pods_name_what_there_is(kind: str, pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = {item["metadata"]["name"] for item in manifests()}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        assert claim is None or claim in claims
    for container in pod["containers"]:
        names = {variable["name"] for variable in container["env"]}
        assert names - {"POD_IP"} <= SETTINGS
        assert not names & {"PG_PASSWORD", "KG_REDIS_URL"}, "secrets are files"
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        first, *rest = container["command"]
        for words in [rest] if first == "kg" else commands_in(rest[-1]):
            parse(words, kind)
        used = set(re.findall(r"\$([A-Z_]+)", container["command"][-1]))
        assert used <= names


def test_the_secret_has_the_keys_that_pods_mount() -> None:
    shown = next(block.code for block in blocks("bash") if "create secret generic" in block.code)
    keys = set(re.findall(r"--from-literal=([a-z-]+)=", shown))
    for _, pod in pods():
        for container in pod["containers"]:
            used = {mount.get("subPath") for mount in container["volumeMounts"]} - {None}
            (password,) = (
                variable["value"]
                for variable in container["env"]
                if variable["name"] == "PG_PASSWORD_FILE"
            )
            assert used | {Path(password).name} == keys


def test_the_unit_starts_a_worker_again_unless_its_settings_are_wrong() -> None:
    (block,) = (block for block in blocks("ini") if "[Unit]" in block.code)
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.code)
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/bin/kg")
    parse(words, "systemd")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    kept = {name: unit["Service"][name] for name in ("Restart", "RestartSec")}
    assert kept == {"Restart": "on-failure", "RestartSec": "5"}
    assert unit["Service"]["RestartPreventExitStatus"] == "2"


def test_compose_names_what_there_is() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for name in re.findall(r"(?<!\$)\$\{([A-Z_]+)", text):
        assert re.search(rf"^{name}=", example, re.MULTILINE), name
    services = COMPOSE["services"]
    assert set(services["worker"]["environment"]) <= SETTINGS
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {name for name in named if "/" not in name} <= set(COMPOSE["volumes"])
        assert {item["source"] for item in service.get("configs", [])} <= set(COMPOSE["configs"])
    assert services["redis"]["command"][1] == services["redis"]["configs"][0]["target"]


def test_compose_keeps_passwords_off_command_lines() -> None:
    for service in COMPOSE["services"].values():
        shown = str(service.get("command", "")) + str(service["healthcheck"]["test"])
        assert "PASSWORD" not in shown
        assert " -a " not in shown
    lines = COMPOSE["configs"]["valkey"]["content"].splitlines()
    assert [line.split()[0] for line in lines] == ["requirepass", "appendonly", "maxmemory-policy"]


def test_every_alarm_is_described() -> None:
    table = sections(ROOT / "docs" / "operations.md")["What each alarm means"]
    names = [name for name, _ in (metrics._GAUGES | metrics._COUNTERS).values()]
    assert [name for name in names if name not in table] == []
    codes = {KGError.code, *(error.code for error in _all_below(KGError))}
    assert [code for code in codes if f"`{code}`" not in table] == []


def _all_below(error: type[KGError]) -> Iterator[type[KGError]]:
    for one in error.__subclasses__():
        yield one
        yield from _all_below(one)
