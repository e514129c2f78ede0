//! Images of different kinds on one volume.

use super::*;
use crate::Detected;
use crate::image::Image;

/// What Node's environments are like: nothing in them tells what they were made for.
fn like_node(world: &World, node: &Path, version: &str) -> Chosen {
    let config = json!({
        "interpreter": {"binary": "node"},
        "environment": {"env_type": "node_modules", "create_command": ["sh", "-c", CREATE]},
        "dependencies": {"manifest_file": "manifest", "install_command": ["sh", "-c", INSTALL]},
    });
    Chosen {
        interpreter: Some(node.to_owned()),
        interpreter_version: Some(version.to_owned()),
        ..world.chosen_by(&config)
    }
}

/// A program of this machine's libc; a link, so its real path is that of the shell.
fn node(world: &World) -> PathBuf {
    let node = world.pack("node");
    symlink("/bin/sh", &node).unwrap();
    node
}

#[tokio::test]
async fn another_version_without_an_interpreter_inside_gets_its_own_and_both_are_used_in_turns() {
    let world = World::new();
    let node = node(&world);
    let mut folders = Vec::new();
    for version in ["18.19.0", "20.1.0", "18.20.4", "20.9.1"] {
        let chosen = like_node(&world, &node, version);
        folders.push(folder_of(&ensure(&world.environments(), &chosen).await.unwrap()));
    }
    assert_ne!(folders[0], folders[1]);
    assert_eq!((&folders[2], &folders[3]), (&folders[0], &folders[1]));
    assert_eq!((world.own().len(), world.calls().len()), (1, 4), "one build for each major version");
}

#[tokio::test]
async fn a_survey_tells_what_was_made_for_another_version_that_is_at_the_same_place() {
    let world = World::new();
    let node = node(&world);
    ensure(&world.environments(), &like_node(&world, &node, "18.19.0")).await.unwrap();
    for (version, fits) in [("18.20.4", true), ("20.1.0", false)] {
        let detected = Detected {
            name: "node",
            path: node.clone(),
            real_path: fs::canonicalize(&node).unwrap(),
            version: Some(version.to_owned()),
            image: Image::Unknown,
            tools: Vec::new(),
            took: Duration::ZERO,
            problem: None,
        };
        let [surveyed] = &survey(world.env_dir().parent().unwrap().parent().unwrap(), &[detected])[..] else {
            panic!()
        };
        assert_eq!(surveyed.state == State::Fit, fits, "{surveyed:?}");
    }
}

/// Each of these was made in an image that the one of the test cannot stand for.
#[tokio::test]
async fn native_parts_for_another_image_are_told_apart_by_what_the_build_wrote_down() {
    let others = [
        ("interpreter", json!("/nowhere/node")),
        ("libc", json!("musl")),
        ("glibc", json!([99, 0])),
        ("architecture", json!("s390x")),
    ];
    for (fact, value) in others {
        let world = World::new();
        let chosen = like_node(&world, &node(&world), "18.19.0");
        let shared = folder_of(&ensure(&world.environments(), &chosen).await.unwrap());
        let file = shared.join(origin::ORIGIN);
        let mut written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(!written[fact].is_null(), "{written}");
        written[fact] = value;
        fs::write(&file, written.to_string()).unwrap();
        let surveyed = survey(world.env_dir().parent().unwrap().parent().unwrap(), &[]).remove(0);
        assert!(
            surveyed.folder == world.env_dir() && matches!(surveyed.state, State::Unfit(_)),
            "{fact}: {surveyed:?}"
        );
        for _ in 0..2 {
            let own = folder_of(&ensure(&world.environments(), &chosen).await.unwrap());
            assert_ne!(own, shared, "{fact}");
        }
        assert_eq!(generation::current(&world.env_dir()).unwrap(), shared, "{fact}: still there for the others");
        assert_eq!((world.own().len(), world.calls().len()), (1, 4), "{fact}");
    }
}

#[tokio::test]
async fn an_older_glibc_and_an_environment_of_others_without_an_origin_are_used() {
    let world = World::new();
    let chosen = like_node(&world, &node(&world), "18.19.0");
    let shared = folder_of(&ensure(&world.environments(), &chosen).await.unwrap());
    let file = shared.join(origin::ORIGIN);
    let mut written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    written["glibc"] = json!([2, 1]);
    fs::write(&file, written.to_string()).unwrap();
    assert_eq!(folder_of(&ensure(&world.environments(), &chosen).await.unwrap()), shared);
    fs::remove_file(file).unwrap();
    assert_eq!(folder_of(&ensure(&world.environments(), &chosen).await.unwrap()), shared);
    assert_eq!(world.calls().len(), 2, "built once");
}

/// Relative links of interpreters go up and out, or up and back in.
#[tokio::test]
async fn dangling_links_are_followed_step_by_step_also_upwards() {
    for (target, is_outside) in [("../../../../elsewhere/python3", true), ("../bin/../lib/python3", false)] {
        let world = World::new();
        let chosen = world.chosen(CREATE, INSTALL);
        let environments = world.environments();
        let shared = folder_of(&ensure(&environments, &chosen).await.unwrap());
        let inside = shared.join("bin/run");
        fs::remove_file(&inside).unwrap();
        symlink(target, &inside).unwrap();
        let ensured = folder_of(&ensure(&environments, &chosen).await.unwrap());
        assert_ne!(ensured, shared, "{target}");
        let stays = generation::current(&world.env_dir()) == Some(shared);
        assert_eq!((stays, world.own().len()), (is_outside, usize::from(is_outside)), "{target}");
    }
}
