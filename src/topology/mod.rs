//! topology (to come).
