//! broker (to come).
