//! postgres (to come).
