//! The nemesis: does to servers and brokers what the plan says, heals it, waits until all has healed, and leaves all alone for
//! a while. It alone knows who is the primary.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidegate::dev::{Cluster, DevError, Server};
use tokio::time::sleep;

use super::{
    brokers::Broker,
    plan::{Fault, Step},
    recorder::Recorder,
    store::ROLE,
};

/// Acknowledged writes are on one replica at least. A server that is the primary itself never connects under its own name.
const SYNCHRONOUS: &str = "ANY 1 (\"primary\", \"replica1\", \"replica2\")";
/// How often a replica is asked whether it still receives.
const POLL: Duration = Duration::from_millis(50);

/// What goes on, for the line of progress.
#[derive(Debug, Default)]
pub struct Phase(Mutex<String>);

impl Phase {
    pub fn set(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub struct Nemesis<'a> {
    brokers: &'a [Broker],
    recorder: &'a Recorder,
    phase: &'a Phase,
    primary: Arc<Server>,
    replicas: Vec<Arc<Server>>,
    /// What did not heal, a line each.
    pub unhealed: Vec<String>,
    pub faults: u64,
}

impl<'a> Nemesis<'a> {
    pub fn new(cluster: &Cluster, brokers: &'a [Broker], recorder: &'a Recorder, phase: &'a Phase) -> Nemesis<'a> {
        let (primary, replicas) = (Arc::clone(cluster.primary()), cluster.replicas().to_vec());
        Nemesis { brokers, recorder, phase, primary, replicas, unhealed: vec![], faults: 0 }
    }

    /// The primary of the moment.
    pub fn primary(&self) -> &Server {
        &self.primary
    }

    /// Makes every server a primary, should it come to be one, that waits for a replica before it acknowledges.
    pub async fn replicate_synchronously(&self) -> Result<(), DevError> {
        for server in self.replicas.iter().chain([&self.primary]) {
            server.set("synchronous_standby_names", SYNCHRONOUS).await?;
        }
        Ok(())
    }

    /// Does one step, and returns when its calm has passed.
    pub async fn go(&mut self, step: &Step) -> Result<(), DevError> {
        self.phase.set(format!("{:?}", step.fault));
        self.recorder.set_calm(false);
        self.faults += 1;
        self.inflict(step).await?;
        self.phase.set(format!("{:?}: healing", step.fault));
        self.settle(&format!("{step}")).await?;
        self.phase.set("calm");
        self.recorder.set_calm(true);
        sleep(Duration::from_millis(step.calm_ms)).await;
        self.recorder.set_calm(false);
        Ok(())
    }

    /// Waits until every replica follows, and every broker has found all servers.
    pub async fn settle(&mut self, after: &str) -> Result<(), DevError> {
        for replica in &self.replicas {
            replica.wait_streaming(&self.primary).await?;
            replica.catch_up(&self.primary).await?;
        }
        for broker in self.brokers {
            if let Some(status) = broker.has_ended().await {
                self.unhealed.push(format!("broker {} ended by itself after {after}: {status}", broker.name));
                broker.stop().await;
                broker.run().await;
            }
            if !broker.finds(self.replicas.len()).await {
                self.unhealed.push(format!("broker {} did not find all servers after {after}", broker.name));
            }
        }
        Ok(())
    }

    async fn inflict(&mut self, step: &Step) -> Result<(), DevError> {
        let lasts = Duration::from_millis(step.lasts_ms);
        let replica = Arc::clone(&self.replicas[step.whom % self.replicas.len()]);
        let broker = &self.brokers[step.whom % self.brokers.len()];
        match step.fault {
            Fault::PauseReplay | Fault::PauseAllReplay => {
                let is_hit = |at| step.fault == Fault::PauseAllReplay || at == step.whom % self.replicas.len();
                let hit: Vec<_> = (0..self.replicas.len()).filter(|at| is_hit(*at)).collect();
                for at in &hit {
                    self.replicas[*at].pause_replay().await?;
                }
                sleep(lasts).await;
                for at in &hit {
                    self.replicas[*at].resume_replay().await?;
                }
            }
            Fault::DelayReplay => {
                replica.apply_delay(Duration::from_millis(200 + step.lasts_ms / 4)).await?;
                sleep(lasts).await;
                replica.reset("recovery_min_apply_delay").await?;
            }
            Fault::KillReplica => {
                replica.kill().await?;
                sleep(lasts).await;
                replica.start().await?;
            }
            Fault::FreezeReplica => freeze(&replica, lasts).await?,
            Fault::FreezePrimary => freeze(&self.primary, lasts).await?,
            Fault::CrashReplica => {
                crash(&replica).await?;
                sleep(lasts).await;
                replica.wait_ready().await?;
            }
            Fault::CutServer | Fault::SilenceServer | Fault::SlowServer => self.disconnect(step, lasts).await,
            Fault::RestartPrimary => {
                self.primary.kill().await?;
                sleep(lasts / 2).await;
                self.primary.start().await?;
            }
            Fault::FailOver | Fault::SwitchOver | Fault::TwoPrimaries => self.change_primary(step.fault, lasts).await?,
            Fault::RestartBroker | Fault::KillBroker => {
                if step.fault == Fault::KillBroker {
                    broker.kill().await;
                } else if !broker.stop().await {
                    self.unhealed.push(format!("broker {} did not stop in order: {step}", broker.name));
                }
                sleep(lasts / 2).await;
                broker.run().await;
            }
            Fault::Reload => {
                broker.configure(Some(&replica));
                broker.reload().await;
                sleep(lasts).await;
                broker.configure(None);
                broker.reload().await;
            }
        }
        Ok(())
    }

    /// Faults between the brokers and one server, the primary among them.
    async fn disconnect(&self, step: &Step, lasts: Duration) {
        let mut all = self.replicas.iter().chain([&self.primary]);
        let proxy = all.nth(step.whom % (self.replicas.len() + 1)).unwrap_or(&self.primary).proxy();
        match step.fault {
            Fault::CutServer => proxy.cut().await,
            Fault::SilenceServer => proxy.blackhole().await,
            _ => proxy.delay(Duration::from_millis(20 + step.lasts_ms / 20)),
        }
        sleep(lasts).await;
        proxy.delay(Duration::ZERO);
        proxy.restore().await;
    }

    /// The old primary ends or stops, whichever replica has received the most becomes the new one; the old one is made a
    /// replica again.
    async fn change_primary(&mut self, fault: Fault, lasts: Duration) -> Result<(), DevError> {
        let old = Arc::clone(&self.primary);
        match fault {
            Fault::SwitchOver => old.stop().await?,
            Fault::TwoPrimaries => old.pause().await?,
            _ => old.kill().await?,
        }
        sleep(lasts / 2).await;
        let heir = self.most_advanced().await?;
        let new = self.replicas.remove(heir);
        new.promote().await?;
        for replica in &self.replicas {
            replica.follow(&new).await?;
        }
        self.primary = new;
        if fault == Fault::TwoPrimaries {
            // It takes itself for the primary still; nobody follows it any more, so it acknowledges nothing.
            old.unpause().await?;
            sleep(lasts / 2).await;
        }
        old.rebuild_from(&self.primary).await?;
        old.set("synchronous_standby_names", SYNCHRONOUS).await?;
        self.replicas.push(old);
        self.replicas.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(())
    }

    /// The replica that has received the most, once nothing more arrives: what was on its way when the primary ended may
    /// still come in.
    async fn most_advanced(&self) -> Result<usize, DevError> {
        let mut before = vec![];
        loop {
            let mut received: Vec<(u64, usize)> = vec![];
            for (at, replica) in self.replicas.iter().enumerate() {
                let sql = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
                received.push((replica.sql_value(sql).await?, at));
            }
            if received == before {
                return Ok(received.into_iter().max().map_or(0, |(_, at)| at));
            }
            before = received;
            sleep(POLL).await;
        }
    }
}

async fn freeze(server: &Server, lasts: Duration) -> Result<(), DevError> {
    server.pause().await?;
    sleep(lasts).await;
    server.unpause().await
}

/// Kills one of the brokers' backends there: PostgreSQL ends all others, and recovers.
async fn crash(server: &Server) -> Result<(), DevError> {
    let backends = format!("SELECT coalesce(min(pid), 0) FROM pg_stat_activity WHERE usename = '{ROLE}'");
    match server.sql_value(&backends).await? {
        0 => Ok(()),
        pid => match server.kill_backend(pid).await {
            // It ended by itself meanwhile.
            Err(DevError::NotOurs { .. }) => Ok(()),
            other => other,
        },
    }
}
