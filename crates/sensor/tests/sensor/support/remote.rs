//! A sensor host whose logs and files reach a real hub through its API, whatever becomes of the way there.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attune_hub::{Folders, Hub, HubConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::Secret;
use attune_model::clock::SystemClock;
use attune_model::status::{OwnerType, RetentionPolicy};
use attune_security::{SealingKey, TokenKey};
use attune_sensor::{LogDelivery, SensorConfig, Transport};
use attune_store::{LogArtifact, LogStore};
use attune_testkit::{Proxy, eventually};
use tokio::time::timeout;

use super::{Running, World};

/// Prints what the test writes into its file, a line at a time.
pub(crate) const PARROT: &str = r#"exec tail -n +1 -F "$FACTS/say.$ATTUNE_SENSOR_REF""#;

/// A world, a hub that shares no folder with it, and the way between them.
pub(crate) struct Remote {
    pub(crate) world: World,
    pub(crate) folder: PathBuf,
    pub(crate) way: Proxy,
    pub(crate) tokens: TokenKey,
    pub(crate) stop: Stop,
    pub(crate) tasks: Tasks,
}

impl Remote {
    pub(crate) async fn new(sensors: &[&str]) -> Self {
        Self::with_limit(sensors, u64::MAX).await
    }

    /// … with a hub that takes only so much of a file.
    pub(crate) async fn with_limit(sensors: &[&str], upload_limit_bytes: u64) -> Self {
        let mut world = World::new().await;
        for name in sensors {
            world.add_sensor(name, "shell", PARROT);
            fs::write(world.path(&format!("facts/say.demo.{name}")), "").unwrap();
        }
        let folder = world.path("api/artifacts");
        let tokens = TokenKey::new(&Secret::new("signing secret of the tests".to_owned())).unwrap();
        let sealing = SealingKey::new(&Secret::new("sealing secret of the tests, long".to_owned())).unwrap();
        let mut config = HubConfig::new("127.0.0.1:0".parse().unwrap(), tokens.clone(), sealing);
        config.folders =
            Some(Folders { packs_dir: world.path("packs"), artifacts_dir: folder.clone(), upload_limit_bytes });
        let hub = Hub::build(config, world.store.clone(), world.bus.clone(), Arc::new(SystemClock)).await.unwrap();
        let way = Proxy::start(&hub.local_addr().to_string());
        let (stop, tasks) = (Stop::new(), Tasks::default());
        hub.spawn(&stop, &tasks);
        world.load().await;
        Self { world, folder, way, tokens, stop, tasks }
    }

    /// A file that the sensor `demo.one` writes itself, with a version.
    pub(crate) async fn register_file(&self, name: &str) {
        let artifact = LogArtifact {
            r#ref: format!("demo.{name}"),
            scope: OwnerType::Sensor,
            owner: "demo.one".to_owned(),
            name: name.to_owned(),
            description: String::new(),
            retention_policy: RetentionPolicy::Versions,
            retention_limit: 4,
            execution: None,
            meta: serde_json::json!({}),
            created_by: "sensor",
        };
        self.world.store.add_log_version(&artifact).await.unwrap();
    }

    pub(crate) fn config(&self) -> SensorConfig {
        let mut config = self.world.config();
        config.api_url = format!("http://{}", self.way.authority());
        config.token_key = Some(self.tokens.clone());
        config.artifacts = Transport::Auto;
        config.timing.delivery = LogDelivery {
            gather: Duration::from_millis(20),
            backoff: (Duration::from_millis(20), Duration::from_millis(200)),
            call_limit: Duration::from_millis(800),
        };
        config
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(|_| {}).await
    }

    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut SensorConfig)) -> Running {
        let mut config = self.config();
        change(&mut config);
        self.world.start_host_with(config, Arc::new(SystemClock)).await
    }

    pub(crate) fn say(&self, sensor: &str, text: &str) {
        let path = self.world.path(&format!("facts/say.demo.{sensor}"));
        OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What the platform has of a version.
    pub(crate) fn there(&self, sensor: &str, version: u32) -> Option<String> {
        fs::read_to_string(self.folder.join(format!("sensor/demo/{sensor}/stdout/v{version}.txt"))).ok()
    }

    pub(crate) async fn arrives(&self, sensor: &str, version: u32, text: &str) {
        let mut last = None;
        let waited = timeout(
            Duration::from_secs(20),
            eventually("the log there", async || {
                last = self.there(sensor, version);
                (last.as_deref() == Some(text)).then_some(())
            }),
        );
        let arrived = waited.await.is_ok();
        let last = last.unwrap_or_default();
        assert!(arrived, "{} bytes instead of {}: {:.300}", last.len(), text.len(), last);
    }

    /// Everything that is here of a sensor's standard output.
    pub(crate) fn here(&self, host: &Running, sensor: &str) -> Vec<PathBuf> {
        let folder = format!("artifacts/_pending/sensors/{}/sensor/demo/{sensor}/stdout", host.worker);
        files(&self.world.path(&folder))
    }

    pub(crate) async fn size_of(&self, sensor: &str, version: u32) -> Option<u64> {
        let files = self.world.store.sensor_files(&[format!("demo.{sensor}")]).await.unwrap();
        let path = format!("sensor/demo/{sensor}/stdout/v{version}.txt");
        files.into_iter().find(|file| file.file_path == path).unwrap().size_bytes
    }

    pub(crate) async fn end(self) {
        self.stop.soft().cancel();
        self.tasks.drained().await;
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files
}

/// Lines that cannot be mistaken for one another.
pub(crate) fn lines(range: std::ops::Range<u32>) -> String {
    range.fold(String::new(), |mut text, number| {
        writeln!(text, "line {number:07} of a sensor that has a lot to say").unwrap();
        text
    })
}
