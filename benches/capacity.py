#!/usr/bin/env python3
"""A calculation, not a measurement: from measured costs to machines, memory and latency at 100 million and
1,000 million references.

    make bench-capacity                                  # or ARGS="--rows 3e8 --cores 32 --memory 256"

What went in is printed first, with where it was measured (benches/README.md); each figure can be replaced by an
option. Between and beyond the two measured sizes the cost of an index search is a power of the rows. Every search
asks every shard, at the same time.
"""

from __future__ import annotations

import argparse
import math

# name: value, what it is, where it comes from
MEASURED = {
    "search_1m": (0.165, "ms of one core for an index search at recall@10 0.95, 1,000,000 × 256",
                  "two clients, 12,102/s"),
    "search_10m": (2.28, "the same at 10,000,000 × 256 (the same clusters, more crowded)", "two clients, 879/s"),
    "index_bytes": (287, "bytes of index a row", "10,000,000 × 256"),
    "descriptor_bytes": (1032, "bytes of a descriptor (halfvec: 520)", "vector(256)"),
    "sketch_bytes": (7331, "bytes of a sketch in the mean (0: sets with verify => false)", "make eval"),
    "row_bytes": (60, "bytes of header and key a row", "bigint key"),
    "embed": (25.0, "ms of one core to decode and describe an upload of 1 MP",
              "make bench-service, on a loaded machine"),
    "verify": (26.0, "ms of one core to compare 50 sketches (0: verify => 'off')", "make eval ARGS=--nearest"),
    "ask": (0.35, "ms of the coordinator's core for each shard asked, by a connection of its own",
            "processor time of a coordinator that asks two, docs/sharding.md; half of it"),
    "network": (0.5, "ms to a shard and back", "an assumption: one data centre"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="*", default=[1e8, 1e9], help="references in all")
    parser.add_argument("--shard-rows", type=float, nargs="*", default=[1e7, 2.5e7, 5e7], help="references a shard")
    parser.add_argument("--cores", type=int, default=16, help="cores a machine")
    parser.add_argument("--memory", type=float, default=128, help="GiB a machine")
    parser.add_argument("--busy", type=float, default=0.6, help="share of a machine's cores that searches may take")
    for name, (value, what, source) in MEASURED.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value, help=f"{what} ({source})")
    a = parser.parse_args()
    if min(*a.rows, *a.shard_rows, a.cores, a.memory) <= 0 or not 0 < a.busy <= 1:
        parser.error("rows, cores and memory are positive, busy lies between 0 and 1")

    print("taken as given:")
    for name, (_, what, source) in MEASURED.items():
        print(f"  {getattr(a, name):>8g}  {what} ({source})")
    exponent = math.log10(a.search_10m / a.search_1m)
    print(f"a search grows with the rows to the power of {exponent:.2f}\n")

    heading = (
        "references",
        "a shard",
        "shards",
        "index GiB",
        "table GiB",
        "machines",
        "ms a query",
        "queries/s",
        "coordinator cores",
    )
    print("  ".join(f"{title:>{max(len(title), 9)}}" for title in heading))
    gib = 1024**3
    for rows in a.rows:
        for shard_rows in a.shard_rows:
            shards = math.ceil(rows / shard_rows)
            of_one = rows / shards
            search = a.search_1m * (of_one / 1e6) ** exponent
            index = of_one * a.index_bytes / gib
            table = of_one * (a.descriptor_bytes + a.sketch_bytes + a.row_bytes) / gib
            # Every index must lie in memory, with as much again for the pages of the table that searches touch.
            together = max(1, int(a.memory / (2 * index)))
            machines = math.ceil(shards / together)
            # A query costs each machine a search in each of its shards, on cores of their own while there are some.
            on_one = math.ceil(shards / machines)
            of_machine = on_one * search
            per_second = a.busy * a.cores * 1e3 / of_machine
            own = a.embed + a.verify + a.ask * shards
            latency = a.embed + a.verify + a.ask * shards + a.network + search * math.ceil(on_one / a.cores)
            values = (
                f"{rows:.3g}",
                f"{of_one:.3g}",
                shards,
                f"{index:.1f}",
                f"{table:.0f}",
                machines,
                f"{latency:.0f}",
                f"{per_second:.0f}",
                f"{per_second * own / 1e3:.0f}",
            )
            print("  ".join(f"{value:>{max(len(title), 9)}}" for title, value in zip(heading, values, strict=True)))
    print(
        "\nindex, table: of one shard. machines: such that the indexes take half of their memory. ms a query: alone, "
        "an upload of 1 MP. queries/s: all machines"
        f"\ntogether, {a.busy:.0%} of their cores; every query asks every shard. coordinator cores: to serve so many "
        "(replicas of the coordinator share that)."
        "\nNot in it: recall below 0.95 of crowded data, writes, re-embedding (the network's time for every image), "
        "failures."
    )


if __name__ == "__main__":
    main()
