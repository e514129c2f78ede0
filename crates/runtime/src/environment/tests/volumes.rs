//! What happens to the volume while it is used: builders, users and file systems that fail.

use std::time::SystemTime;

use attune_testkit::SmallDisk;

use super::*;

/// Changes the manifest, so that the next user builds.
async fn rebuild(world: &World, environments: &Environments, manifest: &str) -> Environment {
    fs::write(world.pack("manifest"), manifest).unwrap();
    ensure(environments, &world.chosen(CREATE, INSTALL)).await.unwrap()
}

/// As if nobody had changed it for long.
fn age(folder: &Path) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
    fs::File::open(folder).unwrap().set_modified(long_ago).unwrap();
}

#[tokio::test]
async fn an_old_build_is_kept_as_long_as_it_is_in_use_and_then_removed() {
    let world = World::new();
    // What uses it and what removes it share nothing but the file system.
    let (user, builder) = (world.environments(), world.environments());
    let ready = ensure(&user, &world.chosen(CREATE, INSTALL)).await.unwrap();
    let old = folder_of(&ready);
    age(&old);
    // What is started in it is planned with it, and keeps it.
    let running = world.chosen(CREATE, INSTALL).launch(&ready, &[]).unwrap();
    drop(ready);
    for manifest in ["second", "third"] {
        rebuild(&world, &builder, manifest).await;
    }
    assert!(old.join("bin/run").is_file(), "code still runs in it");
    drop(running);
    rebuild(&world, &builder, "fourth").await;
    assert!(!old.exists(), "nobody uses it any more");
}

#[tokio::test]
async fn what_a_killed_builder_left_is_removed_by_a_later_build() {
    let world = World::new();
    let environments = world.environments();
    rebuild(&world, &environments, "first").await;
    let (left, young) =
        (generation::hidden(&world.env_dir(), "0123abcd"), generation::hidden(&world.env_dir(), "4567abcd"));
    for folder in [&left, &young] {
        fs::create_dir_all(folder.join("half")).unwrap();
    }
    age(&left);
    rebuild(&world, &environments, "second").await;
    assert!(!left.exists() && young.exists(), "the younger one may be somebody's on another machine");
}

#[tokio::test]
async fn of_two_hosts_that_build_at_once_without_common_locks_the_last_one_wins_and_both_builds_are_whole() {
    let world = World::new();
    let here = world.environments();
    let slow = world.chosen(&format!("{CREATE}; until test -e {{pack_dir}}/go; do sleep 0.02; done"), INSTALL);
    let elsewhere = async {
        eventually("the build is half-way", async || (!world.calls().is_empty()).then_some(())).await;
        // The other host's file system does not tell of our lock.
        let other = generation::Generation::new(&world.env_dir());
        program(&other.path.join("bin/run"), "");
        other.publish().unwrap();
        fs::write(world.pack("go"), "").unwrap();
        other.path
    };
    let (ensured, other) = tokio::join!(ensure(&here, &slow), elsewhere);
    let ensured = ensured.unwrap();
    assert_eq!(generation::current(&world.env_dir()), Some(folder_of(&ensured)));
    assert!(folder_of(&ensured).join("installed").is_file());
    assert!(other.join("bin/run").is_file(), "for those who run in it");
}

#[tokio::test]
async fn a_full_volume_is_named_leaves_nothing_half_built_and_is_used_once_there_is_room() {
    let world = World::new();
    let Some(disk) = SmallDisk::mount(&world.dir.path().join("envs")) else { return };
    disk.fill();
    let chosen = world.chosen("mkdir -p {env_dir}/bin && cat /bin/sh > {env_dir}/bin/run", INSTALL);
    let refused = attune_model::chain(&ensure(&world.environments(), &chosen).await.unwrap_err());
    assert!(refused.contains("No space left on device"), "{refused}");
    disk.free();
    let chosen = world.chosen(CREATE, INSTALL);
    let ready = ensure(&world.environments(), &chosen).await.unwrap();
    assert_eq!(world.builds(), 1, "only the one that is there now");
    disk.fill();
    // A new manifest cannot be installed now; what there is stays for those who run in it.
    fs::write(world.pack("manifest"), "x".repeat(8192)).unwrap();
    let refused = attune_model::chain(&ensure(&world.environments(), &chosen).await.unwrap_err());
    assert!(refused.contains("No space left on device"), "{refused}");
    assert!(folder_of(&ready).join("bin/run").is_file());
    assert_eq!(world.builds(), 1);
}

#[tokio::test]
async fn a_read_only_volume_is_used_and_what_it_lacks_is_refused_with_the_reason() {
    let world = World::new();
    let Some(disk) = SmallDisk::mount(&world.dir.path().join("envs")) else { return };
    let chosen = world.chosen(CREATE, INSTALL);
    let built = ensure(&world.environments(), &chosen).await.unwrap();
    disk.make_read_only();
    assert_eq!(ensure(&world.environments(), &chosen).await.unwrap(), built);
    fs::write(world.pack("manifest"), "second").unwrap();
    let refused = attune_model::chain(&ensure(&world.environments(), &chosen).await.unwrap_err());
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert_eq!(world.calls().len(), 2, "nothing was tried");
    assert!(folder_of(&built).join("bin/run").is_file());
}
