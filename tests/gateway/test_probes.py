"""What load balancers ask a gateway. The tests of the cluster ask for its metrics."""

import pytest
from sqlalchemy import text

from tests.conftest import Portal
from tests.gateway.conftest import Running


def test_it_lives_and_is_ready_for_any_host(gateway: Running) -> None:
    host = {"Host": "10.0.0.7:8001"}
    assert gateway.ask("GET", "/healthz", headers=host).json() == {"status": "ok"}
    ready = gateway.ask("GET", "/readyz", headers=host)
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "database": "ok"})
    assert gateway.ask("HEAD", "/readyz").status_code == 200
    assert gateway.ask("POST", "/readyz").status_code == 405


def test_it_is_not_ready_on_an_old_schema(gateway: Running, portal: Portal) -> None:
    with portal.database.engine.begin() as connection:
        [at] = connection.execute(text("select version_num from alembic_version")).one()
        connection.execute(text("update alembic_version set version_num = '0001'"))
    try:
        answer = gateway.ask("GET", "/readyz")
    finally:
        with portal.database.engine.begin() as connection:
            connection.execute(text("update alembic_version set version_num = :at"), {"at": at})
    assert answer.status_code == 503
    assert "portal db upgrade" in answer.json()["database"]
    assert gateway.ask("GET", "/healthz").status_code == 200


def test_it_is_not_ready_while_it_stops(gateway: Running) -> None:
    gateway.stop(60)
    answer = gateway.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})


@pytest.mark.parametrize("path", ["/-/ready", "/readyz/", "/static/x"])
def test_nothing_else_is_a_probe(gateway: Running, path: str) -> None:
    assert gateway.ask("GET", path).status_code == 404


def test_metrics_are_not_shown_unless_they_are_wanted(gateway: Running) -> None:
    assert gateway.ask("GET", "/metrics").status_code == 404
