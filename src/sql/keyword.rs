//! The words that classification looks at, as an enum; the one place that compares a statement's text.

macro_rules! keywords {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A PostgreSQL keyword that says something about how a statement must be run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Keyword {
            $(#[doc = $text] $name,)*
        }

        impl Keyword {
            /// Recognises an unquoted word, whatever its case. Only ASCII letters fold, as in PostgreSQL.
            pub(super) fn of(word: &str) -> Option<Self> {
                $(if word.eq_ignore_ascii_case($text) {
                    return Some(Self::$name);
                })*
                None
            }
        }
    };
}

keywords! {
    Abort = "ABORT", Alter = "ALTER", As = "AS", Atomic = "ATOMIC", Begin = "BEGIN", Call = "CALL", Case = "CASE",
    Close = "CLOSE", Cluster = "CLUSTER", Commit = "COMMIT", Concurrently = "CONCURRENTLY", Copy = "COPY",
    Create = "CREATE", Database = "DATABASE", Deallocate = "DEALLOCATE", Declare = "DECLARE", Detach = "DETACH",
    Discard = "DISCARD", Do = "DO", Drop = "DROP", End = "END", Execute = "EXECUTE", Explain = "EXPLAIN",
    False = "FALSE", Fetch = "FETCH", From = "FROM", Function = "FUNCTION", Index = "INDEX", Listen = "LISTEN", Load = "LOAD",
    Move = "MOVE", Off = "OFF", Or = "OR", Partition = "PARTITION", Prepare = "PREPARE", Procedure = "PROCEDURE",
    Reindex = "REINDEX", Release = "RELEASE", Replace = "REPLACE", Reset = "RESET", Rollback = "ROLLBACK",
    Savepoint = "SAVEPOINT", Schema = "SCHEMA", Select = "SELECT", Set = "SET", Show = "SHOW", Start = "START", Stdin = "STDIN", Stdout = "STDOUT",
    Subscription = "SUBSCRIPTION", System = "SYSTEM", Table = "TABLE", Tablespace = "TABLESPACE", To = "TO", Unique = "UNIQUE",
    Unlisten = "UNLISTEN", Vacuum = "VACUUM", Values = "VALUES", Verbose = "VERBOSE", With = "WITH",
}

#[cfg(test)]
mod tests {
    use super::Keyword;

    #[test]
    fn case_folds_in_ascii_only() {
        assert_eq!(Keyword::of("cOmMiT"), Some(Keyword::Commit));
        assert_eq!(Keyword::of("COMMITS"), None);
        // U+212A KELVIN SIGN and U+017F LONG S fold to `k` and `s` in Unicode.
        assert_eq!(Keyword::of("ROLLBAC\u{212a}"), None);
        assert_eq!(Keyword::of("\u{17f}et"), None);
    }
}
