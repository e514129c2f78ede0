//! `attune-agents migrate`: makes the schema of a self-contained installation, or brings it up to date.

use std::path::Path;

use argh::FromArgs;
use attune_config::{DatabaseConfig, Sources, load_database, process_env, working_folder};
use attune_store_postgres::migration::{self, MigrateError, Migration};
use attune_store_postgres::{CheckError, ConnectError, PostgresStore, Role};
use tracing::level_filters::LevelFilter;

use crate::applets::agent::not_blank;
use crate::applets::platform::accept;
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::rt;
use crate::telemetry::Telemetry;

/// Makes the database schema of a self-contained installation, or brings it up to date. A schema that the platform made is
/// left alone and only checked. Exit code 1 if that one does not fit.
#[derive(Debug, FromArgs)]
struct MigrateArguments {
    /// print what would be run, as SQL for psql, and connect to nothing
    #[argh(switch)]
    print: bool,
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
    config: Option<String>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|MigrateArguments { print, config }| {
        let file = config.map(|file| not_blank("--config", file)).transpose()?;
        let (environment, folder) = (process_env(), working_folder());
        let _telemetry = Telemetry::start(&environment, None, LevelFilter::WARN)?;
        let sources = Sources { environment: &environment, file: file.as_deref().map(Path::new), folder: &folder };
        let config = accept(load_database(sources))?;
        if print {
            let script = migration::script(&config.schema).map_err(connect_failure)?;
            return output::print(&script);
        }
        rt::one_thread()?.block_on(migrate(&config))
    })
}

async fn migrate(config: &DatabaseConfig) -> Result<Exit, Failure> {
    let schema = &config.schema;
    match migration::migrate(config).await.map_err(migrate_failure)? {
        Migration::Done { before, version } if before == version => {
            output::print(&format!("schema {schema} is at version {version} already\n"))
        }
        Migration::Done { before: 0, version } => output::print(&format!("schema {schema} made, version {version}\n")),
        Migration::Done { before, version } => {
            output::print(&format!("schema {schema} brought from version {before} to {version}\n"))
        }
        Migration::Foreign => check(config).await,
    }
}

/// The platform's own migrations are the only ones that change a schema that they made.
async fn check(config: &DatabaseConfig) -> Result<Exit, Failure> {
    let schema = &config.schema;
    let store = PostgresStore::connect(config).await.map_err(connect_failure)?;
    let mut differences = String::new();
    for (role, name) in [(Role::Worker, "workers"), (Role::Sensor, "sensor hosts"), (Role::Hub, "the hub")] {
        match store.check(role).await {
            Ok(()) => {}
            Err(CheckError::Differs(what)) => {
                differences.push_str("it does not fit ");
                differences.push_str(name);
                differences.push_str(": ");
                differences.push_str(&what);
                differences.push('\n');
            }
            Err(error @ CheckError::Store(_)) => return Err(Failure::new(Exit::Unavailable, error)),
        }
    }
    store.close().await;
    let kept = format!("schema {schema} was made by others: nothing was changed\n");
    if differences.is_empty() {
        return output::print(&format!("{kept}it has all that agents and hub need\n"));
    }
    output::print(&format!("{kept}{differences}"))?;
    Ok(Exit::Failed)
}

fn connect_failure(error: ConnectError) -> Failure {
    Failure::new(if error.may_pass() { Exit::Unavailable } else { Exit::Configuration }, error)
}

fn migrate_failure(error: MigrateError) -> Failure {
    let exit = match &error {
        MigrateError::Connect(error) if !error.may_pass() => Exit::Configuration,
        MigrateError::Connect(_) => Exit::Unavailable,
        MigrateError::Newer { .. } => Exit::Configuration,
        MigrateError::Failed { .. } if error.may_pass() => Exit::Unavailable,
        MigrateError::Failed { .. } => Exit::Failed,
    };
    Failure::new(exit, error)
}
