//! The private folder of a host that runs: tokens and sockets of its sensors.
//!
//! ```text
//!   <run>/                0700; 0711 where sensors run as another user
//!     control.sock        for `attune-agents sensor ctl`
//!     lock                held while an instance is made
//!     <instance>/         one life of one host
//!       lock              held by that life
//!       7.token           of sensor 7, its user's, replaced as a whole
//!       7.notify          NOTIFY_SOCKET of sensor 7, its user's
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use attune_model::{Secret, SensorId};
use attune_process::effective_user;
use uuid::Uuid;

use crate::notify::NotifySocket;

const LOCK: &str = "lock";
/// Characters of the name of an instance.
const NAME_LENGTH: usize = 8;

/// The folder of this life. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub(crate) struct RunDir {
    instance: PathBuf,
    /// The user of the sensors, where it is not this process's.
    user: Option<u32>,
    _hold: File,
}

impl RunDir {
    /// Makes it, and removes what lives that were killed have left. An existing folder that others could look into or write to is
    /// refused. Sensors that run as another `user` reach what is theirs, and see nothing else.
    pub(crate) fn make(root: &Path, user: Option<u32>) -> io::Result<Self> {
        let user = user.filter(|user| *user != effective_user());
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        private_folder(root, mode)?;
        // Nobody is to remove an instance that is being made. Nobody holds it for long.
        let alone = lock_in(root)?;
        alone.lock()?;
        sweep(root);
        let name = Uuid::new_v4().simple().to_string();
        let instance = root.join(&name[..NAME_LENGTH]);
        private_folder(&instance, mode)?;
        let hold = lock_in(&instance)?;
        hold.lock()?;
        Ok(Self { instance, user, _hold: hold })
    }

    pub(crate) fn token(&self, sensor: SensorId) -> PathBuf {
        self.instance.join(format!("{sensor}.token"))
    }

    fn notify(&self, sensor: SensorId) -> PathBuf {
        self.instance.join(format!("{sensor}.notify"))
    }

    /// Puts a token in the place of the one before: whoever reads sees one or the other, whole. Blocks.
    pub(crate) fn write_token(&self, sensor: SensorId, token: &Secret) -> io::Result<()> {
        let (path, new) = (self.token(sensor), self.instance.join(format!("{sensor}.new")));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        if self.user.is_some() {
            fchown(&file, self.user, None)?;
        }
        file.write_all(token.expose().as_bytes())?;
        fs::rename(new, path)
    }

    /// The socket of a sensor, where that may write to it. Must be called inside a runtime.
    pub(crate) fn bind_notify(&self, sensor: SensorId) -> io::Result<NotifySocket> {
        let socket = NotifySocket::bind(self.notify(sensor))?;
        if self.user.is_some() {
            chown(socket.path(), self.user, None)?;
        }
        Ok(socket)
    }

    /// Of a sensor that does not run any more: it may be good for another day.
    pub(crate) fn remove_token(&self, sensor: SensorId) {
        match fs::remove_file(self.token(sensor)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(sensor.id = %sensor, %error, "the token of a sensor that does not run was not removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.instance) {
            tracing::debug!(%error, path = %self.instance.display(), "the private folder was not removed");
        }
    }
}

fn lock_in(folder: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(folder.join(LOCK))
}

/// Tokens in it may be good for a day.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let is_name = |name: &str| name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_instance = entry.file_name().to_str().is_some_and(is_name);
        if !is_instance || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Err(error) = remove_left(&entry.path()) {
            tracing::warn!(folder = %entry.path().display(), %error, "tokens of an earlier life of a host were not removed");
        }
    }
}

fn remove_left(instance: &Path) -> io::Result<()> {
    match lock_in(instance)?.try_lock() {
        Ok(()) => fs::remove_dir_all(instance),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn private_folder(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| fs::symlink_metadata(folder).is_err()).collect();
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(folder) {
            // Whatever the umask is.
            Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    // Not through a link: in /tmp anybody could have made one.
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != effective_user() || found.mode() & 0o777 & !0o711 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a private folder of this user (mode 0700)", path.display()),
        ));
    }
    // An earlier life had sensors of its own user. It stays as wide as it is: another host may have sensors of other users.
    if found.mode() & mode == mode { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_private_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/run");
        let dir = RunDir::make(&root, None).unwrap();
        for token in ["a long first token", "second"] {
            dir.write_token(SensorId(7), &Secret::new(token.to_owned())).unwrap();
            let path = dir.token(SensorId(7));
            assert_eq!(fs::read_to_string(&path).unwrap(), token);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let instance = dir.instance.clone();
        drop(dir);
        assert!(!instance.exists() && root.exists());
    }

    #[test]
    fn tokens_of_a_host_that_was_killed_go_with_the_next_start_and_those_of_a_living_one_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        let token = Secret::new("token".to_owned());
        let living = RunDir::make(&root, None).unwrap();
        living.write_token(SensorId(7), &token).unwrap();
        let killed = root.join("0badcafe");
        private_folder(&killed, 0o700).unwrap();
        fs::write(killed.join("7.token"), "token").unwrap();
        fs::create_dir(root.join("not ours")).unwrap();
        let next = RunDir::make(&root, None).unwrap();
        assert!(!killed.exists());
        assert!(living.token(SensorId(7)).exists() && next.instance.exists() && root.join("not ours").exists());
    }

    #[test]
    fn a_folder_for_sensors_of_another_user_can_be_passed_and_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/run");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        drop(RunDir::make(&root, None).unwrap());
        assert_eq!((mode(&root), mode(root.parent().unwrap())), (0o700, 0o700));
        let another = Some(effective_user() + 1);
        let dir = RunDir::make(&root, another).unwrap();
        assert_eq!((mode(&root), mode(&dir.instance)), (0o711, 0o711));
        // A host with sensors of its own user beside it.
        let own = RunDir::make(&root, None).unwrap();
        assert_eq!((mode(&root), mode(&own.instance)), (0o711, 0o700));
    }

    #[test]
    fn a_folder_of_others_and_a_link_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(RunDir::make(&open, None).unwrap_err().to_string().contains("not a private folder"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        RunDir::make(&link, None).unwrap_err();
    }
}
