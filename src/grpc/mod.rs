//! grpc (to come).
