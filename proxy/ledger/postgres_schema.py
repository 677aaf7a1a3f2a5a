"""The tables and functions of the PostgreSQL ledger, in a schema of its own: `samplewise`.

A batch of operations is one call of `work`, so that the counters, which everybody wants, are locked
for one commit and not for several trips over the network. Every transaction locks in one order:
its writer, rows by id, counters by key.
"""

from __future__ import annotations

from samplewise.proxy.ledger.postgres_chunks import chunk_functions
from samplewise.proxy.ledger.postgres_claims import CLAIMS
from samplewise.proxy.ledger.postgres_leases import FENCED, LEASES, TAKING_OVER
from samplewise.proxy.records.tables import POSTGRES as RECORDS

__all__ = ["MIGRATIONS"]

_TABLES = """
CREATE TABLE samplewise.reservations (
    id TEXT COLLATE "C" PRIMARY KEY,
    request_id TEXT NOT NULL,
    call_id TEXT NOT NULL,
    sample_index BIGINT NOT NULL,
    purpose TEXT NOT NULL,
    is_sample SMALLINT NOT NULL CHECK (is_sample IN (0, 1)),
    route TEXT NOT NULL,
    "key" TEXT NOT NULL,
    backend TEXT NOT NULL,
    model TEXT NOT NULL,
    accounts JSONB NOT NULL, -- [[scope, name, window, window_start], ...]: settled there
    nano_held BIGINT NOT NULL CHECK (nano_held >= 0),
    tokens_held BIGINT NOT NULL CHECK (tokens_held >= 0),
    state TEXT NOT NULL CHECK (state IN
        ('held', 'dispatched', 'settled', 'released', 'recovering', 'recovered')),
    seen_tokens BIGINT NOT NULL DEFAULT 0,
    prompt_tokens BIGINT NOT NULL DEFAULT 0,
    cached_tokens BIGINT NOT NULL DEFAULT 0,
    completion_tokens BIGINT NOT NULL DEFAULT 0,
    reasoning_tokens BIGINT NOT NULL DEFAULT 0,
    nano_settled BIGINT NOT NULL DEFAULT 0,
    overrun_nano BIGINT NOT NULL DEFAULT 0,
    usage_source TEXT NOT NULL DEFAULT 'none',
    price_version TEXT NOT NULL,
    owner_epoch BIGINT NOT NULL, -- which opening of the ledger holds the row
    taken_at BIGINT,             -- when it was taken over from one that died; UTC ms, as all times
    held_at BIGINT NOT NULL,
    dispatched_at BIGINT,
    settled_at BIGINT
);
CREATE INDEX reservations_open ON samplewise.reservations (owner_epoch)
    WHERE state IN ('held', 'dispatched');
CREATE INDEX reservations_request ON samplewise.reservations (request_id);
CREATE TABLE samplewise.counters (
    scope TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    "window" TEXT COLLATE "C" NOT NULL,
    window_start BIGINT NOT NULL,
    spent_nano BIGINT NOT NULL DEFAULT 0,
    spent_tokens BIGINT NOT NULL DEFAULT 0,
    spent_samples BIGINT NOT NULL DEFAULT 0,
    reserved_nano BIGINT NOT NULL DEFAULT 0,
    reserved_tokens BIGINT NOT NULL DEFAULT 0,
    reserved_samples BIGINT NOT NULL DEFAULT 0,
    overrun_nano BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, name, "window", window_start)
) WITH (fillfactor = 50); -- room for the next version of a row on its page
CREATE TABLE samplewise.meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO samplewise.meta VALUES ('schema', 0), ('epoch', 0), ('lease_ms', 30000);
-- Every opening that lives: its last batch and what that answered, for one that lost its
-- connection; and how long it may be silent. Who is not here is dead.
CREATE TABLE samplewise.writers (
    epoch BIGINT PRIMARY KEY,
    batch BIGINT NOT NULL,
    reply JSONB,
    since BIGINT NOT NULL,      -- from when on its lease was never interrupted
    lease_until BIGINT NOT NULL
) WITH (fillfactor = 50);
"""

_STARTS = """
CREATE FUNCTION samplewise.window_starts(now_ms BIGINT) RETURNS JSONB LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'minute', now_ms - now_ms % 60000,
        'hour', now_ms - now_ms % 3600000,
        'day', now_ms - now_ms % 86400000,
        'month', 1000 * extract(epoch FROM date_trunc('month',
            timestamp '1970-01-01' + now_ms / 1000 * interval '1 second'))::bigint,
        'total', 0)
$$
"""

# Locks the rows named and the counters of open ones, and makes and locks those of `accounts`.
_LOCK = """
CREATE FUNCTION samplewise.lock_all(ids TEXT[], accounts JSONB, starts JSONB) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    keys JSONB;
BEGIN
    PERFORM 1 FROM samplewise.reservations WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
    INSERT INTO samplewise.counters (scope, name, "window", window_start)
    SELECT DISTINCT a ->> 0, a ->> 1, a ->> 2, (starts ->> (a ->> 2))::bigint
    FROM jsonb_array_elements(accounts) AS a ORDER BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING;
    SELECT coalesce(jsonb_agg(k), '[]') INTO keys FROM (
        SELECT jsonb_build_array(a -> 0, a -> 1, a -> 2, starts -> (a ->> 2))
        FROM jsonb_array_elements(accounts) AS a
        UNION
        SELECT a FROM samplewise.reservations AS r, jsonb_array_elements(r.accounts) AS a
        WHERE r.id = ANY (ids) AND r.state IN ('held', 'dispatched')) AS found (k);
    PERFORM 1 FROM samplewise.counters AS c JOIN jsonb_array_elements(keys) AS k
        ON c.scope = k ->> 0 AND c.name = k ->> 1 AND c."window" = k ->> 2
        AND c.window_start = (k ->> 3)::bigint
    ORDER BY c.scope, c.name, c."window", c.window_start FOR UPDATE OF c;
END
$$
"""

# op: ["reserve", request, route, key, state, accounts, needs, rows]. Needs come in groups, all rows
# first, then those of one backend each; every account and row names its group, and a group has what
# the first 1, 2, ... bundles need together, or null for no row at all.
# Answers [bundles, number of the account in the way] or the id that is there already. Sums are
# NUMERIC: they may be more than a counter can hold, and then do not fit.
_RESERVE = """
CREATE FUNCTION samplewise.reserve(op JSONB, starts JSONB, now_ms BIGINT, writer BIGINT)
RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    granted BIGINT := jsonb_array_length(op -> 6 -> 0);
    fits BIGINT;
    blocked BIGINT;
    claim RECORD;
    known TEXT;
    keys JSONB;
    posts JSONB;
BEGIN
    SELECT id INTO known FROM samplewise.reservations
    WHERE id = ANY (ARRAY(SELECT r ->> 1 FROM jsonb_array_elements(op -> 7) AS r)) LIMIT 1;
    IF FOUND THEN
        RETURN to_jsonb(known);
    END IF;
    FOR claim IN
        SELECT a.number,
            coalesce((a.v ->> 3)::numeric, 9223372036854775807) - c.spent_nano - c.reserved_nano
                AS nano,
            coalesce((a.v ->> 4)::numeric, 9223372036854775807) - c.spent_tokens
                - c.reserved_tokens AS tokens,
            coalesce((a.v ->> 5)::numeric, 9223372036854775807) - c.spent_samples
                - c.reserved_samples AS samples,
            op -> 6 -> (a.v ->> 6)::int AS needs
        FROM jsonb_array_elements(op -> 5) WITH ORDINALITY AS a (v, number)
        JOIN samplewise.counters AS c
            ON c.scope = a.v ->> 0 AND c.name = a.v ->> 1 AND c."window" = a.v ->> 2
            AND c.window_start = (starts ->> (a.v ->> 2))::bigint
        ORDER BY a.number
    LOOP
        SELECT count(*) INTO fits FROM jsonb_array_elements(claim.needs) AS n
        WHERE n = 'null' OR ((n ->> 0)::numeric <= claim.nano
            AND (n ->> 1)::numeric <= claim.tokens AND (n ->> 2)::numeric <= claim.samples);
        IF fits < granted THEN
            granted := fits;
            blocked := claim.number - 1;
        END IF;
    END LOOP;
    IF granted > 0 THEN
        SELECT coalesce(jsonb_agg(jsonb_build_array(k, part) ORDER BY number), '[]') INTO keys
        FROM (
            SELECT jsonb_build_array(v -> 0, v -> 1, v -> 2, starts -> (v ->> 2)),
                (v ->> 6)::int, min(number)
            FROM jsonb_array_elements(op -> 5) WITH ORDINALITY AS a (v, number)
            GROUP BY 1, 2) AS found (k, part, number);
        UPDATE samplewise.counters AS c SET
            reserved_nano = c.reserved_nano + (n.need ->> 0)::bigint,
            reserved_tokens = c.reserved_tokens + (n.need ->> 1)::bigint,
            reserved_samples = c.reserved_samples + (n.need ->> 2)::bigint
        FROM (
            SELECT k -> 0 AS k, op -> 6 -> (k ->> 1)::int -> (granted - 1)::int AS need
            FROM jsonb_array_elements(keys) AS k) AS n
        WHERE n.need <> 'null' AND c.scope = n.k ->> 0 AND c.name = n.k ->> 1
            AND c."window" = n.k ->> 2 AND c.window_start = (n.k ->> 3)::bigint;
        SELECT jsonb_agg((
            SELECT coalesce(jsonb_agg(k -> 0 ORDER BY number), '[]')
            FROM jsonb_array_elements(keys) WITH ORDINALITY AS found (k, number)
            WHERE (k ->> 1)::int IN (0, part)) ORDER BY part) INTO posts
        FROM generate_series(0, jsonb_array_length(op -> 6) - 1) AS part;
        INSERT INTO samplewise.reservations (id, request_id, call_id, sample_index, purpose,
            is_sample, route, "key", backend, model, accounts, nano_held, tokens_held, state,
            price_version, owner_epoch, held_at, dispatched_at)
        SELECT r ->> 1, op ->> 1, r ->> 2, (r ->> 3)::bigint, r ->> 4, (r ->> 5)::smallint,
            op ->> 2, op ->> 3, r ->> 6, r ->> 7, posts -> (r ->> 11)::int, (r ->> 8)::bigint,
            (r ->> 9)::bigint, op ->> 4, r ->> 10, writer, now_ms,
            CASE WHEN op ->> 4 = 'dispatched' THEN now_ms END
        FROM jsonb_array_elements(op -> 7) WITH ORDINALITY AS rows (r, number)
        WHERE (r ->> 0)::bigint <= granted ORDER BY number;
    END IF;
    RETURN jsonb_build_array(granted, blocked);
END
$$
"""

# op: ["dispatch", [id, ...]]. Answers null, or [id, state] of one that must not be sent: also one
# that was taken over, which its heir may be ending just now as never sent.
_DISPATCH = """
CREATE FUNCTION samplewise.dispatch(op JSONB, now_ms BIGINT, writer BIGINT) RETURNS JSONB
LANGUAGE plpgsql AS $$
DECLARE
    wrong JSONB;
BEGIN
    SELECT jsonb_build_array(i.id, CASE WHEN r.state IN ('held', 'dispatched') THEN 'taken over'
        ELSE coalesce(r.state, 'unknown') END) INTO wrong
    FROM jsonb_array_elements_text(op -> 1) WITH ORDINALITY AS i (id, number)
    LEFT JOIN samplewise.reservations AS r ON r.id = i.id
    WHERE r.state IS NULL OR r.state NOT IN ('held', 'dispatched')
        OR (r.taken_at IS NOT NULL AND r.owner_epoch <> writer)
    ORDER BY i.number LIMIT 1;
    IF FOUND THEN
        RETURN wrong;
    END IF;
    UPDATE samplewise.reservations SET state = 'dispatched', dispatched_at = now_ms
    WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text(op -> 1))) AND state = 'held';
    RETURN 'null';
END
$$
"""

# op: ["settle", [[id, state, prompt, cached, completion, reasoning, nano, source], ...]]; the first
# of an id counts. Answers the ids that are not there.
_SETTLE = """
CREATE FUNCTION samplewise.settle(op JSONB, now_ms BIGINT) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    missing JSONB;
BEGIN
    WITH ends AS (
        SELECT DISTINCT ON (e ->> 0) e ->> 0 AS id, e ->> 1 AS state, (e ->> 2)::bigint AS prompt,
            (e ->> 3)::bigint AS cached, (e ->> 4)::bigint AS completion,
            (e ->> 5)::bigint AS reasoning, (e ->> 6)::bigint AS nano, e ->> 7 AS source
        FROM jsonb_array_elements(op -> 1) WITH ORDINALITY AS given (e, number)
        ORDER BY e ->> 0, number
    ), ended AS (
        UPDATE samplewise.reservations AS r SET
            state = n.state, prompt_tokens = n.prompt, cached_tokens = n.cached,
            completion_tokens = n.completion, reasoning_tokens = n.reasoning,
            nano_settled = n.nano, overrun_nano = greatest(0, n.nano - r.nano_held),
            usage_source = n.source, settled_at = now_ms
        FROM ends AS n WHERE r.id = n.id AND r.state IN ('held', 'dispatched')
        RETURNING r.*
    ), posts AS (
        SELECT k ->> 0 AS scope, k ->> 1 AS name, k ->> 2 AS "window", (k ->> 3)::bigint AS start,
            sum(nano_settled) AS nano, sum(prompt_tokens + completion_tokens) AS tokens,
            sum(CASE WHEN state = 'released' THEN 0 ELSE is_sample END) AS samples,
            sum(nano_held) AS nano_held, sum(tokens_held) AS tokens_held,
            sum(is_sample) AS samples_held, sum(overrun_nano) AS overrun
        FROM ended, jsonb_array_elements(accounts) AS k GROUP BY 1, 2, 3, 4
    )
    UPDATE samplewise.counters AS c SET
        spent_nano = c.spent_nano + p.nano, spent_tokens = c.spent_tokens + p.tokens,
        spent_samples = c.spent_samples + p.samples,
        reserved_nano = c.reserved_nano - p.nano_held,
        reserved_tokens = c.reserved_tokens - p.tokens_held,
        reserved_samples = c.reserved_samples - p.samples_held,
        overrun_nano = c.overrun_nano + p.overrun
    FROM posts AS p WHERE c.scope = p.scope AND c.name = p.name AND c."window" = p."window"
        AND c.window_start = p.start;
    SELECT coalesce(jsonb_agg(e ->> 0), '[]') INTO missing FROM jsonb_array_elements(op -> 1) AS e
    WHERE NOT EXISTS (SELECT 1 FROM samplewise.reservations AS r WHERE r.id = e ->> 0);
    RETURN missing;
END
$$
"""

# One batch, numbered by its writer; answers one value for each of `ops`. `clock` is null, or UTC
# ms. The windows are those of the moment before the locks: which locks, depends on them.
_WORK = f"""
CREATE FUNCTION samplewise.work(writer BIGINT, number BIGINT, clock BIGINT, ids TEXT[],
    accounts JSONB, ops JSONB) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
    now_ms BIGINT;
    starts JSONB;
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
    PERFORM samplewise.lock_all(ids, accounts, starts);
    FOR op IN SELECT v FROM jsonb_array_elements(ops) WITH ORDINALITY AS o (v, n) ORDER BY n LOOP
        answers := answers || jsonb_build_array(CASE op ->> 0
            WHEN 'reserve' THEN samplewise.reserve(op, starts, now_ms, writer)
            WHEN 'dispatch' THEN samplewise.dispatch(op, now_ms, writer)
            ELSE samplewise.settle(op, now_ms) END);
    END LOOP;
    UPDATE samplewise.writers SET batch = number, reply = answers WHERE epoch = writer;
    RETURN answers;
END
$$
"""

# From now on no batch up to `number` is done. Answers [last batch that was, its reply], or null
# if the writer is not known: the database is another one.
_FENCE = """
CREATE FUNCTION samplewise.fence(writer BIGINT, number BIGINT) RETURNS JSONB
LANGUAGE plpgsql AS $$
DECLARE
    was RECORD;
BEGIN
    SELECT batch, reply INTO was FROM samplewise.writers WHERE epoch = writer FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE samplewise.writers SET batch = number WHERE epoch = writer;
    RETURN jsonb_build_array(was.batch, was.reply);
END
$$
"""

# Null or UTC ms, and [[scope, name, window], ...]: the columns of each counter, in this order.
_BALANCES = """
CREATE FUNCTION samplewise.balances(clock BIGINT, accounts JSONB) RETURNS JSONB
LANGUAGE sql STABLE AS $$
    WITH windows AS (SELECT samplewise.window_starts(
        coalesce(clock, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)) AS starts)
    SELECT coalesce(jsonb_agg(jsonb_build_array(a.v -> 0, a.v -> 1, a.v -> 2,
        starts -> (a.v ->> 2), coalesce(c.spent_nano, 0), coalesce(c.spent_tokens, 0),
        coalesce(c.spent_samples, 0), coalesce(c.reserved_nano, 0), coalesce(c.reserved_tokens, 0),
        coalesce(c.reserved_samples, 0), coalesce(c.overrun_nano, 0)) ORDER BY a.number), '[]')
    FROM windows, jsonb_array_elements(accounts) WITH ORDINALITY AS a (v, number)
    LEFT JOIN samplewise.counters AS c ON c.scope = a.v ->> 0 AND c.name = a.v ->> 1
        AND c."window" = a.v ->> 2
        AND c.window_start = (samplewise.window_starts(coalesce(clock,
            floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)) ->> (a.v ->> 2))::bigint
$$
"""

_CLIENT_KEYS = """
CREATE TABLE samplewise.client_keys (
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest BYTEA NOT NULL UNIQUE, -- HMAC-SHA256 of the secret under the pepper
    terms TEXT NOT NULL,          -- JSON: routes, limits, rate, expiry, tags
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE TABLE samplewise.key_pepper (id INTEGER PRIMARY KEY CHECK (id = 1), value BYTEA NOT NULL);
INSERT INTO samplewise.meta VALUES ('keys', 0); -- grows with every change of a key
"""

_AUDIT = """
ALTER TABLE samplewise.client_keys ADD COLUMN previous BYTEA; -- the digest of the secret before,
ALTER TABLE samplewise.client_keys ADD COLUMN previous_until BIGINT; -- and until when it is good
CREATE TABLE samplewise.audit (
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    at BIGINT NOT NULL,   -- UTC ms
    actor TEXT NOT NULL,  -- who: the admin key, or the user of the command
    action TEXT NOT NULL, -- create, update, rotate or revoke
    key_id TEXT NOT NULL,
    name TEXT NOT NULL,
    terms TEXT NOT NULL   -- JSON, as they are after it
);
CREATE FUNCTION samplewise.keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END
$$;
CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON samplewise.audit
    FOR EACH STATEMENT EXECUTE FUNCTION samplewise.keep_audit();
"""

# Item n leads from schema version n to n + 1. Never change an item that was released: add one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (_TABLES, _STARTS, _LOCK, _RESERVE, _DISPATCH, _SETTLE, _WORK, _FENCE, _BALANCES, *LEASES),
    (_CLIENT_KEYS,),
    (_AUDIT,),
    (RECORDS,),
    CLAIMS,
    chunk_functions(_RESERVE, _SETTLE, TAKING_OVER),
)
