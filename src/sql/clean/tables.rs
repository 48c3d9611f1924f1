//! Flat tables: PostgreSQL's reserved words, the built-in functions that leave nothing behind, and the names of types.

/// Keywords that cannot be table or column names (`src/include/parser/kwlist.h`: reserved, and those for types and
/// functions only). sqlparser takes some of them for names, as ONLY in `FROM ONLY t`.
pub(super) const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary", "both",
    "case", "cast", "check", "collate", "collation", "column", "concurrently", "constraint", "create", "cross",
    "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp",
    "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for",
    "foreign", "freeze", "from", "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect",
    "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "localtime", "localtimestamp",
    "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer", "overlaps", "placing",
    "primary", "references", "returning", "right", "select", "session_user", "similar", "some", "symmetric",
    "system_user", "table", "tablesample", "then", "to", "trailing", "true", "union", "unique", "user", "using",
    "variadic", "verbose", "when", "where", "window", "with",
];

/// Function-like words of the grammar, which no function can shadow.
pub(super) const GRAMMAR_FUNCTIONS: &[&str] = &["coalesce", "nullif", "greatest", "least"];

/// Values of the grammar, written without parentheses.
pub(super) const GRAMMAR_VALUES: &[&str] = &[
    "current_catalog", "current_date", "current_role", "current_time", "current_timestamp", "current_user", "localtime",
    "localtimestamp", "session_user", "user",
];

/// Functions that are names to the lexer of PostgreSQL although their names are reserved elsewhere.
pub(super) const RESERVED_FUNCTIONS: &[&str] = &["left", "right"];

/// Built-in functions that read nothing but their arguments (and the clock), set nothing and lock nothing.
pub(super) const FUNCTIONS: &[&str] = &[
    // Aggregates.
    "array_agg", "avg", "bit_and", "bit_or", "bool_and", "bool_or", "corr", "count", "every", "json_agg",
    "json_object_agg", "jsonb_agg", "jsonb_object_agg", "max", "min", "mode", "percentile_cont", "percentile_disc",
    "stddev", "stddev_pop", "stddev_samp", "string_agg", "sum", "var_pop", "var_samp", "variance",
    // Windows.
    "cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "nth_value", "ntile", "percent_rank", "rank",
    "row_number",
    // Strings.
    "ascii", "bit_length", "btrim", "char_length", "character_length", "chr", "concat", "concat_ws", "decode", "encode",
    "format", "initcap", "left", "length", "lower", "lpad", "ltrim", "md5", "octet_length", "overlay", "position",
    "regexp_match", "regexp_matches", "regexp_replace", "regexp_split_to_array", "repeat", "replace", "reverse", "right",
    "rpad", "rtrim", "sha224", "sha256", "sha384", "sha512", "split_part", "starts_with", "strpos", "substr",
    "substring", "to_hex", "translate", "trim", "upper",
    // Numbers.
    "abs", "acos", "asin", "atan", "atan2", "cbrt", "ceil", "ceiling", "cos", "degrees", "div", "exp", "floor", "gcd",
    "lcm", "ln", "log", "mod", "pi", "power", "radians", "random", "round", "sign", "sin", "sqrt", "tan", "trunc",
    "width_bucket",
    // Dates and times.
    "age", "clock_timestamp", "date_bin", "date_part", "date_trunc", "extract", "isfinite", "justify_days",
    "justify_hours", "justify_interval", "make_date", "make_interval", "make_time", "make_timestamp",
    "make_timestamptz", "now", "statement_timestamp", "timezone", "to_char", "to_date", "to_number", "to_timestamp",
    "transaction_timestamp",
    // JSON.
    "json_array_length", "json_build_array", "json_build_object", "json_extract_path", "json_extract_path_text",
    "json_strip_nulls", "json_typeof", "jsonb_array_length", "jsonb_build_array", "jsonb_build_object",
    "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_pretty", "jsonb_set", "jsonb_strip_nulls", "jsonb_typeof",
    // Arrays and ranges.
    "array_append", "array_cat", "array_length", "array_lower", "array_ndims", "array_position", "array_prepend",
    "array_remove", "array_replace", "array_to_json", "array_to_string", "array_upper", "cardinality", "isempty",
    "lower_inc", "lower_inf", "string_to_array", "upper_inc", "upper_inf",
    // Of the server.
    "gen_random_uuid", "pg_backend_pid", "pg_is_in_recovery", "version",
];

/// Functions that return a set of single values: their alias is a value, not a row.
pub(super) const SET_FUNCTIONS: &[&str] = &[
    "generate_series", "generate_subscripts", "json_array_elements", "json_array_elements_text", "json_object_keys",
    "jsonb_array_elements", "jsonb_array_elements_text", "jsonb_object_keys", "regexp_split_to_table", "unnest",
];

/// Types that PostgreSQL finds by name along the search path; those of the grammar, such as `integer`, need no list.
pub(super) const TYPES: &[&str] = &[
    "bool", "bytea", "cidr", "date", "daterange", "float4", "float8", "inet", "int2", "int4", "int4range", "int8",
    "int8range", "json", "jsonb", "macaddr", "name", "numrange", "oid", "pg_lsn", "text", "timestamptz", "timetz",
    "tsrange", "tstzrange", "uuid", "xid8",
];

/// The operators that are looked up under these names.
pub(super) const OPERATORS: &[&str] = &[
    "!~", "!~*", "!~~", "!~~*", "#", "#>", "#>>", "%", "&", "&&", "*", "+", "-", "->", "->>", "/", "<", "<<", "<=",
    "<>", "<@", "=", ">", ">=", ">>", "?", "?&", "?|", "@>", "^", "^@", "|", "||", "~", "~*", "~~", "~~*",
];
