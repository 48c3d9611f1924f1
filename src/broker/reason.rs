//! The stable reasons for which calls fail. What each comes to is `grpc::status`'s, and docs/errors.md repeats it.

/// Defines [`Reason`] with the stable text of each.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What went wrong: part of the API, never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)+];

            /// The stable text, as in `google.rpc.ErrorInfo.reason`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// A required field is missing.
    FieldMissing = "FIELD_MISSING",
    /// A field's value is not acceptable.
    FieldInvalid = "FIELD_INVALID",
    /// A field that this version does not honour.
    FieldUnsupported = "FIELD_UNSUPPORTED",
    /// No such database is configured.
    DatabaseUnknown = "DATABASE_UNKNOWN",
    /// The SQL text is missing, or holds no statement.
    SqlMissing = "SQL_MISSING",
    /// The SQL text holds several statements.
    SqlMultipleStatements = "SQL_MULTIPLE_STATEMENTS",
    /// A statement that is not accepted as SQL text.
    SqlRefused = "SQL_REFUSED",
    /// A statement that is not clean, where only clean ones can run.
    NotClean = "NOT_CLEAN",
    /// The statement cannot run inside a transaction, and `outside_transaction` was not set.
    OutsideTransactionRequired = "OUTSIDE_TRANSACTION_REQUIRED",
    /// The number of parameters does not match the statement.
    ParameterCount = "PARAMETER_COUNT",
    /// A parameter does not fit its type.
    ParameterType = "PARAMETER_TYPE",
    /// A parameter without a kind.
    ValueUnset = "VALUE_UNSET",
    /// A type that this version does not carry.
    TypeUnsupported = "TYPE_UNSUPPORTED",
    /// Bytes from the server that do not decode.
    ResultMalformed = "RESULT_MALFORMED",
    /// A position token that is not one.
    PositionMalformed = "POSITION_MALFORMED",
    /// A position token that this deployment did not sign.
    PositionForeign = "POSITION_FOREIGN",
    /// A statement that writes, in ExecuteRead.
    WriteInRead = "WRITE_IN_READ",
    /// No host of the cluster is up.
    NoHostsAvailable = "NO_HOSTS_AVAILABLE",
    /// The call needs the primary, and there is none.
    NoPrimaryAvailable = "NO_PRIMARY_AVAILABLE",
    /// The call needs the primary, and several hosts claim to be it on one timeline: an operator has to decide.
    PrimaryConflict = "PRIMARY_CONFLICT",
    /// No connection could be made to the chosen hosts.
    ConnectFailed = "CONNECT_FAILED",
    /// No connection was proved to have replayed what the read must see.
    PositionUnproved = "POSITION_UNPROVED",
    /// A standby stopped the read, because replay could not go on otherwise.
    RecoveryConflict = "RECOVERY_CONFLICT",
    /// The connection to PostgreSQL was lost under way.
    ConnectionLost = "CONNECTION_LOST",
    /// Too many callers wait.
    Overloaded = "OVERLOADED",
    /// The deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    /// The caller left.
    CallerLeft = "CALLER_LEFT",
    /// The session's client cancelled the request.
    RequestCancelled = "REQUEST_CANCELLED",
    /// Nobody read the stream, or nothing came on it, for its idle timeout.
    StreamIdle = "STREAM_IDLE",
    /// One row is larger than a message may be.
    RowTooLarge = "ROW_TOO_LARGE",
    /// An idempotency key that stands for another write.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
    /// The table of idempotency keys is missing, or may not be used.
    IdempotencyNotSetUp = "IDEMPOTENCY_NOT_SET_UP",
    /// A write's result is larger than a message may be.
    ResultTooLarge = "RESULT_TOO_LARGE",
    /// A request message is larger than the broker takes.
    RequestTooLarge = "REQUEST_TOO_LARGE",
    /// PostgreSQL reported an error.
    Postgres = "POSTGRES_ERROR",
    /// The request names a transaction that is not open.
    TransactionNotOpen = "TRANSACTION_NOT_OPEN",
    /// A transaction is open already.
    TransactionOpen = "TRANSACTION_OPEN",
    /// The transaction has failed and can only be rolled back.
    TransactionFailed = "TRANSACTION_FAILED",
    /// The client ended a COPY without completing its data.
    CopyAborted = "COPY_ABORTED",
    /// The session has more unanswered requests than announced.
    TooManyUnanswered = "TOO_MANY_UNANSWERED",
    /// The session has lived for as long as it may.
    SessionLifetime = "SESSION_LIFETIME",
    /// The broker is shutting down.
    Draining = "DRAINING",
    /// The admin service's token is missing or wrong.
    AdminTokenInvalid = "ADMIN_TOKEN_INVALID",
    /// The admin service has no token, and the call comes from where it takes none without.
    AdminRefused = "ADMIN_REFUSED",
    /// No such host, or cluster, is configured.
    HostUnknown = "HOST_UNKNOWN",
    /// The host is a primary, which cannot be drained.
    HostIsPrimary = "HOST_IS_PRIMARY",
    /// There is no conflict to settle, or the host is no part of it.
    NoConflict = "NO_CONFLICT",
    /// The configuration is wrong, or cannot be read again.
    ConfigInvalid = "CONFIG_INVALID",
    /// The configuration changes something that takes a restart.
    RestartRequired = "RESTART_REQUIRED",
    /// A fault of the broker itself.
    Internal = "INTERNAL",
}
