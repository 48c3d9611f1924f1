//! Small writes that gather what others are about to send. Of many tasks that are ready, each hands its message to the task
//! of a connection, which would run at once, and send every message by itself: a system call, a packet, and often a
//! change of process on the other side, for each. So before a small write the task goes once to the end of its line, and
//! sends what has come together by then. Nobody waits who has the connection to himself: another thread might take the task
//! over, at a price. Nothing waits for a clock. Below TLS, which takes what it is given at once, little comes together.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is written at a time from here on is sent at once, in bytes: it takes a packet of its own anyway.
const SMALL_BYTES: usize = 4 << 10;

/// Those who share a connection at the moment.
#[derive(Debug, Clone)]
pub struct Sharers {
    count: Arc<AtomicUsize>,
    /// How many are counted when somebody writes who has it to himself.
    alone: usize,
}

impl Sharers {
    /// Those whose requests are under way on it: whoever sends one is among them.
    #[must_use]
    pub fn of_requests() -> Sharers {
        Sharers { count: Arc::default(), alone: 1 }
    }

    /// Those who wait for an answer on it: whoever gets one is not among them any more.
    #[must_use]
    pub fn of_answers() -> Sharers {
        Sharers { count: Arc::default(), alone: 0 }
    }

    /// Counts one more, until it is dropped.
    #[must_use]
    pub fn enter(&self) -> Sharer {
        self.count.fetch_add(1, Ordering::Relaxed);
        Sharer(Arc::clone(&self.count))
    }

    fn are_several(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.alone
    }
}

impl Default for Sharers {
    fn default() -> Sharers {
        Sharers::of_requests()
    }
}

/// One of those who share a connection.
#[derive(Debug)]
pub struct Sharer(Arc<AtomicUsize>);

impl Drop for Sharer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the next small write lets others go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Due,
    /// It has: the task is at the end of the line, or was.
    Waited,
    /// Nor do those behind it, until the task has looked for what is new: they are of the same batch.
    Taken,
}

/// A stream whose small writes gather.
#[derive(Debug)]
pub struct Gather<S> {
    inner: S,
    sharers: Sharers,
    turn: Turn,
}

impl<S> Gather<S> {
    /// Lets small writes to `inner` gather. Whoever writes must offer all that it has by then, not what it had before.
    pub fn new(inner: S, sharers: Sharers) -> Gather<S> {
        Gather { inner, sharers, turn: Turn::Due }
    }

    /// Whether so many bytes go now. If not, the task is polled again, behind those that are in line.
    fn poll_turn(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        if bytes >= SMALL_BYTES || self.turn != Turn::Due || !self.sharers.are_several() {
            return Poll::Ready(());
        }
        self.turn = Turn::Waited;
        // A task that wakes itself goes to the end of tokio's line, unlike one that another wakes.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() && self.turn == Turn::Waited {
            self.turn = Turn::Taken;
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn == Turn::Taken {
            self.turn = Turn::Due;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(cx, buf.len()));
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(cx, bufs.iter().map(|buf| buf.len()).sum()));
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque, future::poll_fn, rc::Rc};

    use tokio::{sync::mpsc, task::LocalSet};

    use super::*;

    /// What it is given, one entry a write; a write finds it full as often as it is said.
    #[derive(Default)]
    struct Sink {
        writes: Rc<RefCell<Vec<Vec<u8>>>>,
        full: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.full > 0 {
                self.full -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.writes.borrow_mut().push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// As tokio-postgres and h2 do: takes in what has come, then offers all of it.
    async fn send_on(mut messages: mpsc::UnboundedReceiver<Vec<u8>>, sink: Sink, sharers: Sharers) {
        let mut out = Gather::new(sink, sharers);
        let mut pending = VecDeque::new();
        poll_fn(|cx| {
            loop {
                let is_over = loop {
                    match messages.poll_recv(cx) {
                        Poll::Ready(Some(message)) => pending.extend(message),
                        Poll::Ready(None) => break true,
                        Poll::Pending => break false,
                    }
                };
                if pending.is_empty() {
                    return if is_over { Poll::Ready(()) } else { Poll::Pending };
                }
                let Ok(written) = std::task::ready!(Pin::new(&mut out).poll_write(cx, pending.make_contiguous()))
                else {
                    unreachable!("a sink takes all");
                };
                pending.drain(..written);
            }
        })
        .await;
    }

    fn sent(full: usize, messages: &[usize]) -> Vec<usize> {
        let writes = Rc::new(RefCell::default());
        let sink = Sink { writes: Rc::clone(&writes), full };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(LocalSet::new().run_until(async {
            let (sender, receiver) = mpsc::unbounded_channel();
            let sharers = Sharers::of_requests();
            let _all: Vec<_> = messages.iter().map(|_| sharers.enter()).collect();
            let sending = tokio::task::spawn_local(send_on(receiver, sink, sharers));
            // Each is ready; the first one's message wakes the connection's task in front of the others.
            let tasks: Vec<_> = messages
                .iter()
                .map(|bytes| {
                    let (sender, message) = (sender.clone(), vec![7; *bytes]);
                    tokio::task::spawn_local(async move { sender.send(message).expect("it is taken") })
                })
                .collect();
            drop(sender);
            for task in tasks {
                task.await.expect("it ends");
            }
            sending.await.expect("it ends");
        }));
        writes.borrow().iter().map(Vec::len).collect()
    }

    #[test]
    fn what_ready_tasks_send_goes_together_and_all_of_it_arrives() {
        for full in [0, 1, 3] {
            assert_eq!(sent(full, &[10, 20, 30]), [60], "{full}");
        }
        assert_eq!(sent(0, &[10]), [10]);
    }

    impl AsyncRead for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    fn polled(gather: &mut Gather<Sink>, bytes: usize) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(gather).poll_write(&mut cx, &vec![0; bytes]).is_ready()
    }

    fn read(gather: &mut Gather<Sink>) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(gather).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 1])).is_pending());
    }

    #[test]
    fn a_large_write_goes_at_once_and_a_batch_of_small_ones_waits_once() {
        let sharers = Sharers::of_answers();
        let _another = sharers.enter();
        let mut gather = Gather::new(Sink { full: 1, ..Sink::default() }, sharers);
        assert!(!polled(&mut gather, SMALL_BYTES) && polled(&mut gather, SMALL_BYTES), "full, and then not");
        for _ in 0..2 {
            assert!(!polled(&mut gather, 1), "others go first");
            read(&mut gather);
            assert!(polled(&mut gather, 1) && polled(&mut gather, 1), "what belongs to it goes with it");
            read(&mut gather);
        }
        gather.inner.full = 2;
        assert!(
            !polled(&mut gather, 1) && !polled(&mut gather, 1) && !polled(&mut gather, 1),
            "its turn, and full twice"
        );
        assert!(polled(&mut gather, 1));
    }

    #[test]
    fn who_has_the_connection_to_himself_does_not_wait() {
        let requests = Sharers::of_requests();
        let own = requests.enter();
        let mut gather = Gather::new(Sink::default(), requests.clone());
        assert!(polled(&mut gather, 1) && polled(&mut gather, 1));
        let another = requests.enter();
        assert!(!polled(&mut gather, 1) && polled(&mut gather, 1));
        read(&mut gather);
        drop(another);
        assert!(polled(&mut gather, 1));
        drop(own);

        let answers = Sharers::of_answers();
        let mut gather = Gather::new(Sink::default(), answers.clone());
        assert!(polled(&mut gather, 1));
        let _waits = answers.enter();
        assert!(!polled(&mut gather, 1));
    }
}
