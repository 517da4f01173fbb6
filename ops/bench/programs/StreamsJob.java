import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.Stores;

/**
 * The bench's reference job in Kafka Streams, and its restore.
 *
 * <pre>
 *   raw topic -> decode, dedupe by event id (store `seen`), four rules -> signals topic by company
 *             -> three cells a signal (total, by plan, by plan and country; store `cells`)
 * </pre>
 *
 * Arguments are key=value: mode (job, restore), bootstrap, app, state, and for the job: raw, signals, events, threads,
 * guarantee, commit_ms, out.  It prints a JSON line of progress every 200 ms and one with "done" at the end, writes
 * the cells as tab-separated lines to `out`, and ends.
 */
public final class StreamsJob {
  private static final LongAdder READ = new LongAdder();
  private static final LongAdder SIGNALS = new LongAdder();
  private static final LongAdder MEASURED = new LongAdder();
  private static final AtomicLong BEGUN = new AtomicLong();
  private static final int PANE_MS = 900_000;

  public static void main(String[] arguments) throws Exception {
    Map<String, String> given = new TreeMap<>();
    for (String argument : arguments) {
      int at = argument.indexOf('=');
      given.put(argument.substring(0, at), argument.substring(at + 1));
    }
    if (given.get("mode").equals("restore")) {
      restore(given);
    } else {
      job(given);
    }
  }

  private static void job(Map<String, String> given) throws Exception {
    long events = Long.parseLong(given.get("events"));
    KafkaStreams streams = new KafkaStreams(line(given.get("raw"), given.get("signals")).build(), settings(given));
    streams.setUncaughtExceptionHandler(StreamsJob::fail);
    streams.start();
    while (READ.sum() < events || MEASURED.sum() < SIGNALS.sum()) {
      Thread.sleep(20);
      if (System.nanoTime() / 200_000_000L != (System.nanoTime() - 20_000_000L) / 200_000_000L) {
        report("");
      }
    }
    report(", \"done\": true");
    dump(streams, Path.of(given.get("out")));
    System.out.flush();
    // The last commit is not waited for; the state is of no use to anybody.
    Runtime.getRuntime().halt(0);
  }

  private static Properties settings(Map<String, String> given) {
    Properties out = new Properties();
    out.put("application.id", given.get("app"));
    out.put("bootstrap.servers", given.get("bootstrap"));
    out.put("state.dir", given.get("state"));
    out.put("num.stream.threads", given.getOrDefault("threads", "1"));
    out.put("processing.guarantee", given.getOrDefault("guarantee", "at_least_once"));
    out.put("commit.interval.ms", given.getOrDefault("commit_ms", "1000"));
    out.put("replication.factor", "1");
    out.put("auto.offset.reset", "earliest");
    out.put("statestore.cache.max.bytes", String.valueOf(128 * 1024 * 1024));
    out.put("producer.compression.type", "lz4");
    out.put("producer.linger.ms", "20");
    out.put("producer.batch.size", String.valueOf(256 * 1024));
    out.put("default.key.serde", Serdes.ByteArraySerde.class);
    out.put("default.value.serde", Serdes.ByteArraySerde.class);
    return out;
  }

  private static StreamsBuilder line(String rawTopic, String signalsTopic) {
    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(
        Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("seen"), Serdes.ByteArray(), Serdes.ByteArray()));
    builder.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore("cells"), Serdes.Bytes(), Serdes.ByteArray())
            .withCachingEnabled());
    KStream<byte[], byte[]> raw = builder.stream(rawTopic);
    raw.<byte[], byte[]>process(Ingest::new, "seen").to(signalsTopic);
    KStream<byte[], byte[]> signals = builder.stream(signalsTopic);
    signals.<Void, Void>process(Measure::new, "cells");
    return builder;
  }

  /** Decode, dedupe, rules.  Leaves out: contracts, conflicting bodies, persons, links, origins, dead letters. */
  private static final class Ingest implements Processor<byte[], byte[], byte[], byte[]> {
    private final ObjectReader json = new ObjectMapper().reader();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> seen;

    @Override
    public void init(ProcessorContext<byte[], byte[]> given) {
      context = given;
      seen = given.getStateStore("seen");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      if (BEGUN.get() == 0) {
        BEGUN.compareAndSet(0, System.nanoTime());
      }
      try {
        JsonNode event = json.readTree(record.value());
        byte[] id = HexFormat.of().parseHex(event.get("id").textValue().replace("-", ""));
        if (seen.get(id) == null) {
          seen.put(id, ByteBuffer.allocate(8).putLong(record.timestamp()).array());
          JsonNode data = event.get("data");
          double amount = data.get("amount").doubleValue();
          String plan = data.get("plan").textValue();
          String rule =
              switch (event.get("type").textValue()) {
                case "login" -> "login";
                case "ticket_opened" -> "ticket";
                case "invoice_paid" -> amount > 10.0 ? "paid" : null;
                case "feature_used" -> plan.equals("free") ? null : "used";
                default -> null;
              };
          if (rule != null) {
            long time = Instant.parse(event.get("time").textValue()).toEpochMilli();
            byte[] value =
                signal(time, amount, rule.getBytes(), plan.getBytes(), data.get("country").textValue().getBytes());
            byte[] company = data.get("company").textValue().getBytes(StandardCharsets.UTF_8);
            context.forward(record.withKey(company).withValue(value));
            SIGNALS.increment();
          }
        }
      } catch (java.io.IOException error) {
        throw new java.io.UncheckedIOException(error);
      }
      READ.increment();
    }
  }

  private static byte[] signal(long time, double amount, byte[] rule, byte[] plan, byte[] country) {
    return ByteBuffer.allocate(19 + rule.length + plan.length + country.length)
        .putLong(time)
        .putDouble(amount)
        .put((byte) rule.length)
        .put(rule)
        .put((byte) plan.length)
        .put(plan)
        .put((byte) country.length)
        .put(country)
        .array();
  }

  /** Three cells a signal: count and sum by (company, rule, pane), then by plan, then by plan and country. */
  private static final class Measure implements Processor<byte[], byte[], Void, Void> {
    private KeyValueStore<Bytes, byte[]> cells;

    @Override
    public void init(ProcessorContext<Void, Void> given) {
      cells = given.getStateStore("cells");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      ByteBuffer signal = ByteBuffer.wrap(record.value());
      long time = signal.getLong();
      double amount = signal.getDouble();
      byte[] rule = part(signal);
      byte[] plan = part(signal);
      byte[] country = part(signal);
      byte[] company = record.key();
      int head = 6 + company.length + rule.length;
      byte[] total =
          ByteBuffer.allocate(head)
              .put((byte) company.length)
              .put(company)
              .put((byte) rule.length)
              .put(rule)
              .putInt((int) (time / PANE_MS))
              .array();
      byte[] byPlan = Arrays.copyOf(total, head + 1 + plan.length);
      byPlan[head] = (byte) plan.length;
      System.arraycopy(plan, 0, byPlan, head + 1, plan.length);
      byte[] byBoth = Arrays.copyOf(byPlan, byPlan.length + 1 + country.length);
      byBoth[byPlan.length] = (byte) country.length;
      System.arraycopy(country, 0, byBoth, byPlan.length + 1, country.length);
      add(total, amount);
      add(byPlan, amount);
      add(byBoth, amount);
      MEASURED.increment();
    }

    private void add(byte[] key, double amount) {
      Bytes at = Bytes.wrap(key);
      byte[] held = cells.get(at);
      ByteBuffer now = ByteBuffer.allocate(16);
      if (held == null) {
        now.putLong(1).putDouble(amount);
      } else {
        ByteBuffer before = ByteBuffer.wrap(held);
        now.putLong(before.getLong() + 1).putDouble(before.getDouble() + amount);
      }
      cells.put(at, now.array());
    }
  }

  private static byte[] part(ByteBuffer from) {
    byte[] out = new byte[from.get()];
    from.get(out);
    return out;
  }

  /** A line a cell: rule, company, pane, plan, country (empty: all), count, sum. */
  private static void dump(KafkaStreams streams, Path to) throws Exception {
    var store = streams.store(StoreQueryParameters.fromNameAndType("cells", QueryableStoreTypes.<Bytes, byte[]>keyValueStore()));
    try (KeyValueIterator<Bytes, byte[]> rows = store.all();
        PrintStream out = new PrintStream(to.toFile(), StandardCharsets.UTF_8)) {
      while (rows.hasNext()) {
        var row = rows.next();
        ByteBuffer key = ByteBuffer.wrap(row.key.get());
        String company = new String(part(key), StandardCharsets.UTF_8);
        String rule = new String(part(key), StandardCharsets.UTF_8);
        int pane = key.getInt();
        List<String> more = new ArrayList<>(List.of("", ""));
        for (int i = 0; key.hasRemaining(); i++) {
          more.set(i, new String(part(key), StandardCharsets.UTF_8));
        }
        ByteBuffer value = ByteBuffer.wrap(row.value);
        String line = rule + "\t" + company + "\t" + pane + "\t" + more.get(0) + "\t" + more.get(1);
        out.println(line + "\t" + value.getLong() + "\t" + value.getDouble());
      }
    }
  }

  /** Start with an empty folder over a changelog that is there, and say how long the restore of all records took. */
  private static void restore(Map<String, String> given) throws Exception {
    long records = Long.parseLong(given.get("records"));
    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(
        Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("cells"), Serdes.Bytes(), Serdes.ByteArray()));
    builder.<byte[], byte[]>stream(given.get("raw")).<Void, Void>process(Measure::new, "cells");
    KafkaStreams streams = new KafkaStreams(builder.build(), settings(given));
    streams.setUncaughtExceptionHandler(StreamsJob::fail);
    streams.setGlobalStateRestoreListener(
        new StateRestoreListener() {
          @Override
          public void onRestoreStart(TopicPartition partition, String store, long start, long end) {
            BEGUN.compareAndSet(0, System.nanoTime());
          }

          @Override
          public void onBatchRestored(TopicPartition partition, String store, long end, long count) {
            READ.add(count);
          }

          @Override
          public void onRestoreEnd(TopicPartition partition, String store, long count) {}
        });
    streams.start();
    while (READ.sum() < records || streams.state() != KafkaStreams.State.RUNNING) {
      Thread.sleep(5);
    }
    report(", \"done\": true");
    Runtime.getRuntime().halt(0);
  }

  private static void report(String more) {
    long begun = BEGUN.get();
    double seconds = begun == 0 ? 0 : (System.nanoTime() - begun) / 1e9;
    System.out.printf(
        "{\"at_s\": %.3f, \"read\": %d, \"signals\": %d, \"measured\": %d%s}%n",
        seconds, READ.sum(), SIGNALS.sum(), MEASURED.sum(), more);
  }

  private static org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse fail(
      Throwable error) {
    error.printStackTrace();
    Runtime.getRuntime().halt(1);
    return null;
  }

  private StreamsJob() {}
}
