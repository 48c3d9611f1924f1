//! The values that each type is tried with, as its input function takes them, and the types that are no rule.

/// Types that the broker refuses, and a part of the reason that it must give.
pub const EXCEPTIONS: &[(&str, &str)] = &[
    ("aclitem", "no binary form"),
    ("ghstore", "no binary form"),
    ("gtsvector", "no binary form"),
    ("ltree_gist", "no binary form"),
    ("money", "lc_monetary"),
    ("regclass", "an OID"),
    ("regcollation", "an OID"),
    ("regconfig", "an OID"),
    ("regdictionary", "an OID"),
    ("regnamespace", "an OID"),
    ("regoper", "an OID"),
    ("regoperator", "an OID"),
    ("regproc", "an OID"),
    ("regprocedure", "an OID"),
    ("regrole", "an OID"),
    ("regtype", "an OID"),
];

/// Types whose values come in binary: PostgreSQL's own memory, and an extension that the broker does not know.
pub const RAW: &[&str] = &[
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "anyarray",
    "cube",
    "cuberange",
    "cubemultirange",
];

/// Types that no text can be given for: not tried as parameters, nor is what has them as parts.
pub const WITHOUT_INPUT: &[&str] = &[
    "pg_node_tree",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "anyarray",
];

/// Values that only a query has; it must call them `v`.
pub fn query(name: &str) -> Option<&'static str> {
    Some(match name {
        "pg_node_tree" => "SELECT ev_action AS v FROM pg_catalog.pg_rewrite ORDER BY oid LIMIT 3",
        "pg_ndistinct" => "SELECT stxdndistinct AS v FROM pg_catalog.pg_statistic_ext_data",
        "pg_dependencies" => "SELECT stxddependencies AS v FROM pg_catalog.pg_statistic_ext_data",
        "pg_mcv_list" => "SELECT stxdmcv AS v FROM pg_catalog.pg_statistic_ext_data",
        // Kept in index pages only: nothing in SQL returns one.
        "pg_brin_bloom_summary" => "SELECT NULL::pg_catalog.pg_brin_bloom_summary AS v",
        "pg_brin_minmax_multi_summary" => "SELECT NULL::pg_catalog.pg_brin_minmax_multi_summary AS v",
        // Its rows are had on a machine of that kind only.
        "pg_shmem_allocations_numa" => "SELECT NULL::pg_catalog.pg_shmem_allocations_numa AS v",
        // Numbers of every size: PostgreSQL's shortest digits are not everybody's.
        "point" => {
            "SELECT '(NaN,-Infinity)'::point AS v UNION ALL SELECT '(-0,1e23)' UNION ALL SELECT '(5e-324,1.7976931348623157e308)' \
             UNION ALL SELECT point(power(2::float8, n), -power(10::float8, n)) FROM generate_series(-300, 308) n \
             UNION ALL SELECT point(power(2::float8, n - 1100), power(2::float8, n - 1000) * 3) FROM generate_series(26, 1000) n \
             UNION ALL SELECT point(hashint8extended(n, 1)::float8 / power(10::float8, n % 40), \
                 1 / (hashint8extended(n, 2)::float8 * power(7::float8, n % 100))) FROM generate_series(1, 2000) n"
        }
        "_cstring" => "SELECT '{a,\"b c\",NULL}'::_cstring AS v",
        "_tags" => "SELECT '{\"{}\",\"{a,\\\"b c\\\"}\",NULL}'::catalogue.tags[] AS v",
        "_int2vector" => "SELECT '{\"1 -2 3\",\"\",NULL}'::_int2vector AS v UNION ALL SELECT '{}'",
        "_oidvector" => "SELECT '{\"1 4294967295\",\"\",NULL}'::_oidvector AS v UNION ALL SELECT '{}'",
        "real4range" => {
            "SELECT catalogue.real4range(least(a, b), greatest(a, b)) AS v FROM (SELECT power(2::float8, n)::float4 AS a, \
             (power(10::float8, n / 4) * 3)::float4 AS b FROM generate_series(-120, 120) n) numbers \
             UNION ALL SELECT '[-infinity,nan]' UNION ALL SELECT '(,1e-45]' UNION ALL SELECT 'empty'"
        }
        _ => return None,
    })
}

/// Values of a base, range, multirange, enum or domain type, or of a free-standing composite type.
pub fn literals(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "bool" => &["true", "false"],
        "int2" => &["0", "-32768", "32767"],
        "int4" => &["0", "-2147483648", "2147483647"],
        "int8" => &["0", "-9223372036854775808", "9223372036854775807"],
        "oid" | "xid" | "cid" => &["0", "3", "4294967295"],
        "xid8" => &["0", "3", "9223372036854775808", "18446744073709551615"],
        "float4" => &["0", "-0", "1.1", "3.4028235e38", "1e-45", "16777216", "NaN", "Infinity", "-Infinity"],
        "float8" => &["0", "-0", "0.1", "1e23", "5e-324", "1.7976931348623157e308", "NaN", "Infinity", "-Infinity"],
        "numeric" => &[
            "0",
            "0.00",
            "-1",
            "10000",
            "0.0001",
            "1e-30",
            "1e400",
            "-99999999.99990000",
            "12345.6000",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.000000000000000000000000000000000000000000001",
        ],
        "bytea" => &["", "\\x00ff10", "\\xdeadbeef"],
        "char" => &["", "a", "\\", "\\200", "\\377"],
        "text" | "varchar" | "citext" => {
            &["", " ", "é€😀", "NULL", "a,b", "{\"q\\\\\"}", "('it''s')", "line\nbreak\ttab"]
        }
        "bpchar" => &["", "ab", "ab   ", "é ", "NULL", "{,}"],
        "name" => &["", "pg_class", "a \"b\" é"],
        "refcursor" => &["", "c 1"],
        "json" => &["null", "{\"b\": 1,  \"a\":[1.50,null]}", "\"x\\u0041\"", " 1 "],
        "jsonb" => &["null", "{\"b\": 1,  \"a\":[1.50,null,\"\\\"\"]}", "\"x\\u0041\"", "1e5"],
        "jsonpath" => &["$", "lax $.a[*] ? (@.b > 1 && @.c like_regex \"^a\" flag \"i\")", "strict $.\"x y\".size()"],
        "xml" => &["", "<a b=\"c\">é&amp;</a>", "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>", "text <b/> more"],
        "uuid" => &["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
        "pg_lsn" => &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"],
        "tid" => &["(0,0)", "(0,1)", "(4294967295,65535)"],
        "pg_snapshot" | "txid_snapshot" => &["10:20:", "10:20:10,14,15", "1:9223372036854775807:5"],
        "int2vector" => &["", "1", "1 -2 32767"],
        "oidvector" => &["", "1", "1 4294967295"],
        _ => {
            return times(name)
                .or_else(|| places(name))
                .or_else(|| searches(name))
                .or_else(|| ranges(name))
                .or_else(|| own(name));
        }
    })
}

fn times(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "date" => &[
            "2000-01-01",
            "1999-12-31",
            "2024-02-29",
            "0001-01-01",
            "0001-12-31 BC",
            "4714-11-24 BC",
            "10000-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
        ],
        "time" => &["00:00", "23:59:59.999999", "24:00:00", "12:34:56.07"],
        "timetz" => &["00:00+00", "24:00:00+15:59", "12:34:56.789+02", "01:02:03.5-15:59:59", "04:05:06-03:30"],
        "timestamp" | "timestamptz" => &[
            "2000-01-01",
            "1999-12-31 23:59:59.999999",
            "2024-02-29 12:34:56.7",
            "0044-03-15 12:00:00.5 BC",
            "4714-11-24 BC",
            "294276-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
            "1582-10-15 00:00:01",
        ],
        "interval" => &[
            "0",
            "1 year",
            "-1 year",
            "14 mons -3 days 04:05:06.789",
            "-14 mons +3 days -04:05:06",
            "1 day -00:00:01",
            "-1 mons +01:00:00",
            "2562047788:00:54.775807",
            "178000000 years",
            "-178956970 years -8 mons",
            "0.000001 s",
            "-0.5 s",
            "2147483647 days",
        ],
        _ => return None,
    })
}

fn places(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "bit" | "varbit" => &["", "0", "1", "10101010", "111111111", "0000000000000001"],
        "inet" => &[
            "1.2.3.4",
            "1.2.3.4/0",
            "255.255.255.255/24",
            "::",
            "::1",
            "::/0",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "::2:3",
            "1::",
            "1:0:0:2::3",
            "1:2:3:4:5:6:7:8",
            "0:0:1:0:0:1:0:0",
            "fe80::1/64",
            "1:0:2:0:3:0:4:0",
            "::ffff:0:0",
            "::1:0:0/100",
        ],
        "cidr" => &["0.0.0.0/0", "10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32", "::1/128", "::ffff:1.2.3.0/120"],
        "macaddr" => &["00:00:00:00:00:00", "08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
        "macaddr8" => &["00:00:00:00:00:00:00:00", "08:00:2b:01:02:03:04:05"],
        "lseg" => &["[(0,0),(1,1)]", "[(-1.5,1e300),(NaN,Infinity)]"],
        "box" => &["(1,1),(0,0)", "(0,5),(-1e-10,2)"],
        "path" => &["[(0,0)]", "((0,0),(1,1e20),(2.5,0))", "[(0,0),(1,1)]"],
        "polygon" => &["((0,0))", "((0,0),(1,1),(2,0))"],
        "line" => &["{1,-1,0}", "{0,-1,1e100}"],
        "circle" => &["<(0,0),0>", "<(1.5,-2),1e15>"],
        _ => return None,
    })
}

fn searches(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "tsvector" => &["", "a", "fat:2A,4B cat:5C,6D rat", "'it''s' 'back\\\\slash':1 ' b l a n k ':16383A", "é:1"],
        "tsquery" => &[
            "",
            "a",
            "!a",
            "!!a",
            "a & b | c",
            "(a | b) & c",
            "!(a & b)",
            "a <-> b <-> c",
            "a <-> (b <-> c)",
            "a <5> b",
            "(a & b) <-> (c | d)",
            "'it''s':*AB & b:CD & c:*",
            "'back\\\\slash' | !b <-> !(c | d)",
            "a <0> b",
            "a | (b | (c & (d & e)))",
            "!(a <-> b) & !(!c)",
        ],
        "hstore" => &["", "a=>1", "\"k \\\"q\\\"\"=>\"v\\\\\", b=>NULL, c=>\"NULL\", d=>\"\"", "é=>ü"],
        "ltree" => &["", "Top", "Top.Science.Astronomy"],
        "lquery" => &["*", "Top.*{1,2}.sport*@|tennis@.!x"],
        "ltxtquery" => &["a", "Europe & Russia*@ & !Transportation"],
        "cube" => &["(0)", "(1,2),(3,4)"],
        _ => return None,
    })
}

fn ranges(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "int4range" | "int8range" => &["empty", "[1,5)", "(,)", "(,-3)", "[7,]", "[-5,-5]"],
        "numrange" => &["empty", "[1.50,NaN]", "(,0.00)", "(-Infinity,Infinity)"],
        "daterange" => &["empty", "[0044-03-15 BC,2000-01-01]", "[0044-03-15 BC,infinity)", "[2024-02-28,2024-03-01)"],
        "tsrange" | "tstzrange" => {
            &["empty", "[2000-01-01 00:00,2000-01-01 12:00:00.5)", "(,infinity]", "[0044-03-15 BC,)"]
        }
        "int4multirange" | "int8multirange" => &["{}", "{[1,5)}", "{(,-3),[1,5),[7,)}"],
        "nummultirange" => &["{}", "{[1.50,2),[3,4.00]}"],
        "datemultirange" => &["{}", "{[0044-03-15 BC,2000-01-01),[2024-02-28,)}"],
        "tsmultirange" | "tstzmultirange" => &["{}", "{[2000-01-01 00:00,2000-01-01 12:00:00.5)}"],
        _ => return None,
    })
}

/// The types of the test's own schema.
fn own(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "mood" => &["calm", "very cross", "it's \"odd\"", ""],
        "posint" | "evenposint" => &["2", "2147483646"],
        "tags" => &["{}", "{a,\"b c\",NULL}", "[0:1]={x,\"\"}"],
        "checkedpair" => &["(1,a)", "(,)"],
        "corner" => &["(1,1),(0,0)"],
        "pair" => &["(1,a)", "(,)", "(-5,\"\")", "(0,\"a \"\"q\"\" \\\\ ,()\")"],
        "lonely" => &["()", "(\"\")", "(x)"],
        "nobody" => &["()"],
        "deep" => &[
            "(,,,,,,,,,,)",
            "(\"(1,\"\"a b\"\")\",\"{\"\"(1,x)\"\",NULL,\"\"(,)\"\"}\",\"very cross\",\"\"\"k\"\"=>\"\"v\"\"\",\"[1,5)\",2,\"\\\\xdead\",\
             1e-07,10101,\"\",1.2.3.4/24)",
        ],
        "textrange" | "citextrange" => {
            &["empty", "[\"\",\"a b\")", "(\"(\",\"q\"\"q\\\\z\"]", "[NULL,null)", "(,\",\")"]
        }
        "floatrange" => &["[1e-07,1e+20)", "(-Infinity,NaN]", "[-0,0.1]"],
        "inetrange" => &["[1.2.3.5/24,1.2.3.4)", "(,::1]"],
        "boolrange" => &["[f,t]"],
        "bytesrange" => &["[\"\\\\x00\",\"\\\\xff\")"],
        "pairrange" => &["[\"(1,\"\"a b\"\")\",\"(2,)\")", "(,\"(,)\")"],
        "intsrange" => &["[\"{}\",\"{{1,2},{3,NULL}}\")", "[\"[0:1]={1,2}\",)"],
        "textsrange" => &["[\"{}\",\"{\"\"\"\",\"\"NULL\"\",NULL,\"\"a b\"\",\"\"{}\"\"}\")"],
        "moodrange" => &["[calm,\"very cross\"]"],
        "spanrange" => &["[\"[1,2)\",\"[3,)\")", "[empty,\"(,)\"]"],
        "timerange" => &["[\"1 day\",\"1 year -2 days\")"],
        "jsonrange" => &["[null,\"{\"\"a\"\": [1]}\")"],
        "cuberange" => &["empty", "[\"(1)\",\"(2)\")"],
        "textmultirange" => &["{}", "{[\"\",\"a b\"),(\"c,\",\"d\\\"\"]}"],
        "floatmultirange" => &["{[1e-07,1e+20)}"],
        "cubemultirange" => &["{}", "{[\"(1)\",\"(2)\")}"],
        name if name.ends_with("multirange") && !name.starts_with('_') => &["{}", "{(,)}"],
        _ => return None,
    })
}
