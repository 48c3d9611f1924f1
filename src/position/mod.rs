//! position (to come).
