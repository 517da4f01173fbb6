"""Settings: read once, refused with variable, value and fix."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from milepost.ops.settings import VARIABLES, Settings, read_settings
from milepost.schemas.errors import DeclarationError


def test_defaults_hold_when_nothing_is_said(tmp_path: Path) -> None:
    """An empty environment gives one laptop: loopback, the embedded broker, the XDG data folder."""
    settings = read_settings({"XDG_DATA_HOME": str(tmp_path)})
    assert settings.home == tmp_path / "milepost"
    assert settings.embedded and settings.bootstrap == "127.0.0.1:9092"
    assert (settings.partitions, settings.replication, settings.group) == (4, 1, "milepost")
    assert settings.url == "http://127.0.0.1:6066"


def test_a_namespace_prefixes_what_is_shared(tmp_path: Path) -> None:
    """Topics, group and state folder carry the namespace; an outside cluster is replicated three times."""
    settings = read_settings({"MILEPOST_HOME": str(tmp_path), "MILEPOST_NAMESPACE": "a", "MILEPOST_BROKER": "k:9092"})
    assert (settings.topic("signals"), settings.group) == ("a.signals", "a.milepost")
    assert settings.state == tmp_path / "state" / "a"
    assert settings.replication == 3 and not settings.embedded


def test_a_registry_is_none_ours_or_anothers(tmp_path: Path) -> None:
    """Nothing is configured by itself; `embedded` stands for the address of the one that `up` starts."""
    given = {"MILEPOST_HOME": str(tmp_path)}
    assert read_settings(given).registry_url == ""
    ours = read_settings({**given, "MILEPOST_REGISTRY": "embedded", "MILEPOST_REGISTRY_PORT": "8099"})
    assert ours.registry_url == "http://127.0.0.1:8099/apis/ccompat/v7"
    other = read_settings({**given, "MILEPOST_REGISTRY": "https://registry.example.org/"})
    assert other.registry_url == "https://registry.example.org"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MILEPOST_PARTITIONS", "0", "whole number from 1 to 256"),
        ("MILEPOST_PARTITIONS", "four", "whole number"),
        ("MILEPOST_CHUNK_MAX", "-1", "whole number"),
        ("MILEPOST_NAMESPACE", "../x", "expected at most 63 of a-z"),
        ("MILEPOST_LOG", "loud", "expected one of debug"),
        ("MILEPOST_HOSTS", "a.example.org:80", "is no host name"),
        ("MILEPOST_OIDC_ISSUER", "https://issuer.example.org", "fix: set MILEPOST_OIDC_AUDIENCE"),
        ("MILEPOST_OIDC_ALGORITHM", "HS256", "expected one of rs256"),
        ("MILEPOST_SECRET", "short", "expected 16 to 64"),
        ("MILEPOST_STANDBY", "4", "expected a whole number from 0 to 3"),
        ("MILEPOST_PEER_URL", "http://u:p@elsewhere/x?y", "expected http://host:port"),
        ("MILEPOST_REGISTRY", "http://u:p@registry:8081", "without user and password"),
        ("MILEPOST_REGISTRY", "registry:8081", "expected `embedded`, or the URL"),
        ("MILEPOST_REGISTRY_PORT", "0", "whole number from 1 to 65535"),
        ("MILEPOST_PARTITION", "4", "is no setting; did you mean MILEPOST_PARTITIONS"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: str, said: str) -> None:
    """A setting that does not hold names itself, what came and what was expected."""
    with pytest.raises(DeclarationError, match=name) as error:
        read_settings({name: value})
    assert said in str(error.value)


def test_the_environment_round_trips(tmp_path: Path) -> None:
    """What `environment` hands to a worker is read there as the same settings, and every variable is in the manual."""
    settings = read_settings(
        {
            "MILEPOST_HOME": str(tmp_path),
            "MILEPOST_NAMESPACE": "n",
            "MILEPOST_SECRET": "s" * 20,
            "MILEPOST_REGISTRY": "http://registry:8080/apis/ccompat/v7",
            "MILEPOST_CHUNK_MAX": "7",
            "MILEPOST_STANDBY": "1",
            "MILEPOST_PEER_URL": "http://worker-2:6066",
            "MILEPOST_HOSTS": "metrics.example.org,other.example.org",
            "MILEPOST_TOKEN": "t" * 20,
            "MILEPOST_OIDC_ISSUER": "https://issuer.example.org",
            "MILEPOST_OIDC_AUDIENCE": "milepost",
            "MILEPOST_OIDC_KEYS": "/etc/keys.json",
            "MILEPOST_OIDC_ALGORITHM": "ES256",
            "FAULT_AT": "after_fold:1",
            "MILEPOST_JARS": str(tmp_path / "jars"),
        }
    )
    assert read_settings(settings.environment()) == settings
    assert settings.environment().keys() == VARIABLES.keys()
    assert len(fields(Settings)) == len(VARIABLES)


def test_a_short_token_opens_nothing_for_others() -> None:
    """Where others come by, MILEPOST_TOKEN has 16 characters or more; an API token in it is no token of the worker's."""
    for reachable in ({"MILEPOST_HOST": "0.0.0.0"}, {"MILEPOST_HOSTS": "metrics.example.org"}):
        with pytest.raises(DeclarationError, match="16 or more"):
            read_settings({**reachable, "MILEPOST_TOKEN": "short"})
        assert read_settings(reachable).exposed and not read_settings({}).exposed
    assert read_settings({"MILEPOST_TOKEN": f"mp_{'0' * 12}_{'a' * 52}"}).own_token == ""
    assert read_settings({"MILEPOST_TOKEN": "0123456789abcdef"}).own_token == "0123456789abcdef"


def test_a_worker_tells_others_an_address_that_they_can_reach(tmp_path: Path) -> None:
    """Its own address, the machine's name where it listens on all, or what the operator says."""
    local = Settings(home=tmp_path, port=7000)
    assert local.peer_url == "http://127.0.0.1:7000"
    assert "0.0.0.0" not in replace(local, host="0.0.0.0").peer_url
    assert replace(local, host="0.0.0.0", peer="http://worker-2:6066").peer_url == "http://worker-2:6066"


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    """Many processes at first need agree on one secret; the file is readable by its owner only, and not shown."""
    settings = read_settings({"MILEPOST_HOME": str(tmp_path / "home")})
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: settings.secret(), range(8)))
    assert len(secrets) == 1 and len(secrets.pop()) == 64
    assert stat.S_IMODE(settings.secret_file.stat().st_mode) == 0o600
    settings.secret_file.write_text("")
    with pytest.raises(DeclarationError, match="put the organisation's secret back"):
        settings.secret()
    assert "hidden" not in repr(Settings(home=tmp_path, secret_text="hidden hidden hidden", token="hidden"))
