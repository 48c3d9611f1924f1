//! Reads the configuration anew and applies it: what came of it is counted, logged and reported.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{App, Control};
use crate::{
    broker::{Failure, Reason},
    config::{Change, Config, Files, Problems, Source},
    telemetry::{LogFilter, Metrics},
};

/// Between two looks at the files.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadReport {
    /// Nothing, or everything that differed.
    pub changes: Vec<Change>,
}

/// Why a reload was not taken over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReloadRefused {
    /// The configuration is wrong.
    #[error("the configuration is wrong:\n{0}")]
    Wrong(#[from] Problems),
    /// These take a restart.
    #[error("this takes a restart:\n{}", lines(.0))]
    NeedsRestart(Vec<Change>),
    /// A fault of the broker ended it half-way.
    #[error("a fault of the broker, which its standard error shows, ended it half-way; {}: report the fault", state_after(*.undone))]
    Failed {
        /// Whether what was before is in force again.
        undone: bool,
    },
}

fn state_after(undone: bool) -> &'static str {
    if undone {
        "the broker goes on with the configuration that it had"
    } else {
        "parts of it may be in force, until a reload succeeds or the broker is restarted"
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() { f.write_str("nothing has changed") } else { f.write_str(&lines(&self.changes)) }
    }
}

impl ReloadRefused {
    /// As who asked over gRPC is told.
    fn failure(&self) -> Failure {
        let reason = match self {
            ReloadRefused::Wrong(_) => Reason::ConfigInvalid,
            ReloadRefused::NeedsRestart(_) => Reason::RestartRequired,
            ReloadRefused::Failed { .. } => return Failure::new(Reason::Internal, self.to_string()),
        };
        Failure::new(reason, format!("nothing was changed: {self}"))
    }
}

fn lines(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads the configuration anew from where it came, for whoever asks: a signal, a file that changed, an operator's call.
pub struct Reloader {
    control: Arc<Control>,
    source: Arc<Source>,
    logs: Option<LogFilter>,
    metrics: Metrics,
    /// What was read last.
    files: Mutex<Files>,
    /// Reloads go one at a time, each from the reading of the files on.
    turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// For a broker that was started with what `source` gave, when it read `files`. `logs` takes over a changed log level.
    pub fn new(app: &App, source: Source, files: Files, logs: Option<LogFilter>) -> Reloader {
        Reloader {
            control: Arc::clone(app.control()),
            source: Arc::new(source),
            logs,
            metrics: app.broker().metrics().clone(),
            files: Mutex::new(files),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Lets the admin service of this broker reload.
    pub fn serve_operators(self: &Arc<Self>, app: &App) {
        let reloader = Arc::clone(self);
        app.reload.offer(move || {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move {
                let changes = reloader.reload().await.map_err(|refused| refused.failure())?.changes;
                Ok(changes.into_iter().map(|change| (change.key, change.what)).collect())
            })
        });
    }

    /// Reads the configuration anew and applies it.
    ///
    /// # Errors
    /// It is wrong, or changes something that takes a restart: then nothing was changed. Or the broker's own fault ended it:
    /// see [`Control::apply`].
    pub async fn reload(&self) -> Result<ReloadReport, ReloadRefused> {
        let _turn = self.turn.lock().await;
        let result = match self.read().await {
            Ok(config) => self.apply(config).await,
            Err(problems) => Err(ReloadRefused::Wrong(problems)),
        };
        match &result {
            Ok(report) => {
                self.metrics.reloaded(if report.changes.is_empty() { "unchanged" } else { "applied" });
                tracing::info!(changes = %report, "configuration reloaded");
            }
            Err(failed @ ReloadRefused::Failed { .. }) => {
                self.metrics.reloaded("failed");
                tracing::error!(reason = %failed, "configuration not reloaded");
            }
            Err(refused) => {
                self.metrics.reloaded("refused");
                tracing::error!(reason = %refused, "configuration not reloaded: the broker goes on with the one it has");
            }
        }
        result
    }

    async fn apply(&self, config: Config) -> Result<ReloadReport, ReloadRefused> {
        let filter = config.telemetry.log_filter.clone();
        let report = self.control.apply(config).await?;
        if let Some(logs) = &self.logs
            && let Err(error) = logs.set(&filter)
        {
            // Validation has parsed it already.
            tracing::warn!(%error, "the log level stays as it was");
        }
        Ok(report)
    }

    async fn read(&self) -> Result<Config, Problems> {
        let source = Arc::clone(&self.source);
        let (loaded, files) = match tokio::task::spawn_blocking(move || source.load()).await {
            Ok(read) => read,
            // It was logged by the runtime; at a shutdown nobody cares.
            Err(_) => return Err(Problems::of("config", "could not be read")),
        };
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        loaded
    }

    /// Reloads whenever the files that the configuration came from have changed and stay the same for two looks: what is
    /// still being written is left alone. Only while `reload.watch` is on. Never returns.
    pub async fn watch(&self) {
        let mut seen: Option<Files> = None;
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            if !self.control.is_watching().await {
                seen = None;
                continue;
            }
            let read = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let before = read.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || before.now()).await else { continue };
            if now == read {
                seen = None;
            } else if seen.as_ref() == Some(&now) {
                seen = None;
                // Reported and logged there; what is wrong is read again once it has changed.
                let _ = self.reload().await;
            } else {
                seen = Some(now);
            }
        }
    }
}
