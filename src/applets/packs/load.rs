//! `attune-agents packs load`: packs into the database of an installation, and their files to where agents find them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use argh::FromArgs;
use attune_config::{Sources, load_platform, process_env, working_folder};
use attune_hub::PackRegistry;
use attune_model::chain;
use attune_model::clock::SystemClock;
use attune_packs::{Loaded, PackContent};
use attune_store::HubStore as _;
use attune_store_postgres::Role as StoreRole;
use tracing::level_filters::LevelFilter;

use crate::applets::agent::not_blank;
use crate::applets::dev::hub_failed;
use crate::applets::platform::{Platform, accept};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::rt;
use crate::telemetry::Telemetry;

use super::{copy, print_problems, verdict};

/// The pack whose runtimes everything else needs.
const CORE: &str = "core";

/// Loads packs into an installation: rows into the database, and with --into their files into the shared folder. A pack
/// with errors is left out, the others are loaded; exit code 1 then.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "load")]
pub(super) struct LoadArguments {
    /// copy the packs into this folder, each under its ref; what was there of a pack is replaced
    #[argh(option)]
    into: Option<PathBuf>,
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
    config: Option<String>,
    /// a pack, or a folder of packs
    #[argh(positional, arg_name = "DIR")]
    pub(super) folders: Vec<PathBuf>,
}

/// Runs it on what was found in the folders.
pub(super) fn run(arguments: LoadArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let LoadArguments { into, config, folders: _ } = arguments;
    let (environment, folder) = (process_env(), working_folder());
    Telemetry::start(&environment, None, LevelFilter::WARN)?;
    let file = config.map(|file| not_blank("--config", file)).transpose()?;
    let sources = Sources { environment: &environment, file: file.as_deref().map(Path::new), folder: &folder };
    let config = accept(load_platform(sources))?;
    let mut output = Output::open()?;
    print_problems(&mut output, loaded)?;
    rt::one_thread()?.block_on(async {
        let platform = Platform::connect(&config, "attune-agents packs load").await?;
        platform.check(StoreRole::Hub).await?;
        let loading = store(&platform, loaded, into.as_deref(), &mut output).await;
        platform.close().await;
        let all_good = loading?;
        output.flush()?;
        Ok(if all_good { verdict(loaded) } else { Exit::Failed })
    })
}

/// Whether every pack went in whole.
async fn store(
    platform: &Platform,
    loaded: &Loaded,
    into: Option<&Path>,
    output: &mut Output,
) -> Result<bool, Failure> {
    let registry = PackRegistry::new(platform.store.clone(), platform.bus.clone(), Arc::new(SystemClock));
    let mut all_good = true;
    for content in &loaded.packs {
        if content.is_builtin() && knows_core(platform).await? {
            continue;
        }
        if let Some(Err(error)) = into.map(|base| copied(content, base)) {
            output.line(&chain(&error))?;
            all_good = false;
            continue;
        }
        let changes = registry.register(&content.pack).await.map_err(hub_failed)?;
        output.line(&format!("{} {} loaded", content.pack.r#ref, content.pack.version))?;
        for skipped in changes.skipped {
            output.line(&format!("{} {} left out: {}", skipped.kind, skipped.r#ref, skipped.reason))?;
            all_good = false;
        }
    }
    Ok(all_good)
}

/// The files come first: a row without its file would be an action that fails.
fn copied(content: &PackContent, base: &Path) -> Result<(), copy::CopyError> {
    if content.is_builtin() { Ok(()) } else { copy::replace(&content.pack.r#ref, &content.path, base) }
}

/// The runtimes that are built in are for installations without a core pack; they must not replace a whole one.
async fn knows_core(platform: &Platform) -> Result<bool, Failure> {
    let core = platform.store.pack(CORE).await.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    Ok(core.is_some())
}
