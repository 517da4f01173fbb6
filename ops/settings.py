"""Settings: what the environment says, read once at the door; the rooms receive plain values.

`VARIABLES` is the manual: each variable with its default and meaning, printed by `milepost doctor --settings`, compared
with the container files by a test.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from milepost.schemas.errors import DeclarationError

VARIABLES: Final[Mapping[str, tuple[str, str]]] = {
    "MILEPOST_HOME": ("the XDG data folder", "where state, logs, the secret and the embedded broker live"),
    "MILEPOST_BROKER": ("", "host:port,… of an outside Kafka cluster; empty: the embedded broker"),
    "MILEPOST_BROKER_PORT": ("9092", "port of the embedded broker; its controller takes the next one"),
    "MILEPOST_NAMESPACE": ("", "prefix of topics, changelogs and consumer group, so that deployments share a cluster"),
    "MILEPOST_REGISTRY": (
        "",
        "URL of a schema registry (Confluent's API, v7); `embedded`: `up` starts one; empty: none",
    ),
    "MILEPOST_REGISTRY_PORT": ("8081", "port of the embedded schema registry"),
    "MILEPOST_PARTITIONS": ("4", "partitions of the partitioned topics, fixed at their creation"),
    "MILEPOST_REPLICATION": ("", "replication of the topics; empty: 1 embedded, 3 outside"),
    "MILEPOST_HOST": (
        "127.0.0.1",
        "address of the worker's web views; beyond loopback a token must hold, or it declines to start",
    ),
    "MILEPOST_PORT": ("6066", "port of the worker's web views"),
    "MILEPOST_PEER_URL": ("", "where other workers reach this one; empty: http://MILEPOST_HOST:MILEPOST_PORT"),
    "MILEPOST_HOSTS": (
        "",
        "names, with commas, under which a proxy or others reach the worker; they shut its doors too",
    ),
    "MILEPOST_TOKEN": ("", "what commands show at the door; of a worker: opens all its doors, 16 characters or more"),
    "MILEPOST_OIDC_ISSUER": ("", "whose bearer tokens (JWT) are taken beside our own; empty: nobody's"),
    "MILEPOST_OIDC_AUDIENCE": ("", "what such a token says it is for"),
    "MILEPOST_OIDC_KEYS": ("", "the issuer's keys (JWKS): a file, or an https address"),
    "MILEPOST_OIDC_ALGORITHM": ("RS256", "the one algorithm: RS256, PS256 or ES256"),
    "MILEPOST_OIDC_TYPE": ("at+jwt", "what the header `typ` must be (RFC 9068; some issuers say JWT)"),
    "MILEPOST_OIDC_ROLES": ("roles", "the claim that holds roles: a list, or words with spaces"),
    "MILEPOST_OIDC_MAP": (
        "",
        "what the claim's words mean, as viewers=read admins=read+write+operate; empty: our roles",
    ),
    "MILEPOST_OIDC_ORG": ("", "the claim that names the one organisation of its bearer; empty: they reach all"),
    "MILEPOST_SECRET": ("", "the organisation's secret; empty: the file secret in MILEPOST_HOME, made at first need"),
    "MILEPOST_WORKER": ("worker-1", "name of this worker: its static membership in the consumer group"),
    "MILEPOST_CHUNK_MAX": ("1000", "records of one partition handed over at a time, at most"),
    "MILEPOST_CHECKPOINT_MS": ("100", "a checkpoint at the latest so long after the first change, ms"),
    "MILEPOST_CHECKPOINT_BYTES": ("8388608", "a checkpoint at the latest at so many changed bytes"),
    "MILEPOST_SESSION_TIMEOUT_S": ("8", "after so many seconds of silence the broker gives a worker's partitions away"),
    "MILEPOST_STANDBY": ("0", "how many other workers keep a copy of each partition, for reads that may lag"),
    "MILEPOST_LOG": ("info", "log level: debug, info, warning, error"),
    "MILEPOST_LOG_FORMAT": ("text", "text, or json (one object a line)"),
    "MILEPOST_JARS": ("", "folder of the broker's jars, shared by several homes; empty: kafka in MILEPOST_HOME"),
    "FAULT_AT": ("", "[leg/]name:n kills the worker at the n-th passage of a named crash point (tests only)"),
}

DEMO_SECRET: Final = "milepost demo secret: fixed and public"
"""The demo's organisation secret: the same everywhere, so a README can print its MetaKeys.  It protects nothing."""

EMBEDDED: Final = "embedded"
PARTITIONS_MAX: Final = 256

_PEER: Final = re.compile(r"^https?://[A-Za-z0-9.\[\]:_-]{1,255}$")
_HOST: Final = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
_REGISTRY: Final = re.compile(r"^https?://[A-Za-z0-9.\[\]:_-]{1,255}(/[A-Za-z0-9._/-]{0,255})?$")
_ADDRESS: Final = re.compile(r"\s*([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\s*")
_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a process needs to know before it starts.  Times are in ms unless the name says `_s`; sizes in bytes."""

    home: Path
    broker: str = ""
    broker_port: int = 9092
    registry: str = ""
    registry_port: int = 8081
    namespace: str = ""
    partitions: int = 4
    replication: int = 1
    host: str = "127.0.0.1"
    port: int = 6066
    peer: str = ""
    hosts: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_keys: str = ""
    oidc_algorithm: str = "RS256"
    oidc_type: str = "at+jwt"
    oidc_roles: str = "roles"
    oidc_map: str = ""
    oidc_org: str = ""
    secret_text: str = field(default="", repr=False)
    worker: str = "worker-1"
    chunk_max: int = 1000
    checkpoint_ms: int = 100
    checkpoint_bytes: int = 8 * 1024 * 1024
    session_timeout_s: int = 8
    standby: int = 0
    log: str = "info"
    log_format: str = "text"
    jars_folder: Path | None = None
    fault_at: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the broker is ours to start."""
        return not self.broker

    @property
    def loopback(self) -> bool:
        """Whether the web views listen for this machine alone."""
        return _loopback(self.host)

    @property
    def exposed(self) -> bool:
        """Whether others come by: over the network, or through a proxy."""
        return not self.loopback or bool(self.hosts)

    @property
    def own_token(self) -> str:
        """The worker's own token.  An API token in MILEPOST_TOKEN is what a command shows: it opens what it says."""
        return "" if self.token.startswith("mp_") else self.token

    @property
    def bootstrap(self) -> str:
        """host:port[,host:port…] of the Kafka cluster."""
        return self.broker or f"127.0.0.1:{self.broker_port}"

    @property
    def registry_url(self) -> str:
        """The schema registry's API; "" where none is configured."""
        if self.registry == EMBEDDED:
            return f"http://127.0.0.1:{self.registry_port}/apis/ccompat/v7"
        return self.registry

    @property
    def group(self) -> str:
        """The consumer group's id."""
        return self.topic("milepost")

    @property
    def state(self) -> Path:
        """Folder of the workers' RocksDB stores: a cache of the log that may be deleted."""
        return self.home / "state" / (self.namespace or "default")

    @property
    def jars(self) -> Path:
        """Folder of the embedded broker's jars, by version."""
        return self.jars_folder or self.home / "kafka"

    @property
    def secret_file(self) -> Path:
        return self.home / "secret"

    @property
    def url(self) -> str:
        """Where this machine reaches the worker's web views."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def peer_url(self) -> str:
        """Where other workers reach this one's web views."""
        if self.peer:
            return self.peer
        return f"http://{socket.gethostname()}:{self.port}" if self.host in ("0.0.0.0", "::") else self.url

    def topic(self, name: str) -> str:
        """A topic's name at the broker: the line's name under this deployment's namespace."""
        return f"{self.namespace}.{name}" if self.namespace else name

    def secret(self) -> bytes:
        """The organisation's secret: from the environment, else from the file, which is made (mode 0600) at first need.

        Losing it makes every leaf of the log unreachable by its key, so the file is never overwritten.
        """
        if self.secret_text:
            return self.secret_text.encode()
        path = self.secret_file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = path.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, path)  # never over another's: two processes at first need agree on one secret
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        value = path.read_bytes().strip()
        if not 16 <= len(value) <= 64:
            raise DeclarationError(
                f"{path} holds {len(value)} bytes, a secret has 16 to 64; fix: put the organisation's secret back"
            )
        return value

    def environment(self) -> dict[str, str]:
        """The variables that give another process these settings."""
        return {
            "MILEPOST_HOME": str(self.home),
            "MILEPOST_BROKER": self.broker,
            "MILEPOST_BROKER_PORT": str(self.broker_port),
            "MILEPOST_REGISTRY": self.registry,
            "MILEPOST_REGISTRY_PORT": str(self.registry_port),
            "MILEPOST_NAMESPACE": self.namespace,
            "MILEPOST_PARTITIONS": str(self.partitions),
            "MILEPOST_REPLICATION": str(self.replication),
            "MILEPOST_HOST": self.host,
            "MILEPOST_PORT": str(self.port),
            "MILEPOST_PEER_URL": self.peer,
            "MILEPOST_HOSTS": ",".join(self.hosts),
            "MILEPOST_TOKEN": self.token,
            "MILEPOST_OIDC_ISSUER": self.oidc_issuer,
            "MILEPOST_OIDC_AUDIENCE": self.oidc_audience,
            "MILEPOST_OIDC_KEYS": self.oidc_keys,
            "MILEPOST_OIDC_ALGORITHM": self.oidc_algorithm,
            "MILEPOST_OIDC_TYPE": self.oidc_type,
            "MILEPOST_OIDC_ROLES": self.oidc_roles,
            "MILEPOST_OIDC_MAP": self.oidc_map,
            "MILEPOST_OIDC_ORG": self.oidc_org,
            "MILEPOST_SECRET": self.secret_text,
            "MILEPOST_WORKER": self.worker,
            "MILEPOST_CHUNK_MAX": str(self.chunk_max),
            "MILEPOST_CHECKPOINT_MS": str(self.checkpoint_ms),
            "MILEPOST_CHECKPOINT_BYTES": str(self.checkpoint_bytes),
            "MILEPOST_SESSION_TIMEOUT_S": str(self.session_timeout_s),
            "MILEPOST_STANDBY": str(self.standby),
            "MILEPOST_LOG": self.log,
            "MILEPOST_LOG_FORMAT": self.log_format,
            "MILEPOST_JARS": str(self.jars_folder or ""),
            "FAULT_AT": self.fault_at,
        }


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment (or from `environ`); a DeclarationError names variable, value and fix."""
    env = os.environ if environ is None else environ
    unknown = sorted(name for name in env if name.startswith("MILEPOST_") and name not in VARIABLES.keys() | _OTHERS)
    if unknown:
        near = difflib.get_close_matches(unknown[0], VARIABLES, n=1)
        guess = f"; did you mean {near[0]}? `" if near else "; `"
        raise DeclarationError(f"{unknown[0]} is no setting{guess}milepost doctor --settings` lists them")

    def text(name: str, default: str = "") -> str:
        return env.get(name, "").strip() or default

    def number(name: str, default: int, low: int, high: int) -> int:
        given = text(name, str(default))
        if not given.isascii() or not given.isdigit() or not low <= int(given) <= high:
            raise DeclarationError(f"{name}={given!r}: expected a whole number from {low} to {high}")
        return int(given)

    def word(name: str, default: str, allowed: tuple[str, ...]) -> str:
        given = text(name, default).lower()
        if given not in allowed:
            raise DeclarationError(f"{name}={given!r}: expected one of {', '.join(allowed)}")
        return given

    def label(name: str, default: str) -> str:
        given = text(name, default)
        if given and not _NAME.match(given):
            raise DeclarationError(f"{name}={given!r}: expected at most 63 of a-z, 0-9, - and _, no - or _ first")
        return given

    broker = text("MILEPOST_BROKER")
    if broker and not all(map(_ADDRESS.fullmatch, broker.split(","))):
        raise DeclarationError(f"MILEPOST_BROKER={broker[:128]!r}: expected host:port, or several with commas between")
    jars = text("MILEPOST_JARS")
    host = text("MILEPOST_HOST", "127.0.0.1")
    token = text("MILEPOST_TOKEN")
    peer = text("MILEPOST_PEER_URL").rstrip("/")
    if peer and not _PEER.match(peer):
        raise DeclarationError(f"MILEPOST_PEER_URL={peer!r}: expected http://host:port")
    registry = text("MILEPOST_REGISTRY").rstrip("/")
    if registry and registry != EMBEDDED and not _REGISTRY.match(registry):
        raise DeclarationError(
            f"MILEPOST_REGISTRY={registry!r}: expected `embedded`, or the URL of a registry's API without user and "
            "password, as http://registry:8081 or http://registry:8080/apis/ccompat/v7"
        )
    secret_text = text("MILEPOST_SECRET")
    hosts = tuple(one.strip().lower() for one in text("MILEPOST_HOSTS").split(",") if one.strip())
    for name in hosts:
        if not _HOST.match(name):
            raise DeclarationError(f"MILEPOST_HOSTS: {name!r} is no host name; expected metrics.example.org,…, no port")
    if (hosts or not _loopback(host)) and 0 < len(token) < 16:
        raise DeclarationError(
            f"MILEPOST_TOKEN has {len(token)} characters; expected 16 or more, as of `openssl rand -hex 32`"
        )
    issuer, audience = text("MILEPOST_OIDC_ISSUER"), text("MILEPOST_OIDC_AUDIENCE")
    oidc_keys = text("MILEPOST_OIDC_KEYS")
    if issuer and not (audience and oidc_keys):
        raise DeclarationError(
            "MILEPOST_OIDC_ISSUER is set; fix: set MILEPOST_OIDC_AUDIENCE and MILEPOST_OIDC_KEYS too, or none of them"
        )
    if secret_text and not 16 <= len(secret_text.encode()) <= 64:
        raise DeclarationError(
            f"MILEPOST_SECRET has {len(secret_text.encode())} bytes; expected 16 to 64, as of `openssl rand -hex 32`"
        )
    return Settings(
        home=Path(text("MILEPOST_HOME") or default_home(env)).expanduser().absolute(),
        broker=broker,
        broker_port=number("MILEPOST_BROKER_PORT", 9092, 1, 65_534),
        registry=registry,
        registry_port=number("MILEPOST_REGISTRY_PORT", 8081, 1, 65_535),
        namespace=label("MILEPOST_NAMESPACE", ""),
        partitions=number("MILEPOST_PARTITIONS", 4, 1, PARTITIONS_MAX),
        replication=number("MILEPOST_REPLICATION", 3 if broker else 1, 1, 9),
        host=host,
        port=number("MILEPOST_PORT", 6066, 1, 65_535),
        peer=peer,
        hosts=hosts,
        token=token,
        oidc_issuer=issuer,
        oidc_audience=audience,
        oidc_keys=oidc_keys,
        oidc_algorithm=word("MILEPOST_OIDC_ALGORITHM", "rs256", ("rs256", "ps256", "es256")).upper(),
        oidc_type=text("MILEPOST_OIDC_TYPE", "at+jwt"),
        oidc_roles=text("MILEPOST_OIDC_ROLES", "roles"),
        oidc_map=text("MILEPOST_OIDC_MAP"),
        oidc_org=text("MILEPOST_OIDC_ORG"),
        secret_text=secret_text,
        worker=label("MILEPOST_WORKER", "worker-1"),
        chunk_max=number("MILEPOST_CHUNK_MAX", 1000, 1, 100_000),
        checkpoint_ms=number("MILEPOST_CHECKPOINT_MS", 100, 1, 60_000),
        checkpoint_bytes=number("MILEPOST_CHECKPOINT_BYTES", 8 * 1024 * 1024, 1024, 12 * 1024 * 1024),
        session_timeout_s=number("MILEPOST_SESSION_TIMEOUT_S", 8, 6, 300),
        standby=number("MILEPOST_STANDBY", 0, 0, 3),
        log=word("MILEPOST_LOG", "info", ("debug", "info", "warning", "error")),
        log_format=word("MILEPOST_LOG_FORMAT", "text", ("text", "json")),
        jars_folder=Path(jars).expanduser().absolute() if jars else None,
        fault_at=text("FAULT_AT"),
    )


_OTHERS: Final = frozenset({"MILEPOST_TEST_BROKER"})  # read by the tests, not by the engine


def default_home(env: Mapping[str, str]) -> str:
    """$XDG_DATA_HOME/milepost, else ~/.local/share/milepost: data, never a cache that someone may sweep."""
    base = env.get("XDG_DATA_HOME", "").strip()
    return str(Path(base if base.startswith("/") else "~/.local/share") / "milepost")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
