"""Alerts of the line: how far it is behind, what becomes of records, who is silent."""

from __future__ import annotations

from typing import Final

from milepost.ops.alerts.alert import DOCTOR, INSTANCE, LOG, TRIED_MIN, Alert, W, begun, flat, rising
from milepost.ops.telemetry import INGEST_LAG_S_MAX

READ: Final = 'milepost_records_total{leg="ingest", fate="read"}'
DEAD: Final = 'milepost_records_total{leg="ingest", fate="dead:contract_violation"}'
BREACH: Final = 'milepost_source_breach{org="acme", source="tickets", breach="KIND"}'

OF_LINE: Final = (
    Alert(
        name="IngestLagRed",
        severity="page",
        expr=f'milepost_lag_seconds{{leg="ingest"}} > {INGEST_LAG_S_MAX}',
        hold_min=1,
        summary="{{ $labels.instance }} is more than 24 h behind the raw log",
        means="`raw-events` is compacted from 72 h on. Until then the first body of an id that came twice with "
        "different bodies lies in the log; behind that, the last one may be taken for it. So at 24 h the worker is "
        "not ready.",
        look=("the row *ingest · decode* of the dashboard: is it taking anything?", DOCTOR),
        do=(
            "start more workers, up to one a partition: `milepost worker` with a MILEPOST_WORKER of its own",
            "if it will take longer than the 48 h that are left, lengthen `min.compaction.lag.ms` and "
            "`max.compaction.lag.ms` of `raw-events` at the broker; `milepost doctor` says that they are longer, and "
            "`milepost restore --finish` sets them back",
        ),
        sound={f'milepost_lag_seconds{{{W}, leg="ingest"}}': flat(3600)},
        fault={f'milepost_lag_seconds{{{W}, leg="ingest"}}': flat(INGEST_LAG_S_MAX + 3600)},
        labels={**INSTANCE, "leg": "ingest"},
    ),
    Alert(
        name="LagGrowing",
        severity="ticket",
        expr="sum by (leg) (milepost_lag_records) > 10000 and deriv(sum by (leg) (milepost_lag_records)[15m:1m]) > 0",
        hold_min=15,
        summary="{{ $labels.leg }} falls further behind",
        means="More comes than is taken, for half an hour. Answers are older by the lag; nothing is lost.",
        look=("the leg's rows of the dashboard: rate, checkpoints, time away", "processor and disk of the machine"),
        do=(
            "start more workers, up to one a partition",
            "find the source that sends so much: `milepost tail raw-events`",
        ),
        sound={f'milepost_lag_records{{{W}, leg="ingest", partition="0"}}': f"50000-500x{TRIED_MIN}"},
        fault={f'milepost_lag_records{{{W}, leg="ingest", partition="0"}}': rising(5000)},
        labels={"leg": "ingest"},
    ),
    Alert(
        name="AnswersOld",
        severity="page",
        expr="max by (instance) (milepost_answers_age_seconds) > 120",
        hold_min=5,
        summary="{{ $labels.instance }} answers as of more than two minutes ago",
        means="Ticks go once a second through every raw partition and say up to when everything has been seen. They "
        "are late: ingest or measure is behind, or the worker that ticks (the owner of raw partition 0) cannot send.",
        look=("`milepost_lag_records` by leg", LOG + ": `no tick` says that the broker did not take one"),
        do=("with lag: Lag growing", "without: Broker unreachable; a restart moves the ticker to another worker"),
        sound={f'milepost_answers_age_seconds{{{W}, leg="measure"}}': flat(2)},
        fault={f'milepost_answers_age_seconds{{{W}, leg="measure"}}': rising(60)},
        labels={"instance": "worker-1:6066"},
    ),
    Alert(
        name="DeadLetters",
        severity="ticket",
        expr='sum by (leg, fate) (increase(milepost_records_total{fate=~"dead.*"}[15m])) > 0',
        hold_min=0,
        summary="{{ $labels.leg }} has made dead letters: {{ $labels.fate }}",
        means="Records broke their contract. They are kept, count nothing, and can be sent again once mended.",
        look=(
            "`milepost dead-letters list --state open`: problems, the newest first, each with its count",
            "`milepost dead-letters show PROBLEM`: an example, and what is not counted meanwhile",
        ),
        do=(
            "tell the source's `owner` what was expected and what came",
            "once it is mended: `milepost dead-letters repair PROBLEM --mapping FILE --dry-run`, then without "
            "`--dry-run`; or the source sends the events again under their own ids",
        ),
        sound={DEAD: flat(3)},
        fault={DEAD: begun(3)},
        labels={"leg": "ingest", "fate": "dead:contract_violation"},
    ),
    Alert(
        name="DeadLettersMany",
        severity="page",
        expr='sum(increase(milepost_records_total{leg="ingest", fate=~"dead:.*"}[15m])) / '
        'sum(increase(milepost_records_total{leg="ingest", fate="read"}[15m])) > 0.05',
        hold_min=5,
        summary="more than one record in twenty is a dead letter",
        means="A deploy of a source has broken its contract, or a bundle was applied that its events do not meet.",
        look=(
            "`milepost dead-letters list --state open`: the first problem, with its count",
            "when it began, against the deploys of the source and the last `milepost apply`",
        ),
        do=(
            "a bundle: `milepost apply --rollback --org ORG`, then mend it",
            "a source: have it go back or mended; nothing is lost meanwhile",
        ),
        sound={READ: rising(1000), DEAD: rising(10)},
        fault={READ: rising(1000), DEAD: rising(100)},
        labels={},
    ),
    Alert(
        name="RecordPassedOver",
        severity="ticket",
        expr='sum by (leg) (increase(milepost_records_total{fate="dead:poison"}[1h])) > 0',
        hold_min=0,
        summary="{{ $labels.leg }} has passed over a record that ended the process",
        means="A record crashed the process three times while it was alone in hand. It is in quarantine: the log "
        "says so, and it holds on every replay.",
        look=("`milepost tail dead-letters --from-start --no-wait`: reason `poison`, with its position", LOG),
        do=("keep the record (its position is in the dead letter) and report it: no record may end the process",),
        sound={'milepost_records_total{leg="ingest", fate="dead:poison"}': flat(0)},
        fault={'milepost_records_total{leg="ingest", fate="dead:poison"}': begun(1)},
        labels={"leg": "ingest"},
    ),
    Alert(
        name="ForeignStamps",
        severity="ticket",
        expr='sum(increase(milepost_records_total{fate="bad_stamp"}[15m])) > 0',
        hold_min=0,
        summary="somebody writes `milepost-first` without the secret",
        means="The header is ours and sealed. Without a right seal it is ignored, so nothing is wrong yet; but a "
        "process runs with another secret than the worker's, or somebody tries to backdate events.",
        look=("which MILEPOST_SECRET each worker and importer has", "who may write to `raw-events` at the broker"),
        do=("give all of them the same secret", "take the right to write from who should not have it"),
        sound={'milepost_records_total{leg="ingest", fate="bad_stamp"}': flat(0)},
        fault={'milepost_records_total{leg="ingest", fate="bad_stamp"}': begun(5)},
        labels={},
    ),
    Alert(
        name="DecisionsRefused",
        severity="ticket",
        expr="sum by (instance) (increase(milepost_refused_decisions_total[15m])) > 0",
        hold_min=0,
        summary="{{ $labels.instance }} has passed over a record of a decision topic",
        means="`definitions` or `identity-links` hold a record that is not ours, or that this release cannot read. "
        "Every worker passes it over alike.",
        look=(LOG + ": it names the offset", "`milepost tail definitions --from-start --no-wait`"),
        do=("find who wrote it", "after an upgrade: run one release everywhere"),
        sound={f"milepost_refused_decisions_total{{{W}}}": flat(0)},
        fault={f"milepost_refused_decisions_total{{{W}}}": begun(1)},
        labels={"instance": "worker-1:6066"},
    ),
    Alert(
        name="SourceSilent",
        severity="ticket",
        expr="time() - max by (org, source) (milepost_source_heard_timestamp_seconds) > "
        "on (org, source) max by (org, source) (milepost_source_awaited_seconds)",
        hold_min=1,
        summary="{{ $labels.source }} of {{ $labels.org }} has sent nothing for longer than it promised",
        means="The bundle says `expect: {freshness: …}` of the source. Its numbers stay *open*, and milestones that "
        "need it become `unknown_stale` instead of missed. A source is waited for once it has sent anything since it "
        "was defined; an import of the past says nothing about that.",
        look=(
            "`milepost tail raw-events`: does anything of it come?",
            "Dead letters: it may send, and break its contract",
        ),
        do=(
            "ask the source's `owner`",
            "if it has really ended: `milepost complete SOURCE UNTIL`, and take it or its `expect` out of the bundle",
        ),
        sound={
            'milepost_source_heard_timestamp_seconds{org="acme", source="tickets"}': rising(60),
            'milepost_source_awaited_seconds{org="acme", source="tickets"}': flat(900),
        },
        fault={
            'milepost_source_heard_timestamp_seconds{org="acme", source="tickets"}': flat(60),
            'milepost_source_awaited_seconds{org="acme", source="tickets"}': flat(900),
        },
        labels={"org": "acme", "source": "tickets"},
    ),
    Alert(
        name="SourceTooQuiet",
        severity="ticket",
        expr='max by (org, source) (milepost_source_breach{breach="silent"}) > 0',
        hold_min=1,
        summary="{{ $labels.source }} of {{ $labels.org }} has sent fewer events than it promised",
        means="The bundle says `expect: {volume: {per: …, min: …}}` of the source, and the last whole window of known "
        "time had fewer first versions of events. Corrections and repeats are no volume.",
        look=(
            "`milepost quality SOURCE`: the last windows, and since when",
            "Source silent: a source that sends nothing breaks this, too",
        ),
        do=(
            "ask the source's `owner` whether a part of it has stopped",
            "if it is right to be so quiet: a smaller `min`, or a longer `per`, in the bundle",
        ),
        sound={BREACH.replace("KIND", "silent"): flat(0)},
        fault={BREACH.replace("KIND", "silent"): flat(1)},
        labels={"org": "acme", "source": "tickets"},
    ),
    Alert(
        name="SourceUnmatched",
        severity="ticket",
        expr='max by (org, source) (milepost_source_breach{breach="unmatched"}) > 0',
        hold_min=1,
        summary="too many events of {{ $labels.source }} of {{ $labels.org }} name nobody",
        means="The bundle says `expect: {unmatched_max: …}` of the source. In the last whole window a larger share of "
        "its events has no company's key although its contract names one (it is absent, or means nothing), or was "
        "refused for want of a key. Such events count for the organisation and for no company.",
        look=(
            "`milepost quality SOURCE`: the share, and examples with the kind of key that is missing",
            "`milepost tail raw-events` at the receipts of the examples",
        ),
        do=(
            "have the source's `owner` send the key, or name another one under `identities` of the bundle",
            "events of persons are a company's once a membership says so: `milepost identity membership`",
        ),
        sound={BREACH.replace("KIND", "unmatched"): flat(0)},
        fault={BREACH.replace("KIND", "unmatched"): flat(1)},
        labels={"org": "acme", "source": "tickets"},
    ),
    Alert(
        name="SourceSchemaBroken",
        severity="page",
        expr='max by (org, source) (milepost_source_breach{breach="schema"}) > 0',
        hold_min=0,
        summary="{{ $labels.source }} of {{ $labels.org }} sends records that break the form of its contract",
        means="Within the last half hour records of the source were dead letters for their form: an unknown type or "
        "schema, a field of another kind, not to be decoded. Mostly a deploy of the source has changed it.",
        look=(
            "`milepost quality SOURCE`: the reasons, how many, and the receipt of the first one",
            "`curl http://127.0.0.1:6066/v1/dead-letters`: the problem, with what was expected and what came",
        ),
        do=(
            "have the source's deploy taken back or mended; what it sent lies in the log and can be sent again mended",
            "if the new form is meant: a new schema in the bundle, `milepost plan`, `milepost apply`",
        ),
        sound={BREACH.replace("KIND", "schema"): flat(0)},
        fault={BREACH.replace("KIND", "schema"): flat(1)},
        labels={"org": "acme", "source": "tickets"},
    ),
    Alert(
        name="RecognitionBehind",
        severity="ticket",
        expr="time() - min by (instance) (milepost_recognised_timestamp_seconds) > 3600",
        hold_min=30,
        summary="{{ $labels.instance }} has not recognised milestones for an hour",
        means="What changes of milestones is said at the end of each quarter of an hour, once all that was known "
        "then is sure. Answers about milestones are right; the topic `milestones` and its history are late.",
        look=(LOG + ": `recognition waits` says for what", "Answers old, Worker not ready"),
        do=("mend those first", "after plans were applied for years of the past it walks through them: wait"),
        sound={f'milepost_recognised_timestamp_seconds{{{W}, leg="achieve"}}': rising(60)},
        fault={f'milepost_recognised_timestamp_seconds{{{W}, leg="achieve"}}': flat(-3600)},
        labels={"instance": "worker-1:6066"},
    ),
    Alert(
        name="DimensionFull",
        severity="ticket",
        expr='sum(increase(milepost_records_total{fate="folded_into_other"}[1h])) > 0',
        hold_min=0,
        summary="a dimension has more values than are kept apart",
        means="Of a dimension 1,000 values a company and day are kept apart; the rest is counted as `__other__`. "
        "Totals are exact. Mostly a field was made a dimension that is an id.",
        look=("`milepost query METRIC --by DIMENSION`: what are its values?",),
        do=("take the dimension out of the metric, or name the values that matter under `values:`",),
        sound={'milepost_records_total{leg="measure", fate="folded_into_other"}': flat(0)},
        fault={'milepost_records_total{leg="measure", fate="folded_into_other"}': begun(7)},
        labels={},
    ),
)
