"""Chunks in the PostgreSQL ledger: room of a counter that one process leases, see `chunks`.

A chunk is a counter of its own whose scope names its owner, `#7:route`. It begins with less than
nothing reserved, minus its size, and its limit is 0; the main counter has the size reserved. So the
two added up, column by column, are always what the main counter would be without chunks. Rows know
nothing of it: they are settled in the chunk if there is one then, else in the main counter.
"""

from __future__ import annotations

from samplewise.proxy.ledger.postgres_leases import FENCED

__all__ = ["DENIED", "GIVE_BACK", "WORK_IN_CHUNKS", "chunk_functions"]

DENIED = "SW002"  # the SQLSTATE of a batch that does not fit into the chunks there are
WORK_IN_CHUNKS = "SELECT samplewise.work_in_chunks($1, $2, $3, $4, $5, $6, $7, $8)"
GIVE_BACK = "SELECT samplewise.give_back(ARRAY[$1::bigint], NULL)"

_TABLE = """
CREATE TABLE samplewise.chunks (
    owner_epoch BIGINT NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    "window" TEXT COLLATE "C" NOT NULL,
    window_start BIGINT NOT NULL,
    PRIMARY KEY (owner_epoch, scope, name, "window", window_start)
)
"""

# The scope under which a counter is found: that of the writer's chunk where `leased` has its key.
_HOME = """
CREATE FUNCTION samplewise.home(scope TEXT, name TEXT, named_window TEXT, start BIGINT,
    writer BIGINT, leased JSONB) RETURNS TEXT LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN leased ? jsonb_build_array(scope, name, named_window, start)::text
        THEN '#' || writer || ':' || scope ELSE scope END
$$
"""

# Adds chunks to their main counters and deletes them: all of these owners, or those of the
# counters in `given`, [[scope, name, window], ...].
_GIVE_BACK = """
CREATE FUNCTION samplewise.give_back(owners BIGINT[], given JSONB) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM samplewise.counters AS c JOIN samplewise.chunks AS k
        ON c.scope = k.scope AND c.name = k.name AND c."window" = k."window"
        AND c.window_start = k.window_start
    WHERE k.owner_epoch = ANY (owners) AND (given IS NULL
        OR given @> jsonb_build_array(jsonb_build_array(k.scope, k.name, k."window")))
    ORDER BY c.scope, c.name, c."window", c.window_start FOR UPDATE OF c;
    WITH gone AS (
        DELETE FROM samplewise.chunks AS k
        WHERE k.owner_epoch = ANY (owners) AND (given IS NULL
            OR given @> jsonb_build_array(jsonb_build_array(k.scope, k.name, k."window")))
        RETURNING k.*
    ), ended AS (
        DELETE FROM samplewise.counters AS c USING gone AS g
        WHERE c.scope = '#' || g.owner_epoch || ':' || g.scope AND c.name = g.name
            AND c."window" = g."window" AND c.window_start = g.window_start
        RETURNING g.scope AS main, c.*
    ), sums AS (
        SELECT main, name, "window", window_start, sum(spent_nano) AS spent_nano,
            sum(spent_tokens) AS spent_tokens, sum(spent_samples) AS spent_samples,
            sum(reserved_nano) AS reserved_nano, sum(reserved_tokens) AS reserved_tokens,
            sum(reserved_samples) AS reserved_samples, sum(overrun_nano) AS overrun_nano
        FROM ended GROUP BY main, name, "window", window_start
    )
    UPDATE samplewise.counters AS c SET
        spent_nano = c.spent_nano + s.spent_nano, spent_tokens = c.spent_tokens + s.spent_tokens,
        spent_samples = c.spent_samples + s.spent_samples,
        reserved_nano = c.reserved_nano + s.reserved_nano,
        reserved_tokens = c.reserved_tokens + s.reserved_tokens,
        reserved_samples = c.reserved_samples + s.reserved_samples,
        overrun_nano = c.overrun_nano + s.overrun_nano
    FROM sums AS s WHERE c.scope = s.main AND c.name = s.name AND c."window" = s."window"
        AND c.window_start = s.window_start;
END
$$
"""

# As `lock_all`, but of counters only those that count in no chunk, and those whose chunk is given
# back: all in one order, so that two batches never wait for each other.
_LOCK = """
CREATE FUNCTION samplewise.lock_main(writer BIGINT, ids TEXT[], accounts JSONB, starts JSONB,
    leased JSONB, back JSONB) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    keys JSONB;
BEGIN
    PERFORM 1 FROM samplewise.reservations WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
    SELECT coalesce(jsonb_agg(k), '[]') INTO keys FROM (
        SELECT jsonb_build_array(a -> 0, a -> 1, a -> 2, starts -> (a ->> 2))
        FROM jsonb_array_elements(accounts) AS a
        UNION
        SELECT a FROM samplewise.reservations AS r, jsonb_array_elements(r.accounts) AS a
        WHERE r.id = ANY (ids) AND r.state IN ('held', 'dispatched')
        UNION
        SELECT jsonb_build_array(scope, name, "window", window_start) FROM samplewise.chunks
        WHERE owner_epoch = writer AND (back IS NULL
            OR back @> jsonb_build_array(jsonb_build_array(scope, name, "window")))) AS found (k)
    WHERE NOT leased ? k::text;
    INSERT INTO samplewise.counters (scope, name, "window", window_start)
    SELECT DISTINCT k ->> 0, k ->> 1, k ->> 2, (k ->> 3)::bigint
    FROM jsonb_array_elements(keys) AS k ORDER BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM samplewise.counters AS c JOIN jsonb_array_elements(keys) AS k
        ON c.scope = k ->> 0 AND c.name = k ->> 1 AND c."window" = k ->> 2
        AND c.window_start = (k ->> 3)::bigint
    ORDER BY c.scope, c.name, c."window", c.window_start FOR UPDATE OF c;
END
$$
"""

# wish: [scope, name, window, nano, tokens, samples, and the limit of each or null]. At most an
# eighth of the room, so that chunks are ever smaller near the limit; none of less than a 16th of
# what is wished for. The counters must be locked.
_TAKE = """
CREATE FUNCTION samplewise.take_chunks(writer BIGINT, wishes JSONB, starts JSONB) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    wish RECORD;
BEGIN
    FOR wish IN
        SELECT c.scope, c.name, c."window", c.window_start,
            least((w ->> 3)::bigint, greatest(0,
                (coalesce((w ->> 6)::numeric, 9e18) - c.spent_nano - c.reserved_nano) / 8)
            )::bigint AS nano,
            least((w ->> 4)::bigint, greatest(0,
                (coalesce((w ->> 7)::numeric, 9e18) - c.spent_tokens - c.reserved_tokens) / 8)
            )::bigint AS tokens,
            least((w ->> 5)::bigint, greatest(0,
                (coalesce((w ->> 8)::numeric, 9e18) - c.spent_samples - c.reserved_samples) / 8)
            )::bigint AS samples,
            (w ->> 3)::bigint AS most_nano, (w ->> 4)::bigint AS most_tokens,
            (w ->> 5)::bigint AS most_samples
        FROM jsonb_array_elements(wishes) AS w JOIN samplewise.counters AS c
            ON c.scope = w ->> 0 AND c.name = w ->> 1 AND c."window" = w ->> 2
            AND c.window_start = (starts ->> (w ->> 2))::bigint
    LOOP
        CONTINUE WHEN wish.nano < wish.most_nano / 16 OR wish.tokens < wish.most_tokens / 16
            OR wish.samples < wish.most_samples / 16;
        INSERT INTO samplewise.chunks
        VALUES (writer, wish.scope, wish.name, wish."window", wish.window_start)
        ON CONFLICT DO NOTHING;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO samplewise.counters (scope, name, "window", window_start, reserved_nano,
            reserved_tokens, reserved_samples)
        VALUES ('#' || writer || ':' || wish.scope, wish.name, wish."window", wish.window_start,
            -wish.nano, -wish.tokens, -wish.samples);
        UPDATE samplewise.counters AS c SET reserved_nano = c.reserved_nano + wish.nano,
            reserved_tokens = c.reserved_tokens + wish.tokens,
            reserved_samples = c.reserved_samples + wish.samples
        WHERE c.scope = wish.scope AND c.name = wish.name AND c."window" = wish."window"
            AND c.window_start = wish.window_start;
    END LOOP;
END
$$
"""

# What a writer has left in its chunks: [[scope, name, window, start, nano, tokens, samples], ...].
_ROOMS = """
CREATE FUNCTION samplewise.rooms(writer BIGINT) RETURNS JSONB LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(k.scope, k.name, k."window", k.window_start,
        -c.spent_nano - c.reserved_nano, -c.spent_tokens - c.reserved_tokens,
        -c.spent_samples - c.reserved_samples)), '[]')
    FROM samplewise.chunks AS k JOIN samplewise.counters AS c
        ON c.scope = '#' || k.owner_epoch || ':' || k.scope AND c.name = k.name
        AND c."window" = k."window" AND c.window_start = k.window_start
    WHERE k.owner_epoch = writer
$$
"""

# As `work`; the chunks in `back`, or all if that is null, are given back before, those in `wishes`
# taken after. Answers one value more, the rooms.
_WORK = f"""
CREATE FUNCTION samplewise.work_in_chunks(writer BIGINT, number BIGINT, clock BIGINT, ids TEXT[],
    accounts JSONB, ops JSONB, back JSONB, wishes JSONB) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT;
    starts JSONB;
    leased JSONB;
    left_over JSONB;
    op JSONB;
    answers JSONB := '[]';
BEGIN
    PERFORM 1 FROM samplewise.writers WHERE epoch = writer AND batch < number FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'batch % of writer % came too late', number, writer
            USING ERRCODE = '{FENCED}';
    END IF;
    now_ms := coalesce(clock, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    starts := samplewise.window_starts(now_ms);
    SELECT coalesce(jsonb_object_agg(
        jsonb_build_array(scope, name, "window", window_start)::text, true), '{{}}') INTO leased
    FROM samplewise.chunks WHERE owner_epoch = writer
        AND NOT back @> jsonb_build_array(jsonb_build_array(scope, name, "window"));
    PERFORM samplewise.lock_main(writer, ids, accounts, starts, leased, back);
    PERFORM samplewise.give_back(ARRAY[writer], back);
    FOR op IN SELECT v FROM jsonb_array_elements(ops) WITH ORDINALITY AS o (v, n) ORDER BY n LOOP
        answers := answers || jsonb_build_array(CASE op ->> 0
            WHEN 'reserve' THEN samplewise.reserve_leased(op, starts, now_ms, writer, leased)
            WHEN 'dispatch' THEN samplewise.dispatch(op, now_ms, writer)
            ELSE samplewise.settle_leased(op, now_ms, writer, leased) END);
    END LOOP;
    PERFORM samplewise.take_chunks(writer, wishes, starts);
    left_over := samplewise.rooms(writer);
    -- An upstream billed more than was held, and more than the chunk has.
    IF jsonb_path_exists(left_over, '$[*][4 to 6] ? (@ < 0)') THEN
        RAISE EXCEPTION 'a chunk of writer % is used up', writer USING ERRCODE = '{DENIED}';
    END IF;
    answers := answers || jsonb_build_array(left_over);
    UPDATE samplewise.writers SET batch = number, reply = answers WHERE epoch = writer;
    RETURN answers;
END
$$
"""

# As before, with what is in chunks.
_BALANCES = """
CREATE OR REPLACE FUNCTION samplewise.balances(clock BIGINT, accounts JSONB) RETURNS JSONB
LANGUAGE sql STABLE AS $$
    WITH windows AS (SELECT samplewise.window_starts(
        coalesce(clock, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)) AS starts),
    asked AS (
        SELECT a.number, a.v ->> 0 AS scope, a.v ->> 1 AS name, a.v ->> 2 AS named_window,
            (starts ->> (a.v ->> 2))::bigint AS start
        FROM windows, jsonb_array_elements(accounts) WITH ORDINALITY AS a (v, number))
    SELECT coalesce(jsonb_agg(jsonb_build_array(q.scope, q.name, q.named_window, q.start,
        s.nano, s.tokens, s.samples, s.held_nano, s.held_tokens, s.held_samples, s.overrun)
        ORDER BY q.number), '[]')
    FROM asked AS q, LATERAL (
        SELECT coalesce(sum(spent_nano), 0) AS nano, coalesce(sum(spent_tokens), 0) AS tokens,
            coalesce(sum(spent_samples), 0) AS samples,
            coalesce(sum(reserved_nano), 0) AS held_nano,
            coalesce(sum(reserved_tokens), 0) AS held_tokens,
            coalesce(sum(reserved_samples), 0) AS held_samples,
            coalesce(sum(overrun_nano), 0) AS overrun
        FROM samplewise.counters AS c
        WHERE c.name = q.name AND c."window" = q.named_window AND c.window_start = q.start
            AND c.scope IN (SELECT q.scope UNION ALL
                SELECT '#' || k.owner_epoch || ':' || k.scope FROM samplewise.chunks AS k
                WHERE k.scope = q.scope AND k.name = q.name AND k."window" = q.named_window
                    AND k.window_start = q.start)) AS s
$$
"""


def _changed(text: str, *changes: tuple[str, str]) -> str:
    """Return a function's text with each change made once; one that does not fit raises at import.

    The texts are those of released migrations, which never change: so neither does what fits.
    """
    for before, after in changes:
        if text.count(before) != 1:
            raise ValueError(f"{before!r} is there {text.count(before)} times")
        text = text.replace(before, after)
    return text


def _in_chunks(reserve: str) -> str:
    unlimited = "coalesce((a.v ->> {})::numeric, 9223372036854775807)"
    limits = [
        (
            unlimited.format(number),
            f"CASE WHEN c.scope <> a.v ->> 0 THEN 0 ELSE {unlimited.format(number)} END",
        )
        for number in (3, 4, 5)
    ]
    asked = "a.v ->> 0, a.v ->> 1, a.v ->> 2, (starts ->> (a.v ->> 2))::bigint"
    found = "n.k ->> 0, n.k ->> 1, n.k ->> 2, (n.k ->> 3)::bigint"
    return _changed(
        reserve,
        ("samplewise.reserve(", "samplewise.reserve_leased("),
        ("writer BIGINT)", "writer BIGINT, leased JSONB)"),
        ("SELECT a.number,\n", "SELECT a.number, c.scope <> a.v ->> 0 AS leased,\n"),
        *limits,
        ("c.scope = a.v ->> 0", f"c.scope = samplewise.home({asked}, writer, leased)"),
        (
            "        IF fits < granted THEN\n",
            "        IF fits < granted AND claim.leased THEN\n"
            "            RAISE EXCEPTION 'a chunk of writer % has no room', writer\n"
            f"                USING ERRCODE = '{DENIED}';\n"
            "        ELSIF fits < granted THEN\n",
        ),
        ("c.scope = n.k ->> 0", f"c.scope = samplewise.home({found}, writer, leased)"),
    )


def _settled_in_chunks(settle: str) -> str:
    posted = 'p.scope, p.name, p."window", p.start'
    return _changed(
        settle,
        ("samplewise.settle(", "samplewise.settle_leased("),
        ("now_ms BIGINT)", "now_ms BIGINT, writer BIGINT, leased JSONB)"),
        ("c.scope = p.scope", f"c.scope = samplewise.home({posted}, writer, leased)"),
    )


def _taking_over(take: str) -> str:
    return _changed(
        take,
        ("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
        (
            "    SELECT coalesce(jsonb_agg(jsonb_build_array(id, call_id",
            "    PERFORM samplewise.give_back(ARRAY(\n"
            "        SELECT DISTINCT k.owner_epoch FROM samplewise.chunks AS k WHERE NOT EXISTS (\n"
            "            SELECT 1 FROM samplewise.writers AS w WHERE w.epoch = k.owner_epoch)),"
            " NULL);\n"
            "    SELECT coalesce(jsonb_agg(jsonb_build_array(id, call_id",
        ),
    )


def chunk_functions(reserve: str, settle: str, take_over: str) -> tuple[str, ...]:
    """Return the statements that add chunks to a schema with these functions."""
    made = (_TABLE, _HOME, _GIVE_BACK, _LOCK, _TAKE, _ROOMS, _WORK, _BALANCES)
    return (*made, _in_chunks(reserve), _settled_in_chunks(settle), _taking_over(take_over))
