"""Alerts: each fires on its fault and is silent without, asks for what is told, and leads to a heading that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from milepost.ops.alerts import ALERTS, rules
from tests.support import prometheus

ROOT = Path(__file__).resolve().parents[2]
RULES = (ROOT / "ops/alerts.yml").read_text()


def test_each_alert_leads_to_its_heading() -> None:
    """The annotation of every rule names a page that is there and the address of one of its headings."""
    (group,) = YAML(typ="safe").load(RULES)["groups"]
    assert [one["alert"] for one in group["rules"]] == [one.name for one in ALERTS]
    assert len({one.name for one in ALERTS}) == len(ALERTS) >= 20
    for one in group["rules"]:
        page, _, anchor = one["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings], one["alert"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda one: one.name)
def test_an_alert_asks_for_what_is_told(alert: rules.Alert) -> None:
    """Series and labels of the expression are declared, and it says what it means, what to look at, what to do."""
    assert not prometheus.unknown(alert.expr)
    assert alert.means and alert.look and alert.do and alert.sound and alert.fault
    named = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert named <= alert.labels.keys()


def test_what_nobody_tells_is_seen() -> None:
    """The check above finds a series and a label that are not declared."""
    assert prometheus.unknown("sum by (leg) (milepost_lag_records)") == []
    assert prometheus.unknown("milepost_lag") == ["milepost_lag"]
    assert prometheus.unknown("sum by (colour) (milepost_lag_records)") == ["colour"]
    assert prometheus.unknown('milepost_lag_records{weather="fine"}') == ["weather"]


@prometheus.needed
def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    """promtool accepts the rules, and the configuration that compose mounts beside them."""
    assert prometheus.promtool("check", "rules", "alerts.yml", folder=ROOT / "ops").returncode == 0
    done = prometheus.promtool("check", "config", "prometheus.yml", folder=ROOT / "ops")
    assert done.returncode == 0 and f"{len(ALERTS)} rules found" in done.stdout, done.stdout


@prometheus.needed
def test_each_alert_fires_on_its_fault_and_not_without() -> None:
    """promtool tries every alert on a sound history and on a fault."""
    done = prometheus.promtool("test", "rules", "alerts_test.yml", folder=ROOT / "ops")
    assert done.returncode == 0, done.stdout[-3000:]


@prometheus.needed
@pytest.mark.parametrize(
    ("alert", "right", "wrong"),
    [
        ("WorkerDown", 'up{job="milepost"} == 0', 'up{job="milepost"} == 2'),
        ("DeadLettersMany", "> 0.05", "> 0.5"),
        ("SourceSilent", "time() - max", "0 * time() - max"),
        ("WorkerNotReady", "milepost_ready == 0", "milepost_ready >= 0"),
    ],
)
def test_a_rule_that_is_wrong_fails_its_trial(tmp_path: Path, alert: str, right: str, wrong: str) -> None:
    """A rule that never fires, and one that always does, are found by promtool's tests."""
    broken = RULES.replace(right, wrong)
    assert broken != RULES
    (tmp_path / "alerts.yml").write_text(broken)
    (tmp_path / "alerts_test.yml").write_text((ROOT / "ops/alerts_test.yml").read_text())
    done = prometheus.promtool("test", "rules", "alerts_test.yml", folder=tmp_path)
    assert done.returncode != 0 and alert in done.stdout


def test_without_waiting_the_rules_are_the_same() -> None:
    """What live tests load are the committed expressions, but for the time that they wait."""
    yaml = YAML(typ="safe")
    (waiting,), (at_once,) = yaml.load(RULES)["groups"], yaml.load(rules.rules(at_once=True))["groups"]
    assert all(int(one.pop("for").removesuffix("m")) == ALERTS[at].hold_min for at, one in enumerate(waiting["rules"]))
    assert waiting == at_once
