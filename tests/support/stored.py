"""What of the answered predictions is in Postgres."""

from collections.abc import Sequence

import psycopg

from tests.support.stack import eventually


def rows_of(dsn: str, model: str) -> tuple[int, int, int]:
    """Stored predictions of the model, how many different ids they have, and what the hourly windows have counted."""
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*), count(DISTINCT prediction_id) FROM predictions WHERE model = %s"
        (rows, different) = connection.execute(query, (model,)).fetchone() or (0, 0)
        windows = "SELECT coalesce(sum(requests), 0)::bigint FROM windows WHERE model = %s"
        (counted,) = connection.execute(windows, (model,)).fetchone() or (0,)
    return int(rows), int(different), int(counted)


def missing(dsn: str, ids: Sequence[str]) -> int:
    """How many of the answered predictions are not stored as such."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TEMP TABLE asked (id uuid) ON COMMIT DROP")
        with connection.cursor().copy("COPY asked FROM STDIN") as copy:
            for prediction_id in ids:
                copy.write_row((prediction_id,))
        connection.execute("ANALYZE asked")
        query = (
            "SELECT count(*) FROM asked WHERE NOT EXISTS "
            "(SELECT FROM predictions WHERE prediction_id = asked.id AND status = 'ok')"
        )
        (count,) = connection.execute(query).fetchone() or (0,)
    return int(count)


def all_there(dsn: str, model: str, acknowledged: Sequence[str]) -> None:
    """Wait until every acknowledged prediction is stored; none is stored twice, and windows count each once."""
    assert len(set(acknowledged)) == len(acknowledged)
    some = acknowledged[:: max(1, len(acknowledged) // 500)]
    eventually(lambda: not missing(dsn, some), "a sample of the acknowledged predictions", every=1)
    eventually(lambda: not missing(dsn, acknowledged), "every acknowledged prediction in Postgres", every=2)

    def once() -> bool:
        rows, different, counted = rows_of(dsn, model)
        return rows == different == counted

    eventually(once, "each stored once, and counted once", every=2)
