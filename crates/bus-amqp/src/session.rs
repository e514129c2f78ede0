//! One connection, from its handshake to its end.

use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attune_bus::BusError;
use attune_lifecycle::CancellationToken;
use futures_util::Stream;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPScheme;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::Address;
use crate::error::words;
use crate::wire::{Handle, Transport, Wire, kit};
use crate::{ConnectError, dial, limits, tls, topology};

/// What is needed to make a connection.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) connection_name: String,
    /// What a restricted account may not declare is said once, not with every connection.
    pub(crate) refusal_told: AtomicBool,
}

/// A connection that is, or was, usable.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    wire: Handle,
    /// Cancelled when the connection is lost or closed.
    pub(crate) over: CancellationToken,
    publisher: Mutex<Option<Channel>>,
    control: Mutex<Option<Channel>>,
}

impl Session {
    /// Connects, agrees on everything and declares what all of the platform uses.
    pub(crate) async fn open(target: &Target) -> Result<Arc<Self>, ConnectError> {
        let limit = target.address.uri.query.connection_timeout.map_or(limits::CONNECT, Duration::from_millis);
        let handle = StdMutex::new(None);
        let opened = timeout(limit, Self::attempt(target, &handle)).await;
        let failed = match opened {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(error)) => error,
            Err(_elapsed) => ConnectError::TimedOut { limit },
        };
        // lapin may still be waiting for the broker's half of the handshake.
        if let Some(wire) = handle.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Handle::cut(&wire);
        }
        Err(failed)
    }

    async fn attempt(target: &Target, handle: &StdMutex<Option<Handle>>) -> Result<Arc<Self>, ConnectError> {
        let uri = target.address.uri.clone();
        let stream = dial::dial(&uri.authority.host, uri.authority.port).await?;
        let transport = match (&uri.scheme, &target.tls) {
            (AMQPScheme::AMQPS, Some(settings)) => {
                let stream = tls::agree(settings.clone(), &uri.authority.host, stream).await?;
                Transport::Tls(Box::new(stream))
            }
            _ => Transport::Plain(stream),
        };
        let (wire, cut) = Wire::new(transport);
        *handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(cut.clone());
        let socket = StdMutex::new(Some(wire));
        // lapin asks once, because it is told to try once.
        let connect = async move |_uri, _runtime| {
            let wire = socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            wire.map(AsyncTcpStream::Plain).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected).into())
        };
        let properties = ConnectionProperties::default().with_connection_name(target.connection_name.as_str().into());
        let connection = Connection::connector(uri, kit().into(), connect, properties)
            .await
            .map_err(|error| ConnectError::Refused { reason: words(&error) })?;
        let session = Arc::new(Self {
            connection,
            wire: cut,
            over: CancellationToken::new(),
            publisher: Mutex::default(),
            control: Mutex::default(),
        });
        let refusal = topology::declare_common(&session).await.map_err(|source| ConnectError::Prepare { source })?;
        if let Some(topology::Refusal { what, reason }) = refusal
            && !target.refusal_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(?what, reason, "the broker did not let us declare these; they should exist already");
        }
        Ok(session)
    }

    /// What happens on the connection from now on.
    pub(crate) fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        self.connection.events_listener()
    }

    /// Whether lapin believes in the connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker takes no messages for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// The heartbeat that was agreed on.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        match self.connection.configuration().heartbeat() {
            0 => None,
            seconds => Some(Duration::from_secs(u64::from(seconds))),
        }
    }

    /// A number that changes whenever something was heard.
    pub(crate) fn heard(&self) -> u64 {
        self.wire.heard()
    }

    /// A new channel.
    pub(crate) async fn channel(&self) -> Result<Channel, BusError> {
        self.call("open a channel", self.connection.create_channel()).await
    }

    /// The channel for publishing, with confirms.
    pub(crate) async fn publisher(&self) -> Result<Channel, BusError> {
        let mut kept = self.publisher.lock().await;
        if let Some(channel) = kept.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.channel().await?;
        self.call("confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    /// The channel for topology. The broker closes it with every refusal.
    pub(crate) async fn control(&self) -> Result<Channel, BusError> {
        let mut kept = self.control.lock().await;
        if let Some(channel) = kept.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.channel().await?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    /// Waits for the answer to one question, as long as the connection lives.
    pub(crate) async fn call<T>(
        &self,
        what: &str,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BusError> {
        let limited = timeout(limits::CALL, answer);
        let answer = tokio::select! {
            () = self.over.cancelled() => return Err(BusError::Unavailable("the connection was lost".to_owned())),
            answer = limited => answer,
        };
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_amqp_soft_error() => {
                Err(BusError::Refused { what: what.to_owned(), reason: words(&error) })
            }
            Ok(Err(error)) => Err(BusError::Unavailable(words(&error))),
            Err(_elapsed) => Err(BusError::Unavailable(format!("no answer within {:?} to: {what}", limits::CALL))),
        }
    }

    /// Says good-bye if `politely`, and drops the socket in any case.
    pub(crate) async fn end(&self, politely: bool) {
        if politely && self.is_connected() {
            let goodbye = self.connection.close(200, "OK".into());
            match timeout(limits::CLOSE_CONNECTION, goodbye).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = words(&error), "the broker did not part in friendship"),
                Err(_elapsed) => tracing::debug!("the broker did not say good-bye; dropping the connection"),
            }
        }
        self.over.cancel();
        self.wire.cut();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.over.cancel();
        self.wire.cut();
    }
}
