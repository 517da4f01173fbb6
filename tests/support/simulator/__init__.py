"""The simulator: whole histories of the line over the real engine, without a broker, a disk or a clock; one seed, one history.

    history(seed) -> World -> processes (real legs, runtime, holdings, checkpoints, restores)
                       |_ logs (kafka.py)  wires (wires.py)  disks (disk.py)  a loop a process (loop.py)  group (group.py)

What is simulated is what surrounds the engine: the broker's logs and their cleaner, bytes on their way, state folders,
the consumer group, time.  Everything that decides is the engine's own code, so a rule left out of it shows here.
"""
