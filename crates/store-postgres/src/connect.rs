//! The way to the server: address, schema, TLS, limits, and what can be wrong with it.

use std::future::{Future as _, poll_fn};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr as _;
use std::time::Duration;

use attune_config::DatabaseConfig;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use thiserror::Error;
use tokio::time::timeout;

use crate::error::{has_code, silent};
use crate::pool::CONNECT_LIMIT;

/// Where distributions keep the certificates that they trust. A scratch image has none of them: the roots that are built
/// in are used along with the first that exists.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Settings of every session. The server ends what takes longer than the caller waits. All statements find rows by key, so a plan
/// that fits one value fits all, and none is worth compiling; a plan that was made while a table was small must fit when it has
/// grown.
const SESSION: [(&str, &str); 5] = [
    ("statement_timeout", "5000"),
    ("tcp_keepalives_idle", "30"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
];

/// Why there is no usable database.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL cannot be used. It is not repeated here: it holds the password.
    #[error("database.url cannot be used: {detail}")]
    Url {
        /// What is wrong with it.
        detail: String,
    },
    /// The schema's name cannot be used.
    #[error("database.schema {schema:?} must be 1 to 63 letters, digits or `_`")]
    Schema {
        /// The name.
        schema: String,
    },
    /// Nobody answers.
    #[error("PostgreSQL at {place} cannot be reached")]
    Unreachable {
        /// Host and port, or the socket.
        place: String,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// No secure connection.
    #[error("PostgreSQL at {place} cannot be reached by TLS; check sslmode and sslrootcert in database.url")]
    Tls {
        /// Host and port.
        place: String,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// The server does not let this user in.
    #[error("PostgreSQL at {place} does not let user {user} in; check user and password in database.url")]
    Denied {
        /// Host and port, or the socket.
        place: String,
        /// The user.
        user: String,
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
    /// There is no such database.
    #[error("PostgreSQL at {place} has no database {database}")]
    NoDatabase {
        /// Host and port, or the socket.
        place: String,
        /// The name.
        database: String,
    },
    /// The database has no such schema, or this user may not use it.
    #[error("database {database} at {place} has no schema {schema} that user {user} may use")]
    NoSchema {
        /// Host and port, or the socket.
        place: String,
        /// The database.
        database: String,
        /// The schema.
        schema: String,
        /// The user.
        user: String,
    },
    /// The server is there and refuses, for example because it is starting or has too many clients.
    #[error("PostgreSQL at {place} refuses the connection")]
    Refused {
        /// Host and port, or the socket.
        place: String,
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
}

impl ConnectError {
    /// Whether the same attempt may succeed later. Otherwise somebody has to change the configuration first.
    pub fn may_pass(&self) -> bool {
        match self {
            // The last two: a database that somebody is about to create is waited for as well.
            Self::Unreachable { .. } | Self::Refused { .. } | Self::NoDatabase { .. } | Self::NoSchema { .. } => true,
            Self::Url { .. } | Self::Schema { .. } | Self::Tls { .. } | Self::Denied { .. } => false,
        }
    }
}

/// Where the database is and what is looked for there.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) options: PgConnectOptions,
    pub(crate) schema: String,
}

/// A connection whose socket sends small packets at once, which the driver does not ask for. In the handshake of TLS two of them
/// follow each other, twice: the second one would wait for the server's delayed confirmation of the first, 40 ms each time.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connecting = pin!(options.connect());
    let mut is_searched = options.get_socket().is_none();
    poll_fn(|context| {
        let polled = connecting.as_mut().poll(context);
        // The driver hands out no socket, but by the time its first answer is waited for there is one.
        if is_searched && polled.is_pending() {
            is_searched = !attune_sys::set_no_delay_to(options.get_port()).is_ok_and(|found| found > 0);
        }
        polled
    })
    .await
}

impl Place {
    /// Reads the section; nothing is contacted.
    pub(crate) fn of(config: &DatabaseConfig) -> Result<Self, ConnectError> {
        let schema = checked_schema(&config.schema)?;
        let url = config.url.expose();
        let options = PgConnectOptions::from_str(url).map_err(|error| ConnectError::Url { detail: detail(&error) })?;
        let given = |key: &str| url.split(['?', '&']).skip(1).any(|part| part.split('=').next() == Some(key));
        let named = ["sslrootcert", "ssl-root-cert", "ssl-ca"].into_iter().any(given);
        let mut options = options
            .application_name("attune-agents")
            .statement_cache_capacity(200)
            .options([("search_path", search_path(&schema))])
            .options(SESSION)
            // No locks are kept for a client that vanished, or was frozen, in the middle of a unit of work.
            .options([("idle_in_transaction_session_timeout", config.unit_limit.as_millis().to_string())])
            .disable_statement_logging();
        if let Some(roots) = system_roots().filter(|_| !named) {
            options = options.ssl_root_cert(roots);
        }
        Ok(Self { options, schema })
    }

    /// One connection, or why there is none.
    pub(crate) async fn connect(&self) -> Result<PgConnection, ConnectError> {
        let answer = timeout(CONNECT_LIMIT, connect(&self.options)).await;
        answer.unwrap_or_else(|_| Err(silent(CONNECT_LIMIT))).map_err(|source| self.explain(source))
    }

    /// Whether the schema is there for this user.
    pub(crate) async fn require_schema(&self, connection: &mut PgConnection) -> Result<(), ConnectError> {
        // The name is one that cannot be anything else, see `checked_schema`; as plain text this takes one round trip.
        let schema = &self.schema;
        let sql = format!("SELECT coalesce(has_schema_privilege(to_regnamespace('\"{schema}\"'), 'USAGE'), false)");
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        let answer = timeout(CONNECT_LIMIT, connection.fetch_one(query)).await;
        let row = answer.unwrap_or_else(|_| Err(silent(CONNECT_LIMIT))).map_err(|source| self.explain(source))?;
        if row.try_get(0).map_err(|source| self.explain(source))? {
            return Ok(());
        }
        Err(ConnectError::NoSchema {
            place: self.name(),
            database: self.database(),
            schema: self.schema.clone(),
            user: self.options.get_username().to_owned(),
        })
    }

    /// For people; without user and password.
    pub(crate) fn name(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }

    fn database(&self) -> String {
        self.options.get_database().unwrap_or(self.options.get_username()).to_owned()
    }

    pub(crate) fn explain(&self, source: sqlx::Error) -> ConnectError {
        let place = self.name();
        match &source {
            sqlx::Error::Tls(_) => ConnectError::Tls { place, source },
            // How the driver reports a certificate that is not trusted, and a file of roots that is not there.
            sqlx::Error::Io(error)
                if error.kind() == ErrorKind::InvalidData
                    || error.kind() == ErrorKind::NotFound && self.options.get_socket().is_none() =>
            {
                ConnectError::Tls { place, source }
            }
            sqlx::Error::Configuration(_) => ConnectError::Url { detail: detail(&source) },
            sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("28")) => {
                ConnectError::Denied { place, user: self.options.get_username().to_owned(), source }
            }
            sqlx::Error::Database(_) if has_code(&source, "3D000") => {
                ConnectError::NoDatabase { place, database: self.database() }
            }
            sqlx::Error::Database(_) => ConnectError::Refused { place, source },
            _ => ConnectError::Unreachable { place, source },
        }
    }
}

/// A name that needs no quotes and cannot be anything but a name.
pub(crate) fn checked_schema(schema: &str) -> Result<String, ConnectError> {
    let letters = schema.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if letters && (1..=63).contains(&schema.len()) {
        return Ok(schema.to_owned());
    }
    Err(ConnectError::Schema { schema: schema.to_owned() })
}

/// Schemas of tests see nothing of the shared one (a fact of the platform).
pub(crate) fn search_path(schema: &str) -> String {
    if schema.starts_with("test_") { schema.to_owned() } else { format!("{schema},public") }
}

/// The certificates that the system trusts, where the distribution keeps them.
pub fn system_roots() -> Option<PathBuf> {
    SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}

/// The innermost text of an error about the configuration.
fn detail(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// How long a start may wait between two attempts to connect, for callers that wait.
pub const RETRY_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use attune_model::Secret;

    use super::*;

    fn config(url: &str, schema: &str) -> DatabaseConfig {
        DatabaseConfig {
            url: Secret::new(url.to_owned()),
            schema: schema.to_owned(),
            max_connections: 2,
            min_connections: 0,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_mins(1),
            unit_limit: Duration::from_secs(10),
        }
    }

    #[test]
    fn only_plain_names_are_schemas() {
        for good in ["attune", "test_1", "A9", &"x".repeat(63)] {
            Place::of(&config("postgres://h/d", good)).unwrap();
        }
        for bad in ["", "a b", "a;b", "a\"b", "ä", "a-b", &"x".repeat(64)] {
            let error = Place::of(&config("postgres://h/d", bad)).unwrap_err();
            assert!(matches!(error, ConnectError::Schema { .. }), "{error:?}");
        }
        assert_eq!(search_path("attune"), "attune,public");
        assert_eq!(search_path("test_7"), "test_7");
    }

    #[test]
    fn what_only_the_configuration_can_mend_is_told_from_what_passes() {
        let explain = |url: &str, kind: ErrorKind| {
            let place = Place::of(&config(url, "attune")).unwrap();
            place.explain(sqlx::Error::Io(kind.into())).may_pass()
        };
        assert!(!explain("postgres://h/d", ErrorKind::InvalidData), "a certificate that is not trusted");
        assert!(!explain("postgres://h/d", ErrorKind::NotFound), "no file of roots");
        assert!(explain("postgres:///d?host=/run/postgresql", ErrorKind::NotFound), "a socket that is to come");
        assert!(explain("postgres://h/d", ErrorKind::ConnectionRefused));
    }

    #[test]
    fn the_password_is_in_no_error() {
        for url in ["postgres://u:hunter2@h:notaport/d", "postgres://u:hunter2@h/d?sslmode=nonsense", "hunter2"] {
            let error = Place::of(&config(url, "attune")).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let place = Place::of(&config("postgres://u:hunter2@h:7/d", "attune")).unwrap();
        assert_eq!(place.name(), "h:7");
    }
}
