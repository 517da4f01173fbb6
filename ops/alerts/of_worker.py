"""Alerts of a worker: the process, what it waits for, the machine under it, what it answers."""

from __future__ import annotations

from typing import Final

from milepost.ops.alerts.alert import DOCTOR, INSTANCE, LOG, TRIED_MIN, Alert, W, begun, flat, rising
from milepost.ops.doctor import DISK_MIN

OF_WORKER: Final = (
    Alert(
        name="WorkerDown",
        severity="page",
        expr='up{job="milepost"} == 0',
        hold_min=1,
        summary="{{ $labels.instance }} does not answer Prometheus",
        means="The process is gone, or its loop answers nothing. Its partitions go to other workers after the "
        "session time-out (8 s); alone, nothing is taken and nothing is answered. Nothing is lost: events wait in "
        "the log.",
        look=(DOCTOR, LOG + "; its last line says why it ended, with the exit code"),
        do=(
            "start it again: `milepost up`, or `docker compose up -d worker`; it restores by itself",
            "exit code 78: a declaration does not hold; the last line says which, and starting again changes nothing",
        ),
        sound={f"up{{{W}}}": flat(1)},
        fault={f"up{{{W}}}": f"1+0x{TRIED_MIN - 10} 0+0x10"},
        labels=INSTANCE,
    ),
    Alert(
        name="WorkerRestarting",
        severity="page",
        expr='changes(process_start_time_seconds{job="milepost"}[15m]) > 3',
        hold_min=1,
        summary="{{ $labels.instance }} has ended and begun again more than three times in a quarter of an hour",
        means="Something ends the process again and again: a record that no life survives, memory, a full disk, a "
        "broker that refuses writes. A record is found within six lives and becomes a dead letter `poison`.",
        look=(LOG + "; `worker ends with code` says why", "`milepost tail dead-letters --from-start --no-wait`"),
        do=(
            "wait for six lives if the log speaks of a record in hand: the worker finds it",
            "else mend what the log names; killed by the kernel (code -9): give it more memory",
        ),
        sound={f"process_start_time_seconds{{{W}}}": flat(100)},
        fault={f"process_start_time_seconds{{{W}}}": rising(60)},
        labels=INSTANCE,
    ),
    Alert(
        name="WorkerNotReady",
        severity="page",
        expr="milepost_ready == 0",
        hold_min=5,
        summary="{{ $labels.instance }} has not been ready for five minutes",
        means="Some questions are answered 503. `milepost_unready` says why: partitions are restored or handed over, "
        "the disk is full, the decision topics are not read, or ingest is 24 h behind.",
        look=("`curl http://127.0.0.1:6066/readyz`, which lists every reason", DOCTOR),
        do=("follow the reason: Restore stuck, No room, Broker unreachable, Ingest lag red",),
        sound={f"milepost_ready{{{W}}}": flat(1)},
        fault={f"milepost_ready{{{W}}}": f"1+0x{TRIED_MIN - 10} 0+0x10"},
        labels=INSTANCE,
    ),
    Alert(
        name="RestoreStuck",
        severity="page",
        expr="milepost_restoring_partitions > 0",
        hold_min=15,
        summary="{{ $labels.instance }} has been restoring partitions of {{ $labels.leg }} for a quarter of an hour",
        means="A restore reads a changelog at 150,000 rows a second or more, so it takes seconds to minutes. One "
        "that makes no progress for 30 s ends the process; one that goes on for longer is large, or starved.",
        look=("`curl http://127.0.0.1:6066/v1/status`: `restoring` and `bytes` of the leg", LOG),
        do=(
            "if bytes grow, wait",
            "else restart the worker; if it comes back the same, delete its state (`$MILEPOST_HOME/state`): it is made "
            "again from the changelog",
        ),
        sound={f'milepost_restoring_partitions{{{W}, leg="measure"}}': f"4+0x5 0+0x{TRIED_MIN}"},
        fault={f'milepost_restoring_partitions{{{W}, leg="measure"}}': flat(4)},
        labels={**INSTANCE, "leg": "measure"},
    ),
    Alert(
        name="BrokerUnreachable",
        severity="page",
        expr="milepost_broker_silent_seconds > 30",
        hold_min=1,
        summary="the broker has not answered {{ $labels.instance }} for half a minute",
        means="No heartbeat is answered. The worker waits and loses nothing, but it no longer knows that its "
        "partitions are its own, so it answers 503 (but for questions with `stale_ms`).",
        look=(DOCTOR, "the broker's own log and disk: `$MILEPOST_HOME/broker/kafka.log` for the embedded one"),
        do=("start or reach the broker; the worker goes on by itself", "a full broker disk: add room there"),
        sound={f"milepost_broker_silent_seconds{{{W}}}": flat(0.4)},
        fault={f"milepost_broker_silent_seconds{{{W}}}": rising(60)},
        labels=INSTANCE,
    ),
    Alert(
        name="CheckpointStuck",
        severity="page",
        expr="milepost_checkpoint_away_seconds > 30",
        hold_min=1,
        summary="{{ $labels.instance }} has waited half a minute for a checkpoint of {{ $labels.leg }}",
        means="Outputs or a changelog batch are not acknowledged, or the disk has no room. Nothing beyond it is "
        "acknowledged; a crash now repeats what came since. After 60 s with a broker that answers the process ends.",
        look=("Broker unreachable and No room, of which it is mostly a consequence", LOG),
        do=("mend the broker or the disk", "with `min.insync.replicas` 2, see that two brokers are up"),
        sound={f'milepost_checkpoint_away_seconds{{{W}, leg="ingest"}}': flat(0.05)},
        fault={f'milepost_checkpoint_away_seconds{{{W}, leg="ingest"}}': rising(60)},
        labels={**INSTANCE, "leg": "ingest"},
    ),
    Alert(
        name="CheckpointSlow",
        severity="ticket",
        expr="histogram_quantile(0.9, sum by (leg, le) (rate(milepost_checkpoint_seconds_bucket[10m]))) > 1",
        hold_min=10,
        summary="one checkpoint of {{ $labels.leg }} in ten takes longer than a second",
        means="What a crash repeats grows with it; answers are not slower. The broker's acknowledgements or the "
        "local disk are slow, or one checkpoint carries too much.",
        look=("*Checkpoint, time* and *bytes* of the leg on the dashboard", "the disks of broker and worker"),
        do=("give broker and worker disks of their own", "lower MILEPOST_CHECKPOINT_BYTES if each is large"),
        sound={
            'milepost_checkpoint_seconds_bucket{leg="ingest", le="0.1"}': rising(10),
            'milepost_checkpoint_seconds_bucket{leg="ingest", le="+Inf"}': rising(10),
        },
        fault={
            'milepost_checkpoint_seconds_bucket{leg="ingest", le="1.0"}': flat(0),
            'milepost_checkpoint_seconds_bucket{leg="ingest", le="2.5"}': rising(10),
            'milepost_checkpoint_seconds_bucket{leg="ingest", le="+Inf"}': rising(10),
        },
        labels={"leg": "ingest"},
    ),
    Alert(
        name="StandbyLag",
        severity="ticket",
        expr="milepost_standby_lag_seconds > 30",
        hold_min=5,
        summary="the standby copies of {{ $labels.leg }} on {{ $labels.instance }} are half a minute behind",
        means="Questions with `stale_ms` are answered later or by the owner, and a take-over takes longer. What the "
        "owners answer is not affected.",
        look=("`curl http://127.0.0.1:6066/v1/status`: `standby`, by leg and partition", LOG),
        do=("give the worker more processor", "restart it: copies are made again from the changelog"),
        sound={f'milepost_standby_lag_seconds{{{W}, leg="measure"}}': flat(0.3)},
        fault={f'milepost_standby_lag_seconds{{{W}, leg="measure"}}': flat(60)},
        labels={**INSTANCE, "leg": "measure"},
    ),
    Alert(
        name="StoreSetAside",
        severity="ticket",
        expr="sum by (instance, leg) (increase(milepost_stores_quarantined_total[1h])) > 0",
        hold_min=0,
        summary="{{ $labels.instance }} has set a store of {{ $labels.leg }} aside",
        means="A store's folder was damaged, older than its changelog allows, or another's. It was renamed to "
        "`….quarantine-N` and made again from the changelog; nothing is lost.",
        look=(LOG + ": `is set aside as` says why", "the disk's health, and who else writes to MILEPOST_HOME"),
        do=("replace a disk that returns errors", "one MILEPOST_HOME a worker; delete the folder that was set aside"),
        sound={f'milepost_stores_quarantined_total{{{W}, leg="measure"}}': flat(1)},
        fault={f'milepost_stores_quarantined_total{{{W}, leg="measure"}}': begun(1)},
        labels={"instance": "worker-1:6066", "leg": "measure"},
    ),
    Alert(
        name="NoRoom",
        severity="page",
        expr="milepost_stalled_partitions > 0",
        hold_min=1,
        summary="partitions of {{ $labels.leg }} on {{ $labels.instance }} wait for room on the disk",
        means="The disk of the stores is full. Nothing is acknowledged and nothing is lost; questions are answered "
        "from what is readable, and `/readyz` is red.",
        look=("`df -h $MILEPOST_HOME`", "`curl http://127.0.0.1:6066/readyz`: what waits"),
        do=("free or add room; the worker notices within five seconds and goes on",),
        sound={f'milepost_stalled_partitions{{{W}, leg="measure"}}': flat(0)},
        fault={f'milepost_stalled_partitions{{{W}, leg="measure"}}': begun(2)},
        labels={**INSTANCE, "leg": "measure"},
    ),
    Alert(
        name="DiskNearlyFull",
        severity="ticket",
        expr=f"milepost_disk_free_bytes < {DISK_MIN}",
        hold_min=5,
        summary="{{ $labels.instance }} has less than 2 GiB left for its stores",
        means="A full disk stops its partitions until there is room (No room).",
        look=("`df -h $MILEPOST_HOME`", "`milepost_store_bytes`: which store grows"),
        do=("delete folders named `….quarantine-N`", "add room, or move partitions to another worker: start one"),
        sound={f"milepost_disk_free_bytes{{{W}}}": flat(50 * 1024**3)},
        fault={f"milepost_disk_free_bytes{{{W}}}": flat(1024**3)},
        labels=INSTANCE,
    ),
    Alert(
        name="OpenFilesNearLimit",
        severity="ticket",
        expr='process_open_fds{job="milepost"} / process_max_fds{job="milepost"} > 0.8',
        hold_min=5,
        summary="{{ $labels.instance }} has four of five of its open files in use",
        means="Stores, connections and streams each hold files. At the limit the worker refuses connections, and a "
        "store that cannot open a file ends the process.",
        look=("`ls /proc/$(pgrep -f milepost.agents)/fd | wc -l`", "`milepost_stream_clients`"),
        do=("raise the limit (`ulimit -n`, `nofile` in compose) and restart",),
        sound={f"process_open_fds{{{W}}}": flat(200), f"process_max_fds{{{W}}}": flat(1024)},
        fault={f"process_open_fds{{{W}}}": flat(900), f"process_max_fds{{{W}}}": flat(1024)},
        labels=INSTANCE,
    ),
    Alert(
        name="MemoryNearLimit",
        severity="ticket",
        expr='process_resident_memory_bytes{job="milepost"} / (milepost_memory_limit_bytes > 0) > 0.9',
        hold_min=10,
        summary="{{ $labels.instance }} takes nine tenths of the memory that it may have",
        means="Beyond the limit the kernel kills the process; it restores and goes on, and answers 503 meanwhile.",
        look=(
            "`milepost_memory_bytes`: memtables and block cache",
            "`milepost_stream_clients`; large merged companies",
        ),
        do=("give it more memory", "fewer partitions a worker: start another"),
        sound={
            f"process_resident_memory_bytes{{{W}}}": flat(300e6),
            f"milepost_memory_limit_bytes{{{W}}}": flat(1e9),
        },
        fault={
            f"process_resident_memory_bytes{{{W}}}": flat(950e6),
            f"milepost_memory_limit_bytes{{{W}}}": flat(1e9),
        },
        labels=INSTANCE,
    ),
    Alert(
        name="AnswersFail",
        severity="ticket",
        expr='sum by (route) (increase(milepost_http_answers_total{status="500"}[15m])) > 0',
        hold_min=0,
        summary="{{ $labels.route }} has answered 500",
        means="A mistake of ours: every other failure has a status and a fix of its own.",
        look=(LOG + ": `a view failed`, with the cause",),
        do=("report it with the log's lines; the question can be asked again",),
        sound={'milepost_http_answers_total{route="/v1/companies", method="GET", status="200"}': rising(100)},
        fault={'milepost_http_answers_total{route="/v1/companies", method="GET", status="500"}': begun(1)},
        labels={"route": "/v1/companies"},
    ),
    Alert(
        name="AnswersRefused",
        severity="page",
        expr='sum(rate(milepost_http_answers_total{status="503", route=~"/v1/.*"}[5m])) / '
        'sum(rate(milepost_http_answers_total{route=~"/v1/.*"}[5m])) > 0.05',
        hold_min=5,
        summary="one question in twenty is answered 503",
        means="Partitions are restored, handed over, or with nobody; a hand-over takes seconds, so this is something "
        "else.",
        look=(
            "Worker not ready, Worker restarting, Broker unreachable",
            "`curl http://127.0.0.1:6066/readyz` of each worker",
        ),
        do=("mend what those say; ask with `stale_ms=5000` meanwhile where standby copies are kept",),
        sound={
            'milepost_http_answers_total{route="/v1/companies", method="GET", status="200"}': rising(100),
            'milepost_http_answers_total{route="/v1/companies", method="GET", status="503"}': rising(1),
        },
        fault={
            'milepost_http_answers_total{route="/v1/companies", method="GET", status="200"}': rising(100),
            'milepost_http_answers_total{route="/v1/companies", method="GET", status="503"}': rising(50),
        },
        labels={},
    ),
)
