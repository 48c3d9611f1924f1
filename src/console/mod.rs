//! console (to come).
