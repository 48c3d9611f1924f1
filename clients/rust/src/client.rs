//! The client: one HTTP/2 connection to a broker, and the context that every call carries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::{
    error::Error,
    listen::ListenStream,
    positions::Positions,
    proto::{self, broker_service_client::BrokerServiceClient},
    read::{ReadOptions, ReadStream},
    session::Session,
    session_raw::RawSession,
    value::Value,
    write::{Statement, WriteOptions, Written},
};

/// A client of a broker. Cloning is cheap; clones share the connection and the memory of position tokens.
///
/// The client remembers the position token of each answer and carries it to its next calls, so a read sees the writes
/// that this client made before. For callers that must not see each other's positions use [`Client::for_session`].
#[derive(Clone, Debug)]
pub struct Client {
    stub: BrokerServiceClient<Channel>,
    settings: Settings,
    positions: Arc<Positions>,
}

/// What every call of a client has in common.
#[derive(Clone, Debug, Default)]
struct Settings {
    database: String,
    session_id: String,
    timeout: Option<Duration>,
    max_message_bytes: u32,
    settings: HashMap<String, String>,
}

/// Makes a [`Client`]; from [`Client::builder`].
#[derive(Clone, Debug, Default)]
pub struct ClientBuilder {
    settings: Settings,
    positions: Vec<String>,
    forget: bool,
}

impl ClientBuilder {
    /// The logical database. Default: the broker's.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.settings.database = name.into();
        self
    }

    /// The session whose writes are seen: at most 128 bytes, chosen by you. Default: none; position tokens alone count.
    #[must_use]
    pub fn session_id(mut self, id: impl Into<String>) -> Self {
        self.settings.session_id = id.into();
        self
    }

    /// How long a call may take, its stream of rows included. Default: the broker's own default timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// The largest message to accept, in bytes; the broker is told. Default: 4 MiB.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: u32) -> Self {
        self.settings.max_message_bytes = bytes;
        self
    }

    /// A setting for the length of every transaction, as by SET LOCAL: a name of your own with a point in it, such as
    /// `app.tenant`, or one of those that the broker allows. May be given several times.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.settings.insert(name.into(), value.into());
        self
    }

    /// A position token to begin with, as another service handed it over. May be given several times.
    #[must_use]
    pub fn position(mut self, token: impl Into<String>) -> Self {
        self.positions.push(token.into());
        self
    }

    /// Whether the client remembers the tokens of its answers. Default: yes.
    #[must_use]
    pub fn remember_positions(mut self, remember: bool) -> Self {
        self.forget = !remember;
        self
    }

    /// Connects to a broker, such as `http://127.0.0.1:7432`.
    ///
    /// # Errors
    /// [`Error::Connect`]
    pub async fn connect(self, url: impl Into<String>) -> Result<Client, Error> {
        let channel = endpoint(url.into())?.connect().await.map_err(Error::Connect)?;
        Ok(self.over(channel))
    }

    /// As [`Self::connect`], but connects with the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Connect`] if the URL makes no sense.
    pub fn connect_lazy(self, url: impl Into<String>) -> Result<Client, Error> {
        Ok(self.over(endpoint(url.into())?.connect_lazy()))
    }

    /// A client over a channel of your own: for TLS, a Unix socket, or a load-balanced channel.
    pub fn over(self, channel: Channel) -> Client {
        Client {
            stub: BrokerServiceClient::new(channel),
            settings: self.settings,
            positions: Arc::new(Positions::new(self.positions, !self.forget)),
        }
    }
}

pub(crate) fn endpoint(url: String) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(url)
        .map_err(Error::Connect)?
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20)) // a broker that died silently is noticed
        .keep_alive_timeout(Duration::from_secs(10)))
}

impl Client {
    /// Connects to a broker, such as `http://127.0.0.1:7432`, with nothing else set.
    ///
    /// # Errors
    /// [`Error::Connect`]
    pub async fn connect(url: impl Into<String>) -> Result<Client, Error> {
        Client::builder().connect(url).await
    }

    /// A client with a database, a session, a timeout and so on.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The same connection for another session, with no positions yet.
    #[must_use]
    pub fn for_session(&self, session_id: impl Into<String>) -> Client {
        let mut client = self.clone();
        client.settings.session_id = session_id.into();
        client.positions = Arc::new(self.positions.fresh());
        client
    }

    /// The same connection and context, with a setting more: see [`ClientBuilder::setting`]. For calls on behalf of one
    /// tenant, say.
    #[must_use]
    pub fn with_setting(&self, name: impl Into<String>, value: impl Into<String>) -> Client {
        let mut client = self.clone();
        client.settings.settings.insert(name.into(), value.into());
        client
    }

    /// The same connection and context, which must also see this token's position. What either client learns from then
    /// on, the other does not.
    #[must_use]
    pub fn with_position(&self, token: impl Into<String>) -> Client {
        Client { positions: Arc::new(self.positions.with(token.into())), ..self.clone() }
    }

    /// The tokens that the next call will carry: usually one, after concurrent calls three at most for each cluster. Whoever must
    /// see what this client has seen takes all of them.
    pub fn positions(&self) -> Vec<String> {
        self.positions.current()
    }

    /// Runs one read with the default options. Returns once its first rows are there.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; after the first rows they come from the stream.
    pub async fn read(&self, sql: &str, params: impl IntoIterator<Item = Value>) -> Result<ReadStream, Error> {
        self.read_with(sql, params, ReadOptions::default()).await
    }

    /// Runs one read. Returns once its first rows are there.
    ///
    /// # Errors
    /// As [`Self::read`]
    pub async fn read_with(
        &self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
        options: ReadOptions,
    ) -> Result<ReadStream, Error> {
        let options = options.or(self.settings.timeout, self.settings.max_message_bytes);
        let context = self.context(options.operation.clone());
        let sent = context.positions.clone();
        let message = proto::ExecuteReadRequest {
            context: Some(context),
            statement: Some(Statement::new(sql).bind_all(params).into_proto()),
            options: Some((&options).into()),
        };
        let call = self.stub(options.max_message_bytes).execute_read(timed(message, options.timeout)).await;
        match call {
            Ok(response) => {
                ReadStream::open(response.into_inner(), options.timeout, Arc::clone(&self.positions), sent).await
            }
            Err(status) => Err(self.failed(&sent, status.into())),
        }
    }

    /// Listens to channels, as by LISTEN; returns once what is notified from then on arrives. The client's timeout bounds
    /// the wait for that alone: a listener lives until it is dropped.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; later ones come from the stream.
    pub async fn listen(&self, channels: impl IntoIterator<Item = impl Into<String>>) -> Result<ListenStream, Error> {
        let context = Some(self.context(String::new()));
        let message = proto::ListenRequest { context, channels: channels.into_iter().map(Into::into).collect() };
        let mut stub = self.stub(self.settings.max_message_bytes);
        ListenStream::open(stub.listen(Request::new(message)), self.settings.timeout).await
    }

    /// Runs one statement on the primary, as a transaction of its own.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; [`Error::outcome`] says what became of the statement.
    pub async fn execute(&self, sql: &str, params: impl IntoIterator<Item = Value>) -> Result<Written, Error> {
        self.write([Statement::new(sql).bind_all(params)]).await
    }

    /// Runs statements on the primary, in order, as one transaction.
    ///
    /// # Errors
    /// As [`Self::execute`]
    pub async fn write(&self, statements: impl IntoIterator<Item = Statement>) -> Result<Written, Error> {
        self.write_with(statements, WriteOptions::default()).await
    }

    /// Runs statements on the primary, in order, as one transaction.
    ///
    /// # Errors
    /// As [`Self::execute`]
    pub async fn write_with(
        &self,
        statements: impl IntoIterator<Item = Statement>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let context = self.context(options.operation.clone());
        let sent = context.positions.clone();
        let timeout = options.timeout.or(self.settings.timeout);
        let message = proto::ExecuteWriteRequest {
            context: Some(context),
            statements: statements.into_iter().map(Statement::into_proto).collect(),
            isolation: options.isolation.into(),
            idempotency_key: options.idempotency_key,
            outside_transaction: options.outside_transaction,
        };
        match self.stub(self.settings.max_message_bytes).execute_write(timed(message, timeout)).await {
            Ok(response) => {
                let response = response.into_inner();
                self.positions.answered(&sent, &response.position);
                Written::from_proto(response)
            }
            Err(status) => Err(self.failed(&sent, status.into())),
        }
    }

    /// Opens an interactive session, for transactions.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn session(&self) -> Result<Session, Error> {
        Ok(Session::new(self.raw_session().await?, self.settings.timeout))
    }

    /// Opens an interactive session without help: for pipelining.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn raw_session(&self) -> Result<RawSession, Error> {
        RawSession::open(
            self.stub(self.settings.max_message_bytes),
            self.context(String::new()),
            self.settings.max_message_bytes,
            Arc::clone(&self.positions),
        )
        .await
    }

    fn failed(&self, sent: &[String], error: Error) -> Error {
        self.positions.failed(sent, error.position());
        error
    }

    fn context(&self, operation: String) -> proto::CallContext {
        proto::CallContext {
            database: self.settings.database.clone(),
            session_id: self.settings.session_id.clone(),
            positions: self.positions.current(),
            operation,
            settings: self.settings.settings.clone(),
        }
    }

    fn stub(&self, max_message_bytes: u32) -> BrokerServiceClient<Channel> {
        match max_message_bytes {
            0 => self.stub.clone(), // the library's default, 4 MiB
            bytes => self.stub.clone().max_decoding_message_size(bytes as usize),
        }
    }
}

/// A request that carries its time limit as `grpc-timeout`.
fn timed<T>(message: T, timeout: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}
