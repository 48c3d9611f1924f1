//! dev (to come).
