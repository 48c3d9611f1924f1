//! The gRPC code of every SQLSTATE: one flat table, which docs/errors.md repeats for callers.

use tonic::Code;

/// The code of an SQLSTATE (PostgreSQL, appendix A): by its row where it has one, else by its class.
pub(super) fn code_of(sqlstate: &str) -> Code {
    let row = |wanted: &str| CODES.iter().find(|(given, _)| *given == wanted).map(|(_, code)| *code);
    // A class that PostgreSQL does not have: RAISE takes any five characters.
    row(sqlstate).or_else(|| row(sqlstate.get(..2)?)).unwrap_or(Code::Unknown)
}

/// Classes (two characters), each followed by those of its conditions (five) that say more than their class.
///
/// Only what a caller can send again as it is, and soon, is UNAVAILABLE: clients' own machinery does so by itself.
pub(super) const CODES: &[(&str, Code)] = &[
    ("00", Code::Unknown),
    ("01", Code::Unknown),
    ("02", Code::NotFound),
    ("03", Code::FailedPrecondition),
    ("08", Code::Unavailable),
    ("08007", Code::Unknown),
    ("08P01", Code::Internal),
    ("09", Code::FailedPrecondition),
    ("0A", Code::Unimplemented),
    ("0B", Code::FailedPrecondition),
    ("0F", Code::InvalidArgument),
    ("0L", Code::PermissionDenied),
    ("0P", Code::InvalidArgument),
    ("0Z", Code::FailedPrecondition),
    ("10", Code::InvalidArgument),
    ("20", Code::FailedPrecondition),
    ("21", Code::InvalidArgument),
    ("22", Code::InvalidArgument),
    ("23", Code::FailedPrecondition),
    ("23505", Code::AlreadyExists),
    ("23P01", Code::AlreadyExists),
    ("24", Code::FailedPrecondition),
    ("25", Code::FailedPrecondition),
    ("25006", Code::InvalidArgument),
    ("25P03", Code::Aborted),
    ("25P04", Code::Aborted),
    ("26", Code::InvalidArgument),
    ("27", Code::FailedPrecondition),
    ("28", Code::PermissionDenied),
    ("2B", Code::FailedPrecondition),
    ("2D", Code::FailedPrecondition),
    ("2F", Code::FailedPrecondition),
    ("34", Code::InvalidArgument),
    ("38", Code::FailedPrecondition),
    ("39", Code::FailedPrecondition),
    ("3B", Code::FailedPrecondition),
    ("3D", Code::NotFound),
    ("3F", Code::NotFound),
    ("40", Code::Aborted),
    ("40003", Code::Unknown),
    ("42", Code::InvalidArgument),
    ("42501", Code::PermissionDenied),
    ("42703", Code::NotFound),
    ("42704", Code::NotFound),
    ("42883", Code::NotFound),
    ("42P01", Code::NotFound),
    ("42710", Code::AlreadyExists),
    ("42723", Code::AlreadyExists),
    ("42P03", Code::AlreadyExists),
    ("42P04", Code::AlreadyExists),
    ("42P05", Code::AlreadyExists),
    ("42P06", Code::AlreadyExists),
    ("42P07", Code::AlreadyExists),
    ("44", Code::FailedPrecondition),
    ("53", Code::ResourceExhausted),
    ("54", Code::ResourceExhausted),
    ("55", Code::FailedPrecondition),
    ("55P03", Code::Aborted),
    ("57", Code::Unavailable),
    ("57014", Code::Cancelled),
    ("57P04", Code::NotFound),
    ("58", Code::Internal),
    ("72", Code::Aborted),
    ("F0", Code::Internal),
    ("HV", Code::Internal),
    ("HV001", Code::ResourceExhausted),
    ("HV00N", Code::Unavailable),
    ("P0", Code::FailedPrecondition),
    ("P0002", Code::NotFound),
    ("XX", Code::Internal),
    ("XX001", Code::DataLoss),
    ("XX002", Code::DataLoss),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every class of appendix A in PostgreSQL 15 to 18.
    const CLASSES: &str = "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F \
                           40 42 44 53 54 55 57 58 72 F0 HV P0 XX";

    #[test]
    fn every_class_has_a_row_and_none_has_two() {
        let mut classes: Vec<_> = CODES.iter().map(|(given, _)| *given).filter(|given| given.len() == 2).collect();
        classes.sort_unstable();
        assert_eq!(classes, CLASSES.split_whitespace().collect::<Vec<_>>());
        let mut rows: Vec<_> = CODES.iter().map(|(given, _)| given).collect();
        let count = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), count, "a row stands twice");
    }

    #[test]
    fn a_condition_says_more_than_its_class_or_has_no_row() {
        for (condition, code) in CODES.iter().filter(|(given, _)| given.len() != 2) {
            assert_eq!(condition.len(), 5, "{condition}");
            assert_ne!(code_of(&condition[..2]), *code, "{condition} says what its class says: drop the row");
        }
    }

    #[test]
    fn an_sqlstate_goes_by_its_row_then_by_its_class() {
        let cases = [
            ("23505", Code::AlreadyExists),
            ("23503", Code::FailedPrecondition),
            ("40001", Code::Aborted),
            ("40P01", Code::Aborted),
            ("42501", Code::PermissionDenied),
            ("57014", Code::Cancelled),
            ("57P01", Code::Unavailable),
            ("53300", Code::ResourceExhausted),
            ("55P03", Code::Aborted),
            ("ZZ999", Code::Unknown),
            ("", Code::Unknown),
            ("é0000", Code::Unknown),
        ];
        for (sqlstate, code) in cases {
            assert_eq!(code_of(sqlstate), code, "{sqlstate}");
        }
    }
}
