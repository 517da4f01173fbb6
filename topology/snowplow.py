"""Snowplow: posts of Snowplow's trackers as events of ours.

    {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [{"e": "ue", ...}, ...]}

    id    eid
    type  of a self-describing event its vendor and name (com.acme.viewed_product), else what `e` stands for: page_view
          page_ping struct transaction transaction_item
    time  ttm (true), else dtm (the device's), else stm (when it was sent); milliseconds
    data  the parameters under the names of Snowplow's own tables; `event`: what a self-describing event holds,
          `schema`: its schema; `contexts`: name of an entity -> what it holds, the first of each name

Self-describing parts come as text (ue_pr, co) or in URL-safe base64 (ue_px, cx).  Source: Snowplow's tracker protocol,
"Event parameters" and "Example tracker requests".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from milepost.topology.bases import written
from milepost.topology.posts import Posted, Refusal

KINDS: Final[Mapping[str, str]] = {
    "pv": "page_view", "pp": "page_ping", "se": "struct", "tr": "transaction", "ti": "transaction_item",
    "ue": "unstruct",
}  # fmt: skip
PAYLOAD: Final = "/payload_data/jsonschema/1-"
_SCHEMA: Final = re.compile(r"iglu:([A-Za-z0-9_.-]+)/([A-Za-z0-9_-]+)/jsonschema/\d+-\d+-\d+")
_MS: Final = re.compile(r"\d{1,14}")
_NAMED: Final[Mapping[str, str]] = {
    "aid": "app_id", "p": "platform", "uid": "user_id", "duid": "domain_user_id", "nuid": "network_user_id",
    "tnuid": "network_user_id", "sid": "domain_session_id", "vid": "domain_session_index", "tv": "tracker_version",
    "tna": "name_tracker", "tz": "timezone", "lang": "language", "ip": "user_ipaddress", "ua": "useragent",
    "url": "page_url", "page": "page_title", "refr": "page_referrer",
    "se_ca": "se_category", "se_ac": "se_action", "se_la": "se_label", "se_pr": "se_property", "se_va": "se_value",
    "pp_mix": "pp_xoffset_min", "pp_max": "pp_xoffset_max", "pp_miy": "pp_yoffset_min", "pp_may": "pp_yoffset_max",
    "tr_id": "tr_orderid", "tr_af": "tr_affiliation", "tr_tt": "tr_total", "tr_tx": "tr_tax", "tr_sh": "tr_shipping",
    "tr_ci": "tr_city", "tr_st": "tr_state", "tr_co": "tr_country", "tr_cu": "tr_currency",
    "ti_id": "ti_orderid", "ti_sk": "ti_sku", "ti_nm": "ti_name", "ti_ca": "ti_category", "ti_pr": "ti_price",
    "ti_qu": "ti_quantity", "ti_cu": "ti_currency",
}  # fmt: skip
_NUMBERS: Final = frozenset(
    {
        "domain_session_index", "se_value", "pp_xoffset_min", "pp_xoffset_max", "pp_yoffset_min", "pp_yoffset_max",
        "tr_total", "tr_tax", "tr_shipping", "ti_price", "ti_quantity",
    }
)  # fmt: skip
"""Trackers write every value as text; these are numbers."""


class _Wrong(ValueError):
    """Why a payload is no event."""


def events(body: Any, org: str, source: str) -> list[Posted]:
    """The events of a post, in order, each one or why it is none."""
    if not isinstance(body, dict) or PAYLOAD not in str(body.get("schema")) or not isinstance(body.get("data"), list):
        return [Refusal("a post holds the schema iglu:…/payload_data/jsonschema/1-0-4, and data: a list of events")]
    found: list[Posted] = []
    for one in body["data"]:
        try:
            found.append(_event(one, org, source))
        except _Wrong as wrong:
            found.append(Refusal(str(wrong)))
    return found


def _event(told: Any, org: str, source: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise _Wrong("an event is a JSON object of parameters")
    kind = KINDS.get(str(told.get("e")))
    if kind is None:
        raise _Wrong(f"e is {str(told.get('e'))[:32]!r}; one of {', '.join(KINDS)} is expected")
    id = told.get("eid")
    if not isinstance(id, str):
        raise _Wrong("eid is missing: the event's id, a UUID")
    data = {ours: _value(ours, told[theirs]) for theirs, ours in _NAMED.items() if told.get(theirs) is not None}
    if kind == "unstruct":
        inner = _described(_part(told, "ue_pr", "ue_px"), "ue_pr")
        if not isinstance(inner, dict):
            raise _Wrong("a self-describing event has ue_pr or ue_px: schema and data")
        kind, data["event"] = _named(inner), inner.get("data")
        data["schema"] = inner["schema"]
    contexts = _described(_part(told, "co", "cx"), "co")
    if contexts is not None:
        if not isinstance(contexts, list) or not all(isinstance(one, dict) for one in contexts):
            raise _Wrong("co or cx holds a list of entities, each with schema and data")
        data["contexts"] = {}
        for one in contexts:
            data["contexts"].setdefault(_named(one).replace(".", "_"), one.get("data"))
    return {"org": org, "source": source, "id": id, "type": kind, "time": _time(told), "data": data}


def _time(told: Mapping[str, Any]) -> str:
    text = next((str(told[name]) for name in ("ttm", "dtm", "stm") if told.get(name) is not None), "")
    if not _MS.fullmatch(text):
        raise _Wrong("ttm, dtm or stm is a time in milliseconds since 1970")
    return written(int(text))


def _value(name: str, value: Any) -> Any:
    if name not in _NUMBERS or not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value  # the contract says what is wrong with it
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _part(told: Mapping[str, Any], plain: str, coded: str) -> Any:
    """A self-describing JSON, plain or in base64 (URL-safe or not, padded or not)."""
    if (text := told.get(plain)) is not None:
        return _json(text, plain)
    if (text := told.get(coded)) is None:
        return None
    try:
        raw = str(text).encode("ascii").replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
        return _json(base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True), coded)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _Wrong(f"{coded} is not base64") from error


def _json(text: Any, name: str) -> Any:
    if isinstance(text, dict | list):
        return text
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError) as error:
        raise _Wrong(f"{name} is not JSON") from error


def _described(told: Any, name: str) -> Any:
    """What lies in the wrapping of a self-describing JSON; None: there is none."""
    if told is None:
        return None
    if not isinstance(told, dict) or "data" not in told:
        raise _Wrong(f"{name} is self-describing: an object with schema and data")
    return told["data"]


def _named(told: Mapping[str, Any]) -> str:
    """Vendor and name of a schema: com.acme.viewed_product."""
    found = _SCHEMA.fullmatch(str(told.get("schema")))
    if found is None:
        raise _Wrong(f"{str(told.get('schema'))[:64]!r} is no schema: iglu:vendor/name/jsonschema/1-0-0 is expected")
    return f"{found[1]}.{found[2]}"
