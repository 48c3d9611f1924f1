"""Takes in the rows of one statement, by the broker's stub or by psycopg, and prints how long that took, as JSON.

    rows.py broker http://127.0.0.1:7432 SQL
    rows.py psycopg postgres://… SQL

Both connect before the clock starts, and turn each row into a tuple of Python's own types.
"""

import json
import sys
import time


def broker(url, sql):
    import tidegate

    client = tidegate.connect(url.split("//")[1], timeout=60)
    client.read("SELECT 1")
    started = time.perf_counter()
    count = total = 0
    with client.stream(sql) as stream:
        for rows in stream.batches():
            count += len(rows)
            for row in rows:
                total += row[0]
    return count, total, time.perf_counter() - started


def psycopg(url, sql):
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1").fetchall()
        started = time.perf_counter()
        count = total = 0
        for row in connection.execute(sql):
            count += 1
            total += row[0]
        return count, total, time.perf_counter() - started


reader, address, statement = sys.argv[1:]
rows, total, seconds = {"broker": broker, "psycopg": psycopg}[reader](address, statement)
print(json.dumps({"rows": rows, "sum": total, "seconds": seconds}))
