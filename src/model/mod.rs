//! model (to come).
