//! codec (to come).
