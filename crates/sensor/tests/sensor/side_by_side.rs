//! Logs and files of sensors on their way to the platform do not wait for one another.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use attune_sensor::{LogDelivery, SensorConfig};
use attune_testkit::eventually;
use axum::http::Method;

use crate::support::Running;
use crate::support::relay::Relay;
use crate::support::remote::{Remote, lines};

/// A host that reaches the hub through a relay, and gives nothing up by itself.
async fn start(remote: &Remote) -> (Running, Arc<Relay>) {
    start_with(remote, |_| {}).await
}

async fn start_with(remote: &Remote, change: impl FnOnce(&mut LogDelivery)) -> (Running, Arc<Relay>) {
    let target = format!("http://{}", remote.way.authority());
    let (relay, address) = Relay::start(target, &remote.tasks).await;
    let change = |config: &mut SensorConfig| {
        config.api_url = format!("http://{address}");
        config.timing.delivery.call_limit = Duration::from_mins(5);
        change(&mut config.timing.delivery);
    };
    (remote.start_with(change).await, relay)
}

#[tokio::test]
async fn an_answer_that_does_not_come_holds_up_no_other_log_and_not_the_stop() {
    let remote = Remote::new(&["slow", "one", "two"]).await;
    let (host, relay) = start(&remote).await;
    for sensor in ["slow", "one", "two"] {
        remote.say(sensor, &lines(0..1));
        remote.arrives(sensor, 1, &lines(0..1)).await;
    }
    relay.hold(Some((Method::PATCH, "demo/slow")));
    let before = relay.calls("demo/slow");
    remote.say("slow", &lines(1..2));
    eventually("the call that is kept", async || (relay.calls("demo/slow") > before).then_some(())).await;
    let mut said = lines(0..1);
    for number in 1..10 {
        said.push_str(&lines(number..number + 1));
        for sensor in ["slow", "one", "two"] {
            remote.say(sensor, &lines(number + u32::from(sensor == "slow")..number + 1 + u32::from(sensor == "slow")));
        }
        for sensor in ["one", "two"] {
            remote.arrives(sensor, 1, &said).await;
        }
    }
    assert_eq!(remote.there("slow", 1).unwrap(), lines(0..1));
    assert_eq!(relay.calls("demo/slow"), before + 1, "one call at a time for one log");
    relay.hold(None);
    remote.arrives("slow", 1, &lines(0..11)).await;
    assert_eq!(relay.most_at_once(), 1);
    // Also at the end of the host, which does not wait for it.
    relay.hold(Some((Method::PATCH, "demo/slow")));
    let last = lines(11..12);
    for sensor in ["slow", "one", "two"] {
        remote.say(sensor, &last);
        let current = remote.here(&host, sensor).pop().unwrap();
        eventually("the line here", async || fs::read_to_string(&current).unwrap().ends_with(&last).then_some(()))
            .await;
    }
    host.stop().await;
    assert_eq!(remote.there("one", 1).unwrap(), said.clone() + &last);
    assert_eq!(remote.there("two", 1).unwrap(), said + &last);
    assert_eq!(remote.there("slow", 1).unwrap(), lines(0..11));
    relay.hold(None);
    remote.end().await;
}

#[tokio::test]
async fn a_log_whose_calls_fail_does_not_make_others_wait() {
    let remote = Remote::new(&["slow", "one"]).await;
    // One failure would mean an hour for everybody.
    let an_hour = Duration::from_hours(1);
    let (host, relay) = start_with(&remote, |delivery| delivery.backoff = (an_hour, an_hour)).await;
    for sensor in ["slow", "one"] {
        remote.say(sensor, &lines(0..1));
        remote.arrives(sensor, 1, &lines(0..1)).await;
    }
    relay.hold(Some((Method::PATCH, "demo/slow")));
    remote.say("slow", &lines(1..2));
    eventually("the call that is kept", async || relay.keeps_one().then_some(())).await;
    remote.say("one", &lines(1..2));
    remote.arrives("one", 1, &lines(0..2)).await;
    // It fails as all would, for all that one call tells: with the token that the host has, and with another one.
    relay.refuse(Some((Method::PATCH, "demo/slow")));
    let before = relay.calls("demo/slow");
    relay.hold(None);
    eventually("the failure", async || {
        (relay.calls("demo/slow") > before && relay.under_way("demo/slow") == 0).then_some(())
    })
    .await;
    for number in 2..7 {
        remote.say("one", &lines(number..number + 1));
        remote.arrives("one", 1, &lines(0..number + 1)).await;
    }
    relay.refuse(None);
    host.stop().await;
    assert_eq!(remote.there("slow", 1).unwrap(), lines(0..2), "the end of the host is another attempt");
    remote.end().await;
}

#[tokio::test]
async fn what_fails_at_the_end_does_not_break_off_what_is_under_way() {
    let remote = Remote::new(&["one", "two"]).await;
    let (host, relay) = start(&remote).await;
    for sensor in ["one", "two"] {
        remote.say(sensor, &lines(0..1));
        remote.arrives(sensor, 1, &lines(0..1)).await;
    }
    relay.hold(Some((Method::PATCH, "demo/two")));
    remote.say("two", &lines(1..2));
    eventually("the call that is kept", async || relay.keeps_one().then_some(())).await;
    // As all would have it, for all that the host knows.
    relay.refuse(Some((Method::PATCH, "demo/one")));
    let refused = relay.calls("demo/one");
    remote.say("one", &lines(1..2));
    // With the token that it has, and with another one.
    eventually("a failure", async || (relay.calls("demo/one") >= refused + 2).then_some(())).await;
    host.stop.soft().cancel();
    let refused = relay.calls("demo/one");
    eventually("the last failure", async || {
        (relay.calls("demo/one") >= refused + 2 && relay.under_way("demo/one") == 0).then_some(())
    })
    .await;
    relay.hold(None);
    host.stop().await;
    assert_eq!(remote.there("two", 1).unwrap(), lines(0..2));
    remote.end().await;
}
