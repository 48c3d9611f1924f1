//! sql (to come).
