"""gRPC's own retries through the Python client, against a real broker: a read that was UNAVAILABLE before its first row is
sent again, and nothing else is. Run by the Rust integration tests, which end the backends of whatever sleeps:
`retries.py HOST:PORT DATABASE`.
"""

from __future__ import annotations

import sys
from typing import Callable

import grpc
import tidegate

# It hangs while the gate says that it is to be ended so many times more; the tests count down, and end what hangs.
HANG = "pg_sleep(CASE WHEN (SELECT ends FROM gate) > 0 THEN 600 ELSE 0 END)"
# A read whose connection is lost is sent once more by the broker itself.
ENDS_OF_A_READ = 2
ENDS_OF_A_WRITE = 1


def connect(retry_reads: bool = True) -> tidegate.Client:
    return tidegate.connect(sys.argv[1], database=sys.argv[2], timeout=60, retry_reads=retry_reads)


def fails(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except tidegate.Error as error:
        # A backend that is told to end says so (57P01), unless its socket is full by then.
        assert error.reason in ("POSTGRES_ERROR", "CONNECTION_LOST"), (what, error)
        assert (error.code, error.outcome) == (grpc.StatusCode.UNAVAILABLE, tidegate.Outcome.ROLLED_BACK), (what, error)
    else:
        raise AssertionError(f"{what} was repeated")


def close_gate(client: tidegate.Client, ends: int) -> None:
    client.write("UPDATE gate SET ends = $1", [ends])


def rows_then_end(client: tidegate.Client) -> None:
    with client.stream("SELECT repeat('x', 1000), generate_series(1, 1000000000)") as stream:
        batches = stream.batches()
        next(batches)
        client.write("UPDATE gate SET has_rows = true")
        for _ in batches:
            pass


def main() -> None:
    client = connect()
    close_gate(client, ENDS_OF_A_READ)
    assert client.read(f"SELECT 7 FROM {HANG}").one() == (7,)  # ended, and sent again

    close_gate(client, ENDS_OF_A_READ)
    without = connect(retry_reads=False)
    fails("a read without retries", lambda: without.read(f"SELECT 7 FROM {HANG}"))

    close_gate(client, ENDS_OF_A_WRITE)
    statements = ["INSERT INTO marks VALUES (1)", f"INSERT INTO marks SELECT 2 FROM {HANG}"]
    fails("a write", lambda: client.write(statements))
    assert client.read("SELECT count(*) FROM marks").one() == (0,)

    fails("a read with rows", lambda: rows_then_end(client))
    print("all as promised")


if __name__ == "__main__":
    main()
