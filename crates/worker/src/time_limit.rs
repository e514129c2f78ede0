//! How long an action may run.

use std::time::Duration;

use serde_json::Value;

/// The limit in `workflow_task`, else that of the action in seconds, else the worker's. Only numbers above 0 are limits.
pub(crate) fn of(workflow_task: Option<&Value>, action_seconds: Option<i32>, default: Duration) -> Duration {
    let of_task = workflow_task.and_then(|task| task.get("timeout_seconds")).and_then(Value::as_f64);
    let of_action = action_seconds.map(f64::from);
    let usable = |seconds: &f64| *seconds > 0.0;
    let seconds = of_task.filter(usable).or_else(|| of_action.filter(usable));
    // More than a duration holds is as good as no limit.
    seconds.map_or(default, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_TIME_LIMIT;

    #[test]
    fn the_limit_is_the_tasks_then_the_actions_then_the_workers() {
        for (of_task, of_action, expected) in [
            (Value::from(7), Some(9), Duration::from_secs(7)),
            (Value::from(0.5), Some(9), Duration::from_millis(500)),
            (Value::from(0), Some(9), Duration::from_secs(9)),
            (Value::from(-1), None, DEFAULT_TIME_LIMIT),
            (Value::Null, Some(0), DEFAULT_TIME_LIMIT),
            (Value::from("7"), Some(-3), DEFAULT_TIME_LIMIT),
            (Value::from(1e300), None, Duration::MAX),
        ] {
            let case = format!("{of_task} {of_action:?}");
            let task = serde_json::json!({ "timeout_seconds": of_task });
            assert_eq!(of(Some(&task), of_action, DEFAULT_TIME_LIMIT), expected, "{case}");
        }
        assert_eq!(of(None, None, Duration::from_secs(7)), Duration::from_secs(7));
    }
}
