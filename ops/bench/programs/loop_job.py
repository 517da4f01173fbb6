"""The bound: a plain confluent-kafka loop that decodes each event's JSON and counts by type in a dict.  Nothing else.

Arguments: bootstrap, raw, partitions, events, out.  No group, no commit, no store, no output topic.
"""

from __future__ import annotations

from pathlib import Path

import orjson
from common import Progress, arguments
from confluent_kafka import Consumer, TopicPartition


def main() -> None:
    """Read the whole topic once."""
    given = arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": given["bootstrap"],
            "group.id": "bench-loop",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": 8 * 1024 * 1024,
        }
    )
    consumer.assign([TopicPartition(given["raw"], number, 0) for number in range(int(given["partitions"]))])
    progress = Progress(int(given["events"]))
    counts: dict[str, int] = {}
    while not progress.ended():
        # The first event alone: it starts the clock, and what is read with it would be timed by nobody.
        batch = consumer.consume(10_000 if progress.read else 1, timeout=0.2)
        for message in batch:
            if message.error() is not None:
                raise SystemExit(str(message.error()))
            kind = orjson.loads(message.value())["type"]
            counts[kind] = counts.get(kind, 0) + 1
        if batch:
            progress.took(len(batch))
    consumer.close()
    Path(given["out"]).write_text("".join(f"{kind}\t\t0\t\t\t{count}\t0\n" for kind, count in counts.items()))


main()
