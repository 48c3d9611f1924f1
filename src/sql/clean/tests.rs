//! Statements that can be clean, with what a server must confirm, and statements that cannot.

use proptest::prelude::*;

use super::{Footprint, RelationName, footprint, footprint_of_write};

const CLEAN: &[&str] = &[
    "SELECT 1",
    "select 1;",
    "SELECT -- a comment\n 1 /* and /* another */ one */",
    "SELECT $1::int",
    "SELECT CAST($1 AS text)",
    "SELECT n FROM t",
    "SELECT * FROM t",
    "SELECT t.* FROM t",
    "SELECT a.n, b.m FROM public.t AS a JOIN other b ON a.id = b.id",
    "SELECT a.n FROM t a LEFT JOIN u b USING (id) RIGHT JOIN v c ON c.id = b.id CROSS JOIN w",
    "SELECT x.n FROM t x NATURAL JOIN u y",
    "SELECT n FROM t WHERE id = $1",
    "SELECT n FROM t WHERE id = $1 AND n > 5 OR NOT (n <= 3)",
    "SELECT n FROM t WHERE id IN ($1, $2, 3)",
    "SELECT n FROM t WHERE id = ANY($1)",
    "SELECT n FROM t WHERE id <> ALL($1::int[])",
    "SELECT n FROM t WHERE n BETWEEN $1 AND $2",
    "SELECT n FROM t WHERE name LIKE 'a%' OR name ILIKE $1 OR name NOT LIKE 'b' ESCAPE '!'",
    "SELECT n FROM t WHERE name SIMILAR TO 'a%'",
    "SELECT n FROM t WHERE name ~ '^a' AND name !~* 'b'",
    "SELECT n FROM t WHERE n IS NULL OR m IS NOT NULL OR b IS TRUE OR c IS DISTINCT FROM d",
    "SELECT n FROM t WHERE (a, b) > ($1, $2) ORDER BY a, b LIMIT 10",
    "SELECT n FROM t ORDER BY n DESC NULLS LAST LIMIT $1 OFFSET $2",
    "SELECT n FROM t ORDER BY n FETCH FIRST 5 ROWS ONLY",
    "SELECT DISTINCT n FROM t",
    "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b",
    "SELECT count(*), sum(n), avg(n) FROM t GROUP BY m HAVING count(*) > 1",
    "SELECT count(DISTINCT n) FILTER (WHERE m > 1) FROM t",
    "SELECT string_agg(name, ',' ORDER BY name) FROM t",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY n) FROM t",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM t",
    "SELECT sum(n) OVER w FROM t WINDOW w AS (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    "SELECT lag(n, 1) OVER (ORDER BY n) FROM t",
    "SELECT lower(name) || '!' FROM t",
    "SELECT pg_catalog.lower(name) FROM t",
    "SELECT left(name, 3), right(name, 2) FROM t",
    "SELECT coalesce(n, $1, 0), nullif(n, 0), greatest(n, 1), least(1, 2) FROM t",
    "SELECT CASE WHEN n > 0 THEN 'a' ELSE 'b' END FROM t",
    "SELECT CASE n WHEN 1 THEN 'a' WHEN $1 THEN 'b' END FROM t",
    "SELECT substring(name from 1 for 2), substr(name, 1), trim(both 'x' from name), position('a' in name) FROM t",
    "SELECT extract(year from d), date_trunc('day', d), d AT TIME ZONE 'UTC' FROM t",
    "SELECT ceil(x), floor(x), round(x, 2), abs(x), -x FROM t",
    "SELECT now(), current_date, current_timestamp, clock_timestamp(), current_user",
    "SELECT DATE '2024-01-01', INTERVAL '1 day', TIMESTAMP '2024-01-01 10:00'",
    "SELECT now() - INTERVAL '1 hour'",
    "SELECT n::text, n::bigint, n::numeric(10,2), n::double precision, n::varchar(3), n::timestamptz FROM t",
    "SELECT j -> 'a' ->> 'b', j #>> '{a,b}' FROM t WHERE j @> '{\"a\": 1}'",
    "SELECT jsonb_build_object('a', n, 'b', m) FROM t",
    "SELECT ARRAY[1, 2], array_length(a, 1), ARRAY[n] || a FROM t",
    "SELECT EXISTS (SELECT 1 FROM t WHERE t.id = 1)",
    "SELECT (SELECT max(n) FROM t), n FROM u WHERE id IN (SELECT id FROM v)",
    "SELECT s.n FROM (SELECT n FROM t) s",
    "SELECT s.n FROM t, LATERAL (SELECT n FROM u WHERE u.id = t.id) s",
    "WITH x AS (SELECT n FROM t) SELECT n FROM x",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
    "SELECT n FROM t UNION SELECT m FROM u EXCEPT SELECT 1 INTERSECT SELECT 2",
    "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT g FROM generate_series(1, 3) g",
    "SELECT g + 1 FROM generate_series(1, 3) AS g",
    "SELECT x FROM unnest($1::int[]) AS x",
    "SELECT \"Name\", \"select\" FROM \"Orders\" AS \"O\"",
    "SELECT n AS \"order\", m AS end FROM t",
    "SELECT 1e10, 1.5, .5",
    "SELECT gen_random_uuid()",
    "SELECT n % 2, n ^ 2, n & 1, n | 1, n << 1, ~n FROM t",
    "SELECT n=-1, n<-m, n*-1, n+-m, n - -1, n ^ -1, n!=1, count(*), 2*n FROM t",
    "SELECT 'it''s'",
    "SELECT name = 'größe' FROM t",
];

const NOT_CLEAN: &[&str] = &[
    // Not a single query.
    "",
    "SELECT 1; SELECT 2",
    "INSERT INTO t VALUES (1)",
    "UPDATE t SET n = 1",
    "DELETE FROM t",
    "CALL p()",
    "DO $$ BEGIN END $$",
    "SHOW search_path",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "TABLE t",
    "SET search_path = a",
    "CREATE TABLE t AS SELECT 1",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING n) SELECT n FROM x",
    "WITH x AS (DELETE FROM t RETURNING n) SELECT n FROM x",
    "SELECT n INTO u FROM t",
    "SELECT n INTO TEMP u FROM t",
    // Locks.
    "SELECT n FROM t FOR UPDATE",
    "SELECT n FROM t FOR SHARE OF t",
    "SELECT n FROM (SELECT n FROM t FOR UPDATE) s",
    // Functions that are not on the list.
    "SELECT set_config('a.b', 'c', false)",
    "SELECT pg_catalog.set_config('a.b', 'c', false)",
    "SELECT my.lower('x')",
    "SELECT spy(n) FROM t",
    "SELECT count(spy()) FROM t",
    "SELECT n FROM t WHERE spy()",
    "SELECT n FROM t ORDER BY spy()",
    "SELECT n FROM t GROUP BY spy(), n",
    "SELECT n FROM t LIMIT spy()",
    "SELECT n FROM t HAVING spy()",
    "SELECT count(*) FILTER (WHERE spy()) FROM t",
    "SELECT sum(n) OVER (ORDER BY spy()) FROM t",
    "SELECT sum(n) OVER w FROM t WINDOW w AS (PARTITION BY spy())",
    "SELECT string_agg(n, ',' ORDER BY spy()) FROM t",
    "SELECT CASE WHEN spy() THEN 1 END",
    "SELECT CASE spy() WHEN 1 THEN 1 END",
    "SELECT CASE 1 WHEN 1 THEN 2 ELSE spy() END",
    "SELECT (SELECT spy())",
    "SELECT EXISTS (SELECT spy())",
    "SELECT 1 IN (SELECT spy())",
    "SELECT ARRAY[spy()]",
    "SELECT n BETWEEN spy() AND 2 FROM t",
    "SELECT n IN (1, spy()) FROM t",
    "SELECT n LIKE spy() FROM t",
    "SELECT spy()::text",
    "SELECT -spy()",
    "SELECT spy() + 1 + 1 + 1",
    "SELECT 1 + spy()",
    "SELECT coalesce(1, spy())",
    "SELECT extract(year from spy())",
    "SELECT substring(spy() from 1)",
    "SELECT trim(spy())",
    "SELECT (a, b) = (1, spy()) FROM t",
    "WITH x AS (SELECT spy()) SELECT 1",
    "SELECT 1 UNION SELECT spy()",
    "VALUES (spy())",
    "SELECT * FROM spy()",
    "SELECT * FROM t JOIN u ON spy()",
    "SELECT * FROM LATERAL spy() AS x",
    "SELECT * FROM ROWS FROM (spy()) AS x",
    "SELECT nextval('s')",
    "SELECT currval('s'), lastval()",
    "SELECT pg_advisory_lock(1)",
    "SELECT setseed(0.5)",
    "SELECT lo_open(1, 1)",
    "SELECT pg_notify('a', 'b')",
    "SELECT query_to_xml('SELECT spy()', true, true, '')",
    "SELECT date('2024-01-01')",
    "SELECT ts_stat('SELECT spy()')",
    // A function in disguise: f(t) may be written t.f, and a type's input function as a literal's prefix.
    "SELECT (t).spy FROM t",
    "SELECT (SELECT t).spy FROM t",
    "SELECT t FROM t",
    "SELECT count(t) FROM t",
    "SELECT lower(a) FROM t AS a",
    "SELECT row_to_json(s) FROM (SELECT 1) s",
    "SELECT x FROM unnest($1::int[], $2::int[]) AS x",
    "SELECT spy 'x'",
    "SELECT spy '1' FROM t",
    "SELECT 'x'::spy",
    "SELECT CAST('x' AS my.domain)",
    "SELECT 'x'::my.text",
    "SELECT 't'::regclass",
    "SELECT 'x'::spy[]",
    "SELECT x FROM t AS x(n spy)",
    // Which operator is meant is open, or it is not on the list.
    "SELECT 'a' = 'b'",
    "SELECT $1 = $2",
    "SELECT $1 || 'x'",
    "SELECT nullif($1, 'x')",
    "SELECT $1 IN ('a', 'b')",
    "SELECT CASE $1 WHEN 'a' THEN 1 END",
    "SELECT ($1, 1) = ('a', 1)",
    "SELECT -$1",
    "SELECT 1 OPERATOR(my.+) 2",
    "SELECT a === b FROM t",
    "SELECT a <-> b FROM t",
    "SELECT |/ 4",
    "SELECT n FROM t ORDER BY n USING <",
    "SELECT name COLLATE \"C\" FROM t",
    // What PostgreSQL and the parser could read differently.
    "SELECT * FROM ONLY t",
    "SELECT * FROM t TABLESAMPLE bernoulli (5)",
    "SELECT * FROM t TABLESAMPLE my_method (5)",
    "SELECT E'a'",
    "SELECT U&'a'",
    "SELECT 'a\\'",
    "SELECT $$a$$",
    "SELECT B'1', X'F'",
    "SELECT U&\"n\" FROM t",
    "SELECT 0x1F",
    "SELECT 1_000",
    "SELECT größe FROM t",
    "SELECT a$b FROM t",
    "SELECT `n` FROM t",
    "SELECT [n] FROM t",
    "SELECT 'a' 'b'",
    "SELECT 'never ends",
    "SELECT a ^-b FROM t",
    "SELECT a =~b FROM t",
    "SELECT a +~b FROM t",
    "SELECT a !=-1 FROM t",
    "SELECT a @>-b FROM t",
    "SELECT ? FROM t",
    "SELECT :name",
    "SELECT @variable",
    "SELECT db.public.t.n FROM t",
    "SELECT * FROM db.public.t",
    "SELECT a[1] FROM t",
    "SELECT name_of_more_than_sixty_three_bytes_which_postgresql_would_cut_short FROM t",
    "SELECT n FROM t PIVOT (sum(n) FOR a IN (1))",
    "SELECT * EXCEPT (n) FROM t",
    "SELECT TOP 5 n FROM t",
    "SELECT n FROM t QUALIFY n > 1",
    "SELECT n FROM t GROUP BY ALL",
    "SELECT n FROM t GROUP BY ROLLUP (n)",
    "FROM t SELECT n",
    "SELECT n FROM t LIMIT 1, 2",
    "SELECT xmlelement(name a)",
    "SELECT grouping(n) FROM t",
];

#[test]
fn known_statements_are_told_apart() {
    assert!(CLEAN.len() + NOT_CLEAN.len() >= 120, "{}", CLEAN.len() + NOT_CLEAN.len());
    let refused = CLEAN.iter().filter_map(|sql| Some((sql, footprint(sql).err()?.to_string())));
    assert_eq!(refused.collect::<Vec<_>>(), []);
    let accepted = NOT_CLEAN.iter().filter_map(|sql| Some((sql, footprint(sql).ok()?)));
    assert_eq!(accepted.collect::<Vec<_>>(), []);
}

/// PostgreSQL makes one operator of them all, but for what stands behind one without special characters: signs of numbers.
#[test]
fn signs_that_touch_are_read_as_postgresql_reads_them() {
    const SIGNS: &[u8] = b"~!@#^&|?+-*/%<>=";
    let is_sign = |c: char| c == '+' || c == '-';
    let ends = |operator: &str, rest: &str| {
        rest.is_empty() || rest.chars().all(is_sign) && !operator.contains(|c| "~!@#^&|?%".contains(c))
    };
    let mut runs = vec![String::new()];
    for _ in 0..3 {
        let longer = |run: &String| SIGNS.iter().map(move |&sign| format!("{run}{}", sign as char)).collect::<Vec<_>>();
        runs.extend(runs.iter().flat_map(longer).collect::<Vec<_>>());
    }
    let mut clean = 0;
    for run in runs.iter().filter(|run| !run.contains("--") && !run.contains("/*")) {
        let Ok(Footprint { operators, .. }) = footprint(&format!("SELECT a {run}b FROM t")) else { continue };
        let meant = run.replacen("!=", "<>", 1);
        let reads = |operator: &String| meant.strip_prefix(operator.as_str()).is_some_and(|rest| ends(operator, rest));
        assert!(run.is_empty() || operators.iter().any(reads), "{run}: {operators:?}");
        clean += 1;
    }
    assert!(clean > 40, "{clean}");
}

fn sketch(sql: &str) -> String {
    let Footprint { relations, written: _, functions, columns, operators, types } =
        footprint(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
    let relations = relations.iter().map(|relation| {
        let schema = relation.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        format!("{schema}{}{}", relation.name, if relation.may_be_absent { "?" } else { "" })
    });
    let list = |names: Vec<String>| names.join(" ");
    let sets = [functions, columns, operators, types].map(|set| list(set.into_iter().collect()));
    format!("{} | {}", list(relations.collect()), sets.join(" | "))
}

#[test]
fn the_footprint_names_what_a_server_must_confirm() {
    let table = [
        ("SELECT 1", " |  |  |  | "),
        ("SELECT Lower(a.Name) FROM Public.T a WHERE a.\"N\" != 1", "public.t | lower | N name | <> | "),
        ("WITH x AS (SELECT 1 AS n) SELECT n FROM x, public.x, y", "x? y public.x |  |  |  | "),
        ("SELECT n::uuid, n::integer, n::pg_catalog.text FROM t", "t |  |  |  | uuid"),
        ("SELECT n FROM t WHERE a LIKE 'x' AND b BETWEEN 1 AND 2", "t |  |  | !~~ <= >= ~~ | "),
        ("SELECT n FROM t WHERE n NOT IN (1) AND m NOT BETWEEN 1 AND 2", "t |  |  | < <> > | "),
        ("SELECT trim(a), ceil(n) FROM t NATURAL JOIN u", "t u | btrim ceil ceiling ltrim rtrim |  | = | "),
        ("SELECT g FROM generate_series(1, 2) g", " | generate_series |  |  | "),
    ];
    for (sql, want) in table {
        assert_eq!(sketch(sql), want, "{sql}");
    }
}

#[test]
fn long_and_deep_statements_are_given_up_and_do_not_overflow() {
    let chain = |link: &str, count: usize| format!("SELECT 1{}", link.repeat(count));
    assert!(footprint(&chain(" AND true", 400)).is_ok());
    for sql in [
        chain(" + 1", 100_000),
        chain("::int", 5_000),
        chain("::int", 300),
        chain(" IN (1, 2)", 160),
        format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400)),
        format!("SELECT {}1", "- ".repeat(900)),
        format!("SELECT {}1", "NOT ".repeat(900)),
    ] {
        assert!(footprint(&sql).is_err(), "{:.40}", sql);
    }
}

/// A parser that tries two readings at each level takes twice as long for each: this test would not end.
#[test]
fn what_is_nested_costs_no_more_than_its_length() {
    let forms = [
        ("(", "1", ")"),
        ("(SELECT ", "1", ")"),
        ("1 FROM (", "t", ")"),
        ("1 FROM (SELECT ", "1", ") x"),
        ("CASE WHEN ", "true", " THEN 1 END"),
        ("EXISTS (SELECT ", "1", ")"),
        ("1 IN (", "1", ")"),
        ("((", "1", "), 1)"),
        ("CAST(", "1", " AS int)"),
        ("(WITH a AS (SELECT ", "1", ") SELECT 1)"),
    ];
    for (open, core, close) in forms {
        let nested = |depth: usize| format!("{}{core}{}", open.repeat(depth), close.repeat(depth));
        for depth in [10, 20, 40, 100, 250] {
            let _ = footprint(&format!("SELECT {}", nested(depth)));
        }
        let _ = footprint(&format!("SELECT {}", vec![nested(12); 15].join(", ")));
        assert!(footprint(&format!("SELECT {}", nested(250))).is_err(), "{open}");
    }
    assert!(footprint(&"(".repeat(1 << 20)).is_err());
}

proptest! {
    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        let _ = footprint(&text);
    }

    /// Words that are each harmless make no call of a function that is not on the list.
    #[test]
    fn no_mixture_hides_a_function(words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "spy()", "FROM", "t", "(", ")", ",", "1", "AS", "x", "WHERE", "=", "'s'", "--\n", "/*", "*/", ".", "IN",
        "WITH", "UNION", "::", "int", "CASE", "WHEN", "THEN", "END", "lower", "OVER", "ORDER BY", "LIMIT", "\"q\"", "LATERAL",
    ]), 1..14)) {
        let sql = words.join(" ");
        let visible = !sql.contains("/*") && !sql.contains("--");
        if visible && words.contains(&"spy()") {
            prop_assert!(footprint(&sql).is_err(), "{}", sql);
        }
    }
}

#[test]
fn plain_writes_are_clean_where_they_may_be() {
    for (sql, written) in [
        ("INSERT INTO t VALUES (1, $1, DEFAULT)", "t"),
        ("INSERT INTO t AS x (a, b) VALUES ($1, lower($2)), (now(), NULL) RETURNING id, x.a", "t"),
        ("INSERT INTO t DEFAULT VALUES", "t"),
        ("INSERT INTO t SELECT n, m FROM u WHERE n > 5", "t"),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING", "t"),
        ("INSERT INTO t (a, n) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET n = excluded.n + 1 WHERE t.n < 9", "t"),
        ("UPDATE t SET n = n + 1, m = DEFAULT WHERE id = $1 RETURNING *", "t"),
        ("UPDATE t AS x SET n = u.n FROM u WHERE u.id = x.id", "t"),
        ("DELETE FROM t WHERE id = ANY($1)", "t"),
        ("DELETE FROM t USING u WHERE u.id = t.id RETURNING t.id", "t"),
    ] {
        let found = footprint_of_write(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        let expected = RelationName { schema: None, name: written.into(), may_be_absent: false };
        assert!(found.written.contains(&expected) && found.written.len() == 1, "{sql}: {found:?}");
        assert!(found.relations.contains(&expected), "{sql}");
        assert!(footprint(sql).is_err(), "{sql} is no read");
    }
    let locking = "SELECT n FROM t WHERE id = $1 FOR UPDATE OF t SKIP LOCKED";
    assert!(footprint_of_write(locking).is_ok_and(|found| found.written.is_empty()) && footprint(locking).is_err());
}

#[test]
fn other_writes_are_not_clean() {
    for sql in [
        "INSERT INTO t VALUES (spy())",
        "INSERT INTO t SELECT t FROM t",
        "INSERT INTO t (a[1]) VALUES (1)",
        "INSERT INTO t VALUES (1) RETURNING t",
        "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET n = spy()",
        "UPDATE t SET n = spy(n)",
        "UPDATE t SET (a, b) = (1, 2)",
        "UPDATE ONLY t SET n = 1",
        "UPDATE t SET r.n = 1",
        "DELETE FROM t WHERE spy(n)",
        "DELETE FROM t WHERE CURRENT OF c",
        "WITH x AS (DELETE FROM t RETURNING n) SELECT n FROM x",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE",
        "TRUNCATE t",
        "CREATE TABLE t (n int)",
        "CALL p()",
        "INSERT INTO t VALUES (1); DELETE FROM t",
    ] {
        assert!(footprint_of_write(sql).is_err(), "{sql}");
    }
}
