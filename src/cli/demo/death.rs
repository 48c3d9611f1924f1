//! The step in which a replica dies under load: no read fails.

use std::collections::BTreeMap;

use serde_json::json;
use tidegate_client::{Client, HostRole, Receipt};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    report::Report,
    tour::{TourError, demand, read},
};
use crate::{
    cli::local::{Local, PATIENCE},
    dev::Server,
    model::HostHealth,
};

const READERS: usize = 8;
/// Reads of the replica that is to die, before it does.
const READS_BEFORE: u64 = 50;
/// Reads once the broker knows of its death.
const READS_AFTER: u64 = 200;

/// What the readers met with.
#[derive(Default)]
struct Reads {
    by_host: BTreeMap<String, u64>,
    retried: u64,
}

pub(super) async fn show(local: &Local, report: &mut Report, client: &Client) -> Result<(), TourError> {
    let victim = local.cluster.replica(1);
    report.step(&format!("A replica is killed (SIGKILL) while {READERS} callers read: no read fails"));
    let watched = watch_it_die(local, client, victim);
    let late = |_| TourError::TimedOut { what: "reads go on while a replica dies" };
    let reads = tokio::time::timeout(PATIENCE, watched).await.map_err(late)??;
    let sum: u64 = reads.by_host.values().sum();
    let hosts: Vec<_> = reads.by_host.iter().map(|(host, count)| format!("{host} {count}")).collect();
    let line = format!("{sum} reads, 0 failed, {} repeated on another host ({})", reads.retried, hosts.join(", "));
    report.sum(&line, json!({ "reads": sum, "failed": 0, "retried": reads.retried, "by_host": reads.by_host }));
    let (_, receipt) = read(client, 0).await?;
    report.call("a read after that", &receipt);
    let goes_on = receipt.role() == HostRole::Replica && receipt.host != victim.name();
    demand(goes_on, "the other replica did not take the reads")?;
    victim.start().await?;
    let name = victim.name();
    let is_back = |host: &crate::model::HostView| host.is_up_replica() && host.passed_sample_at.is_some();
    let back = local.wait_until(|view| view.hosts.iter().any(|host| &*host.name == name && is_back(host))).await;
    if !back {
        return Err(TourError::TimedOut { what: "the killed replica comes back" });
    }
    report.note(&format!("   {name} was started again, and takes reads"));
    Ok(())
}

/// Reads without pause; kills the victim in the middle; ends once the broker has known of its death for a while.
async fn watch_it_die(local: &Local, client: &Client, victim: &Server) -> Result<Reads, TourError> {
    let (sender, mut answers) = mpsc::channel(READERS);
    let mut readers = JoinSet::new(); // aborted when it is dropped
    for _ in 0..READERS {
        readers.spawn(read_on(client.clone(), sender.clone()));
    }
    let mut reads = Reads::default();
    while reads.of(victim.name()) < READS_BEFORE {
        reads.count(answers.recv().await)?;
    }
    let death = async {
        victim.kill().await?;
        let is_down = |host: &crate::model::HostView| &*host.name == victim.name() && host.health == HostHealth::Down;
        let known = local.wait_until(|view| view.hosts.iter().any(is_down)).await;
        if known { Ok(()) } else { Err(TourError::TimedOut { what: "the broker notices the death" }) }
    };
    tokio::pin!(death);
    loop {
        tokio::select! {
            dead = &mut death => break dead?,
            answer = answers.recv() => reads.count(answer)?,
        }
    }
    for _ in 0..READS_AFTER {
        reads.count(answers.recv().await)?;
    }
    Ok(reads)
}

async fn read_on(client: Client, answers: mpsc::Sender<Result<Receipt, TourError>>) {
    loop {
        let answer = read(&client, 0).await.map(|(_, receipt)| receipt);
        if answers.send(answer).await.is_err() {
            return; // nobody wants to hear more
        }
    }
}

impl Reads {
    fn of(&self, host: &str) -> u64 {
        self.by_host.get(host).copied().unwrap_or(0)
    }

    fn count(&mut self, answer: Option<Result<Receipt, TourError>>) -> Result<(), TourError> {
        let receipt = answer.unwrap_or_else(|| Err(TourError::NotShown("the readers ended".into())))?;
        self.retried += u64::from(receipt.attempts > 1);
        *self.by_host.entry(receipt.host).or_default() += 1;
        Ok(())
    }
}
