//! The flags of `tidegate serve` and `tidegate check`. No secret has a flag of its own: a command line is
//! visible to every user of the machine.

use std::path::PathBuf;

/// Where the configuration comes from, and the settings that are most often given by hand.
#[derive(Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// The configuration file (TOML); also TIDEGATE_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The primary, as postgres://user@host:port/dbname (put the password into TIDEGATE_PASSWORD)
    #[arg(long, value_name = "URL")]
    pub primary: Option<String>,
    /// A streaming replica, as postgres://user@host:port/dbname; repeat for more
    #[arg(long = "replica", value_name = "URL")]
    pub replicas: Vec<String>,
    /// Where gRPC listens [default: 127.0.0.1:7432]
    #[arg(long, value_name = "ADDRESS")]
    pub grpc_listen: Option<String>,
    /// Where metrics and health listen [default: 127.0.0.1:7433]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// A level (error, warn, info, debug, trace) or a filter such as info,tidegate::topology=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// Send traces to this OpenTelemetry collector, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// A file with the secret that signs position tokens (the same for every broker of a cluster)
    #[arg(long, value_name = "FILE")]
    pub token_secret_file: Option<PathBuf>,
}

// By hand, with the flags' names only: a URL may carry a password.
impl std::fmt::Debug for ServeFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.given().iter().map(|(flag, _, _)| flag)).finish()
    }
}

impl ServeFlags {
    /// The flags that were given, as (flag, configuration key, value). `--config` is not among them.
    pub(super) fn given(&self) -> Vec<(&'static str, &'static str, toml::Value)> {
        let text = |value: &Option<String>| value.clone().map(toml::Value::String);
        let replicas = self.replicas.iter().cloned().map(toml::Value::String).collect::<Vec<_>>();
        let secret_file = self.token_secret_file.as_ref().map(|path| path.to_string_lossy().into_owned());
        [
            ("--primary", "primary", text(&self.primary)),
            ("--replica", "replicas", (!replicas.is_empty()).then_some(toml::Value::Array(replicas))),
            ("--grpc-listen", "grpc.listen", text(&self.grpc_listen)),
            ("--http-listen", "http.listen", text(&self.http_listen)),
            ("--log-format", "telemetry.log_format", text(&self.log_format)),
            ("--log-level", "telemetry.log_level", text(&self.log_level)),
            ("--otlp-endpoint", "telemetry.otlp_endpoint", text(&self.otlp_endpoint)),
            ("--token-secret-file", "tokens.secret_file", secret_file.map(toml::Value::String)),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| value.map(|value| (flag, key, value)))
        .collect()
    }
}
