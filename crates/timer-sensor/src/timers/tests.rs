//! Timers, second by second.

use super::*;

fn now(seconds: u64) -> Now {
    let base: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    Now { wall: base + TimeDelta::seconds(i64::try_from(seconds).unwrap()), monotonic: Duration::from_secs(seconds) }
}

fn rule(id: i64, kind: TimerKind, params: Value) -> TimerRule {
    TimerRule { id, r#ref: format!("demo.rule{id}"), kind, params }
}

fn every(id: i64, seconds: u64) -> TimerRule {
    rule(id, TimerKind::Interval, json!({"interval": seconds}))
}

fn fired(timers: &mut Timers, at: Now) -> Vec<i64> {
    timers.due(at).0.into_iter().map(|firing| firing.rule_id).collect()
}

#[test]
fn intervals_do_not_drift_however_late_they_are_served() {
    let mut timers = Timers::new(now(0));
    timers.sync(vec![every(1, 2)], now(0));
    assert_eq!(timers.sleep(now(0)), Duration::from_secs(2));
    let mut late = now(2);
    late.monotonic += Duration::from_millis(900);
    late.wall += TimeDelta::milliseconds(900);
    let (firings, _) = timers.due(late);
    assert_eq!(firings[0].payload["scheduled_at"], "2026-01-01T00:00:02.000Z");
    assert_eq!(firings[0].payload["fired_at"], "2026-01-01T00:00:02.900Z");
    assert_eq!(firings[0].payload["interval_seconds"], 2);
    assert_eq!(timers.sleep(late), Duration::from_millis(1100));
}

#[test]
fn missed_intervals_fire_once_and_keep_the_phase() {
    let mut timers = Timers::new(now(0));
    timers.sync(vec![every(1, 2)], now(0));
    assert_eq!(fired(&mut timers, now(9)), [1]);
    assert_eq!(timers.sleep(now(9)), Duration::from_secs(1));
    assert_eq!(timers.due(now(10)).0[0].payload["count"], 2);
}

#[test]
fn unchanged_rules_keep_their_phase_while_others_come_and_go() {
    let mut timers = Timers::new(now(0));
    timers.sync(vec![every(1, 10), every(2, 10)], now(0));
    let changes = timers.sync(vec![every(1, 10), every(3, 4)], now(5));
    assert!(changes.contains(&Change::Removed { rule_ref: "demo.rule2".into() }), "{changes:?}");
    assert!(changes.contains(&Change::Added { rule_ref: "demo.rule3".into() }), "{changes:?}");
    assert_eq!(fired(&mut timers, now(9)), [3]);
    assert_eq!(fired(&mut timers, now(10)), [1]);
}

#[test]
fn a_rule_with_bad_parameters_is_named_and_harms_no_other() {
    let mut timers = Timers::new(now(0));
    let bad = rule(2, TimerKind::Cron, json!({"expression": "nonsense"}));
    let changes = timers.sync(vec![every(1, 3), bad.clone()], now(0));
    assert!(
        matches!(&changes[1], Change::Invalid { rule_ref, error }
            if rule_ref == "demo.rule2" && error.to_string().contains("expression")),
        "{changes:?}"
    );
    assert!(timers.sync(vec![every(1, 3), bad], now(1)).is_empty(), "reported once");
    assert_eq!(fired(&mut timers, now(3)), [1]);
    assert_eq!(timers.live(), 1);
}

#[test]
fn a_date_fires_once_and_is_over() {
    let mut timers = Timers::new(now(0));
    let date = rule(1, TimerKind::Date, json!({"fire_at": "2026-01-01T00:00:07Z"}));
    let past = rule(2, TimerKind::Date, json!({"fire_at": "2020-01-01T00:00:00Z"}));
    let changes = timers.sync(vec![date, past], now(0));
    assert!(changes.contains(&Change::Over { rule_ref: "demo.rule2".into() }), "{changes:?}");
    assert!(fired(&mut timers, now(6)).is_empty());
    let (firings, changes) = timers.due(now(7));
    assert_eq!((firings.len(), changes), (1, vec![Change::Over { rule_ref: "demo.rule1".into() }]));
    assert_eq!(timers.live(), 0);
}

#[test]
fn many_timers_fire_in_order() {
    let mut timers = Timers::new(now(0));
    timers.sync((1..=200).map(|id| every(id, u64::try_from(id).unwrap())).collect(), now(0));
    let mut count = 0;
    for second in 1..=200 {
        count += fired(&mut timers, now(second)).len();
    }
    assert_eq!(count, (1..=200).map(|every| 200 / every).sum::<usize>());
}

#[test]
fn a_clock_set_forward_leaves_out_what_was_missed_long_ago() {
    let mut timers = Timers::new(now(0));
    timers.sync(vec![rule(1, TimerKind::Cron, json!({"expression": "0 * * * * *"}))], now(0));
    let mut jumped = now(5);
    jumped.wall += TimeDelta::hours(3);
    assert!(fired(&mut timers, jumped).is_empty());
    assert_eq!(timers.sleep(jumped), LONGEST_SLEEP);
    jumped.wall += TimeDelta::seconds(55);
    jumped.monotonic += Duration::from_secs(55);
    assert_eq!(fired(&mut timers, jumped), [1]);
}

#[test]
fn a_clock_set_back_does_not_silence_a_timer() {
    let mut timers = Timers::new(now(0));
    timers.sync(vec![rule(1, TimerKind::Cron, json!({"expression": "0 * * * * *"})), every(2, 30)], now(0));
    let mut back = now(10);
    back.wall -= TimeDelta::days(1);
    assert!(fired(&mut timers, back).is_empty());
    back.wall += TimeDelta::seconds(50);
    back.monotonic += Duration::from_secs(50);
    assert_eq!(fired(&mut timers, back), [2, 1]);
}
