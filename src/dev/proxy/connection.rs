//! One proxied connection: two pumps, one each way, that pass chunks on as the weather allows.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::sleep,
};

use super::{Direction, Flow, Shared, cut::Messages, turns::Talk};

const CHUNK: usize = 64 * 1024;

/// Carries one client until both ways have ended, something breaks, or the proxy is cut.
pub(super) async fn run(mut client: TcpStream, number: u64, shared: Arc<Shared>) {
    let _counted = Counted::new(&shared.connections);
    let mut weather = shared.weather.subscribe();
    let dialled = tokio::select! {
        () = reaches(&mut weather, Flow::Cut) => None,
        dialled = dial(&shared) => dialled.ok(),
    };
    let Some(mut server) = dialled else { return reset(client) };
    let (talk, messages) = (Talk::new(number), Messages::new(number));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let pump = |direction| Pump { direction, shared: &shared, talk: &talk, messages: &messages };
        let (there, back) = (pump(Direction::ToServer), pump(Direction::ToClient));
        tokio::select! {
            () = reaches(&mut weather, Flow::Cut) => Err(Ended::Broken),
            ended = async { tokio::try_join!(there.run(from_client, to_server), back.run(from_server, to_client)) } => ended,
        }
    };
    match ended {
        Ok(_) => {}
        // A reset on one side is a reset on the other.
        Err(Ended::Broken) => {
            reset(client);
            reset(server);
        }
        Err(Ended::CutAt) => {
            reset(client);
            tokio::select! {
                () = reaches(&mut weather, Flow::Cut) => {}
                () = drain(&mut server) => {}
            }
        }
    }
}

/// Why a connection ends other than in order.
enum Ended {
    Broken,
    /// At a message, as planned.
    CutAt,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended::Broken
    }
}

/// Ends the server's side in order: it is to read all that was sent before it finds the end.
async fn drain(server: &mut TcpStream) {
    // A server that is gone has nothing more to read.
    let _ = server.shutdown().await;
    let _ = tokio::io::copy(server, &mut tokio::io::sink()).await;
}

/// The live count, kept right however the connection's task ends.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn reaches(weather: &mut watch::Receiver<super::Weather>, flow: Flow) {
    // It fails only when the proxy is gone, and then this task is being aborted.
    let _ = weather.wait_for(|weather| weather.flow == flow).await;
}

async fn dial(shared: &Shared) -> io::Result<TcpStream> {
    reaches(&mut shared.weather.subscribe(), Flow::Open).await;
    TcpStream::connect(shared.target).await
}

/// Closes with RST instead of FIN, as a machine that went away would.
fn reset(stream: TcpStream) {
    // If it fails, the client sees an end of the stream instead: cut off all the same.
    let _ = stream.set_zero_linger();
}

struct Pump<'a> {
    direction: Direction,
    shared: &'a Shared,
    talk: &'a Talk,
    messages: &'a Messages,
}

impl Pump<'_> {
    async fn run(self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Ended> {
        // Small messages must not wait for one another.
        to.as_ref().set_nodelay(true)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            self.before(&chunk[..length]).await;
            if length == 0 {
                // The other way may go on: a half-close is passed on as one.
                return Ok(to.shutdown().await?);
            }
            if let Some(length) = self.messages.cut(self.shared.plan(), self.direction, &chunk[..length]) {
                to.write_all(&chunk[..length]).await?;
                return Err(Ended::CutAt);
            }
            to.write_all(&chunk[..length]).await?;
        }
    }

    /// What happens between reading a chunk and passing it on (an empty one is the end of the stream). The one place for
    /// everything that looks at or holds traffic.
    async fn before(&self, chunk: &[u8]) {
        if self.direction == Direction::ToServer && !chunk.is_empty() {
            self.talk.client_wrote(self.shared.tally());
        }
        let weather = *self.shared.weather.borrow();
        let delay = match self.direction {
            Direction::ToServer => weather.delay_to_server,
            Direction::ToClient => weather.delay_to_client,
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let answers = self.direction == Direction::ToClient && !chunk.is_empty();
        if answers {
            self.talk.hold(self.shared.tally()).await;
        }
        // After the waits, so that a blackhole holds what was under way too. A cut ends us in `run`.
        reaches(&mut self.shared.weather.subscribe(), Flow::Open).await;
        if answers {
            self.talk.server_wrote();
        }
    }
}
