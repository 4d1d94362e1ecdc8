"""docs/observability.md says what is counted, and its examples are what Prometheus reads."""

import re
from pathlib import Path

import yaml

from portal.telemetry.metrics import MEASURES, SECURITY

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def metric_table() -> str:
    """The table as the document has to have it."""
    rows = [
        f"| `{name}` | {measure.kind.lower()} |"
        f" {', '.join(f'`{label}`' for label in measure.labels) or '–'} | {measure.help} |"
        for name, measure in MEASURES.items()
    ]
    return "\n".join(["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|", *rows])


def test_the_document_has_the_table_of_the_metrics() -> None:
    assert metric_table() in TEXT, f"the table has to be:\n\n{metric_table()}"
    assert all(f"`{event}`" in TEXT for event in SECURITY)


def test_alerts_ask_for_metrics_events_and_labels_that_exist() -> None:
    scraping, alerts = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    )
    assert scraping["scrape_configs"]
    rules = alerts["groups"][0]["rules"]
    assert len(rules) >= 6
    watched = set()
    for rule in rules:
        names = re.findall(r"portal_\w+", rule["expr"])
        assert names
        assert set(names) <= MEASURES.keys()
        watched |= set(re.findall(r"\w+", " ".join(re.findall(r'event=~?"([^"]+)"', rule["expr"]))))
    assert watched == set(SECURITY)
