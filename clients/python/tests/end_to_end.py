"""Two Python clients that share a session, against a real broker whose replicas apply late: what one has written, the
other reads at once. Run by the Rust integration tests, which have a broker: `end_to_end.py HOST:PORT DATABASE CHECKS`.
"""

from __future__ import annotations

import sys
from concurrent import futures
from dataclasses import dataclass

import grpc
import tidegate
from tidegate.v1 import context_pb2

THREADS = 8
# So many threads share one client.
SHARERS = 64
# Each so many writes, reads go on until a replica answers: the moment at which a wrong replica would be chosen.
FOLLOWED = 20


@dataclass
class Tally:
    checks: int = 0
    on_replicas: int = 0
    violations: int = 0

    def read(self, reader: tidegate.Client, row: int, expected: int) -> bool:
        """Reads one number back; says whether a replica answered."""
        result = reader.read("SELECT n FROM notes WHERE id = $1", [row])
        (n,) = result.one()
        on_replica = result.receipt.role == context_pb2.HOST_ROLE_REPLICA
        self.checks += 1
        self.on_replicas += on_replica
        self.violations += n != expected
        return on_replica


def check_session(target: str, database: str, row: int, writes: int) -> Tally:
    """Writes through one client and reads through another that knows the session's name alone."""
    tally = Tally()
    writer, reader = (
        tidegate.connect(target, database=database, session_id=f"python-{row}", timeout=30, remember_positions=False)
        for _ in range(2)
    )
    writer.write("INSERT INTO notes VALUES ($1, 0)", [row])
    for n in range(1, writes + 1):
        writer.write("UPDATE notes SET n = $2 WHERE id = $1", [row, n])
        on_replica = tally.read(reader, row, n)
        reads = 1
        while n % FOLLOWED == 0 and not on_replica and reads < 10_000:
            on_replica = tally.read(reader, row, n)
            reads += 1
    return tally


def check_shared(target: str, database: str) -> Tally:
    """Many threads write and read through one client without a session, which carries all that they wrote."""
    client = tidegate.connect(target, database=database, timeout=30)
    client.write("CREATE TABLE shared (id int, n int)")

    def write_and_read(row: int) -> Tally:
        tally = Tally()
        for n in range(1, 4):
            client.write("INSERT INTO shared VALUES ($1, $2)", [row, n])
            (seen,) = client.read("SELECT count(*) FROM shared WHERE id = $1", [row]).one()
            tally.checks += 1
            tally.violations += seen != n
        return tally

    with futures.ThreadPoolExecutor(SHARERS) as pool:
        tallies = list(pool.map(write_and_read, range(SHARERS)))
    (seen,) = client.read("SELECT count(*) FROM shared").one()
    assert len(client.positions) <= 3, client.positions
    violations = sum(it.violations for it in tallies) + (seen != 3 * SHARERS)
    return Tally(sum(it.checks for it in tallies), 0, violations)


def check_errors(target: str, database: str) -> None:
    """A failure says its reason, and what became of the work."""
    client = tidegate.connect(target, database=database, timeout=30)
    try:
        client.write("INSERT INTO notes VALUES (1, 0)")
    except tidegate.Error as error:
        seen = (error.code, error.reason, error.sqlstate, error.outcome)
        expected = (grpc.StatusCode.ALREADY_EXISTS, "POSTGRES_ERROR", "23505", tidegate.Outcome.ROLLED_BACK)
        assert seen == expected, seen
    else:
        raise AssertionError("a duplicate key was accepted")


def main() -> None:
    target, database, checks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tidegate.connect(target, database=database, timeout=30).write("CREATE TABLE notes (id int PRIMARY KEY, n int)")
    with futures.ThreadPoolExecutor(THREADS) as pool:
        ended = [
            pool.submit(check_session, target, database, row, -(-checks // THREADS)) for row in range(1, THREADS + 1)
        ]
        tallies = [session.result() for session in ended]
    tallies.append(check_shared(target, database))
    check_errors(target, database)
    done, on_replicas = sum(it.checks for it in tallies), sum(it.on_replicas for it in tallies)
    violations = sum(it.violations for it in tallies)
    print(f"read-your-writes: {done} checks, {on_replicas} on replicas, {violations} violations")
    if violations or done < checks or not on_replicas:
        sys.exit("not as promised")


if __name__ == "__main__":
    main()
